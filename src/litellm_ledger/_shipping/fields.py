"""One value as a field of a row, as ``COPY … FROM STDIN (FORMAT binary)`` reads it.

Owns that form, and remembers what many rows have in common.  Pure: values in, bytes out.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

__all__ = [
    "NULL",
    "combination",
    "field",
    "integer",
    "known_combinations",
    "known_objects",
    "known_tags",
    "length",
    "number",
    "object_of",
    "real",
    "start",
    "tags_of",
    "text",
    "word",
]

NULL: Final = b"\xff\xff\xff\xff"
_KEPT: Final = 16_384
"""Encoded values that are kept, each of at most ``_LONGEST`` bytes."""
_LONGEST: Final = 256

length: Final = struct.Struct(">i").pack
integer: Final = struct.Struct(">iq").pack
_float: Final = struct.Struct(">id").pack
_start: Final = struct.Struct(">iiii").pack
_BOOL: Final = {None: NULL, False: b"\0\0\0\1\0", True: b"\0\0\0\1\1"}

_tags: Final = msgspec.json.Decoder(dict[str, str] | None).decode
_object: Final = msgspec.json.Decoder(dict[str, Any] | None).decode

known_combinations: Final[dict[tuple[str | bool | None, ...], bytes]] = {}
known_tags: Final[dict[bytes, bytes]] = {}
known_objects: Final[dict[bytes, bytes]] = {}
"""What ``combination``, ``tags_of`` and ``object_of`` have made."""


def start(writer_id: int, month: int) -> bytes:
    """Return the two fields with which a row begins."""
    return _start(4, writer_id, 4, month)


def number(value: int | None) -> bytes:
    """Return a ``bigint``."""
    return NULL if value is None else integer(8, value)


def real(value: float | None) -> bytes:
    """Return a ``double precision``."""
    return NULL if value is None else _float(8, value)


def field(value: bytes) -> bytes:
    """Return what is these bytes, as ``bytea`` and ``json`` are."""
    return length(len(value)) + value


def text(value: str | None) -> bytes:
    """Return a ``text``."""
    return NULL if value is None else field(value.encode())


def word(value: str | bool | None) -> bytes:
    """Return a ``text`` or a ``boolean``."""
    return text(value) if isinstance(value, str) else _BOOL[value]


def combination(words: tuple[str | bool | None, ...]) -> bytes:
    """Return several words, of which there are few combinations."""
    made = b"".join(map(word, words))
    return made if len(made) > _LONGEST else _keep(known_combinations, words, made)


def tags_of(data: bytes) -> bytes:
    """Return a ``jsonb`` of tags, JSON as in a line; empty: there are none.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError: they are no tags.
    """
    if not data or _tags(data) is None:
        return NULL
    made = length(len(data) + 1) + b"\1" + data  # of jsonb there is one version
    return made if len(data) > _LONGEST else _keep(known_tags, data, made)


def object_of(data: bytes) -> bytes:
    """Return a ``json`` of an object, JSON as in a line; empty: there is none.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError: it is no object.
    """
    if not data or _object(data) is None:
        return NULL
    made = field(data)
    return made if len(data) > _LONGEST else _keep(known_objects, data, made)


def _keep(known: dict[Any, bytes], key: Any, made: bytes) -> bytes:
    if len(known) >= _KEPT:
        known.clear()
    known[key] = made
    return made
