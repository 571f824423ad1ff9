"""What a record costs its caller, how fast it reaches the disk, how fast a full queue drains.

``python -m benchmarks recording`` runs this section alone.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from litellm_ledger import UsageTracker
from litellm_ledger._storage.filesystem import FileSystem

from ._collector import Collector
from ._least import Least, numbered
from ._peers import INSTALL, PEERS, Bare, LedgerRecorder, Recorder, Sqlite, missing
from ._rounds import Contender, Timed, race
from ._size import Size
from ._table import Table, per_second, quantity, spread, times
from ._work import BATCH, as_called, fields, limit, line_bytes, made

__all__ = ["run"]

LIMIT: Final = f"limit: encode + checksum + write in a loop, {line_bytes(long=False)} bytes"
LONG: Final = f"the same, {line_bytes(long=True)} bytes"
NUMBERED: Final = (
    f"numbering limit: each line numbered, named and dated, {line_bytes(long=False)} bytes"
)
LONG_NUMBERED: Final = f"the same, {line_bytes(long=True)} bytes, dated by its caller"


class _Synced(LedgerRecorder):
    name = "litellm-ledger, synced"
    durability = "synced"


class _MadeBefore(LedgerRecorder):
    """Without the making of the ``UsageRecord``, which is the caller's own."""

    name = "litellm-ledger, the record made before"
    record = made(1)

    def put(self, n: int) -> None:
        self.tracker.record_nowait(self.record)


class _AsCalled(_MadeBefore):
    name = "litellm-ledger, all that a call writes, made before"
    record = as_called()


class _Encoded(Bare):
    """Who encodes before queueing: what the caller pays elsewhere."""

    name = "the same, encoded by the caller"
    encode = msgspec.json.Encoder().encode

    def put(self, n: int) -> None:
        self.encode(fields(n))
        super().put(n)


class _Commits(Sqlite):
    name = "SQLite (WAL) on a thread, one a transaction"
    batch: ClassVar[int] = 1


OURS: Final[tuple[type[Recorder], ...]] = (LedgerRecorder, _MadeBefore, _AsCalled, _Synced)
FAST: Final = (*OURS, Least, Bare, _Encoded, Sqlite)
"""Those fast enough that a burst of the full size takes no time."""


def run(size: Size) -> list[Table]:
    """Return the tables of this section."""
    levels = asyncio.run(_levels(size))  # first, while nobody has imported LiteLLM
    return [*asyncio.run(_peers(size)), levels, asyncio.run(_drain(size))]


def _bursts(size: Size) -> dict[type[Recorder], int]:
    kinds = (*OURS, Least, Bare, _Encoded, *PEERS, _Commits)
    few, many = size(3_000, 20), size(100_000, 100)
    return {kind: many if kind in FAST else few for kind in kinds if not missing(kind)}


async def _peers(size: Size) -> list[Table]:
    """One race for two questions: what the caller pays, and when all of it is on disk."""
    bursts = _bursts(size)
    paid = {kind.name: Timed() for kind in bursts}

    async def burst(recorder: Recorder, records: int) -> None:
        began = time.perf_counter()
        for n in range(records):
            recorder.put(n)
        paid[recorder.name].wall.append((time.perf_counter() - began) / records)
        await recorder.flush()

    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        collector = stack.enter_context(Collector())
        contenders: dict[str, Contender] = {}
        for kind, records in bursts.items():
            recorder = _make(kind, root, records, collector)
            await stack.enter_async_context(recorder)
            contenders[kind.name] = partial(burst, recorder, records), records
        most = size(100_000, 100)
        contenders[LIMIT] = _plain(partial(limit, root / "limit", most)), most
        contenders[LONG] = _plain(partial(limit, root / "limit", most, long=True)), most
        contenders[NUMBERED] = _plain(partial(numbered, root / "limit", most)), most
        contenders[LONG_NUMBERED] = _plain(partial(numbered, root / "limit", most, long=True)), most
        found = await race(contenders, rounds=size(7, 1), seconds=80)

    caller = Table(
        "The caller's side of one record",
        ["", "µs", f"× {Bare.name}"],
        "From the caller's code to the next statement of it, in bursts of "
        f"{size(100_000, 100):,} ({size(3_000, 20):,} for the slow), nothing awaited. The peer is "
        "`queue.put_nowait` of a dict that somebody else encodes.",
    )
    for timed in paid.values():
        del timed.wall[0]  # the warm-up
    for kind in (Bare, _Encoded, _MadeBefore, LedgerRecorder, *PEERS):
        if missing(kind):
            caller.add(kind.name, INSTALL)
            continue
        mine = paid[kind.name]
        caller.add(kind.name, quantity(mine.median * 1e6), times(mine.over(paid[Bare.name])))

    through = Table(
        "From the caller to the disk",
        ["", "records/s", "share of the limit", "of the numbering limit", "by processor time"],
        "The same bursts until the last record is where it belongs: with the operating system, "
        "through `fdatasync` (synced), in the database, with the collector. Langfuse and "
        "OpenTelemetry have a queue large enough for the burst here; with their own they drop. "
        "*The least* (`_least.py`) writes what a call writes and promises nothing: what any ledger "
        "can reach that goes through an `asyncio.Queue`. *The numbering limit* (`_least.py`) gives "
        "each line what docs/FORMAT.md demands, and does nothing else; by processor time too.",
    )
    ours = (_MadeBefore, _AsCalled, LedgerRecorder, _Synced)
    kinds = (*ours, Least, Bare, Sqlite, _Commits, *PEERS[:3])
    for name, bound in ((LIMIT, LIMIT), (LONG, LONG), (NUMBERED, LIMIT), (LONG_NUMBERED, LONG)):
        share = "1" if name == bound else spread(found[bound].over(found[name]))
        last = "1" if name in (NUMBERED, LONG_NUMBERED) else ""
        through.add(name, per_second(found[name].median), share, last, last)
    for kind in kinds:
        if missing(kind):
            through.add(kind.name, INSTALL)
            continue
        mine = found[kind.name]
        long = kind in (_AsCalled, Least)
        bound, fair = found[LONG if long else LIMIT], found[LONG_NUMBERED if long else NUMBERED]
        through.add(
            kind.name,
            per_second(mine.median),
            spread(bound.over(mine)),
            spread(fair.over(mine)),
            spread(fair.cpu_over(mine)),
        )
    return [caller, through]


def _make(kind: type[Recorder], root: Path, records: int, collector: Collector) -> Recorder:
    directory = root / kind.__name__
    directory.mkdir(exist_ok=True)
    return kind(directory, queue=max(2_048, 2 * records), url=collector.url)


def _plain(function: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    async def call() -> None:
        function()

    return call


class _Counting(FileSystem):
    """Counts the syncs, so that the limit makes as many."""

    syncs = 0

    def sync(self, fd: int) -> None:
        self.syncs += 1
        super().sync(fd)


_SLOW_SYNCS: Final = 1_500
"""Records one by one at ``synced``: each waits for the disk."""


async def _levels(size: Size) -> Table:
    """Each level, by how many tasks record at once."""
    table = Table(
        "Durability and batch",
        ["", "records/s", "records a sync", "the limit's records/s", "share of the limit"],
        "`await tracker.record(...)` in this number of tasks at once, each waiting for its "
        "acknowledgement; a burst is `record_nowait` and one `flush`. The record has all that a "
        f"call writes ({line_bytes(long=True)} bytes) and is made before. The limit writes as many"
        "  lines at once and, at `synced`, calls `fdatasync` as often as ours did.",
    )
    record = as_called()
    for level in ("queued", "written", "synced"):
        for at_once in (1, 16, BATCH, 0):
            few = level == "synced" and 0 < at_once < BATCH
            records = size(
                _SLOW_SYNCS * at_once if few else 25_600 if at_once else 100_000, 32 if few else 256
            )
            with tempfile.TemporaryDirectory() as directory:
                fs = _Counting()
                counted = 0

                async def ours(
                    tracker: UsageTracker, records: int = records, at_once: int = at_once
                ) -> None:
                    nonlocal counted
                    before = fs.syncs  # noqa: B023 - called inside the turn of the loop
                    if not at_once:
                        for _ in range(records):
                            tracker.record_nowait(record)
                        await tracker.flush()
                    else:
                        share = records // at_once

                        async def some() -> None:
                            for _ in range(share):
                                await tracker.record(record)

                        await asyncio.gather(*[some() for _ in range(at_once)])
                    counted = fs.syncs - before  # noqa: B023

                def bound(records: int = records, at_once: int = at_once) -> None:
                    syncs = counted if level == "synced" else 0  # noqa: B023
                    path = Path(directory, "limit")
                    limit(path, records, batch=at_once or BATCH, syncs=syncs, long=True)

                async with UsageTracker(
                    directory, durability=level, queue_size=200_000, drain_timeout=60, fs=fs
                ) as tracker:
                    await ours(tracker, 32, min(at_once, 4))
                    found = await race(
                        {
                            "ours": (partial(ours, tracker), records),
                            "limit": (_plain(bound), records),
                        },
                        rounds=size(7, 1),
                        seconds=2.5,
                    )
            how = {0: "burst", 1: "one by one"}.get(at_once, f"{at_once} at once")
            table.add(
                f"{level}, {how}",
                per_second(found["ours"].median),
                f"{records / max(1, counted):,.0f}" if level == "synced" else "",
                per_second(found["limit"].median),
                spread(found["limit"].over(found["ours"])),
            )
    return table


async def _drain(size: Size) -> Table:
    table = Table(
        "Closing with a full queue",
        ["", "ms per 100,000 queued", "× the limit"],
        f"{size(100_000, 100):,} records are queued ({size(3_000, 20):,} for the slow), then the "
        "orderly close is timed: drained, synced and sealed (ours), committed, handed to the "
        "collector. Those with a thread have begun before. The limit writes and syncs as much.",
    )
    most = size(100_000, 100)
    kinds = {
        kind: most if kind in FAST else size(3_000, 20)
        for kind in (LedgerRecorder, Bare, Sqlite, *PEERS[:3])
        if not missing(kind)
    }
    with tempfile.TemporaryDirectory() as directory, Collector() as collector:
        root = Path(directory)

        async def close(kind: type[Recorder], records: int) -> float:
            recorder = _make(kind, root, records, collector)
            await recorder.open()
            for n in range(records):
                recorder.put(n)
            began = time.perf_counter()
            await recorder.close()
            return time.perf_counter() - began

        contenders: dict[str, Contender] = {
            kind.name: (partial(close, kind, records), records) for kind, records in kinds.items()
        }
        contenders[LIMIT] = _plain(partial(limit, root / "limit", most, syncs=1)), most
        found = await race(contenders, rounds=size(5, 1), seconds=20)
    table.add(LIMIT, quantity(found[LIMIT].median * 1e8), "1")
    for kind in (LedgerRecorder, Bare, Sqlite, *PEERS[:3]):
        if missing(kind):
            table.add(kind.name, INSTALL)
            continue
        mine = found[kind.name]
        table.add(kind.name, quantity(mine.median * 1e8), times(mine.over(found[LIMIT])))
    return table
