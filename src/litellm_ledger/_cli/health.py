"""The commands about the ledger itself (what is to do, where is it), and ``ask``.

Owns their words and flags, and what they print.  All of it comes from ``Ledger``,
``_reports.doctor`` and ``_litellm.self_check``; ``_cli.tables`` draws it.  ``ask`` and
``doctor --litellm`` alone import LiteLLM, when they run.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from litellm_ledger._aggregates.formatting import clean, counted
from litellm_ledger._errors import LedgerError, LedgerPathError
from litellm_ledger._storage.location import ENVIRONMENT

from .flags import Directories, Output, complain, emit, in_a_directory, one_by_one
from .parameters import argument, option
from .progress import working
from .settings import foreign, ledger_directory, settings
from .tables import put_text, tell, write, write_marked
from .verify import lost_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litellm_ledger._litellm.self_check import LiteLLMCheck
    from litellm_ledger._maintenance.compact import Compaction
    from litellm_ledger._maintenance.recover import RecoveryReport
    from litellm_ledger._reports.doctor import Finding
    from litellm_ledger._reports.ledger import Ledger
    from litellm_ledger._reports.second_opinion import SecondOpinion

__all__ = ["ask", "compact", "doctor", "path", "recover"]


def doctor(
    output: Output,
    paths: Directories = (),
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
        if paths or prices:
            raise ValueError(
                "--litellm checks the installed LiteLLM, not a ledger: leave PATH and --prices out"
            )
        return _check_litellm(output)
    from litellm_ledger._reports.doctor import Finding, examine
    from litellm_ledger._reports.ledger import Ledger

    ledger = Ledger(paths or ledger_directory())
    in_a_directory(
        ledger,
        "run doctor on each machine. litellm-ledger verify URL says whether all is there, and "
        "litellm-ledger database check URL whether a database is fit",
    )
    if len(ledger.paths) > 1:
        return one_by_one(
            ledger, output, lambda one: doctor(output, (str(one.path),), prices=prices)
        )
    with working(f"examining {ledger.path}"):
        findings = examine(ledger)
        opinion = _second_opinion(ledger) if prices else None
    if opinion is not None:
        findings.append(opinion.finding)
    if said := _in_force():
        findings.append(Finding(check="settings", level="ok", text=said))
    findings += [Finding(check="settings", level="note", text=text) for text in foreign]
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

    return emit(output, plain, table, status=int(warned), calm=True)


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
        calm=True,
    )


def _print_recovery(path: Path, report: RecoveryReport) -> None:
    """Print what recovery did, a line per writer."""
    for writer in report.writers:
        if writer.error:
            write(f"{writer.writer}: NOT FINISHED: {writer.error}; run this again")
            continue
        sealed, least = counted(len(writer.sealed), "segment"), "" if writer.exact else "at least "
        lost = lost_records(writer.lost, writer.unacknowledged)
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
        calm=True,
    )


def _print_compaction(path: Path, done: Compaction) -> None:
    """Print what compaction did and what it left alone."""
    if done.segments:
        less = f"{done.bytes_before:,} bytes are now {done.bytes_after:,}"
        segments, files = counted(done.segments, "segment"), counted(len(done.files), "file")
        write(f"{segments} with {counted(done.records, 'line')} joined into {files}: {less}")
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
    put_text(f"{ledger_directory()}\n")
    if said := _in_force():
        complain(said)
    return 0


def _in_force() -> str:
    """Say which file of settings is in force, and what it sets; nothing if there is none."""
    found = settings()
    if found.file is None:
        return ""
    said = f"settings of {found.file}: {', '.join(found.given) or 'none'}"
    if found.ledger is not None and os.environ.get(ENVIRONMENT):
        said += f" (${ENVIRONMENT} beats its ledger)"
    return said


def ask(
    question_: Annotated[str, argument(metavar="QUESTION", help="The text to send.")],
    output: Output,
    model: Annotated[str, option(help="Model name, as LiteLLM expects it.")],
    ledger: Annotated[
        Path | None,
        option(
            help="Ledger directory. Default: $LITELLM_LEDGER_DIR, that of litellm-ledger.toml, or "
            "your user data directory."
        ),
    ] = None,
    api_base: Annotated[str | None, option(help="Base URL of the provider's API.")] = None,
) -> int:
    """Make one real call and record it; print the answer and its record."""
    import asyncio

    from litellm_ledger._reports.plain import record_dict

    from .records import print_record

    where = ledger_directory(ledger)
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
