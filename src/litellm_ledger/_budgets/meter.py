"""How far the money of a stream reaches.

Owns the count of what was written against what is held, and how much more to ask for and when.
What a provider writes in a quarter of a second is kept ahead: that much may be on its way when the
stream is cut.  Pure: the clock is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .bound import Bound

__all__ = ["Meter", "with_margin"]

_AHEAD: Final = 0.25
"""Seconds of the provider's rate that are held ahead of what was read."""
_LEAST_AHEAD: Final = 16
_WINDOW: Final = 0.2
"""Seconds over which the rate is taken."""
_MARGIN: Final = 16
_SLICE: Final = 256
"""Tokens that are asked for at once, where there is room for them."""


def with_margin(tokens: int) -> int:
    """Tokens of pieces, as those of the whole at most.

    The sum of the pieces' tokens is nearly always more than the whole has, as each cut adds some.
    It may be less: the merging of bytes is greedy, and one of 660 divisions tried had 241 where the
    whole had 242.
    """
    return tokens + tokens // _MARGIN


class Meter:
    """The output of one stream.

    Attributes:
        used: tokens that were counted, with what pieces may lack.
        made: tokens of output that are held.

    Args:
        bound: of the call.
        given: tokens of input that are held.
        made: tokens of output that are held.
        limited: whether ``bound.made`` is the most that the call may write.
    """

    __slots__ = (
        "_bound",
        "_counted",
        "_from",
        "_given",
        "_limited",
        "_rate",
        "_since",
        "made",
        "used",
    )

    def __init__(self, bound: Bound, given: int, made: int, *, limited: bool) -> None:
        self._bound = bound
        self._given = given
        self._limited = limited
        self.made = made
        self.used = 0
        self._counted = 0
        self._since: float | None = None
        self._from = 0
        self._rate = 0.0

    def count(self, tokens: int, now: float) -> None:
        """Count tokens that came at a time, in seconds of any clock."""
        self._counted += tokens
        self.used = with_margin(self._counted)
        if self._since is None:
            self._since, self._from = now, self.used
        elif now - self._since >= _WINDOW:
            self._rate = (self.used - self._from) / (now - self._since)
            self._since, self._from = now, self.used

    def ahead(self) -> int:
        """Tokens that the provider may write before it is stopped."""
        return max(_LEAST_AHEAD, int(self._rate * _AHEAD) + 1)

    def is_short(self) -> bool:
        """Whether more has to be held before more is read."""
        return self.used + self.ahead() > self.made and not self.is_whole()

    def is_whole(self) -> bool:
        """Whether all that the call may write is held."""
        return self._limited and self.made >= self._bound.made

    def targets(self) -> Iterator[int]:
        """Tokens of output to be held, the most first; the last is the least that will do."""
        least = self._cut(self.used + self.ahead())
        step = _SLICE
        while step:
            target = self._cut(least + step)
            if target > least:
                yield target
            step //= 4
        yield least

    def whole(self) -> int | None:
        """All tokens that the call may write; ``None``: nobody knows."""
        return self._bound.made if self._limited else None

    def _cut(self, tokens: int) -> int:
        return min(tokens, self._bound.made) if self._limited else tokens

    def costs(self, target: int) -> tuple[int, int]:
        """Return what to hold on top for ``target`` tokens of output: picodollars, tokens."""
        bound, given = self._bound, self._given
        return bound.costs(given, target) - bound.costs(given, self.made), target - self.made
