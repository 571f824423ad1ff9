"""A ledger that is no directory of this machine: in a database, or in an object store.

Owns what a question says that it needs of one, and what comes back: a temporary ledger directory
with what matters to the question, which is read like every other.  A superset is fine: what is
selected is selected once more by those who read it.  Knows no database.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._errors import LedgerPathError

from .lines import Problem, everything, whole
from .listing import Roots, Snapshot, each, list_segments

if TYPE_CHECKING:
    from litellm_ledger._records.layout import SegmentName
    from litellm_ledger._records.record import UsageRecord

    from .verdict import Verification

__all__ = [
    "AtHand",
    "Elsewhere",
    "Fetched",
    "Newcomers",
    "Place",
    "Places",
    "Unshipped",
    "Wanted",
    "at_hand",
]


class Unshipped(msgspec.Struct, frozen=True, kw_only=True):
    """What a database is known not to have yet of the ledgers that are shipped to it.

    Attributes:
        records: records (``started`` ones among them) that were accepted and are not shipped, as
            far as the shippers have said; a lower bound: nobody knows what came after.
        writers: of how many writers.
        since: when the one of them was last heard of that has been silent longest, UTC.
    """

    records: int
    writers: int
    since: datetime | None


class Wanted(NamedTuple):
    """What a question needs of a ledger.

    Attributes:
        kinds: the kinds of lines; none: only adjustments and audits, and what there is beside.
        selection: which outcomes; by default all.
        sums: where they are added up: the group keys, and the totals.  Who fetches may add
            the sums of outcomes there, in place of their lines.
        newest: only as many outcomes matter, the newest by ``ts`` and id.
        key: only the operation matters that has this id, ``call_id`` or ``response_id``.
        near: only operations matter of which an id begins or ends like this, or is short for it.
        tags: only the names of their tags matter.
        slim: neither ``content`` nor ``meta`` nor the ids of answers matter.
        after: of each writer only larger numbers matter; of others all.
    """

    kinds: frozenset[str] = frozenset({"usage"})
    selection: Selection = Selection()
    sums: tuple[Sequence[str], Totals] | None = None
    newest: int | None = None
    key: str | None = None
    near: str | None = None
    tags: bool = False
    slim: bool = False
    after: Mapping[str, int] | None = None


class Fetched(NamedTuple):
    """What came back.

    Attributes:
        root: a ledger directory; it is there while the question is answered.
        writers: those that have records there, whether they were fetched or not.
        unshipped: what is not there yet; ``None``: nothing is known to be missing.
        problems: places that hold no record.
        left: outcomes that are asked for and were not fetched, because newer ones are enough.
        tags: names of tags of outcomes that are asked for, if their lines were not fetched.
        aggregated: outcomes in the sums that were added, of which there are only sums any more.
        expired: outcomes that may be asked for, whose records are not there any more, and that are
            in no sum.
        expired_until: the time of the last of both.
    """

    root: Path
    writers: frozenset[str] = frozenset()
    unshipped: Unshipped | None = None
    problems: Sequence[Problem] = ()
    left: int = 0
    tags: frozenset[str] = frozenset()
    aggregated: int = 0
    expired: int = 0
    expired_until: datetime | None = None


class Elsewhere(ABC):
    """Such a ledger.  ``str`` says where it is, without a password; equal ones are the same.

    Attributes:
        url: as it was given, perhaps with a password: never to be shown.
        has_manifests: whether ``verify`` takes ``anchors=``, which are of manifests.
    """

    url: str
    has_manifests = False

    @abstractmethod
    def fetch(self, wanted: Wanted) -> AbstractContextManager[Fetched]:
        """Fetch what is wanted; it is there while the ``with`` runs.

        Raises:
            LedgerPathError: there is no ledger, or it does not answer; the text says what to do.
            UnsupportedFormat: a newer version of this library has written there.
            MissingExtra: what is needed to ask is not installed.
        """

    @abstractmethod
    def segments(self) -> list[SegmentName]:
        """Return what there is of each writer, as segments; raises as ``fetch``."""

    @abstractmethod
    def verify(self, *, full: bool = False, against: Sequence[Path] = ()) -> Verification:
        """Check what is there, with directories at hand also against their lines."""


class Newcomers:
    """What comes to a ledger elsewhere after this was made, look by look; see ``Follower``.

    Attributes:
        ends: the last number of each writer that was looked at, ascending by writer.
    """

    def __init__(self, place: Elsewhere) -> None:
        self._place = place
        self.ends = self._ends()

    def _ends(self) -> dict[str, int]:
        return {name.writer: name.last or 0 for name in self._place.segments()}

    def look(self) -> Iterator[UsageRecord]:
        """Yield the records that came since the last look, writer by writer.

        Raises:
            LedgerPathError, UnsupportedFormat: as ``Elsewhere.fetch``.
        """
        before, self.ends = self.ends, self._ends()
        if self.ends == before:
            return
        kinds = frozenset({"started", "usage"})
        with self._place.fetch(Wanted(kinds=kinds, after=before)) as there:
            found = everything(Snapshot.take(there.root), [])
            for record in whole(found, []):
                writer, number = (record.id or "")[:33], record.seq or 0
                # What came between the two looks comes with the next one.
                if before.get(writer, 0) < number <= self.ends.get(writer, 0):
                    yield record


Place = Path | Elsewhere
Places = Place | tuple[Place, ...]
"""A ledger, or several that are read as one."""


class AtHand(NamedTuple):
    """Ledgers as directories that this machine can read.

    Attributes:
        roots: all of them.
        fetched: those that were elsewhere.
    """

    roots: Roots
    fetched: Mapping[Elsewhere, Fetched]

    @property
    def problems(self) -> list[Problem]:
        """The places elsewhere that hold no record."""
        return [problem for one in self.fetched.values() for problem in one.problems]

    @property
    def unshipped(self) -> Unshipped | None:
        """What is not there yet of all of them; ``None``: nothing is known to be missing."""
        return _together(one.unshipped for one in self.fetched.values())

    @property
    def tags(self) -> set[str]:
        """The names of tags that were fetched without their lines."""
        return set[str]().union(*(one.tags for one in self.fetched.values()))

    @property
    def left(self) -> int:
        """How many outcomes are asked for that were not fetched."""
        return sum(one.left for one in self.fetched.values())


@contextlib.contextmanager
def at_hand(places: Places, wanted: Wanted) -> Iterator[AtHand]:
    """Fetch what is elsewhere; a directory is taken as it is.

    Raises:
        LedgerPathError, UnsupportedFormat, MissingExtra: as ``Elsewhere.fetch``; two of the ledgers
            have records of the same writer.
    """
    every = places if isinstance(places, tuple) else (places,)
    here = tuple(one for one in every if isinstance(one, Path))
    if len(here) == len(every):
        yield AtHand(here if isinstance(places, tuple) else here[0], {})
        return
    with contextlib.ExitStack() as opened:
        fetched = {
            one: opened.enter_context(one.fetch(wanted))
            for one in dict.fromkeys(every)
            if isinstance(one, Elsewhere)
        }
        _refuse_shipped(here, fetched)
        yield AtHand((*here, *(one.root for one in fetched.values())), fetched)


def _refuse_shipped(here: tuple[Path, ...], fetched: Mapping[Elsewhere, Fetched]) -> None:
    """Refuse a directory beside the place that it is shipped to, and two such places of one."""
    owners: dict[str, Place] = {
        name.writer: root for root in each(here) for name in list_segments(root)
    }
    for place, one in fetched.items():
        for writer in sorted(one.writers):
            other = owners.setdefault(writer, place)
            if other is not place:
                raise LedgerPathError(
                    f"{other} and {place} both have records of {writer}, which would count twice: "
                    "one is shipped to the other; give one of them"
                )


def _together(parts: Iterable[Unshipped | None]) -> Unshipped | None:
    known = [one for one in parts if one is not None]
    if not known:
        return None
    moments = [one.since for one in known if one.since is not None]
    return Unshipped(
        records=sum(one.records for one in known),
        writers=sum(one.writers for one in known),
        since=min(moments, default=None),
    )
