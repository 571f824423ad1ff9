"""The programs of the trial of operation: a writer that lives through it, and a count of a ledger.

    write DIRECTORY RECORDS DAYS SEGMENT SEED    a history of DAYS days, then 50 records a second
    count DIRECTORY UNTIL lines|database         what reports say of the time before, as JSON

A writer prints ``ready`` when its history is written, records until its standard input ends, and
says how many records were acknowledged and how long the slowest acknowledgement took since.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

from litellm_ledger import Ledger, UsageRecord, UsageTracker
from litellm_ledger._reports import engine
from litellm_ledger._storage.segment import SegmentLog
from litellm_ledger._writing import backlog

__all__ = ["count", "write"]

_MODELS: Final = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4")
_PAUSE: Final = 0.02
_QUESTIONS: Final[tuple[list[str], ...]] = (["month", "model"], ["user"])


def _record(chance: random.Random, ts: datetime) -> UsageRecord:
    return UsageRecord(
        ts=ts,
        model=chance.choice(_MODELS),
        provider="openai",
        call="acompletion",
        status="ok" if chance.random() < 0.98 else "error",
        input_tokens=chance.randrange(4_000),
        output_tokens=chance.randrange(500),
        cost=Decimal(chance.randrange(10**9)).scaleb(-12),
        cost_source="price_map",
        latency_ms=chance.random() * 1_000,
        tags={"user": f"person-{chance.randrange(40):02d}@example.com", "env": "prod"},
    )


async def write(directory: Path, records: int, days: float, segment: int, seed: int) -> None:
    """Write a history, then go on."""
    backlog.SegmentLog = partial(SegmentLog, rotate_bytes=segment)  # type: ignore[misc,assignment]
    chance = random.Random(seed)
    begin = datetime.now(UTC) - timedelta(days=days)
    step = timedelta(days=days) / records
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    slowest, done = 0.0, records
    async with UsageTracker(directory) as tracker:
        for n in range(records):
            await tracker.record(_record(chance, begin + n * step))
        print("ready", flush=True)
        while not ended.is_set():
            one = _record(chance, datetime.now(UTC))
            began = time.perf_counter()
            await tracker.record(one)
            slowest = max(slowest, time.perf_counter() - began)
            done += 1
            await asyncio.sleep(_PAUSE)
    print(json.dumps({"acknowledged": done, "slowest_ms": round(slowest * 1_000, 1)}))


def count(directory: Path, until: datetime | None, way: str) -> dict[str, Any]:
    """Return what reports say, by one of the two engines: sums in all, and a digest of all rows."""
    engine._is_large = lambda *_: way == "database"
    ledger = Ledger(directory)
    found = [ledger.report(by, until=until) for by in _QUESTIONS]
    rows = hashlib.sha256(repr([one.rows for one in found]).encode()).hexdigest()
    total = found[0].total
    return {
        "calls": total.calls,
        "picousd": int(Decimal(total.cost or 0).scaleb(12)),
        "input_tokens": total.input_tokens,
        "not included": [one.pruned for one in found],
        "problems": sum(len(one.problems) for one in found),
        "rows": rows[:16],
    }


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "write":
        records, days, segment, seed = rest
        asyncio.run(write(Path(where), int(records), float(days), int(segment), int(seed)))
    else:
        until = None if rest[0] == "now" else datetime.fromisoformat(rest[0])
        print(json.dumps(count(Path(where), until, rest[1])))
