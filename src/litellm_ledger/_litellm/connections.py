"""The end of the HTTP connections that LiteLLM opened for our calls.

Owns a count of our clients for each event loop.  When the last one of a loop has gone, it closes
the idle connection pools that LiteLLM opened on that loop meanwhile and drops their clients from
LiteLLM's cache, so that nothing is left to warn about when the loop ends.  It never touches a pool
that is in use, that belongs to another loop, that was there before our first client, or that the
user supplied.

``litellm.close_litellm_async_clients()`` is not used: it closes the clients of every loop and
leaves them in the cache, closed, so that the next call fails.  Here only the *transport* below a
client is closed.  LiteLLM's opens a new session, and httpcore's a new connection, when it is used
again: code that still holds the client can go on using it.

Owns the ``Strays``, too.  For some calls (``Call.strays``) LiteLLM makes a client of the provider's
SDK that it keeps nowhere.  It is part of a reference cycle, so its connection stays open until the
collector comes by, which then warns of it, or logs an error.  While such a call waits for its
answer, its client is among the local variables of LiteLLM's coroutines that wait; there it is
found.  It is closed once it is idle.  A client that is in LiteLLM's cache, or that the user
supplied, is nobody's stray; nor is one that is only the SDK's or a handler's of the user's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
import threading
import types
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from .internals import OWNS_CLIENT, OWNS_SESSION
from .load import loaded

__all__ = ["Strays", "acquire_http", "release_http", "watched"]

_TURNS: Final = 3
"""Turns after which a loop has reported a closed socket."""


@dataclass(slots=True)
class _Use:
    """Our clients on one loop, and the pools that were there before the first of them."""

    foreign: weakref.WeakSet[Any]
    clients: int = 0


_lock: Final = threading.Lock()
_uses: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Use]] = (
    weakref.WeakKeyDictionary()
)


def acquire_http(loop: asyncio.AbstractEventLoop) -> None:
    """Count one more client of ours on ``loop``, the running one.  Does not import LiteLLM."""
    with _lock:
        use = _uses.get(loop)
        if use is None:
            known = (_identity(transport) for _, _, transport in _transports(loop))
            use = _uses[loop] = _Use(weakref.WeakSet(known))
        use.clients += 1


async def release_http(loop: asyncio.AbstractEventLoop) -> None:
    """Count one client less on ``loop``, the running one; after the last, close what it opened.

    Calls that are still in flight keep their connections.  The next call on the loop opens new
    ones. Never raises, except to pass on a cancellation.
    """
    with _lock:
        use = _uses.get(loop)
        if use is None:
            return
        use.clients -= 1
        if use.clients > 0:
            return
        del _uses[loop]
    kept: set[str] = set()
    closed: set[str] = set()
    for key, owner, transport in list(_transports(loop)):
        if _identity(transport) in use.foreign or _busy(transport):
            kept.add(key)
            continue
        closed.add(key)
        with contextlib.suppress(Exception):
            await transport.aclose()
            if getattr(owner, "client_session", None) is not None:
                owner.client_session = None  # the one holder that would use a closed session again
    litellm: Any = loaded()
    mine = _ending()
    for key in closed - kept:
        if key.endswith(mine):
            with contextlib.suppress(Exception):
                litellm.in_memory_llm_clients_cache.delete_cache(key)
    for _ in range(_TURNS if closed else 0):
        await asyncio.sleep(0)


# --- What LiteLLM drops ----------------------------------------------------------------------


class Strays:
    """The strays of one client's calls."""

    def __init__(self) -> None:
        self._clients: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._clients)

    async def watch(self, call: Coroutine[Any, Any, Any], given: object = None) -> Any:
        """Return what the call returns; ``given`` is the HTTP client that came with it."""
        seen: _Seen = {}
        try:
            return await watched(call, partial(_look, seen=seen))
        finally:
            for key, (client, kept) in seen.items():
                if not kept and client is not given:
                    self._clients[key] = client

    async def close(self) -> None:
        """Close those that have nothing under way; the others are left for the next time."""
        closed = False
        for key, client in list(self._clients.items()):
            if key in self._clients and _is_idle(client):
                del self._clients[key]
                closed = True
                with contextlib.suppress(Exception):
                    await client.close()
        for _ in range(_TURNS if closed else 0):
            await asyncio.sleep(0)


_Seen = dict[int, tuple[Any, bool]]
"""Clients by their identity; whether somebody kept one when it was first seen."""


@types.coroutine
def watched(
    coroutine: Coroutine[Any, Any, Any], look: Callable[[types.FrameType], object]
) -> Generator[Any, Any, Any]:
    """Await a coroutine; whenever it waits, ``look`` at its frames of LiteLLM's, outer first."""
    value: Any = None
    thrown: BaseException | None = None
    try:
        while True:
            try:
                waits = coroutine.send(value) if thrown is None else coroutine.throw(thrown)
            except StopIteration as done:
                return done.value
            at: Any = coroutine
            while at is not None:
                frame: Any = getattr(at, "cr_frame", None) or getattr(at, "ag_frame", None)
                if _is_litellms(frame):
                    look(frame)
                at = _awaited(at)
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


def _look(frame: types.FrameType, *, seen: _Seen) -> None:
    openai: Any = sys.modules.get("openai")
    for holder in frame.f_locals.values() if openai is not None else ():
        # Not isinstance(), which asks an object that stands for another one.
        if issubclass(type(holder), openai.AsyncOpenAI) and id(holder) not in seen:
            seen[id(holder)] = holder, _is_kept(holder)


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


# --- Finding what belongs to a loop ----------------------------------------------------------


def _ending() -> str:
    """How LiteLLM's cache ends the keys of the running loop's clients: its id, or since 1.110 a
    number."""
    try:
        litellm: Any = loaded()
        return str(litellm.in_memory_llm_clients_cache.update_cache_key_with_event_loop(""))
    except Exception:
        return f"-{id(asyncio.get_running_loop())}"


def _transports(loop: asyncio.AbstractEventLoop) -> Iterator[tuple[str, Any, Any]]:  # noqa: C901 - the places where LiteLLM keeps connections, one after the other
    """Yield (cache key or "", holder, transport) of all open pools of ``loop`` LiteLLM has made."""
    litellm: Any = loaded()
    if litellm is None:
        return
    mine = _ending()
    try:
        cached = list(litellm.in_memory_llm_clients_cache.cache_dict.items())
    except Exception:
        cached = []
    # Not with getattr: LiteLLM makes these two when they are first asked for.
    cached.append(("", vars(litellm).get("module_level_aclient")))
    cached.append(("", vars(litellm).get("base_llm_aiohttp_handler")))
    supplied = vars(litellm).get("aclient_session")
    for key, owner in cached:
        session = getattr(owner, "client_session", None)
        if session is not None:  # a handler that talks aiohttp directly
            if getattr(owner, OWNS_SESSION, False) and _of_loop(session, loop):
                yield key, owner, _Session(session)
            continue
        if getattr(owner, OWNS_CLIENT, True) is False:
            continue
        client = _httpx(owner)
        if client is None or client is supplied:
            continue
        for transport in _parts(client):
            session = getattr(transport, "client", None)
            if session is not None:  # LiteLLM's transport on aiohttp; a factory before first use
                if getattr(transport, OWNS_SESSION, False) and _of_loop(session, loop):
                    yield key, owner, transport
            elif getattr(transport, "_pool", None) is not None and key.endswith(mine):
                yield key, owner, transport


def _is_kept(owner: Any) -> bool:
    """Whether somebody keeps an SDK client for other calls: LiteLLM's cache, or the user."""
    litellm: Any = loaded()
    if _httpx(owner) is vars(litellm).get("aclient_session"):
        return True
    cached = list(litellm.in_memory_llm_clients_cache.cache_dict.values())  # other threads add some
    return any(owner is kept for kept in cached)


def _is_idle(owner: Any) -> bool:
    """Whether no request of a client's is under way."""
    return not any(_busy(transport) for transport in _parts(_httpx(owner)))


def _httpx(owner: Any) -> Any:
    """The HTTP client below one of the SDK's or of LiteLLM's."""
    return getattr(owner, "_client", None) or owner


def _parts(client: Any) -> list[Any]:
    """The transports of an HTTP client."""
    mounts = getattr(client, "_mounts", None)
    return [
        getattr(client, "_transport", None),
        *(mounts.values() if isinstance(mounts, dict) else ()),
    ]


class _Session:
    """A bare aiohttp session in the shape of a transport."""

    __slots__ = ("client",)

    def __init__(self, session: Any) -> None:
        self.client = session

    async def aclose(self) -> None:
        await self.client.close()


def _identity(transport: Any) -> Any:
    return transport.client if isinstance(transport, _Session) else transport


def _of_loop(session: Any, loop: asyncio.AbstractEventLoop) -> bool:
    return getattr(session, "_loop", None) is loop and getattr(session, "closed", True) is False


def _busy(transport: Any) -> bool:
    """Whether a request is on its way or its answer still being read on any connection."""
    connector = getattr(getattr(transport, "client", None), "_connector", None)
    if connector is not None:
        return bool(getattr(connector, "_acquired", None))
    for connection in list(getattr(getattr(transport, "_pool", None), "connections", ())):
        try:
            if not (connection.is_idle() or connection.is_closed()):
                return True
        except Exception:
            return True
    return False
