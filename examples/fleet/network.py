"""The network between the machines and the database: a TCP proxy on the loopback, in a thread.

It can be slow, and it can be cut: then open connections break, and new ones get no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Self

CHUNK = 65_536


class Network:
    """Carries connections to a socket of PostgreSQL's; a context manager.

    Attributes:
        port: on 127.0.0.1, where the machines find the database.
        broken: how many connections a cut has broken.
    """

    def __init__(self, database: Path) -> None:
        self.port = 0
        self.broken = 0
        self._database = database
        self._delay = 0.0
        self._whole = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network")

    def slow(self, seconds: float) -> None:
        """Let everything that is sent, there and back, take so much longer."""
        self._delay = seconds

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._cut)

    def mend(self) -> None:
        self._delay = 0.0
        self._loop.call_soon_threadsafe(self._whole.set)

    def _cut(self) -> None:
        self._whole.clear()
        self.broken += len(self._open) // 2  # each connection has two ends
        for end in self._open:
            end.transport.abort()

    async def _carry(self, machine: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        try:
            database, on = await asyncio.open_unix_connection(self._database)
        except OSError:
            back.transport.abort()
            return
        both = {back, on}
        self._open |= both
        await asyncio.gather(self._pump(machine, on), self._pump(database, back))
        self._open -= both

    async def _pump(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                await asyncio.sleep(self._delay)
                to.write(data)
                await to.drain()
        to.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._whole.set()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop.stop()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join()
        self._loop.close()
