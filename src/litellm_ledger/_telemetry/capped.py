"""Values of an attribute, at most a number of different ones: each makes a time series.

Owns that number.  Pure.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Capped"]

OTHER: Final = "(other)"
_LONGEST: Final = 128


class Capped:
    """Values seen first are kept; what comes after the last place is ``(other)``.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return the value that stands for one."""
        value = value[:_LONGEST]
        if value not in self._seen:
            if len(self._seen) >= self._most:
                return OTHER
            self._seen.add(value)
        return value
