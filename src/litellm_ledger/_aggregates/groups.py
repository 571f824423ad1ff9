"""What a record is grouped by, and the row of sums that a group ends as.

Owns the group keys (for grouping and for filtering) and ``Row``.  Never adds anything up: that is
``Totals``.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from litellm_ledger._records.record import KEYS, Fields

from .calendar import PERIODS, Calendar

__all__ = [
    "MISSING",
    "MONEY",
    "OTHER",
    "Quantiles",
    "Row",
    "check_by",
    "key_of",
    "model_names",
    "named",
]

MISSING: Final = "(none)"
"""The group of records that lack the key."""

OTHER: Final = "(other)"
"""The group into which combinations beyond ``max_groups`` are folded."""


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """How a duration in milliseconds is spread.

    Attributes:
        count: outcomes that say it.
        p50, p90, p99: by nearest rank, within 0.8 % of the value that was measured; below 1/16 ms
            within that.
        max: the largest, exactly.
    """

    count: int
    p50: float
    p90: float
    p99: float
    max: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of one group.

    Attributes:
        group: the keys that were asked for and their values, all text; empty for a total.
        calls: outcomes counted, one for each request to a provider:
            ``ok + error + cancelled + abandoned + unsettled``, and those that a budget
            ``refused``, of which no request was made.
        retries: those of them that were a second or later attempt of their operation; so
            ``calls - retries`` operations began here.
        cache_hits: those that a response cache answered.
        input_tokens, …, reasoning_tokens: sums over the outcomes that say so; unknown adds nothing.
        cost: US dollars, the exact sum over the ``priced`` outcomes.
        estimated_cost: the part of ``cost`` whose tokens we estimated.
        wasted_cost: the part of ``cost`` of outcomes that are an error, cancelled or abandoned.
        saved_cost: US dollars that answers from a cache did not cost.
        priced: outcomes with a known cost, 0 included.
        unpriced: ``ok`` outcomes whose cost is unknown.
        unknown_cost: cancelled, abandoned and unsettled ones of unknown cost, which may be billed,
            and failed ones with tokens.  A failed call without tokens is taken as not billed.
        provider_reported, estimated: outcomes whose tokens the provider counted, or we did.
        uncounted: outcomes, failed calls apart, whose tokens nobody counted.
        latency_ms, ttft_ms: of ``ok`` outcomes, where quantiles were asked for and one says it.
    """

    group: dict[str, str] = {}
    calls: int = 0
    ok: int = 0
    error: int = 0
    cancelled: int = 0
    abandoned: int = 0
    unsettled: int = 0
    refused: int = 0
    retries: int = 0
    cache_hits: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal = Decimal(0)
    estimated_cost: Decimal = Decimal(0)
    wasted_cost: Decimal = Decimal(0)
    saved_cost: Decimal = Decimal(0)
    priced: int = 0
    unpriced: int = 0
    unknown_cost: int = 0
    provider_reported: int = 0
    estimated: int = 0
    uncounted: int = 0
    latency_ms: Quantiles | None = None
    ttft_ms: Quantiles | None = None

    @property
    def known_cost(self) -> Decimal | None:
        """``cost``, or ``None`` if nothing has a known cost and something may be billed."""
        return self.cost if self.priced or not (self.unpriced or self.unknown_cost) else None

    @property
    def is_floor(self) -> bool:
        """Whether ``cost`` may really be higher: part of it is unknown, or was estimated."""
        return bool(self.unpriced or self.unknown_cost or self.estimated_cost)


MONEY: Final = ("cost", "estimated_cost", "wasted_cost", "saved_cost")
"""The amounts of a row, in US dollars."""

_UTC: Final = Calendar()


def named(word: str) -> str:
    """Return the group key that a word stands for: a key of a record, a period, else a tag.

    ``user`` is ``tag:user``; a tag that has the name of a key is written ``tag:model``.

    Raises:
        ValueError: the word names nothing, or is nearly a key; the text says what to write.
    """
    if word in KEYS or word in PERIODS or (word.startswith("tag:") and word != "tag:"):
        return word
    if word in ("", "tag:"):
        raise ValueError(
            f"unknown group key {word!r}; use {', '.join((*KEYS, *PERIODS))} or tag:NAME"
        )
    from difflib import get_close_matches

    near = get_close_matches(word, [*KEYS, *PERIODS], n=1, cutoff=0.8)
    if near:
        raise ValueError(
            f"unknown group key {word!r}; did you mean {near[0]}? For a tag use tag:{word}"
        )
    return f"tag:{word}"


def key_of(word: str, calendar: Calendar = _UTC) -> Callable[[Fields], str]:
    """Return the function that gives a record's value of a group key.

    Keys: those of ``KEYS``, a period (``hour``, ``day``, ``week``, ``month``) of the calendar, and
    ``tag:NAME``, for which ``NAME`` is enough (``named``).

    Raises:
        ValueError: there is no such key; the text lists them.
    """
    name = named(word)
    if name in KEYS:
        return lambda record: getattr(record, name) or MISSING
    if name in PERIODS:
        return _period(name, calendar)
    tag = name.removeprefix("tag:")
    return lambda record: MISSING if record.tags is None else record.tags.get(tag, MISSING)


def model_names(record: Fields) -> tuple[str, ...]:
    """Return the names by which a record's model is found: with and without its provider.

    ``openai/gpt-4o`` is also ``gpt-4o``, and so is a ``gpt-4o`` of the provider ``openai`` also
    ``openai/gpt-4o``.
    """
    model = record.model
    if not model:
        return (MISSING,)
    short = model[model.find("/") + 1 :]
    return (model, short, f"{record.provider}/{model}") if record.provider else (model, short)


def _period(every: str, calendar: Calendar) -> Callable[[Fields], str]:
    labels: dict[int, str] = {}

    def of(record: Fields) -> str:
        if record.ts is None:
            return MISSING
        number = calendar.number(every, record.ts)
        label = labels.get(number)
        if label is None:
            label = labels[number] = calendar.label(every, number)
        return label

    return of


def check_by(by: Sequence[str]) -> tuple[str, ...]:
    """Return the keys that were asked for (``named``), without repetitions.

    Raises:
        ValueError: one of them does not exist, or ``by`` is a single text.
    """
    if isinstance(by, str):
        raise ValueError(f"by= takes a list of group keys: by=[{by!r}]")
    return tuple(dict.fromkeys(map(named, by)))
