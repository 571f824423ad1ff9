"""``prune postgresql://…``: months of outcomes that are past their time go, and their sums stay.

Owns the order of the steps.  A month goes in one transaction: gaps stand for its numbers, the sums
of its outcomes are added to ``expired_sums`` and taken out of those by quarter of an hour, a deed
says so, and its partition is dropped last.  For that alone nobody may read or ship for a moment;
the lock is asked for a second at a time, so that nobody waits longer behind a long report.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from litellm_ledger._aggregates.formatting import counted
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._postgres.database import transaction
from litellm_ledger._shipping import rollup

from .asked import BEATEN
from .expired import forget_sums, move_sums
from .month import Month, months, writers_of
from .removing import LONG, again, freeze, is_busy, note_deed, only_the_owner, remove, uneven

if TYPE_CHECKING:
    import asyncpg

__all__ = ["PATIENCE", "KeptMonth", "PrunedMonth", "PruningThere", "prune"]

PATIENCE: Final = 60.0
"""Seconds in which a partition is tried to be dropped beside long reports …"""
_MOMENT: Final = 1_000
"""… and milliseconds for which others wait behind each attempt."""
_PAUSE: Final = (0.2, 2.0)

_UNSETTLED: Final = f"""
SELECT EXISTS (
    SELECT FROM litellm_ledger.calls c JOIN litellm_ledger.writers w USING (writer_id)
    WHERE {{which}} AND w.unsettled > 0 AND c.status = 'unsettled' AND NOT w.closed
      AND w.updated_at > pg_catalog.now() - interval '1 day' AND NOT {BEATEN}
)
"""
"""Whether an outcome may still come that beats one of these: both would count."""
_CAME: Final = "outcomes of it were shipped just now; run this again"


class _LeftError(Exception):
    """A month stays; the text says why."""


class _BusyError(_LeftError):
    """So do all others, now."""


@dataclass(frozen=True, slots=True)
class PrunedMonth:
    """What went of a month, or would.

    Attributes:
        month: as ``2025-01``.
        records: outcomes; ``writers``: of how many writers.
        cost: picodollars that the records were, those included that counted nowhere.
    """

    month: str
    records: int
    writers: int
    cost: int


class KeptMonth(NamedTuple):
    """A month that is past its time and stays, and why."""

    month: str
    why: str


@dataclass(frozen=True, slots=True)
class PruningThere:
    """What one run did in a database, or (``dry_run``) would do.

    Attributes:
        months: that went, the oldest first.
        records: outcomes in them.
        bytes: of their tables and indexes; ``size``: of those of all months before.
        aggregates: months whose sums went.
        over: by how many bytes it is larger than it may be, afterwards.
        next: the month that goes next by its age, and when all of it is past its time.
        untimed: outcomes without a time, which stay.
        in_flight: calls without an outcome that began before what is kept, which stay.
        rejected: lines that the database refuses, which stay.
        left: what is past its time and stays, and why.
        dry_run: nothing was removed.
    """

    months: tuple[PrunedMonth, ...] = ()
    records: int = 0
    bytes: int = 0
    size: int = 0
    aggregates: tuple[str, ...] = ()
    over: int = 0
    next: tuple[str, datetime] | None = None
    untimed: int = 0
    in_flight: int = 0
    rejected: int = 0
    left: tuple[KeptMonth, ...] = ()
    dry_run: bool = False


async def prune(
    connection: asyncpg.Connection,
    rule: Retention,
    *,
    who: str,
    why: str,
    dry_run: bool = False,
    now: datetime | None = None,
    patience: float = PATIENCE,
) -> PruningThere:
    """Remove months that a retention rule lets go.

    Cancelled, or killed, each month has gone or is there whole.

    Args:
        connection: of the owner of the schema; in no transaction.
        rule: how long what is kept.
        who, why: stand on the deed.
        dry_run: only say what would be removed; needs only the right to read.
        now: the time that ages are counted from; default: by the clock of this machine or of the
            database, whichever is behind.  What is gone does not come back.
        patience: seconds in which a partition is tried to be dropped beside long reports.

    Raises:
        LedgerPathError: there is no schema; the user is not its owner; others were in the way.
        UnsupportedFormat: a newer version made the schema.
    """
    from litellm_ledger._postgres.schema import check

    await check(connection)
    if not dry_run:
        await only_the_owner(connection, "prune")
    moment = now or min(_clock(), await connection.fetchval("SELECT pg_catalog.now()"))
    run = _Run(connection, rule, moment, who, why, patience)
    there = await months(connection)
    size = sum(one.bytes for one in there)
    gone: list[PrunedMonth] = []
    left: list[KeptMonth] = []
    freed = 0
    for one in there:
        if not _may_go(one, rule, moment, size - freed):
            continue
        try:
            found = await (run.count(one) if dry_run else run.expire(one))
        except _LeftError as exc:
            left.append(KeptMonth(str(one), str(exc)))
            if isinstance(exc, _BusyError):
                break
            continue
        freed += one.bytes
        if found.records or one.partition:
            gone.append(found)
    aggregates = await run.forget_sums(dry_run=dry_run)
    untimed, in_flight, rejected = await _staying(connection, rule, moment)
    over = max(0, size - freed - rule.max_size) if rule.max_size is not None else 0
    return PruningThere(
        months=tuple(gone),
        records=sum(one.records for one in gone),
        bytes=freed,
        size=size,
        aggregates=tuple(aggregates),
        over=over,
        next=_next(there, rule, moment),
        untimed=untimed,
        in_flight=in_flight,
        rejected=rejected,
        left=tuple(left),
        dry_run=dry_run,
    )


def _clock() -> datetime:
    return datetime.now(UTC)


def _may_go(one: Month, rule: Retention, now: datetime, size: int) -> bool:
    """Whether a month goes: all of it is past its time, or the oldest must, for the size."""
    if one.end > now:
        return False
    old = rule.keep is not None and one.end <= now - rule.keep
    return old or (rule.max_size is not None and size > rule.max_size and one.partition)


def _next(there: list[Month], rule: Retention, now: datetime) -> tuple[str, datetime] | None:
    """Return the month that is past its time in part."""
    if rule.keep is None:
        return None
    for one in there:
        if one.start < now - rule.keep < one.end:
            return str(one), one.end + rule.keep
    return None


class _Run:
    """One run."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        rule: Retention,
        now: datetime,
        who: str,
        why: str,
        patience: float,
    ) -> None:
        self._connection = connection
        self._rule = rule
        self._now = now
        self._who = who
        self._why = why
        self._patience = patience

    async def count(self, month: Month) -> PrunedMonth:
        """Return what would go of a month."""
        connection = self._connection
        async with transaction(connection, timeout=LONG, readonly=True):
            writers = await writers_of(connection, month)
            await _refuse_uneven(connection, writers)
            row = await connection.fetchrow(
                "SELECT count(*), count(DISTINCT writer_id), coalesce(sum(cost_picousd), 0) "
                f"FROM litellm_ledger.calls c WHERE {month.which}",
                writers,
            )
        return PrunedMonth(str(month), int(row[0]), int(row[1]), int(row[2]))

    async def expire(self, month: Month) -> PrunedMonth:
        """Remove a month, in one transaction.

        Raises:
            _LeftError: it stays as it was.
        """
        return await again(self._connection, partial(self._expire, month))

    async def _expire(self, month: Month) -> PrunedMonth:
        connection = self._connection
        writers = await writers_of(connection, month)
        await freeze(connection, writers)
        if set(await writers_of(connection, month)) - set(writers):
            raise _LeftError(_CAME)
        await _refuse_uneven(connection, writers)
        if await connection.fetchval(_UNSETTLED.format(which=month.which), writers):
            raise _LeftError(
                "a call in it is unsettled, and its writer may still ship the outcome; run this "
                "again when all of it is shipped, or it has been silent for a day"
            )
        removed = await remove(
            connection,
            "SELECT c.writer_id, c.seq, c.cost_picousd, 1 AS usage, 0 AS rejected "
            f"FROM litellm_ledger.calls c WHERE {month.which}",
            [writers],
            "expired",
        )
        await move_sums(connection, month, writers)
        await rollup.tidy(connection, *month.quarters)
        await self._delete(month, writers)
        if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", month.table):
            await self._drop(month, writers)
        done = PrunedMonth(str(month), removed.outcomes, removed.writers, removed.cost)
        if removed.outcomes:
            await note_deed(
                connection,
                "prune",
                self._who,
                self._why,
                month=str(month),
                outcomes=removed.outcomes,
                numbers=removed.numbers,
                writers=removed.writers,
                cost_picousd=str(removed.cost),
            )
        return done

    async def _delete(self, month: Month, writers: list[int]) -> None:
        """Delete what is not dropped with the partition."""
        for table in ("beaten", "rollup_beaten"):
            await self._connection.execute(
                f"DELETE FROM litellm_ledger.{table} b USING litellm_ledger.calls c "
                f"WHERE b.writer_id = c.writer_id AND b.seq = c.seq AND {month.which}",
                writers,
            )
        await self._connection.execute(
            f"DELETE FROM litellm_ledger.calls c WHERE c.month = 0 AND {month.which}", writers
        )

    async def _drop(self, month: Month, writers: list[int]) -> None:
        """Drop the partition, as soon as nobody reads or ships.

        Raises:
            _LeftError: somebody always did.
        """
        connection, loop = self._connection, asyncio.get_running_loop()
        end = loop.time() + self._patience
        while True:
            try:
                async with connection.transaction():
                    await connection.execute(
                        f"SET LOCAL lock_timeout = {_MOMENT}; "
                        "LOCK TABLE ONLY litellm_ledger.calls IN ACCESS EXCLUSIVE MODE; "
                        f"LOCK TABLE {month.table} IN ACCESS EXCLUSIVE MODE"
                    )
                break
            except Exception as exc:
                if not is_busy(exc):
                    raise
                if loop.time() >= end:
                    raise _BusyError(
                        "questions or shippers hold the table without a pause, and a month can "
                        "only be dropped between two of them; it stays with those after it: run "
                        "this again when the long ones have ended"
                    ) from exc
            await asyncio.sleep(random.uniform(*_PAUSE))
        if set(await writers_of(connection, month)) - set(writers):
            raise _LeftError(_CAME)
        await connection.execute(f"DROP TABLE {month.table}")

    async def forget_sums(self, *, dry_run: bool) -> list[str]:
        """Remove the sums of months that are past the time for these; return the months."""
        if self._rule.keep_aggregates is None:
            return []
        limit = self._now - self._rule.keep_aggregates
        rows = await self._connection.fetch(
            "SELECT month FROM litellm_ledger.expired_months WHERE outcomes > untold ORDER BY 1"
        )
        due = [one for one in (Month(row[0]) for row in rows) if one.end <= limit]
        for one in due if not dry_run else ():
            await again(self._connection, partial(self._forget, one))
        return [str(one) for one in due]

    async def _forget(self, month: Month) -> None:
        await freeze(self._connection, [])
        how = {"month": str(month), "calls": await forget_sums(self._connection, month)}
        await note_deed(self._connection, "forget", self._who, self._why, outcomes=0, **how)


async def _refuse_uneven(connection: asyncpg.Connection, writers: list[int]) -> None:
    if wrong := await uneven(connection, writers):
        more = f" and {counted(len(wrong) - 1, 'other')}" if len(wrong) > 1 else ""
        raise _LeftError(
            f"the outcomes of {wrong[0]}{more} are not as many as were shipped: run litellm-ledger "
            "verify, which says where; nothing of a month that is not whole is removed"
        )


async def _staying(
    connection: asyncpg.Connection, rule: Retention, now: datetime
) -> tuple[int, int, int]:
    """Return how many rows stay that no month has: without a time, in flight, rejected."""
    limit = now - (rule.keep if rule.keep is not None else timedelta())
    row = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM litellm_ledger.calls c "
        "WHERE c.month = 0 AND (c.ts < '0001-01-01Z' OR c.ts >= '9999-12-01Z')), "
        "(SELECT count(*) FROM litellm_ledger.in_flight WHERE ts < $1), "
        "(SELECT count(*) FROM litellm_ledger.rejected)",
        limit,
    )
    return int(row[0]), int(row[1]), int(row[2])
