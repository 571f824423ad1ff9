"""Sums that the database makes: by group and quarter of an hour, so that any period can be told.

Owns the questions: to the sums that are kept (``rollup``), as far as these have come and to whole
quarters; to ``calls`` for all else.  Their rows become tables, which answer as those of manifests
do (``_aggregates.quarters``): exactly or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from litellm_ledger._aggregates.quarters import Group, QuarterQuestion, Table
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.steps import EPOCH, QUARTER
from litellm_ledger._aggregates.totals import FIELDS, Totals
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._records.record import KEYS
from litellm_ledger._shipping.rollup import NO_QUARTER, quarter_of, series_of

from .asked import BEATEN, Condition, can_be, condition

if TYPE_CHECKING:
    import asyncpg

__all__ = [
    "Added",
    "add",
    "count",
    "newest_since",
    "tags",
    "untold",
    "whole",
]

_SUMS: Final = {
    "cache_hits": "count(*) FILTER (WHERE c.cache_hit)",
    "calls": "count(*)",
    "pico": "sum(c.cost_picousd)",
    "priced": "count(c.cost_picousd)",
    "retries": "count(*) FILTER (WHERE c.attempt > 1)",
    "saved": "sum(c.saved_cost_picousd)",
}
"""What is not the sum of the column of its name.  Sums of bigint are numeric: exact."""

_COUNTS: Final = f" AND NOT {BEATEN}"
_ROWS: Final = 2_000
_LONGEST: Final = 96 * 366 * 30
"""Quarters, thirty years: of how many it is asked at most where periods begin."""


class _TooCoarseError(Exception):
    """Sums are over times that are in several periods."""


def whole(value: Any) -> int:
    """Return a sum as the number that it is; NULL is 0.

    Raises:
        LedgerPathError: it is NaN or infinite: somebody has written it who is no shipper.
    """
    try:
        return int(value or 0)
    except (ValueError, OverflowError):
        raise LedgerPathError(
            "an amount in the database is no number: it was changed by hand; sums by quarter of an "
            "hour are made anew by litellm-ledger database rebuild"
        ) from None


class Added(NamedTuple):
    """What was added up.

    Attributes:
        tag: the one that it was told by, if any.
        expired: how many of the outcomes are known by their sums only.
    """

    tag: str | None
    expired: int


async def add(
    connection: asyncpg.Connection, by: Sequence[str], totals: Totals, selection: Selection
) -> Added | None:
    """Add up what a selection asks for, by group; ``None`` if it could not be told exactly.

    What is kept as the line that it was, or set aside, is not among it, nor is what expired and
    has no sums that tell (``untold``).  Where it could not be told, nothing is added.
    """
    question = QuarterQuestion(by, selection.between(None, None))
    if not question.answerable or not can_be(question.tag or ""):
        return None
    asking = _Asking(by, selection, question.tag)
    rolled = await _is_rolled(connection, asking.series)
    steps: Sequence[_Step] = _steps(question, selection)
    if rolled and question.periods and selection.calendar.zone is not UTC:
        periods = await _periods(connection, question)
        steps = [*([] if periods is None else [periods]), *steps]
    for step in steps:
        part = Totals(by, max_groups=totals.limit, calendar=selection.calendar)
        expired = 0
        try:
            for text, values in asking.questions(step, rolled=rolled):
                before = part.calls() if _EXPIRED in text else 0
                async for table in _tables(
                    connection,
                    text,
                    values,
                    asking.width,
                    step if isinstance(step, int) and step else 1,
                ):
                    if not question.add_to(part, table):
                        raise _TooCoarseError
                expired += part.calls() - before if _EXPIRED in text else 0
        except _TooCoarseError:
            continue
        totals.add_all(part)
        return Added(question.tag, expired)
    return None


async def untold(
    connection: asyncpg.Connection, selection: Selection, added: Added | None
) -> tuple[int, datetime | None]:
    """Return how many outcomes expired that may be of the time asked for, and are in no sum.

    And the time of the last that expired, to the quarter of an hour, of those that are.

    Args:
        added: what was added up; ``None``: nothing was.
    """
    since, until = selection.since, selection.until
    try:
        span = _Span.of(since, until) if added is not None else None
        first = None if since is None else (since - EPOCH) // QUARTER
        last = None if until is None else -((EPOCH - until) // QUARTER) - 1
    except OverflowError:
        span = first = last = None
    told = "false"
    values: list[Any] = [first, last]
    if span is not None and added is not None:
        told = _times(span)
        if added.tag is not None:
            values.append(added.tag)
            told += " AND m.tags @> ARRAY[$3::text]"
    text = f"""
        SELECT coalesce(sum(t.calls) FILTER (WHERE NOT ({told})), 0), max(t.quarter)
        FROM litellm_ledger.expired_sums t
        LEFT JOIN litellm_ledger.expired_months m ON m.month = CASE WHEN t.quarter > {NO_QUARTER}
            THEN pg_catalog.to_char(
                timestamp '1970-01-01' + t.quarter * interval '15 minutes', 'YYYYMM')::int
            ELSE 0 END
        WHERE t.tag_name IS NULL
          AND ($1::int IS NULL OR t.quarter >= $1)
          AND ($2::int IS NULL OR (t.quarter <= $2 AND t.quarter > {NO_QUARTER}))"""
    count, latest = await connection.fetchrow(text, *values)
    count = int(count) + await _without_sums(connection, selection)
    if latest is None or latest == NO_QUARTER:
        return count, None
    return count, EPOCH + latest * QUARTER


async def _without_sums(connection: asyncpg.Connection, selection: Selection) -> int:
    """Return how many outcomes expired in months of the time asked for whose sums went as well."""

    def month(moment: datetime | None) -> int | None:
        return None if moment is None else moment.year * 100 + moment.month

    since, until = selection.since, selection.until
    first = month(since and since.astimezone(UTC))
    last = month(until and until.astimezone(UTC) - timedelta(microseconds=1))
    return int(
        await connection.fetchval(
            "SELECT coalesce(sum(untold), 0) FROM litellm_ledger.expired_months "
            "WHERE untold > 0 AND ($1::int IS NULL OR month >= $1) "
            "AND ($2::int IS NULL OR month <= $2)",
            first,
            last,
        )
    )


class _Periods(NamedTuple):
    """The periods that are asked for: sums are over all quarters of one, under its first quarter.

    Attributes:
        first, last: the quarters for which that is so; of others, sums are over one.
        begins: the quarters with which periods begin; the first of these, too.
    """

    first: int
    last: int
    begins: list[int]

    def of(self, quarter: str, place: int) -> str:
        """Return the expression for the first quarter of a period.

        Args:
            quarter: the expression for one that is in it.
            place: of ``begins`` among the values.
        """
        return (
            f"CASE WHEN {quarter} BETWEEN {self.first:d} AND {self.last:d} THEN "
            f"(${place}::int[])[pg_catalog.width_bucket({quarter}, ${place}::int[])] "
            f"ELSE {quarter} END"
        )


_Step: TypeAlias = int | _Periods


async def _periods(connection: asyncpg.Connection, question: QuarterQuestion) -> _Periods | None:
    """Return the periods of the sums that there are; ``None``: they are not worth it.

    Where clocks are half an hour off, sums would otherwise come as quarters, a hundred for a day.
    """
    if "hour" in question.periods:
        return None
    first, last = await connection.fetchrow(
        "SELECT min(quarter), max(quarter) FROM litellm_ledger.rollup_15m "
        f"WHERE quarter > {NO_QUARTER}"
    )
    if first is None or last - first > _LONGEST:
        return None
    try:
        begins = question.begins(first, last)
    except OverflowError:
        return None
    return None if begins is None else _Periods(first, last, begins)


def _steps(question: QuarterQuestion, selection: Selection) -> list[int]:
    """Return over how many quarters sums may be, the most first; 0: time does not matter."""
    if not question.periods:
        return [0]
    return [96, 4, 1] if selection.calendar.zone is UTC else [4, 1]


async def _is_rolled(connection: asyncpg.Connection, series: str) -> bool:
    """Whether there are sums of a series."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM litellm_ledger.rollup_marks WHERE series = $1)", series
        )
    )


class _Span(NamedTuple):
    """The whole quarters in a time that is asked for; ``None``: without end.

    Attributes:
        first, after: the first of them, and the one after the last.
        edges: what is asked for apart from these.
    """

    first: int | None
    after: int | None
    edges: list[tuple[datetime, datetime]]

    @classmethod
    def of(cls, since: datetime | None, until: datetime | None) -> _Span | None:
        """Return it; ``None``: no whole quarter is asked for."""
        edges = []
        first = after = None
        if since is not None:
            first = -((EPOCH - since) // QUARTER)
            if (start := EPOCH + first * QUARTER) > since:
                edges.append((since, start))
        if until is not None:
            after = (until - EPOCH) // QUARTER
            if (end := EPOCH + after * QUARTER) < until:
                edges.append((end, until))
        if first is not None and after is not None and first >= after:
            return None
        return cls(first, after, edges)

    @property
    def since(self) -> datetime | None:
        """When the first quarter begins."""
        return None if self.first is None else EPOCH + self.first * QUARTER

    @property
    def until(self) -> datetime | None:
        """When the last one ends."""
        return None if self.after is None else EPOCH + self.after * QUARTER


class _Asking:
    """One question, in the words of the database."""

    def __init__(self, by: Sequence[str], selection: Selection, tag: str | None) -> None:
        self._selection = selection
        self._tag = tag
        self._needed = _needed(by, selection)
        self.series = series_of(tag)
        self.width = len(KEYS) + (tag is not None)

    def questions(self, step: _Step, *, rolled: bool) -> Iterator[tuple[str, list[Any]]]:
        """Yield statements and their values: together they add up what is asked for."""
        selection = self._selection
        try:
            span = _Span.of(selection.since, selection.until) if rolled else None
        except OverflowError:  # the first or the last moments that there are
            span = None
        if (whole := _whole(selection)) is not None:
            yield self._of_sums(_EXPIRED_GROUPS, whole, step)
        if span is None:
            yield self._of_calls(_ALL, selection, step)
            return
        yield self._of_sums(_ROLLUP, span, step)
        yield self._of_calls(_NOT_YET, selection, step)
        for since, until in span.edges:
            yield self._of_calls(_ROLLED, selection.between(since, until), step)
        within = selection.between(span.since, span.until)
        yield self._of_calls(_BEATEN, within, step, sign=-1)

    def _of_calls(
        self, rows: str, selection: Selection, step: _Step, *, sign: int = 1
    ) -> tuple[str, list[Any]]:
        """Return the statement that adds rows of ``calls`` up, or (``sign`` -1) takes them away."""
        asked = condition(selection)
        values = [*asked.values]
        keys = [f"c.{key}" if key in self._needed else "NULL::text" for key in KEYS]
        if self._tag is not None:
            values.append(self._tag)
            keys.append(f"c.tags ->> ${len(values)}::text")
        if rows != _ALL:
            values.append(self.series)
            rows = rows.replace("{series}", f"${len(values)}::text")
        if isinstance(step, _Periods):
            values.append(step.begins)
            quarter = step.of(f"({quarter_of('c.ts')})", len(values))
        else:
            quarter = quarter_of("c.ts", step) if step else f"{NO_QUARTER}"
        columns = ", ".join(
            f"{'-' if sign < 0 else ''}{_SUMS.get(name, f'sum(c.{name})')}" for name in FIELDS
        )
        places = ", ".join(str(at + 1) for at in range(len(keys) + 1))
        counts = _COUNTS if sign > 0 else ""
        text = (
            f"SELECT {', '.join(keys)}, {quarter}, {columns} FROM {rows} "
            f"WHERE c.line IS NULL AND {asked.text} {counts} GROUP BY {places} ORDER BY {places}"
        )
        return text, values

    def _of_sums(self, table: str, span: _Span, step: _Step) -> tuple[str, list[Any]]:
        """Return the statement that adds up sums of whole quarters."""
        asked = condition(self._selection.between(None, None))
        values = [*asked.values, self._tag]
        keys = [f"c.{key}" if key in self._needed else "NULL::text" for key in KEYS]
        if self._tag is not None:
            keys.append("c.tag_value")
        tag = len(values)
        quarter = f"{NO_QUARTER}"
        if isinstance(step, _Periods):
            values.append(step.begins)
            quarter = step.of("t.quarter", len(values))
        elif step:
            first = f"t.quarter - ((t.quarter % {step}) + {step}) % {step}"
            quarter = f"CASE WHEN t.quarter > {quarter} THEN {first} ELSE {quarter} END"
        columns = ", ".join(f"sum(t.{name})" for name in FIELDS)
        places = ", ".join(str(at + 1) for at in range(len(keys) + 1))
        text = (
            f"SELECT {', '.join(keys)}, {quarter}, {columns} FROM {table} "
            f"WHERE c.tag_name IS NOT DISTINCT FROM ${tag}::text AND {_times(span)} "
            f"AND {asked.text} GROUP BY {places} HAVING sum(t.calls) <> 0 ORDER BY {places}"
        )
        return text, values


def _whole(selection: Selection) -> _Span | None:
    """Return the whole quarters that are asked for."""
    try:
        return _Span.of(selection.since, selection.until)
    except OverflowError:
        return None


def _times(span: _Span) -> str:
    """Return the condition that sums are of whole quarters that are asked for."""
    times = "true"
    if span.first is not None:
        times += f" AND t.quarter >= {span.first:d}"
    if span.after is not None:
        times += f" AND t.quarter < {span.after:d} AND t.quarter > {NO_QUARTER}"
    return times


_ALL: Final = "litellm_ledger.calls c"
_NOT_YET: Final = """(
    SELECT w.writer_id, coalesce(m.rolled, 0) AS rolled, w.shipped
    FROM litellm_ledger.writers w
    LEFT JOIN litellm_ledger.rollup_marks m ON m.writer_id = w.writer_id AND m.series = {series}
    WHERE w.shipped > coalesce(m.rolled, 0)
) AS r CROSS JOIN LATERAL (
    SELECT * FROM litellm_ledger.calls o
    WHERE o.writer_id = r.writer_id AND o.seq > r.rolled AND o.seq <= r.shipped
    OFFSET 0
) AS c"""
"""By the primary key, as in ``rollup``: few rows, however many there are."""
_ROLLED: Final = """litellm_ledger.calls c JOIN litellm_ledger.rollup_marks m
    ON m.writer_id = c.writer_id AND m.series = {series} AND m.rolled >= c.seq"""
_BEATEN: Final = """litellm_ledger.beaten u
JOIN litellm_ledger.rollup_marks m
    ON m.writer_id = u.writer_id AND m.series = {series} AND m.rolled >= u.seq
    AND NOT EXISTS (
        SELECT FROM litellm_ledger.rollup_beaten d
        WHERE d.writer_id = u.writer_id AND d.series = m.series AND d.seq = u.seq
    )
JOIN litellm_ledger.calls c ON c.writer_id = u.writer_id AND c.seq = u.seq"""
_GROUPS: Final = """(
    SELECT *, pg_catalog.jsonb_strip_nulls(
        CASE WHEN tag_name IS NOT NULL THEN pg_catalog.jsonb_build_object(tag_name, tag_value) END
    ) AS tags
    FROM litellm_ledger.rollup_groups
) AS c"""
_ROLLUP: Final = f"{_GROUPS} JOIN litellm_ledger.rollup_15m t USING (group_id)"
_EXPIRED: Final = "litellm_ledger.expired_sums"
_EXPIRED_GROUPS: Final = f"""{_EXPIRED} t CROSS JOIN LATERAL (
    SELECT {", ".join(f"t.{key}" for key in KEYS)}, t.tag_name, t.tag_value,
        pg_catalog.jsonb_strip_nulls(
            CASE WHEN t.tag_name IS NOT NULL
            THEN pg_catalog.jsonb_build_object(t.tag_name, t.tag_value) END
        ) AS tags
) AS c"""


async def _tables(
    connection: asyncpg.Connection, text: str, values: Sequence[Any], width: int, step: int
) -> AsyncIterator[Table]:
    """Yield a table for each group of rows that come group by group, quarters ascending."""
    rows: list[Any] = []
    async for row in connection.cursor(text, *values, prefetch=_ROWS):
        if rows and tuple(rows[-1][:width]) != tuple(row[:width]):
            yield _table(rows, width, step)
            rows = []
        rows.append(row)
    if rows:
        yield _table(rows, width, step)


def _table(rows: Sequence[Any], width: int, step: int) -> Table:
    quarters = [None if row[width] == NO_QUARTER else row[width] for row in rows]
    sums = {name: [whole(row[at]) for row in rows] for at, name in enumerate(FIELDS, width + 1)}
    return Table([Group(list(rows[0][:width]), quarters, sums)], step)


def _needed(by: Sequence[str], selection: Selection) -> set[str]:
    """Return the keys by which outcomes must be told apart."""
    asked = {*by, *selection.where, *selection.where_not, "status", "usage_source"}
    if "model" in asked:
        asked.add("provider")
    return asked.intersection(KEYS)


async def count(connection: asyncpg.Connection, selection: Selection, asked: Condition) -> int:
    """Return how many outcomes there are, those apart that are kept as the lines that they were."""
    totals = Totals((), max_groups=1_000)
    added = await add(connection, (), totals, selection)
    if added is not None:
        return totals.calls() - added.expired
    text = f"SELECT count(*) FROM litellm_ledger.calls c WHERE c.line IS NULL AND {asked.text}"
    return int(await connection.fetchval(text + _COUNTS, *asked.values))


async def newest_since(
    connection: asyncpg.Connection, selection: Selection, limit: int
) -> datetime | None:
    """Return a time since when there are ``limit`` outcomes, by the sums; ``None``: unknown."""
    asked = condition(selection.between(None, None))
    tags = [key for key in (*selection.where, *selection.where_not) if key.startswith("tag:")]
    if tags or not asked.exact or not await _is_rolled(connection, ""):
        return None
    if selection.since is not None or selection.until is not None:
        return None
    values = [*asked.values, limit]
    quarter = await connection.fetchval(
        "SELECT max(quarter) FROM (SELECT t.quarter, sum(sum(t.calls)) OVER (ORDER BY t.quarter "
        f"DESC) AS running FROM {_GROUPS} JOIN litellm_ledger.rollup_15m t USING (group_id) "
        f"WHERE c.tag_name IS NULL AND t.quarter > {NO_QUARTER} AND {asked.text} GROUP BY 1) "
        f"AS q WHERE running >= ${len(values)}::bigint "
        "+ (SELECT count(*) FROM litellm_ledger.beaten)",
        *values,
    )
    return None if quarter is None else EPOCH + quarter * QUARTER


async def tags(connection: asyncpg.Connection, asked: Condition) -> frozenset[str]:
    """Return the names of the tags of outcomes, as ``count`` counts them."""
    text = (
        "SELECT DISTINCT pg_catalog.jsonb_object_keys(c.tags) FROM litellm_ledger.calls c "
        f"WHERE c.line IS NULL AND c.tags IS NOT NULL AND {asked.text}"
    )
    rows = await connection.fetch(text + _COUNTS, *asked.values)
    rows += await connection.fetch(
        "SELECT DISTINCT tag_name FROM litellm_ledger.expired_sums WHERE tag_value IS NOT NULL"
    )
    return frozenset(row[0] for row in rows if row[0] is not None)
