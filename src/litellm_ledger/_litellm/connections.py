"""The end of the HTTP connections that LiteLLM opened for our calls.

Owns a count of our clients for each event loop.  When the last one of a loop has gone, it closes
the idle connection pools that LiteLLM opened on that loop meanwhile and drops their clients from
LiteLLM's cache, so that nothing is left to warn about when the loop ends.  It never touches a pool
that is in use, that belongs to another loop, that was there before our first client, or that the
user supplied.

``litellm.close_litellm_async_clients()`` is not used: it closes the clients of every loop and
leaves them in the cache, closed, so that the next call fails.  Here only the *transport* below a
client is closed.  LiteLLM's opens a new session, and httpcore's a new connection, when it is used
again: whoever still holds the client can go on using it.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Final

from .load import loaded

__all__ = ["acquire_http", "is_idle", "is_kept", "release_http"]


class _Use:
    """Our clients on one loop, and the pools that were there before the first of them."""

    __slots__ = ("clients", "foreign")

    def __init__(self, foreign: weakref.WeakSet[Any]) -> None:
        self.clients = 0
        self.foreign = foreign


_lock: Final = threading.Lock()
_uses: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Use]] = (
    weakref.WeakKeyDictionary()
)


def acquire_http(loop: asyncio.AbstractEventLoop) -> None:
    """Count one more client of ours on ``loop``, the running one.  Does not import LiteLLM."""
    with _lock:
        use = _uses.get(loop)
        if use is None:
            foreign: weakref.WeakSet[Any] = weakref.WeakSet()
            for _, _, transport in _transports(loop):
                foreign.add(_identity(transport))
            use = _uses[loop] = _Use(foreign)
        use.clients += 1


async def release_http(loop: asyncio.AbstractEventLoop) -> None:  # noqa: C901 - the places where LiteLLM keeps connections, one after the other
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
        try:
            await transport.aclose()
            if getattr(owner, "client_session", None) is not None:
                owner.client_session = None  # the one holder that would use a closed session again
        except Exception:
            pass
    litellm: Any = loaded()
    mine = _ending()
    for key in closed - kept:
        if key.endswith(mine):
            try:
                litellm.in_memory_llm_clients_cache.delete_cache(key)
            except Exception:
                pass
    for _ in range(3 if closed else 0):  # the loop reports a closed socket a turn or two later
        await asyncio.sleep(0)


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
            if getattr(owner, "_owns_session", False) and _of_loop(session, loop):
                yield key, owner, _Session(session)
            continue
        if getattr(owner, "_owns_client", True) is False:
            continue
        client = _httpx(owner)
        if client is None or client is supplied:
            continue
        for transport in _parts(client):
            session = getattr(transport, "client", None)
            if session is not None:  # LiteLLM's transport on aiohttp; a factory before first use
                if getattr(transport, "_owns_session", False) and _of_loop(session, loop):
                    yield key, owner, transport
            elif getattr(transport, "_pool", None) is not None and key.endswith(mine):
                yield key, owner, transport


def is_kept(owner: Any) -> bool:
    """Whether somebody keeps an SDK client for other calls: LiteLLM's cache, or the user."""
    litellm: Any = loaded()
    if _httpx(owner) is vars(litellm).get("aclient_session"):
        return True
    cached = list(litellm.in_memory_llm_clients_cache.cache_dict.values())  # other threads add some
    return any(owner is kept for kept in cached)


def is_idle(owner: Any) -> bool:
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
