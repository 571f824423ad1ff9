"""``Sent``: which files of a ledger are known to be in a prefix, remembered outside the ledger.

Owns the memory, a file in the user's directory of caches.  Without it a run asks of each object
what its checksum is; it decides nothing else.  A file is known by its inode, size and time, an
object by what the listing says of it, so that neither can be another one since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._records.layout import ARCHIVE, SEGMENTS, SegmentName
from litellm_ledger._storage.checked_files import cache_file, remember, remembered

from .store import Stored

__all__ = ["Sent", "Stamp", "file_of", "stamp_of", "upto"]

Stamp = tuple[int, int, int]
"""Of a file: inode, size, time of its last change in ns."""


class _Known(NamedTuple):
    mark: str
    sha256: str
    stamp: Stamp
    proven: bool


class Sent:
    """What is known of one ledger and one prefix.

    Args:
        root: the ledger.
        url: of the prefix.
        remember: for other processes.
    """

    def __init__(self, root: Path, url: str, *, remember: bool = True) -> None:
        from hashlib import sha256

        kind = f"sent-{sha256(url.encode()).hexdigest()[:16]}"
        self._file = cache_file(root, kind) if remember else None
        self._known: Final[dict[str, _Known]] = remembered(self._file, dict[str, _Known])
        self._changed = False

    def is_known(self, part: str, name: str, stamp: Stamp, there: Stored | None) -> bool:
        """Whether the file was found to be the object, and both are as they were."""
        known = self._known.get(f"{part}/{name}")
        return (
            known is not None
            and there is not None
            and known.stamp == stamp
            and known.mark == there.mark
        )

    def is_proven(self, part: str, name: str, sha256: str, there: Stored | None) -> bool:
        """Whether the content of the object was seen to have this SHA-256."""
        known = self._known.get(f"{part}/{name}")
        return (
            known is not None
            and there is not None
            and known.proven
            and (known.mark, known.sha256) == (there.mark, sha256)
        )

    def was(self, part: str, name: str) -> bool:
        """Whether the file was ever found to be there."""
        return f"{part}/{name}" in self._known

    def note(
        self, part: str, name: str, there: Stored, sha256: str, stamp: Stamp, *, proven: bool
    ) -> None:
        """Remember that a file is an object.

        Args:
            proven: its content was sent by us just now, or read.
        """
        known = _Known(there.mark, sha256, stamp, proven)
        before = self._known.get(f"{part}/{name}")
        if before is not None and before.proven and before[:2] == known[:2]:
            known = known._replace(proven=True)
        self._known[f"{part}/{name}"] = known
        self._changed = True

    def keep(self) -> None:
        """Remember for other processes; whatever is in the way of that is no matter."""
        if not self._changed or self._file is None:
            return
        self._changed = False
        remember(self._file, self._known)


def stamp_of(state: os.stat_result) -> Stamp:
    """Return by what a file is known."""
    return state.st_ino, state.st_size, state.st_mtime_ns


def file_of(ledger: Snapshot, name: SegmentName) -> tuple[str, str]:
    """Return the file that has a segment, by part and name: itself, or one of the archive."""
    place = ledger.archive.get(name)
    return (SEGMENTS, str(name)) if place is None else (ARCHIVE, place[0].path.name)


def upto(family: Iterable[SegmentName], is_there: Callable[[SegmentName], bool]) -> int:
    """Return up to which number all sealed segments of a writer are there."""
    last = 0
    for name in family:
        if name.last is None or not is_there(name):
            break
        last = max(last, name.last)
    return last
