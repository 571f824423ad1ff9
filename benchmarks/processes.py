"""One, two and four processes in one directory.

``python -m benchmarks processes`` runs this section alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from litellm_ledger import UsageTracker

from ._peers import INSERT, connect, row
from ._side_by_side import side_by_side
from ._size import Size
from ._table import Table, per_second, quantity, spread
from ._work import BATCH, limit, made

__all__ = ["run"]

_NAMES: Final = {
    "limit": "limit, a file each",
    "ledger": "litellm-ledger, one directory",
    "sqlite": "SQLite (WAL), one database",
}


def run(size: Size) -> list[Table]:
    """Return the table of this section."""
    counts = size((1, 2, 4), (1, 2))
    table = Table(
        "Several processes",
        [
            "",
            *(f"{count} × records/s" for count in counts),
            *(f"share of the limit, {count}" for count in counts),
            f"slowest batch of {counts[-1]}, ms",
        ],
        f"Each process writes batches of {BATCH} and waits for each: `record_nowait` and `flush`, "
        "a transaction, a write. All begin at one moment; the rate is that of all together until "
        f"the last is done. There are {len(os.sched_getaffinity(0))} cores.",
    )
    rates: dict[tuple[str, int], list[float]] = {}
    slowest: dict[tuple[str, int], list[float]] = {}
    until = time.monotonic() + 30
    for turn in range(size(5, 1)):
        if turn > 1 and time.monotonic() > until:
            break
        for count in counts:
            for kind in _NAMES if turn % 2 else reversed(_NAMES):
                seconds, worst = _all(kind, count, size(51_200, 2 * BATCH))
                rates.setdefault((kind, count), []).append(
                    count * size(51_200, 2 * BATCH) / seconds
                )
                slowest.setdefault((kind, count), []).append(worst)
    for kind, name in _NAMES.items():
        shares = [
            "1"
            if kind == "limit"
            else spread([a / b for a, b in zip(rates[kind, c], rates["limit", c], strict=True)])
            for c in counts
        ]
        table.add(
            name,
            *(per_second(1 / statistics.median(rates[kind, count])) for count in counts),
            *shares,
            quantity(max(slowest[kind, counts[-1]]) * 1e3),
        )
    return [table]


def _all(kind: str, count: int, records: int) -> tuple[float, float]:
    """Return seconds from the start to the last one's end, and the slowest batch of all."""
    with tempfile.TemporaryDirectory() as directory:
        if kind == "sqlite":
            connect(Path(directory, "usage.db")).close()
        arguments = [(kind, directory, str(records), str(n)) for n in range(count)]
        return side_by_side(__name__, arguments)


async def _work(kind: str, directory: Path, records: int, name: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if kind == "ledger":
            tracker = await stack.enter_async_context(UsageTracker(directory))
            one = made(1)

            async def batch(_: int) -> None:
                for _ in range(BATCH):
                    tracker.record_nowait(one)
                await tracker.flush()

        elif kind == "sqlite":
            connection = connect(directory / "usage.db")
            stack.callback(connection.close)

            async def batch(start: int) -> None:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(INSERT, [row(start + n) for n in range(BATCH)])
                connection.execute("COMMIT")

        else:

            async def batch(_: int) -> None:
                raise AssertionError("the limit is one loop")

        os.write(1, b"ready\n")
        sys.stdin.readline()
        slowest = 0.0
        if kind == "limit":
            limit(directory / name, records)
        else:
            for start in range(0, records, BATCH):
                began = time.perf_counter()
                await batch(start)
                slowest = max(slowest, time.perf_counter() - began)
        said = {"ended": time.monotonic(), "slowest": slowest}
        os.write(1, (json.dumps(said) + "\n").encode())


if __name__ == "__main__":
    what, where, number, own = sys.argv[1:]
    asyncio.run(_work(what, Path(where), int(number), own))
