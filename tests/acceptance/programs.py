"""The processes that `must_show` starts: ordinary programs that end, or are ended, in many ways.

    python programs.py NAME ARGUMENTS…

What a program has to say stands on its last line of output, as JSON, unless it is killed.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from litellm_ledger import (
    CompletionStream,
    LiteLLMClient,
    ResponseCache,
    UsageRecord,
    UsageTracker,
)

Durability = Literal["queued", "written", "synced"]

MESSAGES = [{"role": "user", "content": "a question of six words, perhaps"}]
MOCK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES, "mock_response": "an answer"}

said: dict[str, Any] = {"returned": 0, "heard": 0}


def listen() -> None:
    """Count what LiteLLM's own callback is told of, to the very end of the process."""
    # Before LiteLLM is imported: what is registered first runs last, after LiteLLM's own flush.
    atexit.register(lambda: print(json.dumps(said), flush=True))
    import litellm
    from litellm.integrations.custom_logger import CustomLogger

    class Heard(CustomLogger):  # type: ignore[misc]  # LiteLLM's base is untyped
        async def async_log_success_event(self, *args: Any, **kwargs: Any) -> None:
            said["heard"] += 1

    litellm.suppress_debug_info = True
    litellm.callbacks = [Heard()]


def bursts(ledger: str, runs: str, calls: str, how: str) -> None:
    """All calls at once, and the end of the loop right after; on one event loop after another.

    ``how``: the client is ``closed``, or ``left open``; or LiteLLM ``alone`` makes the calls.
    """
    listen()

    async def burst(call: Callable[..., Awaitable[Any]]) -> None:
        answers = await asyncio.gather(*(call(**MOCK) for _ in range(int(calls))))
        said["returned"] += len(answers)

    async def main() -> None:
        if how == "alone":
            import litellm

            await burst(litellm.acompletion)
        elif how == "closed":
            async with LiteLLMClient(ledger) as client:
                await burst(client.acompletion)
        else:
            await burst(LiteLLMClient(ledger).acompletion)

    for _ in range(int(runs)):
        asyncio.run(main())


def streams(ledger: str, each: str) -> None:
    """Streams that end in five ways; half of those that are never read are held to the end."""
    listen()
    from litellm_ledger.testing import Behaviour, OpenAIServer

    answer = " ".join(f"word{n}" for n in range(40))
    held = []

    async def begin(client: LiteLLMClient, ending: str, **more: Any) -> CompletionStream:
        said["returned"] += 1
        options = {**MOCK, "mock_response": answer, **more}
        return await client.acompletion(**options, stream=True, tags={"ending": ending})

    async def read(stream: CompletionStream, chunks: int = 1_000_000) -> None:
        async for _ in stream:
            chunks -= 1
            if not chunks:
                break

    async def read_on(stream: CompletionStream, begun: asyncio.Event) -> None:
        async for _ in stream:
            begun.set()

    async def main() -> None:
        # A mocked stream never waits, and so cannot be cancelled: these come from a server.
        waits = Behaviour(chunks=20, hang_after=3)
        with OpenAIServer(default=waits) as server:
            over_http = {
                "model": "openai/gpt-4o-mini",
                "mock_response": None,
                "api_base": server.base_url,
                "api_key": "any",
            }
            await endings(over_http)

    async def endings(over_http: dict[str, Any]) -> None:
        async with LiteLLMClient(ledger) as client:
            for number in range(int(each)):
                await read(await begin(client, "read to the end"))
                await read(await begin(client, "break"), 3)

                stream = await begin(client, "aclose")
                await read(stream, 3)
                await stream.aclose()

                begun = asyncio.Event()
                stream = await begin(client, "cancelled", **over_http)
                task = asyncio.create_task(read_on(stream, begun))
                await begun.wait()
                task.cancel()
                await asyncio.wait([task])

                stream = await begin(client, "never read")
                if number % 2:
                    held.append(stream)
                del stream, task
            gc.collect()

    asyncio.run(main())
    said["held"] = len(held)


def nursery() -> None:
    """Import LiteLLM once; then, for every line read, fork a program that calls until it is killed.

    A line is a ledger and a durability; the answer is ``pid``.  The program prints ``ack ID`` for
    each answer it has seen.  At ``queued`` an ack proves nothing, and the loop is held after it:
    the control, in which records must be missing.
    """
    import litellm

    litellm.suppress_debug_info = True
    for line in sys.stdin:
        ledger, durability = line.rsplit(maxsplit=1)
        pid = os.fork()
        if pid == 0:
            asyncio.run(endless(ledger, durability))  # type: ignore[arg-type]
            os._exit(1)
        os.write(1, f"pid {pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(1, f"ended {os.waitstatus_to_exitcode(status)}\n".encode())


async def endless(ledger: str, durability: Durability) -> None:
    async with LiteLLMClient(ledger, durability=durability) as client:

        async def one() -> None:
            while True:
                answer = await client.acompletion(**MOCK)
                os.write(1, f"ack {answer.usage_record.id}\n".encode())
                if durability == "queued":
                    time.sleep(0.02)  # noqa: ASYNC251 - on purpose

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(one())


def queue(ledger: str, records: str, number: str, loop: str) -> None:
    """Queue records and take a signal before the writer has had a turn."""

    async def main() -> None:
        size = int(records)
        async with UsageTracker(ledger, durability="queued", queue_size=size) as tracker:
            for n in range(size):
                tracker.record_nowait(UsageRecord(model="m", input_tokens=n))
            print(json.dumps({"queued": tracker.statistics().queue_depth}), flush=True)
            os.kill(os.getpid(), getattr(signal, number))
            await asyncio.sleep(60)

    if loop == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())


def in_flight(ledger: str, url: str, calls: str) -> None:
    """Make calls that are never answered; wait to be killed."""
    import litellm

    litellm.suppress_debug_info = True

    async def main() -> None:
        options = {"api_base": url, "api_key": "any", "max_retries": 0}
        async with LiteLLMClient(ledger) as client:
            calls_ = (
                client.acompletion("openai/gpt-4o-mini", MESSAGES, **options)
                for _ in range(int(calls))
            )
            await asyncio.gather(*calls_)

    asyncio.run(main())


def equal(ledger: str, url: str, other: str, calls: str) -> None:
    """Make a number of equal calls at once; then some of which each differs in one thing, twice."""
    import litellm

    litellm.suppress_debug_info = True
    one: dict[str, Any] = {"model": "openai/gpt-4o-mini", "messages": MESSAGES, "api_key": "any"}
    one["api_base"] = url
    different: dict[str, dict[str, Any]] = {
        "api_base": {"api_base": other},
        "api_key": {"api_key": "another"},
        "header": {"extra_headers": {"x-tenant": "another"}},
        "seed": {"seed": 7},
        "n": {"n": 2},
        "user": {"user": "another"},
    }

    async def main() -> None:
        async with LiteLLMClient(ledger, max_retries=0, cache=ResponseCache()) as client:
            answers = await asyncio.gather(
                *(client.acompletion(**one, tags={"n": n}) for n in range(int(calls)))
            )
            said["returned"] = len({id(answer) for answer in answers})
            for _ in range(2):
                for change in different.values():
                    await client.acompletion(**{**one, **change}, tags={"n": "different"})
            said["different"] = len(different)

    asyncio.run(main())
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    programs = (bursts, streams, nursery, queue, in_flight, equal)
    {program.__name__: program for program in programs}[sys.argv[1]](*sys.argv[2:])
