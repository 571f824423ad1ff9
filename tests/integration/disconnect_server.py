"""The application that `test_disconnect.py` runs under uvicorn, in a process of its own.

    LEDGER=/tmp/usage UPSTREAM=http://127.0.0.1:1234/v1 ABANDONED=drain \
        uvicorn tests.integration.disconnect_server:app
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from litellm_ledger import LiteLLMClient
from litellm_ledger.fastapi import get_client, ledger_lifespan
from litellm_ledger.testing import Behaviour

app = FastAPI(
    lifespan=ledger_lifespan(
        ledger=os.environ["LEDGER"], on_abandoned_stream=os.environ["ABANDONED"]
    )
)


@app.post("/stream")
async def stream(
    client: Annotated[LiteLLMClient, Depends(get_client)], user: str, behaviour: str
) -> StreamingResponse:
    answer = await client.acompletion(
        "openai/gpt-4o-mini",
        [{"role": "user", "content": "a question of words"}],
        tags={"user": user},
        stream=True,
        api_base=os.environ["UPSTREAM"],
        api_key="any",
        max_retries=0,
        extra_headers=Behaviour.parse(behaviour).headers(),
    )

    async def body() -> AsyncIterator[str]:
        async for chunk in answer:
            if text := chunk.choices[0].delta.content:
                yield text + "\n"

    return StreamingResponse(body(), media_type="text/plain")
