"""A stream that is read to its end, and one that is left early: both are on the ledger.

`include_usage` need not be asked for.  What a stream used that was left, nobody is told by the
provider: it is counted from what had come, and marked as an estimate.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from _local import provider

from litellm_ledger import CompletionStream, LiteLLMClient

MESSAGES = [{"role": "user", "content": "Count from one to twenty, in words."}]


def show(stream: CompletionStream) -> None:
    record = stream.usage_record
    assert record is not None  # the stream has ended, so its record is there
    print(f"\n  {record.status}: {record.output_tokens} tokens out, ${record.cost}", end=" ")
    print(f"(usage: {record.usage_source}; first token after {record.ttft_ms:.0f} ms)\n")


async def main() -> None:
    with provider() as options:
        async with LiteLLMClient(ledger="usage/") as client:
            await client.warm_up()  # so that the first call does not pay for importing LiteLLM
            stream = await client.acompletion(messages=MESSAGES, stream=True, **options)
            async for chunk in stream:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
            show(stream)

            stream = await client.acompletion(messages=MESSAGES, stream=True, **options)
            async with aclosing(stream):  # closes the provider's connection when we leave
                async for chunk in stream:
                    text = chunk.choices[0].delta.content or ""
                    print(text, end="", flush=True)
                    if "2" in text or "two" in text:
                        break  # enough
            show(stream)


if __name__ == "__main__":
    asyncio.run(main())
