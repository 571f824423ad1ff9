"""How the values of tags are spread over calls, and which tags summarise the calls best.

Owns the choice of the tags that a page lists.  Counts nothing itself.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["LARGEST", "TagValues", "summarising"]

LARGEST: Final = 10
"""The values of a tag that have a row in a table: those of most calls, or of most cost."""

_ENOUGH: Final = 0.1
"""Part of the calls that these rows must show for the table to say something."""


class TagValues(msgspec.Struct, frozen=True, kw_only=True):
    """How the values of a tag are spread.

    Attributes:
        calls: calls that have the tag.
        values: different values.
        largest: calls that have one of the ``LARGEST`` values of most calls.
    """

    calls: int
    values: int
    largest: int


def summarising(tags: Mapping[str, TagValues], calls: int) -> list[str]:
    """Return the tags that summarise the calls, the best first.

    A tag does so if the rows of a table show a good part of the calls, which those of a request id
    do not.  Of two that show as much, the one with more values says more.  ``user`` comes first; it
    is listed also where there are many users, unless there is about one call for each.
    """

    def shown(name: str) -> float:
        return tags[name].largest / calls

    def says_something(name: str) -> bool:
        tag = tags[name]
        if name == "user" and tag.calls >= 2 * tag.values:
            return True
        return shown(name) >= _ENOUGH and (tag.values > 1 or tag.calls < calls)

    return sorted(
        filter(says_something, tags),
        key=lambda name: (name != "user", -shown(name), -tags[name].values, name),
    )
