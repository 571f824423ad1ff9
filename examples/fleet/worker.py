"""An application on one of the machines; `__main__.py` starts it.

    python worker.py LABEL MACHINE LEDGER PROVIDER DATABASE SINK

It reads orders from standard input, prints a line for each call that has ended, and `idle` after
each order:

    calls N       make N calls
    hold N        begin N calls that the provider will not answer
    spend         make calls that count against the budget of all machines, until one is refused
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

from litellm_ledger import Budget, BudgetExceeded, LiteLLMClient
from litellm_ledger.testing import Behaviour

AT_ONCE = 8
USERS = ("alice", "bob", "carol", "dave")
MODELS = ("gpt-4o-mini", "gpt-4o")
NIGHT = "night batch"
LIMIT = "0.0050"  # US dollars, for the night batch of all machines together
LONG = 500  # words of one of its answers

PATTERN = ("plain", "stream", "plain", "left", "stream", "plain", "error", "stream")


@dataclass(frozen=True, slots=True)
class Call:
    """One call; its name goes to the provider as well, so that both can be compared."""

    name: str
    number: int
    kind: str

    @property
    def behaviour(self) -> Behaviour:
        """What the provider is to do."""
        if self.kind == "held":
            return Behaviour(hang=True)
        if self.kind == "error":
            return Behaviour(status=429 if self.number % 3 else 500)
        if self.kind == "left":
            # Silent after its beginning: it ends when we leave it, however busy the machine is.
            return Behaviour(chunks=400, words_per_chunk=3, hang_after=8)
        if self.kind == "night":
            return Behaviour(chunks=LONG, slow=0.02)
        return Behaviour(chunks=5 + self.number % 40, slow=0.05, cached_tokens=self.number % 5)


class Worker:
    """Carries out orders.

    Args:
        label: begins the names of its calls.
        machine: where it runs; a tag of all its calls.
    """

    def __init__(self, client: LiteLLMClient, label: str, machine: str, provider: str) -> None:
        self._client = client
        self._label = label
        self._machine = machine
        self._provider = provider
        self._number = 0
        self._held: set[asyncio.Task[None]] = set()

    def _next(self, kind: str | None = None) -> Call:
        self._number += 1
        name = f"{self._label}-{self._number:03}"
        return Call(name, self._number, kind or PATTERN[self._number % len(PATTERN)])

    async def _send(self, call: Call) -> str:
        """Make one call; return the id of its answer."""
        options: dict[str, Any] = {
            "model": f"openai/{MODELS[0] if call.kind == 'night' else MODELS[call.number % 2]}",
            "messages": [{"role": "user", "content": f"This is the call {call.name} of many"}],
            "api_base": self._provider,
            "api_key": "none needed",
            "user": call.name,
            "max_retries": 0,  # so that a call is one request
            "max_tokens": LONG + 12,
            "service_tier": "default",
            "extra_headers": call.behaviour.headers(),
            "tags": {
                "machine": self._machine,
                "user": USERS[call.number % len(USERS)],
                "feature": NIGHT if call.kind == "night" else "chat",
                "call": call.name,
            },
        }
        if call.kind not in ("stream", "left"):
            return str((await self._client.acompletion(**options)).id)
        stream = await self._client.acompletion(**options, stream=True)
        seen = 0
        last = ""
        async with stream:
            async for chunk in stream:
                last, seen = chunk.id, seen + 1
                if call.kind == "left" and seen == 4:
                    break
        return last

    async def _one(self, free: asyncio.Semaphore, call: Call) -> None:
        async with free:
            try:
                answer = await self._send(call)
            except Exception:
                if call.kind != "error":
                    raise
                answer = "none"
            print("ended", call.name, answer, flush=True)

    async def calls(self, count: int) -> None:
        free = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._one(free, self._next()))

    async def hold(self, count: int) -> None:
        for _ in range(count):
            self._held.add(asyncio.create_task(self._hold(self._next("held"))))

    async def _hold(self, call: Call) -> None:
        await self._send(call)

    async def spend(self) -> None:
        while True:
            call = self._next("night")
            try:
                answer = await self._send(call)
            except BudgetExceeded:
                print("refused", call.name, flush=True)
                return
            print("ended", call.name, answer, flush=True)


async def main(
    label: str, machine: str, ledger: str, provider: str, database: str, sink: str
) -> None:
    import litellm  # the seconds that this takes, before anybody waits

    litellm.suppress_debug_info = True  # its banners; a program's own choice
    print("ready", flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    if not line:
        return
    async with LiteLLMClient(
        ledger,
        sink=database if sink == "sink" else None,
        budgets=[Budget(LIMIT, name=NIGHT, window="total", where={"feature": NIGHT})],
        budgets_at=database,
    ) as client:
        worker = Worker(client, label, machine, provider)
        while line:
            order, *counts = line.split()
            await getattr(worker, order)(*map(int, counts))
            print("idle", flush=True)
            line = await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
