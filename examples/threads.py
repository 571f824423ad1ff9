"""Usage that is found out on other threads, recorded through the one tracker of the process.

`record_threadsafe` never blocks.  It returns a future that is done when the record is written; wait
for it where losing the record would matter, and let it be where it would not.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from litellm_ledger import UsageRecord, UsageTracker


def embed(tracker: UsageTracker, part: int) -> str:
    """Work that is not async, as a library without async support would do it."""
    tokens = sum(range(part))
    record = UsageRecord(model="local-embedder", input_tokens=tokens, tags={"part": str(part)})
    written = tracker.record_threadsafe(record).result(timeout=5.0)
    assert written.id is not None
    return written.id


async def main() -> None:
    async with UsageTracker("usage/") as tracker:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(max_workers=8) as pool:
            jobs = [loop.run_in_executor(pool, embed, tracker, part) for part in range(200)]
            ids = await asyncio.gather(*jobs)
        total = tracker.totals()
        print(f"{len(set(ids))} records from 8 threads, {total.input_tokens:,} tokens")


if __name__ == "__main__":
    asyncio.run(main())
