"""How much a section does: all of it, or just enough to see that it still runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Size"]

T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """``size(100_000, 500)`` is the first for figures and the second with ``--quick``."""

    quick: bool = False

    def __call__(self, full: T, quick: T) -> T:
        return quick if self.quick else full
