"""A small run for real, and what the model said of it: a fleet on this machine, with a cut.

Each writer is a process that records at a constant rate; each shipper is one more, that follows its
ledger through a proxy.  The proxy is cut for some seconds.  What was written and what the database
has are looked at four times a second.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
from tests.postgres_server import Server
from tests.realistic import records, writer_name

from litellm_ledger import UsageTracker
from litellm_ledger._postgres import database, schema
from litellm_ledger._shipping.road import Road
from litellm_ledger._shipping.shipper import Shipper

__all__ = ["Plan", "Seen", "trial"]

_PLACE = "/dev/shm" if Path("/dev/shm").is_dir() else None
_LOOK = 0.25


@dataclass(frozen=True)
class Plan:
    """A trial: so many writers, each with its shipper, at so many lines a second.

    Attributes:
        cut: the network is cut after so many seconds, and for how many.
    """

    writers: int
    rate: float
    cut: tuple[float, float]
    steady: float = 10.0


@dataclass
class Seen:
    """What was seen.

    Attributes:
        rate: lines a second of one writer, as it came out.
        usual: lines written and not shipped, on average, before the cut.
        most: the same at its most.
        caught_up: seconds after the cut until it was what it is usually.
        crossing: seconds that one statement takes there and back.
    """

    rate: float
    usual: float
    most: float
    caught_up: float
    crossing: float = 0.0


class _Way:
    """A proxy on the loopback that can be cut."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._to = port
        self._whole = True
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        self._whole = False
        for end in self._open:
            end.transport.abort()

    def mend(self) -> None:
        self._whole = True

    async def _carry(self, here: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if not self._whole:
            back.transport.abort()
            return
        there, on = await asyncio.open_connection("127.0.0.1", self._to)
        self._open |= {back, on}
        await asyncio.gather(self._pump(here, on), self._pump(there, back))
        self._open -= {back, on}

    async def _pump(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(2**18):
                to.write(data)
                await to.drain()
        to.close()


async def _record(root: Path, number: int, rate: float) -> None:
    """Record outcomes at a rate, until a signal ends it."""
    many = [
        msgspec.structs.replace(one, id=None, seq=None, operation=None)
        for one in records(writer_name(number), 2_000)
    ]
    made = 0
    async with UsageTracker(root, handle_signals=False) as tracker:
        began = time.monotonic()
        while True:
            due = int((time.monotonic() - began) * rate)
            for at in range(made, due):
                tracker.record_nowait(many[at % len(many)])
            made = due
            await asyncio.sleep(0.02)


async def _follow(url: str, root: Path) -> None:
    shipper = Shipper(url, [Road(root, "trial", recovers=False)])
    await shipper.follow()


def _start(work: Callable[[], Any]) -> int:
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            asyncio.run(work())
        finally:
            os._exit(0)
    return pid


def _accepted(roots: list[Path]) -> int:
    """Return how many lines were written, as the live files count them."""
    total = 0
    for root in roots:
        for path in (root / "live").glob("*.live"):
            with suppress(OSError):
                total += int.from_bytes(path.read_bytes()[24:32], "little")
    return total


def trial(one: Server, plan: Plan) -> Seen:
    """Run a plan; takes its time and some seconds more."""
    place = Path(tempfile.mkdtemp(prefix="scale-", dir=_PLACE))
    roots = [place / str(number) for number in range(plan.writers)]
    pids: list[int] = []
    try:
        return asyncio.run(_trial(one, plan, roots, pids))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(place, ignore_errors=True)


async def _trial(one: Server, plan: Plan, roots: list[Path], pids: list[int]) -> Seen:
    connection = await database.connect(one.url())
    await connection.execute("DROP DATABASE IF EXISTS trial WITH (FORCE)")
    await connection.execute("CREATE DATABASE trial TEMPLATE template0")
    await database.close(connection)
    connection = await database.connect(one.url("trial"))
    await schema.init(connection)
    began = time.perf_counter()
    for _ in range(50):
        await connection.execute("SELECT 1")
    crossing = (time.perf_counter() - began) / 50
    backlog: list[tuple[float, int]] = []
    made: list[tuple[float, int]] = []

    async def look() -> int:
        shipped = await connection.fetchval("SELECT sum(shipped) FROM litellm_ledger.writers") or 0
        now, written = time.monotonic(), _accepted(roots)
        made.append((now, written))
        backlog.append((now, written - int(shipped)))
        return backlog[-1][1]

    async with _Way(one.port) as way:
        url = f"postgresql://postgres@127.0.0.1:{way.port}/trial"
        for number, root in enumerate(roots):
            pids.append(_start(lambda r=root, n=number: _record(r, n, plan.rate)))
        await asyncio.sleep(1.5)
        pids += [_start(lambda r=root: _follow(url, r)) for root in roots]
        await asyncio.sleep(plan.cut[0] - plan.steady)
        before = time.monotonic()
        while time.monotonic() < before + plan.steady:
            await look()
            await asyncio.sleep(_LOOK)
        usual = sum(lines for _, lines in backlog) / len(backlog)
        way.cut()
        await asyncio.sleep(plan.cut[1])
        most = await look()
        way.mend()
        back = time.monotonic()
        enough = max(2 * usual, usual + plan.rate * plan.writers * 0.5)
        while time.monotonic() < back + 120:
            if await look() <= enough:
                break
            await asyncio.sleep(0.1)
        caught_up = time.monotonic() - back
    await database.close(connection)
    seconds = made[-1][0] - made[0][0]
    rate = (made[-1][1] - made[0][1]) / seconds / plan.writers
    return Seen(rate, usual, most, caught_up, crossing)
