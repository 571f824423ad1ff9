"""``Anchor``: one line, kept elsewhere, that later proves what a ledger was.

Owns the line and its check.  It names the newest manifest of every writer at a time by one hash,
and each manifest names its segment, and the manifest before it, by their hashes; the segments of
adjustments, which have no manifests, are in it by their own.  So whatever is changed, added or
taken away in what an anchor covers is found.  What comes after is not covered.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from litellm_ledger._errors import LedgerPathError
from litellm_ledger._records.layout import PRICES
from litellm_ledger._storage.live_file import lock_directory, unlock
from litellm_ledger._storage.manifest import SLOW, utc_text
from litellm_ledger._storage.named_file import open_named

from .adjustments import Adjusted, adjusted_segments, read_additions
from .chain import Link, chained, is_being_written, list_manifests, read_links
from .erasures import NONE, NOW, AsOf, Erasure, Erasures, is_erased_from, is_unfinished
from .listing import Snapshot, by_writer, list_additions, list_live
from .pruned import by_pruned_writer, read_pruned, stubs

__all__ = ["Anchor", "AnchorCheck", "anchor", "check", "read_anchors"]

_LINE: Final = re.compile(
    r"litellm-ledger anchor (?P<at>\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z) "
    r"records=(?P<records>\d{1,18}) sha256=(?P<root>[0-9a-f]{64})",
    re.ASCII,
)
_GRACE: Final = timedelta(seconds=2 * SLOW)
"""How far an anchor stays behind while manifests may be on their way: older ones are there."""


class Anchor(msgspec.Struct, frozen=True):
    """What the manifests of a ledger were at a time.

    Attributes:
        at: the time, UTC, as in ``sealed`` of a manifest; manifests made up to then are covered.
        records: how many records are covered, adjustments apart.
        root: SHA-256 over the newest manifest of every writer, and the segments of adjustments.
        missing: sealed segments without a manifest, which nothing covers.  Not in the line.
    """

    at: str
    records: int
    root: str
    missing: int = 0

    def __str__(self) -> str:
        return f"litellm-ledger anchor {self.at} records={self.records} sha256={self.root}"


class AnchorCheck(msgspec.Struct, frozen=True):
    """An anchor, and what the ledger has in its place now.

    Attributes:
        anchor: what was.
        records, root: what is there now of that time; before the erasures in ``since``.
        since: erasures that changed something after it, if it holds but for these.
    """

    anchor: Anchor
    records: int
    root: str
    since: list[Erasure] = []

    @property
    def ok(self) -> bool:
        """Whether nothing that it covers was changed, added or taken away."""
        return (self.records, self.root) == (self.anchor.records, self.anchor.root)


def anchor(root: Path, *, now: datetime | None = None) -> Anchor:
    """Return an anchor of all that is sealed and has a manifest.

    While a manifest may be on its way to the disk it covers what was sealed until some seconds ago.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read.
    """
    moment = (now or datetime.now(UTC)) - _GRACE
    live = list_live(root)
    ledger = Snapshot.take(root, live)
    busy = bool(live) or is_being_written(root)
    erasures = Erasures(read_additions(root, ledger.adjustments, []))
    first = set(list_manifests(root))
    listed = list_manifests(root)  # also those that were made before one of the first look
    missing = sum(not name.open and name not in first for name in ledger.segments)
    manifests = dict(by_writer(listed))
    gone = by_pruned_writer(read_pruned(root, list_additions(root)))
    chains = {}
    for writer in {*manifests, *gone}:
        links = list(read_links(root, manifests.get(writer, ()), []).values())
        links += stubs(gone.get(writer, {}), {link.identity for link in links})
        chains[writer] = chained(links, [], erasures)
    if _is_repriced(root):
        raise LedgerPathError(
            f"the ledger at {root} is being repriced by another process; anchor it after that"
        )
    if is_erased_from(root) or is_unfinished(root):
        raise LedgerPathError(
            f"records are being erased from the ledger at {root}, or that was cut short "
            "(litellm-ledger recover finishes it); anchor it after that"
        )
    adjusted = adjusted_segments(root, list_additions(root))
    at = utc_text(moment)
    if not busy:
        known = [link for links in chains.values() for link in links if link.name in first]
        made = [link.manifest.sealed for link in known] + [utc_text(one.at) for one in adjusted]
        at = max(at, *made) if made else at
    records, sha256 = _root(at, chains, adjusted)
    return Anchor(at, records, sha256, missing)


def _is_repriced(root: Path) -> bool:
    try:
        held = lock_directory(root / PRICES)
    except OSError:  # there is none
        return False
    if held is not None:
        unlock(held)
    return held is None


def check(
    anchor: Anchor,
    chains: Mapping[str, Sequence[Link]],
    adjusted: Sequence[Adjusted],
    erasures: Erasures = NONE,
) -> AnchorCheck:
    """Compare an anchor with the manifests, each writer's in the order of its chain, and with the
    segments of adjustments.

    Where these are not what it names, it is compared with what they were before the last erasure,
    and so on; but not before one that the anchor covers itself.
    """
    now = AnchorCheck(anchor, *_root(anchor.at, chains, adjusted))
    made = len(erasures.changed)
    covered = sum(utc_text(audit.at) <= anchor.at for audit, _ in erasures.changed)
    found = now
    while not found.ok and made > covered:
        made -= 1
        then = _root(anchor.at, chains, adjusted, AsOf(erasures, made))
        found = AnchorCheck(anchor, *then, since=erasures.runs(made))
    return found if found.ok else now


def _root(
    at: str,
    chains: Mapping[str, Sequence[Link]],
    adjusted: Sequence[Adjusted],
    then: AsOf = NOW,
) -> tuple[int, str]:
    records = 0
    sha256 = hashlib.sha256()
    for writer in sorted(chains):
        links = [link for link in chains[writer] if link.manifest.sealed <= at]
        if links:
            were = [then.was(link.identity) for link in links]
            records += sum(link.manifest.records for link in links)
            records += sum(went for _, went in were)
            sha256.update(f"{writer} {len(links)} {were[-1][0]}\n".encode())
    for one in adjusted:
        if utc_text(one.at) <= at:
            sha256.update(f"{one.name} {then.was(one.sha256)[0]}\n".encode())
    return records, sha256.hexdigest()


def read_anchors(path: Path) -> list[Anchor]:
    """Read anchors: one a line, text around it (a date, a name) is ignored.

    Raises:
        ValueError: there is none.
        OSError: the file cannot be read.
    """
    do = "give one with lines that litellm-ledger anchor has printed"
    with open_named(path, "file of anchors", do) as file:
        lines = (line.decode(errors="replace") for line in file)
        found = [match for line in lines if (match := _LINE.search(line)) is not None]
    if not found:
        raise ValueError(f"no anchor found in {path}; {do}")
    return [Anchor(match["at"], int(match["records"]), match["root"]) for match in found]
