"""Segments that were pruned, as the audits of a ledger say, and their place in the chain.

Owns what an audit of ``prune`` is believed to say: which segment with which bytes was removed, and
where the sums of its records are.  Never writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from litellm_ledger._errors import LedgerPathError
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.audit import ERASE, PRUNE, Audit, Changed, audit_of
from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._storage.filesystem import open_file
from litellm_ledger._storage.manifest import Manifest

from .adjustments import each_addition
from .chain import Link
from .listing import Snapshot, list_additions

__all__ = [
    "Expired",
    "Gone",
    "Pruned",
    "busy",
    "by_pruned_writer",
    "expired",
    "overlaps",
    "pruned_in",
    "read_audits",
    "read_pruned",
    "stubs",
    "was_changed_since",
    "what_was_pruned",
]


class Pruned(NamedTuple):
    """A segment that an audit says was removed."""

    name: SegmentName
    changed: Changed
    audit: Audit

    @property
    def records(self) -> int:
        """How many records it had."""
        return self.changed.was.records

    @property
    def told(self) -> bool:
        """Whether a manifest is to tell its sums."""
        return self.changed.sums in ("kept", "elsewhere")


Gone = Mapping[tuple[SegmentName, str], Pruned]
"""What was pruned, by the name of the segment and the SHA-256 of its bytes."""


def read_audits(root: Path, names: Sequence[SegmentName]) -> list[Audit]:
    """Return the audits in segments that begin with one, by their time.

    Segments of adjustments, which may be large, are passed over.

    Raises:
        UnsupportedFormat: a newer version wrote one.
    """
    begun = []
    for name in names:
        with contextlib.suppress(OSError), open_file(root / SEGMENTS / str(name)) as file:
            if audit_of(file.readline()) is not None:
                begun.append(name)
    found = each_addition(root, begun, []) if begun else ()
    audits = [one for one in found if isinstance(one, Audit)]
    return sorted(audits, key=lambda one: (one.at, one.id))


def pruned_in(audits: Iterable[Adjustment | Audit]) -> dict[tuple[SegmentName, str], Pruned]:
    """Return what audits, which come by their time, say was pruned."""
    found = {}
    for one in audits:
        if isinstance(one, Audit) and one.did == PRUNE:
            for changed in one.segments:
                name = SegmentName.parse(changed.segment)
                if name is not None:
                    found[name, changed.was.sha256] = Pruned(name, changed, one)
    return found


def read_pruned(root: Path, names: Sequence[SegmentName]) -> Gone:
    """Return what was pruned of a ledger; ``names`` are ``Snapshot.adjustments``.

    Raises:
        UnsupportedFormat: a newer version wrote an audit.
    """
    return pruned_in(read_audits(root, names)) if names else {}


def was_changed_since(ledger: Snapshot) -> bool:
    """Whether records that a look at the ledger still had were pruned or erased since.

    Their audit is there before the first of them goes.

    Raises:
        UnsupportedFormat: a newer version wrote an audit.
    """
    new = [name for name in list_additions(ledger.root) if name not in ledger.adjustments]
    return any(one.did in (PRUNE, ERASE) for one in read_audits(ledger.root, new)) if new else False


def busy(root: Path) -> LedgerPathError:
    """Say that a ledger was changed whenever it was read."""
    return LedgerPathError(
        f"the ledger at {root} is pruned or erased from again and again while it is read, so no "
        "figure is that of one moment; try again when prune and erase have ended"
    )


def by_pruned_writer(gone: Gone) -> dict[str, Gone]:
    """Return what was pruned of each writer."""
    found: dict[str, dict[tuple[SegmentName, str], Pruned]] = {}
    for key, one in gone.items():
        found.setdefault(one.name.writer, {})[key] = one
    return {**found}


def stubs(gone: Gone, there: Collection[str]) -> Iterator[Link]:
    """Yield what audits tell of a writer's manifests that were removed.

    Args:
        gone: what was pruned of the writer.
        there: the identities of the manifests that are there.
    """
    for name, sha256 in gone:
        changed = gone[name, sha256].changed
        was = changed.was
        if was.manifest is None or was.manifest in there:
            continue
        if changed.sums == "removed" and was.sealed is not None:
            yield Link(name, _stub(changed, was.sealed), was.manifest)


def _stub(changed: Changed, sealed: str) -> Manifest:
    was = changed.was
    return Manifest(
        segment=changed.segment,
        sealed=sealed,
        previous=was.previous,
        size=was.size,
        lines=was.records,
        crc32="",
        sha256=was.sha256,
        plain=False,
        earliest=None,
        latest=None,
        gaps=[],
        open=[],
        closed=[],
        unsettled=[],
        tags=None,
        keys=[],
        sums=[],
    )


class Expired(NamedTuple):
    """How many records were pruned, and the time of the last one (``None``: they had none)."""

    records: int
    latest: datetime | None


def overlaps(one: Pruned, since: datetime | None, until: datetime | None) -> bool:
    """Whether records of a pruned segment may be of this time."""
    was = one.changed.was
    if was.earliest is None or was.latest is None:
        return True
    return (until is None or was.earliest < until) and (since is None or was.latest >= since)


def expired(pruned: Iterable[Pruned]) -> Expired:
    """Sum up segments that were pruned."""
    each = [one for one in pruned if one.records and one.changed.sums != "elsewhere"]
    moments = [one.changed.was.latest for one in each if one.changed.was.latest is not None]
    return Expired(sum(one.records for one in each), max(moments, default=None))


def what_was_pruned(
    roots: Iterable[Path], since: datetime | None = None, until: datetime | None = None
) -> Expired | None:
    """Return how many records of a time were pruned from ledgers; ``None``: none.

    Raises:
        LedgerPathError, UnsupportedFormat: as for ``Snapshot.take``.
    """
    each = [one for root in roots for one in read_pruned(root, list_additions(root)).values()]
    found = expired(one for one in each if overlaps(one, since, until))
    return found if found.records else None
