"""``Chunk``: many outcomes as columns, with one code for each value throughout a ledger.

Owns the dictionaries that codes are of, how blocks become chunks, and how chunks are joined and
cut.  Nothing is changed that somebody may be reading: what is new is a new object.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from litellm_ledger._aggregates.groups import MISSING

from .blocks import Array, Block, Column, narrow

__all__ = ["Chunk", "Codes", "Part", "View", "column", "joined"]

VALUES: Final = 100_000
"""Values of a tag; one with more is in no column."""
_ALL_VALUES: Final = 400_000
_TAGS: Final = 256
_KEYS: Final = 50_000


class Part(NamedTuple):
    """Where the outcomes of one segment are in a chunk.

    Attributes:
        first, last: their quarters of an hour.
    """

    name: Any
    sha256: str
    start: int
    end: int
    first: int
    last: int


class Chunk(NamedTuple):
    """Outcomes of some segments; members as those of a block, with codes for values."""

    parts: tuple[Part, ...]
    rows: int
    base: int
    last: int
    quarters: Array
    of_keys: Array
    tags: Mapping[str, Array]
    sums: Mapping[str, Column]
    measured: Mapping[str, Array]

    @property
    def size(self) -> int:
        """Bytes, about."""
        columns = [self.quarters, self.of_keys, *self.tags.values(), *self.measured.values()]
        columns += [one for one in self.sums.values() if not isinstance(one, int)]
        return sum(one.nbytes for one in columns)


class View(NamedTuple):
    """What there is at a moment.

    Attributes:
        keys: the values of ``KEYS``, by code.
        tags: the values of each tag, by code, and the code of each; ``None``: too many.
    """

    chunks: tuple[Chunk, ...]
    keys: list[tuple[Any, ...]]
    tags: Mapping[str, tuple[list[str], dict[str, int]] | None]


class Codes:
    """The dictionaries of one ledger: one thread at a time; those who read need no lock."""

    def __init__(self) -> None:
        self.keys: list[tuple[Any, ...]] = []
        self._of_keys: dict[tuple[Any, ...], int] = {}
        self.tags: dict[str, tuple[list[str], dict[str, int]] | None] = {}

    def chunk(self, block: Block, name: Any, sha256: str) -> Chunk | None:
        """Return a block as a chunk; ``None`` if there are too many values."""
        new = [key for key in block.keys if key not in self._of_keys]
        names = [tag for tag in block.tags if tag not in self.tags]
        if len(self.keys) + len(new) > _KEYS or len(self.tags) + len(names) > _TAGS:
            return None
        for key in new:
            self._of_keys[key] = len(self.keys)
            self.keys.append(key)
        codes = np.array([self._of_keys[key] for key in block.keys], np.int64)
        tags = {}
        for tag in block.tags:
            column = self._of_tag(tag, *block.tags[tag])
            if column is not None:
                tags[tag] = column
        last = block.base + (int(block.quarters.max()) if block.rows else 0)
        part = Part(name, sha256, 0, block.rows, block.base, last)
        return Chunk(
            (part,),
            block.rows,
            block.base,
            last,
            block.quarters,
            narrow(codes[block.of_keys]) if block.rows else block.of_keys,
            tags,
            block.sums,
            block.measured,
        )

    def _of_tag(self, tag: str, values: Sequence[str], of_each: Array) -> Array | None:
        if tag not in self.tags:
            self.tags = {**self.tags, tag: ([MISSING], {MISSING: 0})}
        known = self.tags[tag]
        if known is None:
            return None
        there, codes = known
        new = [value for value in values if value not in codes]
        if len(there) + len(new) > VALUES or self._values() + len(new) > _ALL_VALUES:
            self.tags = {**self.tags, tag: None}
            return None
        for value in new:
            there.append(value)  # before its code is known to anybody
            codes[value] = len(there) - 1
        found = np.array([codes[value] for value in values], np.int64)
        return narrow(found[of_each])

    def _values(self) -> int:
        return sum(len(known[0]) for known in self.tags.values() if known is not None)

    def forget(self, chunks: Sequence[Chunk]) -> None:
        """Let go of the values of tags that are in none of these chunks, which are all."""
        kept: dict[str, tuple[list[str], dict[str, int]] | None] = {}
        for tag, known in self.tags.items():
            if known is None:
                kept[tag] = None  # it may be of many values again
                continue
            values, codes = known
            used = np.zeros(len(values), bool)
            used[0] = True
            for chunk in chunks:
                if tag in chunk.tags:
                    used[chunk.tags[tag]] = True
            if not used.all():
                gone = np.flatnonzero(~used).tolist()
                values, codes = [*values], {**codes}
                for code in gone:
                    codes.pop(values[code], None)
                    values[code] = ""
            kept[tag] = values, codes
        self.tags = kept


def column(of: Column, rows: Array | None, count: int) -> Array:
    """Return a column, or some rows of it."""
    if isinstance(of, int):
        return np.full(count if rows is None else len(rows), of)
    return of if rows is None else of[rows]


def joined(chunks: Sequence[Chunk], wide: Mapping[str, Any]) -> Chunk:
    """Return chunks as one; ``wide``: tags, ``None`` for those that get no column any more."""
    if len(chunks) == 1:
        (one,) = chunks
        kept = {tag: codes for tag, codes in one.tags.items() if wide.get(tag) is not None}
        return one._replace(tags=kept)
    rows = sum(one.rows for one in chunks)
    filled = [one for one in chunks if one.rows] or chunks[:1]
    base, last = min(one.base for one in filled), max(one.last for one in filled)
    quarters = np.concatenate([one.quarters.astype(np.int64) + (one.base - base) for one in chunks])
    parts, at = [], 0
    for one in chunks:
        parts += [p._replace(start=p.start + at, end=p.end + at) for p in one.parts]
        at += one.rows
    tags = {}
    for tag in {tag: None for one in chunks for tag in one.tags if wide.get(tag) is not None}:
        none = [one.tags.get(tag, np.zeros(one.rows, np.uint8)) for one in chunks]
        tags[tag] = narrow(np.concatenate(none))
    sums: dict[str, Column] = {}
    for name in {name: None for one in chunks for name in one.sums}:
        each = [one.sums.get(name, 0) for one in chunks]
        first = each[0]
        if isinstance(first, int) and all(isinstance(c, int) and c == first for c in each):
            sums[name] = first
        else:
            whole = [column(c, None, o.rows) for c, o in zip(each, chunks, strict=True)]
            sums[name] = narrow(np.concatenate(whole))
    measured = {}
    for name in {name: None for one in chunks for name in one.measured}:
        nothing = np.float32(np.nan)
        measured[name] = np.concatenate(
            [one.measured.get(name, np.full(one.rows, nothing)) for one in chunks]
        )
    return Chunk(
        tuple(parts),
        rows,
        base,
        last,
        narrow(quarters),
        narrow(np.concatenate([one.of_keys for one in chunks])),
        tags,
        sums,
        measured,
    )


def cut(chunk: Chunk, keep: Sequence[Part]) -> Chunk | None:
    """Return a chunk of some of its parts; ``None``: of none."""
    if not keep:
        return None
    found = []
    for part in keep:
        rows = slice(part.start, part.end)
        size = part.end - part.start
        found.append(
            Chunk(
                (part._replace(start=0, end=size),),
                size,
                chunk.base,
                chunk.last,
                chunk.quarters[rows],
                chunk.of_keys[rows],
                {tag: codes[rows] for tag, codes in chunk.tags.items()},
                {n: c if isinstance(c, int) else c[rows] for n, c in chunk.sums.items()},
                {n: c[rows] for n, c in chunk.measured.items()},
            )
        )
    return joined(found, dict.fromkeys(chunk.tags, ()))
