"""Short ids: what a narrow table shows in place of 51 characters, and how it is found again.

Owns the short form (the end of the writer's name and the number without zeros: ``0f3a-12``) and the
search for records by it, or by the beginning or end of an id.  Never writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from litellm_ledger._archive.database import statement
from litellm_ledger._reading.elsewhere import Place, Wanted, at_hand
from litellm_ledger._reading.lines import entries
from litellm_ledger._reading.listing import Snapshot, by_writer, each
from litellm_ledger._records.layout import record_id, split_id
from litellm_ledger._records.line import Line

from .engine import operation_in
from .history import Operation
from .plain import Prices, prices_of
from .relation import ask

__all__ = ["alike", "find", "shortened"]

_KINDS: Final = frozenset({"started", "usage"})

_SHORT: Final = re.compile(r"([0-9a-f]{1,16})-(\d{1,16})", re.ASCII)
_FEWEST: Final = 4
"""Digits of a writer's name in a short id."""


def shortened(ids: Sequence[str | None]) -> list[str]:
    """Return the short forms of ids, long enough to tell these from each other."""
    parts = [split_id(one or "") for one in ids]
    writers = {part[0] for part in parts if part}
    digits = _FEWEST
    while digits < 16 and len({writer[-digits:] for writer in writers}) < len(writers):
        digits += 1
    return [
        f"{part[0][-digits:]}-{part[1]}" if part else one or "-"
        for part, one in zip(parts, ids, strict=True)
    ]


def find(place: Place, key: str, limit: int) -> tuple[Operation | None, list[str], Prices]:
    """Return the operation that a key or a part of one means, and the terms of its prices.

    If it may be one of several: ``None``, and at most ``limit`` of these.

    Raises:
        LedgerPathError, UnsupportedFormat: the ledger cannot be read.
    """
    with at_hand(place, Wanted(kinds=_KINDS, key=key)) as there:
        (root,) = each(there.roots)
        found = operation_in(root, key)
        if found is not None or not key:
            return found, [], prices_of(root, found) if found is not None else {}
    with at_hand(place, Wanted(kinds=_KINDS, near=key)) as there:
        (root,) = each(there.roots)
        near = alike(root, key, limit)
    if len(near) != 1:
        return None, near, {}
    with at_hand(place, Wanted(kinds=_KINDS, key=near[0])) as there:
        (root,) = each(there.roots)
        found = operation_in(root, near[0])
        return found, near, prices_of(root, found) if found is not None else {}


def alike(root: Path, text: str, limit: int) -> list[str]:
    """Return the operations that a short id, or the begin or end of an id, may mean.

    Ids are those of records and operations, ``call_id`` and ``response_id``.  A short id means
    nothing else if there is such a record.

    Args:
        limit: the search ends after this many matches.

    Raises:
        LedgerPathError, UnsupportedFormat: the ledger cannot be read.
    """
    short = _SHORT.fullmatch(text)
    found: list[str] = []
    if short is not None:
        found = _matches(root, record_id(short[1], int(short[2])), limit, end_only=True)
    return found or _matches(root, text, limit, end_only=False)


def _matches(root: Path, part: str, limit: int, *, end_only: bool) -> list[str]:
    ledger = Snapshot.take(root)
    if ledger.archive:
        query = statement("alike")
        found = ask(root, lambda lines: lines.rows(query, [part, end_only, limit]))
        return [name for (name,) in found]
    needle = msgspec.json.encode(part)[1:-1]  # as it stands in a line
    operations: dict[str, None] = {}
    for _, group in by_writer(ledger.segments):
        for entry in entries(root, group, [], having=needle):
            line = entry.line
            if line.kind == "gap":
                continue
            keys = (line.id,) if end_only else _keys(line)
            if any(key.endswith(part) or (not end_only and key.startswith(part)) for key in keys):
                operations[line.operation or line.id] = None
                if len(operations) == limit:
                    return list(operations)
    return list(operations)


def _keys(line: Line) -> Iterator[str]:
    for key in (line.id, line.operation, line.call_id, line.response_id):
        if key is not None:
            yield key
