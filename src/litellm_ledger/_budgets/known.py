"""What the clients of a ledger enforce, as they say themselves: ``budgets/definitions.json``.

Owns that file.  It is for the command line, which otherwise could not know a budget that is given
in code.  No client believes it: each enforces what its own program gives it, so a file that
somebody else has changed shows wrong figures and lets nothing pass.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from litellm_ledger._errors import LedgerPathError
from litellm_ledger._reading.listing import list_segments
from litellm_ledger._records.escaping import escaped
from litellm_ledger._records.layout import BUDGETS
from litellm_ledger._storage.claims import read_shared, rewritten
from litellm_ledger._storage.live_file import lives

from .budget import Budget
from .definitions import budget_of, definition

__all__ = ["known_budgets", "remember", "shared_at"]

_log = logging.getLogger("litellm_ledger")

_FILE: Final = "definitions.json"
_MOST: Final = 64
"""Writers that are remembered; the oldest are dropped."""


class _Said(msgspec.Struct, frozen=True):
    """What one writer enforces, since when it says so, and who lends it the limits, if anybody."""

    seen: str
    budgets: list[dict[str, Any]]
    at: str = ""


def remember(root: Path, writer: str, budgets: Sequence[Budget], at: str = "") -> None:
    """Write down what a writer enforces, and ``at`` which database its limits are shared.

    Blocks; a failure is only logged.
    """
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    said = _Said(now, [definition(one) for one in budgets], at)
    try:
        with rewritten(root / BUDGETS / _FILE, _Said) as known:
            known.pop(writer, None)
            same = [
                name
                for name, one in known.items()
                if (one.budgets, one.at) == (said.budgets, said.at)
            ]
            for name in same:
                if not lives(root, name):
                    del known[name]
            while len(known) >= _MOST:
                del known[min(known, key=lambda name: known[name].seen)]
            known[writer] = said
    except OSError as exc:
        _log.warning("the command line will not know these budgets: %s", escaped(str(exc)))


def shared_at(root: Path) -> list[str]:
    """Return the databases at which clients that live, or the last one, share their limits."""
    try:
        known = read_shared(root / BUDGETS / _FILE, _Said)
    except OSError:
        return []
    return sorted({one.at for one in _chosen(root, known) if one.at})


def _chosen(root: Path, known: Mapping[str, _Said]) -> list[_Said]:
    living = [one for name, one in known.items() if lives(root, name)]
    return living or sorted(known.values(), key=lambda one: one.seen)[-1:]


def known_budgets(root: Path) -> tuple[list[Budget], list[str]]:
    """Return the budgets of the clients that live, of the last one where none does, and what could
    not be understood.

    Raises:
        LedgerPathError: there is no ledger, no client has said any, or the file cannot be read.
    """
    file = root / BUDGETS / _FILE
    try:
        known = read_shared(file, _Said)
    except OSError as exc:
        raise LedgerPathError(
            f"{file} cannot be read: {exc.strerror}; read it as the user who owns it, or give a "
            "file of budgets: --budgets budgets.toml"
        ) from exc
    chosen = _chosen(root, known)
    if not chosen:
        list_segments(root)  # says so if there is no ledger at all
        raise LedgerPathError(
            f"no client of the ledger at {root} has said which budgets it enforces; give a file of "
            "budgets: --budgets budgets.toml"
        )
    found: dict[str, Budget] = {}
    problems = []
    for one in chosen:
        for members in one.budgets:
            try:
                budget = budget_of(members)
            except (TypeError, ValueError) as exc:
                problems.append(f"{file} has something that is no budget: {escaped(str(exc))}")
            else:
                found[budget.counts] = budget
    return list(found.values()), problems
