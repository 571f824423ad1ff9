"""``ObjectShipper``: the sealed files of a ledger, sent to a prefix in object storage.

Owns the order, and what is sent at all: audits and adjustments first, since they tell of other
files, then the archive, then segments, and manifests last, each after its segment.  So a reader
finds at every moment a ledger that says what it lacks, and an erasure that was cut short can be
made again: lines are without the person before the manifests that were made of them.  Any number of
shippers may send the same file: one creates the object, the others find that it is theirs.

Files of the archive without records that were erased have another name, and the old ones are
removed.  What was pruned here stays there: that is what it is for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Final

from litellm_ledger._archive.archive import ArchiveFile, read_archived
from litellm_ledger._maintenance.erasing import not_erased
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.adjustments import read_additions
from litellm_ledger._reading.chain import list_manifests
from litellm_ledger._reading.erasures import Erasures
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
from litellm_ledger._storage import manifest as manifests
from litellm_ledger._storage.shipping_marks import note

from .names import LARGEST, PARTS, VERSION, VERSIONS, is_name, refuse_newer_objects
from .sending import File, Sending, Shipment, is_expired
from .sent import file_of, stamp_of, upto
from .store import Missing, ObjectStorageError, Prefix, Stored

__all__ = ["ObjectShipper"]

_TOO_LARGE: Final = f"the object is larger than {LARGEST:,} bytes, which no file of a ledger is"


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
        self._files = Sending(root, prefix, remember=remember)
        self._theirs: dict[str, list[Adjustment | Audit]] = {}
        self._prunes: list[Changed] = []
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
        done = self._files.done = Shipment()
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
                self._files.there = {}  # who knows
                self._tell({}, str(exc))
                raise
            finally:
                self._files.sent.keep()
        first = next(iter(done.problems), None)
        self._tell(self._upto(), f"{first.file}: {first.detail}" if first else None)
        done.requests = dict(self._prefix.requests)
        done.keeps_versions = self._prefix.keeps_versions
        return done

    def _upto(self) -> dict[str, int]:
        """Return up to which number the sealed segments of each writer are there."""
        families = by_writer(self._ledger.segments)
        return {writer: upto(family, self._is_there) for writer, family in families}

    def _is_there(self, name: SegmentName) -> bool:
        part, file = file_of(self._ledger, name)
        try:
            stamp = stamp_of((self._root / part / file).lstat())
        except FileNotFoundError:
            return True  # pruned or compacted just now: it may go, and it did
        files = self._files
        there = files.there[part].get(file)
        return name in files.only_here or files.sent.is_known(part, file, stamp, there)

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

    @property
    def _there(self) -> dict[str, dict[str, Stored]]:
        return self._files.there

    def _list(self) -> None:
        versions = self._prefix.list(VERSIONS)
        refuse_newer_objects(self._prefix.url, versions)
        there = {part: self._prefix.list(part) for part in PARTS}
        self._files.there = {
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
                if self._there[SEGMENTS][text].size > LARGEST:
                    self._files.problem(SEGMENTS, text, _TOO_LARGE)
                    continue
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
        self._files.erasures = Erasures(additions)
        audits = [one for one in additions if isinstance(one, Audit)]
        pruned = pruned_in(sorted(audits, key=lambda one: (one.at, one.id)))
        self._prunes = [one.changed for one in pruned.values()]
        files = self._files
        if VERSION not in self._there[VERSIONS]:
            files.put(File(VERSIONS, VERSION, f"{VERSION}\n".encode(), None))
        prices = [name for name in _listed(self._root / PRICES) if is_name(PRICES, name)]
        files.each(PRICES, prices)
        files.each(SEGMENTS, map(str, ledger.adjustments), self._is_missed)
        sealed = [name for name in ledger.segments if not name.open and name not in ledger.archive]
        files.note_waiting(sum(name.open for name in ledger.segments))
        stood_for = {name for name, _ in pruned}
        archive = {file.path.name: file for file, _ in ledger.archive.values()}
        files.each(ARCHIVE, sorted(archive), self._is_as_named)
        is_whole = partial(self._is_whole, live=live, pruned=stood_for)
        files.each(SEGMENTS, map(str, sealed), is_whole)
        there = self._there[SEGMENTS]
        told = [  # each after its segment
            name.manifest
            for name in list_manifests(self._root)
            if str(name) in there or name in ledger.archive or name in stood_for
        ]
        files.each(MANIFESTS, told, self._is_manifest)
        for path in ledger.broken:
            files.problem(ARCHIVE, path.name, "is not whole; restore it from a backup")
        self._remove_erased(read_additions(self._root, ledger.adjustments, []))
        if self._remove_compacted:
            self._remove_archived(archive.values())
        files.done.segments = sum(str(name) in there for name in sealed) + sum(
            file.path.name in self._there[ARCHIVE] for file, _ in ledger.archive.values()
        )

    def _is_missed(self, file: File) -> bool:
        """Whether adjustments or audits tell of more than of what was pruned here alone."""
        ours = [addition_of(raw) for raw in BytesIO(file.data)]
        if not ours or not all(isinstance(one, Audit) and one.did == PRUNE for one in ours):
            return True
        changed = [c for one in ours if isinstance(one, Audit) for c in one.segments]
        return not all(
            self._has(c.segment, c.archive, c.was.size) for c in changed if c.was.records
        )

    def _has(self, segment: str, archive: str | None, size: int) -> bool:
        """Whether the prefix has, or had, what was pruned here."""
        if archive is not None and (
            archive in self._there[ARCHIVE] or self._files.sent.was(ARCHIVE, archive)
        ):
            return True
        there = self._there[SEGMENTS].get(segment)
        return (there is not None and there.size == size) or self._files.sent.was(SEGMENTS, segment)

    def _is_whole(self, file: File, *, live: set[str], pruned: set[SegmentName]) -> bool:
        """Whether a segment is what its manifest says, or has none and never will."""
        name = file.segment
        if name is None:
            return False
        told = manifests.read_head(self._root, name)
        if is_expired(name, file.data):
            if self._covers(name):
                self._files.only_here.add(name)
                return False
        elif told is None and name.writer in live:
            self._files.note_waiting()
            return False
        elif told is not None and told.sha256 != file.sha256:
            if name not in pruned:
                detail = "is not what its manifest says; it was not sent"
                self._files.problem(file.part, file.name, detail)
            return False
        return True

    def _covers(self, name: SegmentName) -> bool:
        """Whether the prefix has all numbers of a segment that stands for pruned ones."""
        spans = Spans()
        for text in self._there[SEGMENTS]:
            other = SegmentName.parse(text) if text.startswith(f"{name.writer}.") else None
            if other is not None:
                spans.add_range(other.first, other.last or 0)
        for one in self._prunes:
            other = SegmentName.parse(one.segment)
            held = one.archive in self._there[ARCHIVE]
            if held and other is not None and other.writer == name.writer:
                spans.add_range(other.first, other.last or 0)
        return spans.overlap(name.first, name.last or 0) == (name.last or 0) - name.first + 1

    def _is_manifest(self, file: File) -> bool:
        name = SegmentName.parse(file.name.removesuffix(".json"))
        if name is not None and manifests.parse(file.data, name) is not None:
            return True
        detail = "is no manifest; remove it, then run litellm-ledger seal"
        self._files.problem(file.part, file.name, detail)
        return False

    def _is_as_named(self, file: File) -> bool:
        if file.sha256[:16] == file.name[11:27]:
            return True
        detail = "is not what its name says; it was not sent"
        self._files.problem(file.part, file.name, detail)
        return False

    # -- what is removed -----------------------------------------------------------------------

    def _remove_erased(self, ours: Sequence[Adjustment | Audit]) -> None:
        """Remove what records were erased from, where what took its place is there.

        Only by audits of this ledger: who may create objects and not remove them could have others
        remove them, by an audit of an erasure that never was.
        """
        audits = [one for one in ours if isinstance(one, Audit)]
        for file in Erasures(ours).exchanges():
            if file.part != ARCHIVE or file.old_name == file.new_name:
                continue
            if {file.old_name, file.new_name} <= self._there[ARCHIVE].keys():
                self._files.remove(ARCHIVE, file.old_name)
        for audit in audits:
            for one in audit.segments if audit.did == ERASE else ():
                there = one.archive is not None and one.segment in self._there[SEGMENTS]
                if there and (one.now is None or one.now.sha256 != one.was.sha256):
                    _, theirs = self._prefix.checksum(f"{SEGMENTS}/{one.segment}")
                    if self._files.erasures.is_old(theirs):
                        self._files.remove(SEGMENTS, one.segment)

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
                    self._files.remove(SEGMENTS, str(name))
                else:
                    self._files.problem(
                        SEGMENTS, str(name), f"is not what {file.path.name} holds of it"
                    )


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
