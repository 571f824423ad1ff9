"""``verify`` on demand: in a process of its own, with progress, one at a time.

Owns that process (it ends when nobody waits for it any more), and how it tells of its progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from litellm_ledger._errors import LedgerError
from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._reports.places import place_of
from litellm_ledger._runtime.signals import server_is_ending

if TYPE_CHECKING:
    from litellm_ledger._reading.verdict import Verification

__all__ = ["Verifier", "progress_page"]

_LOOK: Final = 0.5
_MOST: Final = 100


class Verifier:
    """Verifies one ledger, one run at a time.

    Args:
        ledger: its directory or URL.
    """

    def __init__(self, ledger: str) -> None:
        self._ledger = ledger
        self._busy = False

    async def run(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield what happens: ``done`` and ``total`` in bytes, at last ``result`` or ``error``."""
        if self._busy:
            yield {"error": "a verification runs already; wait for its end"}
            return
        self._busy = True
        child = None
        try:
            child = await asyncio.to_thread(_start, self._ledger)
            assert child.stdout is not None
            reading: asyncio.Future[bytes] | None = None
            while not server_is_ending():
                reading = reading or asyncio.ensure_future(asyncio.to_thread(child.stdout.readline))
                done, _ = await asyncio.wait({reading}, timeout=_LOOK)
                if not done:
                    continue
                line, reading = reading.result(), None
                if not line:
                    break
                yield msgspec.json.decode(line)
        finally:
            self._busy = False
            if child is not None:
                child.kill()
                await asyncio.shield(asyncio.to_thread(_end, child))

    async def events(self) -> AsyncIterator[bytes]:
        """Yield the same as server-sent events."""
        async with contextlib.aclosing(self.run()) as told:
            async for one in told:
                yield b"event: %b\ndata: %b\n\n" % (_kind(one).encode(), msgspec.json.encode(one))


def _kind(one: dict[str, Any]) -> str:
    return next((name for name in ("result", "error") if name in one), "progress")


async def progress_page(verifier: Verifier, *, up: str) -> AsyncIterator[bytes]:
    """Yield a page that grows with the progress, for browsers without JavaScript too."""
    from .pages import verification

    start, row, end = verification(up)
    yield start.encode()
    shown = -1
    async with contextlib.aclosing(verifier.run()) as told:
        async for one in told:
            percent = int(100 * one["done"] / max(1, one["total"])) if "done" in one else 101
            if percent // 5 != shown:
                shown = percent // 5
                yield row(one).encode()
    yield end.encode()


def _start(ledger: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    with contextlib.suppress(OSError), child.stdin as told:
        told.write(os.fsencode(ledger))  # a URL is for no list of processes
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def _put(one: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(one) + b"\n")
    sys.stdout.buffer.flush()


def _verified(root: Path) -> Verification:
    """Verify a directory, and tell how far it is."""
    from litellm_ledger._reading.listing import list_segments
    from litellm_ledger._reading.verify import verify

    lock = threading.Lock()

    def size(name: SegmentName) -> int:
        with contextlib.suppress(OSError):
            return (root / SEGMENTS / str(name)).lstat().st_size
        return 0

    sizes = {name: size(name) for name in list_segments(root)}
    total, done = sum(sizes.values()), 0
    _put({"done": 0, "total": total})

    def advance(name: SegmentName) -> None:
        nonlocal done
        with lock:
            done += sizes.get(name, 0)
            _put({"done": done, "total": total})

    return verify(root, advance=advance)


def _main() -> None:
    """Be that process."""
    place = place_of(os.fsdecode(sys.stdin.buffer.read()))
    try:
        found = _verified(place) if isinstance(place, Path) else place.verify()
    except LedgerError as exc:
        _put({"error": str(exc)})
        return
    writers = [one for one in found.writers if not one.unremarkable]
    problems = [*found.archive, *found.adjustments]
    _put(
        {
            "result": {
                "ok": found.ok,
                "complete": found.complete,
                "records": found.total("found"),
                "lost": found.total("lost"),
                "writers": len(found.writers),
                "sentences": [
                    *(f"{one.writer}: {one.sentence()}" for one in writers[:_MOST]),
                    *(f"{one.file}: {one.detail}" for one in problems[:_MOST]),
                ],
                "cannot_prove": found.cannot_prove(),
            }
        }
    )


if __name__ == "__main__":
    _main()
