"""What ``verify`` and ``recover`` print.

Owns the text form of verifications and recoveries.  Draws nothing itself (that is ``_tables``) and
reads no ledger.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._reading import Problem
from ._tables import Column, clean, show, write
from ._verdict import Verification, WriterVerdict

if TYPE_CHECKING:
    from ._recovery import RecoveryReport

__all__ = ["print_recovery", "print_verification"]

_MANY: Final = 20
"""Writers listed one by one; of more, those that are fine are summed up."""


def print_verification(found: Verification) -> None:
    """Print a row and a sentence per writer, the damage by file and offset, what is not proved."""
    if not found.writers:
        write(f"No writer has used {found.path} yet.")
        return
    listed = found.writers
    if len(listed) > _MANY:
        listed = [w for w in listed if not (w.ok and w.clean)]
    if listed:
        show(_counts(listed))
        write()
        for writer in listed:
            write(f"{writer.writer}: {writer.sentence()}.")
            for problem in writer.problems:
                write(f"  {_problem(problem)}")
    if len(listed) < len(found.writers):
        write(f"{len(found.writers) - len(listed):,} more writers closed cleanly, nothing missing.")
    if found.recovery:
        write()
        write(f"Kept in recovery/ for you to look at: {', '.join(map(clean, found.recovery))}")
    write()
    for sentence in found.cannot_prove():
        write(f"Cannot prove: {sentence}")
    write(_bottom_line(found))


def _counts(writers: list[WriterVerdict]) -> list[Column]:
    def count(title: str, field: str, keep: int) -> Column:
        values = [getattr(writer, field) for writer in writers]
        return Column(title, ["-" if value is None else f"{value:,}" for value in values], keep)

    return [
        Column("writer", [writer.writer for writer in writers], left=True),
        Column("state", [writer.state for writer in writers], 8, left=True),
        count("accepted", "accepted", 6),
        count("written", "written", 4),
        count("synced", "synced", 3),
        count("found", "found", 7),
        count("lost", "lost", 9),
        count("torn bytes", "torn_bytes", 5),
        Column("damaged", [f"{len(writer.problems):,}" for writer in writers], 8),
        count("unsettled", "unsettled", 5),
        count("in flight", "in_flight", 2),
        Column("verdict", ["ok" if writer.ok else "NOT OK" for writer in writers], left=True),
    ]


def _problem(problem: Problem) -> str:
    if problem.what != "damaged":
        return f"{problem.file}: {problem.what}: {clean(problem.detail)}"
    if not problem.length:
        return f"{problem.file}: lines missing before byte {problem.offset:,}"
    lines = "line" if problem.lines == 1 else "lines"
    return (
        f"{problem.file}: {problem.lines:,} damaged {lines}, "
        f"{problem.length:,} bytes from byte {problem.offset:,}"
    )


def _bottom_line(found: Verification) -> str:
    if found.ok:
        torn = found.total("torn_bytes")
        return f"OK: {found.total('found'):,} records found, nothing lost or damaged" + (
            f"; {torn:,} torn bytes, which litellm-ledger recover cuts off." if torn else "."
        )
    damage = sum(len(writer.problems) for writer in found.writers)
    parts = [
        f"{found.total('lost'):,} lost" if found.total("lost") else "",
        f"{found.total('quarantined'):,} quarantined" if found.total("quarantined") else "",
        f"{damage:,} damaged {'place' if damage == 1 else 'places'}" if damage else "",
    ]
    return f"NOT OK: {', '.join(filter(None, parts))}."


def print_recovery(path: Path, report: RecoveryReport) -> None:
    """Print what recovery did, a line per writer."""
    for writer in report.writers:
        if writer.error:
            write(f"{writer.writer}: NOT FINISHED: {writer.error}; run this again")
            continue
        least = "" if writer.exact else "at least "
        write(
            f"{writer.writer}: {len(writer.sealed):,} sealed, {least}{writer.lost:,} lost, "
            f"{writer.damaged:,} damaged, {writer.unsettled:,} unsettled, "
            f"{writer.torn_bytes:,} torn bytes"
        )
        for name in writer.quarantined:
            write(f"  kept in recovery/: {name}")
    for name in report.skipped:
        write(f"{name}: alive, left alone")
    for name in report.orphans:
        write(f"{name}: its writer's counters are gone, left as it is (readers take it)")
    if not report.writers:
        write(f"Nothing to recover in {path}.")
