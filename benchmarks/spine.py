"""What the ledger costs: the client against bare LiteLLM, recording against the tight loop, import.

    python benchmarks/spine.py            # about a minute

Every figure is a ratio against a peer in the same run, in turns; medians, with the quartiles as
spread.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from _rounds import compare, header

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

RECORDS = 100_000
BATCH = 256


async def client_overhead() -> None:
    import litellm

    from litellm_ledger import LiteLLMClient

    litellm.suppress_debug_info = True  # this program's own choice: no banners in the table
    call: dict[str, Any] = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "What is a ledger?"}],
        "mock_response": "A record of every amount that comes in or goes out.",
    }

    # LiteLLM puts its logging, a third of a call's work, off to a worker.  A round ends when that
    # is done: otherwise whoever yields to the loop more often is charged for more of it.
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER as LOGGING

    async def one_by_one(function: Callable[..., Any]) -> None:
        for _ in range(100):
            await function(**call)
        await LOGGING.flush()

    async def at_once(function: Callable[..., Any]) -> None:
        await asyncio.gather(*[function(**call) for _ in range(100)])
        await LOGGING.flush()

    header("The client, both records acked, against bare litellm.acompletion(mock_response=…)")
    with tempfile.TemporaryDirectory() as directory:
        async with LiteLLMClient(directory) as client:
            for name, how in (("one by one", one_by_one), ("100 at once", at_once)):
                found = await compare(
                    name,
                    partial(how, client.acompletion),
                    partial(how, litellm.acompletion),
                    operations=100,
                    rounds=40,
                )
                found.show()


async def recording() -> None:
    from litellm_ledger import UsageRecord, UsageTracker
    from litellm_ledger._frame import encode
    from litellm_ledger._layout import record_id

    own = record_id("20260101T000000Z-0123456789abcdef", 1)
    record = UsageRecord(
        model="gpt-4o-mini",
        provider="openai",
        call="acompletion",
        input_tokens=1_000,
        output_tokens=200,
        cost=Decimal("0.00027"),
        tags={"user": "alice"},
    )
    as_called = {
        "ts": datetime.now(UTC),
        "operation": own,
        "attempt": 1,
        "response_model": "gpt-4o-mini-2024-07-18",
        "cost_source": "litellm",
        "price_version": "litellm-1.106.2+f1a8efb9",
        "latency_ms": 812.345,
        "ttft_ms": 120.5,
        "stream": True,
        "call_id": "27b3b99a-e027-4bb8-9fd2-4b055e4e7cb1",
        "response_id": "chatcmpl-02e34445-080c-4d1c-b5e9-4fc468648a2a",
        "meta": {"litellm": "1.106.2"},
    }

    def changed(record: UsageRecord, **changes: Any) -> UsageRecord:
        fields = {name: getattr(record, name) for name in record.__struct_fields__}
        return UsageRecord(**{**fields, **changes})

    def numbered(record: UsageRecord) -> UsageRecord:
        known = {"ts": record.ts or datetime.now(UTC), "operation": own, "attempt": 1}
        return changed(record, id=own, seq=1, **known)

    full = numbered(record)

    async def ours(tracker: UsageTracker, record: UsageRecord) -> None:
        for _ in range(RECORDS):
            tracker.record_nowait(record)
        await tracker.flush()

    async def loop(directory: str, full: UsageRecord) -> None:
        """The limit: the same line 100,000 times; nothing numbered, queued, counted or promised."""
        fd = os.open(Path(directory) / "limit", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for start in range(0, RECORDS, BATCH):
            lines = [encode(full) for _ in range(min(BATCH, RECORDS - start))]
            os.write(fd, b"".join(lines))
        os.close(fd)

    header(f"record_nowait + flush of {RECORDS:,}, as a share of a loop of encode + crc + write")
    with tempfile.TemporaryDirectory() as directory:
        async with UsageTracker(directory, queue_size=2 * RECORDS) as tracker:
            for name, given in (
                ("share of the limit, all that a call writes", changed(record, **as_called)),
                ("share of the limit, a short record", record),
            ):
                found = await compare(
                    f"{name} ({len(encode(numbered(given)))} bytes)",
                    partial(ours, tracker, given),
                    partial(loop, directory, numbered(given)),
                    operations=RECORDS,
                    rounds=9,
                )
                found.show(inverse=True)

    async def puts() -> None:
        async with UsageTracker(directory, queue_size=2 * RECORDS) as tracker:
            for _ in range(RECORDS // 10):
                await tracker.record(record)

    header("record() one by one, each acknowledged, against os.write of its line")
    with tempfile.TemporaryDirectory() as directory:

        async def write_each() -> None:
            fd = os.open(Path(directory) / "each", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            for _ in range(RECORDS // 10):
                os.write(fd, encode(full))
            os.close(fd)

        found = await compare("record + ack", puts, write_each, operations=RECORDS // 10, rounds=5)
        found.show()


def importing() -> None:
    """``import litellm_ledger`` over ``import asyncio``, each in a fresh interpreter."""

    def took(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    names = "AsyncUsageWriter, Ledger, LiteLLMClient, UsageRecord, UsageTracker"
    codes = {
        "import asyncio": "import asyncio",
        "import litellm_ledger": "import asyncio, litellm_ledger",
        "its five main names as well": f"import asyncio; from litellm_ledger import {names}",
    }
    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(15):
        for name, code in codes.items():
            times[name].append(took(code))
    base = statistics.median(times["import asyncio"])
    print("\nImport, milliseconds over `import asyncio` (median of 15 fresh interpreters)")
    for name in list(codes)[1:]:
        print(f"{name:<58} {(statistics.median(times[name]) - base) * 1e3:>9.1f}")


if __name__ == "__main__":
    asyncio.run(client_overhead())
    asyncio.run(recording())
    importing()
