"""``Sealer``: makes the manifests of the segments that a writer seals, in the background.

Owns a thread that is there while there is a segment to read.  Nothing waits for it but a close, and
that only for what is read in a moment; nothing depends on it.  A manifest that could not be made is
left to ``litellm-ledger seal``.
"""

from __future__ import annotations

import _thread
import logging
import time
from collections import deque
from pathlib import Path
from typing import Final

from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._storage.filesystem import FileSystem

__all__ = ["Sealer"]

_log = logging.getLogger("litellm_ledger")

_RESTS: Final = 9
"""How many times as long as it works the thread sleeps …"""
_LONGEST_REST: Final = 0.05
"""… and the longest sleep in seconds, on a machine that does not let it work."""
_QUICK: Final = 16 * 2**20
"""Bytes of segments for whose manifests a close waits: some 150 ms."""


class Sealer:
    """The manifests of one writer, in the order in which its segments were sealed.

    Safe in a finalizer and in a signal handler, as ``LastResort`` is, and for the same reason
    without ``threading``.

    Args:
        fs: where all writing goes through.
        directory: the ledger.
    """

    def __init__(self, fs: FileSystem, directory: Path) -> None:
        self._fs = fs
        self._directory = directory
        self._waiting: deque[tuple[SegmentName, int]] = deque()
        self._running = _thread.allocate_lock()
        self._thread = 0
        self._stopped = False
        self._hurry = False
        self._woke = 0.0
        self._last: tuple[str | None, str] = None, ""

    def add(self, name: SegmentName, size: int) -> None:
        """Have the manifest of a sealed segment made.  Never blocks."""
        self._waiting.append((name, size))
        self._begin()

    def finish(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for the manifests of small segments; give up the rest."""
        self._hurry = True
        quick = self._left() <= _QUICK and self._thread != _thread.get_ident()
        if quick and self._begin() and self._running.acquire(True, max(0.0, timeout)):
            self._running.release()
        self._stopped = True

    def _left(self) -> int:
        return sum(size for _, size in list(self._waiting))

    def _begin(self) -> bool:
        """Start the thread unless it runs; tell whether it does, or there is nothing to do."""
        if not self._waiting or self._stopped or not self._running.acquire(False):
            return True
        try:
            _thread.start_new_thread(self._work, ())
        except RuntimeError:
            self._running.release()
            return False
        return True

    def _work(self) -> None:
        """Work off what waits, holding ``_running``."""
        self._thread = _thread.get_ident()
        try:
            while self._waiting and not self._stopped:
                name, _ = self._waiting[0]
                try:
                    self._make(name)
                except Exception as exc:  # noqa: BLE001 - nothing of a manifest may harm the ledger
                    _log.debug("no manifest of %s: %s", name, exc)
                self._waiting.popleft()
        finally:
            self._thread = 0
            self._running.release()
        self._begin()  # for what was added while we were leaving

    def _make(self, name: SegmentName) -> None:
        from litellm_ledger._storage.contents import make, write  # not before it is needed

        self._woke = time.perf_counter()
        previous, after = self._last
        path = self._directory / SEGMENTS / str(name)
        manifest = make(path, name, previous=previous, after=after, breathe=self._breathe)
        self._last = write(self._fs, self._directory, manifest)

    def _breathe(self) -> None:
        """Let others run: the interpreter would make them wait 5 ms each time.

        Reading lines takes longer than recording them.  So that a burst of records is hardly slower
        for it, this thread takes a tenth of the time, unless a close waits for it.
        """
        if self._stopped:
            raise InterruptedError("the writer was closed")
        worked = time.perf_counter() - self._woke
        time.sleep(0 if self._hurry else min(_RESTS * worked, _LONGEST_REST))
        self._woke = time.perf_counter()
