"""``Retention``: how long a ledger keeps what.

Owns the rule and the text that it is written in: ``400d``, ``10G``.  Pure.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

import msgspec

__all__ = ["Retention", "age", "retention", "size"]

_AGE: Final = re.compile(r"(\d{1,6})\s*(h|d|w|y)", re.ASCII)
_HOURS: Final = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}
_SIZE: Final = re.compile(r"(\d{1,15})\s*([kmgt]?)(i?b)?", re.ASCII | re.IGNORECASE)


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What may be removed from a ledger; at least one of the first two is given.

    Attributes:
        keep: records are kept at least so long after their ``ts``.
        max_size: bytes; when the ledger has more, the oldest records go, whatever their age.
        keep_aggregates: the sums of removed records (in their manifests) are kept so long after
            the ``ts`` of these; ``None``: without limit.
    """

    keep: timedelta | None = None
    max_size: int | None = None
    keep_aggregates: timedelta | None = None

    def __post_init__(self) -> None:
        if self.keep is None and self.max_size is None:
            raise ValueError("a retention rule needs keep (400d), max_size (10G) or both")
        ages = (("keep", self.keep), ("keep_aggregates", self.keep_aggregates))
        for name, given in ages:
            if given is not None and given < timedelta():
                raise ValueError(f"{name}={given}: give a time of 0 or more")
        if self.max_size is not None and self.max_size < 1:
            raise ValueError(f"max_size={self.max_size}: give a number of bytes above 0")

    def __str__(self) -> str:
        parts = [
            f"keep {_text(self.keep)}" if self.keep is not None else "",
            f"at most {self.max_size:,} bytes" if self.max_size is not None else "",
        ]
        if self.keep_aggregates is not None:
            parts.append(f"aggregates {_text(self.keep_aggregates)}")
        return ", ".join(filter(None, parts))


def retention(given: Any) -> Retention | None:
    """Return the rule that somebody gave: one, a time (``400d``, ``timedelta``), a size (``10G``).

    Raises:
        ValueError: it is none of these.
    """
    if given is None or isinstance(given, Retention):
        return given
    if isinstance(given, timedelta):
        return Retention(keep=given)
    if isinstance(given, str):
        if _AGE.fullmatch(given.strip().lower()):
            return Retention(keep=age(given))
        if _SIZE.fullmatch(given.strip()):
            return Retention(max_size=size(given))
    raise ValueError(
        f"retention={given!r}: give how long records are kept (400d), how large the ledger may be "
        "(10G), or a Retention"
    )


def age(text: str) -> timedelta:
    """Read a time: ``24h``, ``400d``, ``52w``, ``7y`` (of 365 days).

    Raises:
        ValueError: it is none.
    """
    found = _AGE.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no time to keep records; give 24h, 400d, 52w or 7y")
    return timedelta(hours=int(found[1]) * _HOURS[found[2]])


def size(text: str) -> int:
    """Read a size in bytes: ``500M``, ``10G``, in powers of 1,024.

    Raises:
        ValueError: it is none.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise ValueError(f"{text!r} is no size; give bytes, or 500M, 10G, 1T")
    return int(found[1]) << 10 * " kmgt".index(found[2].lower() or " ")


def _text(given: timedelta) -> str:
    hours = given / timedelta(hours=1)
    return f"{hours / 24:g} d" if hours % 24 == 0 else f"{hours:g} h"
