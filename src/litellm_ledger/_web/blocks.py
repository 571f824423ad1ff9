"""``Block``: the outcomes of a segment as columns of numbers, a twentieth of its bytes.

Owns how lines become columns, how narrow these are, and which segments have none: those with what
no column can say (an outcome without a time, a sum beyond 64 bits).  Knows no question.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from litellm_ledger._aggregates.groups import MISSING
from litellm_ledger._aggregates.quantiles import MEASURED
from litellm_ledger._aggregates.steps import EPOCH, QUARTER
from litellm_ledger._aggregates.totals import FIELDS
from litellm_ledger._records.record import KEYS

__all__ = [
    "SUMS",
    "Array",
    "Block",
    "Column",
    "Outcome",
    "block_of",
    "column_of",
    "narrow",
    "outcomes_of",
]

Array = npt.NDArray[Any]
Column = Array | int
"""A number for each outcome; one number, where all are the same."""

SUMS: Final = tuple(name for name in FIELDS if name != "calls")
"""What is added up; an outcome is one call."""
_TOKENS: Final = tuple(name for name in SUMS if name.endswith("_tokens"))
_LONGEST: Final = 50_000
"""Quarters of an hour from the first to the last outcome of a block, at most: 17 months."""
_TIMES: Final = range(4_600_000)
"""Quarters that calls are believed to be of: the years 1970 to 2101."""
_TAGS: Final = 100
"""Names of tags of a block."""
_CLUSTERS: Final = 1_000
"""Values of a tag that outcomes are sorted by."""
_WIDTHS: Final = (np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32)


class Outcome(msgspec.Struct, gc=False, frozen=True):
    """What is read of a line, by the names on disk."""

    kind: str
    ts: str | None = None
    attempt: int | None = None
    call: str | None = None
    model: str | None = None
    response_model: str | None = None
    provider: str | None = None
    status: str | None = None
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: str | None = None
    cost_picousd: int | None = None
    cost_source: str | None = None
    cache_hit: bool | None = None
    saved_cost_picousd: int | None = None
    latency_ms: float | None = None
    ttft_ms: float | None = None
    tags: dict[str, str] | None = None


class Block(NamedTuple):
    """The outcomes of a segment, or of a part of one.

    Attributes:
        rows: how many.
        base: the first quarter of an hour.
        quarters: of each outcome, from ``base`` on; outcomes are in no order.
        keys: the values of ``KEYS`` that there are; ``of_keys`` says which of them each has.
        tags: the values that a tag has, the first of which is ``MISSING``; which each has.
        sums: by the names of ``SUMS``; those that are 0 throughout are left out.
        measured: by the names of ``MEASURED``, NaN where nothing was.
    """

    rows: int
    base: int
    quarters: Array
    keys: list[tuple[Any, ...]]
    of_keys: Array
    tags: dict[str, tuple[list[str], Array]]
    sums: dict[str, Column]
    measured: dict[str, Array]


_lines: Final = msgspec.json.Decoder(Outcome).decode_lines


def outcomes_of(data: bytes) -> list[Outcome] | None:
    """Return the outcomes of a segment whose manifest vouches for each line; ``None``: odd ones."""
    try:
        return [one for one in _lines(data) if one.kind == "usage"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def block_of(outcomes: Sequence[Outcome]) -> Block | None:
    """Return outcomes as columns; ``None`` if columns cannot say what is in them."""
    quarters = _quarters([one.ts for one in outcomes])
    tags = _tags([one.tags for one in outcomes])
    if quarters is None or tags is None:
        return None
    base = int(quarters.min()) if len(quarters) else 0
    keys, of_keys = _coded(
        (
            one.model,
            one.provider,
            one.call,
            one.status,
            one.response_model,
            one.error,
            one.usage_source,
            one.cost_source,
        )
        for one in outcomes
    )
    try:
        sums = _sums(outcomes)
    except OverflowError:
        return None
    block = Block(
        len(outcomes),
        base,
        narrow(quarters - base),
        keys,
        of_keys,
        tags,
        sums,
        _measured(outcomes),
    )
    return _sorted(block)


def _sorted(block: Block) -> Block:
    """Return it with outcomes of the same tags side by side.

    What one viewer may see lies together then, and costs a part of the time to collect.
    """
    few = sorted((len(values), tag) for tag, (values, _) in block.tags.items())
    by = [block.tags[tag][1] for count, tag in few if 1 < count <= _CLUSTERS]
    if not by:
        return block
    order = np.lexsort(by[::-1])
    return block._replace(
        quarters=block.quarters[order],
        of_keys=block.of_keys[order],
        tags={tag: (values, codes[order]) for tag, (values, codes) in block.tags.items()},
        sums={n: c if isinstance(c, int) else c[order] for n, c in block.sums.items()},
        measured={name: values[order] for name, values in block.measured.items()},
    )


assert KEYS == ("model", "provider", "call", "status", "response_model", "error", "usage_source",
                "cost_source")  # fmt: skip


def narrow(numbers: Array) -> Array:
    """Return whole numbers in as few bytes as hold them."""
    if not len(numbers):
        return numbers.astype(np.uint8)
    least, most = int(numbers.min()), int(numbers.max())
    for width in _WIDTHS:
        bounds = np.iinfo(width)
        if bounds.min <= least and most <= bounds.max:
            return numbers.astype(width)
    return numbers.astype(np.int64)


def _quarters(times: Sequence[str | None]) -> Array | None:
    known: dict[str, int] = {}
    found = []
    for time in times:
        if time is None:
            return None
        minute = time[:16]
        quarter = known.get(minute) if len(time) == 27 and time[-1] == "Z" else _quarter(time)
        if quarter is None:
            quarter = known[minute] = _quarter(time)
        found.append(quarter)
    if found and not (min(found) in _TIMES and max(found) in _TIMES):
        return None
    if found and max(found) - min(found) > _LONGEST:
        return None
    return np.array(found, np.int64)


def _quarter(time: str) -> int:
    try:
        return (msgspec.convert(time, datetime) - EPOCH) // QUARTER
    except (msgspec.ValidationError, TypeError):  # no time, or none with a zone
        return -1


def _coded(values: Iterable[Any], first: Sequence[Any] = ()) -> tuple[list[Any], Array]:
    """Return the different values, and which of them each is."""
    codes: dict[Any, int] = {value: at for at, value in enumerate(first)}
    found = [codes.setdefault(value, len(codes)) for value in values]
    return [*codes], narrow(np.array(found, np.int64))


def _tags(
    each: Sequence[dict[str, str] | None],
) -> dict[str, tuple[list[str], Array]] | None:
    """Return the values of each tag; of few combinations each is looked at once."""
    combinations, of_each = _coded(tuple(tags.items()) if tags else () for tags in each)
    different = [dict(items) for items in combinations]
    names = {name for tags in different for name in tags}
    if len(names) > _TAGS:
        return None
    found = {}
    for name in names:
        values, codes = _coded((tags.get(name, MISSING) for tags in different), [MISSING])
        found[name] = values, codes[of_each]
    return found


def column_of(values: Sequence[int]) -> Column | None:
    """Return whole numbers as a column; ``None``: 0 throughout.

    Raises:
        OverflowError: one has more than 64 bits.
    """
    column = np.array(values, np.int64)
    least, most = (int(column.min()), int(column.max())) if len(column) else (0, 0)
    if least == most:
        return least or None
    return narrow(column)


def _sums(outcomes: Sequence[Outcome]) -> dict[str, Column]:
    one = column_of
    columns = {
        "cache_hits": one([1 if o.cache_hit else 0 for o in outcomes]),
        "pico": one([o.cost_picousd or 0 for o in outcomes]),
        "priced": one([0 if o.cost_picousd is None else 1 for o in outcomes]),
        "retries": one([1 if (o.attempt or 0) > 1 else 0 for o in outcomes]),
        "saved": one([o.saved_cost_picousd or 0 for o in outcomes]),
        **{name: one([getattr(o, name) or 0 for o in outcomes]) for name in _TOKENS},
    }
    assert columns.keys() == {*SUMS}
    return {name: column for name, column in columns.items() if column is not None}


def _measured(outcomes: Sequence[Outcome]) -> dict[str, Array]:
    found = {}
    for name in MEASURED:
        values = [getattr(one, name) if one.status == "ok" else None for one in outcomes]
        if any(value is not None for value in values):
            exact = np.array(values, np.float64)
            with np.errstate(over="ignore"):
                short = exact.astype(np.float32)
            same = np.array_equal(short.astype(np.float64), exact, equal_nan=True)
            found[name] = short if same else exact
    return found
