"""``Relation``: all the lines of a ledger that count, as views of a database.

Owns the parting of a ledger in three.  *Plain* segments, nearly all of it, are read by the database
itself.  Of *sound* ones, which are open or damaged and nothing else, it reads a copy of the valid
lines.  Everything else goes line by line through ``_reading.lines``, where the rules of duplicates,
gaps and unsettled calls stand: also segments whose numbers overlap, and tiny ones, which are faster
that way.  Never writes to the ledger.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NamedTuple, Self, TypeVar

import msgspec

from litellm_ledger._archive.archive import Place, parquet
from litellm_ledger._archive.columns import (
    COLUMNS,
    definitions,
    quoted,
    struct,
    structure,
    text_list,
)
from litellm_ledger._archive.database import connect, literally, module, statement
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._reading.lines import Entry, Problem, archive_problems, entries, first_of
from litellm_ledger._reading.listing import (
    Roots,
    Snapshot,
    Vanished,
    by_writer,
    each,
    open_segment,
    take_each,
)
from litellm_ledger._reading.sealed import manifests
from litellm_ledger._records.layout import SEGMENTS, SegmentName, split_id
from litellm_ledger._storage.manifest import Manifest
from litellm_ledger._storage.partial import bring, listed

from .survey import Surveyed, survey
from .surveyors import survey_ahead

if TYPE_CHECKING:
    import duckdb

__all__ = ["Relation", "ask", "asked"]

_T = TypeVar("_T")

_TRIES: Final = 5
"""Readings of a ledger whose files are compacted while it is read."""

_SMALL: Final = 32 * 1024
"""Bytes of a segment below which opening it in the database costs more than reading it here."""

_WORTH_A_COPY: Final = 256 * 1024
_COPIES: Final = 512 * 2**20
"""Bytes that copies may take on the temporary file system; what is beyond goes line by line."""

_BLOCK: Final = 2**20
_PREFIX: Final = "litellm-ledger-"
_BATCH: Final = 2_000
_LINE_BY_LINE: Final = "SELECT * FROM line_by_line"
_UNION: Final = " UNION ALL BY NAME "
_WIDEST: Final = 2 * 2**20
"""Bytes of the longest line; the database makes room for several."""


def ask(
    root: Roots,
    question: Callable[[Relation], _T],
    *,
    without: Collection[SegmentName] = (),
) -> _T:
    """Put a question to a ledger; see ``asked``."""
    with asked(root, question, without=without) as answer:
        return answer


@contextlib.contextmanager
def asked(
    root: Roots,
    question: Callable[[Relation], _T],
    *,
    without: Collection[SegmentName] = (),
) -> Iterator[_T]:
    """Put a question to a ledger, for an answer that needs its database.

    Files that were compacted meanwhile are found again, and the question is put anew; not so once
    it is answered.

    Args:
        root: the ledger, or several.
        question: what is asked.
        without: segments that are not asked: whole ones that no other overlaps.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read; the answer does not fit into
            memory and the directory for temporary files.
        UnsupportedFormat: it was written by a newer version.
        MissingExtra: DuckDB is not installed.
    """
    try:
        with contextlib.ExitStack() as opened:
            yield _answered(root, question, without, opened)
    except RuntimeError as exc:
        if str(exc) == "Query interrupted":  # all that the database says of a Ctrl-C
            raise KeyboardInterrupt from exc
        raise
    except module().OutOfMemoryException as exc:
        raise LedgerPathError(
            f"the answer takes more memory than it may have, and {tempfile.gettempdir()} has no "
            "room for the rest: make room there, set TMPDIR, or ask for fewer groups"
        ) from exc


def _answered(
    root: Roots,
    question: Callable[[Relation], _T],
    without: Collection[SegmentName],
    opened: contextlib.ExitStack,
) -> _T:
    duck = module()
    trusting = True
    for left in reversed(range(_TRIES)):
        try:
            with contextlib.ExitStack() as trial:
                relation = Relation(root, trusting=trusting, without=without)
                answer = question(trial.enter_context(relation))
                opened.push(trial.pop_all())
                return answer
        except duck.IOException as exc:
            if not left:
                there = " and ".join(map(str, each(root)))
                raise LedgerPathError(f"cannot read the ledger at {there}: {exc}") from exc
        except (duck.InvalidInputException, duck.ConversionException):
            if not trusting or not all(map(_can_name, each(root))):
                raise
            trusting = False
    raise AssertionError("unreachable")


class Relation:
    """A database with the views ``records`` and ``calls``; a context manager.

    Args:
        root: the ledger, or several.
        without: see ``ask``; they are looked at for the outcomes of unsettled calls.
        trusting: let the database read what has a true checksum.  Where that fails on something
            another program wrote, every line is read here.

    Attributes:
        database: the connection.
        problems: the places that hold no valid record.
        files: what the views read, apart from the table ``line_by_line``.
    """

    def __init__(
        self, root: Roots, *, trusting: bool = True, without: Collection[SegmentName] = ()
    ) -> None:
        self.problems: list[Problem] = []
        self.files: list[Path] = []
        looks: list[_Look] = []
        for ledger in take_each(root):
            one = ledger.root
            bring(_absent(ledger, without))
            self.problems += archive_problems(ledger)
            names = [name for name in ledger.segments if name not in without]
            sure = trusting and _can_name(one)
            parts = _part(one, names, ledger.archive, trusting=sure)
            looks.append(_Look(ledger, parts, sure))
            places = ledger.archive
            self.files += [one / SEGMENTS / str(n) for n, _ in parts.plain if n not in places]
            self.files += dict.fromkeys(places[n][0].path for n, _ in parts.plain if n in places)
        self._open = contextlib.ExitStack()
        self.database: duckdb.DuckDBPyConnection = self._open.enter_context(connect())
        try:
            own = [_LINE_BY_LINE]
            self.database.execute(f"CREATE TABLE line_by_line ({definitions()})")
            for ledger, parts, sure in looks:
                own += self._copied(ledger.root, parts)
                families = {} if sure else dict(by_writer(ledger.segments))
                self._load(ledger.root, parts.rest, families)
            plain = [
                query
                for ledger, parts, _ in looks
                for query in _queries(ledger.root, parts.plain, ledger.archive)
            ]
            self._lines = _UNION.join([*own, *plain])
            self._define(self._lines)
            oldest = self._unsettled()
            if oldest:
                lines = [*own]
                for ledger, parts, sure in looks:
                    others = [_Piece(n, n.first) for n in ledger.segments if n in without]
                    pieces = [*parts.plain, *(others if sure else ())]
                    near = [piece for piece in pieces if _may_settle(piece.name, oldest)]
                    bring(_absent(ledger.of([piece.name for piece in near]), ()))
                    lines += _queries(ledger.root, near, ledger.archive)
                settle = statement("settle").replace("{lines}", _UNION.join(lines))
                self.database.execute(settle)
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def rows(self, query: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a query and return all that it answers."""
        return self.database.execute(query, parameters).fetchall()

    def _define(self, lines: str) -> None:
        views = statement("views").replace("{lines}", lines)
        self.database.execute(views.replace("{columns}", ", ".join(COLUMNS)))

    def hide_tables(self) -> None:
        """Leave nothing but the two views: what was read line by line goes to a temporary file."""
        where = tempfile.TemporaryDirectory(prefix=_PREFIX)
        table = Path(self._open.enter_context(where)) / "line_by_line.parquet"
        self.database.execute(f"COPY line_by_line TO {quoted(str(table))} (FORMAT parquet)")
        self.files.append(table)
        json = "meta::JSON AS meta, content::JSON AS content"
        own = f"SELECT * REPLACE ({json}) FROM read_parquet({quoted(literally(table))})"
        self._define(self._lines.replace(_LINE_BY_LINE, own, 1))
        self.database.execute("DROP TABLE line_by_line")

    def _load(
        self,
        root: Path,
        rest: Sequence[list[SegmentName]],
        families: Mapping[str, list[SegmentName]],
    ) -> None:
        """Read segments line by line.

        Where the families of their writers are given, what settles an unsettled call is looked for
        in these; else that is the database's to find.
        """
        batch: list[str] = []
        told: dict[str, set[tuple[str, int]]] = {}
        for names in rest:
            writer = names[0].writer
            beaten = None if writer in families else told.setdefault(writer, set())
            family = families.get(writer)
            for entry in entries(root, names, self.problems, family=family, beaten=beaten):
                batch.append(_text(entry))
                if len(batch) == _BATCH:
                    self._insert(batch)
                    batch.clear()
        if batch:
            self._insert(batch)

    def _insert(self, lines: list[str]) -> None:
        insert = f"INSERT INTO line_by_line {statement('lines').format(struct=structure())}"
        self.database.execute(insert, [lines])

    def _unsettled(self) -> dict[str, int]:
        """Return writers with calls on record as unsettled, and the first number of an outcome."""
        oldest: dict[str, int] = {}
        query = "SELECT id, operation FROM line_by_line WHERE status = 'unsettled'"
        for key, name in self.rows(query):
            writer, number = split_id(key) or ("", 0)
            number = first_of(name or key, writer)
            oldest[writer] = min(number, oldest.get(writer, number))
        return oldest

    def _copied(self, root: Path, parts: _Parts) -> list[str]:
        """Return a query for copies of sound segments; one that cannot be copied is left over."""
        kept: Path | None = None
        copies = []
        for name, found in parts.sound.items():
            try:
                kept = kept or Path(
                    self._open.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX))
                )
                now = _copy_to(kept / str(name), root, name, found)
            except Vanished:
                continue
            except OSError:  # there is no room for it
                parts.rest.append([name])
                continue
            if now != name and found.bad:  # recovered meanwhile: the places are others now
                parts.rest.append([name])
                continue
            copies.append(kept / str(name))
            self.files.append(kept / str(name))
            for start, length, lines in found.bad:
                torn = now.open and start + length == found.size
                what: Literal["torn", "damaged"] = "torn" if torn else "damaged"
                self.problems.append(Problem(f"{SEGMENTS}/{now}", what, start, length, lines))
        return [_read(copies)] if copies else []


def _copy_to(path: Path, root: Path, name: SegmentName, found: Surveyed) -> SegmentName:
    """Copy the valid lines of a segment; return the name under which it was found."""
    file, now = open_segment(root, name)
    try:
        with file, path.open("wb") as copy:
            at = 0
            for start, length, _ in (*found.bad, (found.size, 0, 0)):
                _copy(file, copy, at, start)
                at = start + length
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return now


def _can_name(root: Path) -> bool:
    """Whether the database can be told where it is: a backslash in a pattern parts names for it."""
    return str(root).isprintable() and "\\" not in str(root.absolute())


def _copy(file: BinaryIO, to: BinaryIO, start: int, end: int) -> None:
    file.seek(start)
    while block := file.read(min(_BLOCK, end - start)):
        start += to.write(block)


class _Piece(NamedTuple):
    """A segment for the database; where others hold the beginning, from a number on."""

    name: SegmentName
    since: int


class _Look(NamedTuple):
    """A ledger, how its segments are read, and whether the database may read any."""

    ledger: Snapshot
    parts: _Parts
    sure: bool


class _Parts(NamedTuple):
    """How each segment of a ledger is read."""

    plain: list[_Piece]
    sound: dict[SegmentName, Surveyed]
    rest: list[list[SegmentName]]


def _part(  # noqa: C901 - the kinds of files, one after the other
    root: Path,
    names: Sequence[SegmentName],
    places: Mapping[SegmentName, Place],
    *,
    trusting: bool,
) -> _Parts:
    parts = _Parts([], {}, [])
    room = _COPIES
    found_out = {name: _compacted(places[name]) for name in names if name in places}
    if trusting:
        told = manifests(root, (name for name in names if name not in places))
        found_out |= {name: _told(manifest) for name, manifest in told.items() if manifest.plain}
        survey_ahead(root, (name for name in names if name not in found_out))
    for _, family in by_writer(names):
        for together in _overlapping(root, family, found_out):
            if not trusting:
                pass
            elif len(together) == 1:
                name, found = together[0]
                if found.plain and (found.size >= _SMALL or name in places):
                    parts.plain.append(_Piece(name, name.first))
                    continue
                if found.sound and _WORTH_A_COPY <= found.size <= room:
                    parts.sound[name] = found
                    room -= found.size
                    continue
            elif all(found.dense for _, found in together):
                since = 0
                for name, found in together:
                    if found.last >= since:
                        parts.plain.append(_Piece(name, max(since, name.first)))
                        since = found.last + 1
                continue
            parts.rest.append([name for name, _ in together])
    return parts


def _overlapping(
    root: Path, family: Sequence[SegmentName], known: Mapping[SegmentName, Surveyed]
) -> Iterator[list[tuple[SegmentName, Surveyed]]]:
    """Yield a writer's segments, those together whose numbers overlap, directly or not."""
    together: list[tuple[SegmentName, Surveyed]] = []
    end = 0
    for name in family:
        try:
            found = known[name] if name in known else survey(root, name)
        except Vanished:
            continue
        except OSError:
            found = Surveyed(plain=False, last=0, size=0)  # the reader will say what is the matter
        if together and name.first > end:
            yield together
            together = []
        together.append((name, found))
        end = max(end, found.last, name.last or 0)
    if together:
        yield together


def _told(manifest: Manifest) -> Surveyed:
    """What is known of a segment that is what its manifest says."""
    last = manifest.name.last if manifest.name is not None else None
    return Surveyed(plain=True, last=last or 0, size=manifest.size, dense=True, sound=True)


def _compacted(place: Place) -> Surveyed:
    """What is known of a segment in the archive: it was whole when it was put there."""
    file, number = place
    source = file.sources[number]
    return Surveyed(
        not (source.unsettled or source.odd), file.names[number].last or 0, source.bytes
    )


def _absent(ledger: Snapshot, without: Collection[SegmentName]) -> Iterator[Path]:
    """Yield the files of a ledger that the database is to read and that are elsewhere."""
    if listed(ledger.root / SEGMENTS) is None:
        return
    names = [name for name in ledger.segments if name not in without]
    paths = {ledger.archive[name][0].path for name in names if name in ledger.archive}
    paths |= {ledger.root / SEGMENTS / str(name) for name in names if name not in ledger.archive}
    yield from (path for path in sorted(paths) if not path.exists())


def _text(entry: Entry) -> str:
    """Return a line as the database understands it."""
    line = entry.line
    if line.kind != "gap" and _is_ours(entry):
        return entry.raw.decode()
    # Not the record, which is completed; and a gap may have been cut down.
    members = msgspec.json.decode(entry.raw) | msgspec.to_builtins(line)
    if line.ts is not None:  # the database takes the clock of any zone for that of UTC
        members["ts"] = line.ts.astimezone(UTC).isoformat().removesuffix("+00:00")
    return msgspec.json.encode(members).decode()


def _is_ours(entry: Entry) -> bool:
    """Whether a line has the form in which this library writes, which a database reads as we do."""
    line = entry.line
    tags = b"" if line.tags is None else b'"tags":%b' % msgspec.json.encode(line.tags)
    return tags in entry.raw and entry.raw.startswith(b'{"v":1,"id":"%b","seq":' % line.id.encode())


def _json(
    root: Path, plain: Sequence[_Piece], places: Mapping[SegmentName, Place]
) -> Iterator[str]:
    """Yield queries for the segments that are JSON lines."""
    pieces = [piece for piece in plain if piece.name not in places]
    whole = [name for name, since in pieces if since == name.first]
    if whole:
        yield _read(root / SEGMENTS / str(name) for name in whole)
    for name, since in pieces:
        if since > name.first:
            yield f"{_read([root / SEGMENTS / str(name)])} WHERE seq >= {since}"


def _queries(
    root: Path, pieces: Sequence[_Piece], places: Mapping[SegmentName, Place]
) -> list[str]:
    """Return queries for the lines in ``pieces``."""
    return [*_json(root, pieces, places), *_parquet(pieces, places)]


def _may_settle(name: SegmentName, oldest: Mapping[str, int]) -> bool:
    """Whether an outcome of a call that is on record as unsettled can be there."""
    first = oldest.get(name.writer)
    return first is not None and (name.last or first) >= first


def _read(files: Iterable[Path]) -> str:
    paths = text_list(map(literally, files))
    return (
        f"SELECT * FROM read_json({paths}, columns={struct(COLUMNS)}, "
        f"format='newline_delimited', maximum_object_size={_WIDEST}, hive_partitioning=false)"
    )


def _parquet(plain: Sequence[_Piece], places: Mapping[SegmentName, Place]) -> Iterator[str]:
    """Yield a query for the segments in the archive."""
    pieces = [(places[piece.name], piece) for piece in plain if piece.name in places]
    files = {place[0].path: place[0] for place, _ in pieces}
    if files:
        taken = {piece.name for piece in plain}
        others = [
            place for name, place in places.items() if name not in taken and place[0].path in files
        ]
        cut = [(place, since) for place, (name, since) in pieces if since > name.first]
        yield parquet(list(files.values()), others, cut)
