"""``Cube``: the outcomes of a ledger in memory, as columns that every question of everybody shares.

Owns which segments are there.  Sealed ones are loaded in the background, the newest first, each
once; what is written is added from where it was read to.  What is not there (yet, or because it
has too many values, or would take too much memory) is told by manifests and lines as before.  A
segment that was erased from, pruned or changed goes at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from litellm_ledger._reading.adjustments import each_addition
from litellm_ledger._reading.lines import Problem
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._records.line import Line
from litellm_ledger._records.record import KEYS

from .blocks import Block, Outcome, block_of, column_of
from .chunks import Chunk, Codes, View, cut, joined
from .lines import new_lines
from .loading import Child, load
from .memory import Memory
from .state import State

__all__ = ["Cube", "Grown"]

_log = logging.getLogger("litellm_ledger")

BYTES: Final = 512 * 2**20
"""What columns take at most; what is older is not loaded."""
PATIENCE: Final = 20.0
"""Seconds that a question waits for columns before it reads lines: the machine may be busy."""
_ROWS: Final = 2**17
"""Outcomes of a chunk, about: many small segments are asked at once."""
_PIECE: Final = 4_096
"""Outcomes of an open segment that are joined with those before them."""
_WORTH_A_CHILD: Final = 32 * 2**20
"""Bytes of segments that are loaded by a process of its own."""


class Grown(NamedTuple):
    """What was read of an open segment, up to a moment: its outcomes, and how many these are."""

    chunks: tuple[Chunk, ...]
    rows: int

    def since(self, row: int) -> list[Chunk]:
        """Return what came after that many outcomes."""
        found, at = [], 0
        for chunk in self.chunks:
            if at + chunk.rows > row:
                (part,) = chunk.parts
                part = part._replace(start=max(0, row - at))
                found.append(chunk._replace(parts=(part,)))
            at += chunk.rows
        return found


class _Growing:
    """How far an open segment was read.

    Attributes:
        last: the number of the last line.
        odd: it is not as a writer leaves it, or no columns can say it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.offset = self.last = 0
        self.odd = False
        self.told = Grown((), 0)


class Cube:
    """The columns of one ledger; safe for several threads.

    Args:
        root: the ledger.
        process: whether processes may be started to load.
    """

    def __init__(self, root: Path, *, process: bool = False) -> None:
        self.memory = Memory()
        self._root = root
        self._process = process
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._codes = Codes()
        self._chunks: tuple[Chunk, ...] = ()
        self._size = 0
        self._state: State | None = None
        self._there: dict[SegmentName, str] = {}
        self._refused: dict[SegmentName, str] = {}
        self._coming: OrderedDict[SegmentName, tuple[str, str, int]] = OrderedDict()
        self._loading: dict[SegmentName, str] = {}
        self._is_loading = False
        self._growing: dict[SegmentName, _Growing] = {}
        self._adjusting = threading.Lock()
        self._adjusted: tuple[Any, Chunk | None, list[Problem]] = None, None, []

    # -- asking --------------------------------------------------------------------------------

    def view(self) -> View:
        """Return what there is; it stays as it is."""
        with self._lock:
            return View(self._chunks, self._codes.keys, self._codes.tags)

    def is_coming(self, name: SegmentName, sha256: str) -> bool:
        """Whether a segment is loaded, or will be soon."""
        with self._lock:
            coming = self._coming.get(name)
            known = coming[0] if coming is not None else self._loading.get(name)
            return sha256 in (known, self._there.get(name))

    def is_whole(self, state: State) -> bool:
        """Whether all segments that stand alone are loaded."""
        with self._lock:
            return self._state is state and len(self._there) == len(state.alone)

    def wait(self, names: Mapping[SegmentName, str]) -> None:
        """Wait until segments are loaded or refused, for some time; they come before others."""
        end = time.monotonic() + PATIENCE
        with self._moved:
            for name in sorted(names, key=lambda n: (n.writer, n.first)):
                if name in self._coming:
                    self._coming.move_to_end(name)
            while any(name in self._coming or name in self._loading for name in names):
                left = end - time.monotonic()
                if left <= 0:
                    return
                self._moved.wait(left)

    def settle(self) -> None:
        """Wait until all is loaded."""
        with self._moved:
            while self._coming or self._loading:
                self._moved.wait(1)

    # -- what is sealed ------------------------------------------------------------------------

    def follow(self, state: State) -> None:
        """Drop what is not in a state any more, and begin to load what is new in it."""
        with self._lock:
            if self._state is state:
                return
            self._state = state
            alone = state.alone
            gone = {name for name, sha256 in self._there.items() if alone.get(name) != sha256}
            if gone:
                self._drop(gone)
            for known in (self._refused, self._loading):
                for name in [n for n, sha256 in known.items() if alone.get(n) != sha256]:
                    del known[name]
            self._adopt(state)
            self._coming.clear()
            wanted = [
                name
                for name, sha256 in alone.items()
                if sha256 not in (self._there.get(name), self._refused.get(name))
                and name not in self._loading
            ]
            # The newest come off the end; those of other writers with an equal time between them.
            for name in sorted(wanted, key=lambda n: (state.told[n].latest or "", n)):
                told = state.told[name]
                self._coming[name] = told.sha256, told.crc32, told.size
            self._start()

    def _start(self) -> None:
        if not self._coming or self._is_loading:
            return
        self._is_loading = True
        left = sum(size for _, _, size in self._coming.values())
        threading.Thread(
            target=self._load,
            args=(self._process and left > _WORTH_A_CHILD,),
            name="litellm-ledger-columns",
            daemon=True,
        ).start()

    def _load(self, process: bool) -> None:
        """Load what is coming, until nothing is."""
        child = Child(self._root) if process else None
        try:
            while True:
                with self._lock:
                    if not self._coming:
                        self._is_loading = False
                        return
                    name, (sha256, checksum, _) = self._coming.popitem()
                    full = self._size >= BYTES
                    self._loading[name] = sha256
                block = None
                try:
                    if not full and child is not None:
                        block = child.load(name, checksum)
                    elif not full:
                        block = load(self._root, name, checksum)
                except Exception:  # noqa: BLE001 - logged; its lines are read instead
                    _log.warning("the dashboard could not load %s", name, exc_info=True)
                    if child is not None:
                        child.close()
                    child = None
                self._put(name, sha256, block)
        finally:
            if child is not None:
                child.close()

    def _put(self, name: SegmentName, sha256: str, block: Block | None) -> None:
        with self._moved:
            if self._loading.get(name) == sha256:  # else it was changed meanwhile
                del self._loading[name]
                chunk = None if block is None else self._chunk(block, name, sha256)
                if chunk is None:
                    self._refused[name] = sha256
                else:
                    self._add(chunk)
                    self._there[name] = sha256
            self._moved.notify_all()

    def _chunk(self, block: Block, name: SegmentName | None, sha256: str) -> Chunk | None:
        """Return a block as a chunk; where a tag has too many values now, its columns go."""
        before = self._codes.tags
        chunk = self._codes.chunk(block, name, sha256)
        tags = self._codes.tags
        if any(tags[tag] is None for tag in tags if before.get(tag) is not None):
            self._chunks = tuple(joined([one], tags) for one in self._chunks)
            self._size = sum(one.size for one in self._chunks)
        return chunk

    def _add(self, chunk: Chunk) -> None:
        """Join a chunk with the last one, if that is not full."""
        chunks = [*self._chunks]
        if chunks and chunks[-1].rows + chunk.rows <= _ROWS:
            self._size -= chunks[-1].size
            chunk = joined([chunks.pop(), chunk], self._codes.tags)
        self._size += chunk.size
        self._chunks = (*chunks, chunk)

    def _drop(self, gone: Collection[SegmentName]) -> None:
        kept = []
        for chunk in self._chunks:
            left = [part for part in chunk.parts if part.name not in gone]
            some = chunk if len(left) == len(chunk.parts) else cut(chunk, left)
            if some is not None:
                kept.append(some)
        self._chunks = tuple(kept)
        self._size = sum(chunk.size for chunk in kept)
        for name in gone:
            del self._there[name]
        open_ones = [chunk for one in self._growing.values() for chunk in one.told.chunks]
        adjusted = self._adjusted[1]
        self._codes.forget([*kept, *open_ones, *([adjusted] if adjusted else [])])
        self.memory.forget()

    # -- what was priced again -----------------------------------------------------------------

    def adjusted(self, state: State) -> tuple[Chunk | None, list[Problem]]:
        """Return what adjustments add, as outcomes of no call, and what is wrong with them.

        ``None``: no column can say it.

        Raises:
            UnsupportedFormat: a newer version wrote one.
        """
        names = state.ledger.adjustments
        key = [(name, state.files.get(name)) for name in names]
        with self._adjusting:
            if self._adjusted[0] != key:
                problems: list[Problem] = []
                each = each_addition(self._root, names, problems)
                ones = [one for one in each if isinstance(one, Adjustment)]
                block = block_of([_outcome(one, one.difference) for one in ones])
                if block is not None:
                    more = [column_of([getattr(o, n) for o in ones]) for n in _ADDED]
                    sums = dict(zip(("pico", "priced"), more, strict=True))
                    block = block._replace(sums={n: c for n, c in sums.items() if c is not None})
                with self._lock:
                    chunk = None if block is None else self._chunk(block, None, "")
                self._adjusted = key, chunk, problems
            return self._adjusted[1:]

    # -- what grows ----------------------------------------------------------------------------

    def grown(self, name: SegmentName) -> Grown | None:
        """Return what was written to an open segment; ``None`` if columns cannot say it."""
        with self._lock:
            growing = self._growing.setdefault(name, _Growing())
        with growing.lock:
            self._read(name, growing)
            return None if growing.odd else growing.told

    def _read(self, name: SegmentName, growing: _Growing) -> None:
        if growing.odd:
            return
        found: list[Outcome] = []
        try:
            for line, after, _ in new_lines(self._root, name, growing.offset):
                if line is None or not _is_plain(line, growing.last):
                    growing.odd = True
                    break
                growing.last, growing.offset = line.seq, after
                if line.kind == "usage":
                    found.append(_outcome(line, line.cost))
        except OSError:
            growing.odd = True
        if found and not growing.odd:
            self._grow(name, growing, found)
        if growing.odd:
            growing.told = Grown((), 0)

    def _grow(self, name: SegmentName, growing: _Growing, found: Sequence[Outcome]) -> None:
        block = block_of(found)
        with self._lock:
            chunk = None if block is None else self._chunk(block, name, "")
            tags = self._codes.tags
        if chunk is None:
            growing.odd = True
            return
        chunks = [*growing.told.chunks]
        while chunks and chunks[-1].rows <= max(_PIECE, chunk.rows) and chunk.rows < _ROWS:
            chunk = _one_part(joined([chunks.pop(), chunk], tags))
        growing.told = Grown((*chunks, chunk), growing.told.rows + len(found))

    def _adopt(self, state: State) -> None:
        """Keep what was read of segments that were sealed since."""
        there = {(name.writer, name.first): name for name in state.alone}
        names = {*state.ledger.segments}
        for name in [name for name in self._growing if name not in names]:
            growing = self._growing.pop(name)
            sealed = there.get((name.writer, name.first))
            if sealed is None or sealed in self._there or not growing.lock.acquire(blocking=False):
                continue
            try:
                told = state.told[sealed]
                whole = growing.last == sealed.last and growing.offset == told.size
                if whole and not growing.odd and growing.told.chunks:
                    chunk = _one_part(joined(growing.told.chunks, self._codes.tags))
                    part = chunk.parts[0]._replace(name=sealed, sha256=told.sha256)
                    self._add(chunk._replace(parts=(part,)))
                    self._there[sealed] = told.sha256
            finally:
                growing.lock.release()


def _one_part(chunk: Chunk) -> Chunk:
    first = chunk.parts[0]
    whole = first._replace(start=0, end=chunk.rows, first=chunk.base, last=chunk.last)
    return chunk._replace(parts=(whole,))


def _is_plain(line: Line, last: int) -> bool:
    """Whether a line follows the last one and counts whatever comes."""
    return line.kind != "gap" and line.status != "unsettled" and line.seq > last


_ADDED: Final = ("difference", "priced")


def _outcome(line: Line | Adjustment, cost: int | None) -> Outcome:
    """Return what columns are made of; an adjustment has no more than the cost it adds."""
    ts = None if line.ts is None else line.ts.isoformat()
    plain = {name: getattr(line, name) for name in KEYS}
    if isinstance(line, Adjustment):
        return Outcome(kind="usage", ts=ts, cost_picousd=cost, tags=line.tags, **plain)
    more = {name: getattr(line, name) for name in _MORE}
    return Outcome(
        kind=line.kind,
        ts=ts,
        cost_picousd=cost,
        saved_cost_picousd=line.saved_cost,
        **plain,
        **more,
    )


_MORE: Final = tuple(
    {*Outcome.__struct_fields__} - {*KEYS, "kind", "ts", "cost_picousd", "saved_cost_picousd"}
)
