"""``verify`` of balances: what differs from the ledger is said."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests import fakes

from litellm_ledger import Budget, LiteLLMClient, ModelPrice
from litellm_ledger._budgets.check import differences
from litellm_ledger._budgets.table import ROW_SPENT, SPENT, Table
from litellm_ledger._cli.app import app
from litellm_ledger._records.layout import BALANCES, BUDGETS

BUDGET = Budget("1", window="total")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fakes.install(monkeypatch)

    async def use() -> None:
        prices = {"m": ModelPrice(input="1", output="1")}
        async with LiteLLMClient(tmp_path, budgets=[BUDGET], prices=prices) as client:
            await client.acompletion("m", [{"role": "user", "content": "hi"}], max_tokens=9)
            await client.flush()

    asyncio.run(use())
    return tmp_path


def change(root: Path) -> None:
    table = Table.open(root)
    (row,) = table.each_row()
    account = table.find(BUDGET.counts, "", 0)
    table.cells[row + ROW_SPENT] += 1
    table.cells[account + SPENT] += 1
    table.close()


def verify(root: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["verify", str(root)])
    return done.exit_code, " ".join(done.output.split())


def test_balances_that_are_those_of_the_records_are_no_news(ledger: Path) -> None:
    assert differences(ledger, [BUDGET]) == []
    status, said = verify(ledger)
    assert status == 0
    assert "udgets" not in said


def test_a_balance_that_was_changed_is_found(ledger: Path) -> None:
    change(ledger)
    (text,) = differences(ledger, [BUDGET])
    assert "the balance of usd total is not that of its records" in text
    status, said = verify(ledger)
    assert status == 1
    assert "NOT OK: the balances of budgets" in said
    (ledger / BUDGETS / BALANCES).unlink()
    assert verify(ledger)[0] == 0


@pytest.mark.parametrize("data", [b"", b"\0" * 4096])
def test_a_file_that_is_no_table_is_said(ledger: Path, data: bytes) -> None:
    (ledger / BUDGETS / BALANCES).write_bytes(data)
    (text,) = differences(ledger, [BUDGET])
    assert "cannot be used" in text
