"""The commands that show single records: list, find, follow, hand on.

Owns their words and flags, and which members of a record are shown in which words.  The records are
``Ledger``'s, ``_cli.tables`` draws them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from litellm_ledger._aggregates.formatting import amounts, clean, counted, listed
from litellm_ledger._records.escaping import escaped, json_text
from litellm_ledger._reports.places import is_url
from litellm_ledger._reports.plain import (
    MONEY,
    one_line,
    operation_dict,
    record_dict,
    utc,
)

from .flags import (
    RAW,
    Output,
    check_matched,
    check_raw,
    check_where,
    complain,
    emit,
    paths_dict,
    place,
    put_json,
    scope,
)
from .parameters import argument, option
from .progress import working
from .tables import Column, write, write_notes
from .tables import show as show_table

if TYPE_CHECKING:
    from litellm_ledger._aggregates.question import Question
    from litellm_ledger._reading.lines import Problem
    from litellm_ledger._records.record import UsageRecord
    from litellm_ledger._reports.history import Calls, Operation
    from litellm_ledger._reports.ledger import Ledger
    from litellm_ledger._reports.plain import Prices

    Ledgers = Ledger  # of one directory, or several

__all__ = [
    "calls",
    "damage",
    "export",
    "print_record",
    "records",
    "refuse_directory",
    "show",
    "tail",
]

Kinds = Annotated[
    bool, option("--all-kinds", help="Also print started calls and gaps, not only outcomes.")
]
_ALIKE: Final = 10
"""Operations that are listed when a short id may mean several."""

_LOOK: Final = 0.5
"""Seconds between two looks of ``tail -f``."""
_LOOK_ELSEWHERE: Final = 2.0


def calls(
    question: Question,
    output: Output,
    ledger: Ledgers,
    limit: Annotated[int, option("--limit", "-n", help="Number of rows; 0: all.")] = 20,
) -> int:
    """List single calls, newest first."""
    with working(f"reading {place(ledger)}"):
        check_where(ledger, question)
        found = ledger.calls(**question.selection(), limit=limit or None)
        check_matched(ledger, question, found.matched)

    def plain() -> dict[str, Any]:
        return {
            **paths_dict(ledger),
            **question.to_dict(),
            "matched": found.matched,
            "calls": [record_dict(record) for record in found],
            "problems": found.problems,
        }

    def csv() -> None:
        from litellm_ledger._reports.csv_lines import put_csv

        put_csv(found, sys.stdout, raw=output.raw)

    def table() -> None:
        if not found.records:
            write(f"No calls on record {scope(ledger, question)}.")
        else:
            _table(found.records, question.tz, md=output.md, color=output.color)
        notes = []
        if found.matched > len(found):
            notes.append(f"The newest {len(found):,} of {found.matched:,}; --limit 0 shows all.")
        notes += _estimated(found.records)
        notes += _repriced(ledger)
        notes += missing(ledger, question)
        notes += damage(found.problems)
        if notes and not output.quiet:
            write()
            write_notes(notes, md=output.md)

    return emit(output, plain, table, csv=csv)


def missing(ledger: Ledger, question: Question | None = None) -> list[str]:
    """Return notes where records are not here: of the time asked for, pruned; or not shipped."""
    from litellm_ledger._reports.report import unshipped_note

    behind = ledger.unshipped()
    return [
        *pruned(ledger, question),
        *([unshipped_note(behind)] if behind is not None else []),
    ]


def pruned(ledger: Ledger, question: Question | None = None) -> list[str]:
    """Return a note where records of the time asked for were pruned."""
    asked = {} if question is None else question.selection()
    found = ledger.pruned(since=asked.get("since"), until=asked.get("until"))
    if found is None:
        return []
    last = "" if found.latest is None else f", the last of {found.latest.isoformat()[:10]}"
    return [f"Pruned: {counted(found.records, 'record')}{last}; reports may have the sums."]


def _repriced(ledger: Ledger) -> list[str]:
    """Return a note where reports may have other costs than these."""
    from litellm_ledger._reports.engine import has_adjustments

    if not has_adjustments(ledger.places):
        return []
    return ["Costs as recorded; some were priced again, which reports and show ID tell."]


def damage(problems: Sequence[Problem]) -> list[str]:
    """Return a note on the places that hold no record."""
    places = counted(len(problems), "place")
    return [f"Damage: {places} skipped; run litellm-ledger verify."] if problems else []


def _estimated(records: Sequence[UsageRecord]) -> list[str]:
    count = sum(record.usage_source == "estimated" for record in records)
    have = "has" if count == 1 else "have"
    return [f"~ {count:,} of these {have} estimated tokens and cost."] if count else []


def show(
    key: Annotated[
        str,
        argument(
            metavar="ID",
            help="The id of a record, a call_id, a response_id or a short id. The beginning or "
            "end of an id is enough if only one id matches.",
        ),
    ],
    output: Output,
    ledger: Ledger,
) -> int:
    """Show one operation with all its attempts."""
    from litellm_ledger._reports.short_ids import find

    refuse_directory(key, "show ID PATH")
    with working(f"looking for {key}"):
        found, near, prices = find(ledger.places[0], key, _ALIKE + 1)
    if len(near) > 1:
        raise ValueError(
            f"{key!r} may be one of these operations; give more of the id: {listed(near, _ALIKE)}"
        )
    if found is None:
        raise ValueError(
            f"no record with id, call_id or response_id {key!r} in {place(ledger)}; "
            "litellm-ledger calls --json lists them" + "".join(f". {n}" for n in missing(ledger))
        )
    return emit(
        output, lambda: operation_dict(found, prices), lambda: _print_operation(found, prices)
    )


def refuse_directory(text: str, order: str) -> None:
    """Refuse a directory where a text is asked for."""
    if is_url(text):
        raise ValueError(f"a URL comes last: {order}")
    if 0 < len(text) < 1_000 and Path(text).is_dir():
        raise ValueError(f"{text} is a directory; it comes last: {order}")


def _print_operation(found: Operation, prices: Prices) -> None:
    """Print an operation: what it came to, then each attempt, a member a line."""
    outcomes = [attempt.outcome for attempt in found.attempts if attempt.outcome is not None]
    known = [outcome.cost for outcome in outcomes if outcome.cost is not None]
    guessed = any(outcome.usage_source == "estimated" for outcome in outcomes)
    said = f"operation {found.id}: {counted(len(found.attempts), 'attempt')}"
    if known:
        said += f", {amounts([sum(known[1:], known[0])])[0]}{'+' if guessed else ''}"
    unknown = len(outcomes) - len(known)
    if unknown:
        said += f", {unknown:,} of unknown cost" if len(outcomes) > 1 else ", cost unknown"
    write(said)
    for attempt in found.attempts:
        write()
        if attempt.outcome is not None:
            error = attempt.outcome.error
            named = f" ({clean(error)})" if error else ""
            write(f"attempt {attempt.number}: {clean(_status(attempt.outcome))}{named}")
            print_record(attempt.outcome)
            from .prices import print_adjustments, print_terms

            priced, made = prices[attempt.outcome.id]
            print_adjustments(made)
            if priced is not None:
                print_terms(priced)
        else:
            write(f"attempt {attempt.number}: started, no outcome on record yet")
            if attempt.started is not None:
                print_record(attempt.started)


def tail(
    question: Question,
    output: Output,
    ledger: Ledger,
    follow: Annotated[bool, option("--follow", "-f", help="Keep printing new records.")] = False,
    limit: Annotated[int, option("--limit", "-n", help="Number of records to show first.")] = 10,
    all_kinds: Kinds = False,
) -> int:
    """Print the newest records, one per line, newest last."""
    from litellm_ledger._aggregates.selection import Selection
    from litellm_ledger._reading.elsewhere import Elsewhere, Newcomers
    from litellm_ledger._reading.follow import Follower
    from litellm_ledger._reading.last_written import ended, last_written

    where = ledger.places[0]
    elsewhere = isinstance(where, Elsewhere)
    # before the listing, so that nothing falls between the two
    follower = Newcomers(where) if isinstance(where, Elsewhere) else Follower(where)
    shown: set[str | None] = set()

    def put(record: UsageRecord) -> None:
        sys.stdout.write(_tail_line(record, question, output) + "\n")
        sys.stdout.flush()  # at once, also into a pipe

    selection = Selection(**question.selection())
    if not follow:  # else the tag may come
        check_where(ledger, question)
    if limit:
        begin = None if elsewhere else last_written(ledger.path, selection, limit)
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
        time.sleep(_LOOK_ELSEWHERE if elsewhere else _LOOK)
    return 0


def _tail_line(record: UsageRecord, question: Question, output: Output) -> str:
    if output.json:
        return json_text(record_dict(record))
    cost = "-" if record.kind != "usage" else _costs([record])[0]
    line = "  ".join(
        [
            _time(record, question.tz),
            f"{clean(_status(record) if record.kind != 'started' else 'started'):<9}",
            f"{clean(record.model, 28):<20}",
            f"{_tokens(record, record.input_tokens):>8}",
            f"{_tokens(record, record.output_tokens):>7}",
            f"{cost:>12}",
            f"{_number(record.latency_ms):>7} {'ms' if record.latency_ms is not None else '  '}",
            *([clean(record.error)] if record.error else []),
            clean(_tags(record)),
        ]
    ).rstrip()
    return escaped(line)


def records(
    question: Question,
    output: Output,
    ledger: Ledgers,
    limit: Annotated[
        int | None,
        option(
            "--limit",
            "-n",
            help="Number of records, the newest ones; 0: all. [default: 20; with --json: all]",
        ),
    ] = None,
    all_kinds: Kinds = False,
) -> int:
    """Print records unchanged, newest last; with --json, one object per line."""
    from litellm_ledger._reports.history import newest

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
        if every:
            _table(every, question.tz, color=output.color)
        else:
            write("No records.")
        notes = _estimated(every)
        if matched > len(every):
            notes.append(f"The newest {len(every):,} of {matched:,}; --limit 0 shows all.")
        if notes:
            write()
            write_notes(notes)
    _tell_problems(problems)
    for note in missing(ledger, question):
        complain(note)
    return 0


def _kinds(every: bool) -> tuple[str, ...]:
    return ("started", "usage", "gap") if every else ("usage",)


def _tell_problems(problems: Sequence[object]) -> None:
    if problems:
        places = "place holds" if len(problems) == 1 else "places hold"
        complain(f"{len(problems):,} {places} no valid record; run litellm-ledger verify")


def export(
    question: Question,
    output: Output,  # noqa: ARG001 - adds --no-color, which every command has
    ledger: Ledgers,
    csv: Annotated[bool, option("--csv", help="Write CSV with a header.")] = False,
    jsonl: Annotated[bool, option("--jsonl", help="Write JSON lines (default).")] = False,
    parquet: Annotated[
        bool, option("--parquet", help="Write Parquet (needs -o and the extra report).")
    ] = False,
    out: Annotated[
        Path | None,
        option(
            "--out",
            "-o",
            help="Write to this file instead of standard output; its name may choose the form: "
            ".csv, .parquet.",
        ),
    ] = None,
    all_kinds: Kinds = False,
    raw: Annotated[bool, option("--raw", help=RAW)] = False,
) -> int:
    """Export records as JSON lines, CSV or Parquet, with exact amounts."""
    from .export import export_records
    from .files import tell_written

    form = [n for n, given in (("csv", csv), ("jsonl", jsonl), ("parquet", parquet)) if given]
    suffix = out.suffix.lower().removeprefix(".") if out is not None else ""
    if not form and suffix in ("csv", "parquet"):
        form = [suffix]
    if len(form) > 1:
        raise ValueError(f"--{' and --'.join(form)} cannot be combined; give one of them")
    check_raw(raw=raw, csv=form == ["csv"])
    check_where(ledger, question, every=True)  # first: what is refused leaves no file
    kinds = _kinds(all_kinds)
    problems = export_records(ledger, question, kinds, (form or ["jsonl"])[0], out, raw=raw)
    tell_written(out)
    _tell_problems(problems)
    for note in missing(ledger, question):
        complain(note)
    return 0


def print_record(record: UsageRecord) -> None:
    """Print one record, a member a line."""
    for name, value in record_dict(record).items():
        if isinstance(value, datetime):
            value = utc(value)
        elif isinstance(value, dict):
            value = _tags(record) if name == "tags" else one_line(value)
        unit = " USD" if name in MONEY else ""
        write(f"{name:<18} {clean(str(value), 4_096)}{unit}")
    if record.cost is None and record.kind == "usage":
        write(f"{'cost':<18} unknown")


def _table(records: Sequence[UsageRecord], tz: str, *, color: bool, md: bool = False) -> None:
    from litellm_ledger._reports.short_ids import shortened

    other_kinds = any(record.kind != "usage" for record in records)
    repeated = any((record.attempt or 1) > 1 for record in records)
    kinds = [Column("kind", [r.kind for r in records], 7, left=True)] if other_kinds else []
    failed = any(record.error for record in records)
    errors = [Column("error", [clean(r.error) for r in records], 5, left=True)] if failed else []
    attempts = [Column("attempt", [_number(r.attempt) for r in records], 5)] if repeated else []
    show_table(
        [
            Column(f"time ({tz})", [_time(r, tz) for r in records], left=True, whole=True),
            *kinds,
            Column("model", [clean(r.model) for r in records], left=True),
            Column("status", [clean(_status(r)) for r in records], left=True),
            *errors,
            *attempts,
            Column("input", [_tokens(r, r.input_tokens) for r in records], 7),
            Column("output", [_tokens(r, r.output_tokens) for r in records], 7),
            Column("cost", _costs(records), whole=True),
            Column("ms", [_number(r.latency_ms) for r in records], 3),
            Column("tags", [clean(_tags(r)) for r in records], 4, left=True),
            Column(
                "id",
                [clean(r.id) for r in records],
                left=True,
                whole=True,
                short=shortened([r.id for r in records]),
            ),
        ],
        md=md,
        color=color,
    )


def _time(record: UsageRecord, tz: str) -> str:
    """When it began, as clocks showed it in a zone."""
    if record.ts is None:
        return "-"
    from litellm_ledger._aggregates.calendar import calendar

    return calendar(tz).local(record.ts).strftime("%Y-%m-%d %H:%M:%S")


def _status(record: UsageRecord) -> str | None:
    if record.kind == "gap":
        return f"{record.reason} to {record.gap_until}"
    return record.status


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _mark(record: UsageRecord) -> str:
    return "~" if record.usage_source == "estimated" else ""


def _tokens(record: UsageRecord, value: int | None) -> str:
    return "-" if value is None else f"{_mark(record)}{value:,}"


def _costs(records: Sequence[UsageRecord]) -> list[str]:
    texts = amounts([r.cost for r in records])
    return [
        "-" if r.kind != "usage" else t if r.cost is None else _mark(r) + t
        for t, r in zip(texts, records, strict=True)
    ]


def _tags(record: UsageRecord) -> str:
    return " ".join(f"{key}={value}" for key, value in (record.tags or {}).items())
