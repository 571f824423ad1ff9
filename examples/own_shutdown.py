"""A program that ends in its own way: no `async with`, its own SIGTERM, `aclose()` by hand.

Without any of this SIGTERM and Ctrl-C are taken care of: the client drains and the process then
dies of the signal, as it would have.  Here the program wants to decide, so it says
`handle_signals=False`.  Stop it with Ctrl-C; left alone it sends itself a SIGTERM after a while.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from _local import provider

from litellm_ledger import DrainTimeout, LiteLLMClient


async def work(client: LiteLLMClient, stop: asyncio.Event, options: dict[str, Any]) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        messages = [{"role": "user", "content": f"Job {number}"}]
        await client.acompletion(messages=messages, tags={"job": str(number)}, **options)
        if number == 10:
            os.kill(os.getpid(), signal.SIGTERM)


async def main() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    client = LiteLLMClient(ledger="usage/", handle_signals=False)
    with provider() as options:
        await work(client, stop, options)
    print("asked to stop; closing")
    try:
        await client.aclose(timeout=5.0)
    except DrainTimeout as exc:  # says how many records were not written in time
        print(exc)
    print(f"{client.usage.totals().calls} calls, all on the ledger")


if __name__ == "__main__":
    asyncio.run(main())
