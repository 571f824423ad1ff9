"""How far a ledger was shipped, noted beside it, for what runs without the database.

Owns ``shipping/<place>.json``, one file for each place that a ledger is shipped to.  The database
knows how far that is and is asked before anything is shipped; this is for retention and compaction,
which must not take what is not there yet, and for ``doctor``.  Lost or altered, a file holds
something up for a while, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from litellm_ledger._records.layout import SHIPPING

from .claims import read_shared, rewritten

__all__ = ["GRACE", "Mark", "Place", "Shipped", "begin", "note", "places", "shipped_by"]

Shipped = Callable[[str], float]
"""Tells up to which number the records of a writer are somewhere else as well."""

GRACE: Final = 86_400.0
"""Seconds that something must have been shipped for before it may go here: a database that is put
back from its last backup gets it again."""

_PLACE: Final = ""
"""The member that is about the place itself; the others are writers."""


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far one writer was shipped, or how shipping to a place goes.

    Attributes:
        shipped: the last number that is there.
        earlier, since: what that was at a time, in seconds since 1970.
        safe: what has been there for longer than ``GRACE``.
        to, at, error: of a place: its address without a password, when something was last shipped
            or found to be there, and what went wrong since.
    """

    shipped: int = 0
    earlier: int = 0
    since: float = 0.0
    safe: int = 0
    to: str = ""
    at: float = 0.0
    error: str = ""

    def moved(self, shipped: int, now: float) -> Mark:
        """Return what it becomes when it is so far; a database may know less than before."""
        safe, earlier, since = min(self.safe, shipped), min(self.earlier, shipped), self.since
        if not 0 <= now - since < GRACE:
            safe = earlier if since <= now else safe
            earlier, since = shipped, now
        return Mark(shipped=shipped, earlier=earlier, since=since, safe=safe)

    def safe_at(self, now: float) -> int:
        """Return what has been there for longer than ``GRACE``."""
        return self.earlier if now - self.since >= GRACE else self.safe


class Place(NamedTuple):
    """What is on record of one place: the file, its own mark, and those of the writers."""

    path: Path
    mark: Mark
    writers: Mapping[str, Mark]


def begin(root: Path, to: str) -> None:
    """Note that a ledger is shipped to a place: from now on, nothing goes that is not there.

    Raises:
        OSError: it cannot be written.
    """
    with rewritten(_file(root, to), Mark) as marks:
        marks.setdefault(_PLACE, Mark(to=to))


def note(
    root: Path,
    to: str,
    writers: Mapping[str, int],
    *,
    now: float,
    error: str | None = None,
    answered: bool = True,
    there: Iterable[str] | None = None,
) -> None:
    """Note how far the writers of a ledger are shipped to a place.

    Args:
        root: the ledger.
        to: the address, without a password.
        writers: up to which number, of those that something is known of.
        now: seconds since 1970.
        error: what went wrong since something was last shipped; ``None``: nothing.
        answered: whether the place has ever answered those who note this.
        there: the writers that the ledger has; others are forgotten.

    Raises:
        OSError: it cannot be written.
    """
    with rewritten(_file(root, to), Mark) as marks:
        at = now if error is None and answered else marks.get(_PLACE, Mark()).at
        marks[_PLACE] = Mark(to=to, at=at, error=error or "")
        for writer, shipped in writers.items():
            marks[writer] = marks.get(writer, Mark()).moved(shipped, now)
        if there is not None:
            for writer in marks.keys() - {_PLACE, *there}:
                del marks[writer]


def places(root: Path) -> list[Place]:
    """Return what is on record, by file; what cannot be read is a place that nothing is at."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted((root / SHIPPING).glob("*.json")):
            marks: dict[str, Mark] = {}
            with suppress(OSError):
                marks = read_shared(path, Mark)
            mark = marks.pop(_PLACE, Mark(to=path.name))
            found.append(Place(path, mark, marks))
    return found


def shipped_by(root: Path, now: float) -> Shipped:
    """Tell what has been at every place for long enough; everything where there is no place."""
    known = places(root)
    if not known:
        return lambda _: inf

    def shipped(writer: str) -> float:
        return min(place.writers.get(writer, Mark()).safe_at(now) for place in known)

    return shipped


def _file(root: Path, to: str) -> Path:
    return root / SHIPPING / f"{hashlib.sha256(to.encode()).hexdigest()[:16]}.json"
