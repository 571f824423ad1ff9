"""Power cuts: what a medium may hold after every prefix of what was asked of the disk.

``Recorder`` is a real disk that writes down, in order, what was asked of it and what its caller was
promised in between.  ``Medium`` replays a prefix of that and knows what is certain: bytes that a
successful sync of their file covers, names that a successful sync of their directory covers.  All
else it may drop, keep, tear, fill with zeros, garble or apply out of order, file by file and name
by name; ``states`` yields such media.  After a sync that failed it lies as Linux does: the bytes
are marked clean, and no later sync makes them certain.

A directory is a name as well: one that no sync of its parent covers may be gone, and all in it.
Not in the model: a rename is atomic.
"""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from tests.disks import QUICK

from litellm_ledger._records.line import checked
from litellm_ledger._storage import live_file as _live
from litellm_ledger._storage.filesystem import PRIVATE, FileSystem

BLOCK = 512
"""Bytes that reach the medium together."""

_DIRECTORY = 10**12
"""What a name that is a directory's stands for, instead of the number of a file."""


class Event(NamedTuple):
    """One thing that was asked of the disk and done, or (``promise``) said to somebody."""

    what: str
    file: int = 0
    path: Path = Path()
    new: Path = Path()
    at: int = 0
    data: bytes = b""
    number: int = 0
    cells: tuple[int, ...] = ()


class Recorder(FileSystem):
    """Real files, and the log of what was done to them."""

    def __init__(self, below: FileSystem = QUICK) -> None:
        self.below = below
        self.events: list[Event] = []
        self.cells: memoryview | None = None
        self._files: dict[int, int] = {}  # by inode number
        self._paths: dict[int, Path] = {}  # of files that we made, as they were named then
        self._sizes: dict[int, int] = {}  # of those that were written through us
        self._mutex = threading.Lock()

    def promise(self, number: int) -> None:
        """Note that somebody was told that all up to ``number`` is durable."""
        self._note(Event("promise", number=number))

    def _note(self, event: Event) -> None:
        cells = tuple(self.cells) if self.cells is not None else ()
        self.events.append(event._replace(cells=cells))

    def _file(self, fd: int) -> int:
        return self._files[os.fstat(fd).st_ino]

    def _note_others(self, fd: int) -> None:
        """Note what somebody wrote past us into a file that we made: a database."""
        file, size = self._file(fd), os.fstat(fd).st_size
        if size and file in self._paths and not self._sizes.get(file):
            data = self._paths[file].read_bytes()
            self._note(Event("write", file, data=data))

    def create(self, path: Path) -> int:
        with self._mutex:
            fd = self.below.create(path)
            number = len(self.events) + 1
            self._files[os.fstat(fd).st_ino] = number
            self._paths[number] = path
            self._note(Event("create", number, path))
            return fd

    def open(self, path: Path) -> int:
        with self._mutex:
            fd = self.below.open(path)
            inode = os.fstat(fd).st_ino
            if inode not in self._files:  # it was there before us
                self._files[inode] = number = -len(self.events) - 1
                self._note(Event("known", number, path, data=path.read_bytes()))
            return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        with self._mutex:
            at = os.fstat(fd).st_size
            taken = self.below.write(fd, data)
            self._note(Event("write", self._file(fd), at=at, data=bytes(data[:taken])))
            self._sizes[self._file(fd)] = at + taken
            return taken

    def truncate(self, fd: int, size: int) -> None:
        with self._mutex:
            self.below.truncate(fd, size)
            self._note(Event("truncate", self._file(fd), at=size))

    def sync(self, fd: int) -> None:
        with self._mutex:
            self._note_others(fd)
            try:
                self.below.sync(fd)
            except OSError:
                self._note(Event("failed", self._file(fd)))
                raise
            self._note(Event("sync", self._file(fd)))

    def rename(self, old: Path, new: Path) -> None:
        with self._mutex:
            self.below.rename(old, new)
            self._note(Event("rename", path=old, new=new))

    def unlink(self, path: Path) -> None:
        with self._mutex:
            self.below.unlink(path)
            self._note(Event("unlink", path=path))

    def make_directory(self, path: Path, mode: int = PRIVATE) -> None:
        with self._mutex:
            new = not path.exists()
            self.below.make_directory(path, mode)
            if new:
                self._note(Event("make_directory", _DIRECTORY, path))

    def sync_directory(self, path: Path) -> None:
        with self._mutex:
            self.below.sync_directory(path)
            self._note(Event("sync_directory", path=path))

    def close(self, fd: int) -> None:
        self.below.close(fd)

    def lines(self) -> set[bytes]:
        """Every valid line that was ever written."""
        whole: dict[int, bytearray] = {}
        for event in self.events:
            if event.what == "known":
                whole[event.file] = bytearray(event.data)
            elif event.what == "write":
                content = whole.setdefault(event.file, bytearray())
                content[event.at :] = event.data
        parts = (line for data in whole.values() for line in bytes(data).splitlines(keepends=True))
        return {line for line in parts if checked(line)}


class NeverSyncsFiles(Recorder):
    """What a test of a power cut must catch."""

    def sync(self, fd: int) -> None:
        pass


@dataclass
class _Edit:
    """One write or truncation of a file, and whether it is certain to be on the medium."""

    at: int
    data: bytes | None
    certain: bool = False
    lost: bool = False  # a sync failed over it: no later one makes it certain


@dataclass
class _File:
    edits: list[_Edit] = field(default_factory=list)

    def sync(self) -> None:
        for edit in self.edits:
            edit.certain = edit.certain or not edit.lost

    def fail(self) -> None:
        for edit in self.edits:
            edit.lost = edit.lost or not edit.certain


Fate = Literal["dropped", "kept", "torn", "zeroed", "garbled", "out of order"]
FATES: tuple[Fate, ...] = ("dropped", "kept", "torn", "zeroed", "garbled", "out of order")


def _content(file: _File, fate: Fate, dice: random.Random) -> bytes:
    """What the medium may hold of a file."""
    content = bytearray()
    uncertain = sum(len(e.data or b"") for e in file.edits if not e.certain)
    budget = dice.randrange(uncertain + 1) if fate == "torn" else uncertain
    for edit in file.edits:
        if edit.data is None:
            if edit.certain or fate != "dropped":
                del content[edit.at :]
            continue
        data = edit.data
        if not edit.certain:
            if fate == "dropped":
                continue
            if fate == "torn":
                data, budget = data[:budget], budget - len(data[:budget])
                if not data:
                    continue
            elif fate != "kept":
                data = _spoilt(data, edit.at, fate, dice)
        if len(content) < edit.at:
            content += bytes(edit.at - len(content))
        content[edit.at : edit.at + len(data)] = data
    return bytes(content)


def _spoilt(data: bytes, at: int, fate: Fate, dice: random.Random) -> bytes:
    """Some blocks have not arrived: zeros, rubbish, or (out of order) zeros before what has."""
    spoilt = bytearray(data)
    bounds = [0, *(b - at for b in range(at - at % BLOCK + BLOCK, at + len(data), BLOCK))]
    for start, end in zip(bounds, [*bounds[1:], len(data)], strict=True):
        if fate == "zeroed" or dice.random() < 0.5:
            spoilt[start:end] = (
                dice.randbytes(end - start) if fate == "garbled" else bytes(end - start)
            )
    return bytes(spoilt)


class Medium:
    """What is certain after a prefix of the log, and what may be."""

    def __init__(self, root: Path, base: Path | None = None) -> None:
        self.root = root
        self._files: dict[int, _File] = {}
        self._names: dict[Path, int] = {}  # certain
        self._changes: list[Event] = []  # of names, not certain
        self._now: dict[Path, int] = {}  # as the running process sees them
        self.promised = 0
        self.cells: list[tuple[int, ...]] = [()]
        for count, path in enumerate(sorted(base.rglob("*")) if base else (), 1):
            name = root / path.relative_to(base or root)
            self._names[name] = number = _DIRECTORY if path.is_dir() else -1_000_000 * count
            if path.is_file():
                self._files[number] = _File([_Edit(0, path.read_bytes(), certain=True)])
        self._now = dict(self._names)
        self._alias: dict[int, int] = {}

    def take(self, event: Event) -> None:
        """Replay one event."""
        if event.cells and event.cells != self.cells[-1]:
            self.cells.append(event.cells)

        def file() -> _File:
            return self._files[self._alias.get(event.file, event.file)]

        match event.what:
            case "promise":
                self.promised = max(self.promised, event.number)
            case "create":
                self._files[event.file] = _File()
                self._now[event.path] = event.file
                self._changes.append(event)
            case "known" if event.path in self._now:
                self._alias[event.file] = self._now[event.path]
            case "known":  # made by somebody who writes past us: a database
                self._files[event.file] = _File([_Edit(0, event.data)])
                self._now[event.path] = event.file
                self._changes.append(event._replace(what="create"))
            case "write":
                file().edits.append(_Edit(event.at, event.data))
            case "truncate":
                file().edits.append(_Edit(event.at, None))
            case "sync":
                file().sync()
            case "failed":
                file().fail()
            case "make_directory":
                self._changes.append(event)
            case "rename" | "unlink":
                number = self._now.pop(event.path, 0)  # 0: the live file, which has its own ways
                if event.what == "rename":
                    self._now[event.new] = number
                self._changes.append(event._replace(file=number))
            case "sync_directory":
                still = []
                for change in self._changes:
                    if change.path.parent == event.path or change.new.parent == event.path:
                        _apply(self._names, change)
                    else:
                        still.append(change)
                self._changes = still

    def write_out(self, target: Path, fate: Fate, names: str, dice: random.Random) -> None:
        """Make ``target`` a medium that this power cut may leave."""
        present = dict(self._names)
        for change in self._changes:
            if names == "all" or (names == "some" and dice.random() < 0.5):
                _apply(present, change)
        for path, number in sorted(present.items()):  # a directory before what is in it
            where = target / path.relative_to(self.root)
            if not where.parent.is_dir():
                continue
            if number == _DIRECTORY:
                where.mkdir()
            elif number:
                fate_here = fate if names != "some" else dice.choice(FATES)
                where.write_bytes(_content(self._files[number], fate_here, dice))
            else:
                where.write_bytes(self._live(dice))

    def _live(self, dice: random.Random) -> bytes:
        """A live file after a restart: of some earlier moment, or nothing that was ever written."""
        cells = dice.choice(self.cells)
        match dice.randrange(6):
            case 0:
                return b""
            case 1:
                return bytes(64)
            case _:
                other_boot = (_live.boot_hash() + 1) % 2**64
                values = cells[2:] if cells else (1, 0, 0, 0, 0, 0)
                return struct.pack("=8Q", _live.MAGIC, other_boot, *values)


def _apply(names: dict[Path, int], change: Event) -> None:
    if change.what in ("create", "make_directory"):
        names[change.path] = change.file
    else:
        names.pop(change.path, None)
        if change.what == "rename":
            names[change.new] = change.file


VARIANTS: tuple[tuple[Fate, str], ...] = (
    *((fate, "all") for fate in FATES),
    ("dropped", "none"),
    ("kept", "none"),
    ("torn", "some"),
    ("garbled", "some"),
)


def states(
    events: list[Event], medium: Medium, make: Callable[[], Path], *, seed: int = 0, rounds: int = 1
) -> Iterator[tuple[str, Path]]:
    """Yield, for every prefix of the log, directories that a power cut then may leave.

    ``make`` returns an empty directory each time.  ``medium`` is replayed along the way, so that
    its ``promised`` is that of the state that was yielded last.
    """
    dice = random.Random(seed)
    for count, event in enumerate([Event("begin"), *events]):
        medium.take(event)
        if event.what in ("promise", "known"):
            continue
        for turn in range(rounds):
            for fate, names in VARIANTS:
                target = make()
                medium.write_out(target, fate, names, dice)
                yield f"after {count} ({event.what}), {fate}, names {names}, {turn}", target
