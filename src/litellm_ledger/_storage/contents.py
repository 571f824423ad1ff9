"""What a sealed segment holds: its manifest, made from its lines and written.

Owns the reading of a whole segment.  A manifest is written after the segment has its final name.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from litellm_ledger._aggregates.quarters import Limits
from litellm_ledger._aggregates.segment_sums import SegmentSums
from litellm_ledger._aggregates.totals import FIELDS
from litellm_ledger._records.layout import MANIFESTS, SEGMENTS, SegmentName, record_id
from litellm_ledger._records.line import Line, checked, line_of, newer_version
from litellm_ledger._records.record import KEYS
from litellm_ledger._records.scan import Head

from .filesystem import FileSystem, make_directories, open_file, read_file, rights_beside
from .format_version import newer_format
from .manifest import LONGEST, SLOW, Call, Manifest, encode, identity, utc_text
from .segment import write_sealed

__all__ = ["LIMITS", "NotWholeError", "contents", "lines_of", "make", "write"]

LIMITS: Final = Limits()
"""Of the tables that this version makes."""
_TRIES: Final = 3
_BREATH: Final = 64
"""Lines after which a thread in the background lets others run: a quarter of a millisecond."""


class NotWholeError(Exception):
    """A segment is damaged, or not what its name says; where, in its text."""


def lines_of(file: Iterable[bytes], path: Path, name: SegmentName) -> Iterator[tuple[Line, bytes]]:
    """Yield the lines of a segment that is exactly what its name says.

    Args:
        file: the segment.
        path: where it is, for an error.
        name: what it is called.

    Raises:
        NotWholeError: it is not.
        UnsupportedFormat: a newer version wrote it.
        OSError: it cannot be read.
    """
    expected = name.first
    for raw in file:
        line = line_of(raw) if checked(raw) else None
        if line is None:
            version = newer_version(raw)
            if version is not None:
                raise newer_format(path, version)
        if (
            line is None
            or line.seq != expected
            or line.id != record_id(name.writer, expected)
            or (line.gap_until is not None and line.gap_until < expected)
        ):
            raise NotWholeError(f"not whole from number {expected}; run litellm-ledger verify")
        expected = (line.gap_until or expected) + 1
        yield line, raw
    if expected - 1 != name.last:
        raise NotWholeError(f"ends with number {expected - 1}, its name says {name.last}")


def make(
    path: Path,
    name: SegmentName,
    *,
    previous: str | None = None,
    after: str = "",
    breathe: Callable[[], None] | None = None,
) -> Manifest:
    """Read a sealed segment and say what it holds.

    Args:
        path: where it is.
        name: what it is called.
        previous: the identity of the writer's previous manifest.
        after: when that one was made.
        breathe: called again and again while the lines are read.

    Raises:
        NotWholeError, UnsupportedFormat, OSError: as ``lines_of``.
    """
    with open_file(path) as file:
        manifest = contents(file, path, name, LIMITS, breathe)
    return msgspec.structs.replace(manifest, previous=previous, sealed=max(_now(), after))


def contents(
    file: Iterable[bytes],
    path: Path,
    name: SegmentName,
    limits: Limits,
    breathe: Callable[[], None] | None = None,
) -> Manifest:
    """Return the manifest of a segment that is open; no time and no previous one stand in it.

    Raises:
        NotWholeError, UnsupportedFormat, OSError: as ``lines_of``.
    """
    found = _Contents(name.writer, limits)
    for at, (line, raw) in enumerate(lines_of(file, path, name)):
        found.add(line, raw)
        if breathe is not None and not at % _BREATH:
            breathe()
    return found.manifest(name)


class _Contents:
    """Takes the lines of a segment, one after the other."""

    def __init__(self, writer: str, limits: Limits) -> None:
        import hashlib

        self._prefix = b'{"v":1,"id":"%b-' % writer.encode()
        self._limits = limits
        self._sums = SegmentSums(limits)
        self._crc = self._size = self._lines = 0
        self._sha = hashlib.sha256()
        self._plain = True
        self._earliest: datetime | None = None
        self._latest: datetime | None = None
        self._gaps: list[tuple[int, int, str, int | None]] = []
        self._open: dict[Call, None] = {}
        self._closed: dict[Call, None] = {}
        self._unsettled: dict[Call, None] = {}

    def add(self, line: Line, raw: bytes) -> None:
        self._crc = crc32(raw, self._crc)
        self._sha.update(raw)
        self._size += len(raw)
        self._lines += 1
        if len(raw) > LONGEST or not raw.startswith(b"%b%016d" % (self._prefix, line.seq)):
            self._plain = False
        if line.kind == "gap":
            self._plain = False
            head = _head(raw)
            self._gaps.append((line.seq, head.last, head.reason or "lost", head.acked_until))
            return
        call = line.operation or line.id, line.attempt or 1
        if line.kind == "started":
            self._open[call] = None
            return
        self._sums.add(line)
        if (ts := line.ts) is not None:
            if self._earliest is None or ts < self._earliest:
                self._earliest = ts
            if self._latest is None or ts > self._latest:
                self._latest = ts
        if line.status == "unsettled":
            self._plain = False
            self._unsettled[call] = None
            self._open.pop(call, None)
        elif call in self._open:
            del self._open[call]
        elif call[0] != line.id:
            self._closed[call] = None

    def manifest(self, name: SegmentName) -> Manifest:
        tables = self._sums.tables()
        return Manifest(
            segment=str(name),
            sealed="",
            previous=None,
            size=self._size,
            lines=self._lines,
            crc32=f"{self._crc:08x}",
            sha256=self._sha.hexdigest(),
            plain=self._plain,
            earliest=utc_text(self._earliest) if self._earliest else None,
            latest=utc_text(self._latest) if self._latest else None,
            gaps=self._gaps,
            open=list(self._open),
            closed=list(self._closed),
            unsettled=list(self._unsettled),
            tags=self._sums.tags(),
            keys=list(KEYS),
            sums=list(FIELDS),
            limits=self._limits,
            short=_raw(tables.short),
            head="",
            durations=_raw(tables.durations),
            table=_raw(tables.table),
            tag_tables={tag: _raw(table) for tag, table in tables.of_tags.items()},
        )


_head: Final = msgspec.json.Decoder(Head).decode


def _raw(table: msgspec.Struct | None) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(table))


def _now() -> str:
    return utc_text(datetime.now(UTC))


def write(fs: FileSystem, root: Path, manifest: Manifest) -> tuple[str, str]:
    """Write a manifest, durable; return what the next one of the writer needs: its identity, and
    when it was made.

    It either exists whole or not at all.

    Raises:
        OSError: what the disk said.
    """
    directory = root / MANIFESTS
    if not directory.is_dir():
        make_directories(fs, directory, rights_beside(root / SEGMENTS))
    name = f"{manifest.segment}.json"
    data = b""
    for left in reversed(range(_TRIES)):
        data = encode(manifest)
        due = time.monotonic() + SLOW

        def refuse_late(due: float = due) -> None:
            if time.monotonic() > due:
                raise OSError(errno.ETIMEDOUT, "the disk is too slow")

        try:
            write_sealed(fs, directory, name, data, attempt=os.getpid(), before=refuse_late)
        except OSError as exc:
            if _is_there(directory / name, data):  # its name is durable with that of the next one
                break
            if exc.errno != errno.ETIMEDOUT or not left:
                raise
            manifest = msgspec.structs.replace(manifest, sealed=max(_now(), manifest.sealed))
        else:
            break
    return identity(data), manifest.sealed


def _is_there(path: Path, data: bytes) -> bool:
    try:
        return read_file(path) == data
    except FileNotFoundError:
        return False
    except OSError:  # as where the process has no descriptor left, by which it could be read
        return _has_size(path, len(data))


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.lstat().st_size == size
    except OSError:
        return False
