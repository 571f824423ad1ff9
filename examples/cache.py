"""Equal calls that cost nothing: a response cache, a burst that shares one request, a replay.

Needs the extra `cache`.
"""

from __future__ import annotations

import asyncio

from _local import provider

from litellm_ledger import Ledger, LiteLLMClient, ResponseCache

QUESTION = [{"role": "user", "content": "What is a ledger, in one sentence?"}]


async def main() -> None:
    cache = ResponseCache(ttl=3600, maxsize=10_000)  # seconds; answers
    with provider() as options:
        async with LiteLLMClient(ledger="usage/", cache=cache) as client:
            # Ten at once: one request, ten records.
            await asyncio.gather(
                *(client.acompletion(messages=QUESTION, **options) for _ in range(10))
            )

            # The second stream is a replay of the first.
            for _ in range(2):
                stream = await client.acompletion(messages=QUESTION, stream=True, **options)
                async for chunk in stream:
                    print(chunk.choices[0].delta.content or "", end="")
                record = stream.usage_record
                assert record is not None
                print(f"\n  cost {record.cost}, saved {record.saved_cost}")

            # This view asks anew.
            fresh = client.with_options(cache=None)
            await fresh.acompletion(messages=QUESTION, **options)
            print(client.statistics().cache)

    total = Ledger("usage/").report().total
    print(f"{total.calls} calls, spent ${total.cost:f}, saved ${total.saved_cost:f}")


if __name__ == "__main__":
    asyncio.run(main())
