"""The commands that show single records: list, find, follow, hand on.

Owns their words and flags.  The records are ``Ledger``'s, the looks ``_cli.print_records``'s.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from .flags import (
    RAW,
    Output,
    check_matched,
    check_raw,
    check_where,
    complain,
    emit,
    put_json,
)
from .progress import working

if TYPE_CHECKING:
    from litellm_ledger._aggregates.question import Question
    from litellm_ledger._records.record import UsageRecord
    from litellm_ledger._reports.ledger import Ledger

__all__ = ["calls", "export", "records", "show", "sql", "tail"]

Kinds = Annotated[
    bool, typer.Option("--all-kinds", help="Also print started calls and gaps, not only outcomes.")
]
_ALIKE: Final = 10
"""Operations that are listed when a short id may mean several."""

_LOOK: Final = 0.5
"""Seconds between two looks of ``tail -f``."""


def calls(
    question: Question,
    output: Output,
    ledger: Ledger,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Number of rows; 0: all.")
    ] = 20,
) -> int:
    """List single calls, newest first."""
    from .print_records import print_calls

    with working(f"reading {ledger.path}"):
        check_where(ledger, question)
        found = ledger.calls(**question.selection(), limit=limit or None)
        check_matched(ledger, question, found.matched)
    return print_calls(ledger.path, found, question, output)


def show(
    key: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="The id of a record, a call_id, a response_id or a short id. The beginning or end "
            "of an id is enough if only one id matches.",
        ),
    ],
    output: Output,
    ledger: Ledger,
) -> int:
    """Show one operation with all its attempts."""
    from litellm_ledger._aggregates.formatting import listed
    from litellm_ledger._reports.short_ids import alike

    from .print_records import operation_dict, print_operation

    _not_a_directory(key, "show ID PATH")
    with working(f"looking for {key}"):
        found = ledger.operation(key)
        near = alike(ledger.path, key, _ALIKE + 1) if found is None and key else []
        if len(near) == 1:
            found = ledger.operation(near[0])
    if len(near) > 1:
        raise ValueError(
            f"{key!r} may be one of these operations; give more of the id: {listed(near, _ALIKE)}"
        )
    if found is None:
        raise ValueError(
            f"no record with id, call_id or response_id {key!r} in {ledger.path}; "
            "litellm-ledger calls --json lists them"
        )
    return emit(output, lambda: operation_dict(found), lambda: print_operation(found))


def _not_a_directory(text: str, order: str) -> None:
    if 0 < len(text) < 1_000 and Path(text).is_dir():
        raise ValueError(f"{text} is a directory; it comes last: {order}")


def tail(
    question: Question,
    output: Output,
    ledger: Ledger,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new records.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Number of records to show first.")
    ] = 10,
    all_kinds: Kinds = False,
) -> int:
    """Print the newest records, one per line, newest last."""
    from litellm_ledger._aggregates.selection import Selection
    from litellm_ledger._reading.follow import Follower
    from litellm_ledger._reading.last_written import ended, last_written

    from .print_records import tail_line

    follower = Follower(ledger.path)  # before the listing, so that nothing falls between the two
    shown: set[str | None] = set()

    def put(record: UsageRecord) -> None:
        sys.stdout.write(tail_line(record, question, output) + "\n")
        sys.stdout.flush()  # at once, also into a pipe

    selection = Selection(**question.selection())
    if not follow:  # else the tag may come
        check_where(ledger, question)
    if limit:
        begin = last_written(ledger.path, selection, limit)
        if begin is None:
            begin = sorted(ledger.calls(**question.selection(), limit=limit), key=ended)
        if not follow:
            check_matched(ledger, question, len(begin))
        for record in begin:
            shown.add(record.id)
            put(record)
    while follow:
        for record in follower.look():
            wanted = record.kind == "usage" or all_kinds
            if wanted and record.id not in shown and selection.fits(record):
                put(record)
        time.sleep(_LOOK)
    return 0


def records(
    question: Question,
    output: Output,
    ledger: Ledger,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=0,
            help="Number of records, the newest ones; 0: all. [default: 20; with --json: all]",
        ),
    ] = None,
    all_kinds: Kinds = False,
) -> int:
    """Print records unchanged, newest last; with --json, one object per line."""
    from litellm_ledger._reports.history import Calls, newest

    from .print_records import print_records, record_dict

    check_where(ledger, question)
    most = 20 if limit is None and not output.json else limit
    kept: Calls | None = None
    found: Iterable[UsageRecord]
    if most and not all_kinds:
        kept = ledger.calls(limit=most, **question.selection())
        found, problems = kept.records[::-1], kept.problems
    else:
        read = ledger.records(kinds=_kinds(all_kinds), **question.selection())
        if most:
            kept = newest(read, most)
        found, problems = kept.records[::-1] if kept is not None else read, read.problems
    if output.json:
        matched = 0
        for record in found:
            put_json(record_dict(record), indent=False)
            matched += 1
        check_matched(ledger, question, matched)
    else:
        every = list(found)
        matched = len(every) if kept is None else kept.matched
        check_matched(ledger, question, matched)
        print_records(every, matched, question, color=output.color)
    _tell_problems(problems)
    return 0


def _kinds(every: bool) -> tuple[str, ...]:
    return ("started", "usage", "gap") if every else ("usage",)


def _tell_problems(problems: Sequence[object]) -> None:
    if problems:
        places = "place holds" if len(problems) == 1 else "places hold"
        complain(f"{len(problems):,} {places} no valid record; run litellm-ledger verify")


def sql(
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY", help="One SELECT statement; - reads it from standard input."
        ),
    ],
    output: Output,
    ledger: Ledger,
    allow_files: Annotated[
        bool,
        typer.Option("--allow-files", help="Let the statement read files too, not only the views."),
    ] = False,
) -> int:
    """Run an SQL query on the views calls and records (docs/reports.md lists the columns)."""
    from .print_records import print_answer

    _not_a_directory(query, "sql QUERY PATH")
    if query == "-":
        query = sys.stdin.read()
    try:
        with working(f"querying {ledger.path}"):
            found = ledger.sql(query, allow_files=allow_files)
    except ValueError as exc:
        complain(exc, lines=True)  # the database draws a caret below the place
        return 2
    return print_answer(ledger.path, found, output)


def export(
    question: Question,
    output: Output,  # noqa: ARG001 - adds --no-color, which every command has
    ledger: Ledger,
    csv: Annotated[bool, typer.Option("--csv", help="Write CSV with a header.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Write JSON lines (default).")] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write Parquet (needs -o and the extra report).")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write to this file instead of standard output."),
    ] = None,
    all_kinds: Kinds = False,
    raw: Annotated[bool, typer.Option("--raw", help=RAW)] = False,
) -> int:
    """Export records as JSON lines, CSV or Parquet, with exact amounts."""
    from .export import export_records, tell_written

    form = [n for n, given in (("csv", csv), ("jsonl", jsonl), ("parquet", parquet)) if given]
    if len(form) > 1:
        raise ValueError(f"--{' and --'.join(form)} cannot be combined; give one of them")
    check_raw(raw=raw, csv=csv)
    check_where(ledger, question, every=True)  # first: what is refused leaves no file
    kinds = _kinds(all_kinds)
    problems = export_records(ledger, question, kinds, (form or ["jsonl"])[0], out, raw=raw)
    tell_written(out)
    _tell_problems(problems)
    return 0
