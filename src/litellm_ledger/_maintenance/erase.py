"""``erase``: a person's records taken out of a ledger, everywhere, with audits that name nobody.

Owns the order of the steps.  Files without the records are written beside the ledger's
(``erasing/``) and synced; audits tell of each which SHA-256 it had and has; only then do they take
the place of the old ones.  Killed before the audits, nothing has happened; killed after them, who
comes next finishes it (``_maintenance.erasing``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from litellm_ledger._archive.archive import ArchiveFile, digest, source_of
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._reading.adjustments import read_additions
from litellm_ledger._reading.chain import list_manifests
from litellm_ledger._reading.erasures import Erasures, exchanges
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.listing import Snapshot, list_live
from litellm_ledger._reading.pruned import read_pruned
from litellm_ledger._records.audit import ERASE
from litellm_ledger._records.layout import ERASING, MANIFESTS, SEGMENTS, SegmentName, record_id
from litellm_ledger._records.line import Line
from litellm_ledger._storage import manifest as manifests
from litellm_ledger._storage.filesystem import REAL, FileSystem

from .additions import Audits, moment_after
from .erasing import alone, begin, finish, prepare
from .finding import Found, Place, find
from .marks_left import MarksLeft, marks_left
from .one_run import need_locks, told
from .person import Person
from .recover import recover
from .replacing import Replacing
from .rewriting import Rewriter
from .seal import seal

__all__ = ["Erased", "erase"]

_BATCH: Final = 512 * 2**20
"""Bytes of files that are written anew before they take the place of the old ones: so much room is
needed beside the ledger."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What one run found, or did.

    Attributes:
        records: of the person that were in sealed files; ``calls``: how many of these are
            outcomes, and ``cost``: picodollars that they came to.
        adjustments: of these records.
        files: that were written anew.
        waiting: records that stay for now: a process is still writing their segment, or their call
            has no outcome yet.
        counted: how many of these stay until the budgets that count them begin anew.
        hidden: damaged places that were written over, as a mark was in them.
        recovered: records in files in ``recovery/``.
        left: files that nothing was taken out of, and why.
        marks: where bytes like the person's marks are all the same, in records of others, say.
        tables: of a database, those that something was taken out of.
    """

    records: int = 0
    calls: int = 0
    cost: int = 0
    adjustments: int = 0
    files: int = 0
    waiting: int = 0
    counted: int = 0
    hidden: int = 0
    recovered: int = 0
    left: tuple[Problem, ...] = ()
    marks: tuple[MarksLeft, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether there is nothing of the person."""
        changed = self.records or self.adjustments or self.files or self.tables
        return not (changed or self.waiting)

    @property
    def done(self) -> bool:
        """Whether all of the person is out of the ledger, as far as its conditions tell."""
        return not (self.waiting or self.left)


def _all_may_go(line: Line) -> bool:  # noqa: ARG001 - no budgets
    return False


def erase(
    root: Path,
    person: Person,
    *,
    who: str | None = None,
    why: str = "",
    keep: bool = False,
    has_to_stay: Callable[[Line], bool] = _all_may_go,
    fs: FileSystem = REAL,
) -> Erased:
    """Look for a person's records; with ``who``, take them out.

    Args:
        root: the ledger.
        person: whose.
        who, why: stand on the audits; they must not name the person.
        has_to_stay: which calls cannot go yet, by one of their lines.
        keep: the records stay, with their amounts, and nothing in them that names somebody.
        fs: where all writing goes through but that of the database to its temporary file.

    Raises:
        ValueError: ``who`` or ``why`` has a mark of the person.
        LedgerPathError: there is no ledger; it cannot be read or written; another run is at work.
        UnsupportedFormat: a newer version wrote it.
        MissingExtra: there is an archive, and DuckDB is not installed.
        UnsupportedPlatform: not POSIX.
    """
    if who is None:
        return _Run(root, fs, set(list_live(root)), person, has_to_stay, keep=keep).only_look()
    for name, text in (("who", who), ("why", why)):
        if person.is_in(text):
            raise ValueError(
                f"--{name} has a mark of the person, and stays in the ledger; write it without"
            )
    need_locks("changed")
    Snapshot.take(root)  # before anything is made there
    with told(f"cannot erase from the ledger at {root}"):
        recover(root, fs=fs)
        with contextlib.suppress(LedgerPathError):  # by another process
            seal(root, fs=fs)
        with alone(root):
            begin(root, fs)
            return _Run(root, fs, set(list_live(root)), person, has_to_stay, keep=keep).work(
                who, why
            )


class _Run:
    """One run, and the tally of it."""

    def __init__(
        self,
        root: Path,
        fs: FileSystem,
        live: set[str],
        person: Person,
        has_to_stay: Callable[[Line], bool],
        *,
        keep: bool,
    ) -> None:
        self._has_to_stay = has_to_stay
        self._root = root
        self._fs = fs
        self._live = live  # before the segments: who is not in there writes to none of them
        self._ledger = Snapshot.take(root, afresh=True)
        self._person = person
        self._keep = keep
        self._left: list[Problem] = []

    def only_look(self) -> Erased:
        """Say what is there."""
        rewriter = Rewriter(self._person, keep=self._keep)
        found = find(self._ledger, self._person, rewriter.is_kept, self._has_to_stay)
        waiting = self._waiting(found)
        files = len({place.file or place.segment for place in found.numbers})
        files += len(found.adjustments)
        adjustments = sum(map(len, found.adjustments.values()))
        costs = found.outcomes(waiting)
        return Erased(
            records=len(found.ids.keys() - waiting),
            calls=len(costs),
            cost=sum(costs),
            adjustments=adjustments,
            files=files,
            waiting=len(waiting),
            counted=len(found.kept_back),
            left=tuple(found.problems),
        )

    def work(self, who: str, why: str) -> Erased:
        """Take everything out that can be."""
        rewriter = Rewriter(self._person, keep=self._keep)
        found = find(self._ledger, self._person, rewriter.is_kept, self._has_to_stay)
        waiting = self._waiting(found)
        ids = found.ids.keys() - waiting
        costs = found.outcomes(waiting)
        new = Replacing(self._root, self._fs, rewriter, ids, self._left)
        added = read_additions(self._root, self._ledger.adjustments, [])
        at = moment_after(added, self._root)
        files = 0
        try:
            for name, adjustments in found.adjustments.items():
                new.additions(name, adjustments, waiting)
            new.recovery()
            for name in self._from_backups(found, Erasures(added)):
                new.restored(name, self._ledger.archive.get(name))
            pruned = {name for name, _ in read_pruned(self._root, self._ledger.adjustments)}
            new.history(set(list_manifests(self._root)) - (set(self._ledger.segments) - pruned))
            for batch in self._batches(found):
                for file, names in batch:
                    self._write(new, found, file, names)
                files += self._replace(new, at, who, why)
        except Exception:
            with contextlib.suppress(OSError):  # what no audit names goes
                finish(self._root, self._fs)
            raise
        waiting |= self._since()
        problems = [*found.problems, *self._left]
        marks = marks_left(self._root, self._person, problems)
        return Erased(
            records=len(ids),
            calls=len(costs),
            cost=sum(costs),
            adjustments=new.adjustments,
            files=files,
            waiting=len(waiting),
            counted=len(found.kept_back),
            hidden=new.hidden,
            recovered=new.recovered,
            left=tuple(problems),
            marks=tuple(marks),
        )

    def _from_backups(self, found: Found, erasures: Erasures) -> Iterator[SegmentName]:
        """Yield segments without the person whose manifest is from before an erasure."""
        written = {place.segment for place in found.numbers}
        there = {name.manifest: name for name in self._ledger.segments if not name.open}
        for one in erasures.exchanges():
            name = there.get(one.old_name) if one.part == MANIFESTS else None
            if name is None or name in written:
                continue
            written.add(name)
            told = manifests.read(self._root, name)
            if told is None or not erasures.is_old(manifests.identity(told[1])):
                continue
            place = self._ledger.archive.get(name)
            now = source_of(place)[0] if place else digest(self._root / SEGMENTS / str(name))
            if erasures.came_from(now, told[0].sha256):
                yield name

    def _waiting(self, found: Found) -> set[str]:
        """Take out of what was found what cannot be written anew; return ids.

        That is what is open, or has just been sealed: its writer reads it to make the manifest; and
        the beginning of a call that its writer will write an outcome of.
        """
        waiting: set[str] = set()
        for place in list(found.numbers):
            name = place.segment
            being_sealed = (
                place.file is None
                and name.writer in self._live
                and manifests.read_head(self._root, name) is None
            )
            if name.open or being_sealed:
                numbers = found.numbers.pop(place)
                waiting.update(record_id(name.writer, seq) for seq in numbers)
        running = [one for one in found.running if one[0].segment.writer in self._live]
        for place, seq in (*running, *found.kept_back):
            if place in found.numbers:
                waiting.add(record_id(place.segment.writer, seq))
                found.numbers[place].discard(seq)
                if not found.numbers[place]:
                    del found.numbers[place]
        return waiting

    def _since(self) -> set[str]:
        """Return ids of the person's records in segments that were not there at the beginning."""
        later = Snapshot.take(self._root)
        before = set(self._ledger.segments)
        names = [name for name in later.segments if name.open or name not in before]
        return set(find(later.of(names), self._person).ids)

    def _batches(self, found: Found) -> Iterator[list[tuple[ArchiveFile | None, set[SegmentName]]]]:
        """Part what is to be written by size; what is written in any case comes with the first.

        Each element is a file of the archive, or none, and segments in ``segments/``.
        """
        files = {file.path: file for file, _ in self._ledger.archive.values()}
        units: dict[Path, tuple[ArchiveFile | None, set[SegmentName]]] = {}
        for place in found.numbers:
            path = place.file or self._root / SEGMENTS / str(place.segment)
            twin = self._ledger.archive.get(place.segment)
            if place.file is None and twin is not None:  # in both places: killed half-way
                path = twin[0].path
            unit = units.setdefault(path, (files.get(path), set()))
            if place.file is None:
                unit[1].add(place.segment)
        batch: list[tuple[ArchiveFile | None, set[SegmentName]]] = []
        size = 0
        for path, unit in units.items():
            if batch and size + path.stat().st_size > _BATCH:
                yield batch
                batch, size = [], 0
            batch.append(unit)
            size += path.stat().st_size
        yield batch

    def _write(
        self, new: Replacing, found: Found, file: ArchiveFile | None, names: set[SegmentName]
    ) -> None:
        if file is not None:
            numbers = {
                name: found.numbers[Place(name, file.path)]
                for name in file.names
                if Place(name, file.path) in found.numbers
            }
            if numbers:
                new.archive(file, numbers)
        for name in sorted(names):
            new.segment(name, found.numbers[Place(name)])

    def _replace(self, new: Replacing, at: datetime, who: str, why: str) -> int:
        """Write the audits of what is ready, then put it in its place; return how many files."""
        audits = Audits(ERASE, at, who, why)
        new.add_audits(audits)
        if not audits.made:
            return 0
        # Last to go: until then somebody has to look whether an old file is left.
        prepare(self._fs, self._root / ERASING / "begun", [])
        self._fs.sync_directory(self._root / ERASING)
        audits.write(self._root, self._fs)
        finish(self._root, self._fs)
        changed = (one for audit in audits.made for one in exchanges(audit))
        return len({(one.part, one.new_name) for one in changed})
