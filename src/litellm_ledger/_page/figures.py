"""What a report page shows: its charts and tables as figures and words, not yet as HTML.

Owns the questions that the page asks of the ledger, and which groups are shown apart.  Everything
that is summed is summed by ``Ledger.report``; a chart's numbers are floats to draw with, its words
are the exact amounts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple

import msgspec

from litellm_ledger._aggregates.calendar import calendar
from litellm_ledger._aggregates.formatting import clean, duration, money
from litellm_ledger._aggregates.groups import MISSING, Row
from litellm_ledger._aggregates.question import Question
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.tag_values import LARGEST, TagValues, summarising
from litellm_ledger._reports.engine import count_tags
from litellm_ledger._reports.ledger import Ledger
from litellm_ledger._reports.report import Report, added

from .time_axis import fitting, in_period, periods, short

__all__ = [
    "FAILURES",
    "READINGS",
    "TOKENS",
    "Axis",
    "Chart",
    "Page",
    "Series",
    "Top",
    "gather",
    "speed",
    "spend",
    "top_of",
]

_APART: Final = 7
"""Groups with a colour of their own; all others share one."""
_TOP: Final = LARGEST
_TAGS: Final = 3
_OTHERS: Final = "all others"
_STATUSES: Final = ("ok", "error", "cancelled", "abandoned", "unsettled", "refused", MISSING)
_NO_FAILURE: Final = ("ok", "refused", MISSING)

_Parts = tuple[tuple[str, int, Callable[[Row], int]], ...]
"""The parts of a stack of counts: name, colour, and the count in a row."""

TOKENS: Final[_Parts] = (
    (
        "input, fresh",
        0,
        lambda row: max(0, row.input_tokens - row.cache_read_tokens - row.cache_write_tokens),
    ),
    ("input, read from cache", 4, attrgetter("cache_read_tokens")),
    ("input, written to cache", 3, attrgetter("cache_write_tokens")),
    ("output", 1, lambda row: max(0, row.output_tokens - row.reasoning_tokens)),
    ("output, reasoning", 5, attrgetter("reasoning_tokens")),
)
FAILURES: Final[_Parts] = tuple(
    (status, color, attrgetter(status))
    for status, color in (("error", 5), ("cancelled", 1), ("abandoned", 4), ("unsettled", 7))
)

READINGS: Final = 7
"""About as often the ledger is read for one page."""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One colour of a chart: a number to draw and a text to read for each label."""

    name: str
    color: int
    values: list[float | None]
    texts: list[str]


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A chart over time.

    Attributes:
        labels: periods in full; ``short``: for the axis.
        totals: texts of the sums, for a stack.
    """

    id: str
    title: str
    about: str
    kind: Literal["stack", "line"]
    unit: Literal["usd", "tokens", "calls", "ms"]
    labels: list[str]
    short: list[str]
    series: list[Series]
    totals: list[str] = []


class Top(msgspec.Struct, frozen=True, kw_only=True):
    """The most expensive groups of one key; ``others`` is what all the rest comes to."""

    key: str
    rows: list[tuple[str, Row]]
    others: tuple[int, Row] | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        every: the period that time is cut into; ``None`` without a single call.
        errors: what failed, by the name of the exception.
        has_missing: whether calls are missing that were cut off by a death, or are damaged.
        left_out: tags without a table of their own, which nobody asked for.
        missing_tags: tags that were asked for and are on no call.
    """

    path: str
    made: datetime
    question: Question
    every: str | None
    first: str = ""
    last: str = ""
    total: Row
    notes: list[str]
    is_floor: bool
    has_missing: bool = False
    charts: list[Chart] = []
    tops: list[Top] = []
    errors: list[tuple[str, Row]] = []
    statuses: list[tuple[str, Row]] = []
    left_out: list[tuple[str, TagValues]] = []
    missing_tags: list[str] = []

    @property
    def failed(self) -> Row:
        """The sums over failed, cancelled, abandoned and unsettled calls."""
        return added([row for status, row in self.statuses if status not in _NO_FAILURE])


def gather(
    ledger: Ledger,
    question: Question,
    *,
    by: Sequence[str] = ("model",),
    every: str | None = None,
    made: datetime,
    advance: Callable[[int], None] = lambda _: None,
) -> Page:
    """Ask the ledger.

    Args:
        by: keys to list; the chart of cost is stacked by the first.
        every: a period; by default hours for a few days, then days, weeks, months.
        advance: called after each reading with 1.
    """
    asked = question.everything()

    def report(keys: Sequence[str], **more: Any) -> Report:
        found = ledger.report(keys, **{**asked, **more})
        advance(1)
        return found

    dates = calendar(question.tz, question.week_start)
    stacked = by[0]
    keys = list(dict.fromkeys([stacked, "status", "error"]))
    main = report([every or "day", *keys])
    rows = main.rows
    if every is None and rows:
        every = fitting({row.group["day"] for row in rows} - {MISSING})
        if every == "hour":  # days can be joined here, and not cut
            rows = report([every, *keys]).rows
        elif every != "day":
            rows = [in_period(row, every, dates) for row in rows]
    page = Page(
        path=" and ".join(map(str, ledger.places)),
        made=made,
        question=question,
        every=every if rows else None,
        total=main.total,
        notes=main.notes(),
        is_floor=main.is_floor,
        has_missing=bool(main.cut_off or main.problems),
        missing_tags=list(main.missing_tags),
    )
    if not rows or every is None:
        return page
    labels = periods(every, [row.group[every] for row in rows], dates)
    axis = Axis(every, labels)
    charts = [
        spend(rows, stacked, axis),
        axis.counts(
            rows,
            TOKENS,
            id="tokens",
            title="Tokens",
            unit="tokens",
            about="Input and output tokens, with the shares of the provider's prompt cache and "
            "of reasoning.",
        ),
        speed(report([every], quantiles=True).rows, axis),
        axis.counts(
            rows,
            FAILURES,
            id="failures",
            title="Failed and abandoned calls",
            unit="calls",
            about="Errors, cancelled calls, streams left early, and calls whose process died.",
        ),
    ]
    tags = count_tags(ledger.places, Selection(**question.selection(), calendar=dates))
    advance(1)
    chosen = summarising(tags, main.total.calls)
    tops = []
    for key in _keys(by, chosen):
        if key in keys:
            tops.append(top_of(rows, key))
            continue
        found = report([key])
        page.missing_tags.extend(found.missing_tags)
        tops.append(top_of(found.rows, key))
    tops = [top for top in tops if len(top.rows) > 1 or top.key in by]  # else it says nothing
    listed = {top.key for top in tops}
    failed = [row for row in rows if row.group["status"] == "error"]
    return msgspec.structs.replace(
        page,
        first=labels[0],
        last=labels[-1],
        charts=[chart for chart in charts if chart.series],
        tops=tops,
        errors=sorted(_sums(failed, "error").items(), key=lambda pair: -pair[1].calls)[:_TOP],
        statuses=sorted(_sums(rows, "status").items(), key=lambda pair: _STATUSES.index(pair[0])),
        left_out=[(name, tags[name]) for name in sorted(tags) if f"tag:{name}" not in listed],
    )


def _keys(by: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """The keys that are listed: those asked for, the model, and the best few tags."""
    tags = [f"tag:{name}" for name in chosen[:_TAGS]]
    if tuple(by) == ("model",):
        return [*tags[:1], "model", *tags[1:]]
    return list(dict.fromkeys([*by, *tags[:1], "model", *tags[1:]]))[: max(len(by), _TAGS + 1)]


def _sums(rows: Iterable[Row], key: str) -> dict[str, Row]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.group[key], []).append(row)
    return {name: same[0] if len(same) == 1 else added(same) for name, same in found.items()}


class Axis(NamedTuple):
    """The time of all charts of a page."""

    every: str
    labels: list[str]

    def chart(self, series: list[Series], **about: Any) -> Chart:
        """Return a chart over this time."""
        marks = short(self.every, self.labels)
        return Chart(**about, labels=self.labels, short=marks, series=series)

    def stack(
        self,
        parts: Sequence[tuple[str, int, dict[str, Any]]],
        text: Callable[[Any], str],
        **about: Any,
    ) -> Chart:
        """Stack parts: of each its name, its colour, and its value in each period."""
        series = [
            Series(
                name=clean(name),
                color=color,
                values=[float(values.get(label, 0)) for label in self.labels],
                texts=[text(values.get(label, 0)) for label in self.labels],
            )
            for name, color, values in parts
        ]
        sums = [sum(values.get(label, 0) for *_, values in parts) for label in self.labels]
        return self.chart(series, kind="stack", totals=list(map(text, sums)), **about)

    def counts(self, rows: Iterable[Row], parts: _Parts, **about: Any) -> Chart:
        """Stack the counts that are not 0 throughout."""
        sums = _sums(rows, self.every)
        named = [
            (name, color, {label: of(row) for label, row in sums.items()})
            for name, color, of in parts
            if any(map(of, sums.values()))
        ]
        return self.stack(named, "{:,}".format, **about)


def _most_expensive(rows: Iterable[Row], key: str) -> list[tuple[str, Row]]:
    groups = _sums(rows, key).items()
    return sorted(groups, key=lambda pair: (-pair[1].cost, -pair[1].calls, pair[0]))


def spend(rows: list[Row], by: str, axis: Axis) -> Chart:
    """Stack the cost by the values of a key, those beyond the first few as one."""
    groups = _most_expensive(rows, by)
    apart = groups if len(groups) <= _APART + 1 else groups[:_APART]
    parts: list[tuple[str, int, dict[str, Any]]] = []
    for at, (name, group) in enumerate(apart):
        shown = name if group.known_cost is not None else f"{name} (no price)"
        mine = _sums((row for row in rows if row.group[by] == name), axis.every)
        parts.append((shown, at, {label: row.cost for label, row in mine.items()}))
    rest = {name for name, _ in groups[len(apart) :]}
    if rest:
        others = _sums((row for row in rows if row.group[by] in rest), axis.every)
        costs = {label: row.cost for label, row in others.items()}
        parts.append((f"{_OTHERS} ({len(rest)})", _APART, costs))
    chart = axis.stack(
        parts,
        lambda cost: money(Decimal(cost)),
        id="spend",
        title=f"Cost by {axis.every}",
        about=f"US dollars, stacked by {by.removeprefix('tag:')}; calls without a price are "
        "not included.",
        unit="usd",
    )
    for (_, group), (*_, costs), series in zip(apart, parts, chart.series, strict=False):
        if group.known_cost is None:
            series.texts[:] = ["unknown" if label in costs else "–" for label in axis.labels]
    return chart


def speed(rows: list[Row], axis: Axis) -> Chart:
    """Draw latency and time to first token of rows with quantiles."""
    at = {row.group[axis.every]: row for row in rows}
    series = []
    for name, color, field, part in (
        ("whole answer, p50", 0, "latency_ms", "p50"),
        ("whole answer, p90", 5, "latency_ms", "p90"),
        ("first token, p50", 2, "ttft_ms", "p50"),
        ("first token, p90", 3, "ttft_ms", "p90"),
    ):
        found = [getattr(at.get(label), field, None) for label in axis.labels]
        values = [getattr(one, part, None) for one in found]
        if any(value is not None for value in values):
            texts = ["-" if value is None else duration(value) for value in values]
            series.append(Series(name=name, color=color, values=values, texts=texts))
    return axis.chart(
        series,
        id="speed",
        title="Latency",
        about="Successful calls: half were faster than p50, nine of ten faster than p90.",
        kind="line",
        unit="ms",
    )


def top_of(rows: Iterable[Row], key: str) -> Top:
    """Return the most expensive values of a key, and all others as one."""
    groups = _most_expensive(rows, key)
    rest = [row for _, row in groups[_TOP:]]
    return Top(key=key, rows=groups[:_TOP], others=(len(rest), added(rest)) if rest else None)
