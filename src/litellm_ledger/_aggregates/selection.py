"""``Selection``: which outcomes a question is about: from when to when, and with which values.

Owns the check of the arguments and the test of one record.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING

from litellm_ledger._records.record import Fields

from .calendar import Calendar
from .groups import MISSING, key_of, model_names, named

if TYPE_CHECKING:
    from .conditions import Comparison, Conditions

__all__ = ["Selection", "Where"]

Where = Mapping[str, str | Collection[str]] | Sequence[str]
"""Group key to the value, or to several values, any of which matches; or conditions in text, as
``--where`` takes them (``read_conditions``)."""


class Selection:
    """A record fits if it is of the time asked for and meets the conditions.

    The time: ``since <= ts < until``.  Each key of ``where`` must have one of its values, and no
    key of ``where_not`` may have one of its own.  A model matches with and without its provider
    (``model_names``).

    Attributes:
        since, until: timezone-aware, or ``None``.
        where, where_not: group key (``tag:user``, where ``user`` was given) to values; empty where
            only beginnings were given.
        begun, not_begun: group key to beginnings of values.
        compared: numbers of a record.
        calendar: what periods among the keys are of.

    Raises:
        ValueError: a bound without a time zone, or a key that does not exist.
        TypeError: a bound that is no ``datetime``.
    """

    __slots__ = (
        "_begun",
        "_tests",
        "begun",
        "calendar",
        "compared",
        "not_begun",
        "since",
        "until",
        "where",
        "where_not",
    )

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
        self.compared: tuple[Comparison, ...] = ()
        self.begun: dict[str, tuple[str, ...]] = {}
        self.not_begun: dict[str, tuple[str, ...]] = {}
        self.where, self.where_not = {}, _named(_mapping(where_not))
        if where is None or isinstance(where, Mapping):
            self.where = _named(where)
        else:
            from .conditions import read_conditions  # only where text is given

            self._read(read_conditions([where] if isinstance(where, str) else where, flag=""))
        self._tests: list[_Test] = []
        self._begun: list[tuple[_Values, frozenset[str], tuple[str, ...], bool]] = []
        for conditions, begun, wanted in (
            (self.where, self.begun, True),
            (self.where_not, self.not_begun, False),
        ):
            for key, values in conditions.items():
                of = _values(key, self.calendar)
                if key in begun:
                    self._begun.append((of, values, begun[key], wanted))
                else:
                    self._tests.append((of, values, wanted))

    def _read(self, found: Conditions) -> None:
        """Take conditions that were given as text."""
        if found.times:
            sign, time = found.times[0]
            raise ValueError(f"where 'ts{sign}{time}': give since= or until= in place of it")
        self.where = _named({**dict.fromkeys(found.begun, ()), **found.wanted})
        for key, values in _named({**dict.fromkeys(found.not_begun, ()), **found.unwanted}).items():
            self.where_not[key] = self.where_not.get(key, frozenset()) | values
        self.begun = {key: tuple(values) for key, values in found.begun.items()}
        self.not_begun = {key: tuple(values) for key, values in found.not_begun.items()}
        self.compared = tuple(found.compared)

    @property
    def everything(self) -> bool:
        """Whether it leaves nothing out."""
        return self.since is self.until is None and not (
            self._tests or self._begun or self.compared
        )

    def between(self, since: datetime | None, until: datetime | None) -> Selection:
        """Return the same selection with other bounds in time."""
        other = copy(self)
        other.since, other.until = since, until
        return other

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
        for of, values, wanted in self._tests:
            if values.isdisjoint(of(record)) is wanted:
                return False
        for of, values, beginnings, wanted in self._begun:
            if _begins(of(record), values, beginnings) is not wanted:
                return False
        return all(one.holds(record) for one in self.compared)


_Values = Callable[[Fields], tuple[str, ...]]
_Test = tuple[_Values, frozenset[str], bool]


def _mapping(where_not: Where | None) -> Mapping[str, str | Collection[str]] | None:
    if where_not is None or isinstance(where_not, Mapping):
        return where_not
    raise TypeError(f"where_not={where_not!r}: give a mapping, or KEY!=VALUE in where")


def _begins(found: tuple[str, ...], values: frozenset[str], beginnings: tuple[str, ...]) -> bool:
    """Tell whether one of the values that were found is asked for; what there is not has no
    beginning."""
    return not values.isdisjoint(found) or any(
        value != MISSING and value.startswith(beginnings) for value in found
    )


def _named(where: Mapping[str, str | Collection[str]] | None) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for word, values in (where or {}).items():
        key = named(word)
        given = [values] if isinstance(values, str) else values
        found[key] = found.get(key, frozenset()).union(given)
    return found


def _values(key: str, calendar: Calendar) -> _Values:
    """Return what gives the values of a record that may match for a key."""
    if key == "model":
        return model_names
    of = key_of(key, calendar)
    return lambda record: (of(record),)
