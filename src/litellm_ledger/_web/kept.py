"""What is kept of each kind of question, and how much of it.

Owns the memory: it is bounded, and what was not asked for longest goes first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Final

from litellm_ledger._reading.lines import Problem
from litellm_ledger._records.layout import SegmentName

from .fixed import Fixed
from .state import State
from .sums import Growing, Shape, Sums

__all__ = ["LARGEST", "Kept", "Shelf"]

_MOST: Final = 2_000_000
"""Sums by group and quarter that are kept in all: about 200 MB."""
LARGEST: Final = 20_000
"""The same of one segment: beyond, it is left to the lines."""
_SHAPES: Final = 4_096
_GROUPS: Final = 200_000
"""Groups of questions whose sums are kept as a whole, in all: about 200 MB."""
_ANSWERS: Final = 16
"""Questions of one kind whose sums are kept as a whole."""


class Kept:
    """What is kept of one shape.

    Attributes:
        sealed: the sums of sealed segments, by the SHA-256 of each.
        empty: those of them in which is nothing.
        size: of ``sealed``.
        families: what the lines of a writer's segments come to, that no manifest tells.
        answers: the sums of whole questions; those that were asked last at the end.
        counted: its part in what ``Shelf`` bounds.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sealed: dict[SegmentName, tuple[str, Sums | None]] = {}
        self.empty: dict[SegmentName, str] = {}
        self.size = 0
        self.growing: dict[SegmentName, Growing] = {}
        self.families: dict[tuple[SegmentName, ...], tuple[Any, Sums | None, list[Problem]]] = {}
        self.answers: OrderedDict[Any, Fixed] = OrderedDict()
        self.counted = 0, 0

    def clear(self, *, answers: bool) -> None:
        """Drop what takes the memory; ``answers``: also the sums of whole questions."""
        self.sealed, self.size, self.growing, self.families = {}, 0, {}, {}
        if answers:
            self.answers.clear()

    def keep(self, name: SegmentName, sha256: str, sums: Sums | None) -> Sums | None:
        """Keep the sums of a sealed segment; too many are not worth it."""
        sums = None if sums is None or sums.size > LARGEST else sums.pack()
        self.drop(name)
        self.sealed[name] = sha256, sums
        self.size += 0 if sums is None else sums.size
        if sums is not None and not sums.size:
            self.empty[name] = sha256
        return sums

    def drop(self, name: SegmentName) -> None:
        """Drop the sums of a sealed segment."""
        _, sums = self.sealed.pop(name, ("", None))
        self.size -= sums.size if sums is not None else 0

    def answer(self, key: Any, fixed: Fixed) -> None:
        """Keep the sums of a whole question, as the one that was asked last."""
        if not fixed.is_large:
            self.answers[key] = fixed
        while len(self.answers) > _ANSWERS:
            self.answers.popitem(last=False)

    def held(self) -> int:
        """Return how many sums by group and quarter there are."""
        families = sum(sums.size for _, sums, _ in self.families.values() if sums is not None)
        return self.size + families + sum(one.sums.size for one in self.growing.values())

    def forget(self, state: State) -> None:
        """Drop the sums of segments that are gone."""
        there = set(state.ledger.segments)
        for name in set(self.sealed) - there:
            self.drop(name)
        for name in set(self.empty) - there:
            del self.empty[name]
        for name in set(self.growing) - there:
            del self.growing[name]
        known = {family.names for family in state.rest}
        for names in set(self.families) - known:
            del self.families[names]


class Shelf:
    """What is kept of all shapes, within bounds; safe for several threads."""

    def __init__(self) -> None:
        self.shapes: OrderedDict[Shape, Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._size = self._groups = 0

    def of(self, shape: Shape) -> Kept:
        """Return what is kept of a shape, which was asked for last now."""
        with self._lock:
            kept = self.shapes.pop(shape, None) or Kept()
            self.shapes[shape] = kept
            return kept

    def bound(self, kept: Kept) -> None:
        """Keep within bounds, after one of them, whose lock is held, has grown."""
        with self._lock:
            self._count(kept)
            if max(len(self.shapes) / _SHAPES, self._groups / _GROUPS, self._size / _MOST) <= 1:
                return
            for shape, other in [*self.shapes.items()]:
                many = len(self.shapes) > _SHAPES or self._groups > _GROUPS
                if not many and self._size <= _MOST:
                    break
                if other is not kept and other.lock.acquire(blocking=False):
                    try:
                        other.clear(answers=many)
                        self._count(other)
                        if many:
                            del self.shapes[shape]
                    finally:
                        other.lock.release()

    def _count(self, kept: Kept) -> None:
        size, groups = kept.held(), sum(fixed.size for fixed in kept.answers.values())
        self._size += size - kept.counted[0]
        self._groups += groups - kept.counted[1]
        kept.counted = size, groups
