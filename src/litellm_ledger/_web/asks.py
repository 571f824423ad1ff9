"""What a request asks for: the parameters of each answer, read strictly.

Owns their names, forms and bounds, and the sentences about what is wrong with one.  The description
of the API (``openapi``) is made of the same tables.  Pure: it is given the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

import msgspec

from litellm_ledger._aggregates.calendar import PERIODS, Calendar, calendar
from litellm_ledger._aggregates.conditions import read_conditions
from litellm_ledger._aggregates.groups import named
from litellm_ledger._aggregates.question import last, moment
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._records.record import KEYS, MAX_TEXT

from .viewer import Scope, narrowed

__all__ = ["ASKS", "FILTERS", "Ask", "Invalid", "Parameter", "read_ask"]

_T = TypeVar("_T")

_LONGEST: Final = 2 * MAX_TEXT + 64
"""Characters of a parameter: a tag's name and its value at most."""
_MANY: Final = 50
"""Times that one parameter may be given."""


class Invalid(ValueError):
    """A parameter cannot be read; ``name`` is which."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of a request.

    Attributes:
        about: a sentence.
        many: it may be given more than once.
        choices: its values, where they are few.
        least, most: of a whole number.
        example: a value.
    """

    about: str
    many: bool = False
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    example: str | None = None


FILTERS: Final[dict[str, Parameter]] = {
    "last": Parameter(
        about="The last 24h, 7d, 4w or 12mo, the current hour, day, week or month included; or the "
        "last whole day, week, month or year. Not with since or until.",
        example="7d",
    ),
    "since": Parameter(
        about="From this time on: a day (2025-03-30), a month, a time, today, yesterday, now, or "
        "how long ago (24h, 7d).",
        example="2025-03-30",
    ),
    "until": Parameter(
        about="Before this time; a day or a month is included whole.", example="2025-03"
    ),
    "tz": Parameter(about="The time zone of days: a name such as Europe/Berlin.", example="UTC"),
    "model": Parameter(about="Only calls of this model.", many=True),
    "provider": Parameter(about="Only calls of this provider.", many=True),
    "status": Parameter(
        about="Only calls that ended so.",
        many=True,
        choices=("ok", "error", "cancelled", "abandoned", "unsettled"),
    ),
    "where": Parameter(
        about="Only calls with KEY=VALUE, or without it (KEY!=VALUE). The keys are those of by, "
        "periods apart. All keys must match; of one key any of its values.",
        many=True,
        example="tag:env=prod",
    ),
}
"""What most answers take."""

_FORM: Final = Parameter(about="The form of the answer.", choices=("json", "csv"))
_SORTS: Final = (
    "cost",
    "calls",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "error",
    "wasted_cost",
    "saved_cost",
    "group",
)
_ID: Final = Parameter(about="The id of a record.")

ASKS: Final[dict[str, dict[str, Parameter]]] = {
    "summary": {name: FILTERS[name] for name in ("tz", "model", "provider", "status", "where")},
    "report": {
        **FILTERS,
        "by": Parameter(
            about=f"A key to group by: {', '.join(KEYS)}, or tag:NAME. At most two.",
            many=True,
            most=2,
            example="model",
        ),
        "every": Parameter(about="Also group by a period.", choices=PERIODS),
        "quantiles": Parameter(
            about="1: also latency and time to first token.", choices=("0", "1")
        ),
        "sort": Parameter(
            about="The column to sort by; by default the period, the newest first, else the cost.",
            choices=_SORTS,
        ),
        "order": Parameter(about="Default desc, of group asc.", choices=("asc", "desc")),
        "limit": Parameter(about="Rows at most; default 100.", least=1, most=10_000),
        "format": _FORM,
    },
    "calls": {
        **FILTERS,
        "limit": Parameter(about="Calls at most; default 50.", least=1, most=1_000),
        "before": Parameter(about="Only calls after this id in the list: the next page."),
        "format": _FORM,
    },
    "tags": {},
    "live": {"tz": FILTERS["tz"]},
    "budgets": {
        "limit": Parameter(about="Rows of each budget at most; default 20.", least=1, most=1_000)
    },
    "operation": {"id": _ID, "tz": FILTERS["tz"]},
    "ledger": {},
}
"""The parameters of each answer."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, checked.

    Attributes:
        since, until: UTC.
        where: already narrowed to what the viewer may see.
        given: the parameters as they were given.
    """

    now: datetime
    tz: str
    dates: Calendar
    scope: Scope = None
    since: datetime | None = None
    until: datetime | None = None
    where: Mapping[str, frozenset[str]] = {}
    where_not: Mapping[str, frozenset[str]] = {}
    by: tuple[str, ...] = ()
    every: str | None = None
    quantiles: bool = False
    sort: str | None = None
    order: str | None = None
    limit: int | None = None
    before: str | None = None
    id: str | None = None
    form: Literal["json", "csv"] = "json"
    given: Mapping[str, Sequence[str]] = {}

    @property
    def keys(self) -> tuple[str, ...]:
        """The group keys, the period first."""
        return self.by if self.every is None else (self.every, *self.by)

    def selection(self, **other: Any) -> Selection:
        """Return which outcomes are asked for; ``other`` in place of what was given."""
        asked = {"since": self.since, "until": self.until, "where": self.where} | other
        return Selection(**asked, where_not=self.where_not, calendar=self.dates)

    @property
    def impossible(self) -> bool:
        """Whether no call can match: what is asked for is none of what may be seen."""
        return not all(self.where.values())


def read_ask(
    what: str,
    given: Sequence[tuple[str, str]],
    *,
    scope: Scope,
    now: datetime,
) -> Ask:
    """Read the parameters of a request.

    Args:
        what: a key of ``ASKS``.
        given: names and values.
        scope: what the viewer may see.
        now: timezone-aware.

    Raises:
        Invalid: one cannot be read; the text says what to write.
    """
    known = ASKS[what]
    found: dict[str, list[str]] = {}
    for name, value in given:
        if name not in known:
            names = ", ".join(known) or "none"
            raise Invalid(_short(name), f"there is no such parameter; there are: {names}")
        if value == "" and name not in ("where", "by"):
            continue  # an empty field of a form
        if value:
            _check(name, value, known[name], found.setdefault(name, []))
    return _ask(found, scope, now)


def _check(name: str, value: str, parameter: Parameter, into: list[str]) -> None:
    if len(value) > _LONGEST or not _is_text(value):
        raise Invalid(name, f"text of at most {_LONGEST:,} characters, without NUL, is expected")
    if into and not parameter.many:
        raise Invalid(name, "it is given twice; once is enough")
    if len(into) >= _MANY:
        raise Invalid(name, f"it is given more than {_MANY} times")
    if parameter.choices and value not in parameter.choices:
        raise Invalid(name, f"{_short(value)!r} is none of {', '.join(parameter.choices)}")
    if parameter.least is not None and not (
        value.isascii()
        and value.isdecimal()
        and len(value) < 10
        and parameter.least <= int(value) <= (parameter.most or 0)
    ):
        raise Invalid(
            name, f"a whole number from {parameter.least} to {parameter.most:,} is expected"
        )
    into.append(value)


def _ask(found: dict[str, list[str]], scope: Scope, now: datetime) -> Ask:
    def one(name: str) -> str | None:
        return found[name][0] if name in found else None

    tz = one("tz") or "UTC"
    dates = _reading("tz", lambda: calendar(tz))
    since, until = _times(one("since"), one("until"), one("last"), dates, now)
    read = _reading("where", lambda: read_conditions(found.get("where", []), flag=""))
    if read.begun or read.not_begun or read.compared or read.times:
        raise Invalid("where", "write KEY=VALUE or KEY!=VALUE, a value as it is after == or !==")
    wanted, unwanted = read.wanted, read.unwanted
    for key in (*wanted, *unwanted):
        if key in PERIODS:
            raise Invalid("where", f"{key} is a period; use since and until")
    for key in ("model", "provider", "status"):
        if key in found:
            wanted[key] = [*wanted.get(key, []), *found[key]]
    by = _reading("by", lambda: tuple(dict.fromkeys(map(named, found.get("by", [])))))
    if len(by) > 2 or set(by) & set(PERIODS):
        raise Invalid("by", "at most two keys, none of them a period (that is every)")
    limit = one("limit")
    return Ask(
        now=now,
        tz=tz,
        dates=dates,
        scope=scope,
        since=since,
        until=until,
        where=narrowed(scope, {key: frozenset(values) for key, values in wanted.items()}),
        where_not={key: frozenset(values) for key, values in unwanted.items()},
        by=by,
        every=one("every"),
        quantiles=one("quantiles") == "1",
        sort=one("sort"),
        order=one("order"),
        limit=int(limit) if limit else None,
        before=one("before"),
        id=one("id"),
        form="csv" if one("format") == "csv" else "json",
        given=found,
    )


def _times(
    since: str | None, until: str | None, span: str | None, dates: Calendar, now: datetime
) -> tuple[datetime | None, datetime | None]:
    if span and (since or until):
        raise Invalid("last", "give last, or since and until, not both")
    if span:
        return _reading("last", lambda: last(span, dates.zone, now))
    begin = (
        _reading("since", lambda: moment(since, dates.zone, now, flag="since")) if since else None
    )
    end = (
        _reading("until", lambda: moment(until, dates.zone, now, flag="until", end=True))
        if until
        else None
    )
    if begin and end and begin >= end:
        raise Invalid("since", "it is not before until")
    return begin, end


def _reading(name: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except Invalid:
        raise
    except (ValueError, OverflowError) as exc:
        raise Invalid(name, str(exc).replace("--", "")[:500]) from None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
