"""A disk that fails at every single call of a tracker's life, and one that is really full.

Whatever fails, calls go on or are refused aloud, nothing that was acknowledged is lost, and the
next opening finds nothing doubled.  The full disk is the kernel's: a limit on the size of files, at
which ``write`` returns a short count first and an error afterwards, lifted in mid-run.
"""

from __future__ import annotations

import asyncio
import errno
import signal
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from tests.children import Child
from tests.disks import QUICK
from tests.runs import assert_closed, keys, usage
from tests.tally import Tally

from litellm_ledger import DrainTimeout, Ledger, LedgerPathError, UsageTracker
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._storage.segment import SegmentLog
from litellm_ledger._writing import backlog as _backlog
from litellm_ledger.testing import FaultyFileSystem

OPERATIONS = ("create", "write", "sync", "links", "rename", "sync_directory", "close", "unlink")
RECORDS = 8


async def life(path: Path, disk: FaultyFileSystem, durability: str) -> set[str]:
    """Open, record one by one and several at once, close; return what was acknowledged."""
    acked = set()
    tracker = UsageTracker(path, fs=disk, durability=durability, handle_signals=False)  # type: ignore[arg-type]

    async def record(number: int) -> None:
        await tracker.record(usage(number))
        acked.add(str(number))

    try:
        await tracker.open()
    except LedgerPathError:
        return acked
    for number in range(RECORDS // 2):
        await record(number)
    await asyncio.gather(*[record(number) for number in range(RECORDS // 2, RECORDS)])
    try:
        await tracker.aclose(1.0)
    except DrainTimeout:
        assert durability == "synced"
    return acked


@pytest.mark.parametrize("durability", ["written", "synced"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_any_single_call_of_a_life_may_fail(
    tmp_path: Path, operation: str, durability: str, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    small = partial(SegmentLog, rotate_bytes=900)  # a few records
    monkeypatch.setattr(_backlog, "SegmentLog", small)
    nth = 0
    struck = True
    while struck:
        nth += 1
        path = tmp_path / str(nth)
        disk = FaultyFileSystem(QUICK)
        disk.fail(operation, nth=nth, error=errno.EIO)  # type: ignore[arg-type]
        acked = asyncio.run(life(path, disk, durability))
        struck = disk.count(operation) >= nth  # type: ignore[arg-type]
        assert len(acked) == RECORDS or (struck and not acked), "opening was refused, no more"
        if not acked:
            continue
        there = keys(path)
        tally("one call of the disk fails", tried=1, promised=len(acked), lost=0)
        assert acked == set(there), f"{operation} {nth}"
        recover(path, fs=QUICK)
        assert sorted(keys(path), key=str) == sorted(acked), f"{operation} {nth}"
        assert Ledger(path).verify().ok, f"{operation} {nth}"
    assert nth > 1, "it was never called"
    assert_closed(path)


FULL = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def room(bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, resource.RLIM_INFINITY))
async def work(tracker, name):
    for number in range(100):
        await tracker.record(usage(f"{name}-{number}"))
        say("ack", f"{name}-{number}")
async def main():
    async with UsageTracker(PATH, durability=LEVEL, queue_size=20) as tracker:
        await tracker.record(usage("first"))
        say("ack first")
        room(FREE)
        working = asyncio.gather(*[work(tracker, name) for name in range(8)])
        while tracker.statistics().retries < 4:
            await asyncio.sleep(0.005)
        assert tracker.statistics().queue_depth <= 20
        assert not working.done()
        say("full")
        if KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        room(resource.RLIM_INFINITY)
        await working
run(main())
"""


FEW = {("written", 999, False), ("synced", 2_000, True), ("written", 20_000, True)}
"""Each level, each room and each end once; the rest is in ``make matrix``."""
FULL_RUNS = [
    pytest.param(*run, marks=() if run in FEW else pytest.mark.matrix)
    for run in product(("written", "synced"), (0, 999, 2_000, 20_000), (False, True))
]


@pytest.mark.parametrize(("level", "free", "kill"), FULL_RUNS)
def test_a_disk_that_is_really_full_and_then_has_space_again(
    tmp_path: Path, level: str, free: int, kill: bool, tally: Tally
) -> None:
    settings = f"LEVEL, FREE, KILL = {level!r}, {free}, {kill}\n"
    loop = "uvloop" if free == 2_000 else "asyncio"
    with Child(settings + FULL, tmp_path, loop=loop) as child:
        child.expect("full")
        assert child.end() == (-signal.SIGKILL if kill else 0), child.stderr
    acked, there = child.acked, set(keys(tmp_path))
    tally("a full disk", tried=1, promised=len(acked), lost=len(acked - there))
    assert acked <= there
    if kill:
        recover(tmp_path)
        assert set(keys(tmp_path)) == there
    else:
        assert len(acked) == len(there) == 801
        assert_closed(tmp_path)
