"""The manifest of a sealed segment: what it holds, in short (docs/FORMAT.md).

Owns its members, its bytes and the rules of believing it; ``_storage.contents`` makes it.  Nothing
depends on a manifest: where it is missing or wrong, the lines are read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from zlib import crc32

import msgspec

from litellm_ledger._aggregates.durations import DurationTable
from litellm_ledger._aggregates.quarters import Limits, Table
from litellm_ledger._aggregates.totals import FIELDS
from litellm_ledger._records.layout import MANIFESTS, SegmentName
from litellm_ledger._records.line import SEALED, framed
from litellm_ledger._records.record import KEYS

from .filesystem import open_file

__all__ = [
    "LONGEST",
    "SLOW",
    "TOO_LARGE",
    "Call",
    "Manifest",
    "encode",
    "identity",
    "parse",
    "read",
    "read_head",
    "utc_text",
]

LONGEST: Final = 2**20
"""Bytes of a line beyond which a database needs larger buffers than it is given."""

TOO_LARGE: Final = 64 * 2**20
"""Bytes of a manifest that none of ours has."""
SLOW: Final = 5.0
"""Seconds within which a manifest appears under its name after the time that stands in it."""
_HEAD: Final = b',"head":"'
"""Where the part ends that most questions need.  No text of JSON can hold these bytes."""
_HEAD_SIZE: Final = 16 * 2**10
"""Bytes that are read for that part at first."""
Number = Annotated[int, msgspec.Meta(ge=0)]
_Time = Annotated[
    str,
    msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z"),
]
Call = tuple[str, int]
"""A request to a provider: its operation, and the number of the attempt."""


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
            if _HEAD in data:
                return parse_head(data, name)
            data += file.read(TOO_LARGE)
    except OSError:
        return None
    manifest = parse(data, name)
    if manifest is None:
        return None
    # That of an older version has no ``short``: its table takes that place.
    return manifest.light(manifest.table if manifest.head is None else manifest.short)


def utc_text(ts: datetime) -> str:
    """Write a time as a line has it."""
    return ts.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
