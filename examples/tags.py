"""Who used what, for which feature: tags, and sums by tag while the program runs.

Tags come from the client, from `with client.tag(...)` (every call inside, also in tasks that are
started inside) and from the call itself; the nearest wins.
"""

from __future__ import annotations

import asyncio
from typing import Any

from _local import provider

from litellm_ledger import LiteLLMClient


async def search(client: LiteLLMClient, question: str, **options: Any) -> None:
    """Knows nothing of users: the tags come along by themselves."""
    async with asyncio.TaskGroup() as group:
        for words in (question, f"{question} Be brief.", f"{question} Cite a source."):
            messages = [{"role": "user", "content": words}]
            group.create_task(client.acompletion(messages=messages, **options))


async def main() -> None:
    with provider() as options:
        async with LiteLLMClient(ledger="usage/", tags={"env": "example"}) as client:
            for user in ("alice", "bob"):
                with client.tag(user=user, feature="search"):
                    await search(client, f"What did {user} ask?", **options)
                await client.acompletion(
                    messages=[{"role": "user", "content": "Say hello."}],
                    tags={"user": user, "feature": "greeting"},
                    **options,
                )
            await client.acompletion(
                messages=[{"role": "user", "content": "Who am I?"}], tags={"user": "bob"}, **options
            )

            for row in client.usage.summary(by=["tag:user", "tag:feature"]):
                who = " / ".join(row.group.values())
                print(f"{who:<20} {row.calls} calls {row.total_tokens:>4} tokens  ${row.cost}")
            total = client.usage.totals()
            print(f"{'all':<20} {total.calls} calls {total.total_tokens:>4} tokens  ${total.cost}")
    print("\nThe same for every run so far: litellm-ledger report usage/ --by tag:user,tag:feature")


if __name__ == "__main__":
    asyncio.run(main())
