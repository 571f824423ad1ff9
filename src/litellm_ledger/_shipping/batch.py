"""One batch of one writer, in the database or not: the transaction on which exactly-once rests.

Owns that transaction and what is in it (docs/postgres.md, "Exactly once").  The first statement
moves the writer's checkpoint, and only if nobody else has: numbers are dense and a line that is
certain never changes, so the one who moves it from 100 to 200 writes the rows of 101 to 200, and
the row lock has all others wait and then find that it was done.  Nothing here is tried again, and
nothing is concluded from a COMMIT whose answer did not come: the caller drops the connection and
reads the checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._postgres import database
from litellm_ledger._postgres.query import query
from litellm_ledger._records.gaps import Gap

from .rows import Addition, Rows, Started
from .source import Stretch

if TYPE_CHECKING:
    import asyncpg

__all__ = ["Packing", "Parcel", "pack", "pieces", "reject", "ship"]

_STATEMENT: Final = 60_000
_IDLE: Final = 30_000
"""Milliseconds: a statement may take; a transaction may wait for us.  A machine that vanishes in
the middle of one must not keep the writer's row locked for others."""
_PIECE: Final = 2**17
"""Bytes of rows that are sent at once."""
_BREATH: Final = 32
"""Lines after which others may run: a quarter of a millisecond."""


@dataclass(slots=True)
class Parcel:
    """What one transaction writes: the numbers ``first`` to ``last`` of a writer.

    Attributes:
        rows: what the lines are in the database.
        damaged: ranges of numbers without a line that is a record.
        rejected: number, line and reason of those that the database refuses.
        sha256: over the lines that are records or gaps, by number, line feeds included.
    """

    first: int
    last: int
    rows: Rows
    damaged: list[tuple[int, int]]
    sha256: bytes
    rejected: tuple[tuple[int, bytes, str], ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many numbers are what; their sum is that of the numbers."""
        rows = self.rows
        return {
            "usage": rows.outcomes,
            "started": len(rows.started),
            "added": len(rows.additions),
            "gaps": sum(gap.last - gap.first + 1 for gap in rows.gaps),
            "damaged": sum(last - first + 1 for first, last in self.damaged),
            "rejected": len(self.rejected),
        }


class Packing:
    """Makes the parcel of what was read, piece by piece; needs no database.

    Args:
        stretch: lines of one writer, and what is damaged among them.
        writer_id: what the database calls the writer.
        months: those that have a partition.
    """

    def __init__(self, stretch: Stretch, writer_id: int, months: Collection[int]) -> None:
        self._stretch = stretch
        self._rows = Rows(stretch.writer, writer_id, months)
        self._sha256 = hashlib.sha256()
        self._at = 0

    def go_on(self) -> bool:
        """Pack some lines; tell whether there are more."""
        rows, at, end = self._rows, self._at, self._at + _BREATH
        numbers, lines = self._stretch.numbers[at:end], self._stretch.lines[at:end]
        known = len(rows.damaged)
        rows.extend(numbers, lines)
        if damaged := set(rows.damaged[known:]):
            lines = [raw for one, raw in zip(numbers, lines, strict=True) if one not in damaged]
        self._sha256.update(b"".join(lines))
        self._at = end
        return end < len(self._stretch.lines)

    def parcel(self) -> Parcel:
        """Return it, once there are no more lines."""
        stretch, rows = self._stretch, self._rows
        spans = sorted([*stretch.damaged, *((number, number) for number in rows.damaged)])
        return Parcel(stretch.first, stretch.last, rows, _joined(spans), self._sha256.digest())


def pack(stretch: Stretch, writer_id: int, months: Collection[int]) -> Parcel:
    """Make the parcel of what was read in one go; see ``Packing``."""
    packing = Packing(stretch, writer_id, months)
    while packing.go_on():
        pass
    return packing.parcel()


def reject(stretch: Stretch, writer_id: int, why: str) -> Parcel:
    """Make the parcel that sets the one line of a stretch aside."""
    (number,), (raw,) = stretch.numbers, stretch.lines
    rows = Rows(stretch.writer, writer_id, ())
    sha256 = hashlib.sha256(raw).digest()
    aside = ((number, raw, why),)
    return Parcel(stretch.first, stretch.last, rows, list(stretch.damaged), sha256, aside)


async def ship(
    connection: asyncpg.Connection,
    writer_id: int,
    parcel: Parcel,
    *,
    accepted: int,
    closed: bool = False,
    unsettled: bool = False,
    still: Callable[[], bool] = lambda: True,
) -> bool:
    """Write a parcel in one transaction.

    Returns ``False``, with nothing written, if the checkpoint is not where the parcel begins, or
    its lines are not those of the ledger any more.

    Args:
        connection: which is to be dropped if this raises, whatever that is.
        writer_id: whose.
        accepted: the last number that its live file was seen to count.
        closed: nothing comes after it.
        unsettled: outcomes that recovery wrote are there already.
        still: whether the lines are, asked last; somebody may erase them while this waits.
    """
    counts = parcel.counts
    if sum(counts.values()) != parcel.last - parcel.first + 1:
        raise AssertionError(f"not every number is accounted for: {parcel.first}, {counts}")
    moved = await connection.execute(_begin(writer_id, parcel, counts, accepted, closed=closed))
    if moved != "UPDATE 1":
        await connection.execute("ROLLBACK")
        return False
    rows = parcel.rows
    if rows.outcomes:
        await database.copy(connection, "calls", rows.columns, pieces(rows))
    await _copy_small(connection, writer_id, parcel)
    if rows.unsettled or unsettled:
        await connection.execute(query("beaten"), writer_id, 0 if unsettled else parcel.first)
    if named := rows.ended_by_name():
        await connection.execute(query("settled"), writer_id, *zip(*named, strict=True))
    if not still():
        await connection.execute("ROLLBACK")
        return False
    ended = await connection.execute(_end(writer_id, parcel, counts))
    if ended != "COMMIT":  # PostgreSQL rolls a failed transaction back without an error
        raise ConnectionError(f"the database answered {ended} and not COMMIT")
    return True


def pieces(rows: Rows) -> Iterator[bytes]:
    """Yield the rows for COPY, in pieces of some size: each costs asyncpg a task."""
    held: list[bytes] = []
    size = 0
    for chunk in rows.chunks():
        held.append(chunk)
        size += len(chunk)
        if size >= _PIECE:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


# -- what it says ----------------------------------------------------------------------------------


def _begin(
    writer_id: int, parcel: Parcel, counts: dict[str, int], accepted: int, *, closed: bool
) -> str:
    """Write the statements up to the one that moves the checkpoint, as one message.

    Everything in it is a whole number.
    """
    adds = ", ".join(f"{name} = {name} + {count}" for name, count in counts.items() if count)
    return (
        f"BEGIN; SET LOCAL statement_timeout = {_STATEMENT}; "
        f"SET LOCAL idle_in_transaction_session_timeout = {_IDLE}; "
        f"UPDATE litellm_ledger.writers SET shipped = {parcel.last:d}, {adds}, "
        f"cost_picousd = cost_picousd + ({parcel.rows.cost_picousd:d}), "
        f"unsettled = unsettled + {len(parcel.rows.unsettled)}, "
        f"accepted = greatest(accepted, {accepted:d}), closed = {closed}, "
        "updated_at = pg_catalog.clock_timestamp() "
        f"WHERE writer_id = {writer_id:d} AND shipped = {parcel.first - 1:d}"
    )


def _end(writer_id: int, parcel: Parcel, counts: dict[str, int]) -> str:
    """Write the statements from the calls that ended to COMMIT, as one message."""
    values = ", ".join(str(count) for count in counts.values())
    return (
        f"{_settled(writer_id, parcel)}"
        f"INSERT INTO litellm_ledger.batches (writer_id, first, last, {', '.join(counts)}, "
        f"cost_picousd, sha256) VALUES "
        f"({writer_id:d}, {parcel.first:d}, {parcel.last:d}, {values}, "
        f"{parcel.rows.cost_picousd:d}, '\\x{parcel.sha256.hex()}'); COMMIT"
    )


def _settled(writer_id: int, parcel: Parcel) -> str:
    """Write the statement that takes calls out of flight which began in an earlier batch.

    The ``started`` record of a call that began in this one is in this one.
    """
    ended = parcel.rows.ended_before(parcel.first)
    if not ended:
        return ""
    operations, attempts = (",".join(map(str, numbers)) for numbers in zip(*ended, strict=True))
    return (
        "DELETE FROM litellm_ledger.in_flight f USING "
        f"unnest('{{{operations}}}'::bigint[], '{{{attempts}}}'::bigint[]) AS ended (seq, attempt) "
        f"WHERE f.writer_id = {writer_id:d} AND f.operation IS NULL "
        "AND coalesce(f.operation_seq, f.seq) = ended.seq "
        "AND coalesce(f.attempt, 1) = ended.attempt; "
    )


async def _copy_small(connection: asyncpg.Connection, writer_id: int, parcel: Parcel) -> None:
    """Copy what few batches have much of."""
    rows = parcel.rows
    gaps: list[Sequence[Any]] = [
        *rows.gaps,
        *((first, last, "damaged", None) for first, last in parcel.damaged),
    ]
    for table, columns, records in (
        ("in_flight", Started._fields, rows.running()),
        ("gaps", Gap._fields, gaps),
        ("additions", Addition._fields, rows.additions),
        ("rejected", ("seq", "line", "why"), parcel.rejected),
    ):
        if records:
            told = [(writer_id, *record) for record in records]
            await database.copy_records(connection, table, ("writer_id", *columns), told)


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges, ascending, where one begins behind the one before."""
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and joined[-1][1] == first - 1:
            joined[-1] = joined[-1][0], last
        else:
            joined.append((first, last))
    return joined
