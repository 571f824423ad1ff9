"""A proxy before PostgreSQL that cuts connections where it hurts: around the COMMIT of a batch."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal, Self

__all__ = ["Cut", "CuttingProxy"]

Cut = Literal["before", "after", "anywhere"]
_COMMIT = b"; COMMIT\0"
"""How the last message of a batch ends."""


class CuttingProxy:
    """Passes everything on until it is armed.

    Attributes:
        cuts: how often it cut: ``before`` the server had the COMMIT, ``after`` it had answered to
            it (nobody heard the answer), or ``anywhere``.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._armed: Cut | None = None
        self._left = 0
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.cuts: dict[str, int] = {"before": 0, "after": 0, "anywhere": 0}
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()

    def arm(self, cut: Cut, after_bytes: int = 0) -> None:
        """Cut the next connection that comes to this point."""
        self._armed, self._left = cut, after_bytes

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            server, on = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            back.transport.abort()
            return
        gate = asyncio.Event()  # set: what the server says is not passed on
        for pump in (
            self._to_server(client, on, back, gate),
            self._to_client(server, back, on, gate),
        ):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _to_server(
        self,
        client: asyncio.StreamReader,
        on: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        gate: asyncio.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await client.read(65_536):
                armed = self._armed
                self._left -= len(data)
                if armed == "anywhere" and self._left <= 0:
                    self._cut(armed, on, back)
                    return
                if armed == "before" and _COMMIT in data:
                    self._cut(armed, on, back)
                    return
                if armed == "after" and _COMMIT in data:
                    gate.set()
                on.write(data)
                await on.drain()
        on.close()

    async def _to_client(
        self,
        server: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        on: asyncio.StreamWriter,
        gate: asyncio.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await server.read(65_536):
                if gate.is_set():
                    self._cut("after", on, back)
                    return
                back.write(data)
                await back.drain()
        back.close()

    def _cut(self, what: Cut, on: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        self._armed = None
        self.cuts[what] += 1
        on.transport.abort()
        back.transport.abort()
