"""A month of UTC: what retention removes at once.

Owns its name, its times, its partition, and the conditions that rows are of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from litellm_ledger._aggregates.steps import EPOCH, QUARTER
from litellm_ledger._postgres.database import transaction
from litellm_ledger._postgres.query import query

from .removing import LONG

if TYPE_CHECKING:
    import asyncpg

__all__ = ["Month", "months", "writers_of"]


class Month(NamedTuple):
    """A month of UTC, as 202501."""

    number: int
    partition: bool = False
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.number // 100:04}-{self.number % 100:02}"

    @property
    def start(self) -> datetime:
        """When it begins."""
        return datetime(self.number // 100, self.number % 100, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """When the next one begins."""
        year, month = divmod(self.number // 100 * 12 + self.number % 100, 12)
        return datetime(year, month + 1, 1, tzinfo=UTC)

    @property
    def table(self) -> str:
        """The name of its partition."""
        return f"litellm_ledger.calls_{self.number}"

    @property
    def quarters(self) -> tuple[int, int]:
        """The first and the last quarter of an hour."""
        return (self.start - EPOCH) // QUARTER, (self.end - EPOCH) // QUARTER - 1

    @property
    def outside(self) -> str:
        """The condition that a row of ``calls_outside`` is of it."""
        return f"c.ts >= '{self.start.isoformat()}' AND c.ts < '{self.end.isoformat()}'"

    @property
    def which(self) -> str:
        """The condition that a row of ``calls`` is of it, and of writers that are held ($1)."""
        return (
            f"(c.month = {self.number} OR (c.month = 0 AND {self.outside})) "
            "AND c.writer_id = ANY($1::int[])"
        )


async def months(connection: asyncpg.Connection) -> list[Month]:
    """Return the months that there are outcomes or a partition of, ascending."""
    found: dict[int, Month] = {}
    async with transaction(connection, timeout=LONG, readonly=True):
        for number, partition, size in await connection.fetch(query("months")):
            one = found.get(number, Month(number))
            found[number] = Month(number, one.partition or partition, one.bytes + size)
    return [found[number] for number in sorted(found)]


async def writers_of(connection: asyncpg.Connection, month: Month) -> list[int]:
    """Return the writers that have outcomes in a month."""
    text = query("writers_of_month").format(month=month.number, outside=month.outside)
    return [row[0] for row in await connection.fetch(text)]
