"""``BudgetsFile``: a ``budgets.toml`` that is read again when it changes.

Owns when a change counts, and that a file that cannot be used changes nothing.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final

from litellm_ledger._records.escaping import escaped
from litellm_ledger._storage.named_file import open_named, text_of

from .budget import Budget
from .definitions import budgets_of_toml

__all__ = ["BudgetsFile", "read_budgets"]

_log = logging.getLogger("litellm_ledger")

_EVERY: Final = 1.0
"""Seconds between looks at the file."""
_AT_REST: Final = 2.0
"""Seconds since its last change after which a file is taken at once."""
_MOST: Final = 2**20
"""Bytes: a larger file is a mistake."""

_Signature = tuple[int, int, int, int]


def read_budgets(path: Path) -> tuple[Budget, ...]:
    """Read a ``budgets.toml``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file of budgets; the text names it and says what is wrong.
    """
    return _read(path)[0]


class BudgetsFile:
    """A file of budgets, as of its last version that could be used.

    ``is_due`` costs a look at the clock, for every call.  ``look`` reads, and is for a thread.  A
    change counts when the file has not changed for two seconds, or for two looks: who writes it in
    place, and slowly, does not make half of it count.

    Attributes:
        path: absolute.
        budgets: the last ones that could be used.

    Raises:
        OSError, ValueError: as ``read_budgets``: nothing begins without its budgets.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.budgets, self._taken = _read(self.path)
        self._seen: _Signature | None = self._taken
        self._refused: str | None = None
        self._next = time.monotonic() + _EVERY

    def is_due(self) -> bool:
        """Tell whether it is time to ``look``; then it is not for another second."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _EVERY
        return True

    def look(self) -> bool:
        """Read the file if it changed; tell whether ``budgets`` are others now.

        Never raises: a file that is gone or cannot be used leaves the budgets as they are, with one
        warning in the log for each version of it.
        """
        try:
            status = self.path.stat()
            seen = _signature(status)
            rests = seen == self._seen or time.time() - status.st_mtime > _AT_REST
            self._seen = seen
            if seen == self._taken or not rests:
                return False
            budgets, self._taken = _read(self.path)
        except (OSError, ValueError) as exc:
            self._refuse(exc)
            return False
        self._refused = None
        changed = budgets != self.budgets
        self.budgets = budgets
        if changed:
            _log.info("%s: %d budgets apply from now on", self.path, len(budgets))
        return changed

    def _refuse(self, exc: Exception) -> None:
        if isinstance(exc, ValueError):
            self._taken = self._seen or self._taken  # not again before it changes
        why = str(exc)
        if why != self._refused:
            self._refused = why
            _log.warning("%s; the budgets from before stay in force", escaped(why))


def _read(path: Path) -> tuple[tuple[Budget, ...], _Signature]:
    with open_named(path, "file of budgets", "give a budgets.toml") as file:
        seen = _signature(os.fstat(file.fileno()))
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise ValueError(f"{path} is larger than a megabyte, so it is no file of budgets")
    try:
        return budgets_of_toml(text_of(data)), seen
    except ValueError as exc:
        raise ValueError(f"{path} cannot be used: {exc}") from None


def _signature(status: os.stat_result) -> _Signature:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
