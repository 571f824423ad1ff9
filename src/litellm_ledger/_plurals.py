"""How many of what: ``1 writer``, ``2,000 writers``; and the first few of many.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["counted", "listed"]


def counted(count: int, noun: str, plural: str = "") -> str:
    """Write a count with its noun, in the plural unless it is 1."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], most: int) -> str:
    """Write the first names, and an ellipsis if there are more."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
