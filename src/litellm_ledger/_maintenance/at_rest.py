"""Which segments of a writer nobody writes to any more, and none will be asked for by its writer.

Owns that bound, for what moves or removes sealed segments.  Never writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litellm_ledger._records.layout import LIVE, SegmentName, live_name
from litellm_ledger._storage.live_file import is_locked, read_live

__all__ = ["bound"]


def bound(root: Path, writer: str, family: Sequence[SegmentName]) -> float:
    """Return the number from which on a writer's segments stay where they are.

    Of a living writer these are its newest segment and those with a call in flight; of one that
    died and waits for ``recover``, all.

    Raises:
        OSError: its counters cannot be read.
    """
    path = root / LIVE / live_name(writer)
    try:
        counters = read_live(path)
    except FileNotFoundError:
        return float("inf")  # closed or recovered: nobody writes here any more
    if not counters.valid or not _lives(path):
        return 0  # recover first
    newest = max(name.first for name in family)
    return min(newest, counters.oldest_in_flight or newest)


def _lives(path: Path) -> bool:
    try:
        return is_locked(path)
    except FileNotFoundError:
        return False
