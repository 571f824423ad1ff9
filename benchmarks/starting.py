"""What importing takes, what a command takes, and what it takes to open a ledger for one record.

``python -m benchmarks starting`` runs this section alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from litellm_ledger import UsageTracker

from ._peers import INSERT, INSTALL, connect, row
from ._rounds import race
from ._size import Size
from ._table import Table, quantity, spread, times
from ._work import made

__all__ = ["run"]

_BASE: Final = "import asyncio"
_NAMES: Final = "AsyncUsageWriter, Ledger, LiteLLMClient, UsageRecord, UsageTracker"
_IMPORTS: Final = {
    "`import litellm_ledger`": (_BASE + ", litellm_ledger", None),
    "its five main names": (f"{_BASE}; from litellm_ledger import {_NAMES}", None),
    "`import litellm`": (_BASE + ", litellm", "litellm"),
    "OpenTelemetry's SDK and batch processor": (
        _BASE + "; from opentelemetry.sdk.trace.export import BatchSpanProcessor",
        "opentelemetry",
    ),
    "`import langfuse`": (_BASE + ", langfuse", "langfuse"),
    "`import sqlite3`": (_BASE + ", sqlite3", None),
}


def run(size: Size) -> list[Table]:
    """Return the tables of this section."""
    return [_imports(size), asyncio.run(_commands(size)), asyncio.run(_openings(size))]


def _imports(size: Size) -> Table:
    table = Table(
        "Import",
        ["", "ms"],
        "Milliseconds over those of `import asyncio`, each in a fresh interpreter, in turns. "
        "LiteLLM is imported by the client's first call, in a thread, or by `warm_up()`.",
    )
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    found: dict[str, list[float]] = {}
    there = {name: code for name, (code, need) in _IMPORTS.items() if need is None or _has(need)}
    # The slow ones say enough in few rounds.
    slow = {name for name in there if "litellm`" in name or "langfuse" in name}
    until = time.monotonic() + 25
    for turn in range(size(11, 1)):
        if turn > 3 and time.monotonic() > until:
            break
        base = _took(_BASE, env)
        for name, code in there.items():
            if name not in slow or (turn % 3 == 0 and not size.quick):
                found.setdefault(name, []).append((_took(code, env) - base) * 1e3)
    for name in _IMPORTS:
        if name in there:
            table.add(name, spread(found[name]) if name in found else "not with --quick")
        else:
            table.add(name, INSTALL)
    return table


def _has(package: str) -> bool:
    name = "opentelemetry.sdk" if package == "opentelemetry" else package
    with contextlib.suppress(ModuleNotFoundError):
        return find_spec(name) is not None
    return False


def _took(code: str, env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    return time.perf_counter() - began


async def _commands(size: Size) -> Table:
    table = Table(
        "A command",
        ["", "ms of CPU", "× `python -c pass`"],
        "On a ledger of 100 records, each in a fresh interpreter, in turns; modules are compiled.",
    )
    with tempfile.TemporaryDirectory() as directory:
        async with UsageTracker(directory) as tracker:
            for number in range(100):
                await tracker.record(made(number))
        compiled = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env = {**compiled, "LITELLM_LEDGER_DIR": directory}
        cases = {
            "`python -c pass`": ["-c", "pass"],
            "`litellm-ledger path`": ["-m", "litellm_ledger", "path"],
            "`litellm-ledger statusline`": ["-m", "litellm_ledger", "statusline"],
            "`litellm-ledger daily`": ["-m", "litellm_ledger", "daily"],
        }
        found: dict[str, list[float]] = {name: [] for name in cases}
        for turn in range(size(31, 1) + 1):
            for name, args in cases.items():
                took = _cpu(args, env)
                if turn:  # the first compiles
                    found[name].append(took * 1e3)
    base = found["`python -c pass`"]
    for name, values in found.items():
        ratios = [value / least for value, least in zip(values, base, strict=True)]
        table.add(name, spread(values), times(ratios))
    return table


def _cpu(args: list[str], env: dict[str, str]) -> float:
    """Run Python to its end; return the seconds of the processor that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *args], env=env, check=True, timeout=60, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def _openings(size: Size) -> Table:
    table = Table(
        "Open, one acknowledged record, close",
        ["", "ms", "× SQLite"],
        "In a new directory each time, all of it: locks, counters, directory syncs, sealing.",
    )
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        number = iter(range(1_000_000))

        async def ours(durability: str) -> None:
            own = root / f"ledger-{next(number)}"
            async with UsageTracker(own, durability=durability) as tracker:  # type: ignore[arg-type]
                await tracker.record(made(1))

        async def sqlite() -> None:
            path = root / f"usage-{next(number)}.db"
            with contextlib.closing(connect(path, synchronous="FULL")) as connection:
                connection.execute(INSERT, row(1))

        found = await race(
            {
                "litellm-ledger, written": (partial(ours, "written"), 1),
                "litellm-ledger, synced": (partial(ours, "synced"), 1),
                "SQLite (WAL, synchronous=FULL)": (sqlite, 1),
            },
            rounds=size(41, 1),
            seconds=6,
        )
    base = found["SQLite (WAL, synchronous=FULL)"]
    for name, timed in found.items():
        table.add(name, quantity(statistics.median(timed.wall) * 1e3), times(timed.over(base)))
    return table
