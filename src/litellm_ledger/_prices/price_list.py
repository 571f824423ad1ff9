"""A list of prices to price records by: a price map in LiteLLM's format, or a user's prices.

Owns the forms of such a file, and the search for the entry of a record.  A name that might mean two
models means none: what is not found keeps its cost.  Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

from .entry import Entry
from .fees import with_fees
from .own import AMOUNTS, ModelPrice, Prices, find_price, price_table

__all__ = ["PriceList"]

_OWN: Final = frozenset({*AMOUNTS, "per", "valid_from"})


class PriceList:
    """Prices by name.

    Args:
        text: JSON: name to an entry as LiteLLM's price map has it, or to the members of a
            ``ModelPrice`` (or a list of such, with ``valid_from``).

    Raises:
        ValueError: it is neither; the text says what is wrong.
    """

    def __init__(self, text: bytes) -> None:
        try:
            found = json.loads(text, parse_float=_number)
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"not JSON: {exc}") from None
        if not isinstance(found, dict) or not found:
            raise ValueError("no object that maps names of models to prices")
        self._map: dict[str, Mapping[str, Any]] = {}
        self._own: Prices = {}
        self._entries: dict[tuple[str, str | None], Entry | None] = {}
        if any(_is_own(given) for given in found.values()):
            try:
                self._own = price_table({name: _own(given) for name, given in found.items()})
            except (TypeError, ValueError) as exc:
                raise ValueError(str(exc)) from None
        else:
            self._map = {name: given for name, given in found.items() if isinstance(given, dict)}
            if not any(map(_has_price, self._map.values())):
                raise ValueError("no model in it has a price")

    def find(self, fields: Mapping[str, Any], known: Entry | ModelPrice | None) -> Any:
        """Return the entry that prices a record (``Entry`` or ``ModelPrice``), or ``None``.

        Args:
            fields: the record's.
            known: what it was priced by, if that is kept: its name is looked up first.
        """
        said = (fields.get("meta") or {}).get("price")
        said = said if isinstance(said, dict) else {}
        if self._own:
            model = fields.get("model")
            model = f"batch/{model}" if model and said.get("batch") else model
            ts = fields.get("ts") or datetime.min.replace(tzinfo=UTC)
            return find_price(self._own, model, fields.get("provider"), ts)
        provider = fields.get("provider")
        if isinstance(known, Entry) and (found := self._entry(known.key, provider)) is not None:
            return found
        names = [said.get("base_model")]
        if not names[0]:
            names = [fields.get("response_model"), fields.get("model")]
        for name in filter(None, names):
            for key in _keys(str(name), provider):
                entry = self._entry(key, provider)
                if entry is not None and _is_of(entry, provider):
                    return entry
        return None

    def _entry(self, key: str, provider: str | None) -> Entry | None:
        asked = key, provider
        if asked not in self._entries:
            given, found = self._map.get(key), None
            if given and _has_price(given):
                shared = self._map.get(f"{provider}/container")
                found = Entry(key, with_fees(given, provider, shared))
            self._entries[asked] = found
        return self._entries[asked]


class _Number(float):
    """A number that remembers its digits, for prices that are decimal text."""

    text: str


def _number(text: str) -> _Number:
    number = _Number(text)
    number.text = text
    return number


def _has_price(entry: Mapping[str, Any]) -> bool:
    return any("cost" in name or "pric" in name for name in entry)


def _is_own(given: Any) -> bool:
    """Whether this is a user's price: no entry of LiteLLM's map is a list or has such a member."""
    return isinstance(given, list) or (isinstance(given, dict) and not _OWN.isdisjoint(given))


def _own(given: Any) -> Any:
    if isinstance(given, list):
        return [_own(one) for one in given]
    if not isinstance(given, dict):
        raise TypeError(f"a price has members such as input and output, not {given!r:.40}")
    if unknown := next((name for name in given if name not in _OWN), None):
        raise ValueError(
            f"your own price has no member {unknown!r:.40}; it has {', '.join(sorted(_OWN))}"
        )
    members: dict[str, Any] = {
        name: Decimal(value.text) if isinstance(value, _Number) else value
        for name, value in given.items()
    }
    begin = members.get("valid_from")
    if isinstance(begin, str):
        day = len(begin) == len("2026-01-01")
        members["valid_from"] = (date if day else datetime).fromisoformat(begin)
    return ModelPrice(**members)


def _keys(name: str, provider: str | None) -> Iterator[str]:
    """Yield the keys that a model may have in a price map."""
    bare = name.removeprefix(f"{provider}/") if provider else name
    if provider:
        yield f"{provider}/{bare}"
    yield name
    if bare != name:
        yield bare


def _is_of(entry: Entry, provider: str | None) -> bool:
    """Whether an entry is the provider's: ``vertex_ai-language-models`` is ``vertex_ai``'s."""
    theirs = entry.members.get("litellm_provider")
    if provider is None:
        return True
    if not isinstance(theirs, str):
        return entry.key.startswith(f"{provider}/")
    return theirs == provider or theirs.startswith((f"{provider}-", f"{provider}_"))
