"""A proxy before PostgreSQL that holds a message of a client, so that either end can be killed."""

from __future__ import annotations

import asyncio
import struct
from typing import Self

__all__ = ["HoldingProxy"]

_STATEMENTS = (b"Q", b"B", b"c", b"d")
"""Query, Bind, CopyDone and CopyData: each may be the last that the server gets."""
_ASKS_FOR_TLS = 8
"""Bytes of the first message, where another one follows that begins a session."""


class HoldingProxy:
    """Passes everything on, but what it is armed for.

    Attributes:
        port: where it listens.
        held: set when a message, or the answer to it, is held.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.held = asyncio.Event()
        self._server_port = port
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []
        self._left, self._after = 0, False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def arm(self, at: int, *, after: bool) -> None:
        """Hold the statement of this number, from 1; ``after``: the answer to it. 0: none."""
        self._left, self._after = at, after
        self.held.clear()

    def cut(self) -> None:
        """Cut all connections."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        server, on = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._ends += [back, on]
        shut = asyncio.Event()
        for pump in (self._to_server(client, on, shut), self._to_client(server, back, shut)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _to_server(
        self, client: asyncio.StreamReader, on: asyncio.StreamWriter, shut: asyncio.Event
    ) -> None:
        begun = False
        try:
            while True:
                kind = await client.readexactly(1) if begun else b""
                head = await client.readexactly(4)
                (size,) = struct.unpack(">I", head)
                message = kind + head + await client.readexactly(size - 4)
                begun = begun or size != _ASKS_FOR_TLS
                if kind in _STATEMENTS and self._left:
                    self._left -= 1
                    if not self._left:
                        if not self._after:
                            self.held.set()
                            return
                        shut.set()
                on.write(message)
                await on.drain()
        except (OSError, asyncio.IncompleteReadError):
            on.transport.abort()

    async def _to_client(
        self, server: asyncio.StreamReader, back: asyncio.StreamWriter, shut: asyncio.Event
    ) -> None:
        try:
            while data := await server.read(65_536):
                if shut.is_set():
                    self.held.set()
                    return
                back.write(data)
                await back.drain()
        except OSError:
            pass
        back.close()
