"""What the commands print of single records and of answers to SQL: which columns, which words.

Owns their text, Markdown, JSON and CSV forms.  Draws nothing itself (that is ``_cli.tables``) and
reads no ledger.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from litellm_ledger._aggregates.calendar import calendar
from litellm_ledger._aggregates.formatting import amounts, clean, counted, dollars
from litellm_ledger._aggregates.question import Question
from litellm_ledger._reading.lines import Problem
from litellm_ledger._records.escaping import escaped, json_text
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._reports.history import Calls, Operation
from litellm_ledger._reports.short_ids import shortened

from .csv_lines import put_csv, put_rows
from .flags import Output, emit
from .tables import Column, show, show_upright, tell, too_wide, write, write_notes

if TYPE_CHECKING:
    from litellm_ledger._reports.sql import Table

__all__ = [
    "operation_dict",
    "print_answer",
    "print_calls",
    "print_operation",
    "print_record",
    "print_records",
    "record_dict",
    "tail_line",
]

_MONEY: Final = ("cost", "saved_cost")


def record_dict(record: UsageRecord) -> dict[str, Any]:
    """Return what is known of a record as plain JSON values; money is exact decimal text."""
    plain = {
        name: value
        for name, value in msgspec.structs.asdict(record).items()
        if value is not None and value != {}
    }
    for name in _MONEY:
        if name in plain:
            plain[name] = dollars(plain[name])
    return plain


def print_calls(path: Path, found: Calls, question: Question, output: Output) -> int:
    """Print a listing, the newest first."""

    def plain() -> dict[str, Any]:
        return {
            "path": str(path),
            **question.to_dict(),
            "matched": found.matched,
            "calls": [record_dict(record) for record in found],
            "problems": found.problems,
        }

    def table() -> None:
        if not found.records:
            asked = " that match what you asked for" if any(question.selection().values()) else ""
            write(f"No calls on record in {path}{asked}.")
        else:
            _table(found.records, question.tz, md=output.md, color=output.color)
            write()
        notes = []
        if found.matched > len(found):
            notes.append(f"The newest {len(found):,} of {found.matched:,}; --limit 0 shows all.")
        notes += _estimated(found.records)
        notes += _damage(found.problems)
        write_notes(notes, md=output.md)

    return emit(output, plain, table, csv=lambda: put_csv(found, sys.stdout, raw=output.raw))


def print_records(
    records: Sequence[UsageRecord], seen: int, question: Question, *, color: bool = True
) -> None:
    """Print a table of records."""
    if not records:
        write("No records.")
        return
    _table(records, question.tz, color=color)
    notes = _estimated(records)
    if seen > len(records):
        notes.append(f"The newest {len(records):,} of {seen:,}; --limit 0 shows all.")
    if notes:
        write()
        write_notes(notes)


def _damage(problems: Sequence[Problem]) -> list[str]:
    places = counted(len(problems), "place")
    return [f"Damage: {places} skipped; run litellm-ledger verify."] if problems else []


def _estimated(records: Sequence[UsageRecord]) -> list[str]:
    count = sum(record.usage_source == "estimated" for record in records)
    have = "has" if count == 1 else "have"
    return [f"~ {count:,} of these {have} estimated tokens and cost."] if count else []


def _table(
    records: Sequence[UsageRecord], tz: str, *, md: bool = False, color: bool = True
) -> None:
    other_kinds = any(record.kind != "usage" for record in records)
    repeated = any((record.attempt or 1) > 1 for record in records)
    kinds = [Column("kind", [r.kind for r in records], 7, left=True)] if other_kinds else []
    failed = any(record.error for record in records)
    errors = [Column("error", [clean(r.error) for r in records], 5, left=True)] if failed else []
    attempts = [Column("attempt", [_number(r.attempt) for r in records], 5)] if repeated else []
    show(
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
    return record.ts.astimezone(calendar(tz).zone).strftime("%Y-%m-%d %H:%M:%S")


def _utc(moment: datetime) -> str:
    """A time as JSON has it; one without a zone, as SQL gives it, is UTC."""
    text = moment.isoformat()
    return text.replace("+00:00", "Z") if moment.tzinfo else f"{text}Z"


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


def tail_line(record: UsageRecord, question: Question, output: Output) -> str:
    """Return a record as one line."""
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


def operation_dict(found: Operation) -> dict[str, Any]:
    """Return an operation as plain JSON values (see docs/CLI.md)."""
    return {
        "id": found.id,
        "attempts": [
            {
                "number": attempt.number,
                "started": attempt.started and record_dict(attempt.started),
                "outcome": attempt.outcome and record_dict(attempt.outcome),
            }
            for attempt in found.attempts
        ],
    }


def print_operation(found: Operation) -> None:
    """Print an operation: what it came to, then each attempt, a member a line."""
    outcomes = [attempt.outcome for attempt in found.attempts if attempt.outcome is not None]
    known = [outcome.cost for outcome in outcomes if outcome.cost is not None]
    guessed = any(outcome.usage_source == "estimated" for outcome in outcomes)
    said = f"operation {found.id}: {counted(len(found.attempts), 'attempt')}"
    if known:
        said += f", {amounts([sum(known[1:], known[0])])[0]}{'+' if guessed else ''}"
    unknown = len(outcomes) - len(known)
    if unknown:
        said += f", {unknown:,} of unknown cost"
    write(said)
    for attempt in found.attempts:
        write()
        if attempt.outcome is not None:
            error = attempt.outcome.error
            named = f" ({clean(error)})" if error else ""
            write(f"attempt {attempt.number}: {clean(_status(attempt.outcome))}{named}")
            print_record(attempt.outcome)
        else:
            write(f"attempt {attempt.number}: started, no outcome on record yet")
            if attempt.started is not None:
                print_record(attempt.started)


def print_record(record: UsageRecord) -> None:
    """Print one record, a member a line."""
    for name, value in record_dict(record).items():
        if isinstance(value, datetime):
            value = _utc(value)
        elif isinstance(value, dict):
            value = _tags(record) if name == "tags" else msgspec.json.encode(value).decode()
        unit = " USD" if name in _MONEY else ""
        write(f"{name:<18} {clean(str(value), 4_096)}{unit}")
    if record.cost is None and record.kind == "usage":
        write(f"{'cost':<18} unknown")


def print_answer(path: Path, table: Table, output: Output) -> int:
    """Print the rows of an answer."""

    def plain() -> dict[str, Any]:
        return {
            "path": str(path),
            "columns": table.columns,
            "types": table.types,
            "rows": [[_plain(value) for value in row] for row in table],
            "problems": table.problems,
        }

    def csv() -> None:
        rows = (map(_cell, row) for row in table)
        put_rows(table.columns, rows, sys.stdout, raw=output.raw)

    return emit(output, plain, lambda: _answer(table, output), csv=csv)


def _answer(table: Table, output: Output) -> None:
    if table.rows:
        columns = [
            Column(
                clean(name),
                [clean(_text(value, "-")) for value in values],
                left=not all(
                    isinstance(value, int | float | Decimal) or value is None for value in values
                ),
            )
            for name, values in zip(table.columns, zip(*table.rows, strict=True), strict=True)
        ]
        if too_wide(columns) and not output.md:
            show_upright(columns)
            write()
            tell("Too wide for this terminal: one line per column. --csv prints one line per row.")
        else:
            show(columns, md=output.md, color=output.color)
    else:
        write("No rows.")
    if table.problems:
        write()
        write_notes(_damage(table.problems), md=output.md)


def _plain(value: Any) -> Any:
    """A value as JSON has it: decimals as text, times in UTC."""
    if isinstance(value, Decimal):
        return dollars(value)
    if isinstance(value, datetime):
        return _utc(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _cell(value: Any) -> Any:
    """A value for CSV: numbers stay what they are, so that no minus is taken for a formula."""
    return value if isinstance(value, int | float | Decimal) else _text(value, "")


def _text(value: Any, unknown: str) -> str:
    if value is None:
        return unknown
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | tuple):
        return msgspec.json.encode(_plain(value)).decode()
    return str(_plain(value))
