"""Who is woken and in what order: acknowledgements by number, room first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runs import turns

from litellm_ledger._runtime.waiters import Acks, Room


class Hall:
    """A room of ``size`` places with a log of who came in."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.inside: list[int] = []
        self.log: list[int] = []
        self.most = 0
        self.room = Room(lambda: self.size - len(self.inside))
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def enter(self, who: int) -> None:
        await self.room.enter(asyncio.get_running_loop())
        self.come_in(who)

    def come_in(self, who: int) -> None:
        self.inside.append(who)
        self.log.append(who)
        self.most = max(self.most, len(self.inside))

    def ask(self, who: int) -> None:
        self.tasks[who] = asyncio.create_task(self.enter(who))

    def leave(self, count: int = 1) -> None:
        del self.inside[:count]
        self.room.admit()


async def full(*waiting: int) -> Hall:
    """A hall for one, with 0 inside and the others in line."""
    hall = Hall(1)
    await hall.enter(0)
    for who in waiting:
        hall.ask(who)
    await turns()
    return hall


# -- room ------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_who_finds_room_does_not_wait() -> None:
    hall = Hall(2)
    await hall.enter(1)
    assert hall.room.at_once()
    await hall.enter(2)
    assert not hall.room.at_once()
    assert len(hall.room) == 0


@pytest.mark.asyncio
async def test_nobody_slips_in_between_a_grant_and_its_use() -> None:
    hall = await full(1)
    hall.leave()  # granted to 1, which has not run yet
    assert not hall.room.at_once()
    await turns()
    assert hall.log == [0, 1]


@pytest.mark.asyncio
async def test_nobody_overtakes_those_who_wait_even_when_there_is_room() -> None:
    hall = await full(1)
    hall.inside.clear()  # room, and nobody has been told yet
    assert not hall.room.at_once()
    hall.ask(2)
    await turns()
    hall.room.admit()
    await turns()
    assert hall.log == [0, 1]


@pytest.mark.asyncio
async def test_a_cancelled_waiter_is_passed_over_and_counted_no_more() -> None:
    hall = await full(1, 2, 3)
    hall.tasks[2].cancel()
    await turns()
    assert len(hall.room) == 2
    for _ in range(2):
        hall.leave()
        await turns()
    assert hall.log == [0, 1, 3]


@pytest.mark.asyncio
async def test_cancelled_with_the_place_in_hand_it_goes_to_the_next_in_line() -> None:
    hall = await full(1, 2)
    hall.leave()
    hall.tasks[1].cancel()  # granted in this very turn, not used yet
    await turns()
    assert hall.tasks[1].cancelled()
    assert hall.log == [0, 2]


@pytest.mark.asyncio
async def test_everybody_cancelled_with_the_place_in_hand_leaves_the_room_free() -> None:
    hall = await full(1, 2, 3)
    hall.leave()
    for who in (1, 2, 3):
        hall.tasks[who].cancel()
    await turns()
    assert len(hall.room) == 0
    assert hall.room.at_once()
    await hall.enter(4)
    assert hall.log == [0, 4]


@pytest.mark.asyncio
async def test_fail_turns_everybody_away() -> None:
    hall = await full(1, 2)
    hall.room.fail(ValueError("dead"))
    ends = await asyncio.gather(hall.tasks[1], hall.tasks[2], return_exceptions=True)
    assert [str(end) for end in ends] == ["dead", "dead"]
    assert len(hall.room) == 0


@pytest.mark.asyncio
async def test_cancelled_and_turned_away_at_once_counts_nobody_twice() -> None:
    hall = await full(1)
    hall.room.fail(ValueError("dead"))
    hall.tasks[1].cancel()
    await turns()
    hall.leave()
    assert hall.room.at_once()


def test_waking_somebody_whose_loop_is_closed_is_quiet() -> None:
    loop = asyncio.new_event_loop()
    acks = Acks()
    room = Room(lambda: 0)

    async def wait() -> None:
        await asyncio.wait({acks.wait_for(1, loop)})

    async def enter() -> None:
        await room.enter(loop)

    tasks = [loop.create_task(wait()), loop.create_task(enter())]
    loop.run_until_complete(turns())
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    acks.passes(1)
    room.fail(ValueError())
    assert len(room) == 0
    for task in tasks:
        task.get_coro().close()  # type: ignore[union-attr]


STEP = st.one_of(
    st.tuples(st.just("ask"), st.just(0)),
    st.tuples(st.just("try"), st.just(0)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("leave"), st.integers(1, 4)),
    st.tuples(st.just("turn"), st.integers(0, 2)),
)


@settings(max_examples=300, deadline=None)
@given(size=st.integers(1, 4), steps=st.lists(STEP, max_size=60))
def test_room_against_a_plain_line_of_people(size: int, steps: list[tuple[str, int]]) -> None:
    """Any order of asking, cancelling and leaving: in order, never too many, nobody forgotten."""
    _run(_room_run(size, steps))


async def _room_run(size: int, steps: list[tuple[str, int]]) -> None:
    hall = Hall(size)
    asked: list[int] = []
    cancelled: set[int] = set()
    for who, (step, number) in enumerate(steps):
        if step == "ask":
            asked.append(who)
            hall.ask(who)
        elif step == "try":
            waiting = len(hall.room)
            if hall.room.at_once():
                assert not waiting, "overtook somebody who waits"
                hall.come_in(who)
                asked.append(who)
        elif step == "cancel" and asked:
            victim = asked[number % len(asked)]
            if victim in hall.tasks and hall.tasks[victim].cancel():
                cancelled.add(victim)
        elif step == "leave":
            hall.leave(number)
        await turns(number if step == "turn" else 0)
        assert len(hall.inside) <= size
    await turns(8)
    while hall.inside or len(hall.room):
        assert hall.inside, "somebody waits before an empty room"
        hall.leave(size)
        await turns(8)
    assert sorted(hall.log) == sorted(set(asked) - cancelled)
    # Those who were let in at once (`try`) may come before an `ask` that had not run yet.
    waited = [who for who in hall.log if who in hall.tasks]
    assert waited == sorted(waited)
    assert hall.most <= size
    assert hall.room.at_once()


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(coroutine)
    finally:
        loop.close()


# -- acknowledgements ------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_numbers_come_due_in_order_and_not_before() -> None:
    acks, loop = Acks(), asyncio.get_running_loop()
    order: list[int] = []
    for number in range(1, 7):
        acks.wait_for(number, loop).add_done_callback(lambda _, n=number: order.append(n))
    acks.passes(4)
    await turns()
    assert order == [1, 2, 3, 4]
    acks.passes(6)
    await turns()
    assert order == [1, 2, 3, 4, 5, 6]


@pytest.mark.asyncio
async def test_each_waits_as_long_as_it_said_in_any_order() -> None:
    acks, loop = Acks(), asyncio.get_running_loop()
    patient, hasty = acks.wait_for(1, loop, 60), acks.wait_for(2, loop, 0.01)
    await asyncio.wait_for(hasty, 10)
    assert not patient.done()
    acks.passes(1)
    assert patient.done()


@pytest.mark.asyncio
async def test_fail_reaches_everybody_and_only_once() -> None:
    acks, loop = Acks(), asyncio.get_running_loop()
    futures = [acks.wait_for(number, loop) for number in (1, 2, 3)]
    futures[0].cancel()
    acks.fail(ValueError("dead"))
    acks.fail(ValueError("again"))
    assert [str(future.exception()) for future in futures[1:]] == ["dead", "dead"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.tuples(st.booleans(), st.integers(1, 20)), st.integers(0, 20))),
)
def test_acks_against_a_plain_counter(steps: list[tuple[bool, int] | int]) -> None:
    async def run() -> None:
        acks, loop, passed = Acks(), asyncio.get_running_loop(), 0
        waiting: list[tuple[int, asyncio.Future[None]]] = []
        for step in steps:
            if isinstance(step, int):
                passed = max(passed, step)
                acks.passes(step)
            else:
                cancel, number = step
                future = acks.wait_for(number, loop)
                if cancel:
                    future.cancel()
                else:
                    waiting.append((number, future))
            assert acks.passed == passed, "numbers never go down"
            for number, future in waiting:
                assert future.done() == (number <= passed)

    _run(run())
