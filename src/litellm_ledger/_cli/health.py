"""The commands about the ledger itself: is it whole, what is to do, where is it.

Owns their words and flags.  Everything they print comes from ``Ledger``, ``_reports.doctor`` and
``_litellm.self_check``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from litellm_ledger._reports.ledger import Ledger
from litellm_ledger._storage.location import default_directory

from .flags import Output, Where, command, put_json, settle

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for function in (doctor, verify, recover, compact):
        command(app, forms=("json",))(function)
    command(app)(path)
    command(app, forms=("json",))(ask)


def doctor(
    output: Output,
    path: Where = None,
    litellm: Annotated[
        bool,
        typer.Option(
            "--litellm",
            help="Check recording with the installed LiteLLM instead of a ledger. Makes no real "
            "call (5 to 30 s; needs the extra testing).",
        ),
    ] = False,
) -> int:
    """Check the ledger for problems; exit 1 if something needs attention."""
    if litellm:
        if path is not None:
            raise ValueError("--litellm checks the installed LiteLLM, not a ledger: leave PATH out")
        return _check_litellm(output)
    from litellm_ledger._reports.doctor import examine

    from .print_health import print_findings
    from .progress import working

    ledger = Ledger(path or default_directory())
    with working(f"examining {ledger.path}"):
        findings = examine(ledger)
    status = settle(int(any(finding.level == "warning" for finding in findings)))
    if output.json:
        put_json(
            {
                "path": str(ledger.path),
                "ok": not status,
                "findings": msgspec.to_builtins(findings),
            }
        )
    else:
        print_findings(findings, color=output.color)
    return status


def _check_litellm(output: Output) -> int:
    import asyncio

    from litellm_ledger._litellm.self_check import check_litellm

    from .print_health import print_litellm_check
    from .progress import working

    with working("checking the installed LiteLLM"):
        found = asyncio.run(check_litellm())
    status = settle(int(not found.ok))
    if output.json:
        put_json(found.to_dict())
    else:
        print_litellm_check(found)
    return status


def verify(
    output: Output,
    path: Where = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Show a row for each writer, also for those without a problem."),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Also exit 1 for lost records that were never acknowledged."),
    ] = False,
) -> int:
    """Compare records with counters; exit 1 if acknowledged ones are lost or files damaged."""
    from .print_health import print_verification
    from .progress import working

    ledger = Ledger(path or default_directory())
    with working(f"verifying {ledger.path}"):
        result = ledger.verify()
    status = settle(0 if (result.complete if strict else result.ok) else 1)
    if output.json:
        put_json(result.to_dict())
    else:
        print_verification(result, every=every, strict=strict)
    return status


def recover(output: Output, path: Where = None) -> int:
    """Finish what dead writers left: seal segments, settle calls in flight, count losses."""
    from litellm_ledger._maintenance.recover import recover as recover_directory

    from .print_health import print_recovery

    ledger = Ledger(path or default_directory())
    ledger.segments()  # a missing ledger is an error, not an empty recovery
    result = recover_directory(ledger.path)
    failed = any(writer.error for writer in result.writers)
    if output.json:
        put_json({"path": str(ledger.path), **msgspec.to_builtins(result)})
    else:
        print_recovery(ledger.path, result)
    return 2 if failed else 0


def compact(
    output: Output,
    path: Where = None,
    today: Annotated[
        bool,
        typer.Option("--today", help="Also join segments of today (UTC), not only of past days."),
    ] = False,
) -> int:
    """Join sealed segments into Parquet files in archive/; every command still reads them."""
    from datetime import UTC, datetime, timedelta

    from litellm_ledger._maintenance.compact import compact as compact_directory

    from .print_health import print_compaction
    from .progress import working

    directory = path or default_directory()
    until = datetime.now(UTC).date() + timedelta(days=1) if today else None
    with working(f"compacting {directory}"):
        result = compact_directory(directory, until=until)
    status = settle(int(bool(result.left or result.broken)))
    if output.json:
        put_json({"path": str(directory), **msgspec.to_builtins(result)})
    else:
        print_compaction(directory, result)
    return status


def path() -> int:
    """Print the ledger directory that is used when no PATH is given."""
    from .tables import put_text

    put_text(f"{default_directory()}\n")
    return 0


def ask(
    question_: Annotated[str, typer.Argument(metavar="QUESTION", help="The text to send.")],
    output: Output,
    model: Annotated[str, typer.Option(help="Model name, as LiteLLM expects it.")],
    ledger: Annotated[Path | None, typer.Option(help="Ledger directory.")] = None,
    api_base: Annotated[str | None, typer.Option(help="Base URL of the provider's API.")] = None,
) -> int:
    """Make one real call and record it; print the answer and its record."""
    from .ask import ask_once
    from .print_records import print_record, record_dict
    from .tables import put_text

    where = ledger or default_directory()
    answer, record = ask_once(question_, model=model, ledger=where, api_base=api_base)
    if output.json:
        put_json({"answer": answer, "record": record_dict(record)})
    else:
        put_text(answer + "\n\n")
        print_record(record)
        put_text(f"\nOn record in {where}\n")
    return 0
