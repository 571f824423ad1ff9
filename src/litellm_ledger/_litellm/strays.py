"""The HTTP clients that LiteLLM makes for one call and drops: found while they are in use, closed.

For some calls (``Call.strays``) LiteLLM makes a client of the provider's SDK that it keeps nowhere.
It is part of a reference cycle, so its connection stays open until the collector comes by, which
then warns of it, or logs an error.  While such a call waits for its answer, its client is among
the local variables of LiteLLM's coroutines that wait; there it is found.  It is closed once it is
idle.

A client that is in LiteLLM's cache, or that the user supplied, is nobody's stray; nor is one that
is only the SDK's or a handler's of the user's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
from collections.abc import Coroutine, Generator
from typing import Any, Final

from .connections import is_idle, is_kept

__all__ = ["Strays"]

_TURNS: Final = 3
"""Turns after which the loop has reported a closed socket."""


class Strays:
    """The strays of one client's calls."""

    def __init__(self) -> None:
        self._clients: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._clients)

    async def watch(self, call: Coroutine[Any, Any, Any], given: object = None) -> Any:
        """Return what the call returns.

        Args:
            call: to LiteLLM.
            given: the HTTP client that the user gave with it.
        """
        watched = _Watched(call)
        try:
            return await watched
        finally:
            for client in watched.found:
                if client is not given:
                    self._clients[id(client)] = client

    async def close(self) -> None:
        """Close those that have nothing under way; the others are left for the next time."""
        closed = False
        for key, client in list(self._clients.items()):
            if key in self._clients and is_idle(client):
                del self._clients[key]
                closed = True
                with contextlib.suppress(Exception):
                    await client.close()
        for _ in range(_TURNS if closed else 0):
            await asyncio.sleep(0)


class _Watched:
    """A coroutine to await, looked at whenever it waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.found: list[Any] = []
        self._seen: list[Any] = []
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        value: Any = None
        thrown: BaseException | None = None
        try:
            while True:
                try:
                    waits = coroutine.send(value) if thrown is None else coroutine.throw(thrown)
                except StopIteration as done:
                    return done.value
                self._look()
                value = thrown = None
                try:
                    value = yield waits
                except GeneratorExit:
                    raise
                except BaseException as exc:
                    thrown = exc
        finally:
            thrown = None  # no cycle of an exception and the frame that holds it
            coroutine.close()

    def _look(self) -> None:
        openai: Any = sys.modules.get("openai")
        at: Any = self._coroutine if openai is not None else None
        while at is not None:
            frame: Any = getattr(at, "cr_frame", None) or getattr(at, "ag_frame", None)
            for holder in frame.f_locals.values() if _is_litellms(frame) else ():
                # Not isinstance(), which asks an object that stands for another one.
                if issubclass(type(holder), openai.AsyncOpenAI) and not any(
                    holder is client for client in self._seen
                ):
                    self._seen.append(holder)
                    if not is_kept(holder):
                        self.found.append(holder)
            at = _awaited(at)


def _is_litellms(frame: Any) -> bool:
    name = frame.f_globals.get("__name__") if frame is not None else None
    return isinstance(name, str) and name.partition(".")[0] == "litellm"


def _awaited(at: Any) -> Any:
    """What a coroutine or an asynchronous generator waits for, if that is such a thing too."""
    if inspect.iscoroutine(at):
        at = at.cr_await
    elif inspect.isasyncgen(at):
        at = at.ag_await
    elif inspect.isgenerator(at):
        at = at.gi_yieldfrom
    if at is None or _is_one(at):
        return at
    # ``anext()`` of a generator, and a coroutine's ``__await__``, do not tell whose they are.
    if type(at).__module__ == "builtins":
        return next(filter(_is_one, gc.get_referents(at)), None)
    return None


def _is_one(at: Any) -> bool:
    return inspect.iscoroutine(at) or inspect.isasyncgen(at) or inspect.isgenerator(at)
