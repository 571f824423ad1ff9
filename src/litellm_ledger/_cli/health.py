"""The commands about the ledger itself (is it whole, what is to do, where is it), and ``ask``.

Owns their words and flags, and what they print.  All of it comes from ``Ledger``,
``_reports.doctor`` and ``_litellm.self_check``; ``_cli.tables`` draws it.  ``ask`` and
``doctor --litellm`` alone import LiteLLM, when they run.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from litellm_ledger._aggregates.formatting import clean, counted
from litellm_ledger._errors import LedgerError, LedgerPathError
from litellm_ledger._storage.location import default_directory

from .audits import audit_line
from .flags import Output, Where, emit
from .parameters import argument, option
from .progress import working
from .tables import Column, put_text, show, tell, write, write_marked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litellm_ledger._litellm.self_check import LiteLLMCheck
    from litellm_ledger._maintenance.compact import Compaction
    from litellm_ledger._maintenance.recover import RecoveryReport
    from litellm_ledger._reading.anchor import AnchorCheck
    from litellm_ledger._reading.lines import Problem
    from litellm_ledger._reading.verdict import Verification, WriterVerdict
    from litellm_ledger._reports.doctor import Finding
    from litellm_ledger._reports.ledger import Ledger
    from litellm_ledger._reports.second_opinion import SecondOpinion

__all__ = ["ask", "compact", "doctor", "path", "recover", "verify"]


def doctor(
    output: Output,
    path: Where = None,
    litellm: Annotated[
        bool,
        option(
            "--litellm",
            help="Check recording with the installed LiteLLM instead of a ledger. Makes no real "
            "call (5 to 30 s; needs the extra testing).",
        ),
    ] = False,
    prices: Annotated[
        bool,
        option(
            "--prices",
            help="Also compare the prices of the models used with those of the package "
            "genai-prices. Nothing is fetched (needs the extra second-opinion).",
        ),
    ] = False,
) -> int:
    """Check the ledger for problems; exit 1 if something needs attention."""
    if litellm:
        if path is not None or prices:
            raise ValueError(
                "--litellm checks the installed LiteLLM, not a ledger: leave PATH and --prices out"
            )
        return _check_litellm(output)
    from litellm_ledger._reports.doctor import examine
    from litellm_ledger._reports.ledger import Ledger

    ledger = Ledger(path or default_directory())
    with working(f"examining {ledger.path}"):
        findings = examine(ledger)
        opinion = _second_opinion(ledger) if prices else None
    if opinion is not None:
        findings.append(opinion.finding)
    warned = any(finding.level == "warning" for finding in findings)

    def plain() -> dict[str, Any]:
        found = {"path": str(ledger.path), "ok": not warned, "findings": findings}
        if opinion is None:
            return found
        from .opinion import opinion_dict

        return {**found, "prices": opinion_dict(opinion)}

    def table() -> None:
        if opinion is not None:
            from .opinion import print_opinion

            print_opinion(opinion, color=output.color)
        _print_findings(findings, color=output.color)

    return emit(output, plain, table, status=int(warned))


def _second_opinion(ledger: Ledger) -> SecondOpinion:
    from litellm_ledger._reports.second_opinion import second_opinion

    return second_opinion(ledger)


_MARKS: Final = {"ok": ("ok", "green"), "note": ("note", "cyan"), "warning": ("WARN", "bold red")}


def _print_findings(findings: Sequence[Finding], *, color: bool = True) -> None:
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


def _check_litellm(output: Output) -> int:
    import asyncio

    from litellm_ledger._litellm.self_check import check_litellm

    with working("checking the installed LiteLLM"):
        found = asyncio.run(check_litellm())
    return emit(
        output, found.to_dict, lambda: _print_litellm_check(found), status=int(not found.ok)
    )


def _print_litellm_check(found: LiteLLMCheck) -> None:
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


def verify(
    output: Output,
    ledger: Ledger,
    every: Annotated[
        bool,
        option("--all", help="Show a row for each writer, also for those without a problem."),
    ] = False,
    strict: Annotated[
        bool,
        option("--strict", help="Also exit 1 for lost records that were never acknowledged."),
    ] = False,
    full: Annotated[
        bool,
        option(
            "--full", help="Check every line, and compare the manifests with the lines. Slower."
        ),
    ] = False,
    anchors: Annotated[
        Path | None,
        option(
            "--anchor",
            metavar="FILE",
            help="Check that nothing changed since the lines in FILE were printed by anchor.",
        ),
    ] = None,
    prices: Annotated[
        bool,
        option(
            "--prices",
            help="Also compute every cost again from its price in the ledger; exit 1 if one "
            "differs.",
        ),
    ] = False,
) -> int:
    """Check that no record is lost; exit 1 if acknowledged records are lost or files damaged."""
    with working(f"verifying {ledger.path}"):
        result = ledger.verify(full=full, anchors=anchors)
    sound = result.complete if strict else result.ok
    if not prices:
        return emit(
            output,
            result.to_dict,
            lambda: _print_verification(result, every=every, strict=strict),
            status=int(not sound),
        )
    from litellm_ledger._reading.price_check import check_prices

    from .prices import check_dict, print_check

    with working(f"computing the costs in {ledger.path}"):
        costs = check_prices(ledger.path)

    def table() -> None:
        _print_verification(result, every=every, strict=strict)
        print_check(costs)

    return emit(
        output,
        lambda: {**result.to_dict(), "prices": check_dict(costs)},
        table,
        status=int(not (sound and costs.ok)),
    )


def _print_verification(found: Verification, *, every: bool = False, strict: bool = False) -> None:
    """Print how it stands with the writers, the damage by file and offset, what is not proved.

    Those that closed cleanly with nothing missing are summed up in a line, unless ``every``.
    ``strict``: lost records are a failure even if they were never acknowledged.
    """
    if not found.writers and not found.archive:
        write(f"No writer has used {found.path} yet.")
        return
    listed = [writer for writer in found.writers if every or not writer.unremarkable]
    if listed:
        show(_counts(listed, strict=strict))
        write()
        for writer in listed:
            tell(f"{writer.writer}: {writer.sentence()}.")
            for problem in writer.problems:
                tell(f"  {_problem(problem)}")
            for problem in writer.known_problems:
                tell(f"  looked into: {_problem(problem)}")
            for audit in writer.audits:
                tell(f"  {audit_line(audit)}")
    if len(listed) < len(found.writers):
        sound = [writer for writer in found.writers if writer.unremarkable]
        records = counted(sum(writer.found for writer in sound), "record")
        writers = counted(len(sound), "writer")
        tell(f"{writers} closed cleanly, nothing missing: {records} (--all shows each).")
    for explanation in _explanations(listed):
        tell(explanation)
    _print_rest(found)
    tell(_bottom_line(found, strict=strict))


def _print_rest(found: Verification) -> None:
    """Print what is not about a writer."""
    if found.recovery:
        write()
        tell(f"Kept in recovery/ for inspection: {', '.join(map(clean, found.recovery))}")
    for problem in found.adjustments:
        tell(f"adjustments: {_problem(problem)}")
    for problem in found.archive:
        tell(f"{problem.file}: {problem.detail}")
    write()
    for one in found.anchors:
        tell(_anchored(one))
    for sentence in found.cannot_prove():
        tell(f"Cannot prove: {sentence}")


def _anchored(found: AnchorCheck) -> str:
    then = f"Anchor of {found.anchor.at}"
    if found.ok:
        return (
            f"{then}: holds; the manifests of its {found.anchor.records:,} records are unchanged."
        )
    return (
        f"{then}: DOES NOT HOLD. It covers {found.anchor.records:,} records; the manifests of that "
        f"time cover {found.records:,} now"
        + (", and they or adjustments differ" if found.records == found.anchor.records else "")
        + ". Compare with a backup."
    )


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
    unacknowledged = any(writer.unacknowledged for writer in listed)
    died = any(
        not writer.ok and writer.state in ("died", "recovered") and writer.lost for writer in listed
    )
    kinds = ((damaged, _OF_DAMAGE), (unacknowledged, _OF_UNACKNOWLEDGED), (died, _OF_LOSS))
    return [explanation for there, explanation in kinds if there]


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
        Column(
            "damaged",
            [f"{len(writer.problems) + len(writer.known_problems):,}" for writer in writers],
            8,
        ),
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
    known = found.looked_into()
    if found.complete or (found.ok and not strict):
        torn = found.total("torn_bytes")
        say = f"OK: {found.total('found'):,} records found, "
        nothing = "nothing"
        if known:
            say += f"looked into: {known}; "
            nothing = "nothing else"
        never -= found.total("known_unacknowledged")
        if never:
            say += f"{nothing} acknowledged is lost, {nothing} is damaged; "
            say += f"{counted(never, 'record')} lost that had never been acknowledged"
        else:
            say += f"{nothing} lost or damaged"
        return say + (
            f"; {torn:,} torn bytes, which litellm-ledger recover cuts off." if torn else "."
        )
    damage = sum(len(writer.problems) for writer in found.writers)
    adjustments = len(found.adjustments)
    wrong = sum(not one.ok for one in found.anchors)
    parts = [
        _lost(found.total("lost"), never) if found.total("lost") else "",
        f"{found.total('quarantined'):,} quarantined" if found.total("quarantined") else "",
        counted(damage, "damaged place") if damage else "",
        counted(adjustments, "damaged place") + " among adjustments" if adjustments else "",
        f"{counted(len(found.archive), 'file')} in archive/ not readable" if found.archive else "",
        f"{counted(wrong, 'anchor')} not held" if wrong else "",
    ]
    looked_into = f" (looked into: {known})" if known else ""
    return f"NOT OK: {', '.join(filter(None, parts))}{looked_into}."


def _lost(lost: int, never: int) -> str:
    if not never:
        return f"{lost:,} lost"
    return f"{lost:,} lost ({'all' if never == lost else f'{never:,}'} of these never acknowledged)"


def _with_path(ledger: Ledger, result: RecoveryReport | Compaction) -> dict[str, Any]:
    import msgspec

    return {"path": str(ledger.path), **msgspec.to_builtins(result)}


def recover(output: Output, ledger: Ledger) -> int:
    """Clean up after writers that died: seal segments, settle calls in flight, count losses."""
    from litellm_ledger._maintenance.recover import recover as recover_directory
    from litellm_ledger._maintenance.seal import seal

    ledger.segments()  # a missing ledger is an error, not an empty recovery
    result = recover_directory(ledger.path)
    if result.writers:
        with contextlib.suppress(LedgerPathError):  # they can be written at any time
            seal(ledger.path)
    return emit(
        output,
        lambda: _with_path(ledger, result),
        lambda: _print_recovery(ledger.path, result),
        status=2 if any(writer.error for writer in result.writers) else 0,
    )


def _print_recovery(path: Path, report: RecoveryReport) -> None:
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


def compact(
    output: Output,
    ledger: Ledger,
    today: Annotated[
        bool,
        option("--today", help="Also join segments of today (UTC), not only of past days."),
    ] = False,
) -> int:
    """Join sealed segments into Parquet files in archive/; every command still reads them."""
    from datetime import UTC, datetime, timedelta

    from litellm_ledger._maintenance.compact import compact as compact_directory

    until = datetime.now(UTC).date() + timedelta(days=1) if today else None
    with working(f"compacting {ledger.path}"):
        result = compact_directory(ledger.path, until=until)
    return emit(
        output,
        lambda: _with_path(ledger, result),
        lambda: _print_compaction(ledger.path, result),
        status=int(bool(result.left or result.broken)),
    )


def _print_compaction(path: Path, done: Compaction) -> None:
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


def path() -> int:
    """Print the ledger directory that is used when no PATH is given."""
    put_text(f"{default_directory()}\n")
    return 0


def ask(
    question_: Annotated[str, argument(metavar="QUESTION", help="The text to send.")],
    output: Output,
    model: Annotated[str, option(help="Model name, as LiteLLM expects it.")],
    ledger: Annotated[
        Path | None,
        option(
            help="Ledger directory. Default: $LITELLM_LEDGER_DIR, else your user data directory."
        ),
    ] = None,
    api_base: Annotated[str | None, option(help="Base URL of the provider's API.")] = None,
) -> int:
    """Make one real call and record it; print the answer and its record."""
    import asyncio

    from .plain import record_dict
    from .records import print_record

    where = ledger or default_directory()
    answer = asyncio.run(_call(question_, model, where, api_base))
    text, record = answer.choices[0].message.content or "", answer.usage_record

    def table() -> None:
        put_text(text + "\n\n")
        print_record(record)
        put_text(f"\nOn record in {where}\n")

    return emit(output, lambda: {"answer": text, "record": record_dict(record)}, table)


async def _call(question: str, model: str, where: Path, api_base: str | None) -> Any:
    """Make one call.

    Raises:
        LedgerError: the ledger cannot be used, or the call failed (its record is on the ledger).
    """
    from litellm_ledger import LiteLLMClient
    from litellm_ledger._litellm.load import load

    litellm: Any = await load()
    litellm.suppress_debug_info = True  # no banners beside our one line on an error
    options: dict[str, Any] = {} if api_base is None else {"api_base": api_base}
    try:
        async with LiteLLMClient(ledger=where) as client:
            return await client.acompletion(
                model=model, messages=[{"role": "user", "content": question}], **options
            )
    except LedgerError:
        raise
    except Exception as exc:  # whatever LiteLLM raises: its classes are not ours to list
        text = str(exc).strip().partition("\n")[0]
        raise LedgerError(
            f"the call failed: {type(exc).__name__}: {text} "
            f"(on record: litellm-ledger records {where})"
        ) from exc
