"""The two worker processes of the demo; `demo.py` starts them.

    python _demo_work.py team LEDGER URL      a few hundred calls of four users, then a clean end
    python _demo_work.py victim LEDGER URL    calls without end, until somebody kills it

Each prints a line when it is ready, waits for a line to begin, and then prints a line a call.
"""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import dataclass
from typing import Any

from litellm_ledger import LiteLLMClient
from litellm_ledger.testing import Behaviour

FEATURES = {"alice": "chat", "bob": "search", "carol": "summary", "dave": "agent"}
MODELS = ("gpt-4o-mini", "gpt-4o", "o3-mini")
AT_ONCE = 40
HELD = 7  # calls of the victim that the server never answers
RUNNING = 16  # and those that it does, over and over

MIX = {  # how a call goes: (how many, what the ledger must call it)
    "plain": (140, "ok"),
    "stream read": (56, "ok"),
    "slow": (12, "ok"),
    "stream left by break": (20, "abandoned"),
    "stream closed": (20, "abandoned"),
    "stream cancelled": (20, "cancelled"),
    "status 429": (16, "error"),
    "status 500": (16, "error"),
    "time-out": (8, "error"),
    "cancelled": (8, "cancelled"),
}

ANSWERS = {  # what the server does; a plain answer where nothing is said
    "slow": Behaviour(slow=0.5, cached_tokens=1024),
    "status 429": Behaviour(status=429, retry_after=1),
    "status 500": Behaviour(status=500),
    "time-out": Behaviour(slow=60),
    "cancelled": Behaviour(slow=60),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the plan: who makes it, and how it goes."""

    number: int
    user: str
    model: str
    how: str

    @property
    def behaviour(self) -> Behaviour:
        if self.how in ANSWERS:
            return ANSWERS[self.how]
        reasoning = 64 if self.model == "o3-mini" else 0
        if self.how == "plain":
            return Behaviour(chunks=5 + self.number % 60, reasoning_tokens=reasoning)
        if self.how == "stream read":
            return Behaviour(chunks=10, words_per_chunk=3, reasoning_tokens=reasoning)
        # Silent after its beginning: it ends when we leave it, however busy the machine is.
        return Behaviour(chunks=400, words_per_chunk=3, hang_after=8)


def plan() -> list[Call]:
    """The team's calls, the same ones on every run, well mixed."""
    users = list(FEATURES)
    every = [how for how, (count, _) in MIX.items() for _ in range(count)]
    random.Random(15).shuffle(every)
    return [
        Call(number, users[number % 4], MODELS[number % 3], how) for number, how in enumerate(every)
    ]


async def make(client: LiteLLMClient, call: Call, url: str) -> None:
    """Make one call and end it as planned."""
    options: dict[str, Any] = {
        "model": f"openai/{call.model}",
        "messages": [{"role": "user", "content": f"Question number {call.number}, if you please"}],
        "api_base": url,
        "api_key": "none needed",
        "user": call.user,  # this one goes to the server, for its own log
        "max_retries": 0,  # so that a call is one request
        "extra_headers": call.behaviour.headers(),
        "tags": {"user": call.user},
    }
    if call.how.startswith("stream"):
        await read(client, options, call.how)
    elif call.how == "cancelled":
        async with asyncio.timeout(2.0):  # when the request has left, on a busy machine too
            await client.acompletion(**options)
    else:
        timeout = 0.5 if call.how == "time-out" else 30
        await client.acompletion(**options, timeout=timeout)


async def read(client: LiteLLMClient, options: dict[str, Any], how: str) -> None:
    """Read a stream to its end, or leave it after three chunks."""
    stream = await client.acompletion(**options, stream=True)
    chunks = 0
    async for _ in stream:
        chunks += 1
        if chunks == 3:
            if how == "stream left by break":
                break
            if how == "stream closed":
                await stream.aclose()
            if how == "stream cancelled":
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)


async def team(client: LiteLLMClient, url: str) -> None:
    """All calls of the plan, some at once."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(call: Call) -> None:
        async with free:
            with client.tag(feature=FEATURES[call.user]):
                task = asyncio.create_task(make(client, call, url))
            await asyncio.wait([task])  # how it ends is the ledger's business
            failed = not task.cancelled() and task.exception() is not None
            if (failed or task.cancelled()) != (MIX[call.how][1] in ("error", "cancelled")):
                raise RuntimeError(f"{call} did not go as planned")
            print("done", flush=True)

    async with asyncio.TaskGroup() as group:
        for call in plan():
            group.create_task(one(call))


async def victim(client: LiteLLMClient, url: str) -> None:
    """Calls without end; says which answers it has seen."""

    async def one(behaviour: Behaviour) -> str:
        answer = await client.acompletion(
            "openai/gpt-4o-mini",
            [{"role": "user", "content": "The next item of the batch"}],
            api_base=url,
            api_key="none needed",
            user="erin",
            max_retries=0,
            extra_headers=behaviour.headers(),
            tags={"user": "erin", "feature": "batch"},
        )
        return str(answer.id)

    async def without_end() -> None:
        while True:
            print("ack", await one(Behaviour(slow=0.25)), flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(HELD):
            group.create_task(one(Behaviour(hang=True)))
        for _ in range(RUNNING):
            group.create_task(without_end())


async def main(role: str, ledger: str, url: str) -> None:
    """Get ready, wait for the word, work."""
    async with LiteLLMClient(ledger, tags={"env": "demo"}) as client:
        await client.warm_up()  # the seconds that importing LiteLLM takes
        import litellm

        litellm.suppress_debug_info = True  # its banners; a program's own choice
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await (team if role == "team" else victim)(client, url)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
