"""Writing one archive file: lines into a table, the table into Parquet, Parquet against the lines.

Owns the proof that nothing is lost: what was written is read back and compared with the sources,
byte by byte, by the database (``proof``) or here.  Renames and removes nothing; that is
``_maintenance.compact``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from zlib import crc32

import msgspec

from litellm_ledger._archive.archive import (
    FORMAT_KEY,
    MANIFESTS_KEY,
    REPLACES_KEY,
    SOURCES_KEY,
    Source,
    rebuilt,
)
from litellm_ledger._archive.columns import (
    COLUMNS,
    definitions,
    quoted,
    struct,
    structure,
    text_list,
)
from litellm_ledger._archive.database import literally, module, statement
from litellm_ledger._errors import InvalidRecord, LedgerPathError
from litellm_ledger._records.line import SEALED, SUFFIX, decode
from litellm_ledger._records.scan import Head
from litellm_ledger._storage.filesystem import open_file
from litellm_ledger._storage.manifest import LONGEST

from .proof import gives_back

if TYPE_CHECKING:
    import duckdb

__all__ = ["Staging", "write_file", "write_whole"]

_BATCH: Final = 1_000
_head: Final = msgspec.json.Decoder(Head)


class Staging:
    """The table that becomes an archive file, filled some lines at a time."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self._database = database
        self._insert = statement("stage").format(struct=structure())
        self._numbers: list[int] = []
        self._lines: list[str] = []
        database.execute(
            "CREATE OR REPLACE TABLE staged "
            f"(source INTEGER, line VARCHAR, crc UINTEGER, {definitions()})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(module().Error):  # if it failed as a whole, there is an error already
            self._database.execute("DROP TABLE staged")

    def add(self, number: int, line: str) -> None:
        """Add a line of the source of that number."""
        self._numbers.append(number)
        self._lines.append(line)
        if len(self._lines) == _BATCH:
            self.flush()

    def flush(self) -> None:
        """Put what was added into the table."""
        if self._lines:
            self._database.execute(self._insert, [self._lines, self._numbers])
            self._numbers.clear()
            self._lines.clear()

    def drop(self, number: int) -> None:
        """Forget the lines of a source."""
        self.flush()
        self._database.execute("DELETE FROM staged WHERE source = ?", [number])


def write_whole(
    database: duckdb.DuckDBPyConnection,
    path: Path,
    sources: Sequence[Source],
    segments: Sequence[Path],
    manifests: str,
) -> None:
    """Write segments that are whole and plain, and make sure that they can be read back.

    The database reads the lines itself: that takes a fraction of the time.

    Args:
        database, path, segments, manifests: as for ``write_file``.
        sources: what goes into its metadata.

    Raises:
        LedgerPathError, duckdb.Error: the columns do not give back every line; ``write_file`` is
            the way, or finds out what else is the matter.
    """
    paths = [str(segment.absolute()) for segment in segments]
    rows = statement("segments").format(
        members=", ".join(COLUMNS),
        paths=text_list(map(literally, segments)),
        columns=struct({"v": "UTINYINT", **COLUMNS, "crc": "VARCHAR"}),
        longest=LONGEST + 1,
        numbers=", ".join(f"({quoted(name)}, {number})" for number, name in enumerate(paths)),
    )
    _copy(database, path, f"({rows})", sources, manifests)
    if not gives_back(database, path, sources, segments):
        _refuse_different(database, path, segments)


def write_file(
    database: duckdb.DuckDBPyConnection,
    path: Path,
    sources: list[Source],
    segments: Sequence[Path],
    manifests: str,
    replaces: Sequence[str] = (),
) -> None:
    """Write the table, and make sure that every source can be read back from the file.

    A line that its columns do not give back byte for byte (it has a member that we do not know,
    say) is kept as it is in the column ``line``.

    Args:
        database: with the table that ``Staging`` filled; ``ordered``.
        path: the file; not synced.
        sources: what goes into its metadata; ``odd`` is found out here.
        segments: where the sources are.
        manifests: those that there are of them, packed; they go into its metadata too.
        replaces: names of the files that it takes the place of.

    Raises:
        LedgerPathError: the file does not say what the sources say.
    """
    rows = "(FROM staged ORDER BY source, seq)"
    _copy(database, path, rows, sources, manifests, replaces)
    different = list(_different(database, path, segments))
    if not different:
        return
    keep = "UPDATE staged SET line = $3 WHERE source = $1 AND seq = $2"
    for at, raw, line in different:
        database.execute(keep, [at, _head.decode(raw).seq, raw.decode()])
        if not _means(line, raw):
            sources[at] = msgspec.structs.replace(sources[at], odd=sources[at].odd + 1)
    _copy(database, path, rows, sources, manifests, replaces)
    _refuse_different(database, path, segments)


def _copy(
    database: duckdb.DuckDBPyConnection,
    path: Path,
    rows: str,
    sources: Sequence[Source],
    manifests: str,
    replaces: Sequence[str] = (),
) -> None:
    names = quoted(msgspec.json.encode(replaces).decode())
    database.execute(
        statement("archive").format(
            path=quoted(str(path.absolute())),
            columns=", ".join("ts AT TIME ZONE 'UTC' AS ts" if n == "ts" else n for n in COLUMNS),
            rows=rows,
            format_key=FORMAT_KEY,
            sources_key=SOURCES_KEY,
            sources=quoted(msgspec.json.encode(sources).decode()),
            manifests_key=MANIFESTS_KEY,
            manifests=quoted(manifests),
            more=f", {REPLACES_KEY}: {names}" if replaces else "",
        )
    )


def _refuse_different(
    database: duckdb.DuckDBPyConnection, path: Path, segments: Sequence[Path]
) -> None:
    if next(_different(database, path, segments), None) is not None:
        raise LedgerPathError(f"{path} does not read back as it was written; try again")


def _different(
    database: duckdb.DuckDBPyConnection, path: Path, segments: Sequence[Path]
) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (source, line, what came back) of the lines that the file does not give back.

    Raises:
        LedgerPathError: it has other rows than the sources have lines.
    """
    found = rebuilt(database, path, 0, len(segments))
    ahead = next(found, None)
    for at, segment in enumerate(segments):
        with open_file(segment) as file:
            while ahead is not None and ahead[0] == at:
                lines = ahead[1]
                begin = file.tell()
                if file.read(len(lines)) != lines:
                    file.seek(begin)
                    for line in BytesIO(lines):
                        raw = file.readline()
                        if not raw:
                            raise _other_rows(path)
                        if line != raw:
                            yield at, raw, line
                ahead = next(found, None)
            if file.read(1):
                raise _other_rows(path)
    if ahead is not None:
        raise _other_rows(path)


def _other_rows(path: Path) -> LedgerPathError:
    return LedgerPathError(f"{path} does not hold what was written; try again")


def _means(line: bytes, raw: bytes) -> bool:
    """Whether the columns, written as a line, are the same record as the line."""
    body = line[:-SUFFIX]
    try:
        return decode(SEALED % (body, crc32(body))) == decode(raw)
    except InvalidRecord:
        return False
