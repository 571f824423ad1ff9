"""Slots are handed out in order and never lost; a deadline cuts, and only what it should."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import pytest
from tests.runs import turns

from litellm_ledger import LedgerClosed
from litellm_ledger._runtime.limits import Deadline, Limit, Slot

pytestmark = pytest.mark.asyncio


class Line:
    """Tasks that take a slot each and note the order."""

    def __init__(self, most: int | None) -> None:
        self.limit = Limit(most)
        self.slots: dict[int, Slot] = {}

    async def enter(self, who: int) -> None:
        self.slots[who] = await self.limit.enter()

    async def join(self, *numbers: int) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self.enter(who)) for who in numbers]
        await turns()
        return tasks


async def test_first_come_first_served() -> None:
    line = Line(2)
    await line.join(*range(6))
    assert (list(line.slots), line.limit.active, line.limit.waiting) == ([0, 1], 2, 4)
    for who in range(6):
        line.slots[who].release()
        await turns()
    assert list(line.slots) == list(range(6))
    assert (line.limit.active, line.limit.waiting) == (0, 0)


async def test_a_newcomer_does_not_overtake_one_who_was_let_in() -> None:
    line = Line(1)
    await line.join(0, 1)
    line.slots[0].release()  # 1 is let in, and has not run yet
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await line.enter(2)
    assert (list(line.slots), line.limit.active) == ([0, 1], 1)
    line.slots[1].release()
    await line.enter(2)
    assert list(line.slots) == [0, 1, 2]


async def test_a_slot_is_released_once() -> None:
    line = Line(1)
    await line.join(0, 1, 2)
    for _ in range(3):
        line.slots[0].release()
    await turns()
    assert (list(line.slots), line.limit.active) == ([0, 1], 1)


async def test_without_a_limit_it_only_counts() -> None:
    line = Line(None)
    await line.join(*range(100))
    assert (line.limit.active, line.limit.waiting, line.limit.most) == (100, 0, None)


async def test_closing_turns_away_who_waits_and_who_comes() -> None:
    line = Line(1)
    tasks = await line.join(0, 1, 2)
    line.limit.close(lambda: LedgerClosed("closed"))
    for task in tasks[1:]:
        with pytest.raises(LedgerClosed, match="closed"):
            await task
    line.slots[0].release()
    with pytest.raises(LedgerClosed):
        await line.limit.enter()
    assert line.limit.active == 0


@pytest.mark.parametrize("seed", range(20))
async def test_never_too_many_and_never_one_lost(seed: int) -> None:
    dice = random.Random(seed)
    limit = Limit(3)
    most = 0

    async def caller() -> None:
        nonlocal most
        slot = await limit.enter()
        try:
            most = max(most, limit.active)
            await turns(dice.randrange(4))
        finally:
            slot.release()

    tasks = [asyncio.create_task(caller()) for _ in range(100)]
    while not all(task.done() for task in tasks):
        dice.choice(tasks).cancel()
        await turns(dice.randrange(3))
    assert most == 3
    assert (limit.active, limit.waiting) == (0, 0)


@pytest.mark.parametrize("most", [0, -1, True, 1.5, "3"])
async def test_a_limit_that_is_none(most: Any) -> None:
    with pytest.raises(ValueError, match="max_concurrency must be a whole number above 0"):
        Limit(most)


async def test_a_task_that_waits_for_itself_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "litellm_ledger")
    limit = Limit(2)
    held = [await limit.enter() for _ in range(2)]

    async def another() -> None:
        (await limit.enter()).release()

    other = asyncio.create_task(another())
    await turns()
    assert caplog.messages == []  # somebody else may well end it
    other.cancel()
    await turns()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await limit.enter()
    assert len(caplog.messages) == 1
    assert "max_concurrency=2" in caplog.messages[0]
    assert (limit.active, limit.waiting) == (len(held), 0)


# --- Deadline --------------------------------------------------------------------------------


class Late(Exception):
    pass


def late() -> Exception:
    return Late("late")


async def test_cuts_what_takes_too_long() -> None:
    deadline = Deadline(0.01, late)
    ended = []

    async def inside() -> None:
        async with deadline.enforced():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(deadline.struck)
                await asyncio.sleep(0.01)  # what is cut may end in peace
                ended.append(True)

    with pytest.raises(Late):
        await inside()
    assert ended == [True, True]
    assert deadline.left < 0


async def test_leaves_in_peace_what_is_in_time() -> None:
    deadline = Deadline(0.02, late)
    async with deadline.enforced():
        deadline.met()
        await asyncio.sleep(0.04)
    assert not deadline.struck
    with pytest.raises(Late):  # what comes afterwards is measured again
        async with deadline.enforced():
            await asyncio.Event().wait()


async def test_somebody_elses_time_out_passes() -> None:
    deadline = Deadline(60, late)
    with pytest.raises(TimeoutError):
        async with deadline.enforced():
            raise TimeoutError
    assert 59 < deadline.left <= 60


async def test_a_cancellation_is_no_time_out() -> None:
    deadline = Deadline(60, late)

    async def inside() -> None:
        async with deadline.enforced():
            await asyncio.Event().wait()

    task = asyncio.create_task(inside())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not deadline.struck


async def test_met_too_late_changes_nothing() -> None:
    deadline = Deadline(0.01, late)

    async def inside() -> None:
        async with deadline.enforced():
            try:
                await asyncio.Event().wait()
            finally:
                deadline.met()

    with pytest.raises(Late):
        await inside()
