"""``Today``: what was spent today and in this hour, and what is in flight now.

Owns which day and which hour these are.  Adds up nothing itself: sealed segments are answered from
their manifests, the open ones are read (``_reports.engine``).
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

import msgspec

from litellm_ledger._aggregates.calendar import Calendar, calendar
from litellm_ledger._aggregates.groups import Row

from .ledger import Ledger
from .report import row_dict

__all__ = ["Today", "look", "midnight"]

_SHOWN = ("calls", "error", "cost", "priced", "unpriced", "unknown_cost")


class Today(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of a day up to now.

    Attributes:
        day: its date, ``2025-03-30``.
        hour: the beginning of this hour, ``2025-03-30T14:00+02:00``.
        total: the sums of the day.
        this_hour: those of the hour.
        in_flight: calls of running processes that began today and have no outcome.
        cut_off: the same of processes that died and are not recovered.
        damaged: places without a valid record.
    """

    day: str
    hour: str
    total: Row
    this_hour: Row
    in_flight: int
    cut_off: int
    damaged: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values (see docs/CLI.md)."""
        rows = {"today": row_dict(self.total), "this_hour": row_dict(self.this_hour)}
        return {
            "day": self.day,
            "hour": self.hour,
            **{name: {key: row[key] for key in _SHOWN} for name, row in rows.items()},
            "in_flight": self.in_flight,
            "cut_off": self.cut_off,
            "damaged": self.damaged,
        }


def midnight(dates: Calendar, now: datetime) -> datetime:
    """Return when the day began that a moment is in."""
    return datetime.combine(dates.local(now).date(), time(), dates.zone).astimezone(UTC)


def look(ledger: Ledger, *, tz: str = "UTC", now: datetime | None = None) -> Today:
    """Add up today.

    Args:
        ledger: the ledger.
        tz: the time zone of the day: a name, or ``local``.
        now: timezone-aware; default: this moment.

    Raises:
        LedgerPathError, UnsupportedFormat: as for ``Ledger.report``.
        ValueError: there is no such zone.
    """
    dates = calendar(tz)
    now = now or datetime.now(UTC)
    hour = dates.label("hour", dates.number("hour", now))
    found = ledger.report(["hour"], since=midnight(dates, now), tz=tz)
    rows = {row.group["hour"]: row for row in found.rows}
    return Today(
        day=dates.label("day", dates.number("day", now)),
        hour=hour,
        total=found.total,
        this_hour=rows.get(hour, Row(group={"hour": hour})),
        in_flight=found.in_flight,
        cut_off=found.cut_off,
        damaged=len(found.problems),
    )
