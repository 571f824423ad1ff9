"""The raw lines of a ledger by writer: dense, ascending, each number once, and only certain ones.

Owns the reading for shipping.  It differs from ``_reading.lines``: nothing is left out (an
``unsettled`` outcome stays where a real one exists too), no number is passed over (one without a
line is counted as damaged once nothing can bring it back), and nothing is given out that a power
cut could take (``standing`` has the bound).  Goes straight on in a segment, from the offset where
it was; only where a line does not fit is the file searched.  Never writes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

import msgspec

from litellm_ledger._archive.archive import archived
from litellm_ledger._maintenance.salvage import gap_line
from litellm_ledger._reading.listing import open_segment
from litellm_ledger._records.adjustment import erased_of
from litellm_ledger._records.audit import addition_of
from litellm_ledger._records.gaps import Gap
from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._records.line import LEVELS, SUFFIX, checked, line_of, newer_version
from litellm_ledger._records.nesting import nests_deeper
from litellm_ledger._records.scan import Head
from litellm_ledger._storage.format_version import newer_format

from .index import Index, state_of
from .standing import Lookout, Standing

__all__ = ["LINES", "SIZE", "Source", "Stretch"]

LINES: Final = 5_000
"""Lines of one batch; more gain nothing."""
SIZE: Final = 16 * 2**20
"""Bytes at which a batch ends, however few lines it has."""

_BLOCK: Final = 2**20
_GAP: Final = ord("g")
_TRIES: Final = 3
_KEPT: Final = 4
"""Indexes that are kept: as many as segments overlap at one place."""
_NAMED: Final = (0, 0)
_head: Final = msgspec.json.Decoder(Head).decode


@dataclass(slots=True)
class Stretch:
    """Numbers of one writer that follow each other, with their lines.

    Attributes:
        writer: whose.
        first, last: the numbers; ``last`` is one below ``first`` if there are none.
        numbers, lines: for each line the first number that it stands for, and its bytes.  A gap
            line of which only a part is here, because another line has the rest, is written anew.
        damaged: ranges of numbers that no line is there for, and none will be.
        held: why it ends here although more is certain.
        files: those that it was read from, as they were then.
    """

    writer: str
    first: int
    last: int
    numbers: list[int] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)
    held: str | None = None
    size: int = 0
    files: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def add(self, last: int, raw: bytes) -> None:
        """Add a line that stands for the numbers up to ``last``."""
        self.numbers.append(self.last + 1)
        self.lines.append(raw)
        self.last = last
        self.size += len(raw)

    def add_damage(self, last: int) -> None:
        """Count the numbers up to ``last`` as damaged."""
        first = self.last + 1
        if self.damaged and self.damaged[-1][1] == first - 1:
            first, _ = self.damaged.pop()
        self.damaged.append((first, last))
        self.last = last


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the line of a number begins."""

    first: int
    inode: int
    number: int
    offset: int


class _UnreadError(Exception):
    """A segment cannot be read now; why, in its text."""


class Source:
    """The lines of a ledger.

    Args:
        root: the ledger.

    Attributes:
        lookout: who has written, and up to where it is certain.
    """

    def __init__(
        self,
        root: Path,
        *,
        lookout: Lookout | None = None,
    ) -> None:
        self.root = root
        self.lookout = lookout or Lookout(root)
        self._places: dict[str, _Place] = {}
        self._indexes: dict[SegmentName, Index] = {}
        self._kept: tuple[SegmentName, Path, bytes] | None = None
        self._files: dict[Path, tuple[int, int]] = {}

    def rest(self) -> None:
        """Forget what only matters while much is read."""
        self._indexes.clear()
        self._kept = None

    def read(self, writer: str, first: int, lines: int = LINES, size: int = SIZE) -> Stretch:
        """Return lines of a writer from a number on, as far as they are certain.

        Args:
            lines, size: how many, and how many bytes, at most; one line at least.

        Raises:
            UnsupportedFormat: a newer version wrote one of them.
            LedgerPathError: the ledger, or its archive, cannot be read.
        """
        found = Stretch(writer, first, first - 1)
        self.read_on(found, lines, size)
        return found

    def read_on(self, found: Stretch, lines: int, size: int = SIZE) -> bool:
        """Read what follows, up to a number of lines; tell whether there may be more.

        Raises:
            UnsupportedFormat, LedgerPathError: as ``read``.
        """
        writer, self._files = found.writer, found.files
        standing = self.lookout.standings.get(writer)
        tries = 0
        while standing is not None and found.last < standing.top:
            if len(found.lines) >= lines or found.size >= size:
                return found.size < size
            try:
                if not self._straight(found, standing, lines, size):
                    self._search(found, standing, sure=tries > 0)
                tries = 0
            except _UnsureError:  # nothing has this number: look again before it is given up
                if tries == _TRIES:
                    found.held = "its segments change while they are read"
                    break
                tries += 1
                self.lookout.look(afresh=True)
                self._indexes.clear()
                standing = self.lookout.standings.get(writer)
            except _UnreadError as exc:
                found.held = str(exc)
                break
        if standing is not None and found.held is None and found.last >= standing.top:
            found.held = standing.held
        return False

    def is_as_read(self, found: Stretch) -> bool:
        """Whether the files are still those that lines were read from: else some may be erased."""
        return all(_state(path) == state for path, state in found.files.items())

    # -- straight on -----------------------------------------------------------------------------

    def _straight(self, found: Stretch, standing: Standing, lines: int, size: int) -> bool:
        """Read lines in the order of one file; tell whether there was any."""
        number = found.last + 1
        family = self.lookout.family(standing.writer)
        names = family.having(number)
        if len(names) != 1:
            return False
        (name,) = names
        end = min(family.last_of(name), family.next_first(number) - 1, standing.top)
        start = b'{"v":%d,"id":"%b-%%016d","seq":%%d,"kind":"' % (
            2 if name.adjusts else 1,
            name.writer.encode(),
        )
        file = self._opened(name)
        with file:
            inode = state_of(file)[0]
            offset = self._find(file, name, inode, number, start)
            if offset is None:
                return False
            begun = number
            numbers, kept = found.numbers, found.lines
            for raw in islice(file, max(1, lines - len(kept))):
                opening = start % (number, number)
                if (
                    not raw.startswith(opening)
                    or raw[-SUFFIX:] != b',"crc":"%08x"}\n' % crc32(raw[:-SUFFIX])
                    or nests_deeper(raw, LEVELS)
                ):
                    break
                last = number if raw[len(opening)] != _GAP else _end_of(raw)
                if not number <= last <= end:
                    break
                numbers.append(number)
                kept.append(raw)
                found.last = last
                offset += len(raw)
                found.size += len(raw)
                number = last + 1
                if number > end or found.size >= size:
                    break
        self._places[name.writer] = _Place(name.first, inode, number, offset)
        return number > begun

    def _find(
        self, file: BinaryIO, name: SegmentName, inode: int, number: int, start: bytes
    ) -> int | None:
        """Go to where the line of a number begins; return that, or ``None`` if there is none."""
        place = self._places.get(name.writer)
        if number == name.first:
            file.seek(0)
            return 0
        begin = 0
        if place is not None and (place.first, place.inode) == (name.first, inode):
            if place.number == number:
                file.seek(place.offset)
                return place.offset
            if place.number < number:
                begin = place.offset
        wanted = start[: -len(b',"seq":%d,"kind":"')] % number
        at = _line_with(file, wanted, begin)
        if at is None and begin:
            at = _line_with(file, wanted, 0)
        if at is not None:
            file.seek(at)
        return at

    def _opened(self, name: SegmentName) -> BinaryIO:
        """Open a segment; of one in the archive the lines are kept until another is asked for."""
        if self._kept is not None and self._kept[0] == name and _state(self._kept[1]) is not None:
            self._files.setdefault(self._kept[1], _NAMED)
            return BytesIO(self._kept[2])
        try:
            file, found = open_segment(self.root, name)
            place = archived(self.root).get(found) if isinstance(file, BytesIO) else None
        except FileNotFoundError as exc:
            raise _UnsureError from exc
        except OSError as exc:
            raise _UnreadError(f"{SEGMENTS}/{name}: {exc.strerror or exc}") from exc
        if isinstance(file, BytesIO):
            if place is None:  # it has left the archive meanwhile
                raise _UnsureError
            self._kept = name, place[0].path, file.getvalue()
            self._files.setdefault(place[0].path, _NAMED)
        else:
            path = self.root / SEGMENTS / str(found)
            self._files.setdefault(path, _told(path, os.fstat(file.fileno())))
        return file

    # -- where that fails ------------------------------------------------------------------------

    def _search(self, found: Stretch, standing: Standing, *, sure: bool) -> None:
        """Add one line, found wherever it is, or the numbers up to the next one as damaged.

        Raises:
            _UnsureError: nothing has this number, and it was not looked for afresh.
            _UnreadError: what has it may be somewhere that cannot be read.
        """
        number = found.last + 1
        family = self.lookout.family(standing.writer)
        names = family.having(number)
        indexes = [(name, self._index(name)) for name in names]
        for name, index in indexes:
            where = index.where(number)
            raw = self._line(name, where) if where is not None else None
            if raw is not None and _is_record(raw, self.root, name):
                found.add(number, raw)
                return
        bound = min(
            [standing.top + 1, family.next_first(number)]
            + [one for _, index in indexes if (one := index.next_from(number + 1)) is not None]
        )
        gaps = [
            (one, name)
            for name, index in indexes
            for one in index.gaps
            if one.gap.first <= number <= one.gap.last
        ]
        if gaps:
            (best, name) = max(gaps, key=lambda one: _admits(one[0].gap))
            last = min(best.gap.last, bound - 1)
            if (best.gap.first, best.gap.last) == (number, last):
                raw = self._line(name, (best.offset, best.length))
                if raw is None:
                    raise _UnsureError
            else:
                raw = gap_line(name.writer, number, last, best.gap.reason, best.gap.acked_until)
            found.add(last, raw)
            return
        if not sure:
            raise _UnsureError
        if self.lookout.unknown is not None:
            raise _UnreadError(self.lookout.unknown)
        if not standing.closed and not self.lookout.lives(standing.writer):
            raise _UnreadError(
                "its process died, and lines are missing; run litellm-ledger recover"
            )
        found.add_damage(bound - 1)

    def _index(self, name: SegmentName) -> Index:
        index = self._indexes.get(name)
        with self._opened(name) as file:
            state = state_of(file)
            if index is None or index.state != state:
                self._indexes.pop(name, None)
                while len(self._indexes) >= _KEPT:
                    del self._indexes[next(iter(self._indexes))]
                index = self._indexes[name] = Index(name, file.read(), state)
        return index

    def _line(self, name: SegmentName, where: tuple[int, int]) -> bytes | None:
        with self._opened(name) as file:
            file.seek(where[0])
            raw = file.read(where[1])
        return raw if checked(raw) else None


class _UnsureError(Exception):
    """Nothing that was listed has a number; something that came since may."""


def _state(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from one that takes its place; ``None``: there is none."""
    try:
        return _told(path, path.lstat())
    except OSError:
        return None


def _told(path: Path, found: os.stat_result) -> tuple[int, int]:
    """Return size and time; no inode, which some network file systems make up for each look."""
    if path.suffix != ".jsonl":  # in the archive its content is in its name; an open one grows
        return _NAMED
    return found.st_size, found.st_mtime_ns


def _line_with(file: BinaryIO, start: bytes, begin: int) -> int | None:
    """Return where the first line that starts so begins, not before ``begin``."""
    file.seek(begin)
    before = b"\n"  # the byte before, and the end of the block before
    offset = begin - 1
    wanted = b"\n" + start
    while block := file.read(_BLOCK):
        data = before + block
        at = data.find(wanted)
        if at >= 0:
            return offset + at + 1
        keep = min(len(data), len(wanted))
        before = data[-keep:]
        offset += len(data) - keep
    return None


def _end_of(raw: bytes) -> int:
    """Return the last number of a gap line; 0 if it is none."""
    try:
        head = _head(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0
    return head.last if head.kind == "gap" else 0


def _is_record(raw: bytes, root: Path, name: SegmentName) -> bool:
    """Whether a line whose checksum holds is a record.

    Raises:
        UnsupportedFormat: it is of a newer version.
    """
    if name.adjusts:
        known = addition_of(raw) is not None or erased_of(raw) is not None
    else:
        known = line_of(raw) is not None
    if not known:
        version = newer_version(raw)
        if version is not None and version > (2 if name.adjusts else 1):
            raise newer_format(root / SEGMENTS / str(name), version)
    return known


def _admits(gap: Gap) -> tuple[bool, bool, int]:
    """Order gaps by how much they admit: docs/FORMAT.md, "Gaps"."""
    lost = gap.reason == "lost"
    return gap.reason == "quarantined", lost and gap.acked_until is None, gap.acked_until or 0
