"""Objects to bytes and back to equal, fresh objects: what a cache keeps of an answer.

Owns the exact form: plain values, containers, enums, and the state of LiteLLM's and OpenAI's
pydantic models, down to which fields were set.  Not pickle: unpacking runs no code of the bytes'
choice, it only fills in classes of those two packages.  Also owns the one-way form in which
arguments are compared (``fingerprint``).  Pure.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import sys
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from importlib import import_module
from types import NoneType
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

__all__ = ["Unpackable", "fingerprint", "pack", "refusing", "unpack"]

_HOMES: Final = ("litellm.", "openai.")
"""Where classes may come from that are made from bytes …"""
_TYPES: Final = ("litellm.types.", "openai.types.")
"""… and which of those modules are imported for that: they hold types and do nothing else."""

_PLAIN: Final = frozenset({NoneType, bool, int, float, str, bytes})
_TEXTUAL: Final = (Decimal, date, datetime, time, timedelta, UUID)

_TUPLE, _SET, _ENUM, _MODEL, _TYPE, _TEXT, _MAP, _BINARY = range(1, 9)
_BINARY_CLASS: Final = "HttpxBinaryResponseContent"
"""The answer of ``aspeech``, which is no model."""

_HIDDEN: Final = frozenset(
    {
        "_response_ms",
        "additional_headers",
        "audio_transcription_duration",
        "created_at",
        "custom_llm_provider",
        "headers",
        "litellm_model_name",
        "model",
        "model_id",
        "original_response",
        "provider_response_model",
        "received_model_id",
        "region_name",
        "response_cost",
        "usage",
    }
)
"""What is kept of LiteLLM's hidden parameters.  The address may hold a key, and is not."""

_SECRET: Final = ("auth", "cookie", "key", "token")
"""Parts of the names of headers that are not kept."""

_encode = msgspec.msgpack.Encoder().encode


class Unpackable(TypeError):
    """An object, or bytes, that cannot be packed, or unpacked, exactly."""


class refusing:  # noqa: N801 - it reads as contextlib.suppress does, at a third of a generator's time
    """Raise ``Unpackable`` for whatever goes wrong inside."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, Exception) and not isinstance(exc, Unpackable):
            raise Unpackable(f"{self._what}: {type(exc).__name__}") from exc


def pack(value: Any) -> bytes:
    """Return ``value`` as bytes; refuse what cannot be made again, such as an open connection."""
    return _packed(value, _kept)


def fingerprint(value: Any) -> bytes:
    """Return 32 bytes that are the same for equal values only (SHA-256).

    Equal to the letter: 1 is not 1.0, and the members of a mapping count in their order, because a
    model reads them in it.  What cannot be compared, such as a function, is refused.
    """
    return hashlib.sha256(_packed(value, _compared)).digest()


def unpack(data: bytes) -> Any:
    """Return a fresh object, equal to what was packed; refuse any other bytes."""
    with refusing("not what was packed"):
        return _decode(data)


# --- Packing ---------------------------------------------------------------------------------


def _packed(value: Any, other: Any) -> bytes:
    with refusing(type(value).__name__):  # too deep, too large a number, half a surrogate pair
        return _encode(_tree(value, other))


def _tree(value: Any, other: Any) -> Any:
    """What msgspec encodes exactly; anything beyond plain values is an extension."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list:
        if _PLAIN.issuperset(map(type, value)):  # the numbers of an embedding, say
            return value
        return [_tree(item, other) for item in value]
    if kind is dict:
        if not _PLAIN.issuperset(map(type, value)):
            raise Unpackable("a mapping has a member with a name that is no plain value")
        return {name: _tree(item, other) for name, item in value.items()}
    if kind is tuple:
        return Ext(_TUPLE, _encode([_tree(item, other) for item in value]))
    if isinstance(value, enum.Enum):
        if other is _kept:
            _class_of(_class_name(kind))
        return Ext(_ENUM, _encode([_class_name(kind), value.name, repr(value.value)]))
    if kind in (set, frozenset):
        return Ext(_SET, _encode(sorted(_encode(_tree(item, other)) for item in value)))
    return other(value, kind)


def _kept(value: Any, kind: type) -> Ext:
    """What is packed to be made again."""
    name = _class_name(kind)
    if _is_model(kind):
        _class_of(name)  # now, and not when it is asked for
        private = value.__pydantic_private__
        return Ext(_MODEL, _encode([name, *_state(value, _kept), _private(private)]))
    if kind.__name__ == _BINARY_CLASS:
        hidden = vars(value).get("_hidden_params")
        answer = value.response
        headers = [pair for pair in answer.headers.items() if pair[0] in ("content-type", "date")]
        parts = [name, answer.status_code, headers, answer.content, {"_": _hidden(hidden or {})}]
        return Ext(_BINARY, _encode(_tree(parts, _kept)))
    raise Unpackable(f"{kind.__name__} cannot be stored")


def _state(value: Any, other: Any) -> list[Any]:
    own = {name: item for name, item in value.__dict__.items() if name != "usage_record"}
    extra = value.__pydantic_extra__
    return [
        _tree(own, other),
        sorted(value.__pydantic_fields_set__),
        None if extra is None else _tree(dict(extra), other),
    ]


def _private(private: Any) -> Any:
    """Hidden attributes, as far as they say something of the answer and can be stored."""
    if private is None:
        return None
    kept: dict[str, Any] = {}
    for name, value in private.items():
        if name == "_hidden_params" and _is_model(type(value)):
            state = {**dict.fromkeys(value.__dict__), **_hidden(value.__dict__)}
            extra = _hidden(value.__pydantic_extra__ or {})
            parts = [_class_name(type(value)), state, sorted(state), extra, None]
            kept[name] = Ext(_MODEL, _encode(parts))
        elif isinstance(value, dict):
            kept[name] = _hidden(value) if name == "_hidden_params" else _headers(value)
        else:  # its name has to be there: it is read without a look whether it is
            kept[name] = value if type(value) in _PLAIN else None
    return kept


def _hidden(params: Mapping[str, Any]) -> dict[str, Any]:
    """LiteLLM puts all sorts of things there, in some versions the arguments of the call."""
    kept: dict[str, Any] = {}
    for name in _HIDDEN.intersection(params):
        value = params[name]
        with contextlib.suppress(Exception):  # what cannot be packed is left out
            tree = _headers(value) if isinstance(value, Mapping) else _tree(value, _kept)
            _encode(tree)
            kept[name] = tree
    return kept


def _headers(found: Mapping[str, Any]) -> dict[str, Any]:
    """Headers of an answer, but for those that may let somebody in."""
    return {
        name: value
        for name, value in found.items()
        if type(name) is str
        and type(value) in _PLAIN
        and not any(word in name.lower() for word in _SECRET)
    }


def _compared(value: Any, kind: type) -> Any:
    """What is packed to be compared only: any model, the schema of a class, dates, amounts."""
    if _is_model(kind):
        return Ext(_MODEL, _encode([_class_name(kind), *_state(value, _compared)]))
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        schema = _tree(value.model_json_schema(), _compared)
        return Ext(_TYPE, _encode([_class_name(value), schema]))
    if isinstance(value, _TEXTUAL):
        return Ext(_TEXT, _encode([_class_name(kind), str(value)]))
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Mapping):
        items = [[_tree(name, _compared), _tree(item, _compared)] for name, item in value.items()]
        return Ext(_MAP, _encode([_class_name(kind), items]))
    raise Unpackable(f"{kind.__name__} cannot be compared")


def _is_model(kind: type) -> bool:
    return hasattr(kind, "__pydantic_fields_set__")


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


# --- Unpacking -------------------------------------------------------------------------------


@lru_cache(maxsize=1_024)
def _class_of(name: str) -> Any:
    module, _, path = name.partition(":")
    if not module.startswith(_HOMES):
        raise Unpackable(f"{name} is not a class of LiteLLM's or OpenAI's")
    with refusing(f"there is no {name}"):
        found: Any = sys.modules.get(module)
        if found is None and module.startswith(_TYPES):
            found = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    if not isinstance(found, type) or _class_name(found) != name:
        raise Unpackable(f"{name} is not that class")
    return found


def _decode(data: bytes | memoryview) -> Any:
    return msgspec.msgpack.decode(data, ext_hook=_unpacked)


def _unpacked(code: int, data: memoryview) -> Any:
    parts = _decode(data)
    if code == _TUPLE:
        return tuple(parts)
    if code == _SET:
        return set(map(_decode, parts))
    kind = _class_of(parts[0])
    if code == _ENUM and issubclass(kind, enum.Enum):
        return kind[parts[1]]
    if code == _MODEL and _is_model(kind):
        _, own, fields_set, extra, private = parts
        made = kind.__new__(kind)
        put = object.__setattr__  # past its validators: it was valid when it was packed
        put(made, "__dict__", own)
        put(made, "__pydantic_fields_set__", set(fields_set))
        put(made, "__pydantic_extra__", extra)
        put(made, "__pydantic_private__", private)
        return made
    if code == _BINARY and kind.__name__ == _BINARY_CLASS:
        _, status, headers, content, hidden = parts
        answer = import_module("httpx").Response(status, headers=headers, content=content)
        made = kind(answer)
        made._hidden_params = hidden["_"]  # noqa: SLF001 - LiteLLM keeps there what it answers beside the response
        return made
    raise Unpackable(f"no object has the code {code}")
