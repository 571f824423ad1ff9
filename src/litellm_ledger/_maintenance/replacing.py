"""``Replacing``: the files of a ledger without a person's lines, written beside the old ones.

Owns what each kind of file becomes, and what the audits say of it.  Nothing takes the place of
anything here: that is ``_maintenance.erasing``'s.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from litellm_ledger._archive.archive import (
    ArchiveFile,
    Place,
    Source,
    content_name,
    digest,
    kept_manifests,
    packed_manifests,
)
from litellm_ledger._archive.database import connect, module
from litellm_ledger._reading.lines import Problem
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.audit import (
    Audit,
    Changed,
    ChangedFile,
    Released,
    Was,
    addition_of,
)
from litellm_ledger._records.layout import (
    ARCHIVE,
    ERASING,
    MANIFESTS,
    RECOVERY,
    SEGMENTS,
    SegmentName,
    record_id,
)
from litellm_ledger._records.line import Line
from litellm_ledger._records.scan import scan
from litellm_ledger._storage import manifest as manifests
from litellm_ledger._storage.contents import NotWholeError, contents, lines_of
from litellm_ledger._storage.filesystem import FileSystem, open_file, read_file
from litellm_ledger._storage.manifest import Manifest, identity

from .additions import Audits
from .erasing import give, prepare, prepared
from .finding import archived_lines
from .parquet import Staging, write_file
from .rewriting import Rewriter, anonymous, in_place, untold

__all__ = ["Replacing"]

_MEMORY: Final = "180MB"
_MORE_MEMORY: Final = "1GB"
"""As for a compaction."""
_ID: Final = re.compile(rb"\d{8}T\d{6}Z-[0-9a-f]{16}-\d{16}")


class _Told(NamedTuple):
    """The manifest of a segment before and after, as far as there is one: SHA-256, and bytes."""

    old: str | None = None
    new: str | None = None
    data: bytes | None = None
    made: Manifest | None = None


class _State(NamedTuple):
    """A segment that was read or written."""

    size: int
    lines: int
    records: int
    sha256: str

    @classmethod
    def of(cls, manifest: Manifest) -> _State:
        return cls(manifest.size, manifest.lines, manifest.records, manifest.sha256)

    def said(self, manifest: str | None, made: Manifest | None) -> Was:
        return Was(
            size=self.size,
            lines=self.lines,
            records=self.records,
            sha256=self.sha256,
            manifest=manifest,
            sealed=made.sealed if made else None,
            previous=made.previous if made else None,
        )


class Replacing:
    """Files that are ready, and what audits are to say of them.

    Args:
        root: the ledger.
        fs: where all writing goes through but that of the database to its temporary file.
        rewriter: makes what takes the place of lines.
        ids: of the person's records.
        left: gets the files that nothing can be taken out of.

    Attributes:
        hidden: damaged places that were written over.
        recovered: records in files in ``recovery/``.
        adjustments: how many there were of these records.
    """

    def __init__(
        self,
        root: Path,
        fs: FileSystem,
        rewriter: Rewriter,
        ids: Collection[str],
        left: list[Problem],
    ) -> None:
        self._root = root
        self._fs = fs
        self._rewriter = rewriter
        self._person = rewriter.person
        self._ids = ids
        self._left = left
        self._told: dict[SegmentName, _Told] = {}
        self._segments: list[Changed] = []
        self._files: list[ChangedFile] = []
        self._records: dict[str, set[int]] = {}  # a number may be in several files
        self.hidden = self.recovered = self.adjustments = 0

    # -- segments ------------------------------------------------------------------------------

    def segment(self, name: SegmentName, numbers: Collection[int]) -> None:
        """Write a sealed segment without the lines of these numbers, and its manifest."""
        path = self._root / SEGMENTS / str(name)
        ready = prepared(self._root, SEGMENTS, str(name))
        there = manifests.read(self._root, name)
        before = _state_of(path, name, there and there[0])
        if before is not None:
            with open_file(path) as file:
                self._prepare(ready, self._rewriter.lines(file, name, numbers), path)
            told = self._tell(name, ready)
            after = _State.of(told.made) if told.made is not None else _read(ready, name)
            assert after is not None, f"{name} is not whole any more"
        else:
            before, after = self._damaged(name, numbers, path, ready)
            told = self._tell(name, None)
            self._left.append(_not_whole(name))
        self._segments.append(_changed(name, None, before, after, told))
        self._records.setdefault(name.writer, set()).update(numbers)

    def _damaged(
        self, name: SegmentName, numbers: Collection[int], path: Path, ready: Path
    ) -> tuple[_State, _State]:
        data = read_file(path)
        new = in_place(
            data,
            self._rewriter,
            lambda line: line.seq in numbers and line.id == record_id(name.writer, line.seq),
            self._hides,
        )
        self.hidden += new.hidden
        self._prepare(ready, [new.data], path)
        return _state(data, name), _state(new.data, name)

    def _hides(self, raw: bytes) -> bool:
        """Whether bytes that are no line say something of the person."""
        return self._person.are_all_in(raw) or _names_one_of(self._ids, raw)

    def _tell(self, name: SegmentName, lines: Path | None, there: bytes | None = None) -> _Told:
        """Make the manifest of a segment that was written anew.

        Args:
            name: of the segment.
            lines: the segment as it is now; ``None``: it is not what its manifest says.
            there: its manifest, where ``manifests/`` has none.
        """
        if name in self._told:
            return self._told[name]
        found = manifests.read(self._root, name)
        in_place_of = found is not None
        if found is None and there is not None:
            parsed = manifests.parse(there, name)
            found = None if parsed is None else (parsed, there)
        if found is None:
            return self._told.setdefault(name, _Told())
        old, data = found
        made = None
        if lines is None:
            new = untold(old)
        else:
            with open_file(lines) as file:
                made = contents(file, lines, name, old.limits)
            made = msgspec.structs.replace(made, sealed=old.sealed, previous=old.previous)
            new = manifests.encode(made)
            made = made.light()
        told = _Told(identity(data), identity(new), new, made)
        if in_place_of and told.old != told.new:
            path = self._root / MANIFESTS / name.manifest
            self._prepare(prepared(self._root, MANIFESTS, name.manifest), [new], path)
        return self._told.setdefault(name, told)

    # -- the archive ---------------------------------------------------------------------------

    def archive(self, file: ArchiveFile, numbers: Mapping[SegmentName, Collection[int]]) -> None:
        """Write a file of the archive without the lines of these numbers of its sources."""
        try:
            self._archive(file, numbers, _MEMORY)
        except module().OutOfMemoryException:
            self._archive(file, numbers, _MORE_MEMORY)

    def _archive(
        self, file: ArchiveFile, numbers: Mapping[SegmentName, Collection[int]], memory: str
    ) -> None:
        parts = [self._root / ERASING / f"part.{at}" for at in range(len(file.sources))]
        self._write_parts(file, numbers, parts)
        kept = {_segment_of(data): data for data in kept_manifests(file)}
        ready = self._root / ERASING / "whole.parquet"
        sources: list[Source] = []
        packed, changed = [], []
        for name, path, old in zip(file.names, parts, file.sources, strict=True):
            data = kept.get(str(name))
            if name not in numbers:
                sources.append(msgspec.structs.replace(old, odd=0))
            else:
                there = manifests.read(self._root, name)
                whole = there is None or there[0].sha256 == old.sha256
                told = self._tell(name, path if whole else None, data)
                data = told.data
                sources.append(_source(name, path))
                before, after = _compacted(old), _compacted(sources[-1])
                changed.append(_changed(name, file.path.name, before, after, told))
                self._records.setdefault(name.writer, set()).update(numbers[name])
            packed += [data] if data is not None else []
        self._write_parquet(ready, file, sources, parts, packed_manifests(packed), memory)
        now = digest(ready)
        self._fs.rename(
            ready, prepared(self._root, ARCHIVE, content_name(file.path.name[:10], now))
        )
        for path in parts:
            self._fs.unlink(path)
        self._segments += changed
        self._files.append(
            ChangedFile(file=f"{ARCHIVE}/{file.path.name}", sha256=digest(file.path), now=now)
        )

    def _write_parts(
        self,
        file: ArchiveFile,
        numbers: Mapping[SegmentName, Collection[int]],
        parts: Sequence[Path],
    ) -> None:
        """Write each source as a segment, without the lines of these numbers."""
        rows = archived_lines(file)
        ahead = next(rows, None)
        for at, path in enumerate(parts):
            sha256 = hashlib.sha256()

            def lines(at: int = at, sha256: Any = sha256) -> Iterator[bytes]:
                nonlocal ahead
                while ahead is not None and ahead[0] == at:
                    sha256.update(ahead[1])
                    yield from BytesIO(ahead[1])
                    ahead = next(rows, None)

            name, gone = file.names[at], numbers.get(file.names[at], ())
            path.unlink(missing_ok=True)
            self._prepare(path, self._rewriter.lines(lines(), name, gone) if gone else lines())
            if sha256.hexdigest() != file.sources[at].sha256:
                raise OSError(5, f"does not hold {name} as it says", str(file.path))

    def _write_parquet(
        self,
        path: Path,
        file: ArchiveFile,
        sources: list[Source],
        parts: Sequence[Path],
        packed: str,
        memory: str,
    ) -> None:
        path.unlink(missing_ok=True)
        with connect(memory, threads=1, ordered=True) as database, Staging(database) as staging:
            for at, part in enumerate(parts):
                with open_file(part) as lines:
                    for raw in lines:
                        staging.add(at, raw.decode())
            staging.flush()
            fd = self._fs.create(path)
            try:
                replaces = [*file.replaces, file.path.name]
                write_file(database, path, sources, parts, packed, replaces)
                give(fd, file.path)
                self._fs.sync(fd)
            finally:
                self._fs.close(fd)

    # -- everything else -----------------------------------------------------------------------

    def additions(self, name: SegmentName, ids: Collection[str], but: Collection[str]) -> None:
        """Write a segment of adjustments without those of these ids, and not of those records."""
        path = self._root / SEGMENTS / str(name)
        lines, count = [], 0
        for raw in BytesIO(read_file(path)):
            one = addition_of(raw)
            if isinstance(one, Adjustment) and one.id in ids and one.adjusts not in but:
                # The sums of a record that has expired stay, and so does what was added to them.
                raw = self._rewriter.adjustment(one, keep=one.adjusts not in self._ids)
                count += 1
            elif isinstance(one, Audit) and one.id in ids:
                new = self._rewriter.release(one, partial(self._has_released, but))
                count += new != raw
                raw = new
            lines.append(raw)
        if count:
            self.adjustments += count
            self._other(SEGMENTS, str(name), b"".join(lines), path)

    def _has_released(self, but: Collection[str], let: Released) -> bool:
        theirs = let.record in self._ids or self._person.has_released(let)
        return theirs and let.record not in but

    def recovery(self) -> None:
        """Write files in ``recovery/`` without the person's lines, and what has a mark."""
        try:
            names = sorted(os.listdir(self._root / RECOVERY))
        except FileNotFoundError:
            return
        for name in names:
            path = self._root / RECOVERY / name
            try:
                data = read_file(path)
            except OSError as exc:
                where = f"{RECOVERY}/{name}"
                self._left.append(Problem(where, "unreadable", detail=exc.strerror or str(exc)))
                continue
            if not (self._person.may_be_in(data) or self._hides(data)):
                continue
            new = in_place(data, self._rewriter, self._is_theirs, self._hides)
            if new.data != data:
                self.hidden += new.hidden
                self.recovered += len(new.records)
                self._other(RECOVERY, name, new.data, path)

    def _is_theirs(self, line: Line) -> bool:
        known = line.id in self._ids or line.operation in self._ids
        return line.kind != "gap" and (known or self._person.has(line))

    def history(self, names: Iterable[SegmentName]) -> None:
        """Write manifests whose lines are gone without the person's values of a tag."""
        if self._person.one_tag is None:
            return
        for name in names:
            there = manifests.read(self._root, name)
            new = None if there is None else anonymous(there[0], self._is_mark)
            if new is not None:
                path = self._root / MANIFESTS / name.manifest
                self._other(MANIFESTS, name.manifest, manifests.encode(new), path)

    def _is_mark(self, tag: str | None, value: str) -> bool:
        """Whether a value in a table is the person's, or has a mark in it."""
        if self._person.one_tag is not None and tag == self._person.one_tag[0]:
            return value in self._person.one_tag[1]
        return self._person.without(value) is None

    def restored(self, name: SegmentName, place: Place | None) -> None:
        """Write the manifest that a segment had after an erasure, in place of one from a backup.

        Args:
            name: of the segment.
            place: where it is in the archive, if it is not in ``segments/``.
        """
        there = manifests.read(self._root, name)
        if there is None:
            return
        path = self._root / SEGMENTS / str(name)
        if place is not None:
            kept = {_segment_of(data): data for data in kept_manifests(place[0])}
            data = kept.get(str(name))
            if data is None or manifests.parse(data, name) is None:
                return
        else:
            with open_file(path) as file:
                made = contents(file, path, name, there[0].limits)
            told = there[0]
            data = manifests.encode(
                msgspec.structs.replace(made, sealed=told.sealed, previous=told.previous)
            )
        self._other(MANIFESTS, name.manifest, data, self._root / MANIFESTS / name.manifest)

    def _other(self, part: str, name: str, data: bytes, like: Path) -> None:
        self._prepare(prepared(self._root, part, name), [data], like)
        new = hashlib.sha256(data).hexdigest()
        self._files.append(ChangedFile(file=f"{part}/{name}", sha256=digest(like), now=new))

    def _prepare(self, path: Path, parts: Iterable[bytes], like: Path | None = None) -> None:
        prepare(self._fs, path, parts, like)

    # -- what audits say -----------------------------------------------------------------------

    def add_audits(self, audits: Audits) -> None:
        """Add the audits of all that is ready, one a writer, and forget it."""
        by_writer: dict[str, list[Changed]] = {}
        for one in self._segments:
            name = SegmentName.parse(one.segment)
            by_writer.setdefault(name.writer if name else "", []).append(one)
        if self._files and not by_writer:
            by_writer[audits.adder] = []
        files = self._files
        for writer, segments in sorted(by_writer.items()):
            audits.add(
                writer,
                segments=segments,
                files=files,
                records=len(self._records.get(writer, ())),
                kept=self._rewriter.keep,
            )
            files = []
        self._segments, self._files = [], []
        self._records.clear()


def _changed(
    name: SegmentName, archive: str | None, before: _State, after: _State, told: _Told
) -> Changed:
    return Changed(
        segment=str(name),
        archive=archive,
        was=before.said(told.old, told.made),
        now=after.said(told.new, told.made),
    )


def _state_of(path: Path, name: SegmentName, there: Manifest | None) -> _State | None:
    """Say what a segment is; ``None`` if it is not whole, or not what its manifest says."""
    if there is None:
        return _read(path, name)
    return _State.of(there) if digest(path) == there.sha256 else None


def _read(path: Path, name: SegmentName) -> _State | None:
    """Read a segment; ``None`` if it is not whole."""
    try:
        return _compacted(_source(name, path))
    except NotWholeError:
        return None


def _source(name: SegmentName, path: Path) -> Source:
    """Read a segment as one that is to be in the archive.

    Raises:
        NotWholeError: it is not whole.
    """
    sha256 = hashlib.sha256()
    size = count = gaps = unsettled = 0
    with open_file(path) as file:
        for line, raw in lines_of(file, path, name):
            sha256.update(raw)
            size += len(raw)
            count += 1
            gaps += line.kind == "gap"
            unsettled += line.status == "unsettled"
    return Source(str(name), size, sha256.hexdigest(), count, gaps, unsettled)


def _compacted(source: Source) -> _State:
    return _State(source.bytes, source.lines, source.lines - source.gaps, source.sha256)


def _state(data: bytes, name: SegmentName) -> _State:
    """Say what is in a segment that is not whole."""
    records = sum(head.kind != "gap" for head, _ in scan(data, name.writer, name.first).lines)
    return _State(len(data), data.count(b"\n"), records, hashlib.sha256(data).hexdigest())


class _Named(msgspec.Struct):
    segment: str


def _segment_of(data: bytes) -> str:
    try:
        return msgspec.json.decode(data, type=_Named).segment
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _names_one_of(ids: Collection[str], raw: bytes) -> bool:
    return any(found.decode() in ids for found in _ID.findall(raw))


def _not_whole(name: SegmentName) -> Problem:
    detail = (
        "is damaged, or not what its manifest says: the lines that can be read were taken out; "
        "restore it from a backup, and run this again"
    )
    return Problem(f"{SEGMENTS}/{name}", "damaged", detail=detail)
