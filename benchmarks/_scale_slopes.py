"""What a call costs on its way into a database, measured at several sizes: slopes, not points.

A *call* is two lines of the ledger: ``started`` and its outcome.  Processor time of the server is
that of its processes in ``/proc``; WAL is by ``pg_current_wal_lsn()``; sizes are by
``pg_total_relation_size``.  The server writes whole pages after a checkpoint, as one does that
must survive a power cut, and waits for no disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.ledger_by_hand import HandMade
from tests.postgres_server import Server
from tests.realistic import records, writer_name
from tests.wires import Bouncer

from litellm_ledger import UsageRecord, UsageTracker
from litellm_ledger._postgres import database, schema
from litellm_ledger._postgres.query import query
from litellm_ledger._records.layout import record_id
from litellm_ledger._records.line import encode
from litellm_ledger._shipping import rollup
from litellm_ledger._shipping.road import Road
from litellm_ledger._shipping.shipper import Shipper

from ._size import Size

__all__ = ["Fit", "Slopes", "cpu_of", "measure", "server"]

_PLACE = "/dev/shm" if Path("/dev/shm").is_dir() else None
_TICKS = os.sysconf("SC_CLK_TCK")
_SETTINGS = {"full_page_writes": "on", "synchronous_commit": "on", "max_connections": "300"}
_MONTHS = (202609, 202610)
_RELATIONS = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'litellm_ledger' AND c.relkind = 'r' AND c.relname ~ $1
"""


@dataclass(frozen=True)
class Fit:
    """A straight line through what was measured: ``fixed + slope * size``.

    Attributes:
        off: the largest distance of a measured value from the line, as a part of the largest value.
    """

    fixed: float
    slope: float
    off: float

    @classmethod
    def of(cls, sizes: Sequence[float], values: Sequence[float]) -> Fit:
        """Fit by least squares."""
        found = statistics.linear_regression(sizes, values)
        line = [found.intercept + found.slope * size for size in sizes]
        off = max(abs(a - b) for a, b in zip(line, values, strict=True))
        return cls(found.intercept, found.slope, off / (max(map(abs, values)) or 1.0))


@dataclass
class Slopes:
    """What was measured.

    Attributes:
        call: by name, for each call: seconds of a processor, or bytes.
        batch: by name, for a batch by its lines: seconds of a processor, or bytes of WAL.
        groups: values of a tag, days, rows of sums, and microseconds a call to bring them forward.
        partitions: months, milliseconds to plan one day, and to plan all time.
        connection: bytes of the server for each idle connection, and behind PgBouncer.
        look: seconds of the server for a look at sums that are up to date, by writers.
        refused: the same where another one leads.
        partition: bytes of an empty month.
        machine: in general words.
    """

    call: dict[str, Fit] = field(default_factory=dict)
    batch: dict[str, Fit] = field(default_factory=dict)
    groups: list[tuple[int, float, int, float]] = field(default_factory=list)
    partitions: list[tuple[int, float, float]] = field(default_factory=list)
    connection: dict[str, Fit] = field(default_factory=dict)
    look: Fit = field(default_factory=lambda: Fit(0.0, 0.0, 0.0))
    refused: float = 0.0
    partition: float = 0.0
    machine: str = ""


# -- the server ------------------------------------------------------------------------------------


@contextmanager
def server() -> Iterator[Server]:
    """Run a server that writes as much WAL as one in production."""
    one = Server(settings=_SETTINGS)
    try:
        yield one
    finally:
        one.close()


def _processes(pid: int) -> list[tuple[int, list[str]]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parts = path.read_text().rpartition(")")[2].split()
            if int(path.parent.name) == pid or int(parts[1]) == pid:
                found.append((int(path.parent.name), parts))
    return found


def cpu_of(pid: int) -> float:
    """Return seconds of a processor of a server: its processes, and those that have ended."""
    ticks = 0
    for number, parts in _processes(pid):
        ticks += sum(map(int, parts[11:15] if number == pid else parts[11:13]))
    return ticks / _TICKS


def _memory(pid: int) -> int:
    """Return bytes of a server's processes; what they share counts once."""
    total = 0
    for number, _ in _processes(pid):
        with suppress(OSError):
            for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
    return total


async def _make(one: Server, name: str) -> str:
    await _ask(one.url(), f"CREATE DATABASE {name} TEMPLATE template0")
    connection = await database.connect(one.url(name))
    await schema.init(connection)
    made = "SELECT litellm_ledger.make_partition(month) FROM unnest($1::int[]) AS month"
    there = {row[0] for row in await connection.fetch("SELECT litellm_ledger.partitions()")}
    await connection.fetch(made, [month for month in _MONTHS if month not in there])
    await database.close(connection)
    return one.url(name)


async def _ask(url: str, text: str, *args: Any) -> Any:
    connection = await database.connect(url)
    try:
        return await connection.fetchval(text, *args)
    finally:
        await database.close(connection)


class _Meter:
    """What the server did since: everything that it had to write is written in that time, too."""

    def __init__(self, one: Server, url: str) -> None:
        self._one, self._url = one, url

    async def begin(self) -> None:
        await _ask(self._url, "CHECKPOINT")
        self._cpu, self._wal = cpu_of(self._one.pid), await _wal(self._url)

    async def end(self) -> tuple[float, int]:
        """Return seconds of a processor, and bytes of WAL."""
        wal = await _wal(self._url) - self._wal
        await _ask(self._url, "CHECKPOINT")
        return cpu_of(self._one.pid) - self._cpu, wal


async def _wal(url: str) -> int:
    return int(await _ask(url, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))


class _Shipper(Shipper):
    """One that leaves the sums alone: they are measured on their own."""

    async def _bring_sums_forward(self, *, all_now: bool) -> None:
        pass


async def _ship(url: str, root: Path, **options: Any) -> None:
    shipper = _Shipper(url, [Road(root, "scale", **options)])
    while await shipper.step(all_now=True):
        pass
    await shipper.close()
    if shipper.failing is not None:
        raise RuntimeError(shipper.failing)


# -- ledgers ---------------------------------------------------------------------------------------


def _lines(
    writer: str, calls: int, days: float, tags: Callable[[int], dict[str, str]] | None
) -> list[bytes]:
    """Return the lines of calls: each as it begins, and as it ends."""
    found = []
    for at, one in enumerate(records(writer, calls, days=days)):
        began, ended = record_id(writer, 2 * at + 1), record_id(writer, 2 * at + 2)
        tagged = one.tags if tags is None else tags(at)
        number = 2 * at + 1
        started = UsageRecord(
            id=began,
            seq=number,
            kind="started",
            ts=one.ts,
            operation=began,
            attempt=1,
            call=one.call,
            model=one.model,
            provider=one.provider,
            stream=one.stream,
            tags=tagged,
            call_id=one.call_id,
        )
        outcome = msgspec.structs.replace(
            one, id=ended, seq=number + 1, operation=began, tags=tagged
        )
        found += [encode(started), encode(outcome)]
    return found


@contextmanager
def _ledger(
    calls: int, days: float = 0.25, tags: Callable[[int], dict[str, str]] | None = None
) -> Iterator[tuple[Path, int]]:
    """Make a ledger of calls of some hours; yield it and the bytes of its lines."""
    root = Path(tempfile.mkdtemp(prefix="scale-", dir=_PLACE))
    try:
        hand = HandMade(root, writer_name(1))
        lines = _lines(hand.writer, calls, days, tags)
        hand.sealed(1, len(lines), lines)
        yield root, sum(map(len, lines))
    finally:
        shutil.rmtree(root, ignore_errors=True)


# -- what is measured ------------------------------------------------------------------------------


def measure(one: Server, size: Size, say: Callable[[str], object]) -> Slopes:
    """Measure all of it; minutes."""
    found = Slopes()
    for name, part in (
        ("calls at several sizes", _calls),
        ("batches of several sizes", _batches),
        ("groups of the sums", _groups),
        ("looks at the sums", _looks),
        ("connections", _connections),
        ("partitions", _partitions),
        ("the machine that records", _recording),
        ("object storage and the archive", _objects),
    ):
        began = time.monotonic()
        part(one, size, found)
        say(f"{name}: {time.monotonic() - began:.0f} s")
    return found


def _calls(one: Server, size: Size, found: Slopes) -> None:
    """Ship ledgers of several sizes, bring the sums forward, vacuum."""
    sizes = size((10_000, 20_000, 40_000, 60_000), (200, 400, 600))
    seen: dict[str, list[float]] = {}

    async def run(calls: int) -> dict[str, float]:
        url = await _make(one, f"calls_{calls}")
        meter, values = _Meter(one, url), {}
        with _ledger(calls) as (root, _):
            empty = await _ask(url, _RELATIONS, ".")
            await meter.begin()
            ours = time.process_time()
            await _ship(url, root)
            values["client"] = time.process_time() - ours
            values["server"], values["wal"] = await meter.end()
        await meter.begin()
        await _ask(url, "VACUUM ANALYZE litellm_ledger.calls")
        values["vacuum"], values["vacuum wal"] = await meter.end()
        values["stored"] = await _ask(url, _RELATIONS, ".") - empty
        before = await _ask(url, _RELATIONS, "^rollup")
        connection = await database.connect(url)
        await meter.begin()
        while await rollup.bring_forward(connection, 10_000):
            pass
        values["sums"], values["sums wal"] = await meter.end()
        await database.close(connection)
        values["sums stored"] = await _ask(url, _RELATIONS, "^rollup") - before
        return values

    for calls in sizes:
        for name, value in asyncio.run(run(calls)).items():
            seen.setdefault(name, []).append(value)
    found.call |= {name: Fit.of(sizes, values) for name, values in seen.items()}


def _batches(one: Server, size: Size, found: Slopes) -> None:
    """Ship the same lines in batches of several sizes."""
    plan = size({4: 400, 40: 300, 400: 80, 5_000: 12}, {4: 20, 40: 10, 400: 3})
    seen: dict[str, list[float]] = {"client": [], "server": [], "wal": []}

    async def run(lines: int, batches: int) -> None:
        url = await _make(one, f"batches_{lines}")
        meter = _Meter(one, url)
        with _ledger(lines * batches // 2) as (root, _):
            await meter.begin()
            ours = time.process_time()
            await _ship(url, root, lines=lines)
            seen["client"].append((time.process_time() - ours) / batches)
            cpu, wal = await meter.end()
            seen["server"].append(cpu / batches)
            seen["wal"].append(wal / batches)

    for lines, batches in plan.items():
        asyncio.run(run(lines, batches))
    found.batch |= {name: _weighted(list(plan), values) for name, values in seen.items()}


def _weighted(lines: Sequence[int], values: Sequence[float]) -> Fit:
    """Fit where small batches count as much as large ones: each by its share of its value."""
    weights = [1 / value**2 if value else 0.0 for value in values]
    total = sum(weights)
    x = sum(w * n for w, n in zip(weights, lines, strict=True)) / total
    y = sum(w * v for w, v in zip(weights, values, strict=True)) / total
    slope = sum(
        w * (n - x) * (v - y) for w, n, v in zip(weights, lines, values, strict=True)
    ) / sum(w * (n - x) ** 2 for w, n in zip(weights, lines, strict=True))
    fixed = y - slope * x
    off = max(abs(fixed + slope * n - v) / (v or 1.0) for n, v in zip(lines, values, strict=True))
    return Fit(fixed, slope, off)


def _groups(one: Server, size: Size, found: Slopes) -> None:
    """Bring sums forward over few groups and over many."""
    calls = size(20_000, 400)

    async def run(values: int, days: float) -> None:
        url = await _make(one, f"groups_{values}_{days:.0f}")
        meter = _Meter(one, url)

        def tags(at: int) -> dict[str, str]:
            return {"team": f"team-{at * 7919 % values}", "env": "prod"}

        with _ledger(calls, days, tags) as (root, _):
            await _ship(url, root)
        connection = await database.connect(url)
        await meter.begin()
        while await rollup.bring_forward(connection, 10_000):
            pass
        cpu, _ = await meter.end()
        await database.close(connection)
        rows = await _ask(url, "SELECT count(*) FROM litellm_ledger.rollup_15m")
        found.groups.append((values, days, int(rows), cpu / calls * 1e6))

    for values, days in size(
        ((1, 0.25), (10, 0.25), (50, 0.25), (50, 30.0)), ((1, 1.0), (10, 1.0))
    ):
        asyncio.run(run(values, days))


_WRITERS = """
WITH made AS (
    INSERT INTO litellm_ledger.writers (writer, host, shipped, usage, closed)
    SELECT 'writer-' || number, 'scale', 1, 1, true FROM generate_series($1::int, $2::int) AS number
    RETURNING writer_id
)
INSERT INTO litellm_ledger.rollup_marks (writer_id, series, rolled)
SELECT writer_id, series, 1 FROM made, unnest('{"", "tag:team", "tag:env"}'::text[]) AS series
"""


def _looks(one: Server, size: Size, found: Slopes) -> None:
    """Look at sums that are up to date, among few writers and among many; and be refused."""
    counts, times = size((1, 2_000, 10_000, 30_000), (1, 10, 20)), size(30, 5)
    url = asyncio.run(_make(one, "looks"))

    async def look(connection: Any) -> float:
        cpu = cpu_of(one.pid)
        for _ in range(times):
            await rollup.bring_forward(connection, 10_000)
        return (cpu_of(one.pid) - cpu) / times

    async def run() -> list[float]:
        with _ledger(200, tags=lambda at: {"team": f"{at % 2}", "env": "prod"}) as (root, _):
            await _ship(url, root)
        connection, other = await database.connect(url), await database.connect(url)
        while await rollup.bring_forward(connection, 10_000):
            pass
        taken, last = [], 0
        for count in counts:
            await connection.execute(_WRITERS, last + 1, count)
            await connection.execute("ANALYZE")
            last = count
            taken.append(await look(connection))
        async with other.transaction():
            await rollup._lead(other)
            times_more = 10
            cpu = cpu_of(one.pid)
            for _ in range(times_more):
                await look(connection)
            found.refused = (cpu_of(one.pid) - cpu) / times / times_more
        await database.close(connection)
        await database.close(other)
        return taken

    found.look = Fit.of(counts, asyncio.run(run()))


def _connections(one: Server, size: Size, found: Slopes) -> None:
    """Hold idle connections of shippers open, directly and behind PgBouncer."""

    async def memory(url: str, counts: Sequence[int], more: int | None = None) -> list[int]:
        held: list[Any] = []
        taken = []
        for count in counts:
            while len(held) < count:
                connection = await database.connect(url)
                await schema.check(connection)
                await connection.fetch(query("checkpoints"), ["none"])
                held.append(connection)
            taken.append(_memory(one.pid) + (_memory(more) if more else 0))
        for connection in held:
            await database.close(connection)
        return taken

    counts = size((0, 50, 100, 200), (0, 5, 10))
    url = asyncio.run(_make(one, "connections"))
    found.connection["directly"] = Fit.of(counts, asyncio.run(memory(url, counts)))
    with tempfile.TemporaryDirectory(dir=_PLACE) as place:
        try:
            bouncer = Bouncer(one, Path(place))
        except (pytest.skip.Exception, pytest.fail.Exception):
            return
        try:
            counts = (0, 10, 20, 40)
            taken = asyncio.run(memory(bouncer.url("connections"), counts, bouncer._process.pid))
            found.connection["behind PgBouncer"] = Fit.of(counts[1:], taken[1:])
        finally:
            bouncer.close()


def _partitions(one: Server, size: Size, found: Slopes) -> None:
    """Plan questions over few months and over many."""
    day = "SELECT sum(cost_picousd) FROM litellm_ledger.calls WHERE ts >= '{}' AND ts < '{}'"
    asked = day.format("2026-09-03Z", "2026-09-04Z"), "SELECT count(*) FROM litellm_ledger.calls"
    url = asyncio.run(_make(one, "partitions"))

    async def plan(text: str) -> float:
        connection = await database.connect(url)
        taken = []
        for _ in range(size(15, 3)):
            said = await connection.fetchval(f"EXPLAIN (SUMMARY, FORMAT JSON) {text}")
            taken.append(json.loads(said)[0]["Planning Time"])
        await database.close(connection)
        return statistics.median(taken)

    every = [100 * year + month for year in range(2018, 2027) for month in range(1, 13)]
    for count in size((6, 24, 60, 108), (6, 12)):
        wanted = every[-count:]
        asyncio.run(_ask(url, "SELECT count(*) FROM litellm_ledger.make_partitions($1)", wanted))
        found.partitions.append((count, *(asyncio.run(plan(text)) for text in asked)))
    month = "^calls_202608"
    found.partition = asyncio.run(_ask(url, _RELATIONS, month))


def _recording(one: Server, size: Size, found: Slopes) -> None:
    """Record outcomes without a sink: processor time, and bytes of the ledger."""
    sizes = size((10_000, 20_000, 40_000), (200, 400, 600))
    cpu, disk = [], []

    async def run(root: Path, count: int) -> float:
        many = [
            msgspec.structs.replace(each, id=None, seq=None, operation=None)
            for each in records(writer_name(2), count)
        ]
        began = time.process_time()
        async with UsageTracker(root, handle_signals=False, queue_size=count) as tracker:
            for at, each in enumerate(many):
                tracker.record_nowait(each)
                if at % 100 == 99:
                    await asyncio.sleep(0)
            await tracker.flush()
            return time.process_time() - began

    for count in sizes:
        root = Path(tempfile.mkdtemp(prefix="scale-", dir=_PLACE))
        try:
            cpu.append(2 * asyncio.run(run(root, count)))
        finally:
            shutil.rmtree(root, ignore_errors=True)
        with _ledger(count) as (_, written):
            disk.append(float(written))
    found.call["recorded"] = Fit.of(sizes, cpu)
    found.call["ledger"] = Fit.of(sizes, disk)


def _objects(one: Server, size: Size, found: Slopes) -> None:
    """Seal, send to a directory as if it were a bucket, and join into files of the archive."""
    sizes = size((10_000, 20_000, 40_000), (200, 400, 600))
    seen: dict[str, list[float]] = {}

    def command(*words: str | Path) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        line = [sys.executable, "-m", "litellm_ledger", *map(str, words)]
        subprocess.run(line, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    for calls in sizes:
        with _ledger(calls) as (root, _), tempfile.TemporaryDirectory(dir=_PLACE) as bucket:
            command("seal", root)
            values = {"sent": command("ship", root, "--to", f"file://{bucket}")}
            values["objects"] = _bytes(Path(bucket))
        with _ledger(calls) as (root, _):  # what was shipped today is not compacted today
            values["compacted"] = command("compact", root)
            values["archive"] = _bytes(root / "archive")
        for name, value in values.items():
            seen.setdefault(name, []).append(value)
    found.call |= {name: Fit.of(sizes, values) for name, values in seen.items()}


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
