"""Server-sent events: calls as they end, to everybody who watches and may see them.

Owns the subscribers of one application, their queues, and the text of an event.  A reader that is
too slow is cut off, and goes on by ``Last-Event-ID`` where it stopped.  Ends when the server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Final

import msgspec

from litellm_ledger._runtime.signals import server_is_ending

from .feed import News
from .service import Asked, Reply
from .viewer import Scope, sees

__all__ = ["Broadcast", "stream"]

_LONGEST: Final = 1_000
"""Looks' worth of news that a reader may be behind."""
_LOOK: Final = 0.5
"""Seconds after which it is looked whether the server ends."""
_BEAT: Final = 20
"""Looks between two comments that keep a connection open."""
_RETRY: Final = b"retry: 2000\n\n"


class _Reader:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[News | None] = asyncio.Queue()

    def put(self, news: News | None) -> None:
        """Hand news over from any thread; one that is too slow gets an end instead."""

        def there() -> None:
            if self.queue.qsize() < _LONGEST:
                self.queue.put_nowait(news)
            elif self.queue.qsize() == _LONGEST:
                self.queue.put_nowait(None)

        with contextlib.suppress(RuntimeError):  # its loop is closed
            self.loop.call_soon_threadsafe(there)


class Broadcast:
    """Those who watch; the first one begins the feed, the last one ends it.

    Attributes:
        listen: begins or ends the feed.
    """

    def __init__(self) -> None:
        self.listen: Callable[[bool], None] = lambda _: None
        self._readers: set[_Reader] = set()
        self._lock = threading.Lock()
        self._at = ""

    def hear(self, news: News) -> None:
        """Pass news on."""
        with self._lock:
            readers = [*self._readers]
            self._at = news.at
        for reader in readers:
            reader.put(news)

    def close(self) -> None:
        """Send everybody away."""
        with self._lock:
            readers = [*self._readers]
        for reader in readers:
            reader.put(None)

    @contextlib.asynccontextmanager
    async def reader(self) -> AsyncIterator[tuple[_Reader, str]]:
        """Be among them; yields where the feed is now, too."""
        reader = _Reader()
        with self._lock:
            first = not self._readers
            self._readers.add(reader)
            at = "" if first else self._at
        try:
            if first:
                await asyncio.to_thread(self.listen, True)
            yield reader, at
        finally:
            with self._lock:
                self._readers.discard(reader)
                last = not self._readers
            if last:
                self.listen(False)


async def stream(
    broadcast: Broadcast,
    ask: Callable[[Asked], Awaitable[Reply]],
    scope: Scope,
    since: str | None,
) -> AsyncIterator[bytes]:
    """Yield events until the reader leaves or the server ends.

    ``hello`` comes first, with the id to go on from.  Then ``call`` for each call that ended: its
    record.  ``missed`` says that there were more since ``Last-Event-ID`` than are sent.

    Args:
        broadcast: where the news comes from.
        ask: asks for what was missed.
        scope: what the viewer may see.
        since: ``Last-Event-ID``.
    """
    async with broadcast.reader() as (reader, at):
        yield _RETRY
        sent: set[str] = set()
        if since:
            for event in await _missed(ask, scope, since, sent):
                yield event
        if at:
            yield _event("hello", at, b"{}")
        quiet = 0
        while not server_is_ending():
            try:
                news = await asyncio.wait_for(reader.queue.get(), _LOOK)
            except TimeoutError:
                quiet += 1
                if quiet % _BEAT == 0:
                    yield b": still here\n\n"
                continue
            if news is None:
                return
            for event in _told(news, scope, sent):
                yield event


async def _missed(
    ask: Callable[[Asked], Awaitable[Reply]], scope: Scope, since: str, sent: set[str]
) -> list[bytes]:
    found = await ask(Asked(kind="missed", what="", given=[("id", since)], scope=scope))
    if found.status != 200:
        return []
    told = msgspec.json.decode(found.body)
    sent.update(call["id"] for _, call in told["calls"])
    events = [_event("call", key, msgspec.json.encode(call)) for key, call in told["calls"]]
    return [*events, _event("missed", told["at"], b"{}")] if told["more"] else events


def _told(news: News, scope: Scope, sent: set[str]) -> Iterator[bytes]:
    """Yield what the viewer may see of news, but what was sent already."""
    if not news.calls and news.at:
        yield _event("hello", news.at, b"{}")
    for tags, key, data in news.calls:
        known = sent and msgspec.json.decode(data, type=_Id).id in sent
        if not known and sees(scope, _Tagged(tags=tags)):
            yield _event("call", key, data)


class _Id(msgspec.Struct):
    id: str = ""


class _Tagged(SimpleNamespace):
    tags: dict[str, str]


def _event(name: str, key: str, data: bytes) -> bytes:
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), key.encode(), data)
