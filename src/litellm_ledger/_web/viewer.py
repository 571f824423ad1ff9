"""``Viewer``: which calls somebody may see.

Owns the cut that every question goes through: what the viewer asks for can only narrow it.  Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

from litellm_ledger._aggregates.groups import MISSING
from litellm_ledger._records.record import CUT_MARK, MAX_TEXT

__all__ = ["Scope", "Viewer", "narrowed", "sees"]

Scope = dict[str, list[str]] | None
"""Tag to the values that may be seen, all tags must match; ``None``: everything."""

_NOBODY: Final[Mapping[str, str]] = MappingProxyType({})


class Viewer:
    """Somebody who looks at the dashboard, and the calls that they may see.

        Viewer(tags={"tenant": "acme"})
        Viewer(operator=True)

    Every answer is cut to the calls that have all of the tags, each with the value (or one of the
    values) given.  No parameter of a request widens that.

    Args:
        tags: tag name to the value, or the values, that may be seen.
        operator: sees every call, and the ledger itself: writers, disk, verification.

    Raises:
        ValueError: neither tags nor ``operator``, or both; a value that is no text of a tag.
    """

    __slots__ = ("_scope",)

    def __init__(
        self,
        tags: Mapping[str, str | Collection[str]] = _NOBODY,
        *,
        operator: bool = False,
    ) -> None:
        if operator is bool(tags):
            raise ValueError(
                "give a Viewer either tags, such as tags={'tenant': 'acme'}, or operator=True"
            )
        self._scope: Scope = None if operator else {k: _values(k, v) for k, v in tags.items()}

    def __repr__(self) -> str:
        return "Viewer(operator=True)" if self.operator else f"Viewer(tags={self._scope!r})"

    @property
    def operator(self) -> bool:
        """Whether this viewer sees everything."""
        return self._scope is None

    @property
    def scope(self) -> Scope:
        """What this viewer may see."""
        return None if self._scope is None else {k: [*v] for k, v in self._scope.items()}


def _values(tag: str, given: str | Collection[str]) -> list[str]:
    values = [given] if isinstance(given, str) else [*given]
    if not isinstance(tag, str) or not tag:
        raise ValueError(f"a tag has a name: {tag!r}")
    for value in values:
        # A call without the tag shows as "(none)", and what is too long is cut on record: two
        # tenants would be one.
        if not isinstance(value, str) or value == MISSING:
            raise ValueError(f"the value of tag {tag} must be text, and not {MISSING!r}: {value!r}")
        if len(value) > MAX_TEXT or value.endswith(CUT_MARK):
            raise ValueError(f"a value of tag {tag} has more than {MAX_TEXT:,} characters")
    return values


def narrowed(scope: Scope, where: Mapping[str, Collection[str]]) -> dict[str, frozenset[str]]:
    """Return conditions that hold for what is asked and for what may be seen."""
    found = {key: frozenset(values) for key, values in where.items()}
    for tag, values in (scope or {}).items():
        key = f"tag:{tag}"
        found[key] = found.get(key, frozenset(values)).intersection(values)
    return found


def sees(scope: Scope, record: Any) -> bool:
    """Whether a record may be seen."""
    if scope is None:
        return True
    tags = record.tags or {}
    return all(tags.get(tag) in values for tag, values in scope.items())
