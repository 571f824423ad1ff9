"""The dashboard on a year of calls: how long answers take, and what the loop around it notices.

``python -m benchmarks.dashboard`` makes a sealed year of five million calls, serves it in this
process beside an application that records, and lets viewers in a process of their own click; some
of them watch calls as they end.  ``--ledger`` keeps the year for next time.

Warm means here: an operator has asked each question once, and so has one tenant, ``user-0``, in a
process that has just begun; then what is loaded in the background has been loaded, which shows in
processes that rest.  Of the viewers who then click every sixth is an operator, the others
are tenants, each a different one as far as the 50 of the year go; so most of their questions are
asked for the first time by this tenant, which a row of its own tells.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from litellm_ledger import Budget, UsageRecord, UsageTracker
from litellm_ledger._budgets.known import remember
from litellm_ledger.web import Viewer, usage_app

from ._table import Table, quantity
from ._year import make_year

__all__ = ["QUESTIONS", "measure"]

DAYS = 364
TENANTS = 50
OPERATORS = 6
"""Every such viewer is one."""
_RESTING = 0.15
"""Seconds of CPU a second that processes take which only read what is new."""
QUESTIONS = (
    "/usage/",
    "/usage/?last=12mo",
    "/usage/?last=7d&stack=tag:feature",
    "/usage/explore?by=model&last=12mo&every=week",
    "/usage/explore?by=tag:user&last=30d",
    "/usage/explore?by=tag:feature&by=model&last=7d",
    "/usage/explore?view=calls&status=ok",
    "/usage/live",
    "/usage/api/summary",
    "/usage/api/report?by=model&last=12mo",
    "/usage/api/report?by=status&every=month",
    "/usage/api/calls?limit=20",
    "/usage/api/budgets",
)
CLICKER = """
import asyncio, json, random, sys, time
import httpx
base = sys.argv[1]
viewers, watching, clicks, pause, questions = map(json.loads, sys.argv[2:7])
names = json.loads(sys.argv[7])
async def watch(client, who):
    async with client.stream("GET", base + "/usage/api/events", headers=who, timeout=None) as told:
        async for _ in told.aiter_raw():
            pass
async def viewer(client, number, found):
    pick = random.Random(number)
    name = names[number % len(names)]
    who = {"who": name}
    watched = asyncio.create_task(watch(client, who)) if number < watching else None
    for click in range(clicks):
        path = pick.choice(questions) if pause else questions[click]
        await asyncio.sleep(pick.random() * pause)
        began = time.perf_counter()
        answer = await client.get(base + path, headers=who, timeout=600)
        spent = time.perf_counter() - began
        found.append((path, spent, answer.status_code, len(answer.content), name, began))
    if watched:
        watched.cancel()
async def main():
    found = []
    limits = httpx.Limits(max_connections=400)
    async with httpx.AsyncClient(limits=limits) as client:
        async with asyncio.TaskGroup() as group:
            for number in range(viewers):
                group.create_task(viewer(client, number, found))
    print(json.dumps(found))
asyncio.run(main())
"""

Click = tuple[str, float, int, int, str, float]
"""Which question, its seconds, status and bytes of the answer; who asked, and when."""


async def who(request: Request) -> Viewer:
    """An operator, or the user who is named."""
    name = request.headers.get("who", "operator")
    return Viewer(operator=True) if name == "operator" else Viewer(tags={"user": name})


async def _lag(found: list[float], stop: asyncio.Event) -> None:
    """Note by how many ms a sleep of 5 ms is late."""
    while not stop.is_set():
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        found.append(1000 * (time.perf_counter() - began - 0.005))


async def _write(root: Path, stop: asyncio.Event) -> None:
    """Record ten calls a second, as the application around it would."""
    async with UsageTracker(root, handle_signals=False) as tracker:
        number = 0
        while not stop.is_set():
            number += 1
            tags = {"user": f"user-{number % 50}", "feature": "chat"}
            await tracker.record(
                UsageRecord(model="gpt-4o", ts=datetime.now(UTC), input_tokens=10, tags=tags)
            )
            await asyncio.sleep(0.1)


def _part(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


async def _click(
    base: str, names: Sequence[str], *, viewers: int, watching: int, clicks: int, pause: float
) -> list[Click]:
    """Let viewers click, in a process of their own; without a pause each question once."""
    given = [viewers, watching, clicks, pause, QUESTIONS, names]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLICKER, base, *map(json.dumps, given), stdout=subprocess.PIPE
    )
    out, _ = await child.communicate()
    return [(*click,) for click in json.loads(out)]


@contextlib.asynccontextmanager
async def _served(root: Path) -> AsyncIterator[str]:
    app = Starlette(routes=[Mount("/usage", usage_app(root, viewer=who))])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def _children() -> float:
    """Return the CPU seconds of the processes that this one has started and that run."""
    found = 0
    me = str(os.getpid())
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, _, rest = path.read_text().rpartition(") ")
            fields = rest.split()
            if fields[1] == me:
                found += int(fields[11]) + int(fields[12])
    return found / os.sysconf("SC_CLK_TCK")


def _peak() -> float:
    """Return the most memory that one of those processes has had, in MiB."""
    found = [0.0]
    me = f"PPid:\t{os.getpid()}\n"
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            if me in text:
                found += [int(n.split()[1]) / 1024 for n in text.splitlines() if "VmHWM" in n]
    return max(found)


async def _rest() -> None:
    """Wait until the processes that answer have nothing to do: all that they load is loaded."""
    before = _children()
    while True:
        await asyncio.sleep(3)
        now = _children()
        if now - before < _RESTING * 3:
            return
        before = now


async def measure(root: Path, viewers: int, watching: int, clicks: int, pause: float) -> Table:
    """Serve, warm up, click; return what it took."""
    idle, first, clicked = list[float](), list[float](), list[float]()
    ending, still, warm, quiet = (asyncio.Event() for _ in range(4))
    tenants = [f"user-{number}" for number in range(TENANTS)]
    names = [*tenants]
    for at in range(0, TENANTS + TENANTS // (OPERATORS - 1), OPERATORS):
        names.insert(at, "operator")
    budgets = [Budget("9000", window="month"), Budget("90", per="user", window="day")]
    remember(root, "20250101T000000Z-00000000000000aa", budgets)
    cold: dict[str, list[Click]] = {}
    async with _served(root) as base:
        writing = asyncio.create_task(_write(root, ending))
        noting = asyncio.create_task(_lag(idle, still))
        await asyncio.sleep(3)
        still.set()
        await noting
        began = time.perf_counter()
        noting = asyncio.create_task(_lag(first, warm))
        for name in ("operator", "user-0"):
            cold[name] = await _click(
                base, [name], viewers=1, watching=0, clicks=len(QUESTIONS), pause=0
            )
        warming = time.perf_counter() - began
        await _rest()
        loading = time.perf_counter() - began
        warm.set()
        await noting
        noting = asyncio.create_task(_lag(clicked, quiet))
        cpu, theirs = time.process_time(), _children()
        found = await _click(
            base, names, viewers=viewers, watching=watching, clicks=clicks, pause=pause
        )
        cpu, theirs = time.process_time() - cpu, _children() - theirs
        quiet.set()
        ending.set()
        await noting
        await writing
    late = {"idle": idle, "warming up": first, "clicked at": clicked}
    return _table(found, cold, late, watching, (warming, loading), (cpu, theirs), _peak())


def _table(
    found: Sequence[Click],
    cold: dict[str, list[Click]],
    late: dict[str, list[float]],
    watching: int,
    waited: tuple[float, float],
    cpu: tuple[float, float],
    peak: float,
) -> Table:
    wrong = sum(click[2] != 200 for click in chain(found, *cold.values()))
    table = Table(
        f"The dashboard: {len(found):,} clicks, {watching} more connections that watch",
        ["ms", "clicks", "p50", "p95", "p99", "max", "cold, operator", "cold, a tenant", "bytes"],
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
        f"; {wrong} answers not 200. Cold: the first time in this process, in this order.",
    )
    asked = {(name, click[0]) for name in cold for click in cold[name]}
    firsts_of = list[Click]()
    for click in sorted(found, key=lambda click: click[5]):
        if (click[4], click[0]) not in asked:
            asked.add((click[4], click[0]))
            firsts_of.append(click)
    groups = {
        "all of them": found,
        "of these asked by this viewer before": [one for one in found if one not in firsts_of],
        "of these asked by this viewer for the first time": firsts_of,
    }
    for path in (*QUESTIONS, *groups):
        every = groups.get(path) or [click for click in found if path == click[0]]
        spent = [1000 * click[1] for click in every]
        firsts = [
            quantity(1000 * click[1])
            for name in ("operator", "user-0")
            for click in cold[name]
            if click[0] == path
        ]
        table.add(
            path, f"{len(every):,}", *(quantity(_part(spent, p)) for p in (0.5, 0.95, 0.99, 1)),
            *(firsts or ["", ""]), f"{max((click[3] for click in every), default=0):,}",
        )  # fmt: skip
    for name, values in late.items():
        parts = (quantity(_part(values, part)) for part in (0.5, 0.95, 0.99, 1))
        table.add(f"late: the loop, {name}", f"{len(values):,}", *parts)
    per_click = [1000 * seconds / max(1, len(found)) for seconds in cpu]
    table.add("CPU a click, the application", "", quantity(per_click[0]))
    table.add("CPU a click, its children", "", quantity(per_click[1]))
    table.add("first questions answered, s", "", quantity(waited[0]))
    table.add("all of it loaded, s", "", quantity(waited[1]))
    table.add("the largest child, MiB", "", quantity(peak))
    return table


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=5_000_000)
    parser.add_argument("--viewers", type=int, default=60)
    parser.add_argument("--watching", type=int, default=10)
    parser.add_argument("--clicks", type=int, default=13)
    parser.add_argument(
        "--pause", type=float, default=20.0, help="seconds; a click waits half of it"
    )
    parser.add_argument("--ledger", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = given.ledger or Path(directory) / "year"
        if not (root / "segments").is_dir():
            began = time.perf_counter()
            midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            make_year(root, given.lines, DAYS, midnight - timedelta(days=DAYS))
            print(f"made {given.lines:,} calls in {time.perf_counter() - began:.0f} s", flush=True)
        asked = given.viewers, given.watching, given.clicks, given.pause
        table = asyncio.run(measure(root, *asked))
    print(table.text())
    print(f"\n{table.notes}")


if __name__ == "__main__":
    main()
