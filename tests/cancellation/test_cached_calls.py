"""Equal calls that share one request, cancelled and closed at every point: who gets what."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.fakes import FakeLiteLLM, Gate, install
from tests.runs import WAIT, assert_closed, assert_once, turns

from litellm_ledger import Ledger, LedgerClosed, LiteLLMClient, ResponseCache, UsageRecord
from litellm_ledger._cache import key as _cache_key
from litellm_ledger._cache.caching import Flights

CALL: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def answer() -> dict[str, Any]:
    """An answer of plain values, which can be kept."""
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    hidden = {"response_cost": 0.02, "custom_llm_provider": "openai"}
    return {"id": "answer-1", "model": "m", "usage": usage, "_hidden_params": hidden}


class Timeout(Exception):
    """As LiteLLM's, it is told which model was asked."""

    def __init__(self, message: str, model: str, llm_provider: str) -> None:
        super().__init__(message)
        self.model = model


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLiteLLM:
    fake = install(monkeypatch)
    fake.result = answer
    fake.Timeout = Timeout  # type: ignore[assignment,misc]
    fake.gate = Gate()
    monkeypatch.setattr(_cache_key._surroundings, "fingerprint", lambda litellm: b"")
    return fake


@pytest.fixture
def cache() -> ResponseCache:
    return ResponseCache()


@pytest_asyncio.fixture
async def client(
    tmp_path: Path, fake: FakeLiteLLM, cache: ResponseCache
) -> AsyncIterator[LiteLLMClient]:
    async with LiteLLMClient(tmp_path, handle_signals=False, cache=cache) as client:
        yield client
    assert_once(tmp_path)
    assert_closed(tmp_path)
    assert not client._parts.caching.flights._aloft


def outcomes(path: Path) -> list[UsageRecord]:
    return list(Ledger(path).records())


async def begun(client: Any, fake: FakeLiteLLM, count: int) -> list[asyncio.Task[Any]]:
    """A number of equal calls, of which the first has made the request and is waiting for it."""
    assert fake.gate is not None
    tasks = [asyncio.create_task(client.acompletion(**CALL, tags={"n": n})) for n in range(count)]
    async with asyncio.timeout(WAIT):
        await fake.gate.entered.wait()
    await turns(20)
    return tasks


def let_go(fake: FakeLiteLLM) -> None:
    assert fake.gate is not None
    fake.gate.leave.set()


async def results(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    await asyncio.wait(tasks, timeout=WAIT)
    return [task.exception() or task.result() for task in tasks if not task.cancelled()]


@pytest.mark.asyncio
async def test_the_first_caller_is_cancelled_and_the_others_get_their_answer(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    tasks = await begun(client, fake, 5)
    tasks[0].cancel()
    await turns()
    assert tasks[0].cancelled()
    let_go(fake)
    answers = await results(tasks[1:])
    assert [found["id"] for found in answers] == ["answer-1"] * 4
    assert fake.calls == 1
    records = outcomes(tmp_path)
    assert len(records) == 5
    (paid,) = [record for record in records if not record.cache_hit]
    assert (paid.status, paid.tags) == ("ok", {"n": "0"})  # it is on record of who began it
    assert {record.operation for record in records if record.cache_hit}.isdisjoint({paid.operation})
    assert Counter(record.cost for record in records)[paid.cost] == 1


@pytest.mark.asyncio
async def test_all_callers_are_cancelled_and_the_request_with_them(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path, cache: ResponseCache
) -> None:
    tasks = await begun(client, fake, 3)
    (flight,) = client._parts.caching.flights._aloft.values()
    for task in (tasks[1], tasks[0], tasks[2]):
        assert not flight.task.done()
        task.cancel()
        await asyncio.wait({task}, timeout=WAIT)
    assert all(task.cancelled() for task in tasks)
    (record,) = outcomes(tmp_path)  # the last waited for it; the others sent and cost nothing
    assert (record.status, record.usage_source, record.tags) == (
        "cancelled",
        "estimated",
        {"n": "0"},
    )
    assert cache.statistics().stored == 0


@pytest.mark.asyncio
async def test_a_newcomer_does_not_join_a_request_that_is_being_cancelled(
    client: LiteLLMClient, fake: FakeLiteLLM
) -> None:
    (task,) = await begun(client, fake, 1)
    task.cancel()
    newcomer = asyncio.create_task(client.acompletion(**CALL))
    await asyncio.wait({task}, timeout=WAIT)
    let_go(fake)
    assert (await newcomer)["id"] == "answer-1"
    assert fake.calls == 2


@pytest.mark.asyncio
async def test_waiting_callers_that_are_cancelled_leave_the_request_alone(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    tasks = await begun(client, fake, 4)
    for task in tasks[1:]:
        task.cancel()
    await turns()
    assert all(task.cancelled() for task in tasks[1:])
    let_go(fake)
    assert (await tasks[0])["id"] == "answer-1"
    assert [record.status for record in outcomes(tmp_path)] == ["ok"]


@pytest.mark.asyncio
async def test_a_request_that_is_cancelled_from_outside_is_made_by_the_next_in_line(
    client: LiteLLMClient, fake: FakeLiteLLM
) -> None:
    tasks = await begun(client, fake, 3)
    (flight,) = client._parts.caching.flights._aloft.values()
    flight.task.cancel()
    await asyncio.wait({tasks[0]}, timeout=WAIT)
    assert tasks[0].cancelled()
    let_go(fake)
    answers = await results(tasks[1:])
    assert [found["id"] for found in answers] == ["answer-1"] * 2
    assert fake.calls == 2


@pytest.mark.asyncio
async def test_an_answer_that_cannot_be_kept_is_asked_for_by_each(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    fake.result = lambda: {**answer(), "connection": object()}
    tasks = await begun(client, fake, 4)
    let_go(fake)
    answers = await results(tasks)
    assert [found["id"] for found in answers] == ["answer-1"] * 4
    assert fake.calls == 4
    assert not any(record.cache_hit for record in outcomes(tmp_path))


@pytest.mark.asyncio
async def test_the_deadline_of_the_first_is_not_that_of_the_next(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    view = client.with_options(deadline=2.0)
    first = asyncio.create_task(view.acompletion(**CALL))
    await turns(20)
    await asyncio.sleep(1.0)
    second = asyncio.create_task(view.acompletion(**CALL))
    await asyncio.wait({first}, timeout=WAIT)
    assert isinstance(first.exception(), Timeout)
    assert not second.done()
    let_go(fake)
    assert (await second)["id"] == "answer-1"
    assert fake.calls == 2
    assert [record.status for record in outcomes(tmp_path)] == ["error", "ok"]


@pytest.mark.asyncio
async def test_the_deadline_holds_for_a_call_that_waits_for_another(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    view = client.with_options(deadline=0.2)
    tasks = [asyncio.create_task(view.acompletion(**CALL)) for _ in range(3)]
    errors = await results(tasks)
    assert {type(error) for error in errors} == {Timeout}
    assert {record.status for record in outcomes(tmp_path)} == {"error"}
    assert len({error.usage_record.id for error in errors}) == 3


@pytest.mark.asyncio
async def test_the_next_in_line_has_the_time_that_is_left_of_its_own(
    client: LiteLLMClient, fake: FakeLiteLLM
) -> None:
    view = client.with_options(deadline=1.0)
    first = asyncio.create_task(view.acompletion(**CALL))
    await turns(20)
    await asyncio.sleep(0.1)
    second = asyncio.create_task(view.acompletion(**CALL))
    errors = await results([first, second])
    assert ["deadline of 1 s" in str(error) for error in errors] == [True, False]
    assert fake.calls == 2


@pytest.mark.asyncio
async def test_calls_that_are_tried_otherwise_share_no_request(
    client: LiteLLMClient, fake: FakeLiteLLM
) -> None:
    views = [client, client.with_options(deadline=60), client.with_options(max_retries=1)]
    tasks = [asyncio.create_task(view.acompletion(**CALL)) for view in views * 2]
    tasks += [asyncio.create_task(client.acompletion(**CALL, timeout=60)) for _ in range(2)]
    await turns(20)
    let_go(fake)
    assert [found["id"] for found in await results(tasks)] == ["answer-1"] * 8
    assert fake.calls == 4


@pytest.mark.asyncio
async def test_an_image_that_is_an_address_is_not_kept(
    client: LiteLLMClient, fake: FakeLiteLLM, cache: ResponseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "aimage_generation", fake.acompletion, raising=False)
    let_go(fake)
    for image, stored in (({"url": "https://host/1"}, 0), ({"b64_json": "AA=="}, 1)):
        fake.result = partial(dict, answer(), data=[image])
        await client.aimage_generation(model="m", prompt="hi")
        assert cache.statistics().stored == stored
    assert fake.calls == 2


@pytest.mark.asyncio
async def test_who_began_it_and_was_cancelled_may_change_what_it_asked(
    client: LiteLLMClient, fake: FakeLiteLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    real = fake.acompletion

    async def acompletion(**kwargs: Any) -> Any:
        found = await real(**kwargs)  # as if it were sent, or sent again, when the gate opens
        sent.append(kwargs["messages"][0]["content"])
        return found

    monkeypatch.setattr(fake, "acompletion", acompletion)
    assert fake.gate is not None
    call: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    first = asyncio.create_task(client.acompletion(**call))
    await fake.gate.entered.wait()
    second = asyncio.create_task(client.acompletion(**CALL))
    await turns(20)
    first.cancel()
    await asyncio.wait({first}, timeout=WAIT)
    call["messages"][0]["content"] = "something else"
    let_go(fake)
    await second
    assert sent == ["hi"]


# -- single flight by itself ----------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_flight_that_is_being_cancelled_is_not_found() -> None:
    flights, cleaned = Flights(), asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await cleaned.wait()

    flight = flights.launch("k", slow_to_end())
    assert flights.find("k") is flight
    task = asyncio.create_task(flights.wait(flight))
    await turns()
    task.cancel()
    await turns()
    assert not flight.task.done()
    assert not task.done()  # it waits until the request is on record
    assert flights.find("k") is None
    cleaned.set()
    await asyncio.wait({task})
    assert task.cancelled()


@pytest.mark.asyncio
async def test_a_waiter_that_is_collected_leaves_as_if_cancelled() -> None:
    flights = Flights()
    flight = flights.launch("k", asyncio.Event().wait())
    await turns()
    waiter = flights.wait(flight)
    waiter.send(None)
    waiter.close()
    await asyncio.wait({flight.task})
    assert flight.task.cancelled()


@pytest.mark.asyncio
async def test_a_failure_that_nobody_looks_at_is_no_complaint() -> None:
    async def fail() -> None:
        raise ValueError("no")

    flights = Flights()
    flight = flights.launch("k", fail())
    await flights.wait(flight)
    assert flights.find("k") is None
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, said: complaints.append(said))
    del flight
    await turns()
    assert complaints == []


# -- the close ----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_close_in_the_middle_loses_no_outcome(
    fake: FakeLiteLLM, tmp_path: Path, cache: ResponseCache
) -> None:
    client = LiteLLMClient(tmp_path, handle_signals=False, cache=cache)
    tasks = await begun(client, fake, 10)
    tasks[0].cancel()
    await turns()
    await client.aclose()
    with pytest.raises(LedgerClosed):
        await client.acompletion(**CALL)
    let_go(fake)
    answers = await results(tasks[1:])
    assert [found["id"] for found in answers] == ["answer-1"] * 9
    assert fake.calls == 1
    assert_once(tmp_path)
    assert_closed(tmp_path)
    records = outcomes(tmp_path)
    assert [record.status for record in records] == ["ok"] * 10
    assert sum(bool(record.cache_hit) for record in records) == 9
    assert {found.usage_record.id for found in answers} == {
        record.id for record in records if record.cache_hit
    }


@pytest.mark.asyncio
async def test_a_hit_is_refused_once_the_client_is_closed(
    fake: FakeLiteLLM, tmp_path: Path, cache: ResponseCache
) -> None:
    let_go(fake)
    client = LiteLLMClient(tmp_path, handle_signals=False, cache=cache)
    await client.acompletion(**CALL)
    await client.aclose()
    with pytest.raises(LedgerClosed):
        await client.acompletion(**CALL)


@pytest.mark.asyncio
async def test_nothing_of_a_cache_keeps_a_client_alive_or_its_loop_busy(
    fake: FakeLiteLLM, tmp_path: Path, cache: ResponseCache
) -> None:
    let_go(fake)
    async with LiteLLMClient(tmp_path, handle_signals=False, cache=cache) as client:
        await client.acompletion(**CALL)
        assert client._parts.caching._timers
    assert not client._parts.caching._timers
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if task.get_name().startswith("litellm-ledger")]
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_the_loop_ends_around_calls_that_share_a_request(
    fake: FakeLiteLLM, tmp_path: Path, cache: ResponseCache
) -> None:
    async def main() -> weakref.ref[LiteLLMClient]:
        client = LiteLLMClient(tmp_path, handle_signals=False, cache=cache)
        fake.gate = Gate()
        await begun(client, fake, 5)
        return weakref.ref(client)  # and now all is torn down: nobody closes the client

    left = asyncio.run(main())
    end = time.monotonic() + WAIT
    while left() is not None and time.monotonic() < end:  # a thread of its may still be at work
        gc.collect()
    assert [record.status for record in outcomes(tmp_path)] == ["cancelled"]
    assert_once(tmp_path)


def test_a_cache_outlives_its_clients_and_their_loops(
    fake: FakeLiteLLM, tmp_path: Path, cache: ResponseCache
) -> None:
    async def main(number: int) -> bool | None:
        async with LiteLLMClient(
            tmp_path / str(number), handle_signals=False, cache=cache
        ) as client:
            fake.gate = None
            return (await client.acompletion(**CALL)).usage_record.cache_hit

    assert [asyncio.run(main(number)) for number in range(3)] == [None, True, True]
    assert fake.calls == 1
