"""A row of ``calls`` as the line that it was: the expression that PostgreSQL writes it with.

Owns the form of each member.  The members come from ``Line`` itself, so that a new one is not
forgotten.  Pure.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from litellm_ledger._archive.columns import OF_RECORD

__all__ = ["TEXTS", "id_of", "line_of_row"]

TEXTS: Final = "SET LOCAL extra_float_digits = 1; SET LOCAL DateStyle = ISO"
"""Has texts of numbers be the shortest that mean them, whatever the server's settings."""

_HEAD: Final = ("id", "seq", "kind")
_NUMBERS: Final = frozenset(
    {
        "attempt",
        "audio_seconds",
        "cache_read_tokens",
        "cache_write_tokens",
        "characters",
        "cost_picousd",
        "hold_picousd",
        "hold_tokens",
        "images",
        "input_tokens",
        "latency_ms",
        "most_picousd",
        "most_tokens",
        "output_tokens",
        "pages",
        "reasoning_tokens",
        "saved_cost_picousd",
        "search_units",
        "total_tokens",
        "ttft_ms",
    }
)
_FLAGS: Final = frozenset({"cache_hit", "stream"})
_JSON: Final = frozenset({"content", "meta", "tags"})
_SUMMED: Final = (
    "ts",
    "operation",
    "attempt",
    "call",
    "model",
    "response_model",
    "provider",
    "status",
    "error",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "usage_source",
    "cost_picousd",
    "cost_source",
    "cache_hit",
    "saved_cost_picousd",
    "latency_ms",
    "ttft_ms",
    "tags",
)
"""What is added up, grouped by or selected by."""


def id_of(number: str) -> str:
    """Return the expression of the id that a record of the writer ``w`` has by its number."""
    return f"(w.writer || '-' || pg_catalog.lpad({number}::text, 16, '0'))"


@cache
def line_of_row(*, slim: bool) -> str:
    """Return the expression over ``c`` and its writer ``w``: a line up to its checksum.

    Args:
        slim: only what sums are made of.
    """
    head = (
        "'{\"v\":1,\"id\":\"', w.writer, '-', pg_catalog.lpad(c.seq::text, 16, '0'), "
        '\'","seq":\', c.seq, \',"kind":"usage"\''
    )
    members = [
        _member(name) for name in OF_RECORD if name not in _HEAD and (not slim or name in _SUMMED)
    ]
    return f"pg_catalog.concat({', '.join([head, *members])})"


def _member(name: str) -> str:
    """Return the expression of a member and its name; NULL where there is none."""
    said, column = f"',\"{name}\":'", f"c.{name}"
    if name == "ts":
        form = "'YYYY-MM-DD\"T\"HH24:MI:SS.US'"
        text = f"pg_catalog.to_char({column} AT TIME ZONE 'UTC', {form})"
        return f"CASE WHEN {column} > '-infinity' THEN ',\"ts\":\"' || {text} || 'Z\"' END"
    if name == "operation":
        own = id_of("c.operation_seq")
        return (
            f"CASE WHEN c.operation_seq IS NOT NULL THEN {said} || '\"' || {own} || '\"' "
            f"ELSE {said} || pg_catalog.to_json({column})::text END"
        )
    if name in _NUMBERS or name in _FLAGS or name in _JSON:
        return f"{said} || {column}::text"
    return f"{said} || pg_catalog.to_json({column})::text"
