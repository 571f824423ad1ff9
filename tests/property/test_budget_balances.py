"""Gates of several processes against plain sums: taken, settled, killed, rebuilt, released.

Hypothesis drives one ledger through any order of these, over the ends of windows.  Beside it stands
a list of calls.  A call is admitted if and only if the list says that there is room, and after
every step the balances are those of the list: what is held, what is spent, to the picodollar.

The processes are objects here: each writes its lines to a segment of its own and holds the lock of
its live file, and one that is killed leaves both as they are.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from litellm_ledger import Budget, BudgetExceeded, UsageRecord
from litellm_ledger._budgets import background as _background
from litellm_ledger._budgets import books as _books
from litellm_ledger._budgets import gate as _gate
from litellm_ledger._budgets.amounts import Amounts, spent_by
from litellm_ledger._budgets.books import Books
from litellm_ledger._budgets.gate import Gate, Ticket
from litellm_ledger._budgets.release import release, stranded
from litellm_ledger._budgets.table import HELD, SPENT, Table
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._records.layout import BALANCES, BUDGETS, SEGMENTS, SegmentName, record_id
from litellm_ledger._records.line import encode
from litellm_ledger._records.money import usd
from litellm_ledger._storage.filesystem import REAL
from litellm_ledger._storage.live_file import ACCEPTED, WRITTEN, LiveFile

START = datetime(2026, 3, 29, 0, 50, tzinfo=UTC)  # the clocks of Berlin go forward at 1:00
LIMIT = 100
BUDGETS_ = (
    Budget(usd(LIMIT), window="hour", tz="Europe/Berlin", per="tag:user"),
    Budget(usd(2 * LIMIT), window="3h"),
    Budget(usd(3 * LIMIT), window="total"),
)
users = st.sampled_from(["alice", "bob"])
amounts = st.integers(1, 45)


class Clock(datetime):
    """Now, as the machine's clock would tell it."""

    moment = START

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.moment


@dataclass(eq=False)
class Call:
    """A call of the model: what it holds until it counts what it spent."""

    user: str
    at: datetime
    hold: int
    spent: int | None = None
    started: bool = False
    number: int = 0
    ticket: Ticket | None = None
    seen: bool = True  # its outcome is in the table


@dataclass(eq=False)
class Process:
    """What writes to the ledger, and its gate."""

    writer: str
    live: LiveFile
    gate: Gate
    path: Path
    numbers: int = 0
    calls: list[Call] = field(default_factory=list)

    def write(self, **fields: Any) -> int:
        """Write a line; return its number."""
        self.numbers += 1
        name = record_id(self.writer, self.numbers)
        record = UsageRecord(
            id=name, seq=self.numbers, **{"operation": name, "attempt": 1, **fields}
        )
        with self.path.open("ab") as file:
            file.write(encode(record))
        self.live.cells[ACCEPTED] = self.live.cells[WRITTEN] = self.numbers
        return self.numbers


class Machine(RuleBasedStateMachine):
    """One ledger."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        for module in (_books, _gate):
            self.patch.setattr(module, "datetime", Clock)
        self.patch.setattr(_background, "LOOK", 1e9)  # nobody looks at the dead behind our back
        Clock.moment = START
        self.root = Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR")))
        for part in ("segments", "live"):
            (self.root / part).mkdir()
        self.runner = asyncio.Runner()
        self.made = 0
        self.processes: list[Process] = []
        self.dead: list[Call] = []  # and not looked at yet
        self.past: list[Call] = []
        self.released: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            for process in self.processes:
                process.gate.close()
                process.live.release()
            self.runner.close()
            self.patch.undo()
            shutil.rmtree(self.root)

    # -- the model ---------------------------------------------------------------------------------

    def counted(self, budget: Budget, user: str) -> tuple[int, int]:
        now = budget.window_at(Clock.moment)
        spent = held = 0
        every = [*self.past, *self.dead, *[one for each in self.processes for one in each.calls]]
        scope = budget.scope_of("m", {"user": user})
        for call in every:
            key = budget.window_at(call.at).key
            if now.since <= key <= now.key and budget.scope_of("m", {"user": call.user}) == scope:
                if call.spent is None or not call.seen:
                    held += call.hold
                else:
                    spent += call.spent
        return spent, held

    def looked(self) -> None:
        """Somebody has read what the dead have left."""
        for call in self.dead:
            if call.spent is None:
                call.spent = call.hold if call.started else 0
            call.seen = True
        self.past += self.dead
        self.dead.clear()

    # -- what happens ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.processes) < 3)
    @rule()
    def open(self) -> None:
        self.made += 1
        writer = f"20260329T000000Z-{self.made:016x}"
        live = LiveFile(REAL, self.root, writer, durability="written")
        path = self.root / SEGMENTS / str(SegmentName(writer, 1))
        path.touch(0o600)
        gate = Gate(self.root, BUDGETS_)
        self.runner.run(gate.open(writer))
        self.processes.append(Process(writer, live, gate, path))
        self.looked()

    def some(self, data: st.DataObject) -> Process:
        return data.draw(st.sampled_from(self.processes))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), user=users, amount=amounts, starts=st.booleans())
    def take(self, data: st.DataObject, user: str, amount: int, starts: bool) -> None:
        process = self.some(data)
        room = all(
            sum(self.counted(budget, user)) + amount <= budget.limit_units for budget in BUDGETS_
        )
        call = Call(user, Clock.moment, amount)
        try:
            taking = process.gate.take(Amounts(amount, 0), "m", {"user": user}, Clock.moment)
            call.ticket = self.runner.run(taking)
        except BudgetExceeded:
            assert not room
            return
        assert room
        process.calls.append(call)
        if starts:
            self.start_one(process, call)

    def start_one(self, process: Process, call: Call) -> None:
        call.started = True
        call.number = process.write(
            kind="started", ts=call.at, model="m", tags={"user": call.user}, hold_picousd=call.hold
        )

    @precondition(lambda self: any(each.calls for each in self.processes))
    @rule(data=st.data(), cost=st.one_of(st.none(), amounts), told=st.booleans())
    def settle(self, data: st.DataObject, cost: int | None, told: bool) -> None:
        """An outcome is written; it is ``told`` to the gate, or its process dies before that."""
        process = data.draw(st.sampled_from([each for each in self.processes if each.calls]))
        call = data.draw(st.sampled_from(process.calls))
        assert call.ticket is not None
        if not call.started:
            process.gate.drop(call.ticket)
            process.calls.remove(call)
            return
        known = cost is not None and cost <= call.hold
        fields: dict[str, Any] = (
            {"status": "ok", "cost": usd(cost or 0)}
            if known
            else {"status": "cancelled", "hold_picousd": call.hold}
        )
        operation = record_id(process.writer, call.number)
        process.write(
            kind="usage",
            ts=call.at,
            model="m",
            tags={"user": call.user},
            operation=operation,
            **fields,
        )
        call.spent = (cost or 0) if known else call.hold
        outcome = UsageRecord(**fields)
        if told:
            process.gate.settle(call.ticket, spent_by(outcome, cost if known else None))
            process.calls.remove(call)
            self.past.append(call)
        else:
            call.seen = False
            self.kill_one(process)

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), recovers=st.booleans())
    def kill(self, data: st.DataObject, recovers: bool) -> None:
        self.kill_one(self.some(data))
        if recovers:
            report = recover(self.root)
            assert not any(one.error for one in report.writers)

    def kill_one(self, process: Process) -> None:
        process.live.release()
        table = process.gate._holdings.table
        assert table is not None
        table.close()
        process.gate._background._thread.stop()
        self.processes.remove(process)
        self.dead += process.calls

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """What a thread does now and then."""
        process = self.some(data)
        process.gate._background.books._seen = ()
        process.gate._background.books.look()
        self.looked()

    @precondition(lambda self: self.processes and not self.dead)
    @rule(data=st.data(), how=st.sampled_from(["removed", "cut", "garbled"]))
    def lose_the_table(self, data: st.DataObject, how: str) -> None:
        """Those that live tell the new one what they hold, before anybody decides."""
        path = self.root / BUDGETS / BALANCES
        if how == "removed":
            path.unlink()
        elif how == "cut":
            os.truncate(path, 1000)
        else:
            path.write_bytes(b"\0" * path.stat().st_size)
        for process in [self.some(data), *self.processes]:
            self.runner.run(process.gate._background.renew())

    @precondition(lambda self: self.processes and not self.dead)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        recover(self.root)
        found = stranded(self.root)
        if found:
            one = data.draw(st.sampled_from(found)).released
            release(self.root, [one.record], who="alice", why="the bill agrees")
            tags = one.tags or {}
            self.past.append(Call(tags["user"], one.ts, 0, -one.picousd))
            self.look(data)

    @rule(minutes=st.sampled_from([1, 20, 60, 300]))
    def later(self, minutes: int) -> None:
        Clock.moment += timedelta(minutes=minutes)

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def grow(self, data: st.DataObject) -> None:
        """The table is moved to a larger file; each process finds it at its next step."""
        self.some(data).gate._background.books.grow()
        for process in self.processes:
            holdings = process.gate._holdings
            holdings._dirty.update(holdings._entries.values())
            self.runner.run(process.gate._background.renew())
        self.looked()

    # -- what holds --------------------------------------------------------------------------------

    @invariant()
    def the_balances_are_those_of_the_list(self) -> None:
        if not getattr(self, "processes", None):
            return
        for process in self.processes:
            for user in ("alice", "bob"):
                for budget in BUDGETS_:
                    scope = budget.scope_of("m", {"user": user})
                    assert scope is not None
                    found = process.gate.balance(budget, scope, Clock.moment)
                    assert (found.settled, found.held) == self.counted(budget, user)

    @invariant()
    def a_table_made_of_the_ledger_says_the_same(self) -> None:
        if not getattr(self, "processes", None) or self.dead:
            return
        unsent = [one for each in self.processes for one in each.calls if not one.started]
        if unsent:  # which the ledger cannot know
            return
        made = Books(self.root, BUDGETS_).made(Clock.moment)
        made.check()
        for user in ("alice", "bob"):
            for budget in BUDGETS_:
                scope = budget.scope_of("m", {"user": user}) or ""
                window = budget.window_at(Clock.moment)
                assert stands(made, budget, scope, window) == self.counted(budget, user)


def stands(table: Table, budget: Budget, scope: str, window: Any) -> tuple[int, int]:
    if window.since != window.key:
        head = table.find(budget.counts, scope, None)
        return table.counted(head, window.since) if head else (0, 0)
    at = table.find(budget.counts, scope, window.key)
    return (table.cells[at + SPENT], table.cells[at + HELD]) if at else (0, 0)


def run(machine: type[RuleBasedStateMachine], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        ),
    )


def test_gates_agree_with_a_plain_list() -> None:
    run(Machine, 15, 20)


@pytest.mark.matrix
def test_gates_agree_with_a_plain_list_for_long() -> None:
    run(Machine, 600, 60)
