"""``verify``: does the ledger hold what its writers accepted, and what can be proved about it?

Owns the judgement.  Reads counters before files, so that a writer at work can only have more on
disk than it said.  Never writes, never repairs (that is ``recover``), never guesses: where the
counters may be behind, it says "at least".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from litellm_ledger._aggregates.formatting import counted
from litellm_ledger._archive.archive import Place, source_of
from litellm_ledger._records.audit import Audit, spans
from litellm_ledger._records.gaps import Gap
from litellm_ledger._records.layout import (
    LIVE,
    MANIFESTS,
    RECOVERY,
    SEGMENTS,
    SegmentName,
    live_name,
)
from litellm_ledger._records.line import line_of, newer_version
from litellm_ledger._records.ranges import Spans
from litellm_ledger._records.scan import Head, Scan, scan
from litellm_ledger._storage.contents import NotWholeError, contents
from litellm_ledger._storage.filesystem import open_file
from litellm_ledger._storage.format_version import newer_format
from litellm_ledger._storage.live_file import (
    LiveCounters,
    acked_until,
    contradictory,
    is_locked,
    read_live,
    same_boot,
)
from litellm_ledger._storage.manifest import Manifest, read
from litellm_ledger._storage.partial import blocks

from .adjustments import adjusted_segments, read_additions
from .anchor import Anchor, check
from .audits import by_audited_writer, split
from .chain import Link, chained, list_manifests, read_links
from .erasures import Erasures, is_erased_from
from .lines import Problem, archive_problems, settled
from .listing import (
    Snapshot,
    Vanished,
    by_writer,
    list_additions,
    list_live,
    names_in,
    open_segment,
)
from .pruned import (
    Gone,
    Pruned,
    busy,
    by_pruned_writer,
    pruned_in,
    read_pruned,
    stubs,
    was_changed_since,
)
from .verdict import Proof, State, Verification, WriterVerdict

__all__ = ["verify"]

_BLOCK: Final = 2**20
_THREADS: Final = 8

_LOOKS: Final = 10
"""Looks at a ledger that is pruned meanwhile."""

_TRIES: Final = 3
"""Readings of an open segment before its damage is believed: its writer may be cutting back a short
write at that moment."""


def verify(
    root: Path,
    *,
    full: bool = False,
    anchors: Sequence[Anchor] = (),
    advance: Callable[[SegmentName], None] = lambda _: None,
    only: str | None = None,
) -> Verification:
    """Judge every writer of a ledger.

    Args:
        root: the ledger.
        only: judge this writer alone.
        advance: called with each segment that has been read, perhaps on another thread.
        full: read every line, also of segments that are what their manifest says, and compare the
            manifests with the lines.
        anchors: what the manifests must have been at some time.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read, or it is pruned all the time.
        UnsupportedFormat: it was written by a newer version.
    """
    for _ in range(_LOOKS):
        found, ledger = _look(root, full=full, anchors=anchors, advance=advance, only=only)
        if not _have_gone(ledger) and (found.ok or not was_changed_since(ledger)):
            return found
    raise busy(root)


def _have_gone(ledger: Snapshot) -> bool:
    """Whether files went that a look at the ledger had, and gaps came for them that it had not."""
    gone = read_pruned(ledger.root, list_additions(ledger.root))
    there = {*names_in(ledger.root)} if gone else set()
    for name in {name for name, _ in gone}.intersection(ledger.segments):
        place = ledger.archive.get(name)
        if name not in there and (place is None or not place[0].path.exists()):
            return True
    return False


def _look(
    root: Path,
    *,
    full: bool,
    anchors: Sequence[Anchor],
    advance: Callable[[SegmentName], None],
    only: str | None,
) -> tuple[Verification, Snapshot]:
    """Judge every writer, or one, by one look at a ledger."""
    refused: dict[str, Problem] = {}
    writers = list_live(root)
    live = _live(root, writers, refused)
    sealed = dict(by_writer(list_manifests(root)))
    # Last: there can only be more than counters and manifests say.
    ledger = Snapshot.take(root, writers, afresh=True)
    segments = dict(by_writer(ledger.segments))
    if any(name.open for writer in segments if writer not in live for name in segments[writer]):
        live = _live(root, list_live(root), refused) | live  # one that began after the first look
    recovery: list[str] = []
    with contextlib.suppress(OSError):
        if (root / RECOVERY).is_dir():
            recovery = sorted(path.name for path in (root / RECOVERY).iterdir())
    before = read_pruned(root, ledger.adjustments)
    known = {*segments, *live, *sealed, *(name.writer for name, _ in before)}
    judged = known if only is None else known & {only}
    noted: dict[str, list[Problem]] = {writer: [] for writer in sorted(judged)}
    linked = {writer: read_links(root, sealed.get(writer, ()), noted[writer]) for writer in noted}
    there = {name for links in linked.values() for name in links if name not in ledger.archive}
    digests = _digests(root, sorted(there.intersection(ledger.segments), key=str), advance)
    among_additions: list[Problem] = []
    additions = read_additions(root, list_additions(root), among_additions)  # what is done by now
    audits = by_audited_writer(additions)
    erasures, gone = Erasures(additions), by_pruned_writer(pruned_in(additions))
    verdicts = []
    chains: dict[str, list[Link]] = {}
    for writer, problems in noted.items():
        links = linked[writer]
        of_writer = gone.get(writer, {})
        there_too = stubs(of_writer, {link.identity for link in links.values()})
        chains[writer] = chained([*links.values(), *there_too], problems, erasures)
        found = _Found(
            root,
            segments.get(writer, []),
            links,
            digests=digests,
            archive=ledger.archive,
            erasures=erasures,
            gone=of_writer,
            alive=_alive(live.get(writer)),
            full=full,
        )
        found.problems += problems
        if writer in refused:
            found.problems.append(refused[writer])
        kept = [name for name in recovery if name.startswith(writer)]
        verdicts.append(_judge(root, writer, live.get(writer), found, kept, audits.get(writer, [])))
    adjusted = adjusted_segments(root, ledger.adjustments) if anchors else []
    every = (link for links in linked.values() for link in links.values())
    result = Verification(
        path=str(root),
        writers=verdicts,
        recovery=recovery,
        archive=archive_problems(ledger),
        adjustments=among_additions,
        anchors=[check(anchor, chains, adjusted, erasures) for anchor in anchors],
        erasures=erasures.runs(),
        undone=_undone(root, erasures, digests, every),
    )
    return result, ledger


def _undone(
    root: Path, erasures: Erasures, digests: Mapping[SegmentName, _Digest], links: Iterable[Link]
) -> list[str]:
    """Return the files that are as they were before an erasure, but while one is at work.

    What has been read tells which to look at; some of it may have been written anew since.
    """
    there = {(SEGMENTS, str(name)): digest[0] for name, digest in digests.items()}
    there |= {(MANIFESTS, link.name.manifest): link.identity for link in links}
    for part, name in erasures.replaced():
        if (part, name) not in there:
            there |= _now(root, part, name)
    found = [tuple(file.split("/")) for file in erasures.undone(there)]
    if not found or is_erased_from(root):
        return []
    afresh: dict[tuple[str, str], str] = {}
    for part, name in found:
        afresh |= _now(root, part, name)
    return erasures.undone(afresh)


def _now(root: Path, part: str, name: str) -> dict[tuple[str, str], str]:
    try:
        return {(part, name): _digest(root / part / name)[0]}
    except OSError:
        return {}


def _alive(state: tuple[bool, LiveCounters] | None) -> bool:
    return state is not None and state[0]


def _live(
    root: Path, writers: Sequence[str], refused: dict[str, Problem]
) -> dict[str, tuple[bool, LiveCounters]]:
    """Read who lives, then the counters: those of a dead writer do not change any more.

    What cannot be opened goes to ``refused``, by writer.
    """
    states = {}
    for writer in writers:
        path = root / LIVE / live_name(writer)
        try:
            locked = is_locked(path)
            counters = read_live(path)
            if not locked and counters.recoverer:  # killed itself, the next one takes over
                counters = replace(counters, recoverer=0)
            # A lock may be that of a recovery, which says so in the file.
            alive = locked and not counters.recoverer
            if not alive and contradictory(counters):
                detail = "its counters contradict each other"
                refused[writer] = Problem(f"{LIVE}/{path.name}", "damaged", detail=detail)
                counters = LiveCounters(valid=False)
            states[writer] = alive, counters
        except FileNotFoundError:
            continue  # closed cleanly just now
        except OSError as exc:
            detail = exc.strerror or str(exc)
            refused[writer] = Problem(f"{LIVE}/{path.name}", "unreadable", detail=detail)
            states[writer] = False, LiveCounters(valid=False)
    return states


class _Found:
    """What the segments of one writer hold."""

    def __init__(
        self,
        root: Path,
        names: list[SegmentName],
        links: Mapping[SegmentName, Link],
        *,
        digests: Mapping[SegmentName, _Digest],
        archive: Mapping[SegmentName, Place],
        erasures: Erasures,
        gone: Gone,
        alive: bool,
        full: bool,
    ) -> None:
        self._gone = gone
        self.records = Spans()
        self.gaps: list[Gap] = []
        self.problems: list[Problem] = []
        self.torn_bytes = 0
        self.last = 0
        self.recorded = 0  # the last number of a record; gaps may stand for some before it
        self.open = False
        self._running: set[tuple[str, int]] = set()
        self._early: set[tuple[str, int]] = set()  # outcomes whose `started` has not been seen
        self._unsettled: set[tuple[str, int]] = set()
        for name in names:
            link = links.get(name)
            manifest = None if link is None else link.manifest
            if manifest is not None:
                digest = source_of(archive[name]) if name in archive else digests.get(name)
                erased = digest is not None and erasures.are_one(digest[0], manifest.sha256)
                if erased or self._is_pruned(root, name, manifest):
                    manifest = None  # written anew already, or just now, or before
                elif not self._is_as_sealed(name, manifest, digest):
                    manifest = None
            if (
                manifest is None or full or name.first <= self.recorded
            ):  # a number twice counts once
                self._read(root, name, alive=alive)
            else:
                self._believe(name, manifest)
            if manifest is not None and full:
                self._compare(root, name)
        for name in sorted(links.keys() - set(names), key=lambda name: (name.first, name.last)):
            self._miss(name, links[name])
        for one in gone.values():
            self._look_for_sums(one, links.get(one.name), erasures)
        if self._unsettled:
            self._unsettled -= settled(root, names)
        self.unsettled = len(self._unsettled)
        self.in_flight = len(self._running)

    def _is_pruned(self, root: Path, name: SegmentName, manifest: Manifest) -> bool:
        """Whether a manifest is of a segment that was pruned, and gaps have its name now.

        The archive may still have it.
        """
        if (name, manifest.sha256) not in self._gone:
            return False
        try:
            file, _ = open_segment(root, name)
            with file:
                first = file.readline()
                if b'"gap"' not in first:  # as of nearly every one that is still there
                    return False
                lines = scan(first + file.read(), name.writer, name.first).lines
        except OSError:
            return False
        return all(head.kind == "gap" for head, _ in lines)

    def _look_for_sums(self, one: Pruned, link: Link | None, erasures: Erasures) -> None:
        """Note a manifest that is to tell what a pruned segment had, and does not."""
        self.last = max(self.last, one.name.last or 0)
        was = one.changed.was
        if not one.told or not was.records:
            return
        where = f"{MANIFESTS}/{one.name.manifest}"
        if link is None or link.manifest.sha256 != was.sha256:
            detail = f"the sums of {was.records:,} pruned records were in it; restore it"
            self.problems.append(Problem(where, "missing", detail=detail))
        elif erasures.now(was.manifest or "", (link.identity,)) != link.identity:
            detail = "is not the manifest that the audit of prune names; restore it from a backup"
            self.problems.append(Problem(where, "altered", detail=detail))

    def _is_as_sealed(self, name: SegmentName, manifest: Manifest, digest: _Digest | None) -> bool:
        """Whether a segment has the bytes that it had when it was sealed."""
        where = f"{SEGMENTS}/{name}"
        if digest is None:
            return False  # who reads it will say what is the matter
        if digest == (manifest.sha256, manifest.lines) and _accounts(name, manifest):
            return True
        detail = "is not what its manifest says; restore it from a backup"
        self.problems.append(Problem(where, "altered", 0, manifest.size, manifest.lines, detail))
        return False

    def _believe(self, name: SegmentName, manifest: Manifest) -> None:
        """Take what a manifest says, in place of the lines."""
        start = name.first
        for first, last, reason, acked in manifest.gaps:
            self.records.add_range(start, first - 1)
            self.gaps.append(Gap.of_reason(first, last, reason, acked))
            start = last + 1
        self.records.add_range(start, name.last or 0)
        self.last = max(self.last, name.last or 0)
        self.recorded = max(self.recorded, (name.last or 0) if manifest.records else 0)
        for call in manifest.unsettled:
            self._unsettled.add(call)
            self._running.discard(call)
        for call in manifest.closed:
            if call in self._running:
                self._running.discard(call)
            else:
                self._early.add(call)
        self._running.update(call for call in manifest.open if call not in self._early)

    def _compare(self, root: Path, name: SegmentName) -> None:
        """Compare a manifest with the lines, member by member."""
        there = read(root, name)
        if there is None:  # removed while we read
            return
        manifest, _ = there
        try:
            file, now = open_segment(root, name)
            with file:
                said = manifest.content()
                true = contents(file, root, now, manifest.limits).content()
        except (NotWholeError, OSError):
            return  # that is said already
        wrong = [member for member in said if said[member] != true[member]]
        if "sha256" in wrong and is_erased_from(root):
            return  # one of the two was written anew just now
        if wrong:
            where = f"{MANIFESTS}/{name.manifest}"
            detail = f"is not what the lines say: {', '.join(wrong)}"
            self.problems.append(Problem(where, "altered", detail=detail))

    def _miss(self, name: SegmentName, link: Link) -> None:
        """Count the records of a segment of which there is only the manifest; not if pruned."""
        self.last = max(self.last, name.last or 0)
        manifest = link.manifest
        if (name, manifest.sha256) in self._gone:
            return
        said = counted(manifest.records, "record")
        detail = f"there is only its manifest, of {said}; restore it"
        self.problems.append(Problem(f"{SEGMENTS}/{name}", "missing", detail=detail))

    def _read(self, root: Path, name: SegmentName, *, alive: bool) -> None:
        tries = _TRIES
        while True:
            tries -= 1
            try:
                file, name = open_segment(root, name)
                with file:
                    data = file.read()
            except Vanished:
                return
            except OSError as exc:
                where = f"{SEGMENTS}/{name}"
                self.problems.append(Problem(where, "unreadable", detail=exc.strerror or str(exc)))
                return
            partial = len(data) - data.rfind(b"\n") - 1 if name.open else 0
            result = scan(data[: len(data) - partial], name.writer, name.first)
            if not (tries and name.open and alive and (result.damaged or result.torn)):
                break
        self.open = self.open or name.open
        self._note(root, name, data, result, 0 if alive else partial)
        where, at = f"{SEGMENTS}/{name}", 0
        for head, raw in result.lines:
            if head.v > 1:
                raise newer_format(root / where, head.v)
            if line_of(raw) is not None:
                self._take(head)
                continue
            at = data.find(raw, at)
            self.problems.append(Problem(where, "damaged", at, len(raw), 1, "no record"))
            self.last = max(self.last, head.last)
        if name.last is not None:
            self.last = max(self.last, name.last)

    def _note(self, root: Path, name: SegmentName, data: bytes, result: Scan, partial: int) -> None:
        where = f"{SEGMENTS}/{name}"
        bad = list(result.damaged)
        if result.torn:
            end = result.size
            if name.open:
                self.torn_bytes += result.torn
            else:
                bad.append((end - result.torn, end))
        self.torn_bytes += partial
        for start, end in [*bad, (result.size - result.torn, result.size)]:
            for line in data[start:end].splitlines(keepends=True):
                version = newer_version(line)
                if version is not None:
                    raise newer_format(root / where, version)
        for start, end in bad:
            lines = data.count(b"\n", start, end)
            self.problems.append(Problem(where, "damaged", start, end - start, lines))
        last = max((head.last for head, _ in result.lines), default=None)
        if name.last is not None and last != name.last and not bad:
            detail = f"ends with number {last}, its name says {name.last}"
            self.problems.append(Problem(where, "misnamed", detail=detail))

    def _take(self, head: Head) -> None:
        self.last = max(self.last, head.last)
        if head.kind == "gap":
            self.gaps.append(Gap.of(head))
            return
        self.recorded = max(self.recorded, head.seq)
        if not self.records.add(head.seq):
            return
        key = head.operation or head.id, head.attempt or 1
        if head.kind == "started":
            if key not in self._early:
                self._running.add(key)
        elif head.status == "unsettled":
            self._unsettled.add(key)
            self._running.discard(key)
        elif key in self._running:
            self._running.discard(key)
        elif key[0] != head.id:
            self._early.add(key)


_Digest = tuple[str, int]


def _digests(
    root: Path, names: Sequence[SegmentName], advance: Callable[[SegmentName], None]
) -> dict[SegmentName, _Digest]:
    """Return the digests of segments, but those that cannot be read; by several threads.

    Reading and hashing let go of the interpreter, so that they take as many cores as there are.
    """

    def digest(name: SegmentName) -> _Digest | None:
        try:
            return _digest(root / SEGMENTS / str(name))
        except OSError:
            return None
        finally:
            advance(name)

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        found = zip(names, threads.map(digest, names), strict=True)
        return {name: one for name, one in found if one is not None}


def _digest(path: Path) -> _Digest:
    """Return the SHA-256 of a file and how many line feeds it has."""
    sha256, lines = hashlib.sha256(), 0
    with contextlib.ExitStack() as opened:
        data = blocks(path)
        if data is None:
            file = opened.enter_context(open_file(path))
            data = iter(lambda: file.read(_BLOCK), b"")
        for block in data:
            sha256.update(block)
            lines += block.count(b"\n")
    return sha256.hexdigest(), lines


def _accounts(name: SegmentName, manifest: Manifest) -> bool:
    """Whether the lines and gaps of a manifest come to the numbers in the segment's name."""
    ends = [name.first - 1]
    for first, last, _, _ in manifest.gaps:
        if first <= ends[-1] or last < first:
            return False
        ends.append(last)
    in_gaps = sum(last - first for first, last, _, _ in manifest.gaps)
    return (
        ends[-1] <= (name.last or 0)
        and manifest.lines + in_gaps == (name.last or 0) - name.first + 1
    )


def _claim(gap: Gap) -> tuple[bool, bool, int]:
    """Sort gaps: where two speak of one number, the one that owns up to more is believed."""
    loss = gap.reason == "lost"
    return loss, loss and gap.acked_until is not None, -(gap.acked_until or 0) if loss else 0


def _missing(
    found: _Found, upto: int, acked: int | None, audits: Sequence[Audit]
) -> tuple[Counter[str], dict[str, Spans]]:
    """Count the numbers up to ``upto`` without a record, by the reason that a gap gives.

    ``unexplained``: expired, and no audit says so.  Of those ``lost``, also the ``unacknowledged``
    ones, and the ``undecided`` ones: whether they were acknowledged is not on record.
    ``acked``: no number above it was acknowledged, where no
    gap says so itself.  ``known``, ``known unacknowledged`` and ``known quarantined``: those that
    audits are about.  Also return the numbers.
    """
    counts: Counter[str] = Counter()
    numbers: dict[str, Spans] = defaultdict(Spans)
    known = {
        "lost": spans([span for audit in audits for span in audit.lost]),
        "quarantined": spans([span for audit in audits for span in audit.quarantined]),
    }
    pruned = Spans()
    for name, _ in pruned_in(audits):
        pruned.add_range(name.first, name.last or 0)
    rest = Spans()
    for first, last in found.records:
        rest.add_range(first, last)
    if acked is not None:  # a hole below what is found was a file, whatever the counters say
        acked = max(acked, found.records.last)
    for gap in [*sorted(found.gaps, key=_claim), Gap(1, upto, "lost", acked)]:
        for start, end in rest.missing(gap.first, min(gap.last, upto)):
            counts[gap.reason] += end - start + 1
            numbers[gap.reason].add_range(start, end)
            if gap.reason == "lost":
                part = gap._replace(first=start, last=end)
                never = part.unacknowledged
                counts["unacknowledged"] += never
                counts["undecided"] += end - start + 1 if gap.acked_until is None else 0
                counts["known"] += known["lost"].overlap(start, end)
                counts["known unacknowledged"] += known["lost"].overlap(end - never + 1, end)
            elif gap.reason == "expired":
                counts["unexplained"] += end - start + 1 - pruned.overlap(start, end)
            elif gap.reason == "quarantined":
                counts["known quarantined"] += known["quarantined"].overlap(start, end)
            rest.add_range(start, end)
    return counts, numbers


def _judge(
    root: Path,
    writer: str,
    live: tuple[bool, LiveCounters] | None,
    found: _Found,
    kept: list[str],
    audits: list[Audit],
) -> WriterVerdict:
    alive, counters = live or (False, LiveCounters(valid=False))
    proves: Proof = "exact"
    if live is None:
        accepted, upto = found.last, found.last
        state: State = "closed"
        if found.open:
            state, proves = "orphaned", "at_least"
        elif kept or found.unsettled or any(gap.reason == "lost" for gap in found.gaps):
            state = "recovered"
            if any(name.startswith(live_name(writer)) for name in kept):
                proves = "at_least"  # its counters said nothing
    else:
        accepted = max(counters.accepted, found.last)
        upto = counters.written if alive else accepted
        state = "alive" if alive else "died"
        if not counters.valid:
            proves = "at_least" if found.last else "nothing"
        elif not alive and not same_boot(counters):
            proves = "at_least"
    # What a file that is not there any more held had been written: that is a loss in any case.
    acked = acked_until(counters) if state == "died" else upto
    missing, numbers = _missing(found, upto, acked, audits)
    problems, known_problems = split(root, found.problems, audits)
    return WriterVerdict(
        writer=writer,
        state=state,
        proves=proves,
        pid=counters.pid if counters.valid else None,
        accepted=accepted,
        written=counters.written if counters.valid else None,
        synced=counters.synced if counters.valid else None,
        found=found.records.count,
        lost=missing["lost"],
        unacknowledged=missing["unacknowledged"],
        undecided=missing["undecided"],
        quarantined=missing["quarantined"],
        removed=missing["erased"] + missing["expired"],
        unexplained=missing["unexplained"],
        unwritten=accepted - max(upto, found.last) if alive else 0,
        torn_bytes=found.torn_bytes,
        unsettled=found.unsettled,
        recoverer=counters.recoverer or None,
        in_flight=found.in_flight,
        problems=problems,
        known=missing["known"],
        known_unacknowledged=missing["known unacknowledged"],
        known_quarantined=missing["known quarantined"],
        known_problems=known_problems,
        lost_numbers=list(numbers["lost"]),
        quarantined_numbers=list(numbers["quarantined"]),
        audits=audits,
    )
