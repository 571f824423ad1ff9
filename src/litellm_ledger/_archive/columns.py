"""The members of a line as columns of a database: their names, types and what is derived of them.

Owns the list, for reading JSON lines and for the views that people query.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

import msgspec

__all__ = ["COLUMNS", "OF_RECORD", "definitions", "quoted", "struct", "structure", "text_list"]

COLUMNS: Final = {
    "id": "VARCHAR",
    "seq": "BIGINT",
    "kind": "VARCHAR",
    "ts": "TIMESTAMP",
    "operation": "VARCHAR",
    "attempt": "BIGINT",
    "call": "VARCHAR",
    "model": "VARCHAR",
    "response_model": "VARCHAR",
    "provider": "VARCHAR",
    "status": "VARCHAR",
    "error": "VARCHAR",
    "input_tokens": "BIGINT",
    "output_tokens": "BIGINT",
    "total_tokens": "BIGINT",
    "cache_read_tokens": "BIGINT",
    "cache_write_tokens": "BIGINT",
    "reasoning_tokens": "BIGINT",
    "images": "BIGINT",
    "audio_seconds": "DOUBLE",
    "characters": "BIGINT",
    "pages": "BIGINT",
    "search_units": "BIGINT",
    "usage_source": "VARCHAR",
    "cost_picousd": "BIGINT",
    "cost_source": "VARCHAR",
    "price_version": "VARCHAR",
    "cache_hit": "BOOLEAN",
    "saved_cost_picousd": "BIGINT",
    "latency_ms": "DOUBLE",
    "ttft_ms": "DOUBLE",
    "stream": "BOOLEAN",
    "tags": "MAP(VARCHAR, VARCHAR)",
    "call_id": "VARCHAR",
    "response_id": "VARCHAR",
    "meta": "JSON",
    "content": "JSON",
    "gap_until": "BIGINT",
    "reason": "VARCHAR",
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
