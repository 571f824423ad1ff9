"""``Selection``: which outcomes a question is about: from when to when, and with which values.

Owns the check of the arguments and the test of one record.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from litellm_ledger._records.record import Fields

from .calendar import Calendar
from .groups import MISSING, key_of, model_names, named

__all__ = ["Selection", "Where"]

Where = Mapping[str, str | Collection[str]]
"""Group key to the value, or to several values, any of which matches."""


class Selection:
    """A record fits if it is of the time asked for and meets the conditions.

    The time: ``since <= ts < until``.  Each key of ``where`` must have one of its values, and no
    key of ``where_not`` may have one of its own.  A model matches with and without its provider
    (``model_names``).

    Attributes:
        since, until: timezone-aware, or ``None``.
        where, where_not: group key (``tag:user``, where ``user`` was given) to values.
        calendar: what periods among the keys are of.

    Raises:
        ValueError: a bound without a time zone, or a key that does not exist.
        TypeError: a bound that is no ``datetime``.
    """

    __slots__ = ("_tests", "calendar", "since", "until", "where", "where_not")

    def __init__(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Where | None = None,
        calendar: Calendar | None = None,
        where_not: Where | None = None,
    ) -> None:
        for name, bound in (("since", since), ("until", until)):
            if bound is not None and not isinstance(bound, datetime):
                raise TypeError(
                    f"{name}={bound!r} is not a datetime: "
                    "datetime(2025, 3, 30, tzinfo=timezone.utc)"
                )
            if bound is not None and bound.tzinfo is None:
                raise ValueError(
                    f"{name} must be timezone-aware: datetime(..., tzinfo=timezone.utc)"
                )
        self.since, self.until = since, until
        self.calendar = calendar or Calendar()
        self.where, self.where_not = _named(where), _named(where_not)
        self._tests = [
            (_values(key, self.calendar), values, wanted)
            for conditions, wanted in ((self.where, True), (self.where_not, False))
            for key, values in conditions.items()
        ]

    @property
    def everything(self) -> bool:
        """Whether it leaves nothing out."""
        return self.since is self.until is None and not self._tests

    def tags(self, *, passing_without: bool) -> set[str]:
        """Return the tags in the conditions; ``passing_without`` those that a call may lack."""
        keys = {key for key, values in self.where.items() if MISSING in values}
        keys |= {key for key, values in self.where_not.items() if MISSING not in values}
        keys = keys if passing_without else {*self.where, *self.where_not}
        return {key.removeprefix("tag:") for key in keys if key.startswith("tag:")}

    def fits(self, record: Fields) -> bool:
        """Tell whether a record is asked for; one without ``ts`` is in no span of time."""
        ts = record.ts
        if self.since is not None and (ts is None or ts < self.since):
            return False
        if self.until is not None and (ts is None or ts >= self.until):
            return False
        return all(
            values.isdisjoint(of(record)) is not wanted for of, values, wanted in self._tests
        )


def _named(where: Where | None) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for word, values in (where or {}).items():
        key = named(word)
        given = [values] if isinstance(values, str) else values
        found[key] = found.get(key, frozenset()).union(given)
    return found


def _values(key: str, calendar: Calendar) -> Callable[[Fields], tuple[str, ...]]:
    """Return what gives the values of a record that may match for a key."""
    if key == "model":
        return model_names
    of = key_of(key, calendar)
    return lambda record: (of(record),)
