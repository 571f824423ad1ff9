"""The commands about the ledger itself (is it whole, what is to do, where is it), and ``ask``.

Owns their words and flags.  Everything they print comes from ``Ledger``, ``_reports.doctor`` and
``_litellm.self_check``.  ``ask`` and ``doctor --litellm`` alone import LiteLLM, when they run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from litellm_ledger._errors import LedgerError
from litellm_ledger._storage.location import default_directory

from .flags import Output, Where, emit
from .progress import working

if TYPE_CHECKING:
    from litellm_ledger._reports.ledger import Ledger

__all__ = ["ask", "compact", "doctor", "path", "recover", "verify"]


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
    from litellm_ledger._reports.ledger import Ledger

    from .print_health import print_findings

    ledger = Ledger(path or default_directory())
    with working(f"examining {ledger.path}"):
        findings = examine(ledger)
    warned = any(finding.level == "warning" for finding in findings)
    return emit(
        output,
        lambda: {"path": str(ledger.path), "ok": not warned, "findings": findings},
        lambda: print_findings(findings, color=output.color),
        status=int(warned),
    )


def _check_litellm(output: Output) -> int:
    import asyncio

    from litellm_ledger._litellm.self_check import check_litellm

    from .print_health import print_litellm_check

    with working("checking the installed LiteLLM"):
        found = asyncio.run(check_litellm())
    return emit(output, found.to_dict, lambda: print_litellm_check(found), status=int(not found.ok))


def verify(
    output: Output,
    ledger: Ledger,
    every: Annotated[
        bool,
        typer.Option("--all", help="Show a row for each writer, also for those without a problem."),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Also exit 1 for lost records that were never acknowledged."),
    ] = False,
) -> int:
    """Check that no record is lost; exit 1 if acknowledged records are lost or files damaged."""
    from .print_health import print_verification

    with working(f"verifying {ledger.path}"):
        result = ledger.verify()
    return emit(
        output,
        result.to_dict,
        lambda: print_verification(result, every=every, strict=strict),
        status=0 if (result.complete if strict else result.ok) else 1,
    )


def recover(output: Output, ledger: Ledger) -> int:
    """Clean up after writers that died: seal segments, settle calls in flight, count losses."""
    from litellm_ledger._maintenance.recover import recover as recover_directory

    from .print_health import print_recovery

    ledger.segments()  # a missing ledger is an error, not an empty recovery
    result = recover_directory(ledger.path)
    return emit(
        output,
        lambda: {"path": str(ledger.path), **msgspec.to_builtins(result)},
        lambda: print_recovery(ledger.path, result),
        status=2 if any(writer.error for writer in result.writers) else 0,
    )


def compact(
    output: Output,
    ledger: Ledger,
    today: Annotated[
        bool,
        typer.Option("--today", help="Also join segments of today (UTC), not only of past days."),
    ] = False,
) -> int:
    """Join sealed segments into Parquet files in archive/; every command still reads them."""
    from datetime import UTC, datetime, timedelta

    from litellm_ledger._maintenance.compact import compact as compact_directory

    from .print_health import print_compaction

    until = datetime.now(UTC).date() + timedelta(days=1) if today else None
    with working(f"compacting {ledger.path}"):
        result = compact_directory(ledger.path, until=until)
    return emit(
        output,
        lambda: {"path": str(ledger.path), **msgspec.to_builtins(result)},
        lambda: print_compaction(ledger.path, result),
        status=int(bool(result.left or result.broken)),
    )


def path() -> int:
    """Print the ledger directory that is used when no PATH is given."""
    from .tables import put_text

    put_text(f"{default_directory()}\n")
    return 0


def ask(
    question_: Annotated[str, typer.Argument(metavar="QUESTION", help="The text to send.")],
    output: Output,
    model: Annotated[str, typer.Option(help="Model name, as LiteLLM expects it.")],
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="Ledger directory. Default: $LITELLM_LEDGER_DIR, else your user data directory."
        ),
    ] = None,
    api_base: Annotated[str | None, typer.Option(help="Base URL of the provider's API.")] = None,
) -> int:
    """Make one real call and record it; print the answer and its record."""
    import asyncio

    from .print_records import print_record, record_dict
    from .tables import put_text

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
