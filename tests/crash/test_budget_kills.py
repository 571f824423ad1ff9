"""Many processes on one budget, killed at random: the provider's own bill is never over the limit.

The provider is a file: each request writes what it costs as it arrives, before anything else can
happen to the process that sent it.  So a call that dies is billed, as a provider would.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.children import Child
from tests.tally import Tally

from litellm_ledger import Budget, Ledger
from litellm_ledger._budgets.books import Books
from litellm_ledger._budgets.table import HELD, SPENT, Table
from litellm_ledger._maintenance.recover import recover

LIMIT = "5.00"
BUDGET = Budget(LIMIT, window="total")

WORK = """
import random
from types import SimpleNamespace
from litellm_ledger import Budget, BudgetExceeded, LedgerError, ModelPrice
from litellm_ledger._calls import core as _core, pricing as _pricing, straight as _straight

JOURNAL = os.open(PATH + ".bill", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
dice = random.Random(SEED)

class Provider:
    model_cost = {}
    Timeout = TimeoutError
    async def acompletion(self, **kwargs):
        tokens = dice.randint(1, kwargs["max_tokens"])
        os.write(JOURNAL, f"{10 + tokens}\\n".encode())  # billed, whatever happens now
        await asyncio.sleep(dice.random() * SECONDS)
        usage = SimpleNamespace(
            prompt_tokens=10, completion_tokens=tokens, total_tokens=10 + tokens
        )
        message = SimpleNamespace(content="hello")
        return SimpleNamespace(
            id="a", model="m", choices=[SimpleNamespace(message=message, finish_reason="stop")],
            usage=usage, _hidden_params={"custom_llm_provider": "openai"},
        )

provider = Provider()
async def litellm(self):
    return provider
_core.ClientCore.litellm = litellm
_straight.loaded = lambda: provider
_pricing._litellm.price_version = _pricing._litellm.version = lambda: "fake"
MESSAGES = [{"role": "user", "content": "hi"}]

async def caller(client):
    while True:
        try:
            await client.acompletion("m", MESSAGES, max_tokens=9_000)  # a cent, at most
        except BudgetExceeded as refused:
            if not refused.passes:
                return
            if random.random() < 0.005:  # near the limit nearly all are refused, for long
                say("on")
            await asyncio.sleep(dice.random() * SECONDS * 10)
        else:
            if not dice.randrange(50):
                say("on")

async def main():
    prices = {"m": ModelPrice(input="1", output="1")}
    budget = Budget(LIMIT, window="total")
    async with LiteLLMClient(
        PATH, budgets=[budget], prices=prices, handle_signals=False, wait_for_budget=WAITS
    ) as client:
        say("ready")
        await asyncio.gather(*[caller(client) for _ in range(CALLERS)])
        say("spent")
run(main())
"""


def begin(path: Path, seed: int, callers: int, seconds: float, sabotage: str) -> Child:
    waits = not seed // 1000 % 2
    settings = f"SEED, CALLERS, SECONDS, LIMIT = {seed}, {callers}, {seconds}, {LIMIT!r}\n"
    settings += f"WAITS = {waits}\n"
    return Child(settings + sabotage + WORK, path)


def billed(path: Path) -> int:
    """What the provider's own bill says, in picodollars."""
    return sum(int(line) * 10**6 for line in Path(f"{path}.bill").read_text().split())


def settled(path: Path, table: Table) -> tuple[int, int]:
    at = table.find(BUDGET.counts, "", BUDGET.window_at(datetime.now(UTC)).key)
    return (table.cells[at + SPENT], table.cells[at + HELD]) if at else (0, 0)


def spend(
    path: Path, processes: int, callers: int, kills: int, seed: int, sabotage: str = ""
) -> None:
    """Have processes spend the budget, killed at random while calls are in flight."""
    dice = random.Random(seed)
    with ExitStack() as stack:

        def begun(number: int) -> Child:
            child = begin(path, seed * 1000 + number, callers, 0.05, sabotage)
            return stack.enter_context(child)

        children = [begun(number) for number in range(processes)]
        for child in children:
            child.expect("ready")
        for kill in range(kills):
            time.sleep(dice.random() * 0.1)
            at = dice.randrange(processes)
            children[at].kill()
            assert children[at].end() in (-signal.SIGKILL, 0)
            children[at] = begun(processes + kill)
        for child in children:
            child.expect("spent")
            assert child.end() == 0, child.stderr


def check(path: Path, tally: Tally, kills: int) -> None:
    limit = 5 * 10**12
    bill = billed(path)
    assert bill <= limit
    statuses = Counter(record.status for record in Ledger(path).records())
    tally("processes on one budget, killed", tried=kills, promised=statuses.total(), lost=0)
    assert bill > limit * 4 // 10  # or nothing was tried
    table = Books(path, [BUDGET]).ready()
    held = settled(path, table)
    assert held == settled(path, Books(path, [BUDGET]).made(datetime.now(UTC)))
    assert bill <= held[0] <= limit  # what died is spent as far as it was held
    recover(path)  # which changes nothing of it
    assert held == settled(path, Books(path, [BUDGET]).made(datetime.now(UTC)))
    assert held == settled(path, Books(path, [BUDGET]).ready())
    table.close()


def test_processes_that_are_killed_never_spend_more_than_the_limit(
    tmp_path: Path, tally: Tally
) -> None:
    path = tmp_path / "ledger"
    spend(path, 4, 25, 5, 1)
    check(path, tally, 5)


@pytest.mark.matrix
@pytest.mark.parametrize("kills", [0, 15])
@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_callers_on_five_dollars(
    tmp_path: Path, tally: Tally, kills: int, seed: int
) -> None:
    path = tmp_path / "ledger"
    spend(path, 8, 125, kills, seed)
    check(path, tally, kills)


SABOTEURS = {
    "check, then act": """
from litellm_ledger._budgets import gate
from litellm_ledger._budgets.gate import Gate
from litellm_ledger import BudgetExceeded
step = Gate._step
def place(self, table, wants, number):
    for _, entry, _ in wants:
        if not entry.row:
            self._holdings.place(table, entry)
    return []
async def take_step(self, wants, number):
    while True:
        try:
            table = self._holdings.acquire()
            break
        except Exception:
            await asyncio.sleep(0.001)
    try:
        refused = Gate.real_look(self, table, wants, number)
        if refused:
            raise gate._refusal(table, refused)
    finally:
        self._holdings.release(table)
    while True:
        await asyncio.sleep(0.001)
        try:
            return step(self, wants, number)
        except BudgetExceeded:
            raise
        except Exception:
            pass
Gate.real_look, Gate._without_room = Gate._without_room, place
Gate._take_step = take_step
Gate.take_now = lambda *args: None
""",
    "release by time": """
from litellm_ledger._budgets.gate import Gate
from litellm_ledger._budgets.amounts import NOTHING
take_now = Gate.take_now
def hurried(self, *args):
    ticket = take_now(self, *args)
    if ticket is not None:
        asyncio.get_running_loop().call_later(0.001, self.settle, ticket, NOTHING)
    return ticket
Gate.take_now = hurried
""",
    "settle at the estimate": """
from litellm_ledger._budgets import rebuild
from litellm_ledger._calls import holding
def estimated(line, cost):
    return rebuild.Amounts(cost or 10 * 10**6, line.total_tokens or 10)
rebuild.spent_by = holding.spent_by = estimated
""",
}


@pytest.mark.parametrize("sabotage", sorted(SABOTEURS))
def test_control_a_gate_that_is_broken_on_purpose_is_caught(
    tmp_path: Path, tally: Tally, sabotage: str
) -> None:
    kills = 12 if sabotage == "settle at the estimate" else 0

    def tried() -> None:  # a race is not lost each time
        for seed in range(2, 22):
            path = tmp_path / f"ledger{seed}"
            spend(path, 3, 40, kills, seed, SABOTEURS[sabotage])
            check(path, tally, kills)

    with pytest.raises(AssertionError):
        tried()
