"""The processes that answer: requests on their standard input, answers on their output.

Owns the frames (a length in four bytes, then JSON) and both ends of the pipes.  The process ends
with its parent, however that ends.  Where there is no Python to start (a frozen program), threads
of this process do the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final
from zlib import crc32

import msgspec

from litellm_ledger._reading.elsewhere import Place
from litellm_ledger._records.layout import SEGMENTS
from litellm_ledger._reports.places import place_of

from .feed import Feed, News
from .service import Asked, Reply, Service, complaint

__all__ = ["Workers"]

_THREADS: Final = 32
"""Most of them wait, for columns or for each other."""
_HEAD: Final = struct.Struct("!IQ")
_FEED: Final = 2**64 - 1
"""Stands in place of a request's number in frames about the feed."""
_NICE: Final = 5
_LARGE: Final = 256 * 2**20
"""Bytes of segments for which two processes answer, where there are two cores."""
_GARBAGE: Final = 20_000
"""Objects after which cycles are looked for: a page makes thousands, hardly any in one."""


def _put(to: IO[bytes], number: int, data: bytes) -> None:
    to.write(_HEAD.pack(len(data), number) + data)
    to.flush()


def _take(source: IO[bytes]) -> tuple[int, bytes] | None:
    head = source.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    size, number = _HEAD.unpack(head)
    data = source.read(size)
    return (number, data) if len(data) == size else None


class Workers:
    """Answers requests off the loop: in a process that is started with the first one.

    Safe for several loops, and after a fork: each process has its own.

    Args:
        ledger: its directory or URL.
        process: whether to use a process.
        hear: called with the news of the feed, on a thread; only while ``listen(True)``.
    """

    def __init__(self, ledger: str, *, process: bool, hear: Callable[[News], None]) -> None:
        self._ledger = ledger
        self._process = process and _is_python()
        self._hear = hear
        self._lock = threading.Lock()
        self._pid = 0
        self._running: _Processes | _Here | None = None
        self._listening = False
        self._waiting: dict[bytes, list[Callable[[Reply], None]]] = {}

    async def ask(self, asked: Asked) -> Reply:
        """Return the answer; an error of status 503 if the process dies meanwhile.

        A cancelled one is answered all the same, to nobody.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()

        def done(reply: Reply) -> None:
            def put() -> None:
                if not future.done():
                    future.set_result(reply)

            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(put)

        key = msgspec.json.encode(asked)
        with self._lock:
            waiting = self._waiting.get(key)
            if waiting is not None:  # asked already: one answer for all
                waiting.append(done)
            else:
                self._waiting[key] = [done]
        if waiting is None:

            def send() -> None:
                self._there().send(asked, lambda reply: self._done(key, reply))

            if self._starts():
                await asyncio.shield(loop.run_in_executor(None, send))
            else:
                send()
        return await future

    def _done(self, key: bytes, reply: Reply) -> None:
        with self._lock:
            waiting = self._waiting.pop(key, [])
        for done in waiting:
            done(reply)

    def listen(self, wanted: bool) -> None:
        """Begin or end the feed of what is new."""
        with self._lock:
            self._listening = wanted
        if wanted or not self._starts():
            self._there().listen(wanted)

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.close()

    def _starts(self) -> bool:
        running = self._running
        return running is None or self._pid != os.getpid() or not running.alive

    def _there(self) -> _Processes | _Here:
        with self._lock:
            if self._starts():
                mine = self._running if self._pid == os.getpid() else None
                if self._pid != os.getpid():  # a fork: nobody will answer the parent's questions
                    self._waiting = {key: self._waiting[key] for key in [*self._waiting][-1:]}
                if isinstance(mine, _Processes):
                    mine.mend()
                else:
                    kind = _Processes if self._process else _Here
                    self._running = kind(self._ledger, self._hear)
                    self._pid = os.getpid()
                if self._listening and self._running is not None:
                    self._running.listen(True)
            assert self._running is not None
            return self._running


class _Here:
    """Threads of this process."""

    def __init__(self, ledger: str, hear: Callable[[News], None]) -> None:
        place = place_of(ledger)
        self._service = Service(place)
        self._feed = Feed(place, hear)
        self._pool = ThreadPoolExecutor(_THREADS, "litellm-ledger-dashboard")
        self.alive = True

    def send(self, asked: Asked, done: Callable[[Reply], None]) -> None:
        self._pool.submit(lambda: done(_answered(self._service, asked)))

    def listen(self, wanted: bool) -> None:
        self._feed.run(wanted)

    def close(self) -> None:
        self.alive = False
        self._feed.run(False)
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Processes:
    """One process, or two for a large ledger: half of the viewers ask the one, half the other.

    The questions of one viewer go to the same one, which keeps what they have in common.
    """

    def __init__(self, ledger: str, hear: Callable[[News], None]) -> None:
        self._ledger = ledger
        self._hear = hear
        self._each = [self._begun(at) for at in range(_wanted(place_of(ledger)))]

    def _begun(self, at: int) -> _Process:
        return _Process(self._ledger, self._hear if at == 0 else lambda _: None)

    @property
    def alive(self) -> bool:
        return all(one.alive for one in self._each)

    def mend(self) -> None:
        """Begin a process in place of each that has ended."""
        for at, one in enumerate(self._each):
            if not one.alive:
                self._each[at] = self._begun(at)

    def send(self, asked: Asked, done: Callable[[Reply], None]) -> None:
        whose = asked.what if asked.scope is None else asked.scope
        self._each[crc32(msgspec.json.encode(whose)) % len(self._each)].send(asked, done)

    def listen(self, wanted: bool) -> None:
        self._each[0].listen(wanted)

    def close(self) -> None:
        for one in self._each:
            one.close()


def _wanted(place: Place) -> int:
    """Return how many processes are worth it."""
    size = 0
    if not isinstance(place, Path):
        return 1
    with contextlib.suppress(OSError), os.scandir(place / SEGMENTS) as files:
        size = sum(file.stat(follow_symlinks=False).st_size for file in files)
    return 2 if size > _LARGE and (os.cpu_count() or 1) > 1 else 1


class _Process:
    """A process of our own; its answers are read on a thread."""

    def __init__(self, ledger: str, hear: Callable[[News], None]) -> None:
        self._hear = hear
        self._waiting: dict[int, Callable[[Reply], None]] = {}
        self._lock = threading.Lock()
        self._number = 0
        self.alive = True
        self._child = subprocess.Popen(
            # -P: a module in the working directory is none of ours
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(
            target=self._read, name="litellm-ledger-dashboard", daemon=True
        )
        self._reader.start()
        self._write(0, os.fsencode(ledger))  # a URL is for no list of processes

    def send(self, asked: Asked, done: Callable[[Reply], None]) -> None:
        with self._lock:
            self._number += 1
            number = self._number
            self._waiting[number] = done
        self._write(number, msgspec.json.encode(asked))

    def listen(self, wanted: bool) -> None:
        self._write(_FEED, b"1" if wanted else b"0")

    def _write(self, number: int, data: bytes) -> None:
        assert self._child.stdin is not None
        try:
            with self._lock:
                _put(self._child.stdin, number, data)
        except (OSError, ValueError):
            self._fail()

    def _read(self) -> None:
        assert self._child.stdout is not None
        with contextlib.suppress(OSError, ValueError, msgspec.DecodeError):
            while (frame := _take(self._child.stdout)) is not None:
                number, data = frame
                if number == _FEED:
                    self._hear(msgspec.msgpack.decode(data, type=News))
                    continue
                with self._lock:
                    done = self._waiting.pop(number, None)
                if done is not None:
                    done(msgspec.msgpack.decode(data, type=Reply))
        self._fail()
        self._child.wait()
        with self._lock, contextlib.suppress(OSError):
            assert self._child.stdin is not None
            self._child.stdin.close()
        self._child.stdout.close()

    def _fail(self) -> None:
        self.alive = False
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done(complaint(503, "restarting", "the process that answers has ended; try again"))

    def close(self) -> None:
        self.alive = False
        with contextlib.suppress(OSError, ValueError):
            assert self._child.stdin is not None
            self._child.stdin.close()
        try:
            self._child.wait(2)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._reader.join(2)
        assert self._child.stdout is not None
        self._child.stdout.close()


def _answered(service: Service, asked: Asked) -> Reply:
    try:
        return service(asked)
    except Exception:  # noqa: BLE001 - logged by the service; somebody waits for an answer
        return complaint(500, "failed", "no answer; the log says why")


def _is_python() -> bool:
    """Whether the program that runs us would run a module: a frozen one or a server would not."""
    return Path(sys.executable or "").name.startswith("python") and not hasattr(sys, "frozen")


def _main() -> None:
    """Be that process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent ends us
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICE)  # the application comes first
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not print between answers
    lock = threading.Lock()

    def put(number: int, value: Any) -> None:
        with lock, contextlib.suppress(OSError):
            _put(out, number, msgspec.msgpack.encode(value))

    gc.freeze()
    gc.set_threshold(_GARBAGE)
    first = _take(sys.stdin.buffer)
    if first is None:
        return
    place = place_of(os.fsdecode(first[1]))
    service = Service(place, process=True)
    feed = Feed(place, lambda news: put(_FEED, news))
    pool = ThreadPoolExecutor(_THREADS)

    def serve(number: int, data: bytes) -> None:
        put(number, _answered(service, msgspec.json.decode(data, type=Asked)))

    while (frame := _take(sys.stdin.buffer)) is not None:
        if frame[0] == _FEED:
            feed.run(frame[1] == b"1")
        else:
            pool.submit(serve, *frame)
    os._exit(0)  # nobody reads what is still being answered


if __name__ == "__main__":
    _main()
