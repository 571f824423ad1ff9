"""A background response holds until it is counted: live, of the ledger alone, and elsewhere."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.replies import Replies, replies

from litellm_ledger import Budget, Ledger, LiteLLMClient, UsageRecord
from litellm_ledger._budgets.books import Books
from litellm_ledger._budgets.check import differences
from litellm_ledger._budgets.release import release, stranded
from litellm_ledger._budgets.table import SPENT, Table

BUDGETS = [
    Budget("100", window="total"),
    Budget(10**9, unit="tokens", window="total", per="user"),
    Budget(100, unit="calls", window="24h"),
]
QUEUED = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_700_000_000,
    "model": "gpt-4o",
    "status": "queued",
    "background": True,
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
USAGE = {"input_tokens": 1_000, "output_tokens": 100, "total_tokens": 1_100}
DONE = {**QUEUED, "status": "completed", "usage": USAGE}
COST = 3_500_000_000
"""Picodollars of it."""


@pytest.fixture
def provider() -> Iterator[Replies]:
    with replies() as found:
        yield found


def client(path: Path, budgets: list[Budget] | None = None) -> LiteLLMClient:
    return LiteLLMClient(path, budgets=BUDGETS if budgets is None else budgets)


async def make(one: LiteLLMClient, provider: Replies) -> str:
    provider.answer = QUEUED
    made = await one.aresponses(
        model="openai/gpt-4o",
        input="hi",
        background=True,
        max_output_tokens=1_000,
        tags={"user": "alice"},
        api_base=f"{provider.url}/v1",
        api_key="any",
    )
    name: str = made.id
    return name


async def look(one: LiteLLMClient, provider: Replies, name: str) -> UsageRecord:
    answer = await one.aget_responses(
        response_id=name,
        custom_llm_provider="openai",
        api_base=f"{provider.url}/v1",
        api_key="any",
        tags={"user": "bob"},
    )
    record: UsageRecord = answer.usage_record
    return record


def stands(one: LiteLLMClient) -> list[tuple[int, int]]:
    """What is settled and held: dollars, alice's tokens and bob's, calls."""
    holding = one._core.holding
    assert holding is not None
    gate = holding.gate
    assert gate is not None
    now = datetime.now(UTC)
    scopes = (0, ""), (1, "user=alice"), (1, "user=bob"), (2, "")
    found = [gate.balance(gate.budgets[number], scope, now) for number, scope in scopes]
    return [(one.settled, one.held) for one in found]


def by_ledger(path: Path, table: Table | None = None) -> list[int]:
    """The same of the ledger alone, settled."""
    made = table or Books(path, BUDGETS).made(datetime.now(UTC))
    found = []
    for number, scope in (0, ""), (1, "user=alice"), (1, "user=bob"), (2, ""):
        one = BUDGETS[number]
        window = one.window_at(datetime.now(UTC))
        at = made.find(one.counts, scope, window.key)
        found.append(made.cells[at + SPENT] if at else 0)
    return found


def holds(path: Path) -> tuple[int, int]:
    (record,) = [one for one in Ledger(path).records() if one.call == "aresponses"]
    usd, tokens = record.hold_picousd, record.hold_tokens
    assert usd
    assert tokens
    return usd, tokens


def settled(path: Path) -> list[Any]:
    """What each look settles, by what it says."""
    found = [one for one in Ledger(path).records() if one.call == "aget_responses"]
    return [one.meta["background"].get("settles") for one in found]


def test_a_response_that_is_counted_holds_no_more_however_often_one_looks(
    tmp_path: Path, provider: Replies
) -> None:
    async def main() -> None:
        async with client(tmp_path) as one:
            name = await make(one, provider)
            usd, tokens = holds(tmp_path)
            assert stands(one) == [(usd, 0), (tokens, 0), (0, 0), (1, 0)]
            await look(one, provider, name)
            assert stands(one)[:2] == [(usd, 0), (tokens, 0)], "it is not done"
            provider.answer = DONE
            assert (await look(one, provider, name)).cost == Decimal("0.0035")
            after = [(COST, 0), (0, 0), (1_100, 0), (3, 0)]
            assert stands(one) == after
            await asyncio.gather(*(look(one, provider, name) for _ in range(3)))
            assert stands(one) == [*after[:3], (6, 0)]
        assert by_ledger(tmp_path) == [COST, 0, 1_100, 6]

    asyncio.run(main())
    (made,) = [one.id for one in Ledger(tmp_path).records() if one.call == "aresponses"]
    assert sorted(map(str, settled(tmp_path))) == [made, *["None"] * 4]
    assert differences(tmp_path, BUDGETS) == []
    assert stranded(tmp_path) == [], "there is nothing to release"


def test_clients_that_look_at_once_give_the_hold_back_once(
    tmp_path: Path, provider: Replies
) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            every = [await stack.enter_async_context(client(tmp_path)) for _ in range(4)]
            name = await make(every[0], provider)
            provider.answer = DONE
            await asyncio.gather(*(look(one, provider, name) for one in every))
            assert {tuple(stands(one)) for one in every} == {
                ((COST, 0), (0, 0), (1_100, 0), (5, 0))
            }
        assert by_ledger(tmp_path) == [COST, 0, 1_100, 5]

    asyncio.run(main())
    assert len([one for one in settled(tmp_path) if one]) == 1


@pytest.mark.parametrize("budgets", [BUDGETS, []], ids=["budgets", "none"])
def test_another_process_counts_it(
    tmp_path: Path, provider: Replies, budgets: list[Budget]
) -> None:
    async def made() -> str:
        async with client(tmp_path) as one:
            return await make(one, provider)

    async def counted() -> None:
        options: Any = {"budgets": budgets} if budgets else {}
        async with LiteLLMClient(tmp_path, **options) as one:
            await look(one, provider, name)

    async def seen() -> list[tuple[int, int]]:
        async with client(tmp_path) as one:
            return stands(one)

    name = asyncio.run(made())
    provider.answer = DONE
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(counted())
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert asyncio.run(seen()) == [(COST, 0), (0, 0), (1_100, 0), (2, 0)]
    (tmp_path / "budgets" / "balances").unlink()
    assert asyncio.run(seen()) == [(COST, 0), (0, 0), (1_100, 0), (2, 0)]
    assert differences(tmp_path, BUDGETS) == []


def test_what_was_released_before_is_not_given_back_again(
    tmp_path: Path, provider: Replies
) -> None:
    async def main() -> None:
        async with client(tmp_path) as one:
            name = await make(one, provider)
            (let,) = stranded(tmp_path)
            release(tmp_path, [let.released.record], who="me", why="a test")
            provider.answer = DONE
            await look(one, provider, name)
        assert by_ledger(tmp_path) == [COST, 0, 1_100, 2]

    asyncio.run(main())
    assert settled(tmp_path) == [None]


def test_a_hold_whose_record_is_not_that_of_the_job_stays(
    tmp_path: Path, provider: Replies
) -> None:
    async def main() -> None:
        async with client(tmp_path) as one:
            await make(one, provider)
            usd, tokens = holds(tmp_path)
            (made,) = Ledger(tmp_path).records()
            for record, response in (
                (made.id, "another"),
                ("x", "resp"),
                (f"{made.id[:-1]}9", "y"),
            ):
                told = {"background": {"status": "x", "counted": True, "settles": record}}
                await one.usage.record(UsageRecord(model="m", response_id=response, meta=told))
        assert by_ledger(tmp_path) == [usd, tokens, 0, 4]

    asyncio.run(main())
