"""What calls of one kind usually use: the holds of budgets in ``adaptive`` mode, and the estimates
of ``soft`` ones.

Owns the distribution: calls by kind, model and the limit of their output, each with the tokens that
they wrote, and with the part of the counted input that the provider counted too.  A hold is their
99th percentile, by nearest rank, rounded up to the next bucket.  Memory is bounded: a thousand
kinds, the one used longest ago goes first, and of each kind the last few thousand calls, older ones
counting less.  Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from .bound import Bound

__all__ = ["ENOUGH", "Kind", "Usual"]

ENOUGH: Final = 20
"""Calls of a kind after which they say what is usual.  Before, the most that one can use is held;
for a stream that can be cut, all of its input and 256 tokens of output."""
_QUANTILE: Final = 99
_KINDS: Final = 1_000
_REMEMBERED: Final = 4_000
"""Calls of a kind at which each of the past ones begins to count half."""
_PARTS: Final = 8
"""Of a power of two: a hold is at most an eighth above the percentile."""
_WHOLE: Final = 64
"""Parts of the counted input."""
_BYTES, _SOME = 4, 256
"""Bytes of a token, and tokens of an answer, while too little was seen."""
_AGAIN: Final = 16
"""Calls after which a percentile is found anew."""

Kind = tuple[str, str | None, int]


def _bucket(value: int) -> int:
    if value < 2 * _PARTS:
        return value
    power = value.bit_length() - _PARTS.bit_length()
    return power * _PARTS + (value >> power)


def _edge(bucket: int) -> int:
    """The largest value of a bucket."""
    if bucket < 2 * _PARTS:
        return bucket
    power, part = divmod(bucket - _PARTS, _PARTS)
    return ((_PARTS + part + 1) << power) - 1


class _Counts:
    """Values by bucket."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.total = 0

    def add(self, bucket: int) -> None:
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.total += 1
        if self.total >= _REMEMBERED:
            halves = {key: count // 2 for key, count in self.buckets.items()}
            self.buckets = {key: count for key, count in halves.items() if count}
            self.total = sum(self.buckets.values())

    def percentile(self, percent: int = _QUANTILE) -> int:
        """The bucket of a percentile, by nearest rank."""
        rank, reached = -(-percent * self.total // 100), 0
        for bucket in sorted(self.buckets):
            reached += self.buckets[bucket]
            if reached >= rank:
                return bucket
        return 0


class _Seen:
    """The calls of one kind."""

    __slots__ = ("given", "known", "made", "since")

    def __init__(self) -> None:
        self.given = _Counts()
        self.made = _Counts()
        self.since = 0
        self.known = (_WHOLE, 0)

    def usual(self) -> tuple[int, int]:
        """The part of the input, in 64ths, and the tokens of output."""
        if self.since >= _AGAIN or self.known == (_WHOLE, 0):
            self.since = 0
            self.known = self.given.percentile(), _edge(self.made.percentile())
        return self.known


class Usual:
    """What the calls of one client used."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: OrderedDict[Kind, _Seen] = OrderedDict()

    @staticmethod
    def kind(call: str, model: str | None, bound: Bound) -> Kind:
        """The kind of a call; limits of the output within a power of two are the same."""
        return call, model, bound.made.bit_length()

    def seen(self, kind: Kind, bound: Bound, given: int, made: int) -> None:
        """Note the tokens that a call of a kind used, by its provider's count."""
        seen = self._kinds.get(kind)
        if seen is None:
            if len(self._kinds) >= _KINDS:
                self._kinds.popitem(last=False)
            seen = self._kinds[kind] = _Seen()
        part = -(-given * _WHOLE // bound.given) if bound.given else _WHOLE
        seen.given.add(min(part, _WHOLE))
        seen.made.add(_bucket(made))
        seen.since += 1

    def estimate(self, kind: Kind, bound: Bound) -> tuple[int, int]:
        """Tokens of input and output that a call uses most likely: the medians of its kind."""
        seen = self._kinds.get(kind)
        if seen is None or not seen.made.total:
            return -(-bound.given // _BYTES), min(bound.made, _SOME)
        part, made = seen.given.percentile(50), _edge(seen.made.percentile(50))
        return -(-bound.given * part // _WHOLE), min(made, bound.made)

    def hold(self, kind: Kind, bound: Bound, *, pays: bool = False) -> tuple[int, int]:
        """Tokens of input and output to hold for a call: never more than its bound.

        Args:
            pays: more is held while it is answered, and the answer is cut if need be: until enough
                was seen, less than all will do.
        """
        seen = self._kinds.get(kind)
        if seen is None or seen.made.total < ENOUGH:
            return bound.given, min(bound.made, _SOME) if pays else bound.made
        self._kinds.move_to_end(kind)
        part, made = seen.usual()
        return -(-bound.given * part // _WHOLE), min(made, bound.made)
