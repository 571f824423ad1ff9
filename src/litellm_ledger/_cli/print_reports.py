"""What the report commands ask and print: which columns, which words, in which form.

Owns the text, Markdown, CSV and JSON forms of sums.  Draws nothing itself (that is
``_cli.tables``), and adds nothing up but rows of a report.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec

from litellm_ledger._aggregates.calendar import PERIODS
from litellm_ledger._aggregates.formatting import amounts, clean, counted, duration, rounded
from litellm_ledger._aggregates.groups import Row
from litellm_ledger._aggregates.question import Question
from litellm_ledger._reports.dataframes import columns
from litellm_ledger._reports.ledger import Ledger
from litellm_ledger._reports.report import Report, added, by_tag, floor_mark, row_dict

from .flags import Output, emit, refuse_misspelt, scope
from .progress import working
from .tables import Column, aside, headline, on_terminal, show, write, write_notes

__all__ = ["Asked", "ask", "ask_tags", "print_report"]

_TITLES: Final = {"week": "week of"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A report, and how it was asked for.

    Attributes:
        report: with the ``inner`` key as its last, if there is one.
        inner: the key of the rows below each row.
    """

    path: Path
    report: Report
    question: Question
    inner: str | None = None

    @property
    def by(self) -> tuple[str, ...]:
        """The keys of the outer rows."""
        return self.report.by[:-1] if self.inner else self.report.by

    def groups(self) -> list[tuple[Row, list[Row]]]:
        """Return each outer row with the rows below it; most expensive first, periods in order."""
        if not self.inner:
            return [(row, []) for row in self.report.rows]
        keys = self.by
        below: dict[tuple[str, ...], list[Row]] = {}
        for row in self.report.rows:
            below.setdefault(tuple(row.group[key] for key in keys), []).append(row)
        outer = [
            (msgspec.structs.replace(added(rows), group=dict(zip(keys, group, strict=True))), rows)
            for group, rows in below.items()
        ]
        if not any(key in PERIODS for key in keys):
            outer.sort(key=lambda pair: (-pair[0].cost, -pair[0].calls))
        return outer


def ask(
    ledger: Ledger, keys: Sequence[str], question: Question, *, breakdown: bool, **more: Any
) -> Asked:
    """Ask for a report by these keys; with ``breakdown`` by models or providers below each row."""
    inner = None
    if breakdown:
        inner = "model" if "model" not in keys else "provider"
    with working(f"reading {ledger.path}"):
        found = ledger.report([*keys, *([inner] if inner else [])], **question.everything(), **more)
        refuse_misspelt(ledger, found.missing_tags, question)
    return Asked(path=ledger.path, report=found, question=question, inner=inner)


def ask_tags(ledger: Ledger, question: Question) -> Asked:
    """Ask for a row for each value of each tag."""
    with working(f"reading {ledger.path}"):
        names = ledger.tags(**question.selection())
        found = ledger.report([f"tag:{name}" for name in names], **question.everything())
        refuse_misspelt(ledger, found.missing_tags, question)
    return Asked(path=ledger.path, report=by_tag(found), question=question)


def print_report(asked: Asked, output: Output, *, top: int | None = None) -> int:
    """Print a report as a table with its total and how sure it is, or as JSON or CSV.

    Args:
        top: print that many groups (0: all), what all others come to, and each one's share.
    """
    report, groups = asked.report, asked.groups()
    most = top or len(groups)
    beyond = [row for row, _ in groups[most:]]
    others, count = report.others or added(beyond), report.others_count or len(beyond)

    def plain() -> dict[str, Any]:
        found = _plain(asked, groups[:most])
        if top is not None:
            found |= {"others": row_dict(others), "others_count": count}
        return found

    def csv() -> None:
        from .csv_lines import put_rows

        rows = report.rows[: top or None] if report.by else [report.total]
        found = columns(report.by, rows)
        cells = zip(*(values for _, values in found.values()), strict=True)
        put_rows(found, cells, sys.stdout, raw=output.raw)
        for note in report.warnings():
            aside(note)

    def table() -> None:
        if not report.total.calls:
            begun = report.in_flight or report.cut_off
            nothing = "call has ended yet" if begun else "calls on record"
            write(f"No {nothing} {scope(asked.path, asked.question)}.")
        else:
            shown = groups[:most]
            if count:
                label = dict.fromkeys(asked.by, "") | {asked.by[0]: f"({counted(count, 'other')})"}
                shown.append((msgspec.structs.replace(others, group=label), []))
            _table(asked, shown, output, share=top is not None)
            write()
        write_notes(_notes(asked, output), md=output.md)

    return emit(output, plain, table, csv=csv)


def _notes(asked: Asked, output: Output) -> list[str]:
    total, notes = asked.report.total, asked.report.notes()
    if total.calls and asked.report.is_floor:
        notes.insert(0, "+ marks a minimum: the real cost may be higher, for the reasons below.")
    if not _exact(output) and rounded([row.cost for row in [*asked.report.rows, total]]):
        notes.append("Costs are rounded to a millionth of a dollar here; --json has every digit.")
    return notes


def _exact(output: Output) -> bool:
    return output.md or not on_terminal()


def _table(
    asked: Asked,
    groups: Sequence[tuple[Row, list[Row]]],
    output: Output,
    *,
    share: bool = False,
) -> None:
    total = asked.report.total
    labels: list[list[str]] = []
    rows: list[Row] = []
    below: list[int] = []
    for outer, inner in groups:
        labels.append([clean(outer.group[key]) for key in asked.by])
        rows.append(outer)
        for row in inner:
            below.append(len(rows))
            label = f"└ {clean(row.group[asked.inner or ''])}"
            labels.append([label, *[""] * (len(asked.by) - 1)])
            rows.append(row)
    if asked.by:
        labels.append(["total", *[""] * (len(asked.by) - 1)])
    rows.append(total)
    table = [
        Column(_title(key, asked.question), [label[at] for label in labels], left=True)
        for at, key in enumerate(asked.by)
    ]
    marks = [*map(floor_mark, rows[:-1]), _mark(asked.report)]
    table += _sums(rows, marks, exact=_exact(output))
    whole = total.cost or Decimal(1)
    shares = [float(row.cost / whole) for row in rows]
    if share:
        cells = [
            "-" if not total.cost or row.known_cost is None else f"{100 * part:.1f}%"
            for row, part in zip(rows, shares, strict=True)
        ]
        table.append(Column("share", cells))
    period = next((key for key in asked.by if key in PERIODS), None)
    if asked.by and (period or share) and not asked.inner:
        most = max(shares[:-1], default=0) or 1
        table[-1] = replace(table[-1], bars=[part / most for part in shares[:-1]])
    if not output.md:
        _headline(asked, groups, period, output)
    show(table, total=bool(asked.by), below=below, md=output.md, color=output.color)


def _title(key: str, question: Question) -> str:
    return f"{_TITLES.get(key, key)} ({question.tz})" if key in PERIODS else key


def _headline(
    asked: Asked, groups: Sequence[tuple[Row, list[Row]]], period: str | None, output: Output
) -> None:
    total = asked.report.total
    said = f"{amounts([total.known_cost])[0]}{_mark(asked.report)} in {total.calls:,} calls"
    values: list[float] = []
    if period:
        ordered = groupby(groups, key=lambda pair: pair[0].group[period])
        values = [float(sum(row.cost for row, _ in same)) for _, same in ordered]
    headline(said, values, color=output.color)


def _mark(report: Report) -> str:
    """``floor_mark`` of the total, which calls in no row may be missing from."""
    return "+" if report.is_floor and report.total.known_cost is not None else ""


def _sums(rows: list[Row], marks: list[str], *, exact: bool) -> list[Column]:
    """Return the columns of sums; apart from the main ones only those that are not all zero."""

    def count(title: str, field: str, keep: int, *, always: bool = False) -> list[Column]:
        values = [getattr(row, field) for row in rows]
        return [Column(title, [f"{v:,}" for v in values], keep)] if always or any(values) else []

    def spread(title: str, name: str, keep: int) -> list[Column]:
        found = [getattr(row, name) for row in rows]
        if not any(found):
            return []
        return [
            Column(
                f"{title} {part}",
                ["-" if one is None else duration(getattr(one, part)) for one in found],
                keep - (part == "p99"),
            )
            for part in ("p50", "p90", "p99")
        ]

    def money(title: str, field: str) -> list[Column]:
        values = [getattr(row, field) for row in rows]
        texts = zip(values, amounts(values, exact=exact), strict=True)
        cells = [text if value else "-" for value, text in texts]
        return [Column(title, cells, 4)] if any(values) else []

    costs = amounts([row.known_cost for row in rows], exact=exact)
    if any(marks):
        costs = [cost + (mark or " ") for cost, mark in zip(costs, marks, strict=True)]
    return [
        *count("calls", "calls", 9, always=True),
        *count("ok", "ok", 5, always=True),
        *count("error", "error", 7),
        *count("cancelled", "cancelled", 6),
        *count("abandoned", "abandoned", 6),
        *count("unsettled", "unsettled", 7),
        *count("retries", "retries", 4),
        *count("input", "input_tokens", 8, always=True),
        *count("output", "output_tokens", 8, always=True),
        *count("total tokens", "total_tokens", 2, always=True),
        *count("cached", "cache_read_tokens", 3),
        *count("reasoning", "reasoning_tokens", 3),
        *count("estimated", "estimated", 6),
        *count("unpriced", "unpriced", 7),
        *spread("latency", "latency_ms", 9),  # there only because it was asked for
        *spread("first", "ttft_ms", 8),
        *money("saved", "saved_cost"),
        *money("wasted", "wasted_cost"),
        Column("cost", costs),
    ]


def _plain(asked: Asked, groups: Sequence[tuple[Row, list[Row]]]) -> dict[str, Any]:
    rows = []
    for outer, inner in groups:
        row = row_dict(outer)
        if asked.inner:
            row["breakdown"] = [row_dict(one) for one in inner]
        rows.append(row)
    return {
        "path": str(asked.path),
        **asked.question.to_dict(),
        **asked.report.to_dict(),
        "by": list(asked.by),
        "breakdown": asked.inner,
        "rows": rows,
    }
