"""What a hit costs: a call answered by the response cache against the same call to a mock.

    python benchmarks/cache.py            # about a minute

The peer is ``litellm.acompletion(mock_response=…)``: what LiteLLM itself takes when the provider
takes no time at all.  The client's mock call is there as well, and what a cache costs a miss.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

from _rounds import compare, header

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

ANSWER = "A record of every amount that comes in or goes out."
CALL: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "What is a ledger?"}],
    "mock_response": ANSWER,
}
LONG = {
    **CALL,
    "messages": [{"role": "user", "content": "word " * 20_000}],
    "mock_response": ANSWER * 200,
}


async def hits() -> None:
    import litellm

    from litellm_ledger import LiteLLMClient, ResponseCache

    litellm.suppress_debug_info = True  # this program's own choice: no banners in the table
    # LiteLLM puts a third of a call's work off to a worker: a round ends when that is done.
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER as LOGGING

    async def one_by_one(function: Callable[..., Any], call: dict[str, Any]) -> None:
        for _ in range(100):
            await function(**call)
        await LOGGING.flush()

    async def at_once(function: Callable[..., Any], call: dict[str, Any]) -> None:
        await asyncio.gather(*[function(**call) for _ in range(100)])
        await LOGGING.flush()

    async def streamed(function: Callable[..., Any]) -> None:
        for _ in range(20):
            async for _ in await function(**CALL, stream=True):
                pass
        await LOGGING.flush()

    seeds = itertools.count()

    async def misses(function: Callable[..., Any]) -> None:
        for _ in range(50):
            await function(**CALL, seed=next(seeds))
        await LOGGING.flush()

    header("A call through the client, its record acked, against bare litellm.acompletion (mock)")
    with tempfile.TemporaryDirectory() as directory:
        async with LiteLLMClient(directory, cache=ResponseCache(maxsize=1_000)) as client:
            bare = litellm.acompletion
            cached, plain = client.acompletion, client.with_options(cache=None).acompletion
            for name, function, run, call in (
                ("hit, one by one", cached, one_by_one, CALL),
                ("hit, 100 at once", cached, at_once, CALL),
                ("hit, 100 kB asked", cached, one_by_one, LONG),
                ("no cache, one by one", plain, one_by_one, CALL),
            ):
                found = await compare(
                    name,
                    partial(run, function, call),
                    partial(run, bare, call),
                    operations=100,
                    rounds=20,
                )
                found.show()
            found = await compare(
                "hit, a stream replayed",
                partial(streamed, cached),
                partial(streamed, bare),
                operations=20,
                rounds=10,
            )
            found.show()
            header("A miss, its answer kept, against the client without a cache")
            found = await compare(
                "miss, one by one",
                partial(misses, cached),
                partial(misses, plain),
                operations=50,
                rounds=20,
            )
            found.show()


if __name__ == "__main__":
    asyncio.run(hits())
