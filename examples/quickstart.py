"""One call and its record.

python examples/quickstart.py && litellm-ledger report usage/
"""

from __future__ import annotations

import asyncio

from _local import provider

from litellm_ledger import LiteLLMClient


async def main() -> None:
    with provider() as options:
        async with LiteLLMClient(ledger="usage/") as client:
            answer = await client.acompletion(
                messages=[{"role": "user", "content": "What is a ledger, in one sentence?"}],
                tags={"user": "alice"},
                **options,
            )
            print(answer.choices[0].message.content)

            record = answer.usage_record  # on the ledger already, whatever happens from here on
            print(f"{record.input_tokens} tokens in, {record.output_tokens} out, ${record.cost}")


if __name__ == "__main__":
    asyncio.run(main())
