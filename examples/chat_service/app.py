"""A chat for several customers, and what each of them costs.

    python examples/chat_service

starts it, without a key, against a server that comes with litellm-ledger.  Then

    curl localhost:8000/chats/1 -N -H 'authorization: Bearer acme-alice' \
        --json '{"messages": [{"role": "user", "content": "How warm is it in Oslo?"}]}'
    curl localhost:8000/spend -H 'authorization: Bearer acme-alice'

and in a browser http://localhost:8000/usage/ with any name and one of the keys as the password: a
customer sees what the customer's users have spent; ``operator`` sees everything.

Each call of a model is tagged with tenant, user, route and feature: the middleware knows whose
request it is, also in the stream, in the loop with tools, and in the background task that finds a
title.  A reader may leave whenever it likes, and the server may be told to end: all that was used
is on record.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.routing import Mount, Route

from litellm_ledger import LedgerClosed, LiteLLMClient
from litellm_ledger.fastapi import (
    RequestUsage,
    UsageHealth,
    UsageTagsMiddleware,
    get_client,
    ledger_lifespan,
    usage_event_response,
)
from litellm_ledger.web import Viewer, usage_app

MODEL = os.environ.get("CHAT_MODEL", "openai/gpt-4o-mini")
LEDGER = os.environ.get("CHAT_LEDGER", "usage/")
ROUNDS = 4  # of tools, for one question
OPERATOR = "operator"

# A product has a database.
KEYS = {"acme-alice": "acme", "acme-bob": "acme", "globex-carol": "globex", "globex-dan": "globex"}
titles: dict[tuple[str, str], str] = {}  # of this worker


@dataclass(frozen=True)
class Caller:
    """Who sends a request."""

    tenant: str
    user: str


def key_of(authorization: str) -> str:
    """The key of a request: a bearer's, or the password that a browser has asked for."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return given


def caller_of(authorization: str) -> Caller | None:
    key = key_of(authorization)
    return Caller(KEYS[key], key.rpartition("-")[2]) if key in KEYS else None


async def viewer_of(request: Request) -> Viewer | None:
    """Who looks at the dashboard: a tenant at its own calls, the operator at all."""
    authorization = request.headers.get("authorization", "")
    if key_of(authorization) == OPERATOR:
        return Viewer(operator=True)
    caller = caller_of(authorization)
    if caller is None:
        raise HTTPException(401, headers={"www-authenticate": 'Basic realm="usage"'})
    return Viewer(tags={"tenant": caller.tenant})


def tags(scope: Mapping[str, Any]) -> dict[str, str]:
    """Whose a call is.  No caller: no call, because this raises where it begins."""
    caller: Caller = scope["state"]["caller"]
    return {"tenant": caller.tenant, "user": caller.user}


app = FastAPI(
    lifespan=ledger_lifespan(ledger=LEDGER, tags={"app": "chat"}),
    routes=[
        Route("/usage/health", UsageHealth()),
        Mount("/usage", usage_app(LEDGER, viewer=viewer_of)),
    ],
)
app.add_middleware(UsageTagsMiddleware, tags=tags, request_id="request", headers=True)


async def known(request: Request, authorization: Annotated[str, Header()] = "") -> Caller:
    caller = caller_of(authorization)
    if caller is None:
        raise HTTPException(401, "say who you are: authorization: Bearer acme-alice")
    request.state.caller = caller
    return caller


Known = Annotated[Caller, Depends(known)]
Client = Annotated[LiteLLMClient, Depends(get_client)]


class Question(BaseModel):
    messages: list[dict[str, Any]]


# -- a tool ------------------------------------------------------------------------------------

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "temperature",
            "description": "The temperature outside now, in degrees Celsius.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def use_tool(call: Mapping[str, Any]) -> str:
    return json.dumps({"tool": call["function"]["name"], "celsius": -3})


class Heard:
    """What the model has said so far in one round: text, and the pieces of calls of tools."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: dict[int, dict[str, Any]] = {}

    def add(self, chunk: Any) -> str:
        delta = chunk.choices[0].delta if chunk.choices else None
        for piece in (delta.tool_calls if delta else None) or ():
            call = self.calls.setdefault(
                piece.index,
                {"id": "", "type": "function", "function": {"name": "", "arguments": ""}},
            )
            call["id"] += piece.id or ""
            call["function"]["name"] += piece.function.name or ""
            call["function"]["arguments"] += piece.function.arguments or ""
        new: str = (delta.content if delta else None) or ""
        self.text += new
        return new

    def message(self) -> dict[str, Any]:
        return {
            "role": "assistant",
            "content": self.text or None,
            "tool_calls": [*self.calls.values()],
        }


# -- the chat ----------------------------------------------------------------------------------


@app.post("/chats/{chat}")
async def ask(
    chat: str, question: Question, request: Request, caller: Known, client: Client
) -> Response:
    """Answer as server-sent events: ``{"text": …}`` and ``{"tool": …}``, then what it cost."""
    usage: RequestUsage = request.state.usage
    asked: dict[str, Any] = {"model": MODEL, "tools": TOOLS, "user": usage.request_id}
    messages = [*question.messages]

    async def answer() -> AsyncIterator[dict[str, str]]:
        for _ in range(ROUNDS):
            heard = Heard()
            with client.tag(feature="chat"):
                stream = await client.acompletion(**asked, messages=messages, stream=True)
            async with stream:
                async for chunk in stream:
                    if text := heard.add(chunk):
                        yield {"text": text}
            if not heard.calls:
                return
            messages.append(heard.message())
            for call in heard.calls.values():
                yield {"tool": call["function"]["name"]}
                messages.append(
                    {"role": "tool", "tool_call_id": call["id"], "content": use_tool(call)}
                )

    async def find_title() -> None:
        """In the background, for the first question of a chat; also if the reader has left."""
        if (caller.tenant, chat) in titles:
            return
        first = question.messages[:1]
        prompt = [{"role": "system", "content": "Find a title of four words."}, *first]
        with client.tag(feature="title"):
            found = await client.acompletion(MODEL, prompt, max_tokens=16, user=usage.request_id)
        titles[caller.tenant, chat] = str(found.choices[0].message.content)

    return usage_event_response(
        answer(),
        usage_event="usage",
        done="[DONE]",
        background=BackgroundTask(find_title),
        shutdown_grace=float(os.environ.get("CHAT_GRACE", "10")),
    )


@app.get("/chats")
async def chats(caller: Known) -> dict[str, str]:
    return {chat: title for (tenant, chat), title in titles.items() if tenant == caller.tenant}


@app.get("/spend")
async def spend(caller: Known, client: Client) -> dict[str, Any]:
    """What the tenant has spent, by user, over all workers and all time."""
    await client.flush()
    report = await client.usage.report(["user"], where={"tenant": caller.tenant})
    return {
        row.group["tag:user"]: {"calls": row.calls, "usd": str(row.cost)} for row in report.rows
    }


@app.exception_handler(LedgerClosed)
async def closing(request: Request, exc: LedgerClosed) -> Response:
    return JSONResponse({"detail": "about to end"}, 503, headers={"retry-after": "1"})
