"""A selection as a condition of PostgreSQL over the rows of ``calls``.

Owns that translation, and whether it is exact: where it is not, more rows fit than are asked for,
and who reads them selects once more.  Values are always parameters.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from litellm_ledger._aggregates.calendar import PERIODS
from litellm_ledger._aggregates.groups import MISSING
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._records.record import KEYS

__all__ = ["BEATEN", "Condition", "can_be", "condition", "of_time"]

BEATEN: Final = """EXISTS (
    SELECT FROM litellm_ledger.beaten b WHERE b.writer_id = c.writer_id AND b.seq = c.seq
)"""
"""The condition that another outcome takes the place of a row of ``calls``: it counts nowhere."""

_MODEL: Final = "nullif(c.model, '')"
_NONE: Final = f"'{MISSING}'"
_MODEL_NAMES: Final = (
    f"coalesce({_MODEL}, {_NONE})",
    f"substr({_MODEL}, strpos({_MODEL}, '/') + 1)",
    f"nullif(c.provider, '') || '/' || {_MODEL}",
)
"""What ``model_names`` returns, and NULL for what there is not."""


class Condition(NamedTuple):
    """A condition over ``c``, a row of ``calls``.

    Attributes:
        text: with ``$1`` and so on.
        values: of these.
        exact: whether just what is asked for fits.
    """

    text: str
    values: list[Any]
    exact: bool


class _Values:
    """The parameters of a statement, numbered as they come."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def add(self, value: Any, kind: str) -> str:
        """Return what stands for a value of a type of PostgreSQL's."""
        self.all.append(value)
        return f"${len(self.all)}::{kind}"


def of_time(since: datetime | None, until: datetime | None) -> Condition:
    """Return the condition that an outcome is of this time: one without a time is of none."""
    values = _Values()
    return Condition(" AND ".join(_time(since, until, values)) or "true", values.all, exact=True)


def condition(selection: Selection) -> Condition:
    """Return what fits a selection; rows with a mark in the place of a sign are not thought of."""
    values = _Values()
    texts = _time(selection.since, selection.until, values)
    exact = True
    for asked, begun, wanted in (
        (selection.where, selection.begun, True),
        (selection.where_not, selection.not_begun, False),
    ):
        for key, named in asked.items():
            known = sorted(filter(can_be, named))
            beginnings = [one for one in begun.get(key, ()) if can_be(one)]
            if key in PERIODS:
                exact = False
                continue
            texts.append(_of_key(key, known, beginnings, values, wanted=wanted))
    if selection.compared:
        exact = False
    return Condition(" AND ".join(texts) or "true", values.all, exact)


def _time(since: datetime | None, until: datetime | None, values: _Values) -> list[str]:
    texts = []
    if since is not None:
        texts.append(f"c.ts >= {values.add(since.astimezone(UTC), 'timestamptz')}")
    if until is not None:
        texts.append(f"c.ts < {values.add(until.astimezone(UTC), 'timestamptz')}")
        texts.append("c.ts > '-infinity'")
    return texts


def _of_key(
    key: str, known: Sequence[str], beginnings: Sequence[str], values: _Values, *, wanted: bool
) -> str:
    """Return the condition that a key has one of these values, or (not ``wanted``) none."""
    if key.startswith("tag:"):
        tag = key.removeprefix("tag:")
        if not can_be(tag):
            return "true" if (MISSING in known) is wanted else "false"
        if wanted and known and not beginnings and MISSING not in known:  # the index tells
            each = (msgspec.json.encode({tag: value}).decode() for value in known)
            either = " OR ".join(f"c.tags @> {values.add(one, 'jsonb')}" for one in each)
            return f"({either})"
        names: Sequence[str] = (f"coalesce(c.tags ->> {values.add(tag, 'text')}, {_NONE})",)
    elif key == "model":
        names = _MODEL_NAMES
    else:
        assert key in KEYS, key
        names = (f"coalesce(nullif(c.{key}, ''), {_NONE})",)
    given = values.add(list(known), "text[]")
    parts = [f"{name} = ANY({given})" for name in names]
    for name in names:
        parts += [
            f"({name} <> {_NONE} AND starts_with({name}, {values.add(one, 'text')}))"
            for one in beginnings
        ]
    return f"({' OR '.join(parts)}) IS {'' if wanted else 'NOT '}TRUE"


def can_be(text: str) -> bool:
    """Whether a column can have this text: PostgreSQL has no U+0000, and no record half a pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
