"""What adjustments add to a report, whichever way its outcomes are added up.

Owns that sum: an adjustment has the members of its outcome, so it goes into the same group, and is
selected where that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, cast

from litellm_ledger._aggregates.groups import key_of
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.totals import FIELDS, Totals
from litellm_ledger._reading.adjustments import each_addition
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.layout import split_id
from litellm_ledger._records.ranges import Spans
from litellm_ledger._records.record import Fields

__all__ = ["add_adjustments"]


def add_adjustments(
    ledger: Snapshot,
    by: Sequence[str],
    selection: Selection,
    totals: Totals,
    problems: list[Problem],
    as_of: object,
    among: Callable[[set[str]], set[str]],
    without: Mapping[str, Spans] = MappingProxyType({}),
) -> int:
    """Add what the adjustments of a ledger come to; return how many there are in the sums.

    Args:
        ledger: the look that the outcomes are of.
        by, selection: what is asked.
        totals: of these keys; what is added up beside.
        problems: where damage is noted.
        as_of: only adjustments that were made before this time, if it is one.
        among: tells which of these ids are of outcomes that are selected; asked where numbers are
            compared, which an adjustment does not carry.
        without: numbers by writer of outcomes that are not in the sums.
    """
    before = as_of if isinstance(as_of, datetime) else None
    keys = [key_of(name, selection.calendar) for name in by]
    chosen: set[str] | None = None
    if selection.compared:
        told = each_addition(ledger.root, ledger.adjustments, [])
        chosen = among({one.adjusts for one in told if isinstance(one, Adjustment)})
    count = 0
    groups: dict[tuple[Any, ...], list[int]] = {}
    for one in each_addition(ledger.root, ledger.adjustments, problems):
        if not isinstance(one, Adjustment) or (before is not None and one.at >= before):
            continue
        if without and _is_of(one.adjusts, without):
            continue
        line = cast("Fields", one)  # it has the members that keys and selections ask for
        if selection.fits(line) if chosen is None else one.adjusts in chosen:
            count += 1
            key = (one.status, one.usage_source, *[of(line) for of in keys])
            sums = groups.setdefault(key, [0, 0])
            sums[0] += one.difference
            sums[1] += one.priced
    for (status, source, *group), (pico, priced) in groups.items():
        none: dict[str, Any] = dict.fromkeys(FIELDS, 0)
        totals.add_sums(status, source, group, {**none, "pico": pico, "priced": priced})
    return count


def _is_of(key: str, numbers: Mapping[str, Spans]) -> bool:
    writer, number = split_id(key) or ("", 0)
    return writer in numbers and number in numbers[writer]
