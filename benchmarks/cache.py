"""What a hit costs: a call answered by the response cache, against the same call to a mock.

``python -m benchmarks cache`` runs this section alone.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from functools import partial
from typing import Any, Final

from ._asking import Call, ask, at_once, logged, one_by_one
from ._rounds import race
from ._size import Size
from ._table import Table, quantity, times

__all__ = ["run"]

ANSWER: Final = "A record of every amount that comes in or goes out."
CALL: Final[dict[str, Any]] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "What is a ledger?"}],
    "mock_response": ANSWER,
}
LONG: Final = {
    **CALL,
    "messages": [{"role": "user", "content": "word " * 20_000}],
    "mock_response": ANSWER * 200,
}
STREAM: Final = {**CALL, "stream": True}


def run(size: Size) -> list[Table]:
    """Return the table of this section."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return [asyncio.run(_table(size))]


async def _table(size: Size) -> Table:
    import litellm

    from litellm_ledger import LiteLLMClient, ResponseCache

    litellm.suppress_debug_info = True  # this program's own choice: no banners in the table
    count, few = size(100, 3), size(20, 2)
    seeds = itertools.count()

    async def misses(operations: int, call: dict[str, Any], function: Call) -> None:
        for _ in range(operations):
            await ask({**call, "seed": next(seeds)}, function)
        await logged()

    table = Table(
        "Response cache",
        ["", "ms a call", "peer, ms a call", "× the peer"],
        "Calls through the client, each with its record acknowledged at `written`. The peer of a "
        "hit is bare `litellm.acompletion(mock_response=…)`: what LiteLLM takes when the provider "
        "takes no time at all. The peer of a miss, its answer kept, is the client without a cache.",
    )
    with tempfile.TemporaryDirectory() as directory:
        async with LiteLLMClient(directory, cache=ResponseCache(maxsize=1_000)) as client:
            bare, cached = litellm.acompletion, client.acompletion
            plain = client.with_options(cache=None).acompletion
            for name, how, peer, call, operations in (
                ("hit, one by one", one_by_one, bare, CALL, count),
                ("hit, 100 at once", at_once, bare, CALL, count),
                ("hit, 100 kB asked", one_by_one, bare, LONG, count),
                ("hit, a stream replayed", one_by_one, bare, STREAM, few),
                ("miss, one by one", misses, plain, CALL, count),
                ("miss, a stream kept", misses, plain, STREAM, few),
            ):
                found = await race(
                    {
                        "ours": (partial(how, operations, call, cached), operations),
                        "peer": (partial(how, operations, call, peer), operations),
                    },
                    rounds=size(9, 1),
                    seconds=4,
                )
                ours, theirs = found["ours"], found["peer"]
                table.add(
                    name,
                    quantity(ours.median * 1e3),
                    quantity(theirs.median * 1e3),
                    times(ours.over(theirs)),
                )
    return table
