"""The shipper: sends what is certain of one or several ledgers to a database, batch by batch.

Owns the one connection, and what happens when anything goes wrong with it: whatever was raised,
the connection is dropped, the checkpoints are read again by a new one, and shipping goes on from
there, after a pause that grows.  Any number of shippers may do this with the same ledgers at once.
Never waits for a database on anybody's behalf: what cannot be shipped stays on the disk.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._errors import LedgerError
from litellm_ledger._postgres import database, schema
from litellm_ledger._postgres.address import Address
from litellm_ledger._postgres.query import query
from litellm_ledger._records.statistics import SinkStatistics

from . import batch
from .road import Checkpoint, Road
from .rollup import bring_forward
from .source import Stretch

if TYPE_CHECKING:
    import asyncpg

__all__ = ["Shipper"]

_log = logging.getLogger("litellm_ledger")

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 30.0
"""Seconds until the database is tried again: at first, and at most; a random part of it."""
_OWN_PAUSE: Final = 60.0
"""Seconds until a writer is tried again that the database does not take."""
_LOOK: Final = 0.25
_LOOK_WHILE_AWAY: Final = 1.0
"""Seconds between two looks at ledgers on which nothing waits, or can be shipped now."""
_TELL: Final = 10.0
"""Seconds between two words to the database about writers that have nothing to ship."""
_SUMS: Final = 5.0
"""Seconds between two looks at the sums by quarter of an hour: some shipper brings them forward."""
_SUMMED: Final = 10_000
"""Numbers that are added to them at once: what is to be shipped waits for that."""
_MONTHS: Final = 3_600.0
"""Seconds after which partitions are made ahead again."""
_AT_ONCE: Final = 1_000
"""Writers that are asked for in one query."""
_UNRESTED: Final = 8
"""Pieces of work after which the loop is looked after, where no other threads are."""
_WINDOW: Final = 10.0
"""Seconds over which the rate is taken."""
_END: Final = 2.0
"""Seconds that an orderly end of the connection may take."""
_WHY: Final = 1_000
"""Characters that are kept of the reason why a line was set aside."""

_BRIEFLY: Final = 1.0
"""The same, where others were in the way."""
_TWICE: Final = "23505"
_REFUSED: Final = "23514"
_TOO_SLOW: Final = "57014"
_IN_THE_WAY: Final = "40"
_DATA: Final = ("22", "54", "23502", "23514", "57014")
"""What PostgreSQL says of values that it does not take, or not in time: SQLSTATE, or its class …"""
_WRITERS: Final = (*_DATA, "23", "40", "XX")
"""… and of what else is wrong with one writer's rows, and not with all others' as well."""

_MAKE: Final = "SELECT * FROM litellm_ledger.make_partitions($1)"
_PARTITIONS: Final = "SELECT * FROM litellm_ledger.partitions()"
_MAKE_AHEAD: Final = "SELECT * FROM litellm_ledger.make_partitions_ahead()"


@dataclass(slots=True)
class _Ready:
    """A batch that is packed.

    Attributes:
        parcel: what is to be shipped, or what went wrong with packing it.
        later: it is the first of the next round.
    """

    road: Road
    stretch: Stretch
    parcel: batch.Parcel | Exception
    later: bool


class Shipper:
    """Ships ledgers to one database.

    Args:
        where: the database.
        roads: the ledgers.
        breathe: called again and again while lines are read and encoded.
        connect: opens a connection; tests put a faulty one here.

    Attributes:
        stopping: ends ``follow`` and ``step`` after the batch that is being shipped.
        shipping: a batch is being shipped.
        records, batches: what this shipper has shipped.
        failing: why nothing is shipped at the moment; ``None``: the database answers.
        last_error, last_success: the text of the last failure; when the database last answered.
    """

    def __init__(
        self,
        where: str | Address,
        roads: Sequence[Road] = (),
        *,
        breathe: Callable[[], None] | None = None,
        connect: Callable[[Address], Any] = database.connect,
    ) -> None:
        self._address = where if isinstance(where, Address) else Address.of(where)
        self._connect = connect
        self._breathe = breathe
        self.roads: list[Road] = list(roads)
        self.stopping = False
        self.shipping = False
        self.records = 0
        self.batches = 0
        self.failing: str | None = None
        self.last_error: str | None = None
        self.last_success: datetime | None = None
        self._connection: asyncpg.Connection | None = None
        self._months: frozenset[int] = frozenset()
        self._without: frozenset[int] = frozenset()
        self._months_at = 0.0
        self._makes = True
        self._tell_at = 0.0
        self._sums_at = 0.0
        self._pause = 0.0
        self._again_at = 0.0
        self._shipped: deque[tuple[float, int]] = deque()
        self._woken: asyncio.Event | None = None
        self._ready: _Ready | None = None
        self._worked = 0

    # -- the loop ------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Ship for as long as it is not ``stopping``."""
        while not self.stopping:
            if not await self.step() and not self.stopping:
                await self.sleep(_LOOK if self.failing is None else _LOOK_WHILE_AWAY)

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or until ``wake`` is called."""
        if self._woken is None:
            self._woken = asyncio.Event()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)
        self._woken.clear()

    def tell_soon(self) -> None:
        """Tell the database with the next step which writers are closed."""
        self._tell_at = 0.0

    def wake(self) -> None:
        """Look now: something was synced, or this is to end.  On the loop's thread."""
        if self._woken is not None:
            self._woken.set()

    async def step(self, *, all_now: bool = False) -> bool:
        """Look at the ledgers once and ship a round; tell whether anything was shipped.

        Args:
            all_now: wait for no other process, and for no pause.
        """
        for road in self.roads:
            self._look(road)
        moved = False
        if all_now or time.monotonic() >= self._again_at:
            try:
                moved = await self._ship_all(all_now=all_now)
            except asyncio.CancelledError:
                self._drop()
                raise
            except Exception as exc:  # noqa: BLE001 - asyncpg has no end of errors when a connection dies
                self._bad(exc)
        for road in self.roads:
            road.note(self.failing, answered=self.last_success is not None)
        return moved

    def _look(self, road: Road) -> None:
        try:
            road.look()
        except (LedgerError, OSError) as exc:  # this ledger's: the others go on
            if road.unreadable is None:
                _log.warning("nothing of %s is shipped: %s", road.root, exc)
            road.unreadable = str(exc)
        else:
            road.unreadable = None

    async def _ship_all(self, *, all_now: bool) -> bool:
        moved = False
        if any(road.backlogs or road.unknown() for road in self.roads):
            await self._ask()
            moved = await self._round(all_now=all_now)
            self._good()
        await self._tell()
        await self._bring_sums_forward(all_now=all_now and not moved)
        return moved

    async def _bring_sums_forward(self, *, all_now: bool) -> None:
        """Bring the sums forward, if it is time; nothing that goes wrong there stops shipping."""
        if self._connection is None or (time.monotonic() < self._sums_at and not all_now):
            return
        self._sums_at = time.monotonic() + _SUMS
        try:
            while await bring_forward(self._connection, _SUMMED) and not self.stopping:
                if not all_now:  # soon again, after what is to be shipped
                    self._sums_at = time.monotonic()
                    return
        except Exception as exc:  # noqa: BLE001 - whatever it is: they are brought forward later
            self._drop()
            self._sums_at = time.monotonic() + _OWN_PAUSE
            _log.warning("sums in %s: %s: %s", self._address.place, type(exc).__name__, exc)

    async def _round(self, *, all_now: bool) -> bool:
        """Ship a batch of each writer that has one; while one is shipped, the next is packed."""
        moved = False
        turns = self._turns(all_now=all_now)
        ready, self._ready = self._ready, None
        if ready is None or ready.road not in self.roads:
            ready = await self._prepare(turns)
        while ready is not None:
            coming = asyncio.create_task(self._prepare(turns))
            self.shipping = True
            try:
                moved = await self._ship(ready) or moved
            except BaseException:
                coming.cancel()
                raise
            finally:
                self.shipping = False
            if self.stopping:
                coming.cancel()
                break
            ready = await coming
            if ready is not None and ready.later:
                self._ready = ready
                break
        return moved

    def _turns(self, *, all_now: bool) -> Iterator[tuple[Road, Stretch | None, bool]]:
        """Yield what is to be shipped in this round, and then the first of the next one."""
        for later in (False, True):
            for road in list(self.roads):
                for stretch in road.round(all_now=all_now):
                    yield road, stretch, later

    async def _prepare(self, turns: Iterator[tuple[Road, Stretch | None, bool]]) -> _Ready | None:
        """Read and pack a batch; asks the database nothing."""
        for road, stretch, later in turns:
            known = None if stretch is None else road.known.get(stretch.writer)
            if stretch is None or known is None:
                await self._rest()
                continue
            try:
                return _Ready(road, stretch, await self._pack(stretch, known.writer_id), later)
            except Exception as exc:  # noqa: BLE001 - one of its lines is more than we can take
                return _Ready(road, stretch, exc, later)
        return None

    async def _pack(self, stretch: Stretch, writer_id: int) -> batch.Parcel:
        packing = batch.Packing(stretch, writer_id, self._months)
        while packing.go_on():
            await self._rest()
        return packing.parcel()

    async def _rest(self) -> None:
        """Let others run: other threads, and what this loop has to send."""
        if self._breathe is not None:
            self._breathe()
        self._worked += 1
        if self._breathe is not None or self._worked % _UNRESTED == 0:
            await asyncio.sleep(0)

    # -- asking --------------------------------------------------------------------------------

    async def _ask(self) -> None:
        """Have a connection, the partitions, and a checkpoint of every writer."""
        if self._connection is None:
            for road in self.roads:
                road.forget()
            self._connection = await self._connect(self._address)
            await schema.check(self._connection)
            await schema.check_shape(self._connection)
            self._months_at = 0.0
        if time.monotonic() >= self._months_at:
            await self._ask_months()
        for road in self.roads:
            unknown = sorted(road.unknown())
            for start in range(0, len(unknown), _AT_ONCE):
                await self._ask_of(road, unknown[start : start + _AT_ONCE])

    @property
    def _there(self) -> asyncpg.Connection:
        """The connection.  Raises ``ConnectionError`` if there is none."""
        if self._connection is None:
            raise ConnectionError("the connection is gone")
        return self._connection

    async def _ask_months(self, months: Sequence[int] = ()) -> None:
        """Have partitions made of the next months, or of ``months``; learn which there are.

        Where that fails, the next attempt does without: month 0 takes what has none.
        """
        connection = self._there
        makes, self._makes = self._makes, False
        async with connection.transaction():
            if months and makes:
                found = await connection.fetch(_MAKE, list(months))
            elif makes:
                found = await connection.fetch(_MAKE_AHEAD)
            else:
                found = await connection.fetch(_PARTITIONS)
        self._makes = makes
        self._months = frozenset(int(row[0]) for row in found)
        self._months_at = time.monotonic() + _MONTHS

    async def _ask_of(self, road: Road, writers: list[str]) -> None:
        """Learn how far writers are; those that the database does not know are introduced."""
        connection = self._there
        async with connection.transaction():
            rows = await connection.fetch(query("checkpoints"), writers)
            new = sorted(set(writers) - {row["writer"] for row in rows})
            if new:
                await connection.execute(query("introduce"), new, socket.gethostname())
                rows = await connection.fetch(query("checkpoints"), writers)
        for row in rows:
            _, writer_id, shipped, unsettled, closed, accepted = row
            road.knows(
                row["writer"], Checkpoint(writer_id, shipped, unsettled, closed, accepted or 0)
            )

    # -- shipping ------------------------------------------------------------------------------

    async def _ship(self, ready: _Ready) -> bool:
        """Ship one batch; tell whether it is shipped, by this shipper or by another.

        Raises:
            Exception: the connection is in doubt.
        """
        road, stretch = ready.road, ready.stretch
        known = road.known.get(stretch.writer)
        standing = road.source.lookout.standings.get(stretch.writer)
        if known is None or standing is None:
            return False
        if known.shipped != stretch.first - 1:  # what was before it was not shipped, or more was
            road.back(stretch.writer)
            return True
        closed = standing.closed and stretch.last >= standing.top
        try:
            parcel = await self._with_months(ready, known.writer_id)
            done = await batch.ship(
                self._there,
                known.writer_id,
                parcel,
                accepted=standing.accepted,
                closed=closed,
                unsettled=known.unsettled > 0,
                still=lambda: road.source.is_as_read(stretch),
            )
        except Exception as exc:
            if isinstance(exc, TimeoutError):  # the next attempt is of fewer lines
                road.refused(stretch)
            if not _is_the_writers(exc):
                raise
            await self._refused(road, stretch, exc)
            return True
        if not done:  # somebody else did, or its lines were erased meanwhile
            road.back(stretch.writer)
            road.known.pop(stretch.writer)
            await self._ask_of(road, [stretch.writer])
            return True
        count = stretch.last - stretch.first + 1
        self.records += count
        self.batches += 1
        self._shipped.append((time.monotonic(), count))
        unsettled = known.unsettled + len(parcel.rows.unsettled)
        told = Checkpoint(known.writer_id, stretch.last, unsettled, closed, standing.accepted)
        road.knows(stretch.writer, told)
        self._good()
        return True

    async def _with_months(self, ready: _Ready, writer_id: int) -> batch.Parcel:
        """Return the parcel, packed again if months had to be made for it."""
        parcel = ready.parcel
        if isinstance(parcel, Exception):
            raise parcel
        missing = parcel.rows.missing - self._without
        if missing:
            if new := missing - self._months:
                await self._ask_months(sorted(new))
                self._without |= new - self._months
            if missing & self._months:
                parcel = await self._pack(ready.stretch, writer_id)
        return parcel

    async def _refused(self, road: Road, stretch: Stretch, exc: Exception) -> None:
        """Find the line that the database does not take, and set it aside."""
        self._drop()  # whatever it was, this connection is not used again
        # Its first line: the next one has the values.
        why = f"{type(exc).__name__}: {str(exc).partition(chr(10))[0]}"[:_WHY]
        state = str(getattr(exc, "sqlstate", ""))
        alone = _is_about_data(exc) and road.refused(stretch)
        if not _is_about_data(exc) or not stretch.lines or (alone and state == _TOO_SLOW):
            if state == _TWICE:
                why = (
                    f"rows of {stretch.writer} from number {stretch.first} are there already, "
                    "and its checkpoint says that they are not"
                )
            pause = _BRIEFLY if state.startswith(_IN_THE_WAY) else _OWN_PAUSE
            road.failed(stretch.writer, why, pause)
            self._note_error(why)
            await self._ask()
            return
        await self._ask()  # which partitions there are, too
        if _is_without_partition(exc):  # retention has dropped it: nothing is wrong with the line
            return
        known = road.known.get(stretch.writer)
        standing = road.source.lookout.standings.get(stretch.writer)
        if not alone or known is None or standing is None or known.shipped != stretch.first - 1:
            return
        _log.warning("%s: record %d is set aside: %s", stretch.writer, stretch.numbers[0], why)
        parcel = batch.reject(stretch, known.writer_id, why)
        await batch.ship(
            self._there,
            known.writer_id,
            parcel,
            accepted=standing.accepted,
            still=lambda: road.source.is_as_read(stretch),
        )
        road.known.pop(stretch.writer)
        await self._ask_of(road, [stretch.writer])

    async def _tell(self) -> None:
        """Tell the database of writers that are closed, or have accepted more than it has."""
        if self._connection is None or time.monotonic() < self._tell_at:
            return
        ends = {one[0]: one for road in self.roads for one in road.ends()}
        if ends:
            columns = map(list, zip(*(ends[each] for each in sorted(ends)), strict=True))
            async with self._connection.transaction():
                await self._connection.execute(query("tell"), *columns)
            for road in self.roads:
                for known in road.known.values():
                    if known.writer_id in ends:
                        _, known.accepted, closed = ends[known.writer_id]
                        known.closed = known.closed or closed
        self._tell_at = time.monotonic() + _TELL

    # -- good and bad --------------------------------------------------------------------------

    def _good(self) -> None:
        self.failing = None
        self._pause = self._again_at = 0.0
        self.last_success = datetime.now(UTC)

    def _bad(self, exc: Exception) -> None:
        self._drop()
        named = type(exc).__name__
        said = f"{named}: {exc}" if str(exc) else named
        if isinstance(exc, LedgerError):
            said = str(exc)
        elif database.is_theirs(exc):  # with what to do about it
            said = str(database.unusable(self._address, exc))
        self._note_error(said)
        self.failing = self.last_error
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause or _FIRST_PAUSE)
        self._again_at = time.monotonic() + self._pause * random.uniform(0.5, 1.0)

    def _note_error(self, why: str) -> None:
        if why != self.last_error or self.failing is None:
            _log.warning("shipping to %s: %s", self._address.place, why)
        self.last_error = why

    def _drop(self) -> None:
        """Give the connection up, without a word to the server and without waiting.

        What was packed for it is read again: lines may be erased until there is another one.
        """
        connection, self._connection = self._connection, None
        if self._ready is not None:
            self._ready.road.back(self._ready.stretch.writer)
            self._ready = None
        if connection is not None:
            with suppress(Exception):
                connection.terminate()

    def abandon(self) -> None:
        """In a forked child: let go of the connection without touching what the parent has of it.

        Its number stays taken, so that nothing that is collected later closes another file.
        """
        connection = self._connection
        with suppress(Exception):
            transport = getattr(connection, "_transport", None)
            socket_of = transport.get_extra_info("socket") if transport is not None else None
            if socket_of is not None:
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, socket_of.fileno(), inheritable=False)
                os.close(nothing)

    async def close(self) -> None:
        """End the connection, and note how far it is."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=_END)
            except Exception:  # noqa: BLE001 - it is gone either way
                with suppress(Exception):
                    connection.terminate()
        for road in self.roads:
            road.note(self.failing, answered=self.last_success is not None, now=True)

    def figures(self) -> SinkStatistics:
        """Return how it goes; on the loop's thread."""
        now = time.monotonic()
        while self._shipped and self._shipped[0][0] < now - _WINDOW:
            self._shipped.popleft()
        waiting = [road.waiting() for road in self.roads]
        since = min((since for _, _, since in waiting if since is not None), default=None)
        held = [why for road in self.roads for why in road.held().values()]
        held += [road.unreadable for road in self.roads if road.unreadable is not None]
        return SinkStatistics(
            to=self._address.place,
            backlog=sum(records for records, _, _ in waiting),
            backlog_bytes=sum(size for _, size, _ in waiting),
            lag_s=0.0 if since is None else max(0.0, time.time() - since),
            rate=sum(count for _, count in self._shipped) / _WINDOW,
            shipped=self.records,
            last_success=self.last_success,
            last_error=self.last_error,
            failing=self.failing or (held[0] if held else None),
        )


def _is_the_writers(exc: Exception) -> bool:
    """Whether it is about the rows of one writer; else the database is away, or is not ours."""
    state = getattr(exc, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_WRITERS)
    away = OSError, TimeoutError, EOFError, LedgerError
    return not isinstance(exc, away) and type(exc).__module__.partition(".")[0] != "asyncpg"


def _is_without_partition(exc: Exception) -> bool:
    """Whether rows are of a month that has no partition any more; of no constraint with a name."""
    state, name = (getattr(exc, key, None) for key in ("sqlstate", "constraint_name"))
    return state == _REFUSED and name is None


def _is_about_data(exc: Exception) -> bool:
    """Whether it is about values, so that fewer lines may be taken."""
    state = getattr(exc, "sqlstate", None)
    return state is None or str(state).startswith(_DATA)
