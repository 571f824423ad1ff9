"""``Spread``: latencies and times to first token by group, for their quantiles.

Owns the definition, the same in every way: only ``ok`` outcomes are measured, they are counted
in buckets (``bucket_of``, ``bucket_sql``), and a quantile is by nearest rank (the ⌈q·n⌉-th
smallest).  Its value is the middle of that one's bucket, within 0.8 % of what was measured; the
smallest and the largest are exact.  Counts of buckets add up, so that sums of parts are those of
the whole, in memory that does not grow with the outcomes.  Pure.

The buckets are those of HdrHistogram (https://hdrhistogram.org): each power of two in equal parts.
Powers of two and their parts are exact as floats, so that every language sorts a value alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from math import frexp, ldexp
from typing import Final

from litellm_ledger._records.record import Fields

from .calendar import Calendar
from .groups import Quantiles, check_by, key_of

__all__ = [
    "BUCKETS",
    "LOWEST",
    "MEASURED",
    "PARTS",
    "Sketch",
    "Spread",
    "bucket_of",
    "bucket_sql",
]

MEASURED: Final = ("latency_ms", "ttft_ms")
_PERCENT: Final = (50, 90, 99)

PARTS: Final = 64
"""Of a power of two; half of one is 1/128 of the smallest value in it, at most."""
LOWEST: Final = -4
"""Below two to this power, 1/16 ms, values are counted as one."""
BUCKETS: Final = 1 + (1024 - LOWEST) * PARTS
"""Buckets that finite values can be in."""


def bucket_of(value: float) -> int:
    """Return the number of a value's bucket: larger ones are in larger buckets."""
    fraction, exponent = frexp(value)
    if value <= 0 or exponent <= LOWEST:
        return 0
    return 1 + (exponent - 1 - LOWEST) * PARTS + int(fraction * 2 * PARTS) - PARTS


def bucket_sql(column: str) -> str:
    """Return the expression for ``bucket_of`` over a column of doubles; NULL where that is NULL."""
    lowest = 2.0**LOWEST
    value = f"greatest({column}, {lowest})"
    # Next to a power of two log2 may be off by one: then the part is -1 or PARTS, which is right.
    power = f"least(floor(log2({value})), 1023)"
    part = f"floor(({value} / 2.0 ** {power} - 1) * {PARTS})"
    number = f"1 + ({power} - {LOWEST}) * {PARTS} + {part} - ({column} < {lowest})::INTEGER"
    return f"CAST({number} AS INTEGER)"


def _middle(bucket: int) -> float:
    if not bucket:
        return 0.0
    power, part = divmod(bucket - 1, PARTS)
    return ldexp((PARTS + part + 0.5) / PARTS, power + LOWEST)


class Sketch:
    """Values as counts by bucket, with the smallest and the largest."""

    __slots__ = ("counts", "least", "most")

    def __init__(self, counts: dict[int, int], least: float, most: float) -> None:
        self.counts, self.least, self.most = counts, least, most

    @classmethod
    def of(cls, values: Sequence[float]) -> Sketch:
        """Return that of some values, at least one."""
        counts: dict[int, int] = {}
        for bucket in map(bucket_of, values):
            counts[bucket] = counts.get(bucket, 0) + 1
        return cls(counts, min(values), max(values))

    def copy(self) -> Sketch:
        """Return one of its own."""
        return Sketch(dict(self.counts), self.least, self.most)

    def merge(self, other: Sketch) -> None:
        """Add the values of another."""
        counts = self.counts
        for bucket, count in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def quantiles(self) -> Quantiles:
        """Return those of its values."""
        count = sum(self.counts.values())
        p50, p90, p99 = self._values([-(-percent * count // 100) for percent in _PERCENT], count)
        return Quantiles(count=count, p50=p50, p90=p90, p99=p99, max=self.most)

    def _values(self, ranks: Iterable[int], count: int) -> Iterator[float]:
        """Yield the value of each rank, which ascend."""
        buckets, reached, bucket = iter(sorted(self.counts)), 0, 0
        for rank in ranks:
            while reached < rank:
                bucket = next(buckets)
                reached += self.counts[bucket]
            if rank in (1, count):
                yield self.least if rank == 1 else self.most
            else:
                yield min(max(_middle(bucket), self.least), self.most)


class Spread:
    """What was measured, for each group and over everything."""

    __slots__ = ("_by", "_sketches")

    def copy(self) -> Spread:
        """Return one of its own that goes on from this one."""
        other = copy(self)
        other._sketches = {}  # noqa: SLF001 - its own class
        for key, sketch in self._sketches.items():
            other._sketches[key] = sketch.copy()  # noqa: SLF001 - as above
        return other

    def __init__(self, by: Sequence[str], calendar: Calendar) -> None:
        self._by: list[Callable[[Fields], str]] = [key_of(n, calendar) for n in check_by(by)]
        self._sketches: dict[tuple[tuple[str, ...] | None, str], Sketch] = {}

    def add(self, record: Fields) -> None:
        """Add one outcome."""
        if record.status != "ok":
            return
        group = None
        for name in MEASURED:
            value = getattr(record, name)
            if value is not None:
                group = group or tuple([of(record) for of in self._by])
                self.merge(group, name, Sketch({bucket_of(value): 1}, value, value))

    def merge(self, group: tuple[str, ...], name: str, sketch: Sketch) -> None:
        """Add what was measured of a group, in a call or in many."""
        for key in ((group, name), (None, name)):
            there = self._sketches.get(key)
            if there is None:
                self._sketches[key] = sketch.copy()
            else:
                there.merge(sketch)

    def merge_all(self, other: Spread) -> None:
        """Add all that was measured, of the same keys."""
        for key, sketch in other._sketches.items():
            there = self._sketches.get(key)
            if there is None:
                self._sketches[key] = sketch.copy()
            else:
                there.merge(sketch)

    def quantiles(
        self, group: tuple[str, ...] | None, name: str, *, also: Spread | None = None
    ) -> Quantiles | None:
        """Return those of a group, of everything for ``None``; ``None`` if none said it.

        Args:
            group: the values of the keys.
            name: what was measured.
            also: counted as well, of the same keys.
        """
        sketch = self._sketches.get((group, name))
        more = None if also is None else also._sketches.get((group, name))  # noqa: SLF001 - as above
        if sketch is not None and more is not None:
            sketch = sketch.copy()
            sketch.merge(more)
        found = sketch or more
        return None if found is None else found.quantiles()
