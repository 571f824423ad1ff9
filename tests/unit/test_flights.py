"""Single flight, without anything that flies: who ends a task that several wait for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from litellm_ledger._cache.caching import Flight, Flights

pytestmark = pytest.mark.asyncio


class Work:
    """What a flight does: waits until it is let go, or cancelled."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        self.cancelled = False

    async def run(self) -> str:
        try:
            await self.leave.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "landed"


async def waiting(flights: Flights, flight: Flight, count: int) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(flights.wait(flight)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_a_flight_is_found_until_it_has_ended() -> None:
    flights, work = Flights(), Work()
    assert flights.find("k") is None
    flight = flights.launch("k", work.run())
    assert flights.find("k") is flight
    assert flights.find("other") is None
    work.leave.set()
    await flights.wait(flight)
    assert flights.find("k") is None
    assert flight.task.result() == "landed"


async def test_only_the_last_who_leaves_ends_it() -> None:
    flights, work = Flights(), Work()
    flight = flights.launch("k", work.run())
    tasks = await waiting(flights, flight, 3)
    for task in tasks[:2]:
        task.cancel()
        await asyncio.wait({task})
        assert not work.cancelled
    tasks[2].cancel()
    await asyncio.wait({tasks[2]})
    assert tasks[2].cancelled()
    assert work.cancelled
    assert flights.find("k") is None


async def test_a_flight_that_is_being_cancelled_is_not_found() -> None:
    flights, cleaned = Flights(), asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await cleaned.wait()

    flight = flights.launch("k", slow_to_end())
    (task,) = await waiting(flights, flight, 1)
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not flight.task.done()
    assert not task.done()  # it waits until the request is on record
    assert flights.find("k") is None
    cleaned.set()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_a_waiter_that_is_collected_leaves_as_if_cancelled() -> None:
    flights, work = Flights(), Work()
    flight = flights.launch("k", work.run())
    await asyncio.sleep(0)
    waiter = flights.wait(flight)
    waiter.send(None)
    waiter.close()
    await asyncio.wait({flight.task})
    assert work.cancelled


async def test_a_failure_that_nobody_looks_at_is_no_complaint() -> None:
    flights = Flights()

    async def fail() -> None:
        raise ValueError("no")

    flight = flights.launch("k", fail())
    await flights.wait(flight)
    assert flights.find("k") is None
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, said: complaints.append(said))
    del flight
    await asyncio.sleep(0)
    assert complaints == []
