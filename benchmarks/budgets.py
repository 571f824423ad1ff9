"""What budgets cost: decisions of several processes on one budget, and what a call pays for one.

``python -m benchmarks budgets`` runs this section alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from litellm_ledger import Budget, LiteLLMClient, UsageTracker
from litellm_ledger._budgets.amounts import Amounts
from litellm_ledger._budgets.gate import Gate
from litellm_ledger._tracking.tracker import serve_client

from ._rounds import race
from ._side_by_side import side_by_side
from ._size import Size
from ._table import Table, per_second, quantity, spread, times

__all__ = ["run"]

_NAMES: Final = {"ledger": "litellm-ledger", "sqlite": "SQLite (WAL), BEGIN IMMEDIATE"}
_HOLD: Final = 10**7
_LIMIT: Final = "9000000"


def run(size: Size) -> list[Table]:
    """Return the tables of this section."""
    return [_decisions(size), asyncio.run(_calls(size))]


def _decisions(size: Size) -> Table:
    counts = size((1, 2, 4, 8), (1, 2))
    table = Table(
        "Decisions on one budget",
        [
            "",
            *(f"{count} × calls/s" for count in counts),
            *(f"over SQLite, {count}" for count in counts),
            f"slowest of {counts[-1]}, ms",
        ],
        "Each process decides about a call (is there room? then hold), and settles it, again and "
        "again: two steps on the table of balances, two transactions. Neither syncs. "
        f"There are {len(os.sched_getaffinity(0))} cores.",
    )
    number = size(20_000, 50)
    rates: dict[tuple[str, int], list[float]] = {}
    slowest: dict[tuple[str, int], list[float]] = {}
    until = time.monotonic() + 60
    for turn in range(size(5, 1)):
        if turn > 1 and time.monotonic() > until:
            break
        for count in counts:
            for kind in _NAMES if turn % 2 else reversed(_NAMES):
                each = max(50, number // count // (1 if kind == "ledger" else 4))
                seconds, worst = _all(kind, count, each)
                rates.setdefault((kind, count), []).append(count * each / seconds)
                slowest.setdefault((kind, count), []).append(worst)
    for kind, name in _NAMES.items():
        shares = [
            times([a / b for a, b in zip(rates[kind, c], rates["sqlite", c], strict=True)])
            for c in counts
        ]
        table.add(
            name,
            *(per_second(1 / statistics.median(rates[kind, count])) for count in counts),
            *shares,
            quantity(max(slowest[kind, counts[-1]]) * 1e3),
        )
    return table


def _all(kind: str, count: int, each: int) -> tuple[float, float]:
    """Return seconds from the start to the last one's end, and the slowest decision of all."""
    with tempfile.TemporaryDirectory() as directory:
        if kind == "sqlite":
            with contextlib.closing(_connect(directory)) as connection:
                connection.execute(
                    "CREATE TABLE budget (name TEXT PRIMARY KEY, spent INTEGER, held INTEGER)"
                )
                connection.execute("INSERT INTO budget VALUES ('all', 0, 0)")
        return side_by_side(__name__, [(kind, directory, str(each))] * count)


def _connect(directory: str) -> sqlite3.Connection:
    connection = sqlite3.connect(Path(directory, "budgets.db"), isolation_level=None, timeout=60)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    return connection


async def _work(kind: str, directory: str, each: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if kind == "ledger":
            tracker = await stack.enter_async_context(UsageTracker(directory))
            gate = Gate(Path(directory), [Budget(_LIMIT, window="total")])
            await gate.open(serve_client(tracker, tracker.aclose).writer)
            stack.callback(gate.close)
            hold, spent, now = Amounts(_HOLD, 0), Amounts(_HOLD // 2, 0), datetime.now(UTC)

            async def call() -> None:
                ticket = gate.take_now(hold, "m", None, now)
                if ticket is None:
                    ticket = await gate.take(hold, "m", None, now)
                gate.settle(ticket, spent)

        else:
            connection = _connect(directory)
            stack.callback(connection.close)
            execute = connection.execute

            async def call() -> None:
                execute("BEGIN IMMEDIATE")
                spent, held = execute(
                    "SELECT spent, held FROM budget WHERE name = 'all'"
                ).fetchone()
                if spent + held + _HOLD <= 9 * 10**18:
                    execute("UPDATE budget SET held = held + ? WHERE name = 'all'", (_HOLD,))
                execute("COMMIT")
                execute("BEGIN IMMEDIATE")
                execute(
                    "UPDATE budget SET held = held - ?, spent = spent + ? WHERE name = 'all'",
                    (_HOLD, _HOLD // 2),
                )
                execute("COMMIT")

        await call()
        os.write(1, b"ready\n")
        sys.stdin.readline()
        slowest = 0.0
        for _ in range(each):
            began = time.perf_counter()
            await call()
            slowest = max(slowest, time.perf_counter() - began)
        said = {"ended": time.monotonic(), "slowest": slowest}
        os.write(1, (json.dumps(said) + "\n").encode())


async def _calls(size: Size) -> Table:
    table = Table(
        "What a call pays for a budget",
        ["", "µs of processor time", "more than without"],
        "A mocked `acompletion` of LiteLLM's, through a client without budgets, with one and with "
        "three (a day's, a rolling month by tag, calls), in turns.",
    )
    budgets = {
        "no budget": None,
        "one budget": [Budget(_LIMIT, window="day")],
        "three budgets": [
            Budget(_LIMIT, window="day"),
            Budget(_LIMIT, window="30d", per="tag:user"),
            Budget(10**9, unit="calls"),
        ],
    }
    number = size(200, 5)
    async with contextlib.AsyncExitStack() as stack:
        contenders = {}
        for name, chosen in budgets.items():
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            client = await stack.enter_async_context(
                LiteLLMClient(directory, budgets=chosen, handle_signals=False)
            )

            async def calls(client: LiteLLMClient = client) -> None:
                for _ in range(number):
                    await client.acompletion(
                        model="gpt-4o-mini",
                        messages=[{"role": "user", "content": "What is the capital of France?"}],
                        max_tokens=100,
                        mock_response="Paris.",
                        tags={"user": "alice"},
                    )

            contenders[name] = (calls, number)
        found = await race(contenders, rounds=size(15, 1))
    plain = found["no budget"].cpu
    for name, timed in found.items():
        more = [mine - base for mine, base in zip(timed.cpu, plain, strict=True)]
        table.add(
            name,
            spread([seconds * 1e6 for seconds in timed.cpu]),
            "0" if name == "no budget" else spread([seconds * 1e6 for seconds in more]),
        )
    return table


if __name__ == "__main__":
    what, where, each_ = sys.argv[1:]
    asyncio.run(_work(what, where, int(each_)))
