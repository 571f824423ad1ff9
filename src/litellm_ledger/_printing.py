"""What the commands print: which columns, which words, in which order.

Owns the text form of reports and records.  Draws nothing itself (that is ``_tables``) and reads no
ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from heapq import nlargest
from pathlib import Path
from typing import Any

import msgspec

from ._groups import Row
from ._record import UsageRecord
from ._report import Report, dollars
from ._tables import Column, amounts, clean, show, write

__all__ = [
    "newest",
    "print_record",
    "print_records",
    "print_report",
    "record_dict",
]


def print_report(path: Path, report: Report) -> None:
    """Print a table by group with its total, and how sure the sums are."""
    if not report.total.calls:
        begun = report.in_flight or report.cut_off
        write(f"No {'call has ended yet' if begun else 'calls on record'} in {path}.")
    else:
        rows = [*report.rows, report.total]
        columns = [
            Column(key, [clean(row.group[key]) for row in report.rows] + [""], left=True)
            for key in report.by
        ]
        if columns:
            columns[0].cells[-1] = "total"
        columns += _sums(rows)
        show(columns, total=bool(report.by))
        write()
    for note in report.notes():
        write(note)


def _sums(rows: list[Row]) -> list[Column]:
    """Return the columns of sums; apart from the main ones only those that are not all zero."""

    def count(title: str, field: str, keep: int, *, always: bool = False) -> list[Column]:
        values = [getattr(row, field) for row in rows]
        return [Column(title, [f"{v:,}" for v in values], keep)] if always or any(values) else []

    saved = [row.saved_cost for row in rows]
    return [
        *count("calls", "calls", 9, always=True),
        *count("ok", "ok", 5, always=True),
        *count("error", "error", 7),
        *count("cancelled", "cancelled", 6),
        *count("abandoned", "abandoned", 6),
        *count("unsettled", "unsettled", 7),
        *count("input", "input_tokens", 8, always=True),
        *count("output", "output_tokens", 8, always=True),
        *count("total tokens", "total_tokens", 2, always=True),
        *count("cached", "cache_read_tokens", 3),
        *count("reasoning", "reasoning_tokens", 3),
        *count("estimated", "estimated", 4),
        *count("unpriced", "unpriced", 7),
        *([Column("saved", amounts(saved), 4)] if any(saved) else []),
        Column("cost", amounts([row.cost if row.priced else None for row in rows])),
    ]


def newest(found: Iterable[UsageRecord], limit: int) -> tuple[list[UsageRecord], int]:
    """Return the newest ``limit`` records, oldest first (0: all, ledger order), and the count."""
    seen = 0

    def counted() -> Iterable[UsageRecord]:
        nonlocal seen
        for record in found:
            seen += 1
            yield record

    if not limit:
        return list(counted()), seen
    top = nlargest(limit, counted(), key=lambda r: (r.ts is not None and r.ts.timestamp(), r.id))
    return top[::-1], seen


def record_dict(record: UsageRecord) -> dict[str, Any]:
    """Return what is known of a record as plain JSON values; money is exact decimal text."""
    plain = {
        name: value for name, value in msgspec.structs.asdict(record).items() if value is not None
    }
    for name in ("cost", "saved_cost"):
        if name in plain:
            plain[name] = dollars(plain[name])
    return plain


def print_records(records: list[UsageRecord], seen: int) -> None:
    """Print a table of records."""
    if not records:
        write("No records.")
        return
    show(
        [
            Column("time (UTC)", [_time(r) for r in records], 8, left=True),
            *(
                [Column("kind", [r.kind for r in records], 7, left=True)]
                if any(r.kind != "usage" for r in records)
                else []
            ),
            Column("model", [clean(r.model) for r in records], left=True),
            Column("status", [clean(_status(r)) for r in records], left=True),
            Column("input", [_number(r.input_tokens) for r in records], 7),
            Column("output", [_number(r.output_tokens) for r in records], 7),
            Column("cost", _costs(records)),
            Column("ms", [_number(r.latency_ms) for r in records], 3),
            Column("tags", [clean(_tags(r)) for r in records], 4, left=True),
            Column("id", [clean(r.id) for r in records], 1, left=True),
        ]
    )
    if seen > len(records):
        write()
        write(f"The newest {len(records):,} of {seen:,}; --limit 0 shows all.")


def _time(record: UsageRecord) -> str:
    return "-" if record.ts is None else record.ts.strftime("%Y-%m-%d %H:%M:%S")


def _status(record: UsageRecord) -> str | None:
    if record.kind == "gap":
        return f"{record.reason} to {record.gap_until}"
    return f"{record.status} ({record.error})" if record.error else record.status


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _costs(records: list[UsageRecord]) -> list[str]:
    texts = amounts([r.cost for r in records])
    return [t if r.kind == "usage" else "-" for t, r in zip(texts, records, strict=True)]


def _tags(record: UsageRecord) -> str:
    return " ".join(f"{key}={value}" for key, value in (record.tags or {}).items())


def print_record(record: UsageRecord) -> None:
    """Print one record, a member a line."""
    for name, value in record_dict(record).items():
        if isinstance(value, datetime):
            value = value.isoformat().replace("+00:00", "Z")
        elif isinstance(value, dict):
            value = _tags(record) if name == "tags" else msgspec.json.encode(value).decode()
        unit = " USD" if name in ("cost", "saved_cost") else ""
        write(f"{name:<18} {clean(str(value), 4_096)}{unit}")
    if record.cost is None:
        write(f"{'cost':<18} unknown")
