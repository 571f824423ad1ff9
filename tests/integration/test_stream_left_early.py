"""A stream that ends before its end: what the record says of the usage so far."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest

from litellm_ledger import LiteLLMClient
from litellm_ledger.testing import Behaviour, OpenAIServer

pytestmark = pytest.mark.asyncio

MESSAGES = [{"role": "user", "content": "three words here"}]


def options(server: OpenAIServer, behaviour: Behaviour) -> dict[str, object]:
    return {
        "model": "openai/gpt-4o-mini",
        "messages": MESSAGES,
        "api_base": server.base_url,
        "api_key": "any",
        "max_retries": 0,
        "extra_headers": behaviour.headers(),
    }


async def test_a_cancelled_stream_says_that_its_usage_is_estimated(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with LiteLLMClient(tmp_path) as client:
            behaviour = Behaviour(chunks=20, hang_after=3)
            stream = await client.acompletion(**options(server, behaviour), stream=True)  # type: ignore[call-overload]
            begun = asyncio.Event()

            async def read() -> None:
                async for chunk in stream:
                    if chunk.choices[0].delta.content:  # the first has only a role
                        begun.set()

            task = asyncio.create_task(read())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    record = stream.usage_record
    assert (record.status, record.usage_source) == ("cancelled", "estimated")
    assert record.output_tokens
    assert record.cost


async def test_a_stream_cut_by_the_provider_says_that_its_usage_is_estimated(
    tmp_path: Path,
) -> None:
    with OpenAIServer() as server:
        async with LiteLLMClient(tmp_path) as client:
            behaviour = Behaviour(chunks=20, cut_after=3)
            stream = await client.acompletion(**options(server, behaviour), stream=True)  # type: ignore[call-overload]
            with pytest.raises(openai.OpenAIError):
                async for _ in stream:
                    pass
    record = stream.usage_record
    assert (record.status, record.usage_source) == ("error", "estimated")
    assert record.provider == "openai"
    assert record.output_tokens
    assert record.cost
