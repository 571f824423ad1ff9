"""The applications that `test_fastapi.py` runs under uvicorn, in a process of their own.

    LEDGER=/tmp/usage UPSTREAM=http://127.0.0.1:1234/v1 uvicorn tests.integration.fastapi_server:app

`SETTLE` sets `settle_timeout`. With `OUTLIVE`, the lifespan ends only when the calls of `/detached`
have ended, some time after the client was closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse

from litellm_ledger import LiteLLMClient
from litellm_ledger.fastapi import get_client, ledger_lifespan
from litellm_ledger.testing import Behaviour

Client = Annotated[LiteLLMClient, Depends(get_client)]


@contextlib.asynccontextmanager
async def own(app: FastAPI) -> AsyncIterator[None]:
    print("own lifespan begins, client", app.state.ledger_client.statistics().state, flush=True)
    yield
    print("own lifespan ends, client", app.state.ledger_client.statistics().state, flush=True)


ledger = ledger_lifespan(
    ledger=os.environ["LEDGER"],
    tags={"app": "test"},
    settle_timeout=float(os.environ.get("SETTLE", "5")),
    warm_up="WARM_UP" in os.environ,
    lifespan=own,
)
detached_calls: set[asyncio.Task[Any]] = set()


@contextlib.asynccontextmanager
async def outlive(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    async with ledger(app) as state:
        yield state
    now = state["ledger_client"].statistics()
    print(f"client {now.state}, {now.in_flight} in flight", flush=True)
    await asyncio.wait(detached_calls)


app = FastAPI(lifespan=outlive if "OUTLIVE" in os.environ else ledger)
bare = FastAPI(lifespan=None)  # to compare with


def ask(user: str, behaviour: str) -> dict[str, Any]:
    """Arguments of a call to the test server; the prompt has five words."""
    return {
        "model": "openai/gpt-4o-mini",
        "messages": [{"role": "user", "content": f"a question asked by {user}"}],
        "api_base": os.environ["UPSTREAM"],
        "api_key": "any",
        "max_retries": 0,
        "extra_headers": Behaviour.parse(behaviour).headers(),
    }


@app.post("/chat")
async def chat(client: Client, user: str, behaviour: str = "") -> dict[str, Any]:
    with client.tag(user=user):
        await asyncio.sleep(0)  # let others set theirs in between
        answer = await client.acompletion(**ask(user, behaviour))
    return {"id": answer.usage_record.id}


async def tagged(client: Client, user: str) -> AsyncIterator[None]:
    with client.tag(user=user):
        yield


@app.post("/stream", dependencies=[Depends(tagged)])
async def stream(
    client: Client,
    user: str,
    behaviour: str = "",
    stall: bool = False,
    careful: bool = False,
) -> StreamingResponse:
    """Pass a stream on; `stall` waits for something else on the way, `careful` closes it."""
    answer = await client.acompletion(**ask(user, behaviour), stream=True)

    async def body() -> AsyncIterator[str]:
        async with answer if careful else contextlib.nullcontext():
            async for chunk in answer:
                if text := chunk.choices[0].delta.content:
                    yield json.dumps(text) + "\n"
                    if stall:
                        await asyncio.Event().wait()
        yield json.dumps({"id": answer.usage_record.id}) + "\n"

    return StreamingResponse(body(), media_type="application/jsonl")


@app.post("/later", dependencies=[Depends(tagged)])
async def later(client: Client, tasks: BackgroundTasks, user: str, behaviour: str = "") -> None:
    async def work() -> None:
        await client.acompletion(**ask(user, behaviour))

    tasks.add_task(work)


@app.post("/detached", dependencies=[Depends(tagged)])
async def detached(client: Client, user: str, behaviour: str = "") -> None:
    """Make a call that goes on when the request is cut."""
    task = asyncio.create_task(client.acompletion(**ask(user, behaviour)))
    detached_calls.add(task)
    await asyncio.shield(task)


@app.get("/signals")
async def signals(client: Client) -> str:
    return client.statistics().signals
