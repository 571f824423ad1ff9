"""Sums by quarter of an hour, kept in the database and brought forward as records come.

Owns how they are brought forward, by the process that has the time: per writer and series from a
mark of numbers, not of time, so that what comes late is counted like everything else.  One leader
works at a time, by an advisory lock of its transaction; where two think that they lead, each mark
moves once all the same.  The sums are never the truth: ``rebuild`` makes them anew from ``calls``.

A *series* is the sums without tags (its name is empty), or those by the values of one tag
(``tag:NAME``).  Which tags have one is measured: those of few values.  A tag that is chosen later
has its marks at 0, and catches up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from litellm_ledger._postgres.locks import OURS, Lock, take
from litellm_ledger._postgres.query import query

if TYPE_CHECKING:
    import asyncpg

__all__ = [
    "NO_QUARTER",
    "bring_forward",
    "chosen_tags",
    "hold",
    "quarter_of",
    "rebuild",
    "series_of",
    "take_away",
    "tidy",
]

_NUMBERS: Final = 50_000
"""Numbers that one transaction adds at most."""
_SHARE: Final = 10_000
"""Of one writer and series."""
_WRITERS: Final = 1_000
_MEASURED: Final = 600
"""Seconds for which it stands what was measured of the tags."""
_SAMPLE: Final = (20, 2_000, 100)
"""Writers, of each the last numbers, and tags that are looked at."""
_VALUES: Final = 100
"""Values that a tag may have to be chosen, and how many outcomes there must be to a value."""
_DENSE: Final = 20
_TAGS: Final = 8
"""Tags that are chosen at most."""
_TOO_MANY: Final = 1_000
"""Values beyond which a tag is not chosen any more."""
NO_QUARTER: Final = -(2**31)
"""Of outcomes without a time."""


def series_of(tag: str | None) -> str:
    """Return the name of the series that has the sums by a tag, or without any."""
    return "" if tag is None else f"tag:{tag}"


def quarter_of(ts: str, step: int = 1) -> str:
    """Return the expression for the quarter of an hour that a time is in, ``-2**31`` for none.

    Args:
        ts: the expression for the time.
        step: over how many quarters sums are; the first one of them is the result.
    """
    seconds = 900 * step
    return (
        f"CASE WHEN {ts} > '-infinity' THEN "
        f"(pg_catalog.floor(extract(epoch FROM {ts}) / {seconds}) * {step})::int "
        f"ELSE {NO_QUARTER} END"
    )


class _Part(NamedTuple):
    """Numbers of a writer that go into the sums of a series: above ``since``, up to ``upto``."""

    writer_id: int
    series: str
    since: int
    upto: int


class _OvertakenError(Exception):
    """Somebody else has moved a mark."""


async def bring_forward(connection: asyncpg.Connection, most: int = _NUMBERS) -> int:
    """Add what was shipped since to the sums, in one transaction; return how many numbers that was.

    0: there was nothing to do, or somebody else is doing it.  As long as it is more, there may be
    more to do.  Rights of ``ledger_writer`` are enough.  If this raises, nothing has happened.

    Args:
        connection: in no transaction.
        most: how many numbers are added at most.
    """
    try:
        async with connection.transaction():
            if not await _lead(connection):
                return 0
            await _choose_tags(connection)
            parts = await _behind(connection, most)
            done = sum(part.upto - part.since for part in parts)
            if parts:
                await _move(connection, parts)
                await _add(connection, _OF_PARTS, list(map(list, zip(*parts, strict=True))))
            return done + await _subtract_beaten(connection)
    except _OvertakenError:
        return 0


async def hold(connection: asyncpg.Connection) -> None:
    """Have nobody else bring the sums forward until the end of the transaction."""
    await take(connection, Lock.SUMS)


async def take_away(
    connection: asyncpg.Connection, which: str, values: Sequence[Any], *, back: bool = False
) -> None:
    """Take outcomes out of the sums that are about to be deleted, in a transaction that holds them.

    Args:
        which: the condition over ``c`` that they meet.
        values: its parameters.
        back: put them in again, as far as they would be there.
    """
    await _add(connection, _OF_THESE.format(sign=1 if back else -1, which=which), values)


async def tidy(connection: asyncpg.Connection, first: int, last: int) -> None:
    """Remove sums of nothing, and groups without any, with the texts that they were told by.

    Args:
        first, last: the quarters that something was taken out of.
    """
    await connection.execute(
        "DELETE FROM litellm_ledger.rollup_15m WHERE quarter BETWEEN $1 AND $2 AND calls = 0",
        first,
        last,
    )
    await connection.execute(
        "DELETE FROM litellm_ledger.rollup_groups g WHERE NOT EXISTS "
        "(SELECT FROM litellm_ledger.rollup_15m t WHERE t.group_id = g.group_id)"
    )


async def chosen_tags(connection: asyncpg.Connection) -> list[str]:
    """Return the tags by which there are sums, measured if that was not done; hold them first."""
    await _choose_tags(connection)
    rows = await connection.fetch(
        "SELECT tag_name FROM litellm_ledger.rollup_tags WHERE chosen ORDER BY 1"
    )
    return [row[0] for row in rows]


async def rebuild(connection: asyncpg.Connection) -> int:
    """Make the sums anew from the outcomes; return how many numbers of writers they are made of.

    Who asks meanwhile gets answers as exact, and later.
    """
    async with connection.transaction():
        await hold(connection)
        for table in ("marks", "beaten", "15m", "tags", "groups"):
            await connection.execute(f"DELETE FROM litellm_ledger.rollup_{table}")
    done = 0
    while more := await bring_forward(connection):
        done += more
    return done


# -- steps -----------------------------------------------------------------------------------------


async def _lead(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval(_LEAD, OURS, Lock.SUMS.value))


_LEAD: Final = """
SELECT pg_catalog.pg_try_advisory_xact_lock($1, $2)
FROM pg_catalog.set_config('max_parallel_workers_per_gather', '0', true)
"""
"""Without workers of the server: to start them takes 20 ms of a look that takes 1."""


async def _behind(connection: asyncpg.Connection, room: int) -> list[_Part]:
    """Return what is to be added now: a bounded part of each writer and series, as many as fit."""
    parts: list[_Part] = []
    for writer_id, series, rolled, shipped in await connection.fetch(
        query("rollup_behind"), _WRITERS
    ):
        if room <= 0:
            break
        upto = min(shipped, rolled + min(room, _SHARE))
        room -= upto - rolled
        parts.append(_Part(writer_id, series, rolled, upto))
    return parts


async def _move(connection: asyncpg.Connection, parts: Sequence[_Part]) -> None:
    """Move marks on, each only from where it was thought to be; their rows are locked then."""
    columns = list(map(list, zip(*parts, strict=True)))
    await connection.execute(_BEGIN, *columns[:3])
    moved = await connection.execute(_MOVE, *columns)
    if moved != f"UPDATE {len(parts)}":
        raise _OvertakenError


_BEGIN: Final = """
INSERT INTO litellm_ledger.rollup_marks (writer_id, series, rolled)
SELECT writer_id, series, 0
FROM unnest($1::int[], $2::text[], $3::bigint[]) AS p (writer_id, series, since)
WHERE since = 0
ON CONFLICT DO NOTHING
"""
_MOVE: Final = """
UPDATE litellm_ledger.rollup_marks m SET rolled = p.upto
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[]) AS p (writer_id, series, since, upto)
WHERE m.writer_id = p.writer_id AND m.series = p.series AND m.rolled = p.since
"""
_OF_PARTS: Final = """
    (
        SELECT *, 1 AS sign
        FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[]) AS p (w, series, since, upto)
    ) AS r
    CROSS JOIN LATERAL (
        SELECT * FROM litellm_ledger.calls o
        WHERE o.writer_id = r.w AND o.seq > r.since AND o.seq <= r.upto AND o.line IS NULL
        OFFSET 0
    ) AS c
"""
"""OFFSET 0 keeps it a question of its own: a range of numbers, by the primary key.  As a join, the
planner takes it for a ninth of all rows, and reads them all."""
_OF_THESE: Final = """
    (SELECT writer_id, series, rolled, {sign} AS sign FROM litellm_ledger.rollup_marks) AS r
    JOIN litellm_ledger.calls c
        ON c.writer_id = r.writer_id AND c.seq <= r.rolled AND c.line IS NULL AND {which}
    AND NOT EXISTS (
        SELECT FROM litellm_ledger.rollup_beaten b
        WHERE b.writer_id = r.writer_id AND b.series = r.series AND b.seq = c.seq
    )
"""
_OF_BEATEN: Final = """
    (
        SELECT *, -1 AS sign
        FROM unnest($1::int[], $2::text[], $3::bigint[]) AS b (writer_id, series, seq)
    ) AS r
    JOIN litellm_ledger.calls c
        ON c.writer_id = r.writer_id AND c.seq = r.seq AND c.line IS NULL
"""
_BEATEN: Final = """
INSERT INTO litellm_ledger.rollup_beaten (writer_id, series, seq)
SELECT b.writer_id, m.series, b.seq
FROM litellm_ledger.beaten b
JOIN litellm_ledger.rollup_marks m ON m.writer_id = b.writer_id AND m.rolled >= b.seq
WHERE NOT EXISTS (
    SELECT FROM litellm_ledger.rollup_beaten r
    WHERE r.writer_id = b.writer_id AND r.series = m.series AND r.seq = b.seq
)
RETURNING writer_id, series, seq
"""


async def _add(connection: asyncpg.Connection, rows: str, values: Sequence[Any]) -> None:
    found_text = query("rollup_found").format(rows=rows, quarter=quarter_of("c.ts"))
    text = query("rollup_add").format(found=found_text)
    found, put = await connection.fetchrow(text, *values)
    if found != put:
        raise AssertionError(f"{found} sums went into {put} rows")


async def _subtract_beaten(connection: asyncpg.Connection) -> int:
    """Take unsettled outcomes out again that another outcome has beaten."""
    beaten = await connection.fetch(_BEATEN)
    if beaten:
        await _add(connection, _OF_BEATEN, list(map(list, zip(*beaten, strict=True))))
    return len(beaten)


async def _choose_tags(connection: asyncpg.Connection) -> None:
    """Measure the tags of the newest outcomes, now and then, and choose those of few values."""
    fresh = await connection.fetchval(
        "SELECT max(measured_at) > pg_catalog.clock_timestamp() - $1 * interval '1 second' "
        "FROM litellm_ledger.rollup_tags",
        _MEASURED,
    )
    if fresh:
        return
    await _drop_tags(connection)
    known = {
        row[0]: (row[1], row[2])
        for row in await connection.fetch(
            "SELECT tag_name, chosen, too_many FROM litellm_ledger.rollup_tags"
        )
    }
    room = _TAGS - sum(chosen for chosen, _ in known.values())
    measured = await connection.fetch(query("rollup_tags"), *_SAMPLE)
    for name, outcomes, values in sorted(measured, key=lambda row: (row[2], row[0])):
        chosen, too_many = known.get(name, (False, False))
        if not chosen and not too_many and room > 0 and values <= _VALUES:
            chosen = outcomes >= _DENSE * values
            room -= chosen
        await connection.execute(_MEASURE, name, chosen, values, outcomes)


_MEASURE: Final = """
INSERT INTO litellm_ledger.rollup_tags AS t (tag_name, chosen, distinct_values, outcomes)
VALUES ($1, $2, $3, $4)
ON CONFLICT (tag_name) DO UPDATE SET
    chosen = EXCLUDED.chosen, distinct_values = EXCLUDED.distinct_values,
    outcomes = EXCLUDED.outcomes, measured_at = pg_catalog.clock_timestamp()
"""


async def _drop_tags(connection: asyncpg.Connection) -> None:
    """Give up the sums by a tag that has turned out to have too many values."""
    rows = await connection.fetch(
        "SELECT tag_name FROM litellm_ledger.rollup_groups WHERE tag_name IS NOT NULL "
        "GROUP BY 1 HAVING count(DISTINCT tag_value) > $1",
        _TOO_MANY,
    )
    for (name,) in rows:
        await connection.execute(
            "DELETE FROM litellm_ledger.rollup_15m WHERE group_id IN "
            "(SELECT group_id FROM litellm_ledger.rollup_groups WHERE tag_name = $1)",
            name,
        )
        await connection.execute(
            "DELETE FROM litellm_ledger.rollup_groups WHERE tag_name = $1", name
        )
        for table in ("marks", "beaten"):
            await connection.execute(
                f"DELETE FROM litellm_ledger.rollup_{table} WHERE series = $1", series_of(name)
            )
        await connection.execute(
            "UPDATE litellm_ledger.rollup_tags SET chosen = false, too_many = true "
            "WHERE tag_name = $1",
            name,
        )
