"""Bars and sparklines out of characters.

Owns the drawing of amounts as text; the amounts themselves always stand beside it.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

__all__ = ["bar", "sparkline"]

_RISING: Final = "▁▂▃▄▅▆▇█"
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw one character a value, or the sums of neighbours where there are more than ``width``.

    Anything above nothing is seen: only 0 (and less) is the lowest character.
    """
    if width < 1 or not values:
        return ""
    if len(values) > width:
        edges = [at * len(values) // width for at in range(width + 1)]
        values = [sum(values[a:b]) for a, b in pairwise(edges)]
    most = max(values)
    if most <= 0:
        return _RISING[0] * len(values)
    top = len(_RISING) - 1
    return "".join(
        _RISING[0 if value <= 0 else max(1, round(value / most * top))] for value in values
    )


def bar(share: float, width: int) -> str:
    """Draw a share of 1 as a bar, to an eighth of a character; a share above 0 is always seen."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    if share > 0:
        eighths = max(1, eighths)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")
