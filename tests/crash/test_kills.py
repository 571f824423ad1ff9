"""SIGKILL at random moments: everything that was acknowledged is on the ledger.

A child prints ``ack <key>`` after each acknowledgement; the parent kills it.  The sabotaged child
at the end acknowledges before it writes, and the same check must catch it.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from tests.children import Child
from tests.ledgers import assert_finished
from tests.runs import keys
from tests.tally import Tally

from litellm_ledger import Ledger
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._records.layout import LIVE, SEGMENTS, SegmentName

WORK = """
async def work(tracker, name):
    number = 0
    while True:
        number += 1
        key = f"{name}-{number}"
        await tracker.record(usage(key))
        say("ack", key)
        await asyncio.sleep(0)

async def main():
    async with UsageTracker(PATH, durability=DURABILITY, fs=DISK, queue_size=50) as tracker:
        say("ready")
        await asyncio.gather(*[work(tracker, name) for name in range(TASKS)])
"""

ACK_BEFORE_WRITE = """
from litellm_ledger._writing.admission import Admission
async def ack(self, record, timeout=None):
    return True
Admission.ack = ack
"""


def killed(path: Path, seed: int, *, sabotage: str = "", disk: str = "FileSystem()") -> set[str]:
    """Kill a writing child after a random number of acks; return what it had acknowledged."""
    dice = random.Random(seed)
    settings = (
        f"DURABILITY = {dice.choice(['written', 'synced'])!r}\n"
        f"TASKS = {dice.choice([1, 5, 40])}\nDISK = {disk}\n"
    )
    loop = dice.choice(["asyncio", "uvloop"])
    with Child(settings + sabotage + WORK + "run(main())", path, loop=loop) as child:
        child.expect("ready")
        for _ in range(dice.choice([1, 10, 100, 400]) + dice.randrange(50)):
            child.expect("ack")
        child.kill()
        assert child.end() == -signal.SIGKILL
    return child.acked


def check(path: Path, acked: set[str]) -> None:
    """Acked is on the ledger before and after recovery; then the ledger is whole again."""
    before = set(keys(path))
    assert acked <= before, f"{len(acked - before)} of {len(acked)} acknowledged records are lost"
    (dead,) = Ledger(path).verify().writers
    assert dead.state == "died"
    assert dead.proves == "exact"
    assert dead.found >= (dead.written or 0)
    assert (dead.unacknowledged, dead.ok) == (dead.lost, True), "no ack came before its write"
    recover(path)
    after = keys(path)
    assert before <= set(after) | {None}
    assert len(after) == len(set(after)), "a record twice"
    name = SegmentName.parse(next((path / SEGMENTS).iterdir()).name)
    assert name is not None
    assert_finished(path, name.writer)
    assert not list((path / LIVE).iterdir())
    assert dead.lost == dead.accepted - dead.found
    recovered = Ledger(path).verify()
    assert (recovered.total("lost"), recovered.total("unacknowledged")) == (dead.lost, dead.lost)
    assert recovered.ok


@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_a_random_moment_loses_nothing_acknowledged(tmp_path: Path, seed: int) -> None:
    check(tmp_path, killed(tmp_path, seed))


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(1_000, 1_000 + int(os.environ.get("MATRIX_KILLS", "3000"))))
def test_very_many_kills_lose_nothing_acknowledged(tmp_path: Path, seed: int, tally: Tally) -> None:
    acked = killed(tmp_path, seed)
    lost = len(acked - set(keys(tmp_path)))
    tally("SIGKILL at a random moment", tried=1, promised=len(acked), lost=lost)
    check(tmp_path, acked)


@pytest.mark.parametrize("seed", range(3))
def test_control_a_ledger_that_acknowledges_before_it_writes_is_caught(
    tmp_path: Path, seed: int
) -> None:
    acked = killed(tmp_path, seed, sabotage=ACK_BEFORE_WRITE, disk="SlowDisk()")
    with pytest.raises(AssertionError, match="acknowledged records are lost"):
        check(tmp_path, acked)


def test_calls_in_flight_when_the_process_is_killed_are_unsettled(tmp_path: Path) -> None:
    code = """
fake_litellm()
async def main():
    async with LiteLLMClient(PATH) as client:
        await asyncio.gather(*[client.acompletion(model="m", messages=[]) for _ in range(7)])
run(main())
"""
    with Child(code, tmp_path) as child:
        for _ in range(7):
            child.expect("called")
        child.kill()
        child.end()
    recover(tmp_path)
    assert [record.status for record in Ledger(tmp_path).records()] == ["unsettled"] * 7
    assert Ledger(tmp_path).verify().ok


@pytest.mark.parametrize("level", ["written", "synced"])
def test_what_waited_for_its_ack_when_the_process_was_killed_is_lost_and_no_failure(
    tmp_path: Path, level: str
) -> None:
    code = f"""
from litellm_ledger.testing import FaultyFileSystem

def die(hang):
    hang.entered.wait()
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    disk = FaultyFileSystem()
    tracker = UsageTracker(PATH, durability={level!r}, fs=disk, handle_signals=False)
    await tracker.open()
    for number in range(5):
        await tracker.record(usage(number))
    threading.Thread(target=die, args=(disk.hang("write"),)).start()
    await asyncio.gather(*[tracker.record(usage(5 + number)) for number in range(4)])
run(main())
"""
    with Child(code, tmp_path) as child:
        assert child.end() == -signal.SIGKILL, child.stderr
    dead = Ledger(tmp_path).verify()
    lost = dead.total("lost")
    assert (dead.total("found"), lost > 0) == (5, True)
    recover(tmp_path)
    for found in (dead, Ledger(tmp_path).verify()):
        assert (found.total("lost"), found.total("unacknowledged")) == (lost, lost)
        assert (found.ok, found.complete) == (True, False)


def test_what_was_only_queued_is_lost_and_counted_to_the_last(tmp_path: Path) -> None:
    code = """
async def main():
    async with UsageTracker(PATH, durability="queued", queue_size=100_000) as tracker:
        for number in range(100):
            tracker.record_nowait(usage(number))
        await tracker.flush()
        for number in range(5_000):
            tracker.record_nowait(usage(100 + number))
        os.kill(os.getpid(), signal.SIGKILL)
run(main())
"""
    with Child(code, tmp_path) as child:
        assert child.end() == -signal.SIGKILL
    (dead,) = Ledger(tmp_path).verify().writers
    assert (dead.accepted, dead.found, dead.lost) == (5_100, 100, 5_000)
    recover(tmp_path)
    (mended,) = Ledger(tmp_path).verify().writers
    assert mended.lost == 5_000
    for verdict in (dead, mended):
        assert (verdict.unacknowledged, verdict.undecided, verdict.ok) == (0, 0, False)
    assert keys(tmp_path) == [str(number) for number in range(100)]
