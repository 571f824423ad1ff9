"""Calls that have begun and have no outcome yet, found while the outcomes are read.

Owns the matching of ``started`` lines with outcomes, and the question whose process still runs.
Never writes; memory grows with the calls that are open at one time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from litellm_ledger._records.layout import LIVE, SegmentName, live_name
from litellm_ledger._storage.live_file import lives, read_live

from .lines import Entry, Line, entries
from .listing import by_writer

__all__ = ["Running"]


class Running:
    """Counts calls without an outcome, by whether somebody can still write one.

    Make it before the first line is read: a process that was dead by then writes no more, and one
    that lived may have ended, and told all outcomes, by the time that its last line is read.

    Args:
        root: the ledger.
        live: its writers that have a live file.
    """

    def __init__(self, root: Path, live: Iterable[str]) -> None:
        self._root = root
        self._alive: dict[str, bool] = {}
        self._open: dict[str, int] = {}
        self._since: dict[str, int] = {}
        for writer in live:
            self._alive[writer] = lives(self._root, writer)
            self._since[writer] = _oldest(root, writer)

    def outcomes(self, lines: Iterable[Entry], fits: Callable[[Line], bool]) -> Iterator[Line]:
        """Pass the outcomes on that ``fits`` wants; note the calls it wants that have none.

        ``lines`` come writer by writer, by number, so that a ``started`` stands before its outcome.
        """
        writer = ""
        running: set[tuple[str, int]] = set()
        for entry in lines:
            line = entry.line
            if entry.segment.writer != writer:
                self._note(writer, len(running))
                running.clear()
                writer = entry.segment.writer
            if line.kind == "started":
                if fits(line):
                    running.add((line.operation or line.id, line.attempt or 1))
            elif line.kind == "usage":
                if running:
                    running.discard((line.operation or line.id, line.attempt or 1))
                if fits(line):
                    yield line
        self._note(writer, len(running))

    def look(self, segments: Sequence[SegmentName], fits: Callable[[Line], bool]) -> None:
        """Note the calls that have no outcome without reading what ended before them.

        The counters of a writer tell its oldest call in flight; what began later has a larger
        number.

        Args:
            segments: those of the ledger.
            fits: whether a call is wanted.
        """
        for writer, family in by_writer(segments):
            if writer in self._since:
                since = self._since[writer]
                names = [name for name in family if name.last is None or name.last >= since]
                found = entries(self._root, names, [], family=family)
                for _ in self.outcomes((e for e in found if e.line.seq >= since), fits):
                    pass

    def counted(self) -> tuple[int, int]:
        """Return the calls of processes that run, and of processes that died unrecovered.

        A call without an outcome of a writer that is closed or recovered is neither: its outcome
        was damaged, and that is said elsewhere.
        """
        living = dead = 0
        for writer, count in self._open.items():
            if self._alive.get(writer) or lives(self._root, writer):
                living += count
            elif writer in self._alive:
                dead += count
        return living, dead

    def _note(self, writer: str, count: int) -> None:
        if count:
            self._open[writer] = count


def _oldest(root: Path, writer: str) -> int:
    try:
        counters = read_live(root / LIVE / live_name(writer))
    except OSError:
        return 1
    return (counters.oldest_in_flight or counters.written + 1) if counters.valid else 1
