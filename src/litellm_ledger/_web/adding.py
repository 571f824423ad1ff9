"""Whole columns added up by group: sums that are exact to the last digit, and what was measured.

Owns how numpy, which has no whole numbers of any size, does that.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from litellm_ledger._aggregates.quantiles import BUCKETS, LOWEST, PARTS, Sketch

from .blocks import Array, Column
from .chunks import Chunk, column

__all__ = ["DENSE", "Picked", "sketches", "summed"]

DENSE: Final = 2**17
"""Groups for which each has a place; beyond, only those that there are."""
_EXACT: Final = 2**53
"""Below, a float is every whole number."""
_HALF: Final = 26


class Picked(NamedTuple):
    """Some rows of a chunk; ``None``: all."""

    chunk: Chunk
    rows: Array | None

    @property
    def size(self) -> int:
        return self.chunk.rows if self.rows is None else len(self.rows)


def summed(groups: Array, places: int, picked: Sequence[Picked], name: str) -> Array | None:
    """Return the sums of a column by group, exactly; ``None``: 0 throughout."""
    each: list[Column] = [one.chunk.sums.get(name, 0) for one in picked]
    if all(isinstance(one, int) and one == 0 for one in each):
        return None
    pieces = [column(of, one.rows, one.size) for of, one in zip(each, picked, strict=True)]
    values = np.concatenate(pieces)
    most = max(abs(int(values.min())), abs(int(values.max())))
    if most * len(values) < _EXACT:
        return np.bincount(groups, values, places).astype(np.int64)
    values = values.astype(np.int64)
    if most * len(values) < 2**63 and ((most >> _HALF) + 1) * len(values) < _EXACT:
        high = np.bincount(groups, values >> _HALF, places).astype(np.int64)
        low = np.bincount(groups, values & ((1 << _HALF) - 1), places).astype(np.int64)
        return (high << _HALF) + low
    sums = np.zeros(places, object)  # whole numbers of any size
    np.add.at(sums, groups, values.astype(object))
    return sums


def sketches(groups: Array, picked: Sequence[Picked], name: str) -> Iterator[tuple[int, Sketch]]:
    """Yield what was measured, by group."""
    nothing = np.float32(np.nan)
    pieces = []
    for chunk, rows in picked:
        there = chunk.measured.get(name)
        count = chunk.rows if rows is None else len(rows)
        pieces.append(np.full(count, nothing) if there is None else column(there, rows, count))
    values = np.concatenate(pieces).astype(np.float64)
    known = ~np.isnan(values)
    if not known.any():
        return
    groups, values = groups[known], values[known]
    order = np.argsort(groups, kind="stable")
    groups, values = groups[order], values[order]
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    least, most = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    index = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(groups)]))
    cells, counts = _counted(index * BUCKETS + _buckets(values))
    of_cell, buckets = np.divmod(cells, BUCKETS)
    ends = np.searchsorted(of_cell, np.arange(len(starts) + 1))
    bucket_list, count_list = buckets.tolist(), counts.tolist()
    for at, group in enumerate(groups[starts].tolist()):
        span = slice(int(ends[at]), int(ends[at + 1]))
        lot = dict(zip(bucket_list[span], count_list[span], strict=True))
        yield group, Sketch(lot, float(least[at]), float(most[at]))


def _counted(numbers: Array) -> tuple[Array, Array]:
    """Return the different numbers, ascending, and how often each is there."""
    first = int(numbers.min())
    if int(numbers.max()) - first < max(DENSE, 2 * len(numbers)):
        counts = np.bincount(numbers - first)
        there = np.flatnonzero(counts)
        return there + first, counts[there]
    return np.unique(numbers, return_counts=True)


def _buckets(values: Array) -> Array:
    """Return ``bucket_of`` of each value."""
    fractions, exponents = np.frexp(values)
    parts = (fractions * (2 * PARTS)).astype(np.int64) - PARTS
    found: Array = 1 + (exponents.astype(np.int64) - 1 - LOWEST) * PARTS + parts
    found[(values <= 0) | (exponents <= LOWEST)] = 0
    return found
