"""What retention and erasure in a database have in common: who may, what they wait for, what stays.

Owns the order of locks, so that neither stands still with a shipper: who removes at all (one at a
time), the sums by quarter of an hour, the rows of the writers by number; and the gaps, counts and
deeds that are left.  Everything is in the caller's transaction: killed, nothing of it has happened.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

from litellm_ledger._errors import LedgerPathError
from litellm_ledger._postgres.database import transaction
from litellm_ledger._postgres.locks import Lock, take
from litellm_ledger._postgres.query import query
from litellm_ledger._shipping import rollup

if TYPE_CHECKING:
    import asyncpg

__all__ = [
    "LONG",
    "Removed",
    "again",
    "freeze",
    "is_busy",
    "note_deed",
    "only_the_owner",
    "remove",
    "uneven",
]

_T = TypeVar("_T")

LONG: Final = 3_600.0
"""Seconds that a statement may take that reads a whole month."""
_WAIT: Final = 10
"""Seconds that a lock is waited for: a shipper holds its writer for one batch."""
_TRIES: Final = 6
_BUSY: Final = ("40001", "40P01", "55P03")
"""What PostgreSQL says where others were in the way: serialization, deadlock, lock time-out."""


class Removed(NamedTuple):
    """What went: ``outcomes`` of ``numbers`` of ``writers``; ``cost`` in picodollars."""

    outcomes: int
    numbers: int
    cost: int
    writers: int


async def only_the_owner(connection: asyncpg.Connection, verb: str) -> None:
    """Refuse everybody but the owner of the schema.

    Raises:
        LedgerPathError: the user is not; nothing has happened.
    """
    owns, user, owner = await connection.fetchrow(
        "SELECT pg_catalog.pg_has_role(relowner, 'USAGE'), CURRENT_USER::text, "
        "pg_catalog.pg_get_userbyid(relowner)::text "
        "FROM pg_catalog.pg_class WHERE oid = 'litellm_ledger.calls'::regclass"
    )
    if not owns:
        raise LedgerPathError(
            f"{user} may not {verb} here; only the owner of the schema may: come as {owner}"
        )


async def again(
    connection: asyncpg.Connection, work: Callable[[], Awaitable[_T]], tries: int = _TRIES
) -> _T:
    """Do ``work`` in a transaction of its own; once more where others were in the way.

    Args:
        connection: in no transaction.
        work: all of it is undone before it is tried again.
        tries: how often at most.

    Raises:
        LedgerPathError: others always were.
    """
    for left in reversed(range(tries)):
        try:
            # Each statement has to see what was committed while it waited for a lock.
            async with transaction(connection, timeout=LONG, isolation="read_committed"):
                await connection.execute(f"SET LOCAL lock_timeout = '{_WAIT}s'")
                return await work()
        except Exception as exc:
            if not is_busy(exc):
                raise
            if not left:
                raise LedgerPathError(
                    "others hold locks in the database that this has to wait for, longer than "
                    f"{_WAIT} seconds each time; what was done is done: run it again"
                ) from exc
        await asyncio.sleep(random.uniform(0.05, 0.5))
    raise AssertionError  # pragma: no cover - the last try returns or raises


def is_busy(exc: Exception) -> bool:
    """Whether somebody else was in the way, so that it may be tried again."""
    return getattr(exc, "sqlstate", None) in _BUSY


async def freeze(connection: asyncpg.Connection, writer_ids: Sequence[int]) -> None:
    """Have nothing of these writers change until the end of the transaction.

    Waits for processes that bring the sums forward, remove, or ship a batch of theirs.
    """
    await take(connection, Lock.REMOVAL)
    await rollup.hold(connection)
    await connection.execute(
        "SELECT FROM litellm_ledger.writers WHERE writer_id = ANY($1::int[]) "
        "ORDER BY writer_id FOR UPDATE",
        list(writer_ids),
    )


async def uneven(connection: asyncpg.Connection, writer_ids: Sequence[int]) -> list[str]:
    """Return those of some writers whose outcomes are not as many as they should be.

    Nothing of them is removed: what is wrong would be hard to see afterwards.
    """
    rows = await connection.fetch(
        "SELECT w.writer FROM litellm_ledger.writers w LEFT JOIN ("
        "SELECT writer_id, count(*) AS rows FROM litellm_ledger.calls "
        "WHERE writer_id = ANY($1::int[]) GROUP BY 1) AS c USING (writer_id) "
        "WHERE w.writer_id = ANY($1::int[]) AND w.usage <> coalesce(c.rows, 0) "
        'ORDER BY w.writer COLLATE "C"',
        list(writer_ids),
    )
    return [row[0] for row in rows]


async def remove(
    connection: asyncpg.Connection, gone: str, values: Sequence[Any], reason: str
) -> Removed:
    """Leave gaps in the place of rows that are about to be deleted.

    Args:
        gone: the statement that has them, as ``queries/remove.sql`` wants it.
        values: its parameters.
        reason: ``expired`` or ``erased``.
    """
    rows = await connection.fetch(query("remove").format(gone=gone, reason=reason), *values)
    return Removed(
        outcomes=sum(row[0] for row in rows),
        numbers=sum(row[1] for row in rows),
        cost=sum(int(row[2]) for row in rows),
        writers=len(rows),
    )


async def note_deed(
    connection: asyncpg.Connection, did: str, who: str, why: str, **detail: Any
) -> None:
    """Put on record what was done; of numbers and times only, never of a person's values."""
    await connection.execute(
        "INSERT INTO litellm_ledger.deeds (at, did, who, why, detail) "
        "VALUES (pg_catalog.clock_timestamp(), $1, $2, $3, $4)",
        did,
        who,
        why,
        msgspec.json.encode(detail).decode(),
    )
