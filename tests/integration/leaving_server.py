"""The application that `test_leaving.py` runs under every server: streams, and who they are for.

    LEDGER=/tmp/usage uvicorn tests.integration.leaving_server:app

LiteLLM is a fake, since importing the real one takes seconds.  `GRACE` and `SEND_TIMEOUT` are the
seconds of those options.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response
from tests import fakes

from litellm_ledger import LiteLLMClient
from litellm_ledger.fastapi import (
    UsageTagsMiddleware,
    get_client,
    ledger_lifespan,
    usage_event_response,
    usage_streaming_response,
)

fake = fakes.install(pytest.MonkeyPatch())
HANG = 10**9


class Provider(fakes.Stream):
    """A provider that has sent some chunks and takes for ever with the next."""

    def __init__(self, count: int, size: int, hang_at: int) -> None:
        super().__init__(count)
        self._size, self._hang_at = size, hang_at

    async def __anext__(self) -> Any:
        if len(self.chunks) == self._hang_at:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        found = await super().__anext__()
        for choice in found.choices:
            choice.delta.content = "x" * self._size + "\n"
        return found


async def acompletion(*, stream: bool = False, **kwargs: Any) -> Any:
    await asyncio.sleep(0)
    return Provider(**kwargs["user"]) if stream else fakes.answer()


fake.acompletion = acompletion  # type: ignore[method-assign]

app = FastAPI(lifespan=ledger_lifespan(os.environ["LEDGER"], settle_timeout=1.0, warm_up=False))
app.add_middleware(UsageTagsMiddleware, from_headers={"x-user": "user"}, headers=True)
Client = Annotated[LiteLLMClient, Depends(get_client)]
Grace = float(os.environ["GRACE"])


@app.get("/ready")
async def ready() -> int:
    return os.getpid()


async def ask(client: LiteLLMClient, count: int, size: int, hang_at: int) -> Any:
    asked: Any = {"count": count, "size": size, "hang_at": hang_at}
    return await client.acompletion(model="m", messages=[], stream=True, user=asked)


@app.get("/stream/{how}")
async def stream(
    how: str, client: Client, count: int = 9, size: int = 1, hang_at: int = HANG
) -> Response:

    async def careless() -> AsyncIterator[str]:
        """Opens its stream itself, and waits for something else while it is open."""
        inner = await ask(client, count, size, hang_at)
        async for chunk in inner:
            yield chunk.choices[0].delta.content if chunk.choices else ""
            if how == "elsewhere":
                await asyncio.Event().wait()

    options: Any = {"send_timeout": float(os.environ["SEND_TIMEOUT"]), "shutdown_grace": Grace}
    if how in ("events", "plain"):
        answer = await ask(client, count, size, hang_at)
        if how == "events":
            return usage_event_response(answer, ping=0.05, done="[DONE]", **options)
        return usage_streaming_response(answer, **options)
    return usage_streaming_response(careless(), **options)


@app.post("/body")
async def body(request: Request, client: Client) -> str:
    """Read a large body, which has the server stop and start its reading, and make a call."""
    async for _ in request.stream():
        await asyncio.sleep(0)
    answer = await client.acompletion(model="m", messages=[])
    return str(answer.usage_record.tags.get("user"))


async def unmarked(scope: Any, receive: Any, send: Any) -> None:
    """The application, and a path that the middleware does not see."""
    if scope["type"] == "http" and scope["path"] == "/context":
        found = contextvars.copy_context().items()
        requests = [value for name, value in found if name.name == "litellm_ledger_request"]
        in_force = sum(value is not None for value in requests)
        content = f"{in_force} in force of {len(requests)} known".encode()
        length = (b"content-length", b"%d" % len(content))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": content})
    else:
        await app(scope, receive, send)
