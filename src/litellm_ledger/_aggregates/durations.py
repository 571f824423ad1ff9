"""``Durations``: how long the calls of a segment took, as sketches by group and quarter of an hour.

Owns the table of a manifest that quantiles are answered from (docs/FORMAT.md).  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Annotated, Any

import msgspec

from litellm_ledger._records.record import KEYS

from .quantiles import BUCKETS, MEASURED, Sketch
from .steps import Quarter, are_quarters, is_step, order

__all__ = ["DurationGroup", "DurationTable", "Durations"]

_Positive = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class _Cell(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A sketch as it is kept; of ``buckets`` the first, then how far it is to the next."""

    least: float
    most: float
    buckets: list[Annotated[int, msgspec.Meta(ge=0, lt=BUCKETS)]]
    counts: list[_Positive]

    def is_sound(self) -> bool:
        return (
            len(self.buckets) == len(self.counts) > 0
            and all(self.buckets[1:])
            and sum(self.buckets) < BUCKETS
            and self.least <= self.most
        )

    def sketch(self) -> Sketch:
        counts = dict(zip(accumulate(self.buckets), self.counts, strict=True))
        return Sketch(counts, self.least, self.most)


def _cell(sketch: Sketch | None) -> _Cell | None:
    if sketch is None:
        return None
    buckets = sorted(sketch.counts)
    steps = [buckets[0], *(after - before for before, after in pairwise(buckets))]
    return _Cell(sketch.least, sketch.most, steps, [sketch.counts[bucket] for bucket in buckets])


class DurationGroup(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Outcomes with the same values: what was measured in each quarter of an hour."""

    of: list[str | None]
    quarters: list[Quarter | None]
    latency_ms: list[_Cell | None] = []
    ttft_ms: list[_Cell | None] = []

    def is_sound(self, step: int) -> bool:
        """Whether its parts fit each other: that of what is read from a file nobody promises."""
        measured = (self.latency_ms, self.ttft_ms)
        return (
            len(self.of) == len(KEYS)
            and are_quarters(self.quarters, step)
            and all(len(cells) in (0, len(self.quarters)) for cells in measured)
            and all(cell.is_sound() for cells in measured for cell in cells if cell)
        )

    def sketches(self, name: str, start: int, end: int) -> list[Sketch]:
        """Return what was measured under a name, from one place in ``quarters`` to another."""
        return [cell.sketch() for cell in getattr(self, name)[start:end] if cell is not None]


class DurationTable(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The groups of one segment, by ``KEYS``.

    ``step``: how many quarters of an hour its sketches are over.
    """

    groups: list[DurationGroup]
    step: int = 1

    def is_sound(self) -> bool:
        """Whether its groups fit it."""
        return is_step(self.step) and all(group.is_sound(self.step) for group in self.groups)


_Key = tuple[Any, ...]


class Durations:
    """Sketches that are being added up.

    Where they would have too many buckets, they are over longer times, then given up.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.size = 0
        self._groups: dict[_Key, dict[int | None, dict[str, Sketch]]] = {}

    def add(self, group: _Key, quarter: int | None, name: str, sketch: Sketch) -> None:
        """Add what was measured of a group in a quarter; ``sketch`` is not used any more."""
        if quarter is not None:
            quarter -= quarter % self.step
        cells = self._groups.setdefault(group, {}).setdefault(quarter, {})
        there = cells.get(name)
        if there is None:
            cells[name] = sketch
            self.size += len(sketch.counts)
        else:
            self.size -= len(there.counts)
            there.merge(sketch)
            self.size += len(there.counts)

    def cells(self) -> Iterator[tuple[_Key, dict[int | None, dict[str, Sketch]]]]:
        """Yield each group with what was measured: by quarter, then by name."""
        yield from self._groups.items()

    def within(self, most: int, steps: Sequence[int]) -> Durations | None:
        """Return it with ``most`` buckets or fewer, over one of the steps, and give up this one.

        ``None`` if it has more.
        """
        found = self
        for step in steps:
            if found.size > most and step > found.step:
                wider = Durations(step)
                for group, quarters in found._groups.items():
                    for quarter, cells in quarters.items():
                        for name, sketch in cells.items():
                            wider.add(group, quarter, name, sketch)
                found = wider
        return found if found.size <= most else None

    def table(self) -> DurationTable:
        """Return it as it is kept."""
        groups = sorted(self._groups.items(), key=lambda item: order(item[0]))
        return DurationTable([_group(key, quarters) for key, quarters in groups], self.step)


def _group(key: _Key, by_quarter: dict[int | None, dict[str, Sketch]]) -> DurationGroup:
    quarters = sorted(by_quarter, key=lambda quarter: (quarter is not None, quarter or 0))
    columns = {
        name: [_cell(by_quarter[quarter].get(name)) for quarter in quarters] for name in MEASURED
    }
    held: Any = {name: cells for name, cells in columns.items() if any(cells)}
    return DurationGroup(list(key), quarters, **held)
