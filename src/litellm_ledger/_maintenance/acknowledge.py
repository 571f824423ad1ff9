"""``acknowledge``: a loss was looked into; an audit says so.

Owns what the audit covers: exactly what ``verify`` finds lost or damaged now.  Never changes or
removes anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from litellm_ledger._reading.audits import place_of
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._reading.verdict import WriterVerdict
from litellm_ledger._reading.verify import verify
from litellm_ledger._records.audit import ACKNOWLEDGE, Audit, Span, spans
from litellm_ledger._records.layout import PRICES
from litellm_ledger._storage.filesystem import REAL, FileSystem

from .additions import Audits, moment_now
from .one_run import need_locks, one_run

__all__ = ["Acknowledged", "acknowledge"]


class Acknowledged(NamedTuple):
    """What one run did.

    Attributes:
        audit: what was written; ``None``: there was nothing.
        left: places that nobody can read, which no audit can cover.
    """

    audit: Audit | None
    left: list[str]


def acknowledge(
    root: Path, writer: str, *, who: str, why: str, fs: FileSystem = REAL
) -> Acknowledged:
    """Write that the losses and the damage of a writer were looked into, as they are now.

    Args:
        root: the ledger.
        writer: its name, as ``verify`` shows it.
        who, why: stand on the audit.
        fs: where all writing goes through.

    Raises:
        ValueError: there is no such writer, or it died and was not recovered.
        LedgerPathError: there is no ledger; it cannot be read or written; another run is at work.
        UnsupportedFormat: a newer version wrote it.
        UnsupportedPlatform: not POSIX.
    """
    need_locks("changed")
    Snapshot.take(root)  # before anything is made there
    with one_run(fs, root, PRICES, "acknowledge a loss in", "changed"):
        found = next(iter(verify(root, full=True, only=writer).writers), None)
        if found is None:
            raise ValueError(
                f"no writer {writer} in {root}; litellm-ledger verify --all lists them"
            )
        if found.state == "died":
            raise ValueError(
                f"{writer} died and was not recovered; run litellm-ledger recover first"
            )
        places = {problem: place_of(root, problem) for problem in found.problems}
        lost, quarantined = _unknown(found)
        damage = [place for place in places.values() if place is not None]
        left = [problem.file for problem, place in places.items() if place is None]
        if not (lost or quarantined or damage):
            return Acknowledged(None, left)
        audits = Audits(ACKNOWLEDGE, moment_now(root), who, why)
        audits.add(writer, lost=lost, quarantined=quarantined, damage=damage)
        audits.write(root, fs)
        return Acknowledged(audits.made[0], left)


def _unknown(found: WriterVerdict) -> tuple[list[Span], list[Span]]:
    """Return the numbers, lost and quarantined, that no audit is about yet."""
    lost = spans([span for audit in found.audits for span in audit.lost])
    quarantined = spans([span for audit in found.audits for span in audit.quarantined])
    return (
        [hole for first, last in found.lost_numbers for hole in lost.missing(first, last)],
        [
            hole
            for first, last in found.quarantined_numbers
            for hole in quarantined.missing(first, last)
        ],
    )
