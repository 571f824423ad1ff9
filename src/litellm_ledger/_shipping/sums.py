"""Sums that the database makes: by group and quarter of an hour, so that any period can be told.

Owns which columns of ``calls`` each sum is of, and how rows of sums become tables, which answer as
those of manifests do (``_aggregates.quarters``): exactly or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._aggregates.quarters import Group, QuarterQuestion, Table
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.totals import FIELDS, Totals
from litellm_ledger._records.record import KEYS

from .asked import Condition, condition

if TYPE_CHECKING:
    import asyncpg

__all__ = ["SUMS", "add", "count", "quarter_of", "tags"]

SUMS: Final = {
    "cache_hits": "count(*) FILTER (WHERE c.cache_hit)",
    "calls": "count(*)",
    "pico": "sum(c.cost_picousd)",
    "priced": "count(c.cost_picousd)",
    "retries": "count(*) FILTER (WHERE c.attempt > 1)",
    "saved": "sum(c.saved_cost_picousd)",
}
"""What is not the sum of the column of its name.  Sums of bigint are numeric: exact."""

_COUNTS: Final = """
  AND NOT EXISTS (
    SELECT FROM litellm_ledger.beaten b WHERE b.writer_id = c.writer_id AND b.seq = c.seq
  )
"""
_ROWS: Final = 2_000
_NO_QUARTER: Final = -(2**31)


class _TooCoarse(Exception):
    """Sums are over times that are in several periods."""


def quarter_of(ts: str, step: int = 1) -> str:
    """Return the expression for the quarter of an hour that a time is in, ``-2**31`` for none.

    Args:
        step: over how many quarters sums are; the first one of them is the result.
    """
    seconds = 900 * step
    return (
        f"CASE WHEN {ts} > '-infinity' THEN "
        f"(pg_catalog.floor(extract(epoch FROM {ts}) / {seconds}) * {step})::int "
        f"ELSE {_NO_QUARTER} END"
    )


async def add(
    connection: asyncpg.Connection, by: Sequence[str], totals: Totals, selection: Selection
) -> bool:
    """Add up what a selection asks for, by group; tell whether it could be told exactly.

    What is kept as the line that it was, or set aside, is not among it.  Where it could not be
    told, nothing is added.
    """
    question = QuarterQuestion(by, selection.at_any_time())
    asked = condition(selection)
    if not question.answerable:
        return False
    for step in _steps(question, selection):
        part = Totals(by, max_groups=totals.limit, calendar=selection.calendar)
        try:
            async for table in _grouped(connection, by, selection, question, asked, step):
                if not question.add_to(part, table):
                    raise _TooCoarse
        except _TooCoarse:
            continue
        totals.add_all(part)
        return True
    return False


def _steps(question: QuarterQuestion, selection: Selection) -> Sequence[int]:
    """Return over how many quarters sums may be, the most first; 0: time does not matter."""
    if not question.periods:
        return (0,)
    return (96, 4, 1) if selection.calendar.zone is UTC else (4, 1)


async def _grouped(
    connection: asyncpg.Connection,
    by: Sequence[str],
    selection: Selection,
    question: QuarterQuestion,
    asked: Condition,
    step: int,
) -> AsyncIterator[Table]:
    """Yield the sums of each group."""
    keys = [f"c.{key}" if key in _needed(by, selection) else "NULL::text" for key in KEYS]
    values = [*asked.values]
    if question.tag is not None:
        values.append(question.tag)
        keys.append(f"c.tags ->> ${len(values)}::text")
    quarter = quarter_of("c.ts", step) if step else f"{_NO_QUARTER}"
    columns = ", ".join(SUMS.get(name, f"sum(c.{name})") for name in FIELDS)
    places = ", ".join(str(at + 1) for at in range(len(keys) + 1))
    text = (
        f"SELECT {', '.join(keys)}, {quarter}, {columns} FROM litellm_ledger.calls c "
        f"WHERE c.line IS NULL AND {asked.text} {_COUNTS} GROUP BY {places} ORDER BY {places}"
    )
    async for table in _tables(connection, text, values, len(keys), step or 1):
        yield table


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
    quarters = [None if row[width] == _NO_QUARTER else row[width] for row in rows]
    sums = {name: [int(row[at] or 0) for row in rows] for at, name in enumerate(FIELDS, width + 1)}
    return Table([Group(list(rows[0][:width]), quarters, sums)], step)


def _needed(by: Sequence[str], selection: Selection) -> set[str]:
    """Return the keys by which outcomes must be told apart."""
    asked = {*by, *selection.where, *selection.where_not, "status", "usage_source"}
    if "model" in asked:
        asked.add("provider")
    return asked.intersection(KEYS)


async def count(connection: asyncpg.Connection, asked: Condition) -> int:
    """Return how many outcomes there are, those apart that are kept as the lines that they were."""
    text = f"SELECT count(*) FROM litellm_ledger.calls c WHERE c.line IS NULL AND {asked.text}"
    return int(await connection.fetchval(text + _COUNTS, *asked.values))


async def tags(connection: asyncpg.Connection, asked: Condition) -> frozenset[str]:
    """Return the names of the tags of outcomes, as ``count`` counts them."""
    text = (
        "SELECT DISTINCT pg_catalog.jsonb_object_keys(c.tags) FROM litellm_ledger.calls c "
        f"WHERE c.line IS NULL AND c.tags IS NOT NULL AND {asked.text}"
    )
    return frozenset(row[0] for row in await connection.fetch(text + _COUNTS, *asked.values))
