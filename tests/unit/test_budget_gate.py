"""The gate apart from a client: what hypothesis found, who waits, growing, threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from litellm_ledger import Budget, BudgetExceeded, LedgerError, UsageRecord, UsageTracker
from litellm_ledger._budgets import books as _books
from litellm_ledger._budgets import table as _table
from litellm_ledger._budgets.amounts import Amounts
from litellm_ledger._budgets.gate import Gate
from litellm_ledger._budgets.table import Table
from litellm_ledger._records.layout import BALANCES, BUDGETS
from litellm_ledger._records.money import usd
from litellm_ledger._storage.filesystem import REAL
from litellm_ledger._storage.live_file import LiveFile

pytestmark = pytest.mark.asyncio

ONE = "20260102T030405Z-0000000000000001"
TWO = "20260102T030405Z-0000000000000002"
NOW = datetime(2026, 1, 2, 3, 30, tzinfo=UTC)
TEN = Amounts(10, 10)


LIVES: list[LiveFile] = []


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    for part in ("segments", "live"):
        (tmp_path / part).mkdir()
    yield tmp_path
    while LIVES:
        LIVES.pop().release()


def total(limit: int, **options: Any) -> Budget:
    return Budget(usd(limit), window="total", **options)


async def gate(root: Path, writer: str, *budgets: Budget) -> Gate:
    """Open one, of a writer that lives."""
    live = LiveFile(REAL, root, writer)
    LIVES.append(live)
    one = Gate(root, budgets)
    await one.open(writer)
    return one


def stands(one: Gate, number: int = 0, scope: str = "", now: datetime = NOW) -> tuple[int, int]:
    return one.balance(one.budgets[number], scope, now)[3:]


async def told(one: Gate) -> None:
    """Wait until the table knows what the gate knows."""
    while one._holdings._inbox or one._holdings._dirty:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0)


async def waiting(one: Gate) -> None:
    """Wait until a call waits."""
    while not one._holdings.waiting:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0)


async def test_a_process_that_died_before_it_wrote_anything_holds_nothing(root: Path) -> None:
    dead = await gate(root, ONE, total(15))
    (live,) = LIVES
    await dead.take(TEN, "m", {}, NOW)
    living = await gate(root, TWO, total(15))
    with pytest.raises(BudgetExceeded):
        await living.take(TEN, "m", {}, NOW)
    live.remove()  # as recovery does, which found no line of it
    living._background.books.look()
    assert stands(living) == (0, 0)
    await living.take(TEN, "m", {}, NOW)


async def test_an_outcome_of_a_window_that_is_gone_keeps_no_other_from_being_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return NOW + timedelta(hours=3)

    one = await gate(root, ONE, Budget(usd(99), window="hour"), total(99))
    ticket = await one.take(TEN, "m", {}, NOW)
    (root / BUDGETS / BALANCES).unlink()
    monkeypatch.setattr(_books, "datetime", Clock)
    other = await gate(root, TWO, *one.budgets)
    await other.take(TEN, "m", {}, NOW)
    for each in (one, other):
        each._background.books.grow()  # which drops the hour
        await each._background.renew()
    one.settle(ticket, Amounts(4, 4))
    await told(one)
    assert stands(one, 1) == (4, 10)


async def test_a_clock_that_goes_back_to_a_window_that_was_dropped_has_the_ledger_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        moment = NOW

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return cls.moment

    monkeypatch.setattr(_books, "datetime", Clock)
    async with UsageTracker(root) as before:
        await before.record(UsageRecord(model="m", ts=NOW, cost=usd(15)))
    one = await gate(root, ONE, Budget(usd(20), window="hour"))
    assert stands(one) == (15, 0)
    Clock.moment = NOW + timedelta(hours=2)
    one._background.books.grow()
    await one._background.renew()
    assert stands(one) == (0, 0)
    Clock.moment = NOW
    with pytest.raises(BudgetExceeded):
        await one.take(TEN, "m", {}, NOW)
    assert stands(one) == (15, 0)


async def test_a_full_table_grows_under_the_calls_and_all_is_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await gate(root, ONE, total(10, per="user"), total(10**6))
    other = await gate(root, TWO, *one.budgets)
    for number in range(1500):
        ticket = await one.take(TEN, "m", {"user": str(number)}, NOW)
        one.settle(ticket, Amounts(number % 7, 0))
    await other.take(TEN, "m", {}, NOW)
    assert stands(other, 1) == (sum(number % 7 for number in range(1500)), 10)
    assert stands(other, 0, "user=8") == (1, 0)
    assert stands(one, 1) == stands(other, 1)
    monkeypatch.setattr(_table, "MOST_ACCOUNTS", 2048)

    async def attack() -> None:
        for number in range(1500, 3000):
            await one.take(TEN, "m", {"user": str(number)}, NOW)

    with pytest.raises(LedgerError, match="more scopes than can be kept apart"):
        await attack()


async def test_one_that_does_not_wait_takes_nothing_from_one_that_does(root: Path) -> None:
    one, other = [await gate(root, writer, total(30)) for writer in (ONE, TWO)]
    small = [await one.take(Amounts(5, 0), "m", {}, NOW) for _ in range(3)]
    large = asyncio.create_task(one.take(Amounts(25, 0), "m", {}, NOW, wait=True))
    await waiting(one)
    with pytest.raises(BudgetExceeded):  # there are 15, and a call waits for 25
        await other.take(Amounts(5, 0), "m", {}, NOW)
    for ticket in small:
        one.drop(ticket)
    assert (await large).held.usd == 25
    await other.take(Amounts(5, 0), "m", {}, NOW)


async def test_one_that_waits_hears_of_another_process(root: Path) -> None:
    one, other = [await gate(root, writer, total(10)) for writer in (ONE, TWO)]
    ticket = await one.take(TEN, "m", {}, NOW)
    waits = asyncio.create_task(other.take(TEN, "m", {}, NOW, wait=True))
    await waiting(other)
    one.settle(ticket, Amounts(0, 0))
    assert (await waits).held.usd == 10


async def test_one_that_gives_up_leaves_no_claim(root: Path) -> None:
    one = await gate(root, ONE, total(30))
    ticket = await one.take(Amounts(20, 0), "m", {}, NOW)
    loop = asyncio.get_running_loop()
    with pytest.raises(BudgetExceeded):
        await one.take(Amounts(25, 0), "m", {}, NOW, wait=True, deadline=loop.time() + 0.01)
    await one.take(Amounts(10, 0), "m", {}, NOW)
    one.drop(ticket)
    assert stands(one) == (0, 10)
    assert not one._lines


async def test_a_lock_that_another_holds_delays_a_call_and_not_the_loop(root: Path) -> None:
    one = await gate(root, ONE, total(30))
    first = await one.take(TEN, "m", {}, NOW)
    other = Table.open(root)
    other.lock()
    assert one.take_now(TEN, "m", {}, NOW) is None
    assert not one.top_up(first, TEN)
    one.settle(first, Amounts(3, 0))
    waits = asyncio.create_task(one.take(TEN, "m", {}, NOW))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waits.done()
    other.unlock()
    await waits
    assert stands(one) == (3, 10)


async def test_a_top_up_takes_from_all_or_none(root: Path) -> None:
    one = await gate(root, ONE, total(100), total(25, per="user"))
    ticket = await one.take(TEN, "m", {"user": "a"}, NOW)
    assert one.top_up(ticket, TEN)
    assert not one.top_up(ticket, TEN)
    assert ticket.held.usd == 20
    assert (stands(one), stands(one, 1, "user=a")) == ((0, 20), (0, 20))
    one.settle(ticket, None)
    assert (stands(one), stands(one, 1, "user=a")) == ((20, 0), (20, 0))
    assert not one.top_up(ticket, TEN)


async def test_outcomes_are_told_from_any_thread(root: Path) -> None:
    one = await gate(root, ONE, total(10**6))
    tickets = [await one.take(TEN, "m", {}, NOW) for _ in range(400)]

    def settle(part: list[Any]) -> None:
        for ticket in part:
            one.settle(ticket, Amounts(3, 0))

    threads = [threading.Thread(target=settle, args=(tickets[at::4],)) for at in range(4)]
    for thread in threads:
        thread.start()
    more = [await one.take(TEN, "m", {}, NOW) for _ in range(100)]
    for thread in threads:
        await asyncio.to_thread(thread.join)
    one.settle(more[0], TEN)
    await told(one)
    assert stands(one) == (1210, 990)


async def test_other_budgets_apply_from_the_next_call_on(root: Path) -> None:
    one = await gate(root, ONE, total(100))
    ticket = await one.take(TEN, "m", {"user": "a"}, NOW)
    await one.change([total(5, per="user"), total(100)])
    assert stands(one, 1) == (0, 10)
    with pytest.raises(BudgetExceeded):
        await one.take(TEN, "m", {"user": "a"}, NOW)
    one.settle(ticket, TEN)
    assert stands(one, 1) == (10, 0)


async def test_a_soft_budget_counts_and_refuses_nothing(root: Path) -> None:
    one = await gate(root, ONE, total(5, mode="soft"))
    ticket = await one.take(TEN, "m", {}, NOW)
    await one.take(Amounts(None, None), "m", {}, NOW)
    one.settle(ticket, TEN)
    assert stands(one) == (10, 0)


@pytest.mark.parametrize("amount", [2**62, 2**63 - 1])
async def test_absurd_amounts_end_at_what_a_cell_holds(root: Path, amount: int) -> None:
    one = await gate(root, ONE, total(5, mode="soft"))
    for _ in range(3):
        ticket = await one.take(Amounts(amount, 0), "m", {}, NOW)
        one.settle(ticket, Amounts(amount, 0))
    await told(one)
    assert stands(one) == (2**63 - 1, 0)
