"""The archive: compacted segments, read back byte for byte as they were.

Owns the names in ``archive/`` and the way from a row to the line that it was.  A segment in the
archive is still a segment: it is listed and opened under its name, so that code that reads,
verifies or recovers need not know where it is.  Never writes; needs DuckDB as soon as there is an
archive, and imports it to read a row.
"""

from __future__ import annotations

import os
import re
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import compress, decompressobj, error

import msgspec

from litellm_ledger._errors import LedgerPathError
from litellm_ledger._records.layout import ARCHIVE, SegmentName
from litellm_ledger._storage.checked_files import CheckedFiles
from litellm_ledger._storage.filesystem import names_of, open_file
from litellm_ledger._storage.format_version import newer_format
from litellm_ledger._storage.partial import bring, footer, size_of

from .columns import COLUMNS, quoted
from .database import connect, literally, module, refuse_without, statement
from .footer import read_footer, value_of

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "AS_TEXT",
    "FORMAT_KEY",
    "MANIFESTS_KEY",
    "REPLACES_KEY",
    "SOURCES_KEY",
    "ArchiveFile",
    "Place",
    "Source",
    "archived",
    "batch_archived",
    "content_name",
    "digest",
    "kept_manifests",
    "list_archive",
    "packed_manifests",
    "parquet",
    "read_archived",
    "rebuilt",
    "source_of",
    "unsettled_in",
]

FORMAT_KEY: Final = "litellm_ledger_format"
SOURCES_KEY: Final = "litellm_ledger_sources"
MANIFESTS_KEY: Final = "litellm_ledger_manifests"
REPLACES_KEY: Final = "litellm_ledger_replaces"
_FORMAT: Final = b"1"

_NAME: Final = re.compile(r"\d{4}-\d{2}-\d{2}\.([0-9a-f]{16})\.parquet", re.ASCII)
_MANIFESTS: Final = 64 * 2**20
"""Bytes that no manifests of the sources of one file have."""
_AT_ONCE: Final = 8 * 2**20
"""Bytes of small segments that are read together, since who reads one reads the next as well.

As many are kept: readers of several writers go from file to file, and most ask for one again.
"""
_FEW: Final = 500
"""Rows that are read with every column in less time than it takes to count the values in each."""


class Source(msgspec.Struct, frozen=True):
    """A segment that was compacted, as the metadata of an archive file tells it.

    Attributes:
        name: of the segment.
        bytes, sha256: of the segment as it was.
        lines: rows that it is now.
        gaps, unsettled: how many of them are gaps, and ``unsettled`` outcomes.
        odd: how many of them the columns do not tell in full: they are to be read as lines.
    """

    name: str
    bytes: int
    sha256: str
    lines: int
    gaps: int = 0
    unsettled: int = 0
    odd: int = 0


class ArchiveFile(NamedTuple):
    """A file in the archive that is whole; column ``source`` counts through ``sources``.

    It holds in place of the files that it ``replaces``, by their names.
    """

    path: Path
    sources: list[Source]
    names: list[SegmentName]
    replaces: tuple[str, ...] = ()


Place = tuple[ArchiveFile, int]
"""Where a compacted segment is: in which file, as which of its sources."""


class _Kept(NamedTuple):
    """A segment that was read, and the file it is from, as it was then."""

    data: bytes
    path: Path
    state: tuple[int, int]


_known: dict[tuple[str, int, int], ArchiveFile | None] = {}
_places: dict[tuple[Path, ...], dict[SegmentName, Place]] = {}
_kept: dict[Path, dict[SegmentName, _Kept]] = {}
_lock = threading.Lock()
_database: duckdb.DuckDBPyConnection | None = None
_inherited: list[object] = []


def content_name(day: str, sha256: str) -> str:
    """Return the name of an archive file: its day, and its content in short."""
    return f"{day}.{sha256[:16]}.parquet"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in a ledger."""
    with open_file(path) as file:
        return _sha256(file)


def _sha256(file: BufferedReader) -> str:
    import hashlib

    return hashlib.file_digest(file, "sha256").hexdigest()


def list_archive(
    root: Path, broken: list[Path] | None = None, *, afresh: bool = False
) -> list[ArchiveFile]:
    """List the files of the archive by name; what is not whole goes to ``broken``.

    A file is named after its content.  That is checked once, or ``afresh``.

    Raises:
        MissingExtra: there is an archive, and DuckDB is not installed.
        UnsupportedFormat: a newer version wrote it.
        LedgerPathError: it cannot be read.
    """
    if not (root / ARCHIVE).is_dir():
        return []
    refuse_without()
    found = []
    try:
        paths = sorted(root / ARCHIVE / name for name in names_of(root / ARCHIVE))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise LedgerPathError(
            f"cannot list {root / ARCHIVE}: {exc.strerror}; read it as the user who owns it"
        ) from exc
    checked = CheckedFiles(root, sum(map(_size, paths)))
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        try:
            file = _looked_at(path, match[1], checked, afresh=afresh)
        except FileNotFoundError:  # pruned, or written anew, just now
            continue
        if file is not None:
            found.append(file)
        elif broken is not None:
            broken.append(path)
    checked.keep()
    replaced = {name for file in found for name in file.replaces}
    return [file for file in found if file.path.name not in replaced] if replaced else found


def _looked_at(
    path: Path, sha256: str, checked: CheckedFiles, *, afresh: bool
) -> ArchiveFile | None:
    """Return a file of the archive as it was found to be, once; ``None`` if it is not whole."""
    if afresh and not path.exists():
        bring([path])
    try:
        state = path.lstat()
    except FileNotFoundError:
        key = str(path), size_of(path), 0  # it is elsewhere: checked when it is brought
        if key not in _known:
            _known[key] = _of_footer(path, footer(path) or b"")
        return _known[key]
    if not S_ISREG(state.st_mode):  # the database would follow a link
        return None
    key = str(path), state.st_size, state.st_mtime_ns
    if afresh or key not in _known:
        _known[key] = _opened(path, sha256, None if afresh else checked)
    return _known[key]


def _size(path: Path) -> int:
    return _state(path)[0]


def _state(path: Path) -> tuple[int, int]:
    """Return the size of a file, and when it was written; zeros if it is not there."""
    try:
        found = path.lstat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _opened(path: Path, sha256: str, checked: CheckedFiles | None) -> ArchiveFile | None:
    try:
        known = digest(path) if checked is None else checked.checksum(path, _sha256)
        if not known.startswith(sha256):
            return None
        with open_file(path) as file:
            return _of_footer(path, read_footer(file) or b"")
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise LedgerPathError(f"cannot read {path}: {exc.strerror}") from exc


def _of_footer(path: Path, footer: bytes) -> ArchiveFile | None:
    version = value_of(footer, FORMAT_KEY)
    if version != _FORMAT:
        if version is not None:
            raise newer_format(path, version.decode("utf-8", "replace"))
        return None
    try:
        sources = msgspec.json.decode(value_of(footer, SOURCES_KEY) or b"", type=list[Source])
        # Few files have it: before our pairs, a value of a record may look like it.
        ours = footer[footer.rfind(FORMAT_KEY.encode()) :]
        replaces = msgspec.json.decode(value_of(ours, REPLACES_KEY) or b"[]", type=tuple[str, ...])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    names = [SegmentName.parse(source.name) for source in sources]
    if None in names:
        return None
    return ArchiveFile(path, sources, [name for name in names if name is not None], replaces)


def _reader() -> duckdb.DuckDBPyConnection:
    """Return a cursor of a database that this process keeps: opening one takes 50 ms."""
    with _lock:
        if _database is None:
            _open_database()
        assert _database is not None
        return _database.cursor()


def _open_database() -> None:
    global _database
    _database = connect(threads=1, ordered=True)


def _forked() -> None:
    """Begin anew in a forked child; what the parent has open is neither used nor closed there."""
    global _database, _lock
    _inherited.append(_database)
    _database, _lock = None, threading.Lock()
    _kept.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def archived(
    root: Path, broken: list[Path] | None = None, *, afresh: bool = False
) -> dict[SegmentName, Place]:
    """Return where each compacted segment is: the file, and its number in there.

    Raises and fills ``broken`` as ``list_archive`` does.
    """
    files = list_archive(root, broken, afresh=afresh)
    key = tuple(file.path for file in files)
    with _lock:
        if key not in _places:
            _places.clear()
            _places[key] = {
                name: (file, number) for file in files for number, name in enumerate(file.names)
            }
        return _places[key]


def unsettled_in(place: Place) -> int:
    """Return how many ``unsettled`` outcomes a compacted segment has."""
    file, number = place
    return file.sources[number].unsettled


def source_of(place: Place) -> tuple[str, int]:
    """Return the SHA-256 of a compacted segment as it was, and its lines.

    A file in the archive is named after its content, so it is what was written and compared then.
    """
    file, number = place
    return file.sources[number].sha256, file.sources[number].lines


def packed_manifests(manifests: Iterable[bytes]) -> str:
    """Write manifests as the metadata of a file has them."""
    return b64encode(compress(b"".join(manifests))).decode()


def kept_manifests(file: ArchiveFile) -> list[bytes]:
    """Return the manifests that a file keeps of its sources, as they were; nobody has judged them.

    Raises:
        OSError: it cannot be read.
    """
    with open_file(file.path) as opened:
        packed = value_of(read_footer(opened) or b"", MANIFESTS_KEY) or b""
    try:
        return decompressobj().decompress(b64decode(packed), _MANIFESTS).splitlines(keepends=True)
    except (ValueError, error):
        return []


def read_archived(root: Path, name: SegmentName) -> bytes | None:
    """Return a compacted segment as it was; ``None`` if it is not in the archive.

    A line whose row was altered has a checksum that does not hold, as in a segment.

    Raises:
        MissingExtra, UnsupportedFormat, LedgerPathError: as ``list_archive``.
    """
    with _lock:
        kept = _kept.get(root, {}).get(name)
    if kept is not None and kept.state == _state(kept.path):
        return kept.data
    place = archived(root).get(name)
    if place is None:
        return None
    file, number = place
    end, size = number + 1, file.sources[number].bytes
    while end < len(file.sources) and size + file.sources[end].bytes <= _AT_ONCE:
        size += file.sources[end].bytes
        end += 1
    few = sum(source.lines for source in file.sources[number:end]) <= _FEW
    if not file.path.exists():
        bring([file.path])
    state = _state(file.path)
    read: dict[SegmentName, list[bytes]] = {key: [] for key in file.names[number:end]}
    with _reader() as database:
        try:
            for at, lines in rebuilt(database, file.path, number, end, few=few):
                read[file.names[at]].append(lines)
        except module().Error as exc:
            if not file.path.exists():  # pruned, or written anew, just now
                return read_archived(root, name)
            raise LedgerPathError(f"cannot read {file.path}: {exc}") from exc
    found = {key: _Kept(b"".join(parts), file.path, state) for key, parts in read.items()}
    with _lock:
        others = _kept.pop(root, {})
        _kept.clear()
        for both in (others | found, found):
            if sum(len(one.data) for one in both.values()) <= _AT_ONCE:
                _kept[root] = both
                break
    return found[name].data


# -- from a row to the line that it was --------------------------------------------------------

_PYTHON: Final = {"BIGINT": int, "DOUBLE": float, "BOOLEAN": bool, "VARCHAR": str}
_Row: Final = msgspec.defstruct(
    "_Row",
    [
        (name, kind) if name in ("id", "seq", "kind") else (name, kind | None, None)
        for name, kind in (
            *((n, str if n == "ts" else _PYTHON.get(sql, dict)) for n, sql in COLUMNS.items()),
            ("crc", str),
        )
    ],
    tag_field="v",
    tag=1,
    omit_defaults=True,
    gc=False,
)
_encode: Final = msgspec.json.Encoder().encode_lines
_decode: Final = msgspec.json.Decoder(_Row).decode_lines
AS_TEXT: Final = {"ts": "strftime(make_timestamp(epoch_us(ts)), '%Y-%m-%dT%H:%M:%S.%fZ')"}
_BATCH: Final = 250


def rebuilt(
    database: duckdb.DuckDBPyConnection, path: Path, first: int, end: int, *, few: bool = False
) -> Iterator[tuple[int, bytes]]:
    """Yield (number of the source, some of its lines) of the sources ``first`` … ``end - 1``.

    A row comes as one text, because fetching thirty values takes several times as long.  It is not
    yet the line: how numbers and text are written is not the database's to say.

    Args:
        database: it reads rows in the order of the file, which is that of the lines: ``ordered``.
        path: the file.
        first, end: which of its sources.
        few: they have so few rows that it is not worth it to find out which columns are empty.
    """
    rows = f"FROM {_rows(_from(path))} WHERE source >= {first} AND source < {end}"
    kept, *there = [1] * (1 + len(COLUMNS))
    if not few:
        counts = ", ".join(f"count({name})" for name in ("line", *COLUMNS))
        kept, *there = database.execute(f"SELECT {counts} {rows}").fetchone() or ()
    members = "".join(
        f", {name} := {AS_TEXT.get(name, name)}"
        for name, count in zip(COLUMNS, there, strict=True)
        if count
    )
    struct = f"struct_pack(v := 1{members}, crc := printf('%08x', crc))"
    query = f"SELECT source, CAST(to_json({struct}) AS VARCHAR){', line' if kept else ''} {rows}"
    lines = _lines_of_both if kept else _lines
    result = database.execute(query)
    while batch := result.fetchmany(_BATCH):
        for source, of_source in groupby(batch, key=itemgetter(0)):
            yield source, lines(list(of_source))


def _lines(rows: Sequence[tuple[int, str]]) -> bytes:
    try:
        return _encode(_decode("\n".join([text for _, text in rows])))
    except (msgspec.DecodeError, RecursionError):
        return b"".join([_of_columns(text) for _, text in rows])


def _lines_of_both(rows: Sequence[tuple[int, str, str | None]]) -> bytes:
    """Return the lines of rows, some of which have the line itself beside its columns."""
    return b"".join(
        [_of_columns(text) if line is None else line.encode() for _, text, line in rows]
    )


def _of_columns(text: str) -> bytes:
    try:
        return _encode(_decode(text))
    except (
        msgspec.DecodeError,
        RecursionError,
    ):  # no line; what there was would be in the row beside it
        return b"{}\n"


def _from(path: Path) -> str:
    return quoted(literally(path))


def _rows(paths: str) -> str:
    """Read files; a directory named like ``model=x`` is no value of theirs.

    A column that joined the record after a file was written is NULL there.
    """
    read = f"read_parquet({paths}, filename=true, hive_partitioning=false, union_by_name=true)"
    return f"(FROM {read} UNION ALL BY NAME SELECT {_NOTHING} WHERE false)"


_STORED: Final = {"ts": "TIMESTAMP WITH TIME ZONE"}
"""What an archive file has as another type than the views."""

_NOTHING: Final = ", ".join(
    f"CAST(NULL AS {_STORED.get(name, kind)}) AS {name}" for name, kind in COLUMNS.items()
)


def parquet(
    files: Sequence[ArchiveFile],
    leave_out: Sequence[Place] = (),
    cut: Sequence[tuple[Place, int]] = (),
) -> str:
    """Return a query for the rows of archive files.

    Args:
        files: which.
        leave_out: sources of theirs that are not wanted.
        cut: sources that are wanted from a number on.
    """
    paths = ", ".join(_from(file.path) for file in files)
    columns = ", ".join(_READ.get(name, name) for name in COLUMNS)
    query = f"SELECT {columns} FROM {_rows(f'[{paths}]')}"
    conditions = [f"NOT {_is(place)}" for place in leave_out]
    conditions += [f"(seq >= {since} OR NOT {_is(place)})" for place, since in cut]
    return query + (f" WHERE {' AND '.join(conditions)}" if conditions else "")


_READ: Final = {
    "ts": "make_timestamp(epoch_us(ts)) AS ts",
    "meta": "meta::JSON AS meta",
    "content": "content::JSON AS content",
}


def _is(place: Place) -> str:
    file, number = place
    return f"(source = {number} AND filename = {quoted(str(file.path.absolute()))})"


def batch_archived(root: Path, name: str, since: float) -> bool:
    """Whether a compacted record of this Unix time or later says that a batch was counted.

    Raises:
        MissingExtra, UnsupportedFormat, LedgerPathError: as ``list_archive``.
    """
    files = list_archive(root)
    if not files:
        return False
    with _reader() as database:
        query = statement("batch").format(rows=parquet(files))
        try:
            return bool(database.execute(query, [name, since]).fetchone())
        except module().Error as exc:
            raise LedgerPathError(f"cannot read the archive of {root}: {exc}") from exc
