"""Quarters of an hour, and the steps over which the tables of a manifest have their sums.

Owns what is a step, and which quarters make sense.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, cast

import msgspec

__all__ = ["EPOCH", "QUARTER", "Quarter", "are_quarters", "is_step", "order"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
QUARTER: Final = timedelta(minutes=15)
_LONGEST: Final = 96
"""A day: within two of them clocks may change and change back."""

Quarter = Annotated[int, msgspec.Meta(ge=-69_039_552, le=281_558_111)]
"""From the first to the last that there are: of the years 1 to 9999."""


def is_step(step: int) -> bool:
    """Whether sums may be over this number of quarters."""
    return step > 0 and _LONGEST % step == 0


def are_quarters(quarters: Sequence[int | None], step: int) -> bool:
    """Whether they ascend in steps; ``None``, which is no time, comes first."""
    times = cast("Sequence[int]", quarters[1:] if quarters[:1] == [None] else quarters)
    return (
        len(quarters) > 0
        and None not in times
        and list(times) == sorted(set(times))
        and (step == 1 or not any(time % step for time in times))
    )


def order(values: tuple[Any, ...]) -> list[tuple[bool, str]]:
    """Return what groups are sorted by."""
    return [(value is not None, value or "") for value in values]
