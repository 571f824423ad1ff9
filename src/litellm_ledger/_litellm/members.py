"""Members of foreign objects, looked up so that nothing raises, and the numbers among them.

Owns ``member``, the cheap ``view``, their JSON, and what counts as a count.  Pure; decides nothing
about a record but how ``meta`` grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from litellm_ledger._records.record import MAX_INT

__all__ = ["count", "member", "merged", "note", "note_price", "noted", "parsed", "text", "view"]


def parsed(data: bytes | str, kind: Any = Any) -> Any:
    """What a provider's JSON says; ``None`` of what is none, or nests too deep to be read."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def note(fields: dict[str, Any], meta: Mapping[str, Any]) -> None:
    """Add to the ``meta`` of an outcome."""
    if meta:
        fields["meta"] = {**(fields.get("meta") or {}), **meta}


def merged(fields: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, the second over the first, their ``meta`` joined."""
    both = {**fields, **over}
    below, above = fields.get("meta"), over.get("meta")
    if below and above:
        both["meta"] = {**below, **above}
    return both


def note_price(fields: dict[str, Any], conditions: Mapping[str, Any]) -> None:
    """Add what the price hung on to the ``meta`` of an outcome; what the answer said counts."""
    if conditions:
        note(fields, {"price": {**conditions, **(noted(fields, "price") or {})}})


def noted(fields: Mapping[str, Any], name: str) -> Any:
    """What the ``meta`` of an outcome says under a name."""
    return (fields.get("meta") or {}).get(name)


def member(source: Any, name: str) -> Any:
    """``source[name]`` or ``source.name``, ``None`` if there is no such thing or it raises."""
    try:
        if isinstance(source, dict):
            return source.get(name)
        value = getattr(source, name, None)
        if value is None and isinstance(source, Mapping):
            value = source.get(name)
        return value
    except Exception:
        return None


def view(source: Any) -> Any:
    """``source`` as something with a cheap ``get``.

    A pydantic model's fields lie in its ``__dict__`` and further members in ``__pydantic_extra__``;
    looking there costs a tenth of a ``getattr`` that fails.
    """
    if type(source) is dict:
        return source
    own = getattr(source, "__dict__", None)
    if own and hasattr(source, "__pydantic_extra__"):
        extra = source.__pydantic_extra__
        return {**own, **extra} if extra else own
    return source if isinstance(source, Mapping) else _Attributes(source)


class _Attributes:
    __slots__ = ("_source",)

    def __init__(self, source: Any) -> None:
        self._source = source

    def get(self, name: str) -> Any:
        return member(self._source, name)


def count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_INT else None


def text(value: Any) -> str | None:
    """A text that is not empty; an enum member of ``str`` becomes plain text."""
    return str(value) if isinstance(value, str) and value else None
