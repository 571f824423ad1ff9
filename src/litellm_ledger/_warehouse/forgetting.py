"""What names a person beside records: values in sums, budgets, and what the planner knows.

Owns how each of these is taken out, in the caller's transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from litellm_ledger._budgets.budget import scope_part
from litellm_ledger._maintenance.person import Person
from litellm_ledger._records.record import KEYS
from litellm_ledger._shipping.rows import MARK

from .asked import can_be

if TYPE_CHECKING:
    import asyncpg

__all__ = ["forget_scopes", "forget_statistics", "forget_values"]

_TEXTS: Final = tuple(key for key in KEYS if key not in ("status", "usage_source"))
"""Of the keys of sums, those that may have a mark in them: the others have words of ours only."""


async def forget_values(connection: asyncpg.Connection, person: Person) -> int:
    """Take a person's values out of sums of what expired, which stay; return of how many."""
    if person.one_tag is None:
        return 0
    tag, values = person.one_tag
    changed = 0
    rows = await connection.fetch(
        "SELECT DISTINCT tag_name, tag_value FROM litellm_ledger.expired_sums "
        "WHERE tag_value IS NOT NULL"
    )
    for name, value in rows:
        said = value.replace(MARK, "\0")
        if said in values if name == tag else person.without(said) is None:
            changed += await _forget(
                connection, "tag_value", "tag_name = $2 AND tag_value = $1", value, name
            )
    for column in _TEXTS:
        rows = await connection.fetch(
            f"SELECT DISTINCT {column} FROM litellm_ledger.expired_sums WHERE {column} IS NOT NULL"
        )
        for (value,) in rows:
            if person.without(value.replace(MARK, "\0")) is None:
                changed += await _forget(connection, column, f"{column} = $1", value)
    return changed


async def _forget(connection: asyncpg.Connection, column: str, where: str, *values: str) -> int:
    done = await connection.execute(
        f"UPDATE litellm_ledger.expired_sums SET {column} = NULL WHERE {where}", *values
    )
    return int(done.rpartition(" ")[2])


async def forget_scopes(connection: asyncpg.Connection, person: Person) -> tuple[int, int]:
    """Remove what was lent to budgets of a person.

    Returns:
        How many budgets that were, and how many of their windows still count.
    """
    if person.one_tag is None:
        return 0, 0
    tag, values = person.one_tag
    parts = [scope_part(tag, value) for value in sorted(filter(can_be, values))]
    scopes = await connection.fetch(
        "SELECT s.counts, s.scope FROM litellm_ledger.budget_scopes s WHERE EXISTS ("
        "SELECT FROM unnest($1::text[]) AS p WHERE pg_catalog.strpos("
        "' ' || s.scope || ' ', ' ' || p || ' ') > 0) ORDER BY 1, 2 FOR UPDATE",
        parts,
    )
    left = 0
    for key in scopes:
        ended = await connection.fetch(
            "DELETE FROM litellm_ledger.budget_windows WHERE (counts, scope) = ($1, $2) "
            "AND leaves < pg_catalog.now() RETURNING key",
            *key,
        )
        await connection.execute(
            "DELETE FROM litellm_ledger.leases WHERE (counts, scope) = ($1, $2) "
            "AND key = ANY($3::bigint[])",
            *key,
            [row[0] for row in ended],
        )
        windows = await connection.fetchval(
            "SELECT count(*) FROM litellm_ledger.budget_windows WHERE (counts, scope) = ($1, $2)",
            *key,
        )
        if not windows:
            await connection.execute(
                "DELETE FROM litellm_ledger.budget_scopes WHERE (counts, scope) = ($1, $2)",
                *key,
            )
        left += windows
    return len(scopes), left


async def forget_statistics(connection: asyncpg.Connection, person: Person) -> None:
    """Have the planner forget a person's values.

    ``ANALYZE`` alone leaves those of a table that has no rows any more, and those of ``calls``
    as a whole are not made with its partitions'.
    """
    clears = await connection.fetchval(_CLEARS)  # from PostgreSQL 18 on
    tables = set()
    for *column, text in await connection.fetch(_STATISTICS):
        text = text.replace(MARK, "\0")
        if person.is_in(text) or person.is_in(text.replace("\\\\", "\\")):
            tables.add(column[0])
            if clears:
                await connection.execute(_CLEAR, *column)
    for name in sorted(tables):
        await connection.execute(f'ANALYZE litellm_ledger."{name}"')


_CLEARS: Final = "SELECT to_regproc('pg_catalog.pg_clear_attribute_stats') IS NOT NULL"
_CLEAR: Final = "SELECT pg_catalog.pg_clear_attribute_stats('litellm_ledger', $1, $2, $3)"
_STATISTICS: Final = """
SELECT tablename::text, attname::text, inherited, pg_catalog.concat_ws(' ',
    most_common_vals::text, histogram_bounds::text, most_common_elems::text)
FROM pg_catalog.pg_stats WHERE schemaname = 'litellm_ledger' ORDER BY 1, 2, 3
"""
