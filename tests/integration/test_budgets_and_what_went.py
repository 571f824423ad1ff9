"""Money that is spent in an open window stays spent when records are pruned or erased."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from tests import fakes
from tests.integration.test_budgets import ANSWER, ask, by_ledger, client
from tests.ledger_by_hand import NOON, HandMade
from tests.terminal import run

from litellm_ledger import Budget, LedgerError
from litellm_ledger._budgets.check import differences
from litellm_ledger._budgets.needs import counted_since, kept_back
from litellm_ledger._budgets.release import release, stranded
from litellm_ledger._maintenance.erase import Erased, erase
from litellm_ledger._maintenance.person import Person
from litellm_ledger._maintenance.prune import Pruning, prune
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.verify import verify
from litellm_ledger._records.layout import BALANCES, BUDGETS
from litellm_ledger._writing.upkeep import Upkeep
from litellm_ledger.testing import FaultyFileSystem

pytestmark = pytest.mark.asyncio

TOTAL = Budget("1", window="total", name="all")
ROLLING = Budget("1", window="30d", name="all")
BY_USER = Budget("1", per="tag:user", window="total", name="all")
OF_SEARCH = Budget("1", where={"feature": "search"}, window="30d", name="all")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> fakes.FakeLiteLLM:
    return fakes.install(monkeypatch)


async def spent(path: Path, *budgets: Budget) -> Path:
    async with client(path, *budgets) as one:
        await ask(one, tags={"user": "mallory", "feature": "search"})
    return path


def pruned(path: Path, later: int, *, told: bool = True) -> Pruning:
    more = {"counted_since": counted_since} if told else {}
    now = datetime.now(UTC) + timedelta(days=later)
    return prune(path, Retention(keep=timedelta(days=1)), who="a", why="b", now=now, **more)


def erased(path: Path, *, keep: bool = False, later: int = 0) -> Erased:
    counts = kept_back(path, datetime.now(UTC) + timedelta(days=later), keep=keep)
    who = Person(["user=mallory"])
    return erase(path, who, who="a", why="b", keep=keep, has_to_stay=counts)


@pytest.mark.parametrize("budget", [TOTAL, ROLLING])
async def test_what_a_budget_counts_is_not_pruned(
    tmp_path: Path, fake: fakes.FakeLiteLLM, budget: Budget
) -> None:
    path = await spent(tmp_path / "usage", budget)

    done = pruned(path, 7)

    assert (done.segments, done.counted, done.left) == (0, 1, ())
    assert by_ledger(path, budget) == {("all", ""): (ANSWER, 0)}
    assert pruned(path, 60).segments == (0 if budget is TOTAL else 1)


async def test_a_large_ledger_keeps_what_a_budget_counts_too(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    path = await spent(tmp_path / "usage", TOTAL)

    done = run("prune", path, "--max-size", "1", "--json")

    said = json.loads(done.stdout)
    assert (done.exit_code, said["segments"], said["counted"]) == (1, 0, 1)
    assert by_ledger(path, TOTAL) == {("all", ""): (ANSWER, 0)}


async def test_the_retention_of_any_client_keeps_it(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    path = await spent(tmp_path / "usage", TOTAL)

    upkeep = Upkeep(FaultyFileSystem(), path, Retention(max_size=1))
    upkeep._look()

    assert by_ledger(path, TOTAL) == {("all", ""): (ANSWER, 0)}


async def test_a_budget_that_counts_what_was_pruned_is_refused(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    path = await spent(tmp_path / "usage", TOTAL)
    assert pruned(path, 3, told=False).segments == 1
    (path / BUDGETS / BALANCES).unlink()

    for budget in (TOTAL, Budget("1", window="30d", name="all"), TOTAL):  # nothing is entered
        one = client(path, budget)
        with pytest.raises(LedgerError, match="the budget all counts records that were pruned"):
            await ask(one)
        await one.aclose()
    entered = client(path, TOTAL)
    with pytest.raises(LedgerError, match="records that were pruned"):
        async with entered:
            pass
    assert entered.statistics().state == "closed"  # and not left to the garbage collector

    await spent(path, Budget("1", window="total", unbounded="allow"))
    await spent(path, Budget("1", window="total", mode="soft"))


async def test_what_a_budget_counts_is_erased_when_its_window_has_ended(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    path = await spent(tmp_path / "usage", ROLLING)

    done = erased(path)

    assert (done.records, done.waiting, done.counted, done.done) == (0, 2, 2, False)
    assert by_ledger(path, ROLLING) == {("all", ""): (ANSWER, 0)}
    said = run("erase", path, "--where", "user=mallory", "--yes")
    assert said.exit_code == 1
    assert "2 records not erased yet: budgets count what they cost." in said.output
    assert erased(path, later=60).records == 2


@pytest.mark.parametrize("budget", [TOTAL, BY_USER])
async def test_amounts_that_are_kept_still_count(
    tmp_path: Path, fake: fakes.FakeLiteLLM, budget: Budget
) -> None:
    path = await spent(tmp_path / "usage", budget)
    assert erased(path).counted == 2

    assert erased(path, keep=True).records == 2

    scope = "user=(none)" if budget is BY_USER else ""
    assert by_ledger(path, budget) == {("all", scope): (ANSWER, 0)}
    assert differences(path, [budget]) == []


async def test_tags_that_a_budget_asks_for_stay_while_it_counts(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    path = await spent(tmp_path / "usage", OF_SEARCH)

    assert erased(path, keep=True).counted == 2

    assert by_ledger(path, OF_SEARCH) == {("all", ""): (ANSWER, 0)}


async def test_verify_does_not_take_an_erasure_for_a_wrong_balance(
    tmp_path: Path, fake: fakes.FakeLiteLLM
) -> None:
    path = await spent(tmp_path / "usage", TOTAL)

    assert erase(path, Person(["user=mallory"]), who="a", why="b").records == 2

    assert differences(path, [TOTAL]) == []


@pytest.mark.parametrize("keep", [False, True])
async def test_what_was_released_is_erased_with_its_call(tmp_path: Path, *, keep: bool) -> None:
    hand = HandMade(tmp_path / "usage")
    dollar = 10**12
    calls = [
        hand.line(
            seq,
            ts=NOON,
            cost=Decimal("0.1"),
            hold_picousd=dollar,
            status="cancelled",
            tags={"user": user},
        )
        for seq, user in enumerate(("mallory", "bob"), 1)
    ]
    hand.sealed(1, 2, calls)
    seal(hand.root)
    release(hand.root, [one.released.record for one in stranded(hand.root)], who="op", why="bill")
    assert by_ledger(hand.root, TOTAL) == {("all", ""): (dollar // 5, 0)}

    done = erased(hand.root, keep=keep)

    assert (done.records, done.adjustments, done.marks, done.left) == (1, 1, (), ())
    left = dollar // 5 if keep else dollar // 10
    assert by_ledger(hand.root, TOTAL) == {("all", ""): (left, 0)}
    assert stranded(hand.root) == []
    assert verify(hand.root).ok
    assert erased(hand.root, keep=keep).nothing
