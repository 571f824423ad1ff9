"""Processes in one directory, killed at random and begun again, while another one reads.

Every new process recovers what the dead have left; the reader verifies and counts all the while.
It may see a dead writer's loss, which is counted, but never damage, and never a record less than
before.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.children import Child
from tests.tally import Tally

from litellm_ledger import Ledger
from litellm_ledger._maintenance.recover import recover

ROOT = Path(__file__).parents[2]

WORK = """
async def work(tracker, name):
    for number in range(1_000_000):
        key = f"{NAME}-{name}-{number}"
        await tracker.record(usage(key))
        say("ack", key)
        await asyncio.sleep(0.02)  # eight of us share the machine with the reader
async def main():
    async with UsageTracker(PATH, durability=LEVEL) as tracker:
        say("ready")
        await asyncio.gather(*[work(tracker, name) for name in range(3)])
run(main())
"""


def begin(path: Path, name: int) -> Child:
    level = ("written", "synced")[name // 2 % 2]
    settings = f"NAME, LEVEL = {name}, {level!r}\n"
    return Child(settings + WORK, path, loop=("asyncio", "uvloop")[name % 2])


def check(path: Path, processes: int, kills: int, seed: int, tally: Tally) -> None:
    dice = random.Random(seed)
    ledger = Ledger(path)
    every: list[Child] = []
    seen = 0
    with ExitStack() as stack:

        def begun(name: int) -> Child:
            every.append(stack.enter_context(begin(path, name)))
            return every[-1]

        children = [begun(name) for name in range(processes)]
        for child in children:
            child.expect("ready")
        for round_ in range(kills):
            at = dice.randrange(processes)
            children[at].kill()
            assert children[at].end() == -signal.SIGKILL
            children[at] = begun(processes + round_)
            for writer in ledger.verify().writers:
                assert not writer.problems, writer
                assert not writer.quarantined, writer
            found = sum(1 for _ in ledger.records())
            assert found >= seen, "records that were there are gone"
            seen = found
            children[at].expect("ready")
            time.sleep(dice.random() * 0.05)  # so that the next one is struck at some other point
        for child in children:
            child.kill()
            child.end()
    acked = {key for child in every for key in child.acked}
    there = [record.call_id for record in ledger.records()]
    lost = acked - set(there)
    tally("many processes, one killed", tried=kills, promised=len(acked), lost=len(lost))
    assert not lost
    recover(path)
    after = [record.call_id for record in ledger.records()]
    assert sorted(after, key=str) == sorted(there, key=str)
    assert len(after) == len(set(after))
    assert {writer.state for writer in ledger.verify().writers} <= {"recovered", "closed"}


def test_eight_processes_killed_at_random_while_a_ninth_reads(tmp_path: Path, tally: Tally) -> None:
    check(tmp_path, 8, 8, 0, tally)


PYTHONS = [Path(sys.executable), *sorted(ROOT.glob(".venv-3.*/bin/python"))]
"""This interpreter, and those that ``make test-all`` has set up."""

LIFE = """
import asyncio, os, sys
from litellm_ledger import UsageRecord, UsageTracker
async def main():
    async with UsageTracker(sys.argv[1], handle_signals=False) as tracker:
        for number in range(200):
            await tracker.record(UsageRecord(call_id=f"{sys.argv[3]}-{number}"))
        for number in range(50):
            tracker.record_nowait(UsageRecord(call_id=f"{sys.argv[3]}-late-{number}"))
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), 9)
asyncio.run(main())
"""
READ = """
import sys
from pathlib import Path
from litellm_ledger import Ledger
from litellm_ledger._maintenance.recover import recover
recover(Path(sys.argv[1]))
found = Ledger(sys.argv[1]).verify()
print(found.total("found"), found.total("lost"), len(list(Ledger(sys.argv[1]).records())))
"""


def test_interpreters_of_different_versions_share_a_ledger(tmp_path: Path) -> None:
    lives = [
        subprocess.Popen([python, "-c", LIFE, str(tmp_path), end, f"{number}-{end}"])
        for number, python in enumerate(PYTHONS)
        for end in ("closed", "killed")
    ]
    for process in lives:
        process.wait()
    pairs = len(PYTHONS)
    for python in PYTHONS:
        said = subprocess.check_output([python, "-c", READ, str(tmp_path)], text=True)
        assert [int(word) for word in said.split()] == [450 * pairs, 50 * pairs, 450 * pairs]


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(1, 5))
def test_eight_processes_killed_very_often(tmp_path: Path, seed: int, tally: Tally) -> None:
    check(tmp_path, 8, 40, seed, tally)
