"""Rounds of calls, of the client or of LiteLLM.

A round ends when LiteLLM's logging is done, a third of a call's work, which it puts off to a
worker: else the one that yields to the loop more often is charged for more of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Call", "ask", "at_once", "logged", "one_by_one"]

Call = Callable[..., Awaitable[Any]]


async def ask(call: dict[str, Any], function: Call) -> None:
    answer = await function(**call)
    if call.get("stream"):
        async for _ in answer:
            pass


async def one_by_one(count: int, call: dict[str, Any], function: Call) -> None:
    for _ in range(count):
        await ask(call, function)
    await logged()


async def at_once(count: int, call: dict[str, Any], function: Call) -> None:
    await asyncio.gather(*[ask(call, function) for _ in range(count)])
    await logged()


async def logged() -> None:
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    await asyncio.sleep(0)
    await GLOBAL_LOGGING_WORKER.flush()
