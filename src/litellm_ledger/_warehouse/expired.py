"""The sums of what expired: kept when a month goes, and removed when their own time has come.

Owns both steps, each in the caller's transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from litellm_ledger._postgres.query import query
from litellm_ledger._shipping import rollup
from litellm_ledger._shipping.rollup import quarter_of, series_of

from .asked import BEATEN
from .month import Month

if TYPE_CHECKING:
    import asyncpg

__all__ = ["forget_sums", "move_sums"]


async def move_sums(connection: asyncpg.Connection, month: Month, writers: list[int]) -> None:
    """Move the sums of a month, by the tags that it is known by, to those of what expired.

    Quarters of an hour are of one month each.  So the sums that are kept of them are those of its
    outcomes, as far as they have been brought forward; what is missing there is added.
    """
    tags = await connection.fetchval(
        "SELECT tags FROM litellm_ledger.expired_months WHERE month = $1", month.number
    )
    if tags is None:
        tags = await rollup.chosen_tags(connection)
    await connection.execute(query("expire_rolled"), tags, *month.quarters)
    series = [series_of(None), *map(series_of, tags)]
    for rows in (_NOT_ROLLED, _ROLLED_AND_BEATEN):
        found = query("rollup_found").format(
            rows=rows.format(which=month.which), quarter=quarter_of("c.ts")
        )
        await connection.execute(query("expire_sums").format(found=found), writers, series)
    await connection.execute(
        "INSERT INTO litellm_ledger.expired_months AS m (month, tags, outcomes) "
        f"SELECT {month.number}, $2::text[], count(*) FROM litellm_ledger.calls c "
        f"WHERE {month.which} AND NOT {BEATEN} HAVING count(*) > 0 "
        "ON CONFLICT (month) DO UPDATE SET outcomes = m.outcomes + EXCLUDED.outcomes, "
        "at = EXCLUDED.at",
        writers,
        tags,
    )


_MARKS: Final = """
    SELECT w.writer_id, s.series, coalesce(m.rolled, 0) AS rolled
    FROM unnest($1::int[]) AS w (writer_id) CROSS JOIN unnest($2::text[]) AS s (series)
    LEFT JOIN litellm_ledger.rollup_marks m ON m.writer_id = w.writer_id AND m.series = s.series
"""
_NOT_ROLLED: Final = f"""
    (SELECT *, 1 AS sign FROM ({_MARKS}) AS marks) AS r
    JOIN litellm_ledger.calls c ON c.writer_id = r.writer_id AND {{which}}
    AND (c.seq > r.rolled OR c.line IS NOT NULL) AND NOT {BEATEN}
"""
_ROLLED_AND_BEATEN: Final = f"""
    (SELECT *, -1 AS sign FROM ({_MARKS}) AS marks) AS r
    JOIN litellm_ledger.beaten u ON u.writer_id = r.writer_id AND u.seq <= r.rolled
    JOIN litellm_ledger.calls c ON c.writer_id = u.writer_id AND c.seq = u.seq
    AND c.line IS NULL AND {{which}}
    AND NOT EXISTS (
        SELECT FROM litellm_ledger.rollup_beaten d
        WHERE d.writer_id = r.writer_id AND d.series = r.series AND d.seq = c.seq
    )
"""


async def forget_sums(connection: asyncpg.Connection, month: Month) -> int:
    """Remove the sums of a month that expired; return of how many outcomes they were."""
    calls = await connection.fetchval(
        "WITH gone AS (DELETE FROM litellm_ledger.expired_sums "
        "WHERE quarter BETWEEN $1 AND $2 RETURNING tag_name, calls) "
        "SELECT coalesce(sum(calls) FILTER (WHERE tag_name IS NULL), 0)::bigint FROM gone",
        *month.quarters,
    )
    await connection.execute(
        "UPDATE litellm_ledger.expired_months SET untold = outcomes WHERE month = $1",
        month.number,
    )
    return int(calls)
