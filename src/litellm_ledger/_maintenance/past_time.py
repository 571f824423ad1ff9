"""Which segments a retention rule lets go, and which of them nobody may remove, and why.

Owns the choice.  A segment goes only if it is sealed, at rest, past its time, shipped, and exactly
what its manifest says; and only if the sums in its manifest, where they are kept, are those that
reports had of it.  Never writes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from litellm_ledger._archive.archive import ArchiveFile, digest
from litellm_ledger._reading.chain import list_manifests
from litellm_ledger._reading.erasures import Erasures
from litellm_ledger._reading.lines import Problem, real_outcomes, settled
from litellm_ledger._reading.listing import Snapshot, by_writer, open_segment
from litellm_ledger._reading.pruned import Gone, read_audits, read_pruned
from litellm_ledger._records.audit import Changed, Sums, Was
from litellm_ledger._records.gaps import Gap
from litellm_ledger._records.layout import ARCHIVE, MANIFESTS, SEGMENTS, SegmentName
from litellm_ledger._records.line import checked, line_of
from litellm_ledger._records.scan import scan
from litellm_ledger._storage.filesystem import open_file
from litellm_ledger._storage.manifest import Manifest, identity, read, read_head
from litellm_ledger._storage.shipping_marks import Shipped

from .at_rest import bound
from .retention import Retention

__all__ = ["Due", "Gaps", "Plan", "Shipped", "plan"]

_BLOCK: Final = 2**20
_ROUNDS: Final = 100
"""How often others are chosen in place of what may not go, until the ledger is small enough."""
_GAPS: Final = 2**20
"""Bytes that no segment of nothing but gaps has."""


@dataclass(slots=True)
class Due:
    """A segment that goes.

    Attributes:
        name, manifest: of the segment; the manifest without its tables.
        place: the file of the archive that has it; ``None``: it is in ``segments/``.
        stamp: of the file in ``segments/``, by which to see whether another took its place.
        latest: the time of its last record.
        changed: what the audit says of it.
    """

    name: SegmentName
    manifest: Manifest
    place: ArchiveFile | None
    size: int
    latest: datetime
    stamp: tuple[int, int, int] | None = None
    changed: Changed | None = None

    @property
    def end(self) -> int:
        """Its last number."""
        return self.name.last or 0


class Gaps(NamedTuple):
    """A segment in ``segments/`` of nothing but gaps, some of them expired."""

    name: SegmentName
    gaps: tuple[Gap, ...]
    changed: Changed


@dataclass(slots=True)
class Plan:
    """What goes.

    Attributes:
        due: segments, by writer and number.
        gaps: of each writer those that tell of what was pruned before.
        archive: the files of the archive that go as a whole.
        expired: manifests of segments that were pruned before, whose time is past too.
        unsealed: segments that may be past their time and have no manifest yet.
        counted: how many segments budgets still count.
        unshipped: how many segments are not shipped yet, or not for long enough.
        left: segments that are past their time and stay, and why.
        size: bytes of the ledger; ``freed``: of what goes.
        gone: what was pruned before.
    """

    due: list[Due] = field(default_factory=list)
    gaps: dict[str, list[Gaps]] = field(default_factory=dict)
    archive: list[ArchiveFile] = field(default_factory=list)
    expired: list[Changed] = field(default_factory=list)
    unsealed: list[SegmentName] = field(default_factory=list)
    left: list[Problem] = field(default_factory=list)
    counted: int = 0
    unshipped: int = 0
    size: int = 0
    freed: int = 0
    gone: Gone = field(default_factory=dict)


class _Unit(NamedTuple):
    """What goes together or not at all: a segment, or a file of the archive."""

    members: list[Due]
    size: int
    file: ArchiveFile | None

    @property
    def latest(self) -> datetime:
        return max(one.latest for one in self.members)


def plan(
    root: Path,
    rule: Retention,
    now: datetime,
    shipped: Shipped,
    breathe: Callable[[], None] | None = None,
    counted: datetime | None = None,
) -> Plan:
    """Choose what goes; ``breathe`` is called after each file that was looked at.

    Args:
        shipped: tells up to which number the records of a writer are somewhere else as well.
        counted: what has a record from then on stays.

    Raises:
        LedgerPathError, UnsupportedFormat, MissingExtra: as for ``Snapshot.take``.
    """
    return _Choice(root, rule, now, shipped, breathe or (lambda: None), counted).made()


class _Choice:
    def __init__(
        self,
        root: Path,
        rule: Retention,
        now: datetime,
        shipped: Shipped,
        breathe: Callable[[], None],
        counted: datetime | None,
    ) -> None:
        self.counted = counted
        self.root, self.rule, self.now, self.shipped = root, rule, now, shipped
        self.breathe = breathe
        self.ledger = Snapshot.take(root)
        self.plan = Plan(gone=read_pruned(root, self.ledger.adjustments))
        self.plan.size = _size_of(root)
        self.families = dict(by_writer(self.ledger.segments))
        self.heads: dict[SegmentName, Manifest] = {}
        self.only_gaps: set[SegmentName] = set()
        self.settled: dict[str, set[tuple[str, int]]] = {}
        self.near: dict[str, Mapping[SegmentName, list[SegmentName]]] = {}
        self.erasures: Erasures | None = None

    def made(self) -> Plan:
        found = self.plan
        units = sorted(self._units(), key=lambda unit: (unit.latest, str(unit.members[0].name)))
        units.reverse()
        asked: list[_Unit] = []
        going: list[_Unit] = []
        for _ in range(_ROUNDS):  # in place of what may not go, later ones do
            more = self._next(units, found.size - sum(unit.size for unit in going))
            if not more:
                break
            asked += more
            going = self._parted(asked)
        self._note_stay(asked, going)
        for unit in going:
            found.due += unit.members
            found.freed += unit.size
            if unit.file is not None:
                found.archive.append(unit.file)
        found.due.sort(key=lambda one: (one.name.writer, one.name.first, one.end))
        self._expire()
        return found

    def _is_shipped(self, unit: _Unit) -> bool:
        return all(one.end <= self.shipped(one.name.writer) for one in unit.members)

    def _next(self, units: list[_Unit], size: int) -> list[_Unit]:
        """Take those that the rule lets go from the end, the oldest first, and check each.

        Args:
            units: the newest first.
            size: of the ledger without what goes already.
        """
        found: list[_Unit] = []
        while units and (self._is_past(units[-1].latest) or self._is_over(size)):
            unit = units.pop()
            if self.counted is not None and unit.latest >= self.counted:
                self.plan.counted += len(unit.members)
                continue
            if not self._is_shipped(unit):
                self.plan.unshipped += len(unit.members)
                continue
            self.breathe()
            bad = self._damage(unit)
            for one in unit.members if bad is None else ():
                bad = bad or self._sums(one)
            if bad is None:
                found.append(unit)
                size -= unit.size
            else:
                self.plan.left.append(bad)
        return found

    def _is_past(self, latest: datetime) -> bool:
        return self.rule.keep is not None and self.now - latest > self.rule.keep

    def _is_over(self, size: int) -> bool:
        return self.rule.max_size is not None and size > self.rule.max_size

    # -- which may be asked at all ---------------------------------------------------------------

    def _units(self) -> Iterator[_Unit]:
        """Yield what is sealed and at rest, and has a manifest."""
        candidates: dict[SegmentName, Due] = {}
        for writer, family in self.families.items():
            end = bound(self.root, writer, family) - 1
            for name in family:
                self.breathe()
                if name.last is not None and name.last <= end:
                    found = self._candidate(name)
                    if found is not None:
                        candidates[name] = found
        files = {place.path: place for place, _ in self.ledger.archive.values()}
        for file in files.values():
            members = [candidates.pop(name) for name in file.names if name in candidates]
            free = {name for name in file.names if name in self.only_gaps}
            if members and len(members) + len(free) == len(file.names):
                yield _Unit(members, file.path.lstat().st_size, file)
        for one in candidates.values():
            yield _Unit([one], one.size, None)

    def _candidate(self, name: SegmentName) -> Due | None:
        manifest = read_head(self.root, name)
        place = self.ledger.archive.get(name)
        path = self.root / SEGMENTS / str(name)
        stamp, size, is_gaps = None, 0, False
        with suppress(FileNotFoundError):
            state = path.lstat()
            size, stamp = state.st_size, _stamp(state)
        if place is None and stamp is None:
            return None  # gone just now
        if place is not None:
            source = place[0].sources[place[1]]
            if source.gaps == source.lines:
                self.only_gaps.add(name)
                return None
            if manifest is not None and source.sha256 != manifest.sha256:
                return None
            size = source.bytes
        elif size < _GAPS and (
            manifest is None
            or manifest.size != size
            or not manifest.records
            or (name, manifest.sha256) in self.plan.gone
        ):
            is_gaps = self._note_gaps(name, manifest, archived=False)
        if is_gaps:
            return None
        if manifest is None:
            if self._may_be_past(name):
                self.plan.unsealed.append(name)
            return None
        self.heads[name] = manifest
        latest = self._latest(name, manifest)
        return Due(name, manifest, place and place[0], size, latest, stamp)

    def _note_gaps(self, name: SegmentName, manifest: Manifest | None, *, archived: bool) -> bool:
        """Note a segment of nothing but gaps; tell whether it is one."""
        try:
            file, _ = open_segment(self.root, name)
            with file:
                data = file.read()
        except OSError:
            return False
        found = scan(data, name.writer, name.first)
        if found.damaged or found.torn or any(head.kind != "gap" for head, _ in found.lines):
            return False
        self.only_gaps.add(name)
        gaps = tuple(Gap.of(head) for head, _ in found.lines)
        if archived or not any(gap.reason == "expired" for gap in gaps):
            return True
        own = manifest is not None and manifest.size == len(data)
        there = read(self.root, name) if own else None
        sha256 = hashlib.sha256(data).hexdigest()
        was = Was(size=len(data), lines=len(gaps), records=0, sha256=sha256)
        if there is not None and there[0].sha256 == sha256:
            was = _was(there[0], identity(there[1]))
        changed = Changed(segment=str(name), was=was, sums="removed")
        self.plan.gaps.setdefault(name.writer, []).append(Gaps(name, gaps, changed))
        return True

    def _may_be_past(self, name: SegmentName) -> bool:
        """Whether a segment without a manifest began so long ago that it may be past its time."""
        if self.rule.max_size is not None:
            return True
        try:
            file, _ = open_segment(self.root, name)
            with file:
                raw = file.readline(_BLOCK)
        except OSError:
            return False
        line = line_of(raw) if checked(raw) else None
        return line is None or line.ts is None or self._is_past(line.ts)

    def _latest(self, name: SegmentName, manifest: Manifest) -> datetime:
        """Return the time of the last record: of an outcome, or of a call that began there.

        Of records without a time it is when the segment was sealed.
        """
        latest = _moment(manifest.latest)
        if latest is not None and not manifest.open:
            return latest
        found = [] if latest is None else [latest]
        if manifest.open and (not found or self._may_go(found[0])):
            found += self._begun(name)
        return max(found, default=_moment(manifest.sealed) or self.now)

    def _may_go(self, latest: datetime) -> bool:
        return self.rule.max_size is not None or self._is_past(latest)

    def _begun(self, name: SegmentName) -> Iterator[datetime]:
        with suppress(OSError):
            file, _ = open_segment(self.root, name)
            with file:
                for raw in file:
                    line = line_of(raw) if b'"started"' in raw and checked(raw) else None
                    if line is not None and line.ts is not None:
                        yield line.ts

    # -- which may really go -----------------------------------------------------------------------

    def _parted(self, chosen: list[_Unit]) -> list[_Unit]:
        """Return the units that nothing which stays needs."""
        kept = chosen
        while True:
            going = _members(kept)
            asked = self._calls_that_stay(going)
            left = [unit for unit in kept if self._stays(unit, going, asked) is None]
            if len(left) == len(kept):
                return kept
            kept = left

    def _note_stay(self, chosen: list[_Unit], kept: list[_Unit]) -> None:
        """Say of units that would go by the rule why they stay, where that is not as usual."""
        going = _members(kept)
        asked = self._calls_that_stay(going)
        for unit in chosen:
            if unit.members[0].name not in going:
                self.plan.left += self._stays(unit, going, asked) or []

    def _damage(self, unit: _Unit) -> Problem | None:
        """Compare every byte with what the manifests say."""
        if unit.file is not None:
            where = f"{ARCHIVE}/{unit.file.path.name}"
            try:
                whole = digest(unit.file.path).startswith(unit.file.path.name.split(".")[1])
            except OSError as exc:
                return Problem(where, "unreadable", detail=exc.strerror or str(exc))
            if not whole:
                return Problem(where, "altered", detail="is not what its name says")
            copies = (one for one in unit.members if one.stamp is not None)
            for one in copies:  # compaction, or pruning, was killed before it had removed it
                if not self._is_copy(one):
                    detail = f"is not what {where} holds of it"
                    return Problem(f"{SEGMENTS}/{one.name}", "altered", detail=detail)
            return None
        (one,) = unit.members
        where, manifest = f"{SEGMENTS}/{one.name}", one.manifest
        try:
            found = _digests(self.root / where)
        except OSError as exc:
            return Problem(where, "unreadable", detail=exc.strerror or str(exc))
        if found != (manifest.size, manifest.lines, manifest.crc32, manifest.sha256):
            return Problem(where, "altered", detail="is not what its manifest says")
        return None

    def _is_copy(self, one: Due) -> bool:
        try:
            return digest(self.root / SEGMENTS / str(one.name)) == one.manifest.sha256 or bool(
                self._note_gaps(one.name, None, archived=True)
            )
        except OSError:
            return False

    def _sums(self, one: Due) -> Problem | None:
        """Say what the audit says of a segment; or why its sums could not be kept."""
        where = f"{SEGMENTS}/{one.name}"
        there = read(self.root, one.name)
        if there is None or there[0].sha256 != one.manifest.sha256:
            return Problem(where, "altered", detail="its manifest is damaged; restore that")
        manifest, data = there
        sums: Sums = "removed" if self._expires(one.latest) else "kept"
        if sums == "kept":
            why = ""
            if manifest.table_of(None) is None:
                why = "its manifest has no sums that could be kept"
            elif self._is_told_twice(one):
                why = "it has calls that are on record as unsettled and have an outcome as well"
            if why:
                detail = f"{why}; --keep-aggregates with a time lets it go after that"
                return Problem(where, "altered", detail=detail)
        one.changed = Changed(
            segment=str(one.name),
            archive=one.place.path.name if one.place is not None else None,
            was=_was(manifest, identity(data)),
            sums=sums,
        )
        return None

    def _expires(self, latest: datetime) -> bool:
        limit = self.rule.keep_aggregates
        return limit is not None and self.now - latest > limit

    def _is_told_twice(self, one: Due) -> bool:
        """Whether a call of it counts elsewhere in its place, or here in place of another."""
        beaten = self._beaten(one.name.writer)
        own = set(one.manifest.unsettled)
        if beaten and (not beaten.isdisjoint(own) or real_outcomes(self.root, [one.name], beaten)):
            return True
        if not own:
            return False
        others = (self._head(name) for name in self.families[one.name.writer] if name != one.name)
        again = any(head is not None and not own.isdisjoint(head.unsettled) for head in others)
        return again or self._unsettled(one.name) != len(own)

    def _unsettled(self, name: SegmentName) -> int:
        """Return how many lines of a segment say that a call is unsettled."""
        with open_segment(self.root, name)[0] as file:
            lines = (line_of(raw) for raw in file if b'"unsettled"' in raw and checked(raw))
            return sum(line is not None and line.status == "unsettled" for line in lines)

    def _beaten(self, writer: str) -> set[tuple[str, int]]:
        """Return the calls of a writer that are unsettled and have an outcome as well."""
        if writer not in self.settled:
            family = self.families[writer]
            heads = [self._head(name) for name in family if name not in self.only_gaps]
            unknown = any(head is None or head.unsettled for head in heads)
            self.settled[writer] = settled(self.root, family) if unknown else set()
        return self.settled[writer]

    def _calls_that_stay(self, going: Mapping[SegmentName, Due]) -> dict[str, set[tuple[str, int]]]:
        """Return the calls by writer that began in a segment that stays, and did not end there."""
        found: dict[str, set[tuple[str, int]]] = {}
        for writer in {one.name.writer for one in going.values() if one.manifest.closed}:
            for name in self.families[writer]:
                head = None if name in going or name.open else self._head(name)
                if head is not None:
                    found.setdefault(writer, set()).update(head.open)
        return found

    def _head(self, name: SegmentName) -> Manifest | None:
        if name not in self.heads:
            head = read_head(self.root, name)
            if head is None:
                return None
            self.heads[name] = head
        return self.heads[name]

    def _near(self, writer: str) -> Mapping[SegmentName, list[SegmentName]]:
        """Return the segments of a writer whose numbers others may have, and which these are."""
        if writer not in self.near:
            near: dict[SegmentName, list[SegmentName]] = {}
            together: list[SegmentName] = []
            for name in self.families[writer]:
                if name in self.only_gaps:
                    continue
                together = [one for one in together if _overlap(one, name)]
                for one in together:
                    near.setdefault(one, []).append(name)
                    near.setdefault(name, []).append(one)
                together.append(name)
            self.near[writer] = near
        return self.near[writer]

    def _stays(
        self,
        unit: _Unit,
        going: Mapping[SegmentName, Due],
        asked: Mapping[str, set[tuple[str, int]]],
    ) -> list[Problem] | None:
        """Return ``None`` if nothing that stays needs what goes, else what there is to say.

        A recovery that found the beginning of a call, and not its outcome, would take it for
        unsettled.  Of what goes, also say which sums stand for which numbers.
        """
        for one in unit.members:
            near = self._near(one.name.writer).get(one.name, ())
            if any(name not in going or not _nested(name, one.name) for name in near):
                detail = "its numbers are in another segment too, which stays"
                return [Problem(f"{SEGMENTS}/{one.name}", "altered", detail=detail)]
            twice = any(_is_in(one, going[name]) for name in near)
            if twice and one.changed is not None and one.changed.sums == "kept":
                one.changed = msgspec.structs.replace(one.changed, sums="elsewhere")
            if not asked.get(one.name.writer, set()).isdisjoint(one.manifest.closed):
                return []
        return None

    def _expire(self) -> None:
        """Find the manifests of what was pruned before, whose sums are past their time too."""
        there = {*list_manifests(self.root)} if self.plan.gone else set()
        for one in self.plan.gone.values():
            was = one.changed.was
            if one.told and was.latest is not None and self._expires(was.latest):
                self.plan.expired.append(self._as_it_is(one.changed))
            elif one.changed.sums == "removed" and one.name in there and was.manifest is not None:
                now = self._as_it_is(one.changed)  # a run was killed before it had removed it
                if self._manifest(one.name) == now.was.manifest:
                    self.plan.expired.append(now)

    def _as_it_is(self, changed: Changed) -> Changed:
        """Say that a manifest goes, by what it is known by since ``erase`` wrote it anew."""
        name, was = SegmentName.parse(changed.segment), changed.was
        now = self._manifest(name) if name is not None and was.manifest is not None else ""
        if now and now != was.manifest and self._erasures().came_from(now, was.manifest or ""):
            was = msgspec.structs.replace(was, manifest=now)
        return msgspec.structs.replace(changed, was=was, sums="removed")

    def _manifest(self, name: SegmentName) -> str:
        """Return what a manifest is known by; empty: there is none."""
        try:
            return digest(self.root / MANIFESTS / name.manifest)
        except OSError:
            return ""

    def _erasures(self) -> Erasures:
        if self.erasures is None:
            self.erasures = Erasures(read_audits(self.root, self.ledger.adjustments))
        return self.erasures


def _was(manifest: Manifest, known_by: str) -> Was:
    return Was(
        size=manifest.size,
        lines=manifest.lines,
        records=manifest.records,
        sha256=manifest.sha256,
        earliest=_moment(manifest.earliest),
        latest=_moment(manifest.latest),
        manifest=known_by,
        sealed=manifest.sealed,
        previous=manifest.previous,
    )


def _moment(text: str | None) -> datetime | None:
    """Read a time of a manifest; ``None`` if it is none."""
    try:
        found = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if found is None or found.tzinfo is None else found.astimezone(UTC)


def _members(units: list[_Unit]) -> dict[SegmentName, Due]:
    return {one.name: one for unit in units for one in unit.members}


def _overlap(one: SegmentName, other: SegmentName) -> bool:
    """Whether two segments of a writer may have a number in common."""
    return one.first <= (other.last or inf) and other.first <= (one.last or inf)


def _nested(one: SegmentName, other: SegmentName) -> bool:
    """Whether one of two sealed segments has all the numbers of the other one."""
    small, large = sorted((one, other), key=lambda name: (name.last or 0) - name.first)
    return large.first <= small.first and (small.last or 0) <= (large.last or 0)


def _is_in(one: Due, other: Due) -> bool:
    """Whether another one that goes has all numbers of this one; of equal ranges one counts."""
    ours, theirs = one.end - one.name.first, other.end - other.name.first
    return _nested(one.name, other.name) and ours < theirs


def _digests(path: Path) -> tuple[int, int, str, str]:
    """Return the size, the lines, the CRC-32 and the SHA-256 of a file."""
    sha256, crc, size, lines = hashlib.sha256(), 0, 0, 0
    with open_file(path) as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            crc = crc32(block, crc)
            size += len(block)
            lines += block.count(b"\n")
    return size, lines, f"{crc:08x}", sha256.hexdigest()


def _stamp(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_ino, state.st_size, state.st_mtime_ns


def _size_of(root: Path) -> int:
    """Return how many bytes the files of a ledger have."""
    total = 0
    for directory, _, files in os.walk(root):
        for file in files:
            with suppress(OSError):
                total += (Path(directory) / file).lstat().st_size
    return total
