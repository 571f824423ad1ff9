"""Sums of a segment for one kind of question, from the tables of its manifest.

Owns the way from a table's groups to those that are asked for, whole columns at once.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from litellm_ledger._aggregates.durations import Durations, DurationTable
from litellm_ledger._aggregates.groups import key_of
from litellm_ledger._aggregates.quantiles import MEASURED
from litellm_ledger._aggregates.quarters import Table
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.totals import FIELDS
from litellm_ledger._records.record import KEYS, Fields

from .sums import Shape, Sums

__all__ = ["add_durations", "sums_of"]


def sums_of(table: Table, shape: Shape, tag: str | None) -> Sums:
    """Return the sums of a table.

    Args:
        table: by ``KEYS``, and by the value of ``tag``.
        shape: what is asked, of no other tag.
        tag: that of the table.
    """
    selection, keys = _wanted(shape)
    found: dict[tuple[Any, ...], list[Any]] = {}
    quarters: list[Any] = []
    for group in table.groups:
        one = _outcome(group.of, tag)
        if selection.fits(one):
            quarters = quarters if quarters == group.quarters else group.quarters
            key = (one.status, one.usage_source, *[of(one) for of in keys])
            columns = [(at, group.sums[f]) for at, f in enumerate(FIELDS) if f in group.sums]
            found.setdefault(key, []).append((quarters, columns))
    sums = Sums(table.step, timed=shape.timed)
    for key, parts in found.items():
        sums.put(key, parts)
    return sums


def add_durations(sums: Sums, table: DurationTable, shape: Shape) -> None:
    """Add the durations of a table, for a shape without tags."""
    selection, keys = _wanted(shape)
    sums.timed = found = Durations(table.step)
    for group in table.groups:
        one = _outcome(group.of, None)
        if selection.fits(one):
            of_group = tuple([of(one) for of in keys])
            for name in MEASURED:
                for at, quarter in enumerate(group.quarters):
                    for sketch in group.sketches(name, at, at + 1):
                        found.add(of_group, quarter, name, sketch)


def _wanted(shape: Shape) -> tuple[Selection, list[Any]]:
    selection = Selection(where=dict(shape.where), where_not=dict(shape.where_not))
    return selection, [key_of(key) for key in shape.keys]


def _outcome(of: Sequence[str | None], tag: str | None) -> Fields:
    values = dict(zip(KEYS, of, strict=False))
    value = of[-1] if len(of) > len(KEYS) else None
    tags = {} if value is None or tag is None else {tag: value}
    return Fields(**cast("Any", values), tags=tags)
