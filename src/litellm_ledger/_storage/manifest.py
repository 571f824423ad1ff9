"""The manifest of a sealed segment: what it holds, in short (docs/FORMAT.md).

Owns its making from the lines, its file and the rules of believing it.  A manifest is written after
the segment has its final name, and nothing depends on it: where it is missing or wrong, the lines
are read.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from zlib import crc32

import msgspec

from litellm_ledger._aggregates.durations import DurationTable
from litellm_ledger._aggregates.groups import KEYS
from litellm_ledger._aggregates.quarters import Limits, Quarters, Table
from litellm_ledger._aggregates.totals import FIELDS
from litellm_ledger._records.layout import MANIFESTS, SEGMENTS, SegmentName, record_id
from litellm_ledger._records.line import SEALED, Line, checked, framed, line_of, newer_version
from litellm_ledger._records.scan import Head

from .filesystem import FileSystem, make_directories, open_file, read_file, rights_beside
from .format_version import newer_format
from .segment import write_sealed

__all__ = [
    "LONGEST",
    "SLOW",
    "TOO_LARGE",
    "Call",
    "Manifest",
    "NotWholeError",
    "contents",
    "encode",
    "identity",
    "lines_of",
    "make",
    "parse",
    "read",
    "read_head",
    "utc_text",
    "write",
]

LONGEST: Final = 2**20
"""Bytes of a line beyond which a database needs larger buffers than it is given."""

TOO_LARGE: Final = 64 * 2**20
"""Bytes of a manifest that none of ours has."""
SLOW: Final = 5.0
"""Seconds within which a manifest appears under its name after the time that stands in it."""
LIMITS: Final = Limits()
"""Of the tables that this version makes."""
_HEAD: Final = b',"head":"'
"""Where the part ends that most questions need.  No text of JSON can hold these bytes."""
_HEAD_SIZE: Final = 32 * 2**10
"""Bytes that are read for that part at first."""
_TRIES: Final = 3
_BREATH: Final = 64
"""Lines after which a thread in the background lets others run: a quarter of a millisecond."""

Number = Annotated[int, msgspec.Meta(ge=0)]
_Time = Annotated[
    str,
    msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z"),
]
Call = tuple[str, int]
"""A request to a provider: its operation, and the number of the attempt."""


class NotWholeError(Exception):
    """A segment is damaged, or not what its name says; where, in its text."""


_NULL: Final = msgspec.Raw(b"null")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, tag_field="v", tag=1):
    """What a sealed segment holds; docs/FORMAT.md explains each member."""

    segment: str
    sealed: _Time
    previous: str | None
    size: Number
    lines: Number
    crc32: str
    sha256: str
    plain: bool
    earliest: str | None
    latest: str | None
    gaps: list[tuple[Number, Number, str, Number | None]]
    open: list[Call]
    closed: list[Call]
    unsettled: list[Call]
    tags: list[str] | None
    keys: list[str]
    sums: list[str]
    limits: Limits = Limits()
    short: msgspec.Raw = _NULL
    head: str | None = None
    durations: msgspec.Raw = _NULL
    table: msgspec.Raw = _NULL
    tag_tables: dict[str, msgspec.Raw] = {}

    @property
    def name(self) -> SegmentName | None:
        """The name of the segment."""
        return SegmentName.parse(self.segment)

    @property
    def records(self) -> int:
        """Lines that are records."""
        return self.lines - len(self.gaps)

    @property
    def is_current(self) -> bool:
        """Whether its tables have the keys and the sums that this version knows."""
        return self.keys == list(KEYS) and set(FIELDS) <= set(self.sums)

    def short_table(self) -> Table | None:
        """Return the sums in few rows; ``None`` if it has them not."""
        return self._parsed(self.short)

    def table_of(self, tag: str | None) -> Table | None:
        """Return the sums by the value of a tag, ``None``: of no tag; ``None`` if it has them not.

        Only the table that is asked for is parsed: that is most of the work.
        """
        if tag is None or (self.tags is not None and tag not in self.tags):
            return self._parsed(self.table)
        raw = self.tag_tables.get(tag)
        return None if self.tags is None or raw is None else self._parsed(raw, of_tag=True)

    def duration_table(self) -> DurationTable | None:
        """Return the latencies and times to first token; ``None`` if it has them not."""
        if not self.is_current:
            return None
        try:
            table = _durations(self.durations)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return table if table is not None and table.is_sound() else None

    def _parsed(self, raw: msgspec.Raw, *, of_tag: bool = False) -> Table | None:
        if not self.is_current:
            return None
        try:
            table = _table(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return table if table is not None and table.is_sound(of_tag) else None

    def light(self, short: msgspec.Raw = _NULL) -> Manifest:
        """Return it without its tables, which take most of its memory, but with this short one."""
        return msgspec.structs.replace(
            self, short=short.copy(), durations=_NULL, table=_NULL, tag_tables={}
        )

    def content(self) -> dict[str, Any]:
        """Return what follows from the lines, as far as this version makes it too."""
        members = msgspec.structs.asdict(self)
        unknown = (*(() if self.is_current else _TABLES), *(_NEW if self.head is None else ()))
        for name in ("sealed", "previous", "head", *unknown):
            members.pop(name, None)
        for name in {"short", "durations", "table"} & members.keys():
            members[name] = bytes(members[name])
        if "tag_tables" in members:
            members["tag_tables"] = {tag: bytes(raw) for tag, raw in self.tag_tables.items()}
        return members


_TABLES: Final = ("keys", "sums", "short", "durations", "table", "tag_tables")
_NEW: Final = ("short", "durations")
"""What manifests of older versions lack."""
_encode: Final = msgspec.json.Encoder().encode
_durations: Final = msgspec.json.Decoder(DurationTable | None).decode
_table: Final = msgspec.json.Decoder(Table | None).decode
_decode: Final = msgspec.json.Decoder(Manifest).decode


def encode(manifest: Manifest) -> bytes:
    """Return the bytes of its file."""
    head, _, rest = _encode(manifest)[:-1].partition(_HEAD)
    body = b"%b%b%08x%b" % (head, _HEAD, crc32(head), rest[rest.index(b'"') :])
    return SEALED % (body, crc32(body))


def identity(data: bytes) -> str:
    """Return what a later manifest, and an anchor, name it by."""
    import hashlib  # only where it is needed: a report needs none, and the import takes time

    return hashlib.sha256(data).hexdigest()


def parse(data: bytes, name: SegmentName) -> Manifest | None:
    """Return the manifest of a segment, ``None`` if these bytes are none."""
    manifest = _sound(data, name) if framed(data) else None
    if manifest is None or manifest.head is None:
        return manifest
    head = parse_head(data, name)
    # What one reader finds in a part, the other finds in the whole: no member is there twice.
    same = head is not None and all(_same(head, manifest, member) for member in _MEMBERS_OF_HEAD)
    return manifest if same else None


def parse_head(data: bytes, name: SegmentName) -> Manifest | None:
    """Return the manifest that data begin with, without its tables but ``short``."""
    head, mark, rest = data.partition(_HEAD)
    if not mark or rest[:9] != b'%08x"' % crc32(head):
        return None
    return _sound(head + b',"head":"%b"}' % rest[:8], name)


def _sound(data: bytes, name: SegmentName) -> Manifest | None:
    try:
        manifest = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    sound = manifest.segment == str(name) and len(manifest.gaps) <= manifest.lines
    return manifest if sound else None


def _same(one: Manifest, other: Manifest, member: str) -> bool:
    ours, theirs = getattr(one, member), getattr(other, member)
    return bytes(ours) == bytes(theirs) if member == "short" else ours == theirs


_MEMBERS: Final = Manifest.__struct_fields__
_MEMBERS_OF_HEAD: Final = _MEMBERS[: _MEMBERS.index("head") + 1]


def read(root: Path, name: SegmentName) -> tuple[Manifest, bytes] | None:
    """Return a segment's manifest and the bytes of its file; ``None`` if there is none to believe.

    Whether the segment is what the manifest says is another question.
    """
    try:
        with open_file(root / MANIFESTS / name.manifest) as file:
            data = file.read(TOO_LARGE)
    except OSError:
        return None
    manifest = parse(data, name)
    return None if manifest is None else (manifest, data)


def read_head(root: Path, name: SegmentName) -> Manifest | None:
    """Return a segment's manifest without its tables but ``short``; ``None`` as for ``read``.

    Of most files that is in the first few kilobytes.
    """
    try:
        with open_file(root / MANIFESTS / name.manifest) as file:
            data = file.read(_HEAD_SIZE)
            if _HEAD not in data:
                data += file.read(TOO_LARGE)
    except OSError:
        return None
    if _HEAD in data:
        return parse_head(data, name)
    manifest = parse(data, name)  # of an older version: its table takes that place
    return None if manifest is None else manifest.light(manifest.table)


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
        self._quarters = Quarters(limits)
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
        self._quarters.add(line)
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
        tables = self._quarters.tables()
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
            tags=self._quarters.tags(),
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


def _raw(table: Table | DurationTable | None) -> msgspec.Raw:
    return msgspec.Raw(_encode(table))


def utc_text(ts: datetime) -> str:
    """Write a time as a line has it."""
    return ts.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


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
