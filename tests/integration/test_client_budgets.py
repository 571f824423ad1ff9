"""A client with budgets, as its user sees them: status, alerts, and what the command line knows."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from tests.terminal import run

from litellm_ledger import Budget, BudgetAlert, BudgetExceeded, LiteLLMClient, ModelPrice
from litellm_ledger._budgets import background, budgets_file
from litellm_ledger.testing import Behaviour, OpenAIServer

MESSAGES = [{"role": "user", "content": "What is a ledger?"}]
PRICES = {"gpt-4o-mini": ModelPrice(input="1", output="10000")}


@pytest.fixture(autouse=True)
def _at_home(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


async def ask(client: LiteLLMClient, user: str) -> Decimal:
    answer = await client.acompletion(
        model="gpt-4o-mini", messages=MESSAGES, max_tokens=100, tags={"user": user}
    )
    cost: Decimal = answer.usage_record.cost
    return cost


async def ask_on(client: LiteLLMClient, user: str) -> None:
    """Until it is refused."""
    while True:
        await ask(client, user)


def seen_by_others(ledger: Path) -> list[dict[str, str]]:
    """What the command line shows, whatever its status."""
    found: list[dict[str, str]] = json.loads(run("budgets", ledger, "--json").stdout)["budgets"]
    return found


def test_a_users_view_of_budgets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[BudgetAlert] = []
    heard = threading.Event()

    def hear(alert: BudgetAlert) -> None:
        told.append(alert)
        heard.set()

    async def main() -> Decimal:
        budgets = [
            Budget("1.5", per="user", window="total", warn=[0.01], name="each"),
            Budget("100", window="30d", mode="soft"),
        ]
        async with LiteLLMClient(
            tmp_path, prices=PRICES, budgets=budgets, on_budget_alert=hear
        ) as client:
            cost = await ask(client, "alice") + await ask(client, "alice")
            statuses = {(one.budget, one.scope): one for one in await client.budgets.status()}
            assert {name: one.settled for name, one in statuses.items()} == {
                ("each", "user=alice"): cost,
                ("usd 30d", ""): cost,
            }
            mine = statuses["each", "user=alice"]
            assert (mine.limit, mine.held, mine.free) == (Decimal("1.5"), 0, Decimal("1.5") - cost)
            assert mine.worst_overspend == 0
            with pytest.raises(BudgetExceeded) as refused:
                await ask_on(client, "alice")
            assert refused.value.scope == "user=alice"
            assert (await ask(client, "bob")) > 0, "his money is his own"
            await asyncio.to_thread(heard.wait)
            assert {"each", "usd 30d"} == {one["budget"] for one in seen_by_others(tmp_path)}
            with pytest.raises(ValueError, match="budget_webhook"):
                LiteLLMClient(tmp_path, budgets=budgets, budget_webhook="ftp://x")
            with pytest.raises(TypeError, match="need budgets"):
                LiteLLMClient(tmp_path, on_budget_alert=hear)
        return cost

    with caplog.at_level(logging.WARNING, "litellm_ledger"):
        asyncio.run(main())
    assert sorted({alert.scope for alert in told}) == ["user=alice", "user=bob"]
    assert len(told) == 2, "each once"
    assert told[0].budget == "each"
    assert any("1 % of the budget each of user=alice is spent" in line for line in caplog.messages)
    done = run("budgets", tmp_path)
    assert done.exit_code == 1
    assert "each of user=alice is at 1 %." in done.stdout, "after the client has closed as well"


def test_a_file_of_budgets_is_read_again_while_the_client_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets_file, "_EVERY", 0.0)
    file = tmp_path / "budgets.toml"
    file.write_text('[[budget]]\nlimit = 100\nwindow = "total"\n')

    async def main() -> None:
        async with LiteLLMClient(tmp_path / "usage", prices=PRICES, budgets=file) as client:
            await ask(client, "alice")
            file.write_text('[[budget]]\nlimit = 0\nwindow = "total"\n')
            os.utime(file, (0, 0))  # at rest for long
            with pytest.raises(BudgetExceeded):
                await ask_on(client, "alice")
            (status,) = await client.budgets.status()
            assert status.limit == 0

    asyncio.run(main())
    (one,) = seen_by_others(tmp_path / "usage")
    assert one["limit"] == "0"


def test_a_running_client_has_what_is_released_again(
    tmp_path: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "LOOK", 0.05)

    before = len(server.requests)

    async def main() -> int:
        budget = Budget("1.5", window="total")
        async with LiteLLMClient(tmp_path, prices=PRICES, budgets=[budget]) as client:
            slow = asyncio.create_task(
                client.acompletion(
                    model="gpt-4o-mini",
                    messages=MESSAGES,
                    max_tokens=100,
                    extra_headers=Behaviour(hang=True).headers(),
                )
            )
            await asyncio.to_thread(server.wait_for, lambda requests: len(requests) > before, 120)
            slow.cancel()
            await asyncio.wait({slow})
            with pytest.raises(BudgetExceeded):
                await ask(client, "alice")
            await client.flush()
            done = await asyncio.to_thread(
                run, "budgets", "release", tmp_path, "--why", "not billed", "--yes"
            )
            assert "of 1 call (1 cancelled)" in done.stdout, done.output
            refused = 0
            while True:
                try:
                    await ask(client, "alice")
                except BudgetExceeded:
                    refused += 1
                    await asyncio.sleep(0.01)
                else:
                    return refused

    asyncio.run(main())


def test_a_client_without_budgets_has_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with LiteLLMClient(tmp_path) as client:
            assert await client.budgets.status() == []

    asyncio.run(main())
