"""A FastAPI application that knows what each of its users costs.

    OPENAI_API_KEY=sk-... uvicorn examples.fastapi_app:app --timeout-graceful-shutdown 5

or, without a key, against a server that comes with litellm-ledger:

    python -m litellm_ledger.testing --port 9000 &
    OPENAI_API_BASE=http://127.0.0.1:9000/v1 OPENAI_API_KEY=none uvicorn examples.fastapi_app:app

then

    curl 'localhost:8000/chat' -H 'x-user: alice' --json '{"text": "What is a ledger?"}'
    curl 'localhost:8000/stream' -N -H 'x-user: bob' --json '{"text": "Tell me a story."}'
    curl 'localhost:8000/usage'
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from litellm_ledger import LiteLLMClient
from litellm_ledger.fastapi import get_client, ledger_lifespan

MODEL = "openai/gpt-4o-mini"

app = FastAPI(lifespan=ledger_lifespan(ledger="usage/", tags={"app": "example"}))


class Question(BaseModel):
    text: str

    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.text}]


async def user_client(
    client: Annotated[LiteLLMClient, Depends(get_client)], x_user: Annotated[str, Header()]
) -> AsyncIterator[LiteLLMClient]:
    """Give the client to an endpoint, and the user's tag to all that is called for the request."""
    with client.tag(user=x_user):
        yield client


UserClient = Annotated[LiteLLMClient, Depends(user_client)]


@app.post("/chat")
async def chat(question: Question, client: UserClient) -> dict[str, Any]:
    answer = await client.acompletion(MODEL, question.messages())
    record = answer.usage_record  # on the ledger already
    return {"text": answer.choices[0].message.content, "cost": record.cost}


@app.post("/stream")
async def stream(question: Question, client: UserClient) -> StreamingResponse:
    # Called here, not in the generator: if the provider refuses, the user gets an error status.
    answer = await client.acompletion(MODEL, question.messages(), stream=True)

    async def text() -> AsyncIterator[str]:
        async with answer:  # however it ends: closed at the provider, and recorded
            async for chunk in answer:
                yield chunk.choices[0].delta.content or ""

    return StreamingResponse(text(), media_type="text/plain")


@app.get("/usage")
async def usage(client: Annotated[LiteLLMClient, Depends(get_client)]) -> list[dict[str, Any]]:
    """What each user has cost since this process started."""
    return [
        {"user": row.group["tag:user"], "calls": row.calls, "cost": row.cost}
        for row in client.usage.summary(by=["tag:user"])
    ]
