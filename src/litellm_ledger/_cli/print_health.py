"""What ``verify``, ``recover``, ``compact`` and ``doctor`` print.

Owns the text form of verifications, recoveries, compactions and findings.  Draws nothing itself
(that is ``_cli.tables``) and reads no ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from litellm_ledger._aggregates.formatting import clean, counted
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.verdict import Verification, WriterVerdict

from .tables import Column, show, tell, write, write_marked

if TYPE_CHECKING:
    from litellm_ledger._litellm.self_check import LiteLLMCheck
    from litellm_ledger._maintenance.compact import Compaction
    from litellm_ledger._maintenance.recover import RecoveryReport
    from litellm_ledger._reports.doctor import Finding

__all__ = [
    "print_compaction",
    "print_findings",
    "print_litellm_check",
    "print_recovery",
    "print_verification",
]


def print_verification(found: Verification, *, every: bool = False, strict: bool = False) -> None:
    """Print how it stands with the writers, the damage by file and offset, what is not proved.

    Those that closed cleanly with nothing missing are summed up in a line, unless ``every``.
    ``strict``: lost records are a failure even if they were never acknowledged.
    """
    if not found.writers and not found.archive:
        write(f"No writer has used {found.path} yet.")
        return
    listed = [writer for writer in found.writers if every or not (writer.ok and writer.clean)]
    if listed:
        show(_counts(listed, strict=strict))
        write()
        for writer in listed:
            tell(f"{writer.writer}: {writer.sentence()}.")
            for problem in writer.problems:
                tell(f"  {_problem(problem)}")
    if len(listed) < len(found.writers):
        tell(_summed_up([writer for writer in found.writers if writer.ok and writer.clean]))
    for explanation in _explanations(listed):
        tell(explanation)
    if found.recovery:
        write()
        tell(f"Kept in recovery/ for inspection: {', '.join(map(clean, found.recovery))}")
    for problem in found.archive:
        tell(f"{problem.file}: {problem.detail}")
    write()
    for sentence in found.cannot_prove():
        tell(f"Cannot prove: {sentence}")
    tell(_bottom_line(found, strict=strict))


_DEAD: Final = ("died", "recovered")

_OF_UNACKNOWLEDGED: Final = (
    "Never acknowledged: the process died after it had numbered these records, and before they "
    "were as safe as its durability level requires. No caller had been told that they were "
    "recorded."
)

_OF_LOSS: Final = (
    "Lost when a process died: these records were in its memory and not yet written. At "
    'durability "queued" records are acknowledged before they are written. Where the durability '
    "level is not on record, all lost records count as acknowledged."
)

_OF_DAMAGE: Final = (
    "Every command skips damaged lines and leaves them unchanged. Restore the file from a backup "
    "if you have one."
)


def _explanations(listed: list[WriterVerdict]) -> list[str]:
    damaged = any(problem.what == "damaged" for writer in listed for problem in writer.problems)
    died = any(not writer.ok and writer.state in _DEAD and writer.lost for writer in listed)
    return [
        *([_OF_DAMAGE] if damaged else []),
        *([_OF_UNACKNOWLEDGED] if any(writer.unacknowledged for writer in listed) else []),
        *([_OF_LOSS] if died else []),
    ]


def _summed_up(writers: list[WriterVerdict]) -> str:
    records = sum(writer.found for writer in writers)
    return (
        f"{counted(len(writers), 'writer')} closed cleanly, nothing missing: "
        f"{counted(records, 'record')} (--all shows each)."
    )


def _counts(writers: list[WriterVerdict], *, strict: bool) -> list[Column]:
    def count(title: str, field: str, keep: int) -> Column:
        values = [getattr(writer, field) for writer in writers]
        return Column(title, ["-" if value is None else f"{value:,}" for value in values], keep)

    verdicts = [writer.complete if strict else writer.ok for writer in writers]
    return [
        Column("writer", [writer.writer for writer in writers], left=True),
        Column("state", [writer.state for writer in writers], 8, left=True),
        count("accepted", "accepted", 6),
        count("written", "written", 4),
        count("synced", "synced", 3),
        count("found", "found", 7),
        count("lost", "lost", 9),
        count("never acked", "unacknowledged", 4),
        count("torn bytes", "torn_bytes", 5),
        Column("damaged", [f"{len(writer.problems):,}" for writer in writers], 8),
        count("unsettled", "unsettled", 5),
        count("in flight", "in_flight", 2),
        Column("verdict", ["ok" if sound else "NOT OK" for sound in verdicts], left=True),
    ]


def _problem(problem: Problem) -> str:
    if problem.what != "damaged":
        return f"{problem.file}: {problem.what}: {clean(problem.detail)}"
    if not problem.length:
        return f"{problem.file}: lines missing before byte {problem.offset:,}"
    return (
        f"{problem.file}: {counted(problem.lines, 'damaged line')}, "
        f"{problem.length:,} bytes from byte {problem.offset:,}"
    )


def _bottom_line(found: Verification, *, strict: bool) -> str:
    never = found.total("unacknowledged")
    if found.complete or (found.ok and not strict):
        torn = found.total("torn_bytes")
        say = f"OK: {found.total('found'):,} records found, "
        if never:
            say += "nothing acknowledged is lost, nothing is damaged; "
            say += f"{counted(never, 'record')} lost that had never been acknowledged"
        else:
            say += "nothing lost or damaged"
        return say + (
            f"; {torn:,} torn bytes, which litellm-ledger recover cuts off." if torn else "."
        )
    damage = sum(len(writer.problems) for writer in found.writers)
    parts = [
        _lost(found.total("lost"), never) if found.total("lost") else "",
        f"{found.total('quarantined'):,} quarantined" if found.total("quarantined") else "",
        counted(damage, "damaged place") if damage else "",
        f"{counted(len(found.archive), 'file')} in archive/ not readable" if found.archive else "",
    ]
    return f"NOT OK: {', '.join(filter(None, parts))}."


def _lost(lost: int, never: int) -> str:
    if not never:
        return f"{lost:,} lost"
    return f"{lost:,} lost ({'all' if never == lost else f'{never:,}'} of these never acknowledged)"


def print_recovery(path: Path, report: RecoveryReport) -> None:
    """Print what recovery did, a line per writer."""
    for writer in report.writers:
        if writer.error:
            write(f"{writer.writer}: NOT FINISHED: {writer.error}; run this again")
            continue
        sealed, least = counted(len(writer.sealed), "segment"), "" if writer.exact else "at least "
        lost = _lost(writer.lost, writer.unacknowledged)
        write(
            f"{writer.writer}: {sealed} sealed, {least}{lost}, "
            f"{writer.damaged:,} damaged, {writer.unsettled:,} unsettled, "
            f"{writer.torn_bytes:,} torn bytes"
        )
        for name in writer.quarantined:
            write(f"  kept in recovery/: {name}")
    for name in report.skipped:
        write(f"{name}: alive, left unchanged")
    for name in report.orphans:
        write(f"{name}: its writer's counters are missing; left unchanged (commands still read it)")
    if not report.writers:
        write(f"Nothing to recover in {path}: no writer has died.")
        write("Sealed segments were not checked for damage; litellm-ledger verify does that.")


def print_compaction(path: Path, done: Compaction) -> None:
    """Print what compaction did and what it left alone."""
    if done.segments:
        less = f"{done.bytes_before:,} bytes are now {done.bytes_after:,}"
        segments, files = counted(done.segments, "segment"), counted(len(done.files), "file")
        write(f"{segments} with {done.records:,} lines joined into {files}: {less}")
    if done.finished:
        write(f"{counted(done.finished, 'segment')} removed that an earlier run had already joined")
    if not done.segments and not done.finished:
        write(f"Nothing to compact in {path}: no sealed segment of a past day is left.")
    for problem in done.left:
        write(f"not compacted: {problem.file}: {problem.detail}")
    for file in done.broken:
        write(f"INCOMPLETE, not read: {file}; restore it from a backup")


_MARKS: Final = {"ok": ("ok", "green"), "note": ("note", "cyan"), "warning": ("WARN", "bold red")}


def print_findings(findings: Sequence[Finding], *, color: bool = True) -> None:
    """Print a line per thing that was looked at, then how it stands."""
    wide = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark, style = _MARKS[finding.level]
        write_marked(
            mark, style, f"{finding.check:<{wide}}  {clean(finding.text, 4_096)}", color=color
        )
    warnings = sum(1 for finding in findings if finding.level == "warning")
    write()
    if warnings:
        tell(f"{warnings:,} {'thing needs' if warnings == 1 else 'things need'} attention.")
    else:
        tell("Nothing needs attention.  (litellm-ledger verify proves that all records are there.)")


def print_litellm_check(found: LiteLLMCheck) -> None:
    """Print what is off with the record of each call, what was not checked, how many are right."""
    for call in found.wrong:
        tell(f"WRONG  {call.call}, {call.ending} ({call.via})")
        for item in call.mismatches:
            tell(f"       {item.what}: expected {clean(item.expected)}, found {clean(item.found)}")
    if found.wrong:
        write()
    for name, install in sorted({(call.call, call.install or "") for call in found.not_checked}):
        number = sum(call.call == name for call in found.not_checked)
        tell(
            f"Not checked: {counted(number, 'call')} of {name}; LiteLLM needs a package: "
            f"pip install '{install}'"
        )
    checked = len(found.calls) - len(found.not_checked)
    what = f"LiteLLM {found.litellm} on Python {found.python}, {found.seconds:.0f} s"
    if found.ok:
        right = "each is on record once, with the right tokens and cost"
        tell(f"OK: {counted(checked, 'call')} checked; {right} ({what}).")
    else:
        tell(f"NOT OK: {len(found.wrong):,} of {counted(checked, 'call')} wrong ({what}).")
