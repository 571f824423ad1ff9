"""The advisory locks of a database: each of these does one process at a time.

Owns their numbers, and waiting for one until the end of a transaction.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncpg

__all__ = ["OURS", "Lock", "take"]

OURS: Final = 5512117
"""The first of the two numbers of every lock."""


class Lock(IntEnum):
    """What for: the second number."""

    SCHEMA = 1
    PARTITIONS = 2
    """Taken by a function of ``sql/0001_schema.sql``."""
    SUMS = 3
    REMOVAL = 4


async def take(connection: asyncpg.Connection, lock: Lock) -> None:
    """Wait for a lock, and have it until the end of the transaction."""
    text = "SELECT pg_catalog.pg_advisory_xact_lock($1, $2)"
    await connection.execute(text, OURS, lock.value)
