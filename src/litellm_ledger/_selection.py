"""``Selection``: which outcomes a question is about: from when to when, and with which values.

Owns the check of the arguments and the test of one record.  Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from ._groups import Countable, key_of
from ._periods import Calendar

__all__ = ["Selection", "Where"]

Where = Mapping[str, str | Collection[str]]
"""Group key to the value, or the values, one of which must be there."""


class Selection:
    """A record fits if ``since <= ts < until`` and each key of ``where`` has one of its values.

    Attributes:
        since, until: timezone-aware, or ``None``.
        where: key to values.
        calendar: what periods among the keys are of.

    Raises:
        ValueError: a bound without a time zone, or a key that does not exist.
        TypeError: a bound that is no ``datetime``.
    """

    __slots__ = ("_tests", "calendar", "since", "until", "where")

    def __init__(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Where | None = None,
        calendar: Calendar | None = None,
    ) -> None:
        for name, bound in (("since", since), ("until", until)):
            if bound is not None and not isinstance(bound, datetime):
                raise TypeError(
                    f"{name}={bound!r} is no datetime: datetime(2025, 3, 30, tzinfo=timezone.utc)"
                )
            if bound is not None and bound.tzinfo is None:
                raise ValueError(
                    f"{name} must be timezone-aware: datetime(..., tzinfo=timezone.utc)"
                )
        self.since, self.until = since, until
        self.calendar = calendar or Calendar()
        self.where = {
            key: frozenset([values] if isinstance(values, str) else values)
            for key, values in (where or {}).items()
        }
        self._tests = [(key_of(key, self.calendar), vals) for key, vals in self.where.items()]

    @property
    def everything(self) -> bool:
        """Whether it leaves nothing out."""
        return self.since is self.until is None and not self.where

    def fits(self, record: Countable) -> bool:
        """Tell whether a record is asked for; one without ``ts`` is in no span of time."""
        ts = record.ts
        if self.since is not None and (ts is None or ts < self.since):
            return False
        if self.until is not None and (ts is None or ts >= self.until):
            return False
        return all(of(record) in values for of, values in self._tests)
