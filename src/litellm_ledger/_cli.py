"""The ``litellm-ledger`` command: its commands, their arguments and exit statuses.

Owns the words of the command line.  Everything it prints comes from ``Ledger``, everything it draws
goes through ``_tables``.  Only ``ask`` imports LiteLLM, and only when it runs.

Exit status: 0 fine, 1 something is lost or damaged, 2 wrong usage or cannot be read.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from . import __version__
from ._errors import LedgerError
from ._ledger import Ledger
from ._paths import default_directory

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Where = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PATH]",
        help="Directory of the ledger; $LITELLM_LEDGER_DIR or your data directory by default.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, amounts as exact decimal text.")]


def command(function: Callable[..., int]) -> Callable[..., None]:
    """Make a function a command: its result is the exit status, its errors take one line."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> None:
        status = 0
        try:
            try:
                for stream in (
                    sys.stdout,
                    sys.stderr,
                ):  # a terminal that lacks a character shows '?'
                    if hasattr(stream, "reconfigure"):
                        stream.reconfigure(errors="replace")
                status = function(*args, **options)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # the reader (`head`, a pager) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = _verdict.get("status", 0)
        except KeyboardInterrupt:
            status = 130
        except (LedgerError, ValueError, OSError) as exc:
            complain(exc)
            status = 2
        raise typer.Exit(status)

    summary = (function.__doc__ or "").partition("\n")[0].rstrip(".")
    app.command(short_help=summary)(run)  # click cuts a summary of its own making to 45 characters
    return run


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"litellm-ledger {__version__}\n")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What every language model call used and cost, read from its ledger."""


_verdict: dict[str, int] = {}
"""The status of a command that knows it before it prints, for when nobody reads the print."""


def complain(what: object) -> None:
    """Write one line to standard error."""
    sys.stderr.write("litellm-ledger: " + " ".join(str(what).split()) + "\n")


def put_json(value: Any, *, indent: bool = True) -> None:
    """Write a value as JSON: readable, or on one line."""
    data = msgspec.json.encode(value)
    sys.stdout.write((msgspec.json.format(data, indent=2) if indent else data).decode() + "\n")


@command
def report(
    path: Where = None,
    by: Annotated[
        list[str],
        typer.Option(help="Keys, comma-separated: model, provider, call, status, day, tag:NAME."),
    ] = ["model"],  # noqa: B006 - read by typer, never changed
    json: Json = False,
) -> int:
    """Add up calls, tokens and cost by group, and say how sure the sums are."""
    from ._printing import print_report

    keys = [key.strip() for part in by for key in part.split(",") if key.strip()]
    ledger = Ledger(path or default_directory())
    result = ledger.report(keys)
    if json:
        put_json({"path": str(ledger.path), **result.to_dict()})
    else:
        print_report(ledger.path, result)
    return 0


@command
def records(
    path: Where = None,
    json: Json = False,
    limit: Annotated[
        int | None,
        typer.Option(min=0, help="Only the newest so many; 0: all. [default: 20, with --json all]"),
    ] = None,
    all_kinds: Annotated[
        bool, typer.Option("--all-kinds", help="Also started calls and gaps, not outcomes only.")
    ] = False,
) -> int:
    """List records, the newest last; with --json one object a line."""
    from ._printing import newest, print_records, record_dict

    ledger = Ledger(path or default_directory())
    found = ledger.records(kinds=("started", "usage", "gap") if all_kinds else ("usage",))
    if json:
        for record in newest(found, limit)[0] if limit else found:
            put_json(record_dict(record), indent=False)
    else:
        print_records(*newest(found, 20 if limit is None else limit))
    if found.problems:
        places = "place holds" if len(found.problems) == 1 else "places hold"
        complain(f"{len(found.problems):,} {places} no valid record; run litellm-ledger verify")
    return 0


@command
def verify(
    path: Where = None,
    json: Json = False,
    every: Annotated[
        bool, typer.Option("--all", help="A row for each writer, also for those that are fine.")
    ] = False,
) -> int:
    """Compare the ledger with what its writers counted; exit 1 if something is lost or damaged."""
    from ._printing_health import print_verification

    result = Ledger(path or default_directory()).verify()
    _verdict["status"] = 0 if result.ok else 1
    if json:
        put_json(result.to_dict())
    else:
        print_verification(result, every=every)
    return _verdict["status"]


@command
def recover(path: Where = None, json: Json = False) -> int:
    """Seal what dead writers left behind; settle what was in flight; say what is lost."""
    from ._printing_health import print_recovery
    from ._recovery import recover as recover_directory

    ledger = Ledger(path or default_directory())
    ledger.segments()  # a missing ledger is an error, not an empty recovery
    result = recover_directory(ledger.path)
    failed = any(writer.error for writer in result.writers)
    if json:
        put_json({"path": str(ledger.path), **msgspec.to_builtins(result)})
    else:
        print_recovery(ledger.path, result)
    return 2 if failed else 0


@command
def path() -> int:
    """Print the directory that is used when none is given."""
    sys.stdout.write(f"{default_directory()}\n")
    return 0


@command
def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option(help="LiteLLM's name of the model.")],
    ledger: Annotated[Path | None, typer.Option(help="Directory of the ledger.")] = None,
    api_base: Annotated[str | None, typer.Option(help="Address of the provider's API.")] = None,
    json: Json = False,
) -> int:
    """Make one real call through the ledger; print the answer and its record."""
    from ._asking import ask_once
    from ._printing import print_record, record_dict

    answer, record = ask_once(question, model=model, ledger=ledger, api_base=api_base)
    if json:
        put_json({"answer": answer, "record": record_dict(record)})
    else:
        sys.stdout.write(answer + "\n\n")
        print_record(record)
    return 0
