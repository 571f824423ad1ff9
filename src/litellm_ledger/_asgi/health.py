"""``UsageHealth``: whether this process records, for probes: queue, sync, failure, disk.

Owns what is healthy, and its answer in JSON.  Cheap: counters in memory, and the room on the disk
at most once in five seconds, on a thread, so that a disk that hangs holds nobody up.  Says nothing
that is not for everybody: no path, no name, no text of an error.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._records.layout import LIVE, writer_of_live
from litellm_ledger._runtime.disk_thread import DiskThread
from litellm_ledger._storage.live_file import is_locked, read_live
from litellm_ledger._tracking.tags import detached

from .protocol import Receive, Scope, Send

if TYPE_CHECKING:
    from litellm_ledger._client.client import LiteLLMClient
    from litellm_ledger._records.statistics import Statistics
    from litellm_ledger._tracking.tracker import UsageTracker

__all__ = ["UsageHealth"]

_FRESH: Final = 5.0
"""Seconds for which what the disk said is taken as true."""
_PATIENCE: Final = 1.0
"""Seconds that an answer waits for the disk: less than a probe waits for the answer."""
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")

Check = dict[str, Any]


class UsageHealth:
    """An ASGI endpoint that says whether usage is recorded: 200 if so, else 503.

        app = FastAPI(routes=[Route("/usage/health", UsageHealth())])

    The answer is JSON: ``{"ok": true, "checks": {...}}``, each check with ``ok`` and its figures.

    - ``writer``: its ``state``, and the calls ``in_flight``; ok while it is open.
    - ``queue``: records accepted and not yet written (``depth``, of ``size``) and calls ``waiting``
      for room; ok below ``max_queue``.
    - ``sync``: seconds since the oldest record was written that is not synced (``unsynced_s``), and
      their ``unsynced_bytes``; ok up to ``max_unsynced_s``.
    - ``failure``: the ``error`` that the disk gives at the moment, as ENOSPC and the like, and the
      ``retries`` so far; ok if there is none.
    - ``disk``: ``free_bytes``; ok from ``min_free_bytes``.

    Without a client, as where only the dashboard runs, ``writer`` and ``queue`` are of all writers
    of this machine in the ledger's directory, and ``sync`` and ``failure`` are left out.

    Args:
        client: a client or tracker; default: that of ``ledger_lifespan``.
        ledger: the directory, where there is no client.
        max_queue: the part of ``queue_size`` that may wait, 0 to 1.
        max_unsynced_s: seconds.
        min_free_bytes: on the ledger's disk.  On a full disk new calls wait.

    Raises:
        TypeError: both a client and a directory.
    """

    def __init__(
        self,
        client: LiteLLMClient | UsageTracker | None = None,
        *,
        ledger: str | os.PathLike[str] | None = None,
        max_queue: float = 0.9,
        max_unsynced_s: float = 30.0,
        min_free_bytes: int = 64 * 2**20,
    ) -> None:
        if client is not None and ledger is not None:
            raise TypeError("give UsageHealth() either a client or a directory, not both")
        self._client = client
        self._ledger = None if ledger is None else Path(ledger)
        self._max_queue = max_queue
        self._max_unsynced = max_unsynced_s
        self._min_free = min_free_bytes
        self._disk: dict[Path, _Disk] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI gives it
        """Answer one request; ``GET`` or ``HEAD``."""
        if scope["type"] != "http":
            raise TypeError(f"UsageHealth answers HTTP requests, not {scope['type']!r}")
        method = scope["method"]
        if method not in ("GET", "HEAD"):
            await _answer(send, 405, {"ok": False, "error": "use GET"}, b"", method)
            return
        found = await self.check(scope)
        await _answer(send, 200 if found["ok"] else 503, found, b"no-store", method)

    async def check(self, scope: Scope | None = None) -> dict[str, Any]:
        """Return what a request is answered; ``scope`` is where ``ledger_lifespan``'s client is."""
        client = self._client or _client_of(scope or {})
        if client is None and self._ledger is None:
            return _with_verdict({"writer": {"ok": False, "state": "none"}})
        if client is None:
            assert self._ledger is not None
            return _with_verdict(await self._at_rest(self._ledger))
        checks = self._recording(client.statistics())
        tracker: Any = getattr(client, "usage", client)
        directory = tracker.directory
        if directory is not None:
            checks["disk"] = await self._room(directory)
        return _with_verdict(checks)

    def _recording(self, now: Statistics) -> dict[str, Check]:
        depth, size = now.queue_depth, now.queue_size
        failing = now.failing
        return {
            "writer": {
                "ok": now.state == "open",
                "state": now.state,
                "in_flight": now.in_flight,
            },
            "queue": {
                "ok": depth <= self._max_queue * size and not now.waiting,
                "depth": depth,
                "size": size,
                "waiting": now.waiting,
            },
            "sync": {
                "ok": now.oldest_unsynced_s <= self._max_unsynced,
                "unsynced_s": round(now.oldest_unsynced_s, 3),
                "unsynced_bytes": now.unsynced_bytes,
            },
            "failure": {
                "ok": failing is None,
                "error": None if failing is None else _code(failing),
                "retries": now.retries,
            },
        }

    async def _at_rest(self, directory: Path) -> dict[str, Check]:
        disk = await self._look(directory)
        if disk.error is not None:
            return {"disk": self._of(disk)}
        return {
            "writer": {"ok": True, "state": "open" if disk.writers else "none", **disk.counts()},
            "queue": {"ok": True, "depth": disk.unwritten},
            "disk": self._of(disk),
        }

    async def _room(self, directory: Path) -> Check:
        return self._of(await self._look(directory))

    def _of(self, disk: _Disk) -> Check:
        if disk.error is not None:
            return {"ok": False, "error": disk.error}
        return {"ok": disk.free >= self._min_free, "free_bytes": disk.free}

    async def _look(self, directory: Path) -> _Disk:
        disk = self._disk.get(directory)
        if disk is None:
            disk = self._disk[directory] = _Disk(directory)
        await disk.look()
        return disk


class _Disk:
    """The disk of a ledger, as it was a moment ago."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._looking: asyncio.Future[None] | None = None
        self._at = float("-inf")
        self.error: str | None = None
        self.free = self.writers = self.unwritten = 0

    def counts(self) -> dict[str, int]:
        return {"writers": self.writers}

    async def look(self) -> None:
        """Look, unless that was done a moment ago; one look at a time, however long it takes."""
        if time.monotonic() - self._at < _FRESH:
            return
        looking = self._looking
        if (
            looking is None
            or looking.done()
            or looking.get_loop() is not asyncio.get_running_loop()
        ):
            thread = DiskThread("litellm-ledger-health")
            with detached():
                looking = self._looking = asyncio.ensure_future(self._on(thread))
        await asyncio.wait({looking}, timeout=_PATIENCE)
        if not looking.done():
            self.error = "ETIMEDOUT"

    async def _on(self, thread: DiskThread) -> None:
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(thread, _look, self._directory)
            self.free, self.writers, self.unwritten = found
            self.error = None
        except OSError as exc:
            self.error = errno.errorcode.get(exc.errno or 0, "EIO")
        finally:
            thread.shutdown(wait=False)
        self._at = time.monotonic()


def _look(directory: Path) -> tuple[int, int, int]:
    free = shutil.disk_usage(directory).free
    behind = list(_behind(directory / LIVE))
    return free, len(behind), sum(behind)


def _behind(live: Path) -> Iterator[int]:
    """For each writer of this machine that lives, the records that it has not written yet."""
    for path in live.iterdir() if live.is_dir() else ():
        if writer_of_live(path.name) is None:
            continue
        try:
            if is_locked(path):
                counters = read_live(path)
                yield max(0, counters.accepted - counters.written)
        except OSError:  # closed just now
            continue


def _client_of(scope: Scope) -> LiteLLMClient | None:
    """The client of ``ledger_lifespan``."""
    client = (scope.get("state") or {}).get("ledger_client")
    if client is None:
        client = getattr(getattr(scope.get("app"), "state", None), "ledger_client", None)
    return client


def _code(error: str) -> str:
    """The name of an error without its text, which may hold a path."""
    found = _ERRNO.search(error)
    return errno.errorcode.get(int(found[1]), "EIO") if found else "EIO"


def _with_verdict(checks: dict[str, Check]) -> dict[str, Any]:
    return {"ok": all(check["ok"] for check in checks.values()), "checks": checks}


async def _answer(
    send: Send, status: int, content: dict[str, Any], cache: bytes, method: str
) -> None:
    body = json.dumps(content).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *([(b"cache-control", cache)] if cache else [(b"allow", b"GET, HEAD")]),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
