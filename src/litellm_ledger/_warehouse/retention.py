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
from typing import TYPE_CHECKING, Final, NamedTuple

from litellm_ledger._aggregates.steps import EPOCH, QUARTER
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._postgres.database import transaction
from litellm_ledger._postgres.query import query
from litellm_ledger._shipping import rollup
from litellm_ledger._shipping.rollup import quarter_of, series_of

from .removing import LONG, again, freeze, is_busy, note_deed, only_the_owner, remove, uneven

if TYPE_CHECKING:
    import asyncpg

__all__ = ["PATIENCE", "KeptMonth", "PrunedMonth", "PruningThere", "prune"]

PATIENCE: Final = 60.0
"""Seconds in which a partition is tried to be dropped beside long reports …"""
_MOMENT: Final = 1_000
"""… and milliseconds for which others wait behind each attempt."""
_PAUSE: Final = (0.2, 2.0)

_UNSETTLED: Final = """
SELECT EXISTS (
    SELECT FROM litellm_ledger.calls c JOIN litellm_ledger.writers w USING (writer_id)
    WHERE {which} AND w.unsettled > 0 AND c.status = 'unsettled' AND NOT w.closed
      AND w.updated_at > pg_catalog.now() - interval '1 day'
      AND NOT EXISTS (
        SELECT FROM litellm_ledger.beaten b WHERE b.writer_id = c.writer_id AND b.seq = c.seq
      )
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


class _Month(NamedTuple):
    """A month of UTC, as 202501."""

    number: int
    partition: bool = False
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.number // 100:04}-{self.number % 100:02}"

    @property
    def start(self) -> datetime:
        return datetime(self.number // 100, self.number % 100, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        year, month = divmod(self.number // 100 * 12 + self.number % 100, 12)
        return datetime(year, month + 1, 1, tzinfo=UTC)

    @property
    def table(self) -> str:
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
    months = await _months(connection)
    size = sum(one.bytes for one in months)
    gone: list[PrunedMonth] = []
    left: list[KeptMonth] = []
    freed = 0
    for one in months:
        if not _may_go(one, rule, moment, size - freed):
            continue
        try:
            if dry_run:
                found = await _counted(connection, one)
            else:
                found = await _expire(connection, one, who, why, patience)
        except _LeftError as exc:
            left.append(KeptMonth(str(one), str(exc)))
            if isinstance(exc, _BusyError):
                break
            continue
        freed += one.bytes
        if found.records or one.partition:
            gone.append(found)
    aggregates = await _forget_sums(connection, rule, moment, who, why, dry_run=dry_run)
    untimed, in_flight, rejected = await _staying(connection, rule, moment)
    over = max(0, size - freed - rule.max_size) if rule.max_size is not None else 0
    return PruningThere(
        months=tuple(gone),
        records=sum(one.records for one in gone),
        bytes=freed,
        size=size,
        aggregates=tuple(aggregates),
        over=over,
        next=_next(months, rule, moment),
        untimed=untimed,
        in_flight=in_flight,
        rejected=rejected,
        left=tuple(left),
        dry_run=dry_run,
    )


def _clock() -> datetime:
    return datetime.now(UTC)


def _may_go(one: _Month, rule: Retention, now: datetime, size: int) -> bool:
    """Whether a month goes: all of it is past its time, or the oldest must, for the size."""
    if one.end > now:
        return False
    old = rule.keep is not None and one.end <= now - rule.keep
    return old or (rule.max_size is not None and size > rule.max_size and one.partition)


def _next(months: list[_Month], rule: Retention, now: datetime) -> tuple[str, datetime] | None:
    """Return the month that is past its time in part."""
    if rule.keep is None:
        return None
    for one in months:
        if one.start < now - rule.keep < one.end:
            return str(one), one.end + rule.keep
    return None


async def _months(connection: asyncpg.Connection) -> list[_Month]:
    """Return the months that there are outcomes or a partition of, ascending."""
    found: dict[int, _Month] = {}
    async with transaction(connection, timeout=LONG, readonly=True):
        for number, partition, size in await connection.fetch(query("months")):
            one = found.get(number, _Month(number))
            found[number] = _Month(number, one.partition or partition, one.bytes + size)
    return [found[number] for number in sorted(found)]


async def _writers(connection: asyncpg.Connection, month: _Month) -> list[int]:
    text = query("writers_of_month").format(month=month.number, outside=month.outside)
    return [row[0] for row in await connection.fetch(text)]


async def _counted(connection: asyncpg.Connection, month: _Month) -> PrunedMonth:
    """Return what would go of a month."""
    async with transaction(connection, timeout=LONG, readonly=True):
        writers = await _writers(connection, month)
        if wrong := await uneven(connection, writers):
            raise _LeftError(_uneven(wrong))
        row = await connection.fetchrow(
            "SELECT count(*), count(DISTINCT writer_id), coalesce(sum(cost_picousd), 0) "
            f"FROM litellm_ledger.calls c WHERE {month.which}",
            writers,
        )
    return PrunedMonth(str(month), int(row[0]), int(row[1]), int(row[2]))


async def _expire(
    connection: asyncpg.Connection, month: _Month, who: str, why: str, patience: float
) -> PrunedMonth:
    """Remove a month, in one transaction.

    Raises:
        _LeftError: it stays as it was.
    """

    async def work() -> PrunedMonth:
        writers = await _writers(connection, month)
        await freeze(connection, writers)
        if set(await _writers(connection, month)) - set(writers):
            raise _LeftError(_CAME)
        if wrong := await uneven(connection, writers):
            raise _LeftError(_uneven(wrong))
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
        await _move_sums(connection, month, writers)
        await rollup.tidy(connection, *month.quarters)
        await _delete(connection, month, writers)
        if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", month.table):
            await _drop(connection, month, writers, patience)
        done = PrunedMonth(str(month), removed.outcomes, removed.writers, removed.cost)
        if removed.outcomes:
            await note_deed(
                connection,
                "prune",
                who,
                why,
                month=str(month),
                outcomes=removed.outcomes,
                numbers=removed.numbers,
                writers=removed.writers,
                cost_picousd=str(removed.cost),
            )
        return done

    return await again(connection, work)


def _uneven(writers: list[str]) -> str:
    more = f" and {len(writers) - 1:,} others" if len(writers) > 1 else ""
    return (
        f"the outcomes of {writers[0]}{more} are not as many as were shipped: run litellm-ledger "
        "verify, which says where; nothing of a month that is not whole is removed"
    )


async def _move_sums(connection: asyncpg.Connection, month: _Month, writers: list[int]) -> None:
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
        f"WHERE {month.which} AND NOT {_BEATEN} HAVING count(*) > 0 "
        "ON CONFLICT (month) DO UPDATE SET outcomes = m.outcomes + EXCLUDED.outcomes, "
        "at = EXCLUDED.at",
        writers,
        tags,
    )


_BEATEN: Final = """EXISTS (
    SELECT FROM litellm_ledger.beaten b WHERE b.writer_id = c.writer_id AND b.seq = c.seq
)"""
_MARKS: Final = """
    SELECT w.writer_id, s.series, coalesce(m.rolled, 0) AS rolled
    FROM unnest($1::int[]) AS w (writer_id) CROSS JOIN unnest($2::text[]) AS s (series)
    LEFT JOIN litellm_ledger.rollup_marks m ON m.writer_id = w.writer_id AND m.series = s.series
"""
_NOT_ROLLED: Final = f"""
    (SELECT *, 1 AS sign FROM ({_MARKS}) AS marks) AS r
    JOIN litellm_ledger.calls c ON c.writer_id = r.writer_id AND {{which}}
    AND (c.seq > r.rolled OR c.line IS NOT NULL) AND NOT {_BEATEN}
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


async def _delete(connection: asyncpg.Connection, month: _Month, writers: list[int]) -> None:
    """Delete what is not dropped with the partition."""
    for table in ("beaten", "rollup_beaten"):
        await connection.execute(
            f"DELETE FROM litellm_ledger.{table} b USING litellm_ledger.calls c "
            f"WHERE b.writer_id = c.writer_id AND b.seq = c.seq AND {month.which}",
            writers,
        )
    await connection.execute(
        f"DELETE FROM litellm_ledger.calls c WHERE c.month = 0 AND {month.which}", writers
    )


async def _drop(
    connection: asyncpg.Connection, month: _Month, writers: list[int], patience: float
) -> None:
    """Drop the partition, as soon as nobody reads or ships.

    Raises:
        _LeftError: somebody always did.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
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
                    "questions or shippers hold the table without a pause, and a month can only be "
                    "dropped between two of them; it stays with those after it: run this again "
                    "when the long ones have ended"
                ) from exc
        await asyncio.sleep(random.uniform(*_PAUSE))
    if set(await _writers(connection, month)) - set(writers):
        raise _LeftError(_CAME)
    await connection.execute(f"DROP TABLE {month.table}")


async def _forget_sums(
    connection: asyncpg.Connection,
    rule: Retention,
    now: datetime,
    who: str,
    why: str,
    *,
    dry_run: bool,
) -> list[str]:
    """Remove the sums of months that are past the time for these; return the months."""
    if rule.keep_aggregates is None:
        return []
    limit = now - rule.keep_aggregates
    rows = await connection.fetch(
        "SELECT month FROM litellm_ledger.expired_months WHERE outcomes > untold ORDER BY 1"
    )
    due = [one for one in (_Month(row[0]) for row in rows) if one.end <= limit]

    async def work(month: _Month) -> None:
        await freeze(connection, [])
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
        await note_deed(connection, "forget", who, why, month=str(month), calls=calls, outcomes=0)

    for one in due if not dry_run else ():
        await again(connection, lambda one=one: work(one))  # type: ignore[misc]
    return [str(one) for one in due]


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
