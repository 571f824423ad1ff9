"""Request and answer as they are stored where the caller asked for it: plain JSON, bounded.

Owns what is taken (what the model reads and what it wrote, and nothing else of a request: no key,
header, address or metadata) and how much of it.  Pure.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from litellm_ledger._records.record import MAX_CONTENT

__all__ = ["captured"]

_TEXT: Final = 16_384
"""Characters kept of one text."""

_BUDGET: Final = MAX_CONTENT // 8
"""Characters kept in all: JSON may take six bytes for one, and needs its own marks."""

_ITEMS: Final = 1_000
_DEPTH: Final = 12
_MARK: Final = "…[cut]"


class _Taker:
    def __init__(self) -> None:
        self._left = _BUDGET
        self._items = _ITEMS

    def take(self, value: Any, depth: int = 0) -> Any:
        self._items -= 1
        if value is None or isinstance(value, (bool, int, float)):
            if isinstance(value, int) and abs(value) > 2**53:
                return self._text(str(value))
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, (bytes, bytearray)):
            head = base64.b64encode(bytes(value[:_TEXT])).decode()
            return self._text(head + _MARK if len(value) > _TEXT else head)
        if depth >= _DEPTH or self._items <= 0 or self._left <= 0:
            return _MARK
        dump = getattr(value, "model_dump", None)
        if callable(dump):
            value = dump(exclude_none=True)
        if isinstance(value, Mapping):
            return {
                self._text(str(key)): self.take(item, depth + 1)
                for key, item in list(value.items())[: max(0, self._items)]
            }
        if isinstance(value, Sequence):
            return [self.take(item, depth + 1) for item in value[: max(0, self._items)]]
        return f"<{type(value).__name__}>"

    def _text(self, text: str) -> str:
        keep = max(0, min(_TEXT, self._left))
        if len(text) > keep:
            text = text[:keep] + _MARK
        self._left -= len(text)
        return text.encode("utf-8", "replace").decode("utf-8")


def captured(request: Mapping[str, Any], answer: Any) -> dict[str, Any]:
    """Return ``request`` (the arguments that the model reads) and ``answer``, cut to fit a record.

    Texts are cut at 16,384 characters, all of it at 32,768; what was cut ends in ``…[cut]``.
    Never raises: what cannot be read is named by its type.
    """
    taker = _Taker()
    found: dict[str, Any] = {}
    for name, value in (("request", dict(request)), ("answer", answer)):
        if value is None or value == {}:
            continue
        try:
            found[name] = taker.take(value)
        except Exception:
            found[name] = f"<{type(value).__name__}>"
    return found
