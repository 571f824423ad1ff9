"""The live file: a writer's counters in 64 bytes of shared memory, and the lock that says it lives.

Owns ``live/<writer>.live``.  The counters outlive the process in any way it can die short of the
machine itself (they are pages of a file), so a later process knows exactly how many records
were accepted.  The ``flock`` is released by the kernel when the owner dies, however it dies.  Never
holds a record.

Eight native-endian unsigned 64-bit cells: magic, hash of the boot id, pid and durability level,
accepted, written, synced, oldest sequence number in flight (0: none), pid of who recovers it (0:
nobody did).  Stored one aligned cell at a time through ``memoryview.cast("Q")``;
``struct.pack_into`` tears.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from litellm_ledger._records.layout import LIVE, live_name

from .filesystem import FileSystem, create_file, open_regular, read_file

try:
    import fcntl
except ImportError:  # Windows: a ledger can be read there; opening one to write is refused
    fcntl = None  # type: ignore[assignment]
_LOCKS = fcntl is not None

__all__ = [
    "ACCEPTED",
    "OLDEST",
    "SYNCED",
    "WAITS_FOR",
    "WRITTEN",
    "Durability",
    "LiveCounters",
    "LiveFile",
    "acked_until",
    "boot_hash",
    "contradictory",
    "for_copy",
    "is_locked",
    "lives",
    "lock",
    "lock_directory",
    "mark_recovery",
    "read_live",
    "same_boot",
    "unlock",
]

MAGIC: Final = int.from_bytes(b"llmledg1", "little")
SIZE: Final = 64
_LARGEST: Final = 10**15
"""A counter beyond it is no counter: names hold sixteen digits."""
PID, ACCEPTED, WRITTEN, SYNCED, OLDEST = 2, 3, 4, 5, 6

Durability = Literal["queued", "written", "synced", "shipped"]

WAITS_FOR: Final[dict[Durability, Literal["nothing", "write", "sync", "ship"]]] = {
    "queued": "nothing",
    "written": "write",
    "synced": "sync",
    "shipped": "ship",
}
"""What an acknowledgement waits for.  All that depends on a level asks here, never its name.

Their order is that of their numbers on disk, from 1: a new one comes last.
"""

_LEVELS: Final[tuple[Durability | None, ...]] = (None, *WAITS_FOR)
"""By their number in the upper half of the pid's cell; 0 in files that older versions wrote."""


@cache
def boot_hash() -> int:
    """Hash the kernel's boot id, which changes at every start of the machine (0: unknown)."""
    import hashlib  # before the file is opened: a writer has it then, also when it seals

    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:  # not Linux
        return 0
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


@dataclass(frozen=True, slots=True)
class LiveCounters:
    """What a live file says.  ``valid`` is false when it is not one (foreign, short, garbled)."""

    valid: bool
    boot: int = 0
    pid: int = 0
    accepted: int = 0
    written: int = 0
    synced: int = 0
    oldest_in_flight: int = 0
    recoverer: int = 0
    durability: Durability | None = None  # not on record


class LiveFile:
    """The counters of one living writer; ``cells`` is what the hot path stores into.

    Created under a temporary name, written out in full (a store into a hole on a full disk is
    SIGBUS), locked, and only then renamed in: nobody ever sees it unlocked while we live.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: Path,
        writer: str,
        *,
        first: int = 1,
        durability: Durability | None = None,
    ) -> None:
        self._fs = fs
        self.path = directory / LIVE / live_name(writer)
        temporary = self.path.with_suffix(".new")
        self._fd = create_file(temporary, os.O_RDWR)
        try:
            done = first - 1
            owner = os.getpid() | _LEVELS.index(durability) << 32
            image = struct.pack("=8Q", MAGIC, boot_hash(), owner, done, done, done, 0, 0)
            if os.write(self._fd, image) != SIZE:
                raise OSError(28, "no space left for the 64 bytes of a live file", str(temporary))
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # mmap keeps a duplicate of its descriptor, which would keep the lock alive in a forked
            # child; mapped from a descriptor of its own it does not.
            mapped = open_regular(temporary, os.O_RDWR)
            try:
                self._map = mmap.mmap(mapped, SIZE)
            finally:
                os.close(mapped)
            fs.rename(temporary, self.path)
            fs.sync_directory(self.path.parent)
        except BaseException:
            os.close(self._fd)
            for name in (temporary, self.path):
                with contextlib.suppress(OSError):
                    name.unlink()
            raise
        self.cells: memoryview = memoryview(self._map).cast("Q")

    def remove(self) -> None:
        """Unlink the file: the mark of a clean close.  Call after everything is sealed."""
        with contextlib.suppress(FileNotFoundError):  # the whole directory may be gone
            self._fs.unlink(self.path)
            self._fs.sync_directory(self.path.parent)
        self.release()

    def release(self) -> None:
        """Give up the lock and leave the file (an unclean end, or a forked child)."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def read_live(path: Path) -> LiveCounters:
    """Read the counters of any live file.  Raises ``OSError`` if it cannot be opened."""
    data = read_file(path)
    if len(data) != SIZE:
        return LiveCounters(valid=False)
    magic, boot, owner, accepted, written, synced, oldest, recoverer = struct.unpack("=8Q", data)
    if magic != MAGIC:
        return LiveCounters(valid=False)
    level, pid = owner >> 32, owner & 0xFFFFFFFF
    durability = _LEVELS[level] if level < len(_LEVELS) else None
    return LiveCounters(True, boot, pid, accepted, written, synced, oldest, recoverer, durability)


def for_copy(path: Path) -> bytes:
    """Return what a copy of a live file is to say, if the segments are copied after this.

    Of a writer that lives, a copy answers for what had been written by now, and no more: what is
    accepted and not written yet is no part of it.  Everything up to there is settled, or is in
    flight from ``oldest`` on, which is read after ``written``: a call that began in between has a
    number above it.  What a dead writer left, or what is no live file, is copied unchanged.

    Raises:
        OSError: it cannot be read.
    """
    alive = is_locked(path)
    before, data = read_live(path), read_file(path)
    if not before.valid or len(data) != SIZE:
        return data
    magic, boot, owner, *counts, oldest, recoverer = struct.unpack("=8Q", data)
    if alive and not recoverer:
        written = before.written
        counts = [written, written, min(before.synced, written)]
        oldest = min(oldest, written + 1) if oldest else written + 1
    return struct.pack("=8Q", magic, boot, owner, *counts, oldest, 0)


def contradictory(counters: LiveCounters) -> bool:
    """Whether no writer can have left these counters: nothing in them is believed.

    Of a living writer they may have been read in the middle of a change.
    """
    in_order = counters.synced <= counters.written <= counters.accepted <= _LARGEST
    return counters.valid and not in_order


def same_boot(counters: LiveCounters) -> bool:
    """Whether the machine has not restarted since: then the counters are exact."""
    return counters.boot != 0 and counters.boot == boot_hash()


def acked_until(counters: LiveCounters) -> int | None:
    """Return the number above which a dead writer acknowledged nothing that is missing now.

    ``None``: not on record.  See docs/FORMAT.md, "The live file", for the table.
    """
    if not counters.valid or counters.durability is None:
        return None
    waited_for = WAITS_FOR[counters.durability]
    if waited_for != "nothing":
        if same_boot(counters):
            return counters.written
        if waited_for in ("sync", "ship"):  # only what is synced is shipped
            return counters.synced
    return max(counters.accepted, counters.written)


def lock(path: Path) -> int | None:
    """Take a dead writer's lock; return the descriptor that holds it, or ``None`` if it is held."""
    return _flock(open_regular(path, os.O_RDWR))


def mark_recovery(fd: int, pid: int) -> None:
    """Say in a dead writer's file, by the descriptor of its lock, who is recovering it (0: nobody).

    Without that, the lock that is held would make it look alive.  A file that is not valid is
    evidence and is left as it is.  Raises ``OSError``.
    """
    image = os.pread(fd, SIZE + 1, 0)
    if len(image) != SIZE:
        return
    magic, *_, before = struct.unpack("=8Q", image)
    if magic == MAGIC and before < 2**32:
        os.pwrite(fd, struct.pack("=Q", pid), SIZE - 8)


def lock_directory(path: Path, *, shared: bool = False) -> int | None:
    """Lock a directory for this process; return the descriptor, or ``None`` if it is locked.

    A ``shared`` lock keeps out those that want it alone, and nobody else.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    return _flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def _flock(fd: int, kind: int | None = None) -> int | None:
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if kind is None else kind) | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def unlock(fd: int) -> None:
    """Give a lock back, also if a child that was forked meanwhile holds the descriptor too."""
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def is_locked(path: Path) -> bool:
    """Whether the owner lives.  Probes with a shared lock that is given back at once."""
    if not _LOCKS:
        return False  # nobody can have locked it
    fd = open_regular(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def lives(root: Path, writer: str) -> bool:
    """Whether the process of a writer lives, and has not closed it; not if nobody can look."""
    try:
        return is_locked(root / LIVE / live_name(writer))
    except OSError:
        return False
