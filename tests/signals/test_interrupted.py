"""A signal handler that raises, wherever it strikes, and a program that catches that and goes on.

Ctrl-C in a notebook, say, or SIGALRM for a time-out.  What is struck may be asyncio itself, whose
task then sleeps for ever (docs/GUARANTEES.md); so a program closes and opens again when a flush
does not come back, and ends without the end of the loop.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.children import run
from tests.runs import assert_verified, keys

STRUCK = """
import random
from litellm_ledger import DrainTimeout, FlushTimeout

class Interrupt(BaseException):
    pass

def interrupt(*_):
    raise Interrupt

def interrupted(tracker, number, seen):
    # Record, as far as it comes without a turn of the loop.
    recording = tracker.record(usage(number))
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 4e-5))
            recording.send(None)
        except StopIteration:
            seen.append(number)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupt:
        return True
    finally:
        recording.close()
    return False

async def main():
    signal.signal(signal.SIGALRM, interrupt)
    seen, strikes, number = [], 0, 0
    start = time.monotonic()
    def going_on():  # three seconds, and until it was struck often enough, on any machine
        spent = time.monotonic() - start
        return spent < 3 or (strikes <= 100 and spent < 40)
    while going_on():
        tracker = UsageTracker(PATH, handle_signals=False)
        await tracker.open()
        awake = True
        while awake and going_on():
            number += 1
            strikes += interrupted(tracker, number, seen)
            try:
                await tracker.flush(0.3)
            except FlushTimeout:
                awake = False
        began = time.monotonic()
        try:
            await tracker.aclose(0.5)
        except DrainTimeout:
            pass
        assert time.monotonic() - began < 5, "the close hung"
    say("strikes", strikes)
    say("seen", *seen)
    os._exit(0)

run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_handlers_that_raise_at_random_lose_and_double_nothing(tmp_path: Path, loop: str) -> None:
    strikes, seen = (line.split()[1:] for line in run(STRUCK, tmp_path, loop=loop).said)
    assert int(strikes[0]) > 100
    found = keys(tmp_path)
    assert len(found) == len(set(found))
    assert set(seen) <= set(found)
    assert_verified(tmp_path)


ASLEEP = """
class Interrupt(BaseException):
    pass

def interrupt(*_, **__):
    raise Interrupt

async def main():
    loop = asyncio.get_running_loop()
    async with UsageTracker(PATH, drain_timeout=1) as tracker:
        await tracker.record(usage("before"))
        call_soon, loop.call_soon = loop.call_soon, interrupt
        try:
            tracker.record_nowait(usage("asleep"))
        except Interrupt:
            say("struck")
        loop.call_soon = call_soon
        tracker.record_nowait(usage("after"))
    say("closed")

run(main())
"""


def test_a_task_that_nobody_can_wake_holds_up_neither_the_close_nor_the_end(
    tmp_path: Path,
) -> None:
    child = run(ASLEEP, tmp_path)
    assert child.said == ["struck", "closed"]
    assert keys(tmp_path) == ["before", "asleep", "after"]
    assert_verified(tmp_path)
