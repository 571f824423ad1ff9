"""The dashboard on a year of calls: how long answers take, and what the loop around it notices.

``python -m benchmarks.dashboard --lines 5000000`` makes the year, serves it in this process, writes
to it, and lets viewers in a process of their own click.  ``--ledger`` keeps the year for next time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from litellm_ledger import UsageRecord, UsageTracker
from litellm_ledger.web import Viewer, usage_app

from .reading import make

DAYS = 364
TENANTS = 5
QUESTIONS = (
    "/usage/",
    "/usage/?last=12mo",
    "/usage/?last=7d&stack=tag:feature",
    "/usage/explore?by=model&last=12mo&every=week",
    "/usage/explore?by=tag:user&last=30d",
    "/usage/explore?by=tag:feature&by=model&last=7d",
    "/usage/api/summary",
    "/usage/api/report?by=model&last=12mo",
    "/usage/api/report?by=status&every=month",
    "/usage/api/calls?limit=20",
    "/usage/live",
)
CLICKER = """
import asyncio, json, random, sys, time
import httpx
base, viewers, clicks, questions = sys.argv[1], *map(json.loads, sys.argv[2:])
async def viewer(client, number, found):
    pick = random.Random(number)
    who = {"who": f"user-{number % 5}" if number % 2 else "operator"}
    for _ in range(clicks):
        path = pick.choice(questions)
        await asyncio.sleep(pick.random() * 2)
        began = time.perf_counter()
        answer = await client.get(base + path, headers=who, timeout=300)
        found.append((path, time.perf_counter() - began, answer.status_code, len(answer.content)))
async def main():
    found = []
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(limits=limits) as client:
        async with asyncio.TaskGroup() as group:
            for number in range(viewers):
                group.create_task(viewer(client, number, found))
    print(json.dumps(found))
asyncio.run(main())
"""


async def who(request: Request) -> Viewer:
    """An operator, or the user who is named."""
    name = request.headers.get("who", "operator")
    return Viewer(operator=True) if name == "operator" else Viewer(tags={"user": name})


async def lag(found: list[float], stop: asyncio.Event) -> None:
    """Note by how much a sleep of 5 ms is late."""
    while not stop.is_set():
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        found.append(1000 * (time.perf_counter() - began - 0.005))


async def write(root: Path, stop: asyncio.Event) -> None:
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


def percentiles(values: list[float]) -> str:
    """Write the median, p95, p99 and the largest."""
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * p))] for p in (0.5, 0.95, 0.99)]
    return "p50 {:.1f}, p95 {:.1f}, p99 {:.1f}, max {:.1f} ms".format(*at, ordered[-1])


async def click(base: str, viewers: int, clicks: int, questions: tuple[str, ...]) -> list[list]:
    """Let viewers click, in a process of their own."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLICKER, base, str(viewers), str(clicks), json.dumps(questions),
        stdout=subprocess.PIPE,
    )  # fmt: skip
    out, _ = await child.communicate()
    return json.loads(out)


async def measure(root: Path, viewers: int, clicks: int) -> None:
    """Serve, warm up, click; print what it took."""
    app = Starlette(routes=[Mount("/usage", usage_app(root, viewer=who))])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.05)
    base = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    stop, lags = asyncio.Event(), list[float]()
    idle = list[float]()
    writing = asyncio.create_task(write(root, stop))
    still = asyncio.Event()
    alone = asyncio.create_task(lag(idle, still))
    await asyncio.sleep(5)
    still.set()
    await alone
    began = time.perf_counter()
    for name in ("operator", *(f"user-{n}" for n in range(TENANTS))):
        warm = CLICKER.replace('f"user-{number % 5}" if number % 2 else "operator"', repr(name))
        warm = warm.replace("pick.choice(questions)", "questions[_]").replace(
            "pick.random() * 2", "0"
        )
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", warm, base, "1", str(len(QUESTIONS)), json.dumps(QUESTIONS),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        out, _ = await child.communicate()
        slow = sorted(json.loads(out), key=lambda row: -row[1])[:3]
        print(f"cold, {name}: " + "; ".join(f"{row[1]:.1f} s {row[0]}" for row in slow))
    print(f"warmed up in {time.perf_counter() - began:.0f} s")
    noting = asyncio.create_task(lag(lags, stop))
    cpu = time.process_time()
    found = await click(base, viewers, clicks, QUESTIONS)
    cpu = time.process_time() - cpu
    stop.set()
    await noting
    await writing
    wrong = [row for row in found if row[2] != 200]
    print(f"load of the machine {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print(f"{len(found)} clicks of {viewers} viewers, {len(wrong)} of them not 200")
    print("answers: " + percentiles([1000 * row[1] for row in found]))
    for path in QUESTIONS:
        times = [1000 * row[1] for row in found if row[0] == path]
        if times:
            print(f"  {path}: median {statistics.median(times):.0f} ms of {len(times)}")
    print("the loop was late: " + percentiles(lags))
    print("  before anybody clicked: " + percentiles(idle))
    print(f"CPU of the application per click: {1000 * cpu / len(found):.2f} ms")
    server.should_exit = True
    await serving


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--ledger", type=Path)
    given = parser.parse_args()
    random.seed(1)
    with tempfile.TemporaryDirectory() as directory:
        root = given.ledger or Path(directory) / "year"
        if not (root / "segments").is_dir():
            midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            make(root, given.lines, DAYS, begin=midnight - timedelta(days=DAYS))
            subprocess.run([sys.executable, "-m", "litellm_ledger", "seal", str(root)], check=True)
        asyncio.run(measure(root, given.viewers, given.clicks))


if __name__ == "__main__":
    main()
