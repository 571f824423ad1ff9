"""The members of a line as columns of a database: their names, types and what is derived of them.

Derives the list from the fields of a record, for reading JSON lines and for the views that people
query.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, cast

import msgspec
from msgspec import inspect

from litellm_ledger._records.line import Line

__all__ = ["COLUMNS", "OF_RECORD", "definitions", "quoted", "struct", "structure", "text_list"]

_SQL: Final = {
    inspect.BoolType: "BOOLEAN",
    inspect.DateTimeType: "TIMESTAMP",
    inspect.DictType: "JSON",
    inspect.FloatType: "DOUBLE",
    inspect.IntType: "BIGINT",
    inspect.LiteralType: "VARCHAR",
    inspect.StrType: "VARCHAR",
}


def _column(field: inspect.Field) -> str:
    kind = field.type.types[0] if isinstance(field.type, inspect.UnionType) else field.type
    return "MAP(VARCHAR, VARCHAR)" if field.name == "tags" else _SQL[type(kind)]


COLUMNS: Final = {
    field.encode_name: _column(field) for field in cast(Any, inspect.type_info(Line)).fields
}
"""Member to type; ``ts`` is in UTC."""

OF_RECORD: Final = tuple(name for name in COLUMNS if name not in ("gap_until", "reason"))
"""Those that an outcome or a ``started`` record may have."""


def quoted(text: str) -> str:
    """Write a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def text_list(texts: Iterable[str]) -> str:
    """Write texts as an SQL list."""
    return "[" + ", ".join(map(quoted, texts)) + "]"


def struct(columns: Mapping[str, str]) -> str:
    """Write names and types as the struct that ``read_json`` takes for ``columns``."""
    return "{" + ", ".join(f"{name}: {quoted(kind)}" for name, kind in columns.items()) + "}"


def definitions() -> str:
    """Write the columns as ``CREATE TABLE`` takes them."""
    return ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())


@cache
def structure() -> str:
    """Write the columns as the text that ``from_json`` takes for a structure."""
    return quoted(msgspec.json.encode(COLUMNS).decode())
