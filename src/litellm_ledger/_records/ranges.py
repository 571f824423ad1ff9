"""``Spans``: a set of sequence numbers, kept as ranges.

Owns nothing but integers; a writer that lost nothing is one range, so the numbers of a ledger of
any size fit in a few bytes.  Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

__all__ = ["Spans"]


class Spans:
    """Disjoint ranges of whole numbers, both ends included, in ascending order."""

    __slots__ = ("_firsts", "_lasts", "count")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.count = 0
        """How many numbers are in the set."""

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._firsts, self._lasts, strict=True))

    @property
    def last(self) -> int:
        """The largest number, or 0 when the set is empty."""
        return self._lasts[-1] if self._lasts else 0

    def add(self, number: int) -> bool:
        """Add one number; return whether it is new.  O(1) for the next one up."""
        lasts = self._lasts
        if lasts and number == lasts[-1] + 1:
            lasts[-1] = number
            self.count += 1
            return True
        if number in self:
            return False
        self.add_range(number, number)
        return True

    def add_range(self, first: int, last: int) -> None:
        """Add every number from ``first`` to ``last``."""
        if last < first:
            return
        low = bisect_right(self._lasts, first - 2)  # ranges that touch are joined
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
            held = sum(
                b - a + 1
                for a, b in zip(self._firsts[low:high], self._lasts[low:high], strict=True)
            )
        else:
            held = 0
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]
        self.count += last - first + 1 - held

    def overlap(self, first: int, last: int) -> int:
        """Count the numbers from ``first`` to ``last`` that are in the set."""
        holes = sum(end - start + 1 for start, end in self.missing(first, last))
        return max(0, last - first + 1) - holes

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the ranges from ``first`` to ``last`` that are not in the set."""
        holes: list[tuple[int, int]] = []
        at = bisect_right(self._lasts, first - 1)
        while first <= last:
            if at == len(self._firsts) or self._firsts[at] > last:
                holes.append((first, last))
                break
            if self._firsts[at] > first:
                holes.append((first, self._firsts[at] - 1))
            first = self._lasts[at] + 1
            at += 1
        return holes
