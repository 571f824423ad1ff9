"""``ObjectShipper``: the sealed files of a ledger, sent to a prefix in object storage.

Owns the order and what is done where an object is there already.  Every file goes under its own
name, and none is put over another: audits and adjustments first, since they tell of other files,
then the archive, then segments, and manifests last, each after its segment.  So a reader finds at
every moment a ledger that says what it lacks, and an erasure that was cut short can be made again:
lines are without the person before the manifests that were made of them.  Any number of shippers
may send the same file: one creates the object, the others find that it is theirs.

An object of another content is an error that names it, with two exceptions.  One that records were
erased from since, as an audit says, is replaced; files of the archive without them have another
name, and the old ones are removed.  What was pruned here stays there: that is what it is for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Final

from litellm_ledger._archive.archive import ArchiveFile, read_archived
from litellm_ledger._maintenance.erasing import not_erased
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.adjustments import read_additions
from litellm_ledger._reading.chain import list_manifests
from litellm_ledger._reading.erasures import Erasures
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.listing import Snapshot, by_writer, list_live, live_writers
from litellm_ledger._reading.pruned import pruned_in
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.audit import ERASE, PRUNE, Audit, Changed, addition_of
from litellm_ledger._records.layout import (
    ARCHIVE,
    MANIFESTS,
    PRICES,
    SEGMENTS,
    SegmentName,
    version_of_entry,
)
from litellm_ledger._records.ranges import Spans
from litellm_ledger._records.scan import scan
from litellm_ledger._storage import manifest as manifests
from litellm_ledger._storage.filesystem import open_file
from litellm_ledger._storage.shipping_marks import note

from .names import LARGEST, PARTS, VERSION, VERSIONS, is_name, refuse_newer_objects
from .sent import Sent, Stamp, stamp_of
from .store import Missing, ObjectStorageError, Prefix, Stored, Taken

__all__ = ["ObjectShipper", "Shipment", "is_expired"]

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


class ObjectShipper:
    """Sends a ledger to a prefix, again and again.

    Args:
        root: the ledger.
        prefix: where to.
        remove_compacted: remove the objects of segments that a file of the archive holds, when
            that is there.
        remember: what was sent, for later runs of other processes.
    """

    def __init__(
        self,
        root: Path,
        prefix: Prefix,
        *,
        remove_compacted: bool = False,
        remember: bool = True,
    ) -> None:
        self._root = root
        self._prefix = prefix
        self._remove_compacted = remove_compacted
        self._sent = Sent(root, prefix.url, remember=remember)
        self._there: dict[str, dict[str, Stored]] = {}
        self._theirs: dict[str, list[Adjustment | Audit]] = {}
        self._done = Shipment()
        self._lock = Lock()
        self._erasures = Erasures()
        self._prunes: list[Changed] = []
        self._only_here: set[SegmentName] = set()  # gaps for what is there
        self._remember = remember
        self._ledger: Snapshot

    def run(self, *, finish: bool = True, listed: bool = False) -> Shipment:
        """Send what is not there yet.

        Args:
            finish: recover and seal first what processes left that have died.
            listed: believe what an earlier run has listed of the prefix.

        Raises:
            LedgerPathError: there is no ledger, or it cannot be read; records are being erased.
            ObjectStorageError: the store refused, or did not answer; what was sent before stays.
            UnsupportedFormat: a newer version wrote the ledger, or to the prefix.
            MissingExtra: there is an archive, and DuckDB is not installed.
        """
        self._done = Shipment()
        live = list_live(self._root)
        ledger = Snapshot.take(self._root, live)
        if finish and _finish(self._root, ledger):
            live = list_live(self._root)
            ledger = Snapshot.take(self._root, live)
        self._ledger = ledger
        with not_erased(self._root):
            try:
                if not (listed and self._there):
                    self._list()
                self._send_all(set(live))
            except ObjectStorageError as exc:
                self._there = {}  # who knows
                self._tell({}, str(exc))
                raise
            finally:
                self._sent.keep()
        problems = self._done.problems
        self._tell(self._upto(), f"{problems[0].file}: {problems[0].detail}" if problems else None)
        self._done.requests = dict(self._prefix.requests)
        self._done.keeps_versions = self._prefix.keeps_versions
        return self._done

    def _upto(self) -> dict[str, int]:
        """Return up to which number the sealed segments of each writer are there."""
        found = {}
        for writer, family in by_writer(self._ledger.segments):
            last = 0
            for name in family:
                if name.last is None or not self._is_there(name):
                    break
                last = max(last, name.last)
            found[writer] = last
        return found

    def _is_there(self, name: SegmentName) -> bool:
        place = self._ledger.archive.get(name)
        part, file = (SEGMENTS, str(name)) if place is None else (ARCHIVE, place[0].path.name)
        try:
            stamp = stamp_of((self._root / part / file).lstat())
        except FileNotFoundError:
            return True  # pruned or compacted just now: it may go, and it did
        there = self._there[part].get(file)
        return name in self._only_here or self._sent.is_known(part, file, stamp, there)

    def _tell(self, upto: dict[str, int], error: str | None) -> None:
        """Note beside the ledger how far it is shipped, for retention and ``doctor``."""
        if self._remember:
            with contextlib.suppress(OSError):  # it may only be read
                note(
                    self._root,
                    self._prefix.url,
                    upto,
                    now=time.time(),
                    error=error,
                    there={name.writer for name in self._ledger.segments},
                )

    # -- what is there -------------------------------------------------------------------------

    def _list(self) -> None:
        versions = self._prefix.list(VERSIONS)
        refuse_newer_objects(self._prefix.url, versions)
        there = {part: self._prefix.list(part) for part in PARTS}
        self._there = {
            part: {name: one for name, one in found.items() if is_name(part, name)}
            for part, found in there.items()
        }
        self._there[VERSIONS] = versions

    def _additions(self) -> list[Adjustment | Audit]:
        """Return adjustments and audits, those as well that only the prefix has."""
        found = read_additions(self._root, self._ledger.adjustments, [])
        known = {str(name) for name in self._ledger.adjustments}
        for text in self._there[SEGMENTS]:
            name = SegmentName.parse(text)
            if name is not None and name.adjusts and text not in known:
                if text not in self._theirs:
                    with contextlib.suppress(Missing):
                        data, _, _ = self._prefix.get(f"{SEGMENTS}/{text}")
                        lines = map(addition_of, BytesIO(data))
                        self._theirs[text] = [one for one in lines if one is not None]
                found += self._theirs.get(text, ())
        return found

    # -- what is sent --------------------------------------------------------------------------

    def _send_all(self, live: set[str]) -> None:
        ledger = self._ledger
        additions = self._additions()
        self._erasures = Erasures(additions)
        audits = [one for one in additions if isinstance(one, Audit)]
        pruned = pruned_in(sorted(audits, key=lambda one: (one.at, one.id)))
        self._prunes = [one.changed for one in pruned.values()]
        if VERSION not in self._there[VERSIONS]:
            self._send(VERSIONS, VERSION, f"{VERSION}\n".encode(), None)
        self._each([(PRICES, name) for name in _listed(self._root / PRICES)], self._as_it_is)
        self._each([(SEGMENTS, str(name)) for name in ledger.adjustments], self._addition)
        sealed = [name for name in ledger.segments if not name.open and name not in ledger.archive]
        self._done.waiting += sum(name.open for name in ledger.segments)
        stood_for = {name for name, _ in pruned}
        files = {file.path.name: file for file, _ in ledger.archive.values()}
        self._each([(ARCHIVE, name) for name in sorted(files)], self._archived)

        def segment(part: str, text: str) -> None:
            self._segment(part, text, live, stood_for)

        self._each([(SEGMENTS, str(name)) for name in sealed], segment)
        self._each(
            [(MANIFESTS, name.manifest) for name in list_manifests(self._root)],
            lambda part, name: self._manifest(part, name, stood_for),
        )
        for path in ledger.broken:
            self._problem(ARCHIVE, path.name, "is not whole; restore it from a backup")
        self._remove_erased(audits)
        if self._remove_compacted:
            self._remove_archived(files.values())
        there = self._there
        self._done.segments = sum(str(name) in there[SEGMENTS] for name in sealed) + sum(
            file.path.name in there[ARCHIVE] for file, _ in ledger.archive.values()
        )

    def _each(self, keys: Iterable[tuple[str, str]], send: Callable[[str, str], None]) -> None:
        """Send files, several at once; after the first that the store refuses no other is begun."""
        large: list[tuple[str, str]] = []
        small: list[tuple[str, str]] = []
        for part, name in keys:
            try:
                state = (self._root / part / name).lstat()
            except FileNotFoundError:
                continue
            if self._sent.is_known(part, name, stamp_of(state), self._there[part].get(name)):
                continue
            (large if state.st_size > _LARGE else small).append((part, name))
        for some, at_once in ((small, _AT_ONCE), (large, _LARGE_AT_ONCE)):
            if not some:
                continue
            # Also of a single one: a signal is seen while a thread waits, and not by the driver.
            with ThreadPoolExecutor(min(at_once, len(some))) as threads:
                futures = [threads.submit(send, *one) for one in some]
                try:
                    for future in futures:
                        future.result()
                finally:
                    for future in futures:
                        future.cancel()

    def _read(self, part: str, name: str) -> tuple[bytes, Stamp] | None:
        """Read a file; ``None`` if it is gone, or must not be read, which is noted."""
        try:
            with open_file(self._root / part / name) as file:
                state = os.fstat(file.fileno())
                if state.st_size > LARGEST:
                    self._problem(part, name, f"is larger than {LARGEST:,} bytes")
                    return None
                return file.read(), stamp_of(state)
        except FileNotFoundError:
            return None
        except OSError as exc:
            self._problem(part, name, exc.strerror or str(exc), "unreadable")
            return None

    def _as_it_is(self, part: str, name: str) -> None:
        if not is_name(part, name):
            return
        found = self._read(part, name)
        if found is not None:
            self._send(part, name, *found)

    def _addition(self, part: str, name: str) -> None:
        found = self._read(part, name)
        if found is None:
            return
        ours = [addition_of(raw) for raw in BytesIO(found[0])]
        if ours and all(isinstance(one, Audit) and one.did == PRUNE for one in ours):
            changed = [c for one in ours if isinstance(one, Audit) for c in one.segments]
            if all(self._has(c.segment, c.archive, c.was.size) for c in changed if c.was.records):
                return  # gone here alone
        self._send(part, name, *found)

    def _has(self, segment: str, archive: str | None, size: int) -> bool:
        """Whether the prefix has, or had, what was pruned here."""
        if archive is not None and (
            archive in self._there[ARCHIVE] or self._sent.was(ARCHIVE, archive)
        ):
            return True
        there = self._there[SEGMENTS].get(segment)
        return (there is not None and there.size == size) or self._sent.was(SEGMENTS, segment)

    def _segment(self, part: str, text: str, live: set[str], pruned: set[SegmentName]) -> None:
        found = self._read(part, text)
        name = SegmentName.parse(text)
        if found is None or name is None:
            return
        data, stamp = found
        told = manifests.read_head(self._root, name)
        if _is_expired(name, data):
            if self._covers(name):
                self._only_here.add(name)
                return
        elif told is None and name.writer in live:
            self._done.waiting += 1
            return
        elif told is not None and told.sha256 != hashlib.sha256(data).hexdigest():
            if name not in pruned:
                self._problem(part, text, "is not what its manifest says; it was not sent")
            return
        self._send(part, text, data, stamp)

    def _covers(self, name: SegmentName) -> bool:
        """Whether the prefix has all numbers of a segment that stands for pruned ones."""
        spans = Spans()
        for text in self._there[SEGMENTS]:
            other = SegmentName.parse(text)
            if other is not None and other.writer == name.writer:
                spans.add_range(other.first, other.last or 0)
        for one in self._prunes:
            other = SegmentName.parse(one.segment)
            held = one.archive in self._there[ARCHIVE]
            if held and other is not None and other.writer == name.writer:
                spans.add_range(other.first, other.last or 0)
        return spans.overlap(name.first, name.last or 0) == (name.last or 0) - name.first + 1

    def _manifest(self, part: str, text: str, pruned: set[SegmentName]) -> None:
        name = SegmentName.parse(text.removesuffix(".json"))
        assert name is not None
        there = str(name) in self._there[SEGMENTS]
        if not (there or name in self._ledger.archive or name in pruned):
            return  # its segment comes first
        found = self._read(part, text)
        if found is None:
            return
        if manifests.parse(found[0], name) is None:
            self._problem(part, text, "is no manifest; remove it, then run litellm-ledger seal")
            return
        self._send(part, text, *found)

    def _archived(self, part: str, name: str) -> None:
        found = self._read(part, name)
        if found is None:
            return
        if hashlib.sha256(found[0]).hexdigest()[:16] != name[11:27]:
            self._problem(part, name, "is not what its name says; it was not sent")
            return
        self._send(part, name, *found)

    def _send(self, part: str, name: str, data: bytes, stamp: Stamp | None) -> None:
        """Have an object with this content there."""
        key, sha256 = f"{part}/{name}", hashlib.sha256(data).hexdigest()
        if self._erasures.is_old(sha256):
            self._problem(part, name, "records were erased from the one there; erase here as well")
            return
        if name not in self._there[part]:
            try:
                made = self._prefix.create(key, data, sha256)
            except Taken:
                pass
            else:
                with self._lock:
                    self._done.files += 1
                    self._done.bytes += len(data)
                self._note(part, name, made, sha256, stamp, proven=True)
                return
        known, theirs = self._prefix.checksum(key)
        if theirs == sha256 and known.size == len(data):
            self._note(part, name, known, sha256, stamp, proven=False)
        elif self._erasures.came_from(sha256, theirs):
            self._replace(part, name, data, sha256, known, stamp)
        elif part == SEGMENTS and _is_expired_text(name, data):
            self._only_here.update(filter(None, [SegmentName.parse(name)]))
        else:
            self._problem(
                part,
                name,
                f"{self._prefix.url}/{key} has another content (SHA-256 {theirs[:16]}…, not "
                f"{sha256[:16]}…): it was replaced there, or the ledger was restored or altered "
                "here; compare both, and remove the wrong one",
            )

    def _replace(
        self, part: str, name: str, data: bytes, sha256: str, old: Stored, stamp: Stamp | None
    ) -> None:
        key = f"{part}/{name}"
        try:
            made = self._prefix.replace(key, data, sha256, old)
        except Taken:  # by another shipper, or by us: the answer to the first try was lost
            made, theirs = self._prefix.checksum(key)
            if theirs != sha256:
                raise
        self._note(part, name, made, sha256, stamp, proven=True)
        with self._lock:
            self._done.replaced += 1

    def _note(
        self,
        part: str,
        name: str,
        there: Stored,
        sha256: str,
        stamp: Stamp | None,
        *,
        proven: bool,
    ) -> None:
        with self._lock:
            self._there[part][name] = there
            if stamp is not None:
                self._sent.note(part, name, there, sha256, stamp, proven=proven)

    def _problem(self, part: str, name: str, detail: str, what: str = "altered") -> None:
        with self._lock:
            self._done.problems.append(
                Problem(f"{part}/{name}", what, detail=detail)  # type: ignore[arg-type]
            )

    # -- what is removed -----------------------------------------------------------------------

    def _remove_erased(self, audits: Sequence[Audit]) -> None:
        """Remove what records were erased from, where what took its place is there."""
        for file in self._erasures.exchanges():
            if file.part != ARCHIVE or file.old_name == file.new_name:
                continue
            if file.old_name in self._there[ARCHIVE] and file.new_name in self._there[ARCHIVE]:
                self._remove(ARCHIVE, file.old_name)
        for audit in audits:
            for one in audit.segments if audit.did == ERASE else ():
                there = one.archive is not None and one.segment in self._there[SEGMENTS]
                if there and (one.now is None or one.now.sha256 != one.was.sha256):
                    _, theirs = self._prefix.checksum(f"{SEGMENTS}/{one.segment}")
                    if self._erasures.is_old(theirs):
                        self._remove(SEGMENTS, one.segment)

    def _remove_archived(self, files: Iterable[ArchiveFile]) -> None:
        """Remove the segments that a file of the archive which is there holds byte for byte."""
        for file in files:
            if file.path.name not in self._there[ARCHIVE]:
                continue
            for name, source in zip(file.names, file.sources, strict=True):
                if str(name) not in self._there[SEGMENTS]:
                    continue
                _, theirs = self._prefix.checksum(f"{SEGMENTS}/{name}")
                data = read_archived(self._root, name) if theirs == source.sha256 else None
                if data is not None and hashlib.sha256(data).hexdigest() == theirs:
                    self._remove(SEGMENTS, str(name))
                else:
                    self._problem(SEGMENTS, str(name), f"is not what {file.path.name} holds of it")

    def _remove(self, part: str, name: str) -> None:
        self._prefix.delete(f"{part}/{name}")
        self._there[part].pop(name, None)
        self._done.removed += 1


def _finish(root: Path, ledger: Snapshot) -> bool:
    """Recover and seal what dead processes left; return whether something was done."""
    living = {writer for writer, locked, _ in live_writers(root) if locked}
    dead = [name for name in ledger.segments if name.open and name.writer not in living]
    done = False
    if dead or len(living) < len(list_live(root)):
        with contextlib.suppress(OSError):  # by another process, or it may only be read
            recover(root)
            done = True
    there = set(list_manifests(root))
    for writer, family in by_writer(ledger.segments):
        sealed = [name for name in family if not name.open and name not in ledger.archive]
        if done or (writer not in living and not there.issuperset(sealed)):
            with contextlib.suppress(OSError):
                seal(root)
            return True
    return done


def _listed(directory: Path) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted(name for name in names if version_of_entry(name) is not None)


def _is_expired_text(text: str, data: bytes) -> bool:
    name = SegmentName.parse(text)
    return name is not None and _is_expired(name, data)


def is_expired(name: SegmentName, path: Path) -> bool:
    """Whether a segment has nothing but gaps, some of which stand for what was pruned."""
    if path.lstat().st_size > _GAPS:
        return False
    with open_file(path) as file:
        return _is_expired(name, file.read())


def _is_expired(name: SegmentName, data: bytes) -> bool:
    """Whether a segment has nothing but gaps, some of which stand for what was pruned."""
    if len(data) > _GAPS or b'"expired"' not in data:
        return False
    lines = scan(data, name.writer, name.first).lines
    gaps = all(head.kind == "gap" for head, _ in lines)
    return gaps and any(head.reason == "expired" for head, _ in lines)
