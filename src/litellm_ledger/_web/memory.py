"""``Memory``: what questions over chunks have found out, for the next ones.

Owns groups, conditions and periods that were worked out, whose values only ever grow, and the
outcomes that viewers may see who see few.  Pure.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from operator import is_
from typing import Any, Final

import numpy as np

from litellm_ledger._aggregates.groups import key_of
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._records.record import KEYS, Fields

from .blocks import Array
from .chunks import Chunk, joined
from .sums import Question

__all__ = ["NARROWED", "Memory", "Run"]

_ASKED: Final = 256
NARROWED: Final = 64 * 2**20
"""Bytes of the outcomes that are kept for viewers who see a part of them."""
_TOGETHER: Final = 2**18

Run = tuple[int, int, tuple[int, ...] | None]
"""From which quarter to which, and the numbers of the periods; ``None``: they are in several."""


class Memory:
    """What questions have found out about keys and periods; the values of keys only ever grow."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], tuple[Array, list[tuple[Any, ...]]]] = {}
        self._wanted: dict[Any, Array] = {}
        self._runs: dict[Any, list[Run]] = {}
        self._lock = threading.Lock()
        self._narrow: OrderedDict[Any, _Narrowed] = OrderedDict()
        self._size = 0

    def groups(
        self, keys: tuple[str, ...], known: Sequence[tuple[Any, ...]]
    ) -> tuple[Array, list[tuple[Any, ...]]]:
        """Return the groups by some keys, and which of them each combination of ``KEYS`` is in."""
        there = self._groups.get(keys)
        if there is None or len(there[0]) < len(known):
            of = [key_of(key) for key in keys]
            codes: dict[tuple[Any, ...], int] = {}
            found = []
            for one in map(_outcome, known):
                group = (one.status, one.usage_source, *[key(one) for key in of])
                found.append(codes.setdefault(group, len(codes)))
            there = np.array(found, np.int64), [*codes]
            _keep(self._groups, keys, there)
        return there

    def wanted(self, conditions: Any, known: Sequence[tuple[Any, ...]]) -> Array:
        """Return which combinations of ``KEYS`` meet conditions."""
        there = self._wanted.get(conditions)
        if there is None or len(there) < len(known):
            where, where_not = conditions
            selection = Selection(where=dict(where), where_not=dict(where_not))
            there = np.array([selection.fits(_outcome(one)) for one in known], bool)
            _keep(self._wanted, conditions, there)
        return there

    def runs(self, question: Question, key: Any, first: int, last: int) -> list[Run]:
        """Part quarters so that each part is in one period."""
        first, last = first - first % 96, last - last % 96 + 95
        there = self._runs.get((key, first, last))
        if there is None:
            there = []
            for run in _runs(question, first, last):
                if there and run[2] is not None and run[2] == there[-1][2]:
                    there[-1] = there[-1][0], run[1], run[2]
                else:
                    there.append(run)
            _keep(self._runs, (key, first, last), there)
        return there

    def narrowed(
        self,
        chunks: Sequence[Chunk],
        conditions: Any,
        narrow: Callable[[Chunk], Chunk | None],
    ) -> Sequence[Chunk]:
        """Return chunks of the outcomes that meet conditions on tags, if these are few.

        They are kept for the next question of the same viewer.

        Args:
            chunks: of everything.
            conditions: what chunks are kept by.
            narrow: returns such a chunk; ``None``: most of it is wanted.
        """
        if not any(conditions):
            return chunks
        with self._lock:
            known = self._narrow.pop(conditions, None) or _Narrowed()
            self._narrow[conditions] = known
        with known.lock:
            found = known.of(chunks, narrow)
            with self._lock:
                if self._narrow.get(conditions) is known:
                    self._size += known.size - known.counted
                    known.counted = known.size
                    while self._size > NARROWED and len(self._narrow) > 1:
                        _, gone = self._narrow.popitem(last=False)
                        self._size -= gone.counted
            return found

    def forget(self) -> None:
        """Let go of the outcomes that are kept."""
        with self._lock:
            self._narrow.clear()
            self._size = 0


class _Narrowed:
    """The outcomes that one viewer may see: of each chunk, and those of several as one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size = self.counted = 0
        self._of: dict[int, tuple[Chunk, Chunk | None]] = {}
        self._chunks: tuple[Chunk, ...] = ()
        self._found: tuple[Chunk, ...] = ()

    def of(
        self, chunks: Sequence[Chunk], narrow: Callable[[Chunk], Chunk | None]
    ) -> Sequence[Chunk]:
        if len(chunks) == len(self._chunks) and all(map(is_, chunks, self._chunks)):
            return self._found
        known = self._of
        self._of = {}
        for one in chunks:
            there = known.get(id(one))
            self._of[id(one)] = (
                there if there is not None and there[0] is one else (one, narrow(one))
            )
        few = [some for _, some in self._of.values() if some is not None]
        whole = [one for one, some in self._of.values() if some is None]
        together: list[Chunk] = []
        while few:
            rows = [*accumulate(some.rows for some in few)]
            count = max(1, bisect_right(rows, _TOGETHER))
            tags = {tag: () for some in few[:count] for tag in some.tags}
            together.append(joined(few[:count], tags))
            few = few[count:]
        self._chunks, self._found = tuple(chunks), (*together, *whole)
        self.size = 2 * sum(one.size for one in together)
        return self._found


def _keep(into: dict[Any, Any], key: Any, value: Any) -> None:
    if len(into) >= _ASKED:
        into.clear()
    into[key] = value


def _outcome(values: Sequence[Any]) -> Fields:
    return Fields(**dict(zip(KEYS, values, strict=True)))


def _runs(question: Question, first: int, last: int) -> Iterator[Run]:
    number, after = question.number(first), question.number(last)
    if (number is not None and number == after) or first == last:
        yield first, last, number
        return
    middle = (first + last) // 2
    yield from _runs(question, first, middle)
    yield from _runs(question, middle + 1, last)
