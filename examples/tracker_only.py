"""A ledger for usage that comes from elsewhere: no LiteLLM, no model call.

For a model on your own machines, a provider's own library, or the bill of a batch.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal

from litellm_ledger import Ledger, UsageRecord, UsageTracker


async def main() -> None:
    async with UsageTracker("usage/", tags={"env": "example"}) as tracker:
        record = await tracker.record(  # returns when the operating system has it
            UsageRecord(
                model="our-own-model",
                input_tokens=1_000,
                output_tokens=250,
                cost=Decimal("0.00125"),  # US dollars; a float is refused, for it is not exact
                tags={"user": "alice"},
                call_id="job-17",  # your own key
            )
        )
        print(f"on the ledger as {record.id}")

        for _ in range(100):  # and without waiting for each
            tracker.record_nowait(UsageRecord(model="our-own-model", output_tokens=10))
        await tracker.flush()  # all hundred are written now

        total = tracker.totals()
        print(f"{total.calls} calls, {total.output_tokens} tokens out, ${total.cost}")

    mine = Ledger("usage/").records(where={"model": "our-own-model", "tag:user": "alice"})
    print("alice's, read back:", [record.call_id for record in mine][-1])


if __name__ == "__main__":
    asyncio.run(main())
