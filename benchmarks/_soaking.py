"""The programs of the soak: a steady writer that meets faults and reopens, and some to be killed.

    steady DIRECTORY RECORDS CYCLE SECONDS SEED      one JSON line a cycle
    victim DIRECTORY BOARD PREFIX                    until it is killed

Each numbers its records from 0, in ``call_id``.  How many of them are acknowledged is in what the
steady writer says, and on a board of the other's, shared memory that outlives it.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import mmap
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import structs

from litellm_ledger import UsageRecord, UsageTracker
from litellm_ledger.testing import FaultyFileSystem

from ._work import BATCH, made

__all__ = ["CHUNK"]

CHUNK: Final = 5_000
"""Records between two flushes of the steady writer."""

_FAULTS: Final[dict[str, Callable[[FaultyFileSystem], object]]] = {
    "a write fails": lambda fs: fs.fail("write"),
    "no space for three writes": lambda fs: fs.fail("write", times=3, error=errno.ENOSPC),
    "a write is cut short, then no space": lambda fs: fs.fill(1_000_001),
    "short writes": lambda fs: setattr(fs, "largest_write", 10_007),
    "a sync fails": lambda fs: fs.fail("sync"),
    "a new segment cannot be created": lambda fs: (fs.fail("sync"), fs.fail("create")),
}
_A_CYCLE: Final = 5
"""Faults in each cycle."""


def numbered(record: UsageRecord, call_id: str) -> UsageRecord:
    """Copy a record that is known to be valid: checking it again takes longer than writing it."""
    record = record.__copy__()
    structs.force_setattr(record, "call_id", call_id)
    return record


def resident() -> int:
    """Return the resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def steady(directory: Path, records: int, cycle: int, seconds: float, seed: int) -> None:
    """Write records, a cycle between two openings; begin no cycle after ``seconds``."""
    chance = random.Random(seed)
    one = made(0)
    until = time.monotonic() + seconds
    done = number = 0
    while done < records and time.monotonic() < until:
        number += 1
        fs = FaultyFileSystem()
        faults: dict[str, int] = {}
        peak = 0
        began = time.monotonic()
        ends = min(records, done + cycle)
        durability = "synced" if number % 2 else "written"
        async with UsageTracker(
            directory, durability=durability, queue_size=2 * CHUNK, drain_timeout=60, fs=fs
        ) as tracker:
            starts = range(done, ends, CHUNK)
            struck = set(chance.sample(starts, min(_A_CYCLE, len(starts))))
            for start in starts:
                if start in struck:
                    name = chance.choice([*_FAULTS])
                    _FAULTS[name](fs)
                    faults[name] = faults.get(name, 0) + 1
                for n in range(start, min(start + CHUNK, ends)):
                    tracker.record_nowait(numbered(one, f"s-{n}"))
                if start in struck:
                    # Long enough for a few attempts; then the disk is well again.
                    asyncio.get_running_loop().call_later(0.1, fs.heal)
                await tracker.flush()
                peak = max(peak, resident())
                fs.calls.clear()  # it notes them for tests
            retries = tracker.statistics().retries
        done = ends
        gc.collect()
        said = {
            "done": done,
            "seconds": time.monotonic() - began,
            "faults": faults,
            "retries": retries,
            "peak": peak,
            "resident": resident(),
            "blocks": sys.getallocatedblocks(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
        }
        os.write(1, (json.dumps(said) + "\n").encode())


async def victim(directory: Path, board: Path, prefix: str) -> None:
    """Write and count what is acknowledged, until somebody kills us."""
    with board.open("r+b") as file:
        count = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
    one = made(0)
    async with UsageTracker(directory) as tracker:
        n = 0
        while True:
            for _ in range(BATCH):
                tracker.record_nowait(numbered(one, f"{prefix}-{n}"))
                n += 1
            await tracker.flush()
            count[0] = n


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "steady":
        count, cycle, seconds, seed = rest
        asyncio.run(steady(Path(where), int(count), int(cycle), float(seconds), int(seed)))
    else:
        asyncio.run(victim(Path(where), Path(rest[0]), rest[1]))
