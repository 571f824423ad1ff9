"""``release``: what calls of unknown cost hold is let go; an audit says which, by whom and why.

Owns what is stranded: outcomes that count more than they are known to have cost.  Never changes a
line: budgets take off what the audit says (docs/FORMAT.md, "Budgets").
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from litellm_ledger._errors import LedgerPathError
from litellm_ledger._maintenance.additions import Audits, moment_now
from litellm_ledger._maintenance.one_run import need_locks, one_run
from litellm_ledger._reading.adjustments import read_additions
from litellm_ledger._reading.lines import Line, Problem, everything
from litellm_ledger._reading.listing import Snapshot, list_live
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.audit import RELEASE, Audit, Released
from litellm_ledger._records.layout import BUDGETS, PRICES
from litellm_ledger._storage.filesystem import REAL
from litellm_ledger._storage.live_file import lives, unlock

from .amounts import spent_by
from .jobs import what_it_settles
from .past import picodollars
from .table import lock_budgets

__all__ = ["Stranded", "cut_off", "release", "stranded"]

_IN_ONE: Final = 500
"""Calls that one audit is about: its line stays below a megabyte."""


class Stranded(NamedTuple):
    """A call that counts more than it is known to have cost.

    Attributes:
        writer: whose record it is.
        status: of the outcome.
        released: what a release of it says.
    """

    writer: str
    status: str
    released: Released


def stranded(root: Path, fits: Callable[[Line], bool] = lambda _: True) -> list[Stranded]:
    """Return the calls whose money is stranded, in ledger order.

    Those of a process that died are there when ``recover`` has settled them.

    Args:
        fits: which outcomes are asked for.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read.
        UnsupportedFormat: a newer version wrote it.
        MissingExtra: some of it is in the archive, and DuckDB is not installed.
    """
    snapshot = Snapshot.take(root)
    problems: list[Problem] = []
    before: dict[str, tuple[int, int]] = {}
    for one in read_additions(root, snapshot.adjustments, problems):
        if not isinstance(one, Adjustment):
            for let in one.released:
                usd, tokens = before.get(let.record, (0, 0))
                before[let.record] = usd + let.picousd, tokens + let.tokens
    found = []
    counted: set[str | None] = set()
    for entry in everything(snapshot, problems):
        line = entry.line
        counted.add(what_it_settles(line.meta))
        if line.kind != "usage" or line.ts is None or not fits(line):
            continue
        if line.hold_picousd is None and line.hold_tokens is None:
            continue
        cost = picodollars(line)
        counts = spent_by(line, cost)
        usd, tokens = before.get(line.id, (0, 0))
        usd = (counts.usd or 0) - (cost or 0) - usd
        tokens = (counts.tokens or 0) - (line.total_tokens or 0) - tokens
        if usd > 0 or tokens > 0:
            let = Released(
                record=line.id,
                picousd=max(0, usd),
                tokens=max(0, tokens),
                ts=line.ts,
                model=line.model,
                tags=line.tags,
            )
            found.append(Stranded(entry.segment.writer, line.status or "ok", let))
    return [one for one in found if one.released.record not in counted]


def cut_off(root: Path) -> list[str]:
    """Return the writers that died and are not recovered: what their calls held is not listed."""
    return [writer for writer in list_live(root) if not lives(root, writer)]


def release(
    root: Path,
    which: Iterable[str],
    *,
    who: str,
    why: str,
) -> list[Audit]:
    """Write that budgets count what these calls held no more; return the audits.

    What was released or settled meanwhile is left out: nothing is let go twice.

    Args:
        root: the ledger.
        which: ids of outcomes, as ``stranded`` has them.
        who, why: stand on the audits.

    Raises:
        LedgerPathError: there is no ledger; it cannot be read or written; another run changes it.
        UnsupportedFormat: a newer version wrote it.
        UnsupportedPlatform: not POSIX.
    """
    need_locks("changed")
    Snapshot.take(root)  # before anything is made there
    wanted = frozenset(which)
    with one_run(REAL, root, PRICES, "release money in", "changed"), _no_job_is_counted(root):
        found = [one for one in stranded(root) if one.released.record in wanted]
        if not found:
            return []
        audits = Audits(RELEASE, moment_now(root), who, why)
        for part in _parts(found):
            audits.add(part[0].writer, released=[one.released for one in part])
        audits.write(root, REAL)
        return audits.made


@contextlib.contextmanager
def _no_job_is_counted(root: Path) -> Iterator[None]:
    try:
        held = lock_budgets(root)
    except OSError as exc:
        raise LedgerPathError(f"cannot lock {root / BUDGETS}: {exc.strerror}") from exc
    try:
        yield
    finally:
        unlock(held)


def _parts(found: Sequence[Stranded]) -> Iterable[Sequence[Stranded]]:
    """Split what was found by writer, and into audits of a bounded size."""
    by_writer: dict[str, list[Stranded]] = {}
    for one in found:
        by_writer.setdefault(one.writer, []).append(one)
    for of_one in by_writer.values():
        for start in range(0, len(of_one), _IN_ONE):
            yield of_one[start : start + _IN_ONE]
