"""Conditions on records, as people write them: ``env=prod``, ``model=gpt-*``, ``cost>0.01``.

Owns their forms, and the comparison of a number of a record.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Final, NamedTuple

from litellm_ledger._records.money import PICO, whole
from litellm_ledger._records.record import Fields

from .calendar import PERIODS
from .groups import MISSING, named

__all__ = ["NUMBERS", "Comparison", "Conditions", "read_conditions"]

NUMBERS: Final = {
    "cost": "cost",
    "saved_cost": "saved_cost",
    "tokens": "total_tokens",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "total_tokens": "total_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "latency": "latency_ms",
    "latency_ms": "latency_ms",
    "ttft": "ttft_ms",
    "ttft_ms": "ttft_ms",
    "attempt": "attempt",
}
"""What can be compared, and the member of a record that it is; apart from ``ts``."""

_MONEY: Final = ("cost", "saved_cost")
_MEASURED: Final = ("latency_ms", "ttft_ms")
_BEYOND: Final = 2**100
"""Larger than any number of a record."""

_COMPARED: Final = re.compile(
    rf"\s*({'|'.join(NUMBERS)}|ts)\s*(!==|==|!=|<=|>=|<|>|=)(.*)", re.DOTALL
)
_NUMBER: Final = re.compile(
    r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})(e[+-]?\d{1,2})?", re.IGNORECASE
)
_FORMS: Final = (
    "write KEY=VALUE or KEY!=VALUE, such as tag:env=prod, status!=ok or model=gpt-*; < > <= and >= "
    "compare cost, tokens, latency and their like, and ts"
)


class Comparison(NamedTuple):
    """What a number of a record must be.

    Attributes:
        name: the member; money is in picodollars.
        sign: ``<``, ``<=``, ``>``, ``>=``, which a record without the number does not pass; ``=``
            (one of ``values``) or ``!=`` (none of them).
        values: one for the first four; ``None`` stands for a record without the number.
    """

    name: str
    sign: str
    values: tuple[int | float | None, ...]

    @property
    def column(self) -> str:
        """The column of the database."""
        return f"{self.name}_picousd" if self.name in _MONEY else self.name

    @property
    def type(self) -> str:
        """What its values are to the database."""
        return "DOUBLE" if self.name in _MEASURED else "HUGEINT"

    def holds(self, record: Fields) -> bool:
        """Tell whether a record passes; its money may be picodollars or dollars."""
        value = getattr(record, self.name)
        if isinstance(value, Decimal):
            value = whole(value)
        if self.sign in ("=", "!="):
            return (value in self.values) is (self.sign == "=")
        bound = self.values[0]
        if value is None or bound is None:
            return False
        if self.sign[0] == "<":
            return bool(value < bound or (value == bound and self.sign == "<="))
        return bool(value > bound or (value == bound and self.sign == ">="))


class Conditions(NamedTuple):
    """What several conditions come to.

    Attributes:
        wanted, unwanted: group key to values: one of which a record must have, none may have.
        begun, not_begun: the same for beginnings of values; a wanted value may be either.
        compared: all must hold.
        times: of ``ts``: sign and time, as they were written.
        others: the texts of those that are not ``wanted`` or ``unwanted``.
    """

    wanted: dict[str, list[str]]
    unwanted: dict[str, list[str]]
    begun: dict[str, list[str]]
    not_begun: dict[str, list[str]]
    compared: list[Comparison]
    times: list[tuple[str, str]]
    others: list[str]


def read_conditions(texts: Iterable[str], *, flag: str = "--where ") -> Conditions:
    """Read conditions.

    ``KEY=VALUE`` and ``KEY!=VALUE``, where a ``*`` at the end of a value stands for any end; a
    value after ``==`` or ``!==`` is taken as it is.  Numbers (``NUMBERS``) are compared by
    ``< > <= >= = !=``, and so is ``ts``.  Of one key any ``=`` may match; all else must hold.

    Raises:
        ValueError: one that cannot be read; the text says how to write it.
    """
    found = Conditions({}, {}, {}, {}, [], [], [])
    equal: dict[tuple[str, str], list[int | float | None]] = {}
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{flag.strip()}: {text!r} is not text, such as 'env=prod'")
        if match := _COMPARED.match(text):
            word, sign, value = match[1], match[2].replace("==", "="), match[3].strip()
            if word == "ts":
                found.times.append((sign, value))
                continue
            comparison = _comparison(text, word, sign, value, flag)
            found.others.append(f"{word}{sign}{value}")
            if sign in ("=", "!="):
                equal.setdefault((comparison.name, sign), []).extend(comparison.values)
            else:
                found.compared.append(comparison)
        else:
            _of_key(text, found, flag)
    found.compared.extend(Comparison(*key, tuple(values)) for key, values in equal.items())
    return found


def _of_key(text: str, found: Conditions, flag: str) -> None:
    """Read a condition on a group key."""
    key, equals, value = text.partition("=")
    unwanted = key.endswith("!")
    key = key.removesuffix("!").strip()
    if not equals or not key or (key[-1] in "<>" and not key.startswith("tag:")):
        raise ValueError(f"{flag}{text!r}: {_FORMS}")
    key = named(key)
    exact = value.startswith("=")
    value = value.removeprefix("=")
    if exact or "*" not in value:
        (found.unwanted if unwanted else found.wanted).setdefault(key, []).append(value)
        return
    if value.index("*") < len(value) - 1:
        raise ValueError(
            f"{flag}{text!r}: * stands for any end of a value, and only there; to take the value "
            f"as it is, write {key}{'!' * unwanted}=={value}"
        )
    if key in PERIODS:
        raise ValueError(f"{flag}{text!r}: give a longer period (month=2025-03), or times")
    (found.not_begun if unwanted else found.begun).setdefault(key, []).append(value[:-1])
    found.others.append(f"{key}{'!' * unwanted}={value}")


def _comparison(text: str, word: str, sign: str, value: str, flag: str) -> Comparison:
    name = NUMBERS[word]
    if value == MISSING and sign in ("=", "!="):
        return Comparison(name, sign, (None,))
    digits = value.removeprefix("$") if name in _MONEY else value
    if not _NUMBER.fullmatch(digits):
        unit = (
            "US dollars" if name in _MONEY else "milliseconds" if name in _MEASURED else "a count"
        )
        raise ValueError(
            f"{flag}{text!r}: {word} is compared with a number ({unit}); for a tag of that name "
            f"write tag:{word}={value}"
        )
    number = Decimal(digits)
    if name in _MEASURED:
        return Comparison(name, sign, (float(number),))
    exact = Fraction(number) * (10**PICO if name in _MONEY else 1)
    if sign in ("=", "!="):
        return Comparison(name, sign, (int(exact),) if exact.denominator == 1 else ())
    # What is compared is whole, so that the next whole number will do.
    bound = ceil(exact) if sign in (">=", "<") else floor(exact)
    return Comparison(name, sign, (max(-_BEYOND, min(bound, _BEYOND)),))
