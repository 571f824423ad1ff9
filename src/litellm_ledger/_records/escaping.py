"""Text from records, made safe for the terminal that shows it.

Owns which characters are shown as an escape: those that move the cursor, change colours or titles,
or turn the direction of writing.  Values are never changed in JSON, only written as ``\\uXXXX``.
Pure.
"""

from __future__ import annotations

import re
from typing import Any, Final
from unicodedata import category

__all__ = ["escaped", "json_text"]

_JOINERS: Final = "\u200c\u200d"  # part of words and emoji

_IN_JSON: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""What JSON may hold as it is and a terminal must not get: DEL, C1 controls, bidi controls, line
separators."""


def escaped(text: str, keep: str = "") -> str:
    """Return text with each control or invisible character as its escape, ``\\x1b`` for example.

    Args:
        keep: characters that are left as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) or c in keep else ascii(c)[1:-1] for c in text)


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or category(char) == "Zs"


def json_text(value: Any, *, indent: bool = False) -> str:
    """Return a value as JSON that a terminal can show: readable, or on one line."""
    import msgspec  # here, so that a command that prints no JSON starts without it

    data = msgspec.json.encode(value)
    text = (msgspec.json.format(data, indent=2) if indent else data).decode()
    if text.isascii() and "\x7f" not in text:
        return text
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
