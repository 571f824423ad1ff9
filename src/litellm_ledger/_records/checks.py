"""Checks of arguments that several packages need.  Pure."""

from __future__ import annotations

from typing import Any

__all__ = ["is_number"]


def is_number(value: Any) -> bool:
    """Whether this is a number, and no ``bool``, which is an ``int`` only for Python."""
    return isinstance(value, int | float) and not isinstance(value, bool)
