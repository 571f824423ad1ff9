"""One ledger on its way to a database: which writers have something to ship, and how far they are.

Owns what a shipper knows of one ledger.  The checkpoints here are what the database said last; the
transaction asks it again.  Never talks to a database itself.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from litellm_ledger._errors import LedgerError
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._records.layout import SEGMENTS
from litellm_ledger._storage.location import is_network
from litellm_ledger._storage.shipping_marks import note, places

from .source import LINES, Source, Stretch
from .standing import ENDLESS, Standing

__all__ = ["Checkpoint", "Road"]

_log = logging.getLogger("litellm_ledger")

_RECOVER: Final = 10.0
"""Seconds between two looks for writers that died."""
_NOTE: Final = 5.0
"""Seconds between two notes of how far it is, beside the ledger."""
_NOTE_AT_LEAST: Final = 60.0
"""Seconds after which it is noted although nothing changed."""
_HELD: Final = 1.0
"""Seconds after which lines are looked for again that are there and cannot be shipped."""
_PIECE: Final = 128
"""Lines after which others may run: a third of a millisecond."""
_TIMES: Final = 64
"""Moments that are kept of one writer's backlog, for how old it is."""


@dataclass(slots=True)
class Checkpoint:
    """How far a writer is, as the database said.

    Attributes:
        writer_id: what it calls the writer.
        shipped: the last number that it has.
        unsettled: how many of the outcomes recovery wrote.
        closed, accepted: what it was told of the writer.
    """

    writer_id: int
    shipped: int
    unsettled: int = 0
    closed: bool = False
    accepted: int = 0


@dataclass(slots=True)
class _Backlog:
    """A writer that has something to ship.

    Attributes:
        seen: ``(number, moment)``: when lines up to a number were first seen to wait.
        lines: how many are tried at once; fewer after the database refused some of them.
        after: when it is tried again (``time.monotonic()``).
        why: what holds it up.
    """

    seen: deque[tuple[int, float]] = field(default_factory=deque)
    lines: int = LINES
    after: float = 0.0
    why: str | None = None


class Road:
    """One ledger that is shipped to one place.

    Args:
        root: the ledger.
        to: the address of the place, without a password.
        patience: seconds that the backlog of a living writer of another process waits first: that
            process may ship it itself.
        recovers: finish what writers left behind that died.
        lines: of one batch, at most.

    Attributes:
        known: the checkpoints; ``own``: what hears of those of this process's writers.
        backlogs: the writers that have something to ship.
        unrecovered: why writers that died could not be finished.
        unreadable: why the ledger cannot be read.
    """

    def __init__(
        self,
        root: Path,
        to: str,
        *,
        patience: float = 0.0,
        recovers: bool = True,
        lines: int = LINES,
    ) -> None:
        self._lines = lines
        self.root = root
        self.to = to
        self.source = Source(root)
        self.known: dict[str, Checkpoint] = {}
        self.own: dict[str, Callable[[int], None]] = {}
        self.backlogs: dict[str, _Backlog] = {}
        self._out: dict[str, int] = {}
        self._turn: str | None = None
        self._patience = patience
        self._recovers = recovers and not is_network(root)
        self._recover_at = 0.0
        self._note_at = 0.0
        self._noted: dict[str, int] = {}
        self._error: str | None = None
        self._told: str | None = None
        self._expected = self._expect()
        self.unrecovered: str | None = None
        self.unreadable: str | None = None

    def _expect(self) -> Mapping[str, int]:
        """Return how far it was when that was last noted, for as long as the database is away."""
        there = [place for place in places(self.root) if place.mark.to == self.to]
        return {name: mark.shipped for one in there for name, mark in one.writers.items()}

    # -- what there is to ship -----------------------------------------------------------------

    def look(self) -> None:
        """See what is new.

        Raises:
            LedgerPathError, UnsupportedFormat: the ledger cannot be read.
        """
        if self._recovers and time.monotonic() >= self._recover_at:
            self._recover()
            self._recover_at = time.monotonic() + _RECOVER
        lookout = self.source.lookout
        lookout.look()
        for writer in lookout.changed():
            self._compare(lookout.standings[writer])

    def _compare(self, standing: Standing) -> None:
        """Note whether a writer has something to ship."""
        writer, top = standing.writer, standing.top
        if top <= self.shipped(writer):
            self.backlogs.pop(writer, None)
            return
        backlog = self.backlogs.get(writer)
        if backlog is None:
            backlog = self.backlogs[writer] = _Backlog(lines=self._lines)
        if not backlog.seen or backlog.seen[-1][0] < top:
            if len(backlog.seen) >= _TIMES:
                backlog.seen.pop()
            backlog.seen.append((top, time.time()))

    def _recover(self) -> None:
        """Finish what died here, so that its last lines are certain."""
        dead = [writer for writer in self.source.lookout.dead() if writer not in self.own]
        if not dead:
            self.unrecovered = None
            return
        try:
            report = recover(self.root, own=self.own)
        except Exception as exc:  # noqa: BLE001 - what is certain is shipped all the same
            self.unrecovered = str(exc)
            return
        failed = [one.error for one in report.writers if one.error]
        self.unrecovered = failed[0] if failed else None

    def shipped(self, writer: str) -> int:
        """Return how far a writer is: as the database said, else as was noted last."""
        known = self.known.get(writer)
        return known.shipped if known is not None else self._expected.get(writer, 0)

    def unknown(self) -> list[str]:
        """Return the writers of which the database was not asked yet."""
        standings = self.source.lookout.standings.values()
        return [one.writer for one in standings if one.accepted and one.writer not in self.known]

    def knows(self, writer: str, checkpoint: Checkpoint) -> None:
        """Take what the database says of a writer."""
        moved = checkpoint.shipped > self.shipped(writer)
        if checkpoint.shipped >= self._out.get(writer, 0):
            self.back(writer)
        self.known[writer] = checkpoint
        hear = self.own.get(writer)
        if hear is not None:
            hear(checkpoint.shipped)
        backlog = self.backlogs.get(writer)
        if backlog is not None:
            while backlog.seen and backlog.seen[0][0] <= checkpoint.shipped:
                backlog.seen.popleft()
            if moved:
                backlog.lines = min(self._lines, 2 * backlog.lines)
        standing = self.source.lookout.standings.get(writer)
        if standing is not None:
            self._compare(standing)

    def round(self, *, all_now: bool = False) -> Iterator[Stretch | None]:
        """Yield lines of each writer that has some: a batch of each that may still write.

        In between, ``None`` again and again: others may run.  Of a writer whose lines are being
        shipped (``shipped`` is not there yet) those are yielded that follow: ``back`` has them
        yielded again.

        Of those that are closed only one has its turn, until it is shipped to its end: it may have
        to be read from the archive.

        Args:
            all_now: wait for no other process.
        """
        now, moment = time.monotonic(), time.time()
        closed = False
        for writer in sorted(self.backlogs, key=self._order):
            backlog, known = self.backlogs.get(writer), self.known.get(writer)
            standing = self.source.lookout.standings.get(writer)
            if backlog is None or known is None or standing is None or backlog.after > now:
                continue
            first = max(known.shipped, self._out.get(writer, 0)) + 1
            if (closed and standing.closed) or first > standing.top:
                continue
            if not all_now and self._is_another_s(backlog, standing, moment):
                continue
            stretch = Stretch(writer, first, first - 1)
            try:
                while len(stretch.lines) < backlog.lines and self.source.read_on(
                    stretch, min(len(stretch.lines) + _PIECE, backlog.lines)
                ):
                    yield None
            except (LedgerError, OSError) as exc:
                self.failed(writer, str(exc), _HELD)
                continue
            backlog.why = stretch.held
            if stretch.last < stretch.first:
                backlog.after = now + _HELD  # held
                continue
            if standing.closed:
                closed, self._turn = True, writer
            self._out[writer] = stretch.last
            yield stretch

    def back(self, writer: str) -> None:
        """Have lines yielded again that are not shipped."""
        self._out.pop(writer, None)

    def _order(self, writer: str) -> tuple[bool, bool, bool, float]:
        standing = self.source.lookout.standings.get(writer)
        closed = standing is not None and standing.closed
        chance = random.random()  # else those that race always meet
        return writer not in self.own, closed, writer != self._turn, chance

    def _is_another_s(self, backlog: _Backlog, standing: Standing, moment: float) -> bool:
        if not self._patience or standing.writer in self.own or not backlog.seen:
            return False
        waited = moment - backlog.seen[0][1]
        return not standing.closed and 0 <= waited < self._patience

    # -- what went wrong -------------------------------------------------------------------------

    def refused(self, stretch: Stretch) -> bool:
        """Note that the database does not take a stretch; tell whether it is a single line."""
        self.back(stretch.writer)
        backlog = self.backlogs.setdefault(stretch.writer, _Backlog())
        if len(stretch.lines) == 1:
            return True
        backlog.lines = max(1, len(stretch.lines) // 2)
        return False

    def failed(self, writer: str, why: str, pause: float) -> None:
        """Note that a writer cannot be shipped now, for its own reasons."""
        self.back(writer)
        backlog = self.backlogs.setdefault(writer, _Backlog())
        backlog.after, backlog.why = time.monotonic() + pause, why

    def forget(self) -> None:
        """Believe nothing that the database said: the connection is another one now."""
        self._expected = {**self._expected, **{w: one.shipped for w, one in self.known.items()}}
        self.known.clear()
        self._out.clear()

    # -- what it says of itself ------------------------------------------------------------------

    def ends(self) -> list[tuple[int, int, bool]]:
        """Return what the database was not told of writers: id, accepted, whether it is closed."""
        found = []
        for writer, known in self.known.items():
            standing = self.source.lookout.standings.get(writer)
            if standing is None:
                continue
            closed = standing.closed and known.shipped >= standing.top
            if standing.accepted > known.accepted or (closed and not known.closed):
                found.append((known.writer_id, standing.accepted, closed))
        return found

    def held(self) -> dict[str, str]:
        """Return the writers that are held up, and by what."""
        standings = self.source.lookout.standings.values()
        found = {one.writer: one.held for one in standings if one.held is not None}
        found |= {writer: one.why for writer, one in self.backlogs.items() if one.why is not None}
        return found

    def waiting(self) -> tuple[int, int, float | None]:
        """Return how many records wait, about how many bytes, and since when (Unix seconds)."""
        records = size = 0
        since: list[float] = []
        for writer, backlog in self.backlogs.items():
            standing = self.source.lookout.standings.get(writer)
            if standing is None:
                continue
            shipped = self.shipped(writer)
            records += max(0, standing.top - shipped)
            size += self._bytes(writer, shipped + 1, standing.top)
            if backlog.seen:
                since.append(backlog.seen[0][1])
        return records, size, min(since, default=None)

    def _bytes(self, writer: str, first: int, last: int) -> int:
        """Return about how many bytes the lines of some numbers have, by the sizes of the files."""
        family = self.source.lookout.family(writer)
        total = 0
        for name, end in zip(family.names, family.lasts, strict=True):
            end = last if end >= ENDLESS else end
            inside = min(end, last) - max(name.first, first) + 1
            if inside <= 0:
                continue
            place = self.source.lookout.archive.get(name)
            size = 0
            if place is not None:
                size = place[0].sources[place[1]].bytes
            else:
                with suppress(OSError):
                    size = (self.root / SEGMENTS / str(name)).lstat().st_size
            total += size * inside // max(1, end - name.first + 1)
        return total

    def note(self, error: str | None, *, answered: bool, now: bool = False) -> None:
        """Note beside the ledger how far it is, now and then."""
        if not now and time.monotonic() < self._note_at:
            return
        if not self.root.is_dir():  # no ledger is there yet, or the path is misspelt
            return
        changed = {
            writer: one.shipped
            for writer, one in self.known.items()
            if self._noted.get(writer) != one.shipped
        }
        old = time.monotonic() - self._note_at > _NOTE_AT_LEAST
        if not (changed or old or error != self._error or now):
            return
        self._note_at, self._error = time.monotonic() + _NOTE, error
        there: Iterable[str] | None = None
        if not self.source.lookout.unknown:
            there = list(self.source.lookout.standings)
        try:
            note(
                self.root,
                self.to,
                changed,
                now=time.time(),
                error=error,
                answered=answered,
                there=there,
            )
        except OSError as exc:
            if str(exc) != self._told:
                _log.warning("how far %s is shipped cannot be noted: %s", self.root, exc)
            self._told = str(exc)
        else:
            self._noted.update(changed)
