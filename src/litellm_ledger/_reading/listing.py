"""The segments of a ledger directory, listed and opened while others create and rename them.

Owns the listing and the opening.  Never writes, never reads a line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Self

from litellm_ledger._archive.archive import Place, archived, read_archived
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._records.layout import (
    ARCHIVE,
    LIVE,
    SEGMENTS,
    SegmentName,
    live_name,
    writer_of_live,
)
from litellm_ledger._storage.filesystem import names_of, open_file, refuse_links
from litellm_ledger._storage.format_version import refuse_newer
from litellm_ledger._storage.live_file import LiveCounters, is_locked, read_live

__all__ = [
    "Roots",
    "Snapshot",
    "Vanished",
    "by_writer",
    "each",
    "list_additions",
    "list_live",
    "list_segments",
    "live_writers",
    "names_in",
    "open_segment",
    "refuse_copies",
    "take_each",
]

Roots = Path | tuple[Path, ...]
"""A ledger, or several that are read as one."""


class Vanished(FileNotFoundError):
    """A segment went away while we read.  There is no record in it any more.

    Its writer, or recovery, removes an open one that has no whole line; with lines it would be
    found under its sealed name.  A sealed one was pruned: another segment accounts for its numbers.
    One that somebody deletes by hand shows as a hole in the numbers.
    """


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at a ledger's directory: everything that one question needs of it.

    Attributes:
        root: the ledger.
        segments: by writer and first number, those in the archive among them.
        archive: where each compacted segment is.
        broken: files of the archive that are not whole.
        adjustments: the segments that hold adjustments; they are not among the others.
    """

    root: Path
    segments: list[SegmentName]
    archive: Mapping[SegmentName, Place]
    broken: list[Path]
    adjustments: Sequence[SegmentName] = ()

    @classmethod
    def take(cls, root: Path, live: Sequence[str] | None = None, *, afresh: bool = False) -> Self:
        """Look at a ledger once.

        Args:
            afresh: read the files of the archive, whatever is remembered of them.
            live: what ``list_live`` found, where the caller had to read the counters first.

        Raises:
            LedgerPathError: there is no ledger, or it cannot be read; the text says what to do.
            UnsupportedFormat: a newer version of this library has written here.
            MissingExtra: there is an archive, and DuckDB is not installed.
        """
        refuse_links(root)
        live = list_live(root) if live is None else live
        broken: list[Path] = []
        plain, archive = _both(root, broken, idle=not live, afresh=afresh)
        refuse_newer(root, live, plain)
        segments = {name for name in (*plain, *archive) if not name.adjusts}
        adjustments = {name for name in plain if name.adjusts}
        return cls(
            root, sorted(segments, key=_order), archive, broken, sorted(adjustments, key=_order)
        )

    def of(self, segments: list[SegmentName]) -> Snapshot:
        """Return the same look at some of the segments."""
        there = set(segments)
        archive = {name: place for name, place in self.archive.items() if name in there}
        return Snapshot(self.root, segments, archive, self.broken, self.adjustments)


def each(roots: Roots) -> tuple[Path, ...]:
    """Return the ledgers, one that is given twice once."""
    if isinstance(roots, Path):
        return (roots,)
    if len(roots) < 2:
        return roots
    return tuple({os.path.realpath(root): root for root in reversed(roots)}.values())[::-1]


def take_each(roots: Roots) -> list[Snapshot]:
    """Look at each ledger once.

    Raises:
        LedgerPathError, UnsupportedFormat, MissingExtra: as ``Snapshot.take``; two of them have
            records of the same writer.
    """
    found = [Snapshot.take(root) for root in each(roots)]
    refuse_copies(found)
    return found


def refuse_copies(ledgers: Sequence[Snapshot]) -> None:
    """Refuse ledgers that have records in common: one is a copy of another, or of a part of it.

    Raises:
        LedgerPathError: two of them have a writer in common.
    """
    if len(ledgers) < 2:
        return
    owners: dict[str, Path] = {}
    for ledger in ledgers:
        for writer in {name.writer for name in ledger.segments}:
            other = owners.setdefault(writer, ledger.root)
            if other != ledger.root:
                raise LedgerPathError(
                    f"{other} and {ledger.root} both have records of {writer}, which would count "
                    "twice: one is a copy of the other; give one of them"
                )


def list_live(root: Path) -> list[str]:
    """Return the writers that have a live file; none where they cannot be listed."""
    try:
        found = [writer_of_live(path.name) for path in (root / LIVE).iterdir()]
    except OSError:
        return []
    return sorted(writer for writer in found if writer is not None)


def live_writers(root: Path) -> Iterator[tuple[str, bool, LiveCounters]]:
    """Yield the writers that have a live file: whether it is locked, and what it says."""
    for writer in list_live(root):
        path = root / LIVE / live_name(writer)
        try:
            found = is_locked(path), read_live(path)
        except OSError:  # closed just now, or nobody may look
            continue
        yield writer, *found


def list_segments(root: Path) -> list[SegmentName]:
    """List the segments of a ledger by writer and first number, those of adjustments apart.

    Raises:
        MissingExtra: some are in the archive, and DuckDB is not installed.
        LedgerPathError: there is no ledger, or it cannot be read; the text says what to do.
    """
    refuse_links(root)
    plain, archive = _both(root, [])
    return sorted({n for n in (*plain, *archive) if not n.adjusts}, key=_order)


def _both(
    root: Path, broken: list[Path], *, idle: bool = False, afresh: bool = False
) -> tuple[list[SegmentName], dict[SegmentName, Place]]:
    """List ``segments/``, then ``archive/``: a segment is there before it leaves here.

    What ``prune`` takes out of the archive has gaps and an audit here before, and what ``erase``
    writes anew an audit: where one came between the two, it is listed once more.
    """
    plain = names_in(root, idle=idle)
    archive = archived(root, broken, afresh=afresh)
    if not (root / ARCHIVE).is_dir():
        return plain, archive
    while {name for name in plain if name.adjusts} != {*list_additions(root)}:
        broken.clear()
        plain = names_in(root)
        archive = archived(root, broken, afresh=afresh)
    return plain, archive


def list_additions(root: Path) -> list[SegmentName]:
    """List the segments of adjustments and audits, which are never archived.

    One look is enough: none of them is renamed once it is there.
    """
    return [name for name in _names(root) if name.adjusts]


def names_in(root: Path, *, idle: bool = False) -> list[SegmentName]:
    """List ``segments/``, those of adjustments among them, so that no segment is missed.

    A directory that is read while a file in it is renamed may show neither name, so it is listed
    twice; once is enough if it did not change meanwhile.  The time of its last change tells that
    where it is older than a tick of the kernel's clock (10 ms; a file system that keeps whole
    seconds, as some do, is given two), or the ledger is ``idle``: no writer has a live file, and
    none can begin and rotate its first segment within a tick.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read; the text says what to do.
    """
    before = _last_change(root / SEGMENTS)
    names = _names(root)
    settled = idle or time.time_ns() - before > (20 if before % 10**9 else 2_000) * 10**6
    if before and settled and before == _last_change(root / SEGMENTS):
        return names
    after = _names(root)
    there = {(name.writer, name.first) for name in after}
    return after + [name for name in names if name.open and (name.writer, name.first) not in there]


def _last_change(directory: Path) -> int:
    """Return when a directory last changed, in ns; 0 if it cannot be told."""
    try:
        return directory.stat().st_mtime_ns
    except OSError:
        return 0


def _order(name: SegmentName) -> tuple[str, int, int]:
    return name.writer, name.first, name.last or 0


def _names(root: Path) -> list[SegmentName]:
    try:
        parsed = map(SegmentName.parse, names_of(root / SEGMENTS))
        return [name for name in parsed if name is not None]
    except FileNotFoundError:
        if (root / LIVE).is_dir() or (root / ARCHIVE).is_dir():
            return []
        raise LedgerPathError(_no_ledger(root)) from None
    except NotADirectoryError:
        raise LedgerPathError(
            f"{root} is a file, or its 'segments' is; give the directory of a ledger"
        ) from None
    except OSError as exc:
        raise LedgerPathError(
            f"cannot list {root / SEGMENTS}: {exc.strerror}; read it as the user who owns it"
        ) from exc


def _no_ledger(root: Path) -> str:
    where = "has no 'segments' directory" if root.is_dir() else "does not exist"
    return (
        f"no ledger at {root}: it {where}; give the directory that the client writes to "
        "(its ledger= argument, or set LITELLM_LEDGER_DIR)"
    )


def by_writer(names: Sequence[SegmentName]) -> Iterator[tuple[str, list[SegmentName]]]:
    """Group a sorted listing by writer."""
    for writer, group in groupby(names, key=lambda name: name.writer):
        yield writer, list(group)


def open_segment(root: Path, name: SegmentName) -> tuple[BinaryIO, SegmentName]:
    """Open a segment, under the name it was sealed to if that happened since it was listed.

    Raises:
        Vanished: it was open when it was listed, and is gone under any name; or it is gone, and
            another one has its numbers.
        OSError: it is gone, or cannot be read.
    """
    try:
        return open_file(root / SEGMENTS / str(name)), name
    except FileNotFoundError as exc:
        if not name.open:
            data = read_archived(root, name)
            if data is None:
                with suppress(FileNotFoundError):  # gaps came before the archive's file went
                    return open_file(root / SEGMENTS / str(name)), name
                if _is_covered(root, name):
                    raise Vanished(exc.errno, exc.strerror, exc.filename) from None
                raise
            return BytesIO(data), name
        gone = exc
    for _ in range(2):  # a look during the renaming may show neither name
        for other in {*_names(root), *archived(root)}:
            if not other.open and (other.writer, other.first) == (name.writer, name.first):
                return open_segment(root, other)
    raise Vanished(gone.errno, gone.strerror, gone.filename) from None


def _is_covered(root: Path, name: SegmentName) -> bool:
    """Whether one other sealed segment accounts for all numbers of this one."""
    return any(
        other.writer == name.writer
        and other != name
        and other.first <= name.first
        and (other.last or 0) >= (name.last or 0)
        for other in _names(root)
    )
