"""What the report commands ask and print: which columns, which words, in which form.

Owns the text, Markdown, CSV and JSON forms of sums.  Rows are printed as they come; those of a
table come twice, first to be measured.  Draws nothing itself (that is ``_cli.tables``), and adds
nothing up but rows of a report.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from litellm_ledger._aggregates.calendar import PERIODS, calendar, moment_of
from litellm_ledger._aggregates.formatting import amounts, clean, counted
from litellm_ledger._aggregates.groups import Row, check_by
from litellm_ledger._aggregates.quantiles import MEASURED
from litellm_ledger._aggregates.question import Question
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._reports.answer import Answer, above, of_report
from litellm_ledger._reports.dataframes import cells, kinds
from litellm_ledger._reports.engine import open_report
from litellm_ledger._reports.ledger import Ledger
from litellm_ledger._reports.report import Report, added, by_tag, floor_mark, row_dict

from .flags import (
    LongList,
    Looks,
    Output,
    emit,
    paths_dict,
    place,
    refuse_misspelt,
    scope,
)
from .progress import working
from .settings import settings
from .sums import Sums, split_columns
from .tables import (
    Column,
    Line,
    aside,
    headline,
    on_terminal,
    show_lines,
    text_width,
    write,
    write_notes,
)

if TYPE_CHECKING:
    from litellm_ledger._aggregates.order import Order

__all__ = ["Asked", "ask", "ask_tags", "print_report"]

_TITLES: Final = {"week": "week of"}
_ROW, _BELOW, _SUBTOTAL = "row", "below", "subtotal"
_Group = tuple[Row, list[Row]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A report, and how it was asked for.

    Attributes:
        answer: with the ``inner`` key as its last, if there is one.
        inner: the key of the rows below each row.
    """

    ledger: Ledger
    answer: Answer
    question: Question
    inner: str | None = None

    @property
    def report(self) -> Report:
        """What is told apart from the rows."""
        return self.answer.report

    @property
    def by(self) -> tuple[str, ...]:
        """The keys of the outer rows."""
        return self.report.by[:-1] if self.inner else self.report.by

    def groups(self, most: int | None) -> Iterator[_Group]:
        """Yield each outer row with the rows below it; most expensive first, periods in order."""
        if not self.inner:
            return ((row, []) for row in self.answer.rows(most))
        return islice(above(self.answer.rows(None), self.by), most)


@contextmanager
def ask(
    ledger: Ledger,
    keys: Sequence[str],
    question: Question,
    output: Output,
    looks: Looks,
) -> Iterator[Asked]:
    """Ask for a report by these keys; with ``breakdown`` by models or providers below each row."""
    inner = None
    if looks.breakdown:
        inner = "model" if "model" not in keys else "provider"
    outer = check_by(keys)
    by = check_by([*outer, *([inner] if inner else [])])
    order = _order(looks, outer)
    dates = calendar(question.tz, question.week_start)
    selection = Selection(**question.selection(), calendar=dates)
    nested = inner is not None and not output.csv  # in CSV no row is below another
    with ExitStack() as opened:
        with working(f"reading {place(ledger)}"):
            answer = opened.enter_context(
                open_report(
                    ledger.places,
                    by,
                    selection,
                    quantiles=looks.latency,
                    nested=nested,
                    order=order,
                    as_of="recorded" if question.as_recorded else question.as_of or "newest",
                )
            )
            refuse_misspelt(ledger, answer.report.missing_tags, question)
        yield Asked(ledger=ledger, answer=answer, question=question, inner=inner)


def _order(looks: Looks, by: Sequence[str]) -> Order | None:
    if looks.sort is None:
        return None
    from litellm_ledger._aggregates.order import read_order

    return read_order(looks.sort, by)


def ask_tags(ledger: Ledger, question: Question, looks: Looks) -> Asked:
    """Ask for a row for each value of each tag."""
    with working(f"reading {place(ledger)}"):
        names = ledger.tags(**question.selection())
        found = ledger.report([f"tag:{name}" for name in names], **question.everything())
        refuse_misspelt(ledger, found.missing_tags, question)
    found = by_tag(found)
    order = _order(looks, found.by)
    if order is not None:
        found.rows.sort(key=order.value, reverse=order.down)
    return Asked(ledger=ledger, answer=of_report(found), question=question)


def print_report(asked: Asked, output: Output, looks: Looks) -> int:
    """Print a report as a table with its total and how sure it is, or as JSON or CSV."""

    def csv() -> None:
        _put_csv(asked, output, looks.limit or None)

    def table() -> None:
        report = asked.report
        if report.total.calls:
            _Table(asked, output, looks).print()
            return
        begun = report.in_flight or report.cut_off
        nothing = "call has ended yet" if begun else "calls on record"
        write(f"No {nothing} {scope(asked.ledger, asked.question)}.")
        if not output.quiet:
            write_notes(report.notes(), md=output.md)

    return emit(output, lambda: _json(asked, looks.limit), table, csv=csv)


def _beyond(asked: Asked, most: int | None) -> tuple[Row, int]:
    """Return what the groups beyond the first come to, and their number."""
    count = max(0, asked.answer.count - most) if most else 0
    if not count:
        return Row(), 0
    return added((row for row, _ in asked.groups(most)), asked.answer.whole, -1), count


def _json(asked: Asked, limit: int | None) -> LongList:
    report = asked.report
    rest = {name: value for name, value in report.to_dict().items() if name not in ("by", "rows")}
    before = {**paths_dict(asked.ledger), **asked.question.to_dict(), "by": list(asked.by)}
    after: dict[str, Any] = {"total": rest["total"]}
    told: dict[str, Any] = {}
    if limit is not None:
        others, count = _beyond(asked, limit or None)
        told = {"others": row_dict(others), "others_count": count}
        if count and not asked.inner and report.by != ("tag", "value"):
            after |= told  # where a report that ends there has them
    after |= rest | {"breakdown": asked.inner} | told
    return LongList(before, "rows", _plain(asked, limit or None), after)


def _plain(asked: Asked, most: int | None) -> Iterator[dict[str, Any]]:
    for outer, inner in asked.groups(most):
        row = row_dict(outer)
        if asked.inner:
            row["breakdown"] = [row_dict(one) for one in inner]
        yield row


def _put_csv(asked: Asked, output: Output, most: int | None) -> None:
    from litellm_ledger._reports.csv_lines import put_rows

    report = asked.report
    measured = [name for name in MEASURED if getattr(report.total, name)]
    rows = asked.answer.rows(most) if report.by else iter([report.total])
    lines = (cells(row, report.by, measured) for row in rows)
    put_rows(kinds(report.by, measured), lines, sys.stdout, raw=output.raw)
    for note in report.warnings():
        aside(note)


class _Table:
    """The table of a report, and the sentences under it."""

    def __init__(self, asked: Asked, output: Output, looks: Looks) -> None:
        self._asked, self._output, self._most = asked, output, looks.limit or None
        self._exact = output.md or not on_terminal()
        columns = settings().columns if looks.columns is None else split_columns(looks.columns)
        self._sums = Sums(exact=self._exact, only=columns)
        self._longest = 0.0
        self._share = looks.share
        self._period = next((key for key in asked.by if key in PERIODS), None)
        self._bars = bool(asked.by and (self._period or self._share) and not asked.inner)
        self._longer = self._longer_period()
        self._subtotals: dict[str, Row] = {}
        self._others: Row | None = None
        others, count = _beyond(asked, self._most)
        if count:
            label = dict.fromkeys(asked.by, "") | {asked.by[0]: f"({counted(count, 'other')})"}
            self._others = replace(others, group=label)
            self._longer = 0

    def print(self) -> None:
        """Print it, below a line that says what it comes to."""
        asked, output, total = self._asked, self._output, self._asked.report.total
        columns, by_period = self._measured()
        mark = _mark(asked.report)
        if not output.md:
            said = f"{amounts([total.known_cost])[0]}{mark} in {total.calls:,} calls"
            headline(said, by_period, color=output.color)
        last = self._line(total, ["total"] if asked.by else [], mark)
        if asked.by:
            show_lines(columns, self._lines(), last.cells, md=output.md, color=output.color)
        else:
            show_lines(columns, [last], None, md=output.md, color=output.color)
        if not output.quiet:
            write()
            write_notes(self._notes(), md=output.md)

    def _notes(self) -> list[str]:
        notes = self._asked.report.notes()
        if self._asked.report.is_floor:
            notes.insert(
                0, "+ marks a minimum: the real cost may be higher, for the reasons below."
            )
        if not self._exact and self._sums.rounded:
            notes.append(
                "Costs are rounded to a millionth of a dollar here; --json has every digit."
            )
        return notes

    def _measured(self) -> tuple[list[Column], list[float]]:
        """Return the columns, of cells only the widest; and the cost of each period."""
        asked, total = self._asked, self._asked.report.total
        widest = ["total", *[""] * (len(asked.by) - 1)]
        shares = [self._percent(total)]
        by_period: dict[str, Decimal] = {}
        for row, label, kind in self._rows():
            self._sums.see(row, floor_mark(row))
            widest = [max(pair, key=text_width) for pair in zip(widest, label, strict=True)]
            shares = [max(*shares, self._percent(row), key=len)]
            if kind == _SUBTOTAL:
                continue
            self._longest = max(self._longest, self._part(row))
            if self._period and kind == _ROW and row is not self._others:
                period = row.group[self._period]
                by_period[period] = by_period.get(period, Decimal(0)) + row.cost
        self._sums.see(total, _mark(asked.report))
        columns = [
            Column(_title(key, asked.question), [cell], left=True)
            for key, cell in zip(asked.by, widest, strict=False)
        ]
        columns += self._sums.columns()
        if self._share:
            columns.append(Column("share", shares))
        order = sorted(by_period, key=lambda label: moment_of(self._period or "", label))
        return columns, [float(by_period[label]) for label in order]

    def _rows(self) -> Iterator[tuple[Row, list[str], str]]:
        """Yield the rows, their labels, and whether they are below another one, or sums of some."""
        asked = self._asked
        if not asked.by:
            return
        same: list[Row] = []
        before = ""
        several = False
        for outer, inner in asked.groups(self._most):
            longer = outer.group[asked.by[0]][: self._longer]
            if same and longer != before:
                several = True
                yield self._subtotal(before, same)
                same = []
            if self._longer and longer[:1].isdigit():
                same.append(outer)
                before = longer
            yield outer, [clean(outer.group[key]) for key in asked.by], _ROW
            for row in inner:
                label = f"└ {clean(row.group[asked.inner or ''])}"
                yield row, [label, *[""] * (len(asked.by) - 1)], _BELOW
        if same and several:
            yield self._subtotal(before, same)
        if self._others is not None:
            yield self._others, [clean(self._others.group[key]) for key in asked.by], _ROW

    def _longer_period(self) -> int:
        """Return how much of a label says which month, or of a month which year; 0: no subtotals.

        There are some below the days of each month, where these come in order.
        """
        by, order = self._asked.by, self._asked.answer.order
        if not by or (order is not None and order.column != by[0]):
            return 0
        return {"day": len("2025-03"), "month": len("2025")}.get(by[0], 0)

    def _subtotal(self, label: str, rows: list[Row]) -> tuple[Row, list[str], str]:
        if label not in self._subtotals:  # it is asked for twice: to be measured, to be printed
            self._subtotals[label] = added(rows)
        rest = [""] * (len(self._asked.by) - 1)
        return self._subtotals[label], [f"{label} total", *rest], _SUBTOTAL

    def _lines(self) -> Iterator[Line]:
        for row, label, kind in self._rows():
            line = self._line(row, label, floor_mark(row), below=kind == _BELOW)
            if kind == _SUBTOTAL and self._bars:
                line = line._replace(share=0.0)
            yield line

    def _line(self, row: Row, label: list[str], mark: str, *, below: bool = False) -> Line:
        label += [""] * (len(self._asked.by) - len(label))
        cells = [*label, *self._sums.cells(row, mark), *([self._percent(row)] * self._share)]
        part = self._part(row) / (self._longest or 1) if self._bars else None
        return Line(cells, quiet=below, share=part)

    def _part(self, row: Row) -> float:
        return float(row.cost / (self._asked.report.total.cost or Decimal(1)))

    def _percent(self, row: Row) -> str:
        if not self._asked.report.total.cost or row.known_cost is None:
            return "-"
        return f"{100 * self._part(row):.1f}%"


def _title(key: str, question: Question) -> str:
    return f"{_TITLES.get(key, key)} ({question.tz})" if key in PERIODS else key


def _mark(report: Report) -> str:
    """``floor_mark`` of the total, which calls in no row may be missing from."""
    return "+" if report.is_floor and report.total.known_cost is not None else ""
