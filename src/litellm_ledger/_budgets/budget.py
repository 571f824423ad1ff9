"""``Budget``: a limit, for which calls it is, and over which window it counts.

Owns the check of the arguments, the scope of a call, and the name that a balance is kept under.
Pure: no clock, no balances.
"""

from __future__ import annotations

import decimal
import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, cast, get_args

from litellm_ledger._aggregates.groups import MISSING, named
from litellm_ledger._records.money import MAX_PICOUSD, PICO
from litellm_ledger._records.record import MAX_INT, cut

from .windows import Window, Windows

__all__ = ["Budget", "Mode", "Unit", "check_budgets", "scope_part"]

Mode = Literal["strict", "adaptive", "soft"]
Unbounded = Literal["refuse", "allow"]
Unit = Literal["usd", "tokens", "calls"]

_WORDS: Final = {
    "mode": get_args(Mode),
    "unbounded": get_args(Unbounded),
    "unit": get_args(Unit),
}
_EXACT: Final = decimal.Context(
    prec=60, traps=[decimal.InvalidOperation, decimal.Overflow, decimal.Inexact]
)
_MOST: Final = {"usd": MAX_PICOUSD, "tokens": MAX_INT, "calls": MAX_INT}
_MOST_WARNED: Final = 10
_LONGEST_NAME: Final = 200
_MOST_KEYS: Final = 8
_JSON: Final = json.JSONDecoder()
_PLAIN: Final = re.compile(r"[\w.:/@+-]+")


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on what calls may cost, or use.

    ``Budget("5.00", per="tag:user", window="day", tz="Europe/Berlin")``

    Attributes:
        limit: US dollars as decimal text (or ``Decimal`` or ``int``), at most 12 digits after the
            point; for the other units a whole number.  0 admits no call that costs anything.
        per: a limit of its own for each value of a tag (``tag:user``, or ``user``) or for each
            ``model``, as the call names it, or for each combination of several.  Calls without the
            tag share one.  ``None``: one limit for all.
        where: the calls that count, by ``model`` and tags: key to a value, or to several of which
            any matches.  A model also matches without its provider: ``gpt-4o`` matches a call of
            ``openai/gpt-4o``.  ``(none)`` matches a call without the tag.  ``None``: all calls.
        window: ``hour``, ``day``, ``week`` (from Monday), ``month``, ``total``, or the length of a
            rolling window (``24h``, ``30d``; it counts at most 2 % longer, below ``12h`` a quarter
            of an hour).
        tz: the zone of hours, days, weeks and months, by name.
        mode: ``strict`` holds the most that a call can cost; ``adaptive`` what such calls usually
            cost, and cuts the stream where more is refused; ``soft`` refuses nothing.
        warn: parts of the limit (0.8) at which an alert is given, once a window.
        unbounded: what happens to a call whose cost has no known bound: ``refuse`` or ``allow``.
        unit: ``usd``, ``tokens`` (input and output) or ``calls`` (attempts that were sent).
        name: what it is called in errors, alerts and reports, and what its balances are kept under.
            Not given, it is made of all that says what is counted; so another limit, mode or alert
            leaves the balances as they are.

    Raises:
        TypeError: an argument of another type; a limit that is a ``float`` has lost digits.
        ValueError: a value that cannot be; the text says what to give.
    """

    limit: Decimal | str | int
    _: KW_ONLY
    per: str | Sequence[str] | None = None
    where: Mapping[str, str | Collection[str]] | None = field(default=None, hash=False)
    window: str = "month"
    tz: str = "UTC"
    mode: Mode = "strict"
    warn: float | str | Decimal | Sequence[float | str | Decimal] = ()
    unbounded: Unbounded = "refuse"
    unit: Unit = "usd"
    name: str | None = None
    limit_units: int = field(init=False, repr=False, compare=False)
    """The limit as a whole number: picodollars, tokens or calls."""
    warn_units: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """The alerts as whole numbers, ascending: reached where this much is settled."""
    label: str = field(init=False, repr=False, compare=False)
    """``name``, or the one that was made."""
    counts: str = field(init=False, repr=False, compare=False)
    """A digest (32 hexadecimal digits) of all that says what is counted, the label included: under
    another one no balance is the same."""
    _windows: Windows = field(init=False, repr=False, compare=False)
    _per: tuple[tuple[str | None, str], ...] = field(init=False, repr=False, compare=False)
    _where: tuple[tuple[str | None, frozenset[str]], ...] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        put = object.__setattr__
        for word, known in _WORDS.items():
            value = getattr(self, word)
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"{word}={value!r} is unknown; use {' or '.join(known)}")
        put(self, "limit", _limit(self.unit, self.limit))
        put(self, "limit_units", _units(self.unit, self.limit))
        warn = _warn(self.warn)
        put(self, "warn", warn)
        put(
            self,
            "warn_units",
            tuple(math.ceil(_EXACT.multiply(part, Decimal(self.limit_units))) for part in warn),
        )
        per = _keys(self.per)
        put(self, "per", per or None)
        put(self, "_per", tuple((_tag(key), f"{_word(_tag(key) or key)}=") for key in per))
        where = _conditions(self.where)
        put(self, "where", where or None)
        put(self, "_where", tuple((_tag(key), frozenset(values)) for key, values in where.items()))
        put(self, "_windows", Windows(self.window, self.tz))
        if self.name is not None:
            _check_name(self.name)
        made = _made_name(self.unit, self.window, self.tz, per, where)
        put(self, "label", made if self.name is None else self.name)
        whole = json.dumps([self.label, self.unit, self.window, self.tz, per, list(where.items())])
        put(self, "counts", hashlib.sha256(whole.encode()).hexdigest()[:32])

    def scope_of(self, model: str | None, tags: Mapping[str, str] | None) -> str | None:
        """Return which of its balances a call counts in, ``None`` if it is not for this budget.

        ``user=alice``; of several keys ``model=gpt-4o user=alice``; ``""`` without ``per``.  Two
        calls have the same text if and only if all the values of ``per`` are the same: what is no
        plain word is written as JSON, and ``(none)``, which is not, is a call without the tag.

        Args:
            model: as on the record of the call.
            tags: likewise, those of the client and of ``with client.tag(...)`` included.
        """
        for key, values in self._where:
            if key is not None:
                if (MISSING if tags is None else tags.get(key, MISSING)) not in values:
                    return None
            elif not model:
                if MISSING not in values:
                    return None
            elif model not in values and model[model.find("/") + 1 :] not in values:
                return None
        return " ".join(
            [
                word + _said(model if key is None else None if tags is None else tags.get(key))
                for key, word in self._per
            ]
        )

    def tags_of(self, scope: str) -> dict[str, frozenset[str]]:
        """Return what is certain of each call that counts in one of its balances: tag to values.

        A call without the tag has the value ``(none)``.

        Args:
            scope: as ``scope_of`` returns it.

        Raises:
            ValueError: it returns no such text.
        """
        found = {key: values for key, values in self._where if key is not None}
        left = scope
        for number, (key, word) in enumerate(self._per):
            if number:
                left = left.removeprefix(" ")
            if not left.startswith(word):
                raise ValueError(f"{scope!r} is no scope of the budget {self.label}")
            left = left[len(word) :]
            if left.startswith('"'):
                value, end = _JSON.raw_decode(left)
            else:
                value, end = left.partition(" ")[0], (left + " ").index(" ")
            left = left[end:]
            if key is not None:
                found[key] = frozenset({value})
        return found

    def window_at(self, moment: datetime) -> Window:
        """Return the window that a timezone-aware moment is in."""
        return self._windows.window_at(moment)

    @property
    def warn_parts(self) -> tuple[Decimal, ...]:
        """``warn`` as it is kept: ascending."""
        return cast("tuple[Decimal, ...]", self.warn)

    @property
    def step(self) -> timedelta | None:
        """How much time a rolling window counts at once; ``None`` for the others."""
        return self._windows.step

    @property
    def rolling(self) -> timedelta | None:
        """How long a rolling window is; ``None`` for the others."""
        return self._windows.length

    def leaves_at(self, key: int) -> datetime:
        """Return when spending that was counted under the key of a window no longer counts."""
        return self._windows.leaves_at(key)


def check_budgets(budgets: object) -> tuple[Budget, ...]:
    """Return the budgets of a client.

    Raises:
        TypeError: something else than a list of ``Budget``.
        ValueError: two have the same name.
    """
    if isinstance(budgets, Budget) or not isinstance(budgets, Sequence):
        raise TypeError(f"budgets must be a list of Budget, not {type(budgets).__name__}")
    found: dict[str, Budget] = {}
    for budget in budgets:
        if not isinstance(budget, Budget):
            raise TypeError(f"budgets must be a list of Budget; one is a {type(budget).__name__}")
        if budget.label in found:
            raise ValueError(
                f"two budgets are called {budget.label!r}; give one of them another name="
            )
        found[budget.label] = budget
    return tuple(found.values())


# -- the arguments ---------------------------------------------------------------------------------


def _limit(unit: Unit, value: Any) -> Decimal | int:
    kinds = 'decimal text such as "5.00"' if unit == "usd" else "a whole number"
    if isinstance(value, bool) or not isinstance(value, (Decimal, str, int)):
        why = ": a float has already lost digits" if isinstance(value, float) else ""
        raise TypeError(f"limit must be {kinds}, not {type(value).__name__}{why}")
    try:
        amount = _EXACT.create_decimal(value)
        units = amount.scaleb(PICO, _EXACT) if unit == "usd" else amount
        whole = int(units.to_integral_exact(context=_EXACT))
    except (decimal.DecimalException, ValueError, OverflowError):
        raise ValueError(
            f"limit={value!r} is not {kinds}, with at most 12 digits after the point"
            if unit == "usd"
            else f"limit={value!r} is not {kinds} of {unit}"
        ) from None
    if not 0 <= whole <= _MOST[unit]:
        most = "9 million US dollars" if unit == "usd" else f"2**53 - 1 {unit}"
        raise ValueError(f"limit={value!r} must be from 0 to {most}")
    return amount.copy_abs() if unit == "usd" else whole


def _units(unit: Unit, limit: Any) -> int:
    return int(limit.scaleb(PICO, _EXACT)) if unit == "usd" else int(limit)


def _warn(given: Any) -> tuple[Decimal, ...]:
    every = given if isinstance(given, (list, tuple)) else (given,)
    return tuple(sorted({_part(part) for part in every}))


def _part(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (Decimal, str, int, float)):
        raise TypeError(f"warn must be parts of the limit such as [0.8], not {value!r}")
    try:
        part = Decimal(repr(value) if isinstance(value, float) else value)
    except decimal.DecimalException:
        part = Decimal("NaN")
    if not part.is_finite() or not 0 < part <= _MOST_WARNED or _EXACT.scaleb(part, 6) % 1:
        raise ValueError(
            f"warn={value!r} is not a part of the limit: 0.8 is 80 % (above 0, at most 10, with at "
            "most 6 digits after the point)"
        )
    return part.normalize(_EXACT)


def _key(argument: str, word: Any) -> str:
    """Return ``model`` or ``tag:NAME``: what is known before a call is sent."""
    if not isinstance(word, str):
        raise TypeError(f"{argument} takes model or tag:NAME, not {type(word).__name__}")
    try:
        key = named(word)
    except ValueError as exc:
        raise ValueError(f"{argument}: {exc}") from None
    if key != "model" and not key.startswith("tag:"):
        raise ValueError(
            f"{argument}={word!r}: a budget is by model or tag:NAME, which are known before a call "
            f"is sent; for a tag of this name write tag:{word}"
        )
    return key if key == "model" else f"tag:{cut(key[4:])}"


def _keys(per: Any) -> tuple[str, ...]:
    if per is None:
        return ()
    every = [per] if isinstance(per, str) else per
    if not isinstance(every, (list, tuple)):
        raise TypeError(f"per takes model, tag:NAME or a list of them, not {type(per).__name__}")
    keys = sorted({_key("per", word) for word in every})
    if not keys:
        raise ValueError("per=[] names nothing; leave it out for one limit for all")
    if len(keys) > _MOST_KEYS:
        raise ValueError(f"per takes at most {_MOST_KEYS} keys, not {len(keys)}")
    return tuple(keys)


def _conditions(where: Any) -> dict[str, tuple[str, ...]]:
    if where is None:
        return {}
    if not isinstance(where, Mapping):
        raise TypeError(
            f'where takes a mapping such as {{"feature": "search"}}, not {type(where).__name__}'
        )
    found: dict[str, tuple[str, ...]] = {}
    for word, given in where.items():
        key = _key("where", word)
        values = [given] if isinstance(given, str) else given
        if not isinstance(values, Collection) or isinstance(values, (bytes, Mapping)):
            raise TypeError(f"where: {word} takes text or a list of texts, not {given!r}")
        if not all(isinstance(value, str) for value in values):
            raise TypeError(f"where: {word} takes text or a list of texts, not {given!r}")
        if not values:
            raise ValueError(f"where: {word} has no values, so no call would count")
        if key in found:
            raise ValueError(f"where names {key} twice")
        found[key] = tuple(sorted(set(map(cut, values))))
    if len(found) > _MOST_KEYS:
        raise ValueError(f"where takes at most {_MOST_KEYS} keys, not {len(found)}")
    return dict(sorted(found.items()))


def _tag(key: str) -> str | None:
    """Return the tag of a key, ``None`` for the model."""
    return None if key == "model" else key.removeprefix("tag:")


# -- the name --------------------------------------------------------------------------------------


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be text, not {type(name).__name__}")
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"name={name!r} must be 1 to {_LONGEST_NAME} characters, none of them invisible"
        )


def _made_name(
    unit: str, window: str, tz: str, per: Sequence[str], where: Mapping[str, Sequence[str]]
) -> str:
    """Return a name that budgets have in common only if they count the same.

    ``usd day Europe/Berlin per tag:user where tag:feature=search``
    """
    words = [unit, window]
    if tz.upper() != "UTC" and window in ("hour", "day", "week", "month"):
        words.append(tz)
    if per:
        words += ["per", ",".join(map(_word, per))]
    if where:
        words.append("where")
        words += [f"{_word(key)}={'|'.join(map(_word, values))}" for key, values in where.items()]
    name = " ".join(words)
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name[: _LONGEST_NAME - 20]}... {digest}"
    return name


def scope_part(tag: str, value: str) -> str:
    """Return what the scope of a budget with ``per`` a tag has in it of a value."""
    return f"{_word(tag)}={_word(value)}"


def _said(value: str | None) -> str:
    return MISSING if value is None else _word(value)


def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
