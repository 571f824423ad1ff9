"""The application that `test_lifecycles.py` runs under every server: a client, and calls to make.

    LEDGER=/tmp/usage uvicorn tests.integration.lifecycle_server:app

LiteLLM is a fake, since importing the real one takes seconds. After each acknowledged record the
process says `ack <id>` on stdout. With `EARLY`, a tracker is opened, used and left open when this
module is imported, which a preloading server does before it forks. `bare` has no ledger.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from tests import fakes
from tests.runs import usage

from litellm_ledger import LedgerClosed, LiteLLMClient, UsageTracker
from litellm_ledger.fastapi import get_client, ledger_lifespan

fake = fakes.install(pytest.MonkeyPatch())


class Slow(fakes.Stream):
    """A provider that takes a minute for its stream."""

    async def __anext__(self) -> Any:
        await asyncio.sleep(0.05)
        return await super().__anext__()


async def acompletion(*, stream: bool = False, **kwargs: Any) -> Any:
    await asyncio.sleep(0)
    return Slow(1_000) if stream else fakes.answer()


fake.acompletion = acompletion  # type: ignore[method-assign]


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


early: UsageTracker | None = None
if "EARLY" in os.environ:

    async def open_early() -> None:
        global early
        early = UsageTracker(os.environ["LEDGER"])
        say("ack", (await early.record(usage("early"))).id)

    asyncio.run(open_early())

ledger = ledger_lifespan(ledger=os.environ["LEDGER"], settle_timeout=1.0, warm_up=False)
app = FastAPI(lifespan=ledger)
bare = FastAPI()
Client = Annotated[LiteLLMClient, Depends(get_client)]


async def call(client: LiteLLMClient) -> str:
    answer = await client.acompletion(model="m", messages=[])
    say("ack", answer.usage_record.id)
    return str(answer.usage_record.id)


@app.exception_handler(LedgerClosed)
async def closing(request: Request, exc: LedgerClosed) -> JSONResponse:
    """hypercorn takes requests while it ends the lifespan."""
    return JSONResponse({"detail": str(exc)}, 503)


@app.get("/ready")
@bare.get("/ready")
async def ready() -> int:
    return os.getpid()


@app.get("/busy")
async def busy(client: Client) -> str:
    return await call(client)


@app.get("/later")
async def later(client: Client, tasks: BackgroundTasks) -> None:
    async def work() -> None:
        await asyncio.sleep(0.2)
        await call(client)

    tasks.add_task(work)


@app.get("/stream")
async def stream(client: Client) -> StreamingResponse:
    answer = await client.acompletion(model="m", messages=[], stream=True)

    async def body() -> AsyncIterator[str]:
        async for _ in answer:
            yield "x\n"

    return StreamingResponse(body())
