"""Finding an operation in the database, by one of its ids or by a part of one.

Owns these searches.  By the id of a record they take an index; by any other they read all rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._records.layout import split_id

from .as_lines import id_of
from .asked import Condition, can_be

if TYPE_CHECKING:
    import asyncpg

__all__ = ["after", "near", "of_operation"]

_SHORT: Final = re.compile(r"([0-9a-f]{1,16})-(\d{1,16})", re.ASCII)
_ID: Final = id_of("c.seq")
_OPERATION: Final = f"coalesce(c.operation, {id_of('c.operation_seq')})"


async def of_operation(connection: asyncpg.Connection, key: str) -> Condition | None:
    """Return the condition of the operation one of whose records has this id.

    Or whose ``call_id`` it is, or the ``response_id`` of an answer; ``None``: there is none.
    """
    known = split_id(key)
    row = None
    if known is not None:
        row = await connection.fetchrow(_BY_ID, *known, key)
    elif can_be(key):
        row = await connection.fetchrow(_BY_TEXT, key)
    if row is None:
        return None
    writer_id, seq, operation_seq, operation = row
    if operation is not None:
        return _of_name(operation)
    number = operation_seq or seq
    text = "c.writer_id = $1::int AND c.seq >= $2::bigint AND (c.seq = $2 OR c.operation_seq = $2)"
    return Condition(text, [writer_id, number], exact=True)


def _of_name(operation: str) -> Condition:
    """Return the condition of an operation that is not named after a record of its own writer."""
    known = split_id(operation)
    if known is None:
        return Condition("c.operation = $1::text", [operation], exact=True)
    text = (
        "(w.writer = $2::text AND (c.seq = $3::bigint OR c.operation_seq = $3) "
        "OR c.operation = $1::text)"
    )
    return Condition(text, [operation, *known], exact=True)


async def after(connection: asyncpg.Connection, numbers: Mapping[str, int]) -> Condition | None:
    """Return the condition of outcomes with larger numbers than their writers had."""
    rows = await connection.fetch(_GROWN, list(numbers), list(numbers.values()))
    if not rows:
        return None
    text = (
        "c.writer_id = ANY($1::int[]) AND c.seq > $3::bigint AND EXISTS (SELECT FROM "
        "unnest($1::int[], $2::bigint[]) AS s (w, n) WHERE s.w = c.writer_id AND c.seq > s.n)"
    )
    writers, seen = [row[0] for row in rows], [row[1] for row in rows]
    return Condition(text, [writers, seen, min(seen)], exact=True)


async def near(connection: asyncpg.Connection, part: str, limit: int) -> Condition | None:
    """Return the condition of records of which an id begins or ends so, or is short for it."""
    short = _SHORT.fullmatch(part)
    rows: list[Any] = []
    if short is not None:
        rows = await connection.fetch(_BY_SHORT, short[1], int(short[2]), limit)
    if not rows and can_be(part):
        rows = await connection.fetch(_BY_PART, part, limit)
    if not rows:
        return None
    text = "(c.writer_id, c.seq) IN (SELECT * FROM unnest($1::int[], $2::bigint[]) AS found (w, n))"
    return Condition(text, [[row[0] for row in rows], [row[1] for row in rows]], exact=True)


_GROWN: Final = """
SELECT w.writer_id, coalesce(s.n, 0)
FROM litellm_ledger.writers w
LEFT JOIN unnest($1::text[], $2::bigint[]) AS s (writer, n) ON s.writer = w.writer
WHERE w.shipped > coalesce(s.n, 0)
"""
_BY_ID: Final = """
SELECT c.writer_id, c.seq, c.operation_seq, c.operation
FROM litellm_ledger.writers w JOIN litellm_ledger.calls c USING (writer_id)
WHERE w.writer = $1 AND c.seq >= $2 AND (c.seq = $2 OR c.operation_seq = $2)
UNION ALL
SELECT f.writer_id, f.seq, f.operation_seq, f.operation
FROM litellm_ledger.writers w JOIN litellm_ledger.in_flight f USING (writer_id)
WHERE w.writer = $1 AND (f.seq = $2 OR f.operation_seq = $2)
UNION ALL
SELECT c.writer_id, c.seq, c.operation_seq, c.operation
FROM litellm_ledger.calls c WHERE c.operation = $3
LIMIT 1
"""
_BY_TEXT: Final = """
SELECT c.writer_id, c.seq, c.operation_seq, c.operation
FROM litellm_ledger.calls c JOIN litellm_ledger.writers w USING (writer_id)
WHERE c.operation = $1 OR c.call_id = $1 OR c.response_id = $1
ORDER BY w.writer COLLATE "C", c.seq
LIMIT 1
"""
_BY_SHORT: Final = """
SELECT c.writer_id, c.seq
FROM litellm_ledger.writers w JOIN litellm_ledger.calls c USING (writer_id)
WHERE pg_catalog.right(w.writer, pg_catalog.length($1::text)) = $1 AND c.seq = $2
ORDER BY w.writer COLLATE "C", c.seq
LIMIT $3
"""
_BY_PART: Final = f"""
SELECT c.writer_id, c.seq
FROM litellm_ledger.writers w JOIN litellm_ledger.calls c USING (writer_id)
WHERE pg_catalog.starts_with({_ID}, $1)
   OR pg_catalog.right({_ID}, pg_catalog.length($1::text)) = $1
   OR pg_catalog.starts_with({_OPERATION}, $1)
   OR pg_catalog.right({_OPERATION}, pg_catalog.length($1::text)) = $1
   OR pg_catalog.starts_with(c.call_id, $1)
   OR pg_catalog.right(c.call_id, pg_catalog.length($1::text)) = $1
   OR pg_catalog.starts_with(c.response_id, $1)
   OR pg_catalog.right(c.response_id, pg_catalog.length($1::text)) = $1
ORDER BY w.writer COLLATE "C", c.seq
LIMIT $2
"""
