"""Budgets of many machines: never more is spent than the limit, whatever is cut or killed."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests import fakes
from tests.integration.test_budgets import ask, client

from litellm_ledger import Budget, BudgetExceeded, LedgerPathError
from litellm_ledger._budgets import lender as _lender
from litellm_ledger._budgets.amounts import Amounts
from litellm_ledger._budgets.gate import Gate
from litellm_ledger._budgets.leasing import Ask, Lending, Lent, Unavailable
from litellm_ledger._budgets.lender import DatabaseLender
from litellm_ledger._cli.app import app
from litellm_ledger._postgres import database
from litellm_ledger._records.money import usd
from litellm_ledger._storage.filesystem import REAL
from litellm_ledger._storage.live_file import LiveFile

pytestmark = pytest.mark.asyncio

NOW = datetime(2026, 1, 2, 3, 30, tzinfo=UTC)


def amount(units: int) -> Amounts:
    return Amounts(units, units)


TEN = amount(10)
LIMIT = 10_000


class Lender(DatabaseLender):
    """Asks the database; may be cut off before or after the database has done what was asked."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.cut: Callable[[], str] = lambda: ""
        self.asked = 0

    async def ask(self, holder: str, ask: Ask) -> Lent:
        self.asked += 1
        cut = self.cut()
        if cut == "before":
            raise LedgerPathError("cut off")
        answer = await super().ask(holder, ask)
        if cut == "after":
            raise LedgerPathError("cut off")
        return answer


class Machine:
    """A ledger with one process that counts."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.opened = 0
        for part in ("segments", "live"):
            (path / part).mkdir(parents=True)

    @asynccontextmanager
    async def gate(
        self, url: str, *budgets: Budget, away: Unavailable = "spend-the-lease-then-refuse"
    ) -> AsyncIterator[tuple[Gate, Lender]]:
        self.opened += 1
        writer = f"20260102T030405Z-{self.number:08x}{self.opened:08x}"
        live = LiveFile(REAL, self.path, writer)
        lender = Lender(url)
        one = Gate(self.path, budgets, Lending(lender, away))
        await one.open(writer)
        try:
            yield one, lender
        finally:
            one.close()
            lender.close()
            live.release()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on a busy machine is not away."""
    monkeypatch.setattr(_lender, "_PATIENCE", 60.0)


@pytest.fixture
def machines(tmp_path: Path) -> list[Machine]:
    return [Machine(tmp_path / str(number), number) for number in range(1, 4)]


def total(limit: int = LIMIT, **options: Any) -> Budget:
    return Budget(usd(limit), **{"window": "total", **options})


async def rows(url: str, query: str) -> list[Any]:
    connection = await database.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await database.close(connection)


async def lent(url: str) -> int:
    """What is granted and not returned; the sums over windows say the same as the leases."""
    found = await rows(
        url,
        "SELECT (SELECT sum(granted - returned) FROM litellm_ledger.leases)::bigint AS leases, "
        "(SELECT sum(lent) FROM litellm_ledger.budget_windows)::bigint AS windows",
    )
    assert found[0]["leases"] == found[0]["windows"]
    return int(found[0]["leases"])


async def test_one_ask_serves_many_calls_and_machines_share_the_limit(
    machines: list[Machine], database_url: str
) -> None:
    one, two, _ = machines
    async with (
        one.gate(database_url, total()) as (first, asked),
        two.gate(database_url, total()) as (second, _),
    ):
        tickets = [await first.take(TEN, "m", {}, NOW) for _ in range(100)]
        assert asked.asked == 1
        assert await lent(database_url) == 1_000
        with pytest.raises(
            BudgetExceeded, match=r"flight .0, lent to other processes .0\.000000001,"
        ) as refusal:
            await second.take(amount(9_001), "m", {}, NOW)
        assert usd(9_001) == refusal.value.needed
        assert refusal.value.passes, "the others may give theirs back"
        await second.take(amount(9_000), "m", {}, NOW)
        assert await lent(database_url) == LIMIT
        for ticket in tickets:
            first.settle(ticket, amount(1))
        await first.give_back()
        assert await lent(database_url) == 9_100
        await second.take(amount(800), "m", {}, NOW)


async def test_whatever_is_cut_no_more_is_spent_than_the_limit_and_nothing_is_stranded(
    machines: list[Machine], database_url: str
) -> None:
    chance = random.Random(7)
    spent = refused = 0
    async with (
        machines[0].gate(database_url, total()) as a,
        machines[1].gate(database_url, total()) as b,
        machines[2].gate(database_url, total()) as c,
    ):
        gates = [a, b, c]
        for _, lender in gates:
            lender.cut = lambda: chance.choice(["", "", "before", "after"])
        open_: list[tuple[Gate, Any]] = []
        for _ in range(400):
            gate, _ = chance.choice(gates)
            if open_ and chance.random() < 0.5:
                gate, ticket = open_.pop(chance.randrange(len(open_)))
                used = chance.randint(0, 60)
                gate.settle(ticket, amount(used))
                spent += used
            elif chance.random() < 0.1:
                await gate._give_back()
            else:
                try:
                    open_.append((gate, await gate.take(amount(60), "m", {}, NOW)))
                except BudgetExceeded:
                    refused += 1
                    assert gate.lending is not None
                    gate.lending._until = 0
            assert spent + 60 * len(open_) <= LIMIT
            assert await lent(database_url) <= LIMIT
        for gate, ticket in open_:
            gate.settle(ticket, None)
            spent += 60
        assert spent
        assert refused
        for gate, lender in gates:
            lender.cut = lambda: ""
            assert gate.lending is not None
            gate.lending._until = 0
            await gate.give_back()
    assert await lent(database_url) == spent


async def test_what_a_process_had_that_died_comes_back_but_for_what_it_spent(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.install(monkeypatch)
    limit = Budget("1.00", window="total")
    first = client(tmp_path / "a", limit, budgets_at=database_url)
    await ask(first)
    holding = first._core.holding
    assert holding is not None
    assert holding.gate is not None
    spent = holding.gate.balance(limit, "", datetime.now(UTC)).settled
    # It ends without giving anything back.
    holding.lending = None
    holding.gate.lending = None
    await first.aclose()
    assert await lent(database_url) > spent
    async with client(tmp_path / "a", limit, budgets_at=database_url) as second:
        await ask(second)
        (status,) = await second.budgets.status()
        assert status.shared is not None
        assert status.shared.used == usd(spent), "what the other one had spent"
        assert status.shared.leased > status.settled - usd(spent)
        assert status.shared.away is None
    found = await rows(
        database_url, "SELECT granted - returned AS has, used FROM litellm_ledger.leases"
    )
    assert [row["has"] for row in found] == [row["used"] for row in found]
    assert await lent(database_url) == 2 * spent


async def test_while_the_database_is_away_the_lease_is_spent_and_then_it_is_as_was_said(
    machines: list[Machine], database_url: str
) -> None:
    one, two, _ = machines
    async with one.gate(database_url, total()) as (gate, lender):
        await gate.take(TEN, "m", {}, NOW)
        lender.cut = lambda: "before"
        for _ in range(99):
            await gate.take(TEN, "m", {}, NOW)
        with pytest.raises(BudgetExceeded, match=r"can ask for no more: cut off") as refusal:
            await gate.take(TEN, "m", {}, NOW)
        assert refusal.value.because
        assert gate.lending is not None
        assert gate.lending.away == "cut off"
    async with two.gate(database_url, total()) as (gate, lender):
        lender.cut = lambda: "before"
        with pytest.raises(BudgetExceeded, match=r"was lent nothing, .* asked: cut off"):
            await gate.take(TEN, "m", {}, NOW)
    async with two.gate(database_url, total(), away="allow") as (gate, lender):
        lender.cut = lambda: "before"
        tickets = [await gate.take(amount(4_000), "m", {}, NOW) for _ in range(2)]
        lender.cut = lambda: ""
        assert gate.lending is not None
        gate.lending._until = 0
        for ticket in tickets:
            gate.settle(ticket, amount(4_000))
        with pytest.raises(BudgetExceeded):
            await gate.take(amount(4_000), "m", {}, NOW)
        await gate.give_back()
        assert gate.lending.away is None
        assert await lent(database_url) == 9_000, "what was spent meanwhile is told"


async def test_who_waits_goes_on_when_another_machine_gives_back(
    machines: list[Machine], database_url: str
) -> None:
    one, two, _ = machines
    async with (
        one.gate(database_url, total()) as (first, _),
        two.gate(database_url, total()) as (second, _),
    ):
        ticket = await first.take(amount(LIMIT), "m", {}, NOW)
        waiting = asyncio.create_task(second.take(TEN, "m", {}, NOW, wait=True))
        while not second._holdings.waiting:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
        first.settle(ticket, amount(1))
        await first.give_back()
        await waiting


async def test_a_rolling_window_counts_what_was_lent_in_all_of_it(
    machines: list[Machine], database_url: str
) -> None:
    one, two, _ = machines
    rolling = total(window="24h")
    now = datetime.now(UTC)
    async with (
        one.gate(database_url, rolling) as (first, _),
        two.gate(database_url, rolling) as (second, _),
    ):
        before = now.replace(year=now.year - 1)
        first.settle(await first.take(amount(9_000), "m", {}, before), amount(9_000))
        first.settle(await first.take(amount(6_000), "m", {}, now), amount(6_000))
        with pytest.raises(BudgetExceeded):
            await second.take(amount(4_001), "m", {}, now)
        await second.take(amount(4_000), "m", {}, now)


async def test_a_machine_whose_clock_is_in_another_window_is_lent_nothing(
    machines: list[Machine], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = machines
    now = datetime.now(UTC)
    day = total(window="day")
    async with (
        one.gate(database_url, day) as (first, _),
        two.gate(database_url, day) as (second, _),
        three.gate(database_url, day, away="allow") as (third, _),
    ):
        ticket = await first.take(amount(LIMIT), "m", {}, now)
        for wrong in (timedelta(days=-2), timedelta(days=2)):
            monkeypatch.setattr(_lender, "_now", lambda: datetime.now(UTC) + wrong)  # noqa: B023
            with pytest.raises(BudgetExceeded, match="the clock of this machine"):
                await second.take(TEN, "m", {}, now + wrong)
            await third.take(TEN, "m", {}, now + wrong)
            for gate in (second, third):
                assert gate.lending is not None
                gate.lending._until = 0
        assert await lent(database_url) == LIMIT
        # A call of a window that has ended may need more, and what is given back is taken.
        monkeypatch.setattr(_lender, "_now", lambda: datetime.now(UTC))
        less = amount(5)  # of as much nobody is asked again so soon
        await second.take(less, "m", {}, now - timedelta(days=2))
        first.settle(ticket, amount(1))
        await first.give_back()
        assert await lent(database_url) < LIMIT


async def test_a_rolling_window_counts_the_steps_of_a_clock_that_is_ahead(
    machines: list[Machine], database_url: str
) -> None:
    one, two, _ = machines
    rolling = total(window="24h")
    now = datetime.now(UTC)
    async with (
        one.gate(database_url, rolling) as (first, _),
        two.gate(database_url, rolling) as (second, _),
    ):
        await first.take(amount(6_000), "m", {}, now + timedelta(minutes=15))
        with pytest.raises(BudgetExceeded):
            await second.take(amount(4_001), "m", {}, now)
        await second.take(amount(4_000), "m", {}, now)


async def test_an_amount_below_zero_is_refused(database_url: str) -> None:
    lender = DatabaseLender(database_url)
    ask_for = Ask("b", "usd", "c", "", 0, 0, 10**9, 10, 0, 0, 5, 5, {})
    for wrong in ({"used": -1}, {"returned": -1}, {"need": -1}, {"others": {"w": -9}}):
        with pytest.raises(LedgerPathError, match="below zero"):
            await lender.ask("w", ask_for._replace(**wrong))
    lender.close()


async def test_the_command_line_shows_what_all_machines_were_lent(
    database_url: str, machines: list[Machine], tmp_path: Path
) -> None:
    def shown(*args: str) -> Any:
        done = CliRunner().invoke(app, ["budgets", database_url, *args])
        return done.exit_code, done.output

    status, text = await asyncio.to_thread(shown)
    assert (status, "No budget is lent here now" in text) == (0, True), text
    all_ = total(name="all")
    async with (
        machines[0].gate(database_url, all_) as (first, _),
        machines[1].gate(database_url, all_) as (second, _),
    ):
        await first.take(TEN, "m", {}, NOW)
        await second.take(amount(20), "m", {}, NOW)
        status, text = await asyncio.to_thread(shown, "--json")
        (found,) = json.loads(text)["budgets"]
        assert (status, found["budget"], found["holders"], found["limit"]) == (0, "all", 2, None)
        assert usd(30) <= Decimal(found["lent"]) <= usd(LIMIT)
        file = tmp_path / "budgets.toml"
        file.write_text(f'[[budget]]\nlimit = "{usd(LIMIT):f}"\nwindow = "total"\nname = "all"\n')
        status, text = await asyncio.to_thread(shown, "--budgets", str(file))
        assert (status, f"${usd(LIMIT):f} " in text) == (0, True), text
