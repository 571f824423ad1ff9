"""Files of a ledger, each sent under its own name and put over no other.

Owns what is done where an object is there already, how many are sent at once, and what is told of
it all.  An object of another content is an error that names it; one that records were erased from
since, as an audit says, is replaced.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Final

from litellm_ledger._reading.erasures import Erasures
from litellm_ledger._reading.lines import Problem
from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._records.scan import scan
from litellm_ledger._storage.filesystem import open_file

from .names import LARGEST
from .sent import Sent, Stamp, stamp_of
from .store import Prefix, Stored, Taken

__all__ = ["File", "Sending", "Shipment", "is_expired", "is_expired_file"]

_GAPS: Final = 2**20
"""Bytes that no segment of nothing but gaps has."""
_LARGE: Final = 2**22
_AT_ONCE: Final = 8
_LARGE_AT_ONCE: Final = 2


@dataclass(slots=True)
class Shipment:
    """What one run did.

    Attributes:
        files, bytes: that were created there.
        replaced: objects that records were erased from since.
        removed: objects whose records are in others: erased from, or compacted.
        segments: sealed segments of the ledger that are there, compacted ones included.
        waiting: segments that are still written, or have no manifest yet.
        problems: files that were not sent, and objects that are not what they should be.
        requests: how many were made, by kind.
        keeps_versions: whether the bucket keeps what is replaced or removed.
    """

    files: int = 0
    bytes: int = 0
    replaced: int = 0
    removed: int = 0
    segments: int = 0
    waiting: int = 0
    problems: list[Problem] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    keeps_versions: bool = False

    @property
    def changed(self) -> bool:
        """Whether anything was done there."""
        return bool(self.files or self.replaced or self.removed)


@dataclass
class File:
    """A file of a ledger, as it was read.

    Attributes:
        part, name: where it is, and where it goes.
        data: its content.
        stamp: by what it is known; ``None``: it is in no directory.
    """

    part: str
    name: str
    data: bytes
    stamp: Stamp | None

    @property
    def key(self) -> str:
        """The name of its object."""
        return f"{self.part}/{self.name}"

    @cached_property
    def sha256(self) -> str:
        """Of its content."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def segment(self) -> SegmentName | None:
        """The name of the segment that it is, if it is one."""
        return SegmentName.parse(self.name) if self.part == SEGMENTS else None


class Sending:
    """What a shipper does with single files, and what it knows of them; several at once.

    Args:
        root: the ledger.
        prefix: where to.
        remember: what was sent, for later runs of other processes.

    Attributes:
        sent: what is remembered.
        there: the objects, by part and name.
        only_here: segments of nothing but gaps, for what is there.
        done: by this run.
        erasures: what audits say.
    """

    def __init__(self, root: Path, prefix: Prefix, *, remember: bool) -> None:
        self._root = root
        self._prefix = prefix
        self._lock = Lock()
        self.sent = Sent(root, prefix.url, remember=remember)
        self.there: dict[str, dict[str, Stored]] = {}
        self.only_here: set[SegmentName] = set()
        self.done = Shipment()
        self.erasures = Erasures()

    def each(
        self,
        part: str,
        names: Iterable[str],
        is_wanted: Callable[[File], bool] = lambda _: True,
    ) -> None:
        """Send files, several at once; after the first that the store refuses no other is begun.

        Args:
            part: where they are.
            names: those that are known to be there are passed over.
            is_wanted: whether one is sent, by its content.
        """
        large: list[str] = []
        small: list[str] = []
        for name in names:
            try:
                state = (self._root / part / name).lstat()
            except FileNotFoundError:
                continue
            if self.sent.is_known(part, name, stamp_of(state), self.there[part].get(name)):
                continue
            (large if state.st_size > _LARGE else small).append(name)
        for some, at_once in ((small, _AT_ONCE), (large, _LARGE_AT_ONCE)):
            if not some:
                continue
            # Also of a single one: a signal is seen while a thread waits, and not by the driver.
            with ThreadPoolExecutor(min(at_once, len(some))) as threads:
                futures = [threads.submit(self._send, part, name, is_wanted) for name in some]
                try:
                    for future in futures:
                        future.result()
                finally:
                    for future in futures:
                        future.cancel()

    def _send(self, part: str, name: str, is_wanted: Callable[[File], bool]) -> None:
        file = self._read(part, name)
        if file is not None and is_wanted(file):
            self.put(file)

    def _read(self, part: str, name: str) -> File | None:
        """Read a file; ``None`` if it is gone, or must not be read, which is noted."""
        try:
            with open_file(self._root / part / name) as file:
                state = os.fstat(file.fileno())
                if state.st_size > LARGEST:
                    self.problem(part, name, f"is larger than {LARGEST:,} bytes")
                    return None
                return File(part, name, file.read(), stamp_of(state))
        except FileNotFoundError:
            return None
        except OSError as exc:
            self.problem(part, name, exc.strerror or str(exc), "unreadable")
            return None

    def put(self, file: File) -> None:
        """Have an object with this content there."""
        key, part, name = file.key, file.part, file.name
        if self.erasures.is_old(file.sha256):
            self.problem(part, name, "records were erased from the one there; erase here as well")
            return
        if name not in self.there[part]:
            try:
                made = self._prefix.create(key, file.data, file.sha256)
            except Taken:
                pass
            else:
                with self._lock:
                    self.done.files += 1
                    self.done.bytes += len(file.data)
                self._note(file, made, proven=True)
                return
        known, theirs = self._prefix.checksum(key)
        if theirs == file.sha256 and known.size == len(file.data):
            self._note(file, known, proven=False)
        elif self.erasures.came_from(file.sha256, theirs):
            self._replace(file, known)
        elif file.segment is not None and is_expired(file.segment, file.data):
            self.only_here.add(file.segment)
        else:
            self.problem(
                part,
                name,
                f"{self._prefix.url}/{key} has another content (SHA-256 {theirs[:16]}…, not "
                f"{file.sha256[:16]}…): it was replaced there, or the ledger was restored or "
                "altered here; compare both, and remove the wrong one",
            )

    def _replace(self, file: File, old: Stored) -> None:
        try:
            made = self._prefix.replace(file.key, file.data, file.sha256, old)
        except Taken:  # by another shipper, or by us: the answer to the first try was lost
            made, theirs = self._prefix.checksum(file.key)
            if theirs != file.sha256:
                raise
        self._note(file, made, proven=True)
        with self._lock:
            self.done.replaced += 1

    def _note(self, file: File, there: Stored, *, proven: bool) -> None:
        with self._lock:
            self.there[file.part][file.name] = there
            if file.stamp is not None:
                self.sent.note(file.part, file.name, there, file.sha256, file.stamp, proven=proven)

    def note_waiting(self, segments: int = 1) -> None:
        """Note that segments are not to be sent yet."""
        with self._lock:
            self.done.waiting += segments

    def problem(self, part: str, name: str, detail: str, what: str = "altered") -> None:
        """Note a file that was not sent, or an object that is not what it should be."""
        with self._lock:
            self.done.problems.append(
                Problem(f"{part}/{name}", what, detail=detail)  # type: ignore[arg-type]
            )

    def remove(self, part: str, name: str) -> None:
        """Remove an object."""
        self._prefix.delete(f"{part}/{name}")
        self.there[part].pop(name, None)
        self.done.removed += 1


def is_expired(name: SegmentName, data: bytes) -> bool:
    """Whether a segment has nothing but gaps, some of which stand for what was pruned."""
    if len(data) > _GAPS or b'"expired"' not in data:
        return False
    lines = scan(data, name.writer, name.first).lines
    gaps = all(head.kind == "gap" for head, _ in lines)
    return gaps and any(head.reason == "expired" for head, _ in lines)


def is_expired_file(name: SegmentName, path: Path) -> bool:
    """As ``is_expired``, of a file."""
    if path.lstat().st_size > _GAPS:
        return False
    with open_file(path) as file:
        return is_expired(name, file.read())
