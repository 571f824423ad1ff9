"""What the price of a call costs: ours by an entry of the price map, against LiteLLM's own.

``python -m benchmarks prices`` runs this section alone.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Callable
from typing import Any, Final

from ._rounds import race
from ._size import Size
from ._table import Table, quantity

__all__ = ["run"]

MODEL: Final = "gpt-4o-mini"


def run(size: Size) -> list[Table]:
    """Return the table of this section."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return [asyncio.run(_table(size))]


async def _table(size: Size) -> Table:
    import litellm

    from litellm_ledger._litellm import entries
    from litellm_ledger._litellm.map_price import plain_picousd, price_by_map
    from litellm_ledger._litellm.outcome import from_response

    usage = litellm.Usage(
        prompt_tokens=1_300,
        completion_tokens=200,
        total_tokens=1_500,
        prompt_tokens_details={"cached_tokens": 1_024},
        completion_tokens_details={"reasoning_tokens": 64},
    )
    answer = litellm.ModelResponse(model=MODEL, usage=usage)
    fields = {**from_response(answer), "provider": "openai", "response_model": MODEL}
    names = [name for name, entry in litellm.model_cost.items() if entry.get("mode") == "chat"]
    models = names[: size(500, 20)]
    known: Any = entries._known  # what an entry's first use pays for

    def plain() -> None:
        plain_picousd(fields, MODEL)

    def whole() -> None:
        price_by_map(fields, model=MODEL, provider="openai", call="acompletion")

    def theirs() -> None:
        litellm.completion_cost(
            completion_response=answer, model=MODEL, custom_llm_provider="openai"
        )

    def first_use() -> None:
        known.clear()
        for name in models:
            entries.entry_of(name, litellm.model_cost[name].get("litellm_provider"))

    table = Table(
        "The price of a call",
        ["", "µs of processor time", "of LiteLLM's"],
        "One chat with cached and reasoning tokens. *LiteLLM's* is `litellm.completion_cost`, "
        "which it computes for each call in any case. *A plain answer* is the way of nearly every "
        "call: whole numbers, by rates that are remembered. *Any other* makes the terms of the "
        "price in decimals. *The first use of a model* finds its entry in the price map, reads its "
        "numbers and makes its name for the price book.",
    )
    turns = size(2_000, 20)
    found = await race(
        {
            "LiteLLM's": (_often(theirs, turns), turns),
            "ours, a plain answer": (_often(plain, turns), turns),
            "ours, any other": (_often(whole, turns), turns),
            "ours, the first use of a model": (_often(first_use, 1), len(models)),
        },
        rounds=size(9, 2),
    )
    for name, timed in found.items():
        of = statistics.median(timed.cpu_over(found["LiteLLM's"]))
        table.add(name, quantity(1e6 * statistics.median(timed.cpu)), f"{of:.3f}")
    return table


def _often(work: Callable[[], None], turns: int) -> Callable[[], Any]:
    async def repeat() -> None:
        for _ in range(turns):
            work()

    return repeat
