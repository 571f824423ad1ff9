"""A client with budgets: what is refused, what is held, what is settled, and when."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests import fakes

from litellm_ledger import (
    Budget,
    BudgetExceeded,
    BudgetUnbounded,
    Ledger,
    LedgerClosed,
    LiteLLMClient,
    ModelPrice,
    UsageRecord,
)
from litellm_ledger._budgets.books import Books
from litellm_ledger._budgets.gate import Gate
from litellm_ledger._budgets.table import HELD, SPENT, Table
from litellm_ledger._records.layout import BALANCES, BUDGETS

pytestmark = pytest.mark.asyncio

PRICES = {"m": ModelPrice(input="1", output="1")}  # a dollar for a million tokens
HOLD = 1305 * 10**6
"""What ``ask`` holds: 1,000 tokens of output, and the bytes of what is asked."""
ANSWER = 150 * 10**6
"""Picodollars of the fake's answer: 150 tokens."""
COST = Decimal("0.00015")
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> fakes.FakeLiteLLM:
    return fakes.install(monkeypatch)


def client(path: Path, *budgets: Budget, **options: Any) -> LiteLLMClient:
    return LiteLLMClient(path, budgets=list(budgets), prices=PRICES, **options)


def day(limit: str, **options: Any) -> Budget:
    return Budget(limit, window="total", **options)


async def ask(one: LiteLLMClient, **options: Any) -> Any:
    return await one.acompletion("m", MESSAGES, **{"max_tokens": 1000, **options})


def stands(one: LiteLLMClient, scope: str = "", number: int = 0) -> tuple[int, int]:
    """What is settled and held, by the table."""
    gate = gate_of(one)
    found = gate.balance(gate.budgets[number], scope, datetime.now(UTC))
    return found.settled, found.held


def gate_of(one: LiteLLMClient) -> Gate:
    holding = one._core.holding
    assert holding is not None
    assert holding.gate is not None
    return holding.gate


def by_ledger(path: Path, *budgets: Budget) -> dict[tuple[str, str], tuple[int, int]]:
    """What the ledger alone says: settled and held, by budget and scope."""
    return sums(Books(path, budgets).made(datetime.now(UTC)), path, budgets)


def sums(table: Table, path: Path, budgets: Any) -> dict[tuple[str, str], tuple[int, int]]:
    found = {}
    scopes = {
        (one, one.scope_of(record.model, record.tags))
        for one in budgets
        for record in Ledger(path).records(kinds=("usage", "started"))
    }
    for one, scope in scopes:
        if scope is not None:
            at = table.find(one.counts, scope, one.window_at(datetime.now(UTC)).key)
            if at:
                found[one.label, scope] = table.cells[at + SPENT], table.cells[at + HELD]
    return {key: both for key, both in found.items() if any(both)}


def in_table(path: Path, *budgets: Budget) -> dict[tuple[str, str], tuple[int, int]]:
    table = Table.open(path)
    try:
        return sums(table, path, budgets)
    finally:
        table.close()


def records(path: Path) -> list[UsageRecord]:
    return list(Ledger(path).records(kinds=("started", "usage")))


async def test_a_call_without_room_is_refused_before_it_is_sent_and_that_is_on_record(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    async with client(tmp_path, day("0.002")) as one:
        await ask(one)
        with pytest.raises(BudgetExceeded) as refused:
            await ask(one, max_tokens=2000, tags={"user": "alice"})
        with pytest.raises(BudgetExceeded):
            await ask(one, max_tokens=2000, stream=True)
        await ask(one)
    error = refused.value
    assert fake.calls == 2
    assert (error.budget, error.scope, error.unit) == ("usd total", "", "usd")
    assert (error.limit, error.settled, error.held) == (Decimal("0.002"), COST, 0)
    assert error.needed > Decimal("0.002")
    assert error.resets_at is None
    assert not error.passes
    found = [one for one in records(tmp_path) if one.status == "refused"]
    assert [(one.cost, one.error, one.stream) for one in found] == [
        (0, "BudgetExceeded", False),
        (0, "BudgetExceeded", True),
    ]
    assert found[0].tags == {"user": "alice"}
    assert error.usage_record.id == found[0].id  # type: ignore[attr-defined]
    row = Ledger(tmp_path).report([]).total
    assert (row.calls, row.ok, row.refused, row.error, row.cost) == (4, 2, 2, 0, 2 * COST)


async def test_a_call_without_a_bound_is_refused_unless_that_is_allowed(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    async with client(tmp_path / "a", day("1")) as one:
        with pytest.raises(BudgetUnbounded, match="no price"):
            await one.acompletion("unknown", MESSAGES, max_tokens=10)
    assert fake.calls == 0
    assert [one.error for one in records(tmp_path / "a")] == ["BudgetUnbounded"]
    async with client(tmp_path / "b", day("1", unbounded="allow")) as one:
        await one.acompletion("unknown", MESSAGES, max_tokens=10)
    assert fake.calls == 1


async def test_a_session_which_has_no_bound_is_refused_before_it_begins(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    async with client(tmp_path, day("1")) as one:
        with pytest.raises(BudgetUnbounded):
            await one.arealtime(object(), model="m")
    assert [one.status for one in records(tmp_path)] == ["refused"]


async def test_what_is_held_stands_on_the_start_and_goes_when_the_cost_is_known(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    gate = fake.gate = fakes.Gate()
    budgets = day("1"), Budget(10_000, unit="tokens", window="total"), Budget(9, unit="calls")
    async with client(tmp_path, *budgets) as one:
        call = asyncio.create_task(ask(one))
        await gate.entered.wait()
        (_, held), (_, tokens), (_, calls) = (stands(one, number=at) for at in range(3))
        assert held >= 1000 * 10**6
        assert tokens >= 1000
        assert calls == 1
        (started,) = records(tmp_path)
        assert (started.hold_picousd, started.hold_tokens) == (held, tokens)
        gate.leave.set()
        await call
        assert [stands(one, number=at) for at in range(3)] == [(ANSWER, 0), (150, 0), (1, 0)]
    outcome = records(tmp_path)[-1]
    assert (outcome.hold_picousd, outcome.hold_tokens) == (None, None)
    assert in_table(tmp_path, *budgets) == by_ledger(tmp_path, *budgets)


@pytest.mark.parametrize("how", ["cancelled", "timeout", "server error", "no usage"])
async def test_what_a_call_cost_is_known_or_all_of_its_hold_is_spent(
    tmp_path: Path, fake: fakes.FakeLiteLLM, how: str
) -> None:
    budget = day("1")
    gate = fake.gate = fakes.Gate()
    async with client(tmp_path, budget) as one:
        call = asyncio.create_task(ask(one))
        await gate.entered.wait()
        _, held = stands(one)
        answer = fakes.answer()
        answer.usage = None
        error = type("InternalServerError", (Exception,), {"status_code": 500})("no")
        error.__cause__ = type("APIStatusError", (Exception,), {})("no")
        fake.result = {
            "cancelled": fakes.answer,
            "timeout": lambda: TimeoutError("late"),
            "server error": lambda: error,
            "no usage": lambda: answer,
        }[how]
        if how == "cancelled":
            call.cancel()
        gate.leave.set()
        await asyncio.wait({call})
        await one.flush()
        assert stands(one) == (0 if how == "server error" else held, 0)
    outcome = records(tmp_path)[-1]
    assert outcome.hold_picousd == (None if how == "server error" else held)
    assert in_table(tmp_path, budget) == by_ledger(tmp_path, budget)


@pytest.mark.parametrize("how", ["read", "left"])
async def test_a_stream_holds_until_it_is_settled(
    tmp_path: Path, fake: fakes.FakeLiteLLM, how: str
) -> None:
    budget = day("1")
    fake.result = fakes.Stream
    async with client(tmp_path, budget) as one:
        stream = await ask(one, stream=True)
        _, held = stands(one)
        assert held
        if how == "read":
            assert [chunk async for chunk in stream]
        else:
            await stream.__anext__()
            await stream.aclose()
    assert stands(one) == ((ANSWER if how == "read" else held), 0)
    assert in_table(tmp_path, budget) == by_ledger(tmp_path, budget)


async def test_scopes_are_apart_and_all_budgets_are_taken_or_none(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    budgets = day("0.0027", per="user"), day("0.004")
    async with client(tmp_path, *budgets) as one:
        fake.result = fakes.Stream
        users = ("alice", "alice", "bob")
        streams = [await ask(one, stream=True, tags={"user": user}) for user in users]
        before = stands(one, number=1)
        with pytest.raises(BudgetExceeded) as refused:
            await ask(one, tags={"user": "alice"})
        assert refused.value.scope == "user=alice"
        assert refused.value.passes
        assert stands(one, number=1) == before
        with pytest.raises(BudgetExceeded) as refused:
            await ask(one, tags={"user": "carol"})
        assert refused.value.budget == "usd total"
        assert stands(one, "user=carol") == (0, 0)
        for stream in streams:
            await stream.aclose()
    assert in_table(tmp_path, *budgets) == by_ledger(tmp_path, *budgets)


async def test_who_waits_goes_first_come_first_served_when_money_comes_back(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    fake.result = fakes.Stream
    async with client(tmp_path, day("0.0025"), wait_for_budget=True) as one:
        first = await ask(one, stream=True)
        order: list[int] = []

        async def waits(number: int) -> None:
            stream = await ask(one, stream=True)
            order.append(number)
            assert [chunk async for chunk in stream]

        calls = []
        for number in range(4):
            calls.append(asyncio.create_task(waits(number)))
            await asyncio.sleep(0)
        impatient = one.with_options(wait_for_budget=False)
        with pytest.raises(BudgetExceeded):
            await ask(impatient)
        assert [chunk async for chunk in first]
        await asyncio.gather(*calls)
    assert order == [0, 1, 2, 3]


class Late(TimeoutError):
    """LiteLLM's, as it is made."""

    def __init__(self, message: str, **_: object) -> None:
        super().__init__(message)


async def test_waiting_ends_at_the_deadline_and_where_it_cannot_help(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    fake.result = fakes.Stream
    fake.Timeout = Late
    async with client(tmp_path, day("0.0018"), wait_for_budget=True) as one:
        first = await ask(one, stream=True)
        with pytest.raises(TimeoutError):
            await ask(one.with_options(deadline=0.01), stream=True)
        await first.aclose()  # all of its hold is spent
        with pytest.raises(BudgetExceeded):
            await ask(one)
        assert fake.calls == 1
        assert stands(one)[1] == 0


async def test_two_clients_of_one_process_share_the_money(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    budget = day("0.0018")
    fake.result = fakes.Stream
    async with client(tmp_path, budget) as one, client(tmp_path, budget) as other:
        stream = await ask(one, stream=True)
        with pytest.raises(BudgetExceeded):
            await ask(other)
        assert [chunk async for chunk in stream]
        fake.result = fakes.answer
        await ask(other)
    assert in_table(tmp_path, budget) == by_ledger(tmp_path, budget)


async def test_an_outcome_that_comes_after_the_close_settles(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    budget = day("1")
    gate = fake.gate = fakes.Gate()
    one = client(tmp_path, budget)
    call = asyncio.create_task(ask(one))
    await gate.entered.wait()
    await one.aclose()
    assert in_table(tmp_path, budget)["usd total", ""][1]
    gate.leave.set()
    await call
    assert in_table(tmp_path, budget) == {("usd total", ""): (ANSWER, 0)}
    assert in_table(tmp_path, budget) == by_ledger(tmp_path, budget)
    with pytest.raises(LedgerClosed):
        await ask(one)


async def test_records_of_the_user_and_what_was_there_before_count(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    budget = day("1")
    async with LiteLLMClient(tmp_path) as before:
        await before.usage.record(UsageRecord(model="m", cost=Decimal("0.5")))
    async with client(tmp_path, budget) as one:
        assert stands(one) == (5 * 10**11, 0)
        await one.usage.record(UsageRecord(model="m", cost=Decimal("0.4")))
        assert stands(one) == (9 * 10**11, 0)
    assert in_table(tmp_path, budget) == by_ledger(tmp_path, budget)


@pytest.mark.parametrize("level", ["queued", "written", "synced"])
async def test_a_request_leaves_after_its_start_is_written_at_every_durability(
    tmp_path: Path, fake: fakes.FakeLiteLLM, level: Any
) -> None:
    seen: list[int] = []

    def look() -> Any:
        seen.append(len(records(tmp_path)))
        return fakes.answer()

    fake.result = look
    async with client(tmp_path, day("1"), durability=level, track_in_flight=False) as one:
        await ask(one)
        await ask(one, temperature=0, stream=False, tools=[])
        await one.flush()
    assert seen == [1, 3]


def removed(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, 64)


def swapped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def garbled(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(192 * 8)
        file.write(b"\xff" * (path.stat().st_size - 192 * 8))


@pytest.mark.parametrize("harm", [removed, cut, swapped, linked, garbled])
async def test_a_table_that_is_lost_or_damaged_while_calls_hold_is_made_again(
    tmp_path: Path, fake: fakes.FakeLiteLLM, harm: Any
) -> None:
    budget = day("0.004")
    fake.result = fakes.Stream
    async with client(tmp_path, budget) as one, client(tmp_path, budget) as other:
        await (await ask(other, stream=True)).aclose()
        stream = await ask(one, stream=True)
        harm(tmp_path / BUDGETS / BALANCES)
        fresh = client(tmp_path, budget)
        third = await ask(fresh, stream=True)
        assert stands(fresh) == (HOLD, 2 * HOLD)
        with pytest.raises(BudgetExceeded):
            await ask(one)
        with pytest.raises(BudgetExceeded):
            await ask(other)
        for each in (third, stream):
            assert [chunk async for chunk in each]
        await fresh.aclose()
        assert stands(other)[1] == 0
    assert in_table(tmp_path, budget) == by_ledger(tmp_path, budget)


async def test_a_budgets_directory_that_cannot_be_used_refuses_calls(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    (tmp_path / BUDGETS).write_text("no directory")
    one = client(tmp_path, day("1"))
    with pytest.raises(OSError, match="budgets"):
        await ask(one)
    assert fake.calls == 0
    await one.aclose()


async def test_a_forked_child_holds_nothing(tmp_path: Path, fake: fakes.FakeLiteLLM) -> None:
    fake.result = fakes.Stream
    async with client(tmp_path, day("1")) as one:
        stream = await ask(one, stream=True)
        before = stands(one)
        pid = os.fork()
        if not pid:  # pragma: no cover - in the child
            holding = one._core.holding
            os._exit(0 if holding is not None and holding.gate is None else 1)
        assert (await asyncio.to_thread(os.waitpid, pid, 0))[1] == 0
        assert stands(one) == before
        assert [chunk async for chunk in stream]
        assert stands(one) == (ANSWER, 0)
