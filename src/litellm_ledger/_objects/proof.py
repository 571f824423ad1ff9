"""What of a ledger is in a prefix for certain, before anything of it is removed here.

Owns the proof: the listing alone is none, nor is what an object says of itself.  The content was
sent by this ledger's shipper and is the object that is listed, or it is read and hashed, once.
"""

from __future__ import annotations

from pathlib import Path

from litellm_ledger._archive.archive import digest
from litellm_ledger._maintenance.past_time import Shipped
from litellm_ledger._reading.listing import Snapshot, by_writer
from litellm_ledger._records.layout import SEGMENTS, SegmentName

from .names import PARTS
from .sending import is_expired_file
from .sent import Sent, file_of, stamp_of, upto
from .store import Missing, Prefix, Stored

__all__ = ["shipped_to"]


def shipped_to(root: Path, prefix: Prefix) -> Shipped:
    """Return what tells up to which number the records of a writer are in a prefix as well.

    Raises:
        ObjectStorageError: the prefix cannot be listed; what is returned raises it, too.
        LedgerPathError, UnsupportedFormat, MissingExtra: as ``Snapshot.take``.
    """
    return _Proof(root, prefix).last


class _Proof:
    def __init__(self, root: Path, prefix: Prefix) -> None:
        self._root = root
        self._prefix = prefix
        self._sent = Sent(root, prefix.url)
        self._there: dict[str, dict[str, Stored]] = {part: prefix.list(part) for part in PARTS}
        self._ledger = Snapshot.take(root)
        self._families = dict(by_writer(self._ledger.segments))

    def last(self, writer: str) -> float:
        """Return the number up to which all sealed segments of a writer are there."""
        try:
            return upto(self._families.get(writer, ()), self._is_there)
        finally:
            self._sent.keep()

    def _is_there(self, name: SegmentName) -> bool:
        part, file = file_of(self._ledger, name)
        path = self._root / part / file
        try:
            state, sha256 = path.lstat(), digest(path)
            if part == SEGMENTS and is_expired_file(name, path):
                return True  # no record is in there
        except FileNotFoundError:
            return True  # pruned or compacted just now
        there = self._there[part].get(file)
        if there is None or there.size != state.st_size:
            return False
        if self._sent.is_proven(part, file, sha256, there):
            return True
        try:
            known, theirs = self._prefix.digest(f"{part}/{file}")
        except Missing:
            return False
        if theirs != sha256:
            return False
        self._there[part][file] = known
        self._sent.note(part, file, known, sha256, stamp_of(state), proven=True)
        return True
