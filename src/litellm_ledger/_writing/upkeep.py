"""``Upkeep``: the retention rule of a writer, applied in the background.

Owns a thread of low priority that is there while it looks: after the ledger was opened, and after
a segment was sealed.  Nothing waits for it, no call and no close; killed at any step, the next one
ends what it began.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from litellm_ledger._storage.filesystem import FileSystem

if TYPE_CHECKING:
    from litellm_ledger._maintenance.retention import Retention

__all__ = ["Upkeep"]

_log = logging.getLogger("litellm_ledger")

_LOWEST: Final = 19
_RESTS: Final = 4
"""How many times as long as it works the thread sleeps, and at most for how long."""
_LONGEST_REST: Final = 0.05


class Upkeep:
    """Removes what is past its time.

    Args:
        fs: where all writing goes through.
        directory: the ledger.
        rule: what may be removed.

    Attributes:
        error: why the last look failed; ``None``: it did not.
        looked: released once for each look that has ended.
    """

    def __init__(self, fs: FileSystem, directory: Path, rule: Retention) -> None:
        self._fs = fs
        self._directory = directory
        self._rule = rule
        self._running = threading.Lock()
        self._again = False
        self._stopped = False
        self._woke = 0.0
        self.error: str | None = None
        self.looked = threading.Semaphore(0)

    def begin(self) -> None:
        """Have a look, or another one after that which is under way.  Never blocks or raises."""
        self._again = True
        if self._stopped or not self._running.acquire(blocking=False):
            return
        try:
            threading.Thread(
                target=self._work, name="litellm-ledger-retention", daemon=True
            ).start()
        except RuntimeError:  # no thread to be had, as at the interpreter's exit
            self._running.release()

    def stop(self) -> None:
        """End the look that is under way before its next step, and have no other."""
        self._stopped = True

    def _work(self) -> None:
        if hasattr(os, "setpriority"):
            with contextlib.suppress(OSError):  # of this thread alone, on Linux
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
        try:
            while self._again and not self._stopped:
                self._again = False
                self._look()
        finally:
            self._running.release()

    def _look(self) -> None:
        from litellm_ledger._budgets.needs import counted_since
        from litellm_ledger._maintenance.one_run import Busy  # these only where they are needed
        from litellm_ledger._maintenance.prune import prune

        self._woke = time.perf_counter()
        try:
            done = prune(
                self._directory,
                self._rule,
                who=f"process {os.getpid()}",
                why=f"retention: {self._rule}",
                counted_since=counted_since,
                breathe=self._breathe,
                fs=self._fs,
            )
        except (Busy, InterruptedError):
            pass  # another process does it, or the writer was closed
        except Exception as exc:  # noqa: BLE001 - nothing of this may harm the ledger or a call
            self._fail(str(exc) or type(exc).__name__)
        else:
            left = done.left[0] if done.left else None
            if left is not None:
                self._fail(f"{left.file} is past its time and stays: {left.detail}")
            else:
                self.error = None
        self.looked.release()

    def _fail(self, why: str) -> None:
        if why != self.error:  # once, and not at each look
            _log.warning("retention of the ledger %s: %s", self._directory, why)
        self.error = why

    def _breathe(self) -> None:
        """Let others run: this thread takes a fifth of the time."""
        if self._stopped:
            raise InterruptedError("the writer was closed")
        worked = time.perf_counter() - self._woke
        time.sleep(min(_RESTS * worked, _LONGEST_REST))
        self._woke = time.perf_counter()
