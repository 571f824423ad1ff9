"""Progress of long work: on standard error, on a terminal only, removed when the work is done.

Owns when they appear: what takes less than half a second shows nothing.  Imports Rich only then.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from litellm_ledger._records.escaping import escaped

__all__ = ["progress", "working"]

_PATIENCE: Final = 0.5
"""Seconds before anything is shown."""


class _Shown:
    """A line of Rich's that a timer brings up."""

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.done = escaped(what), total, 0
        self._bar: Any = None
        self._task: Any = None
        self._lock = threading.Lock()
        self._over = False
        self._timer = threading.Timer(_PATIENCE, self._begin)
        self._timer.daemon = True
        self._timer.start()

    def _begin(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._over:
                return
            parts: list[Any] = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
            if self.total is not None:
                parts += [BarColumn(), TextColumn("{task.percentage:>3.0f}%")]
            self._bar = Progress(
                *parts,
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,  # what is exported there is not Rich's to print
                redirect_stderr=False,
            )
            self._task = self._bar.add_task(self.what, total=self.total, completed=self.done)
            self._bar.start()

    def advance(self, by: int) -> None:
        self.done += by
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)

    def end(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._bar is not None:
                self._bar.stop()


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar of ``total`` while the ``with`` runs; yields what is called with each advance."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    shown = _Shown(what, total)
    try:
        yield shown.advance
    finally:
        shown.end()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that work of unknown length is running."""
    with progress(what, None):
        yield
