"""How each framework asks a model through LiteLLM: a call and a stream, awaited or not.

Each function imports its framework, which is installed in an environment of its own, and returns
the ways in which that framework can ask. They get the address of a server that speaks OpenAI's API.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["FRAMEWORKS", "Framework", "Ways"]

MODEL = "openai/gpt-4o-mini"
QUESTION = "a question of words"
MESSAGES = [{"role": "user", "content": QUESTION}]


@dataclass(frozen=True)
class Ways:
    """How one framework asks; `None` where it has no such way.

    Attributes:
        whole: a synchronous stream is read to its end by the framework itself.
    """

    call: Callable[[str], Awaitable[Any]] | None = None
    stream: Callable[[str], AsyncIterator[Any]] | None = None
    sync_call: Callable[[str], Any] | None = None
    sync_stream: Callable[[str], Iterator[Any]] | None = None
    whole: bool = False


def crewai() -> Ways:
    from crewai import LLM

    def llm(to: str, *, stream: bool) -> Any:
        return LLM(model=MODEL, is_litellm=True, base_url=to, api_key="any", stream=stream)

    async def call(to: str) -> Any:
        return await llm(to, stream=False).acall(QUESTION)

    async def stream(to: str) -> AsyncIterator[Any]:
        yield await llm(to, stream=True).acall(QUESTION)  # its chunks are events elsewhere

    def sync_call(to: str) -> Any:
        return llm(to, stream=False).call(QUESTION)

    def sync_stream(to: str) -> Iterator[Any]:
        yield llm(to, stream=True).call(QUESTION)

    return Ways(call, stream, sync_call, sync_stream, whole=True)


def dspy() -> Ways:
    import dspy

    def lm(to: str) -> Any:
        given = {"api_base": to, "api_key": "any", "cache": False, "num_retries": 0}
        return dspy.LM(MODEL, engine="litellm", **given)

    async def call(to: str) -> Any:
        return await lm(to).acall(QUESTION)

    async def stream(to: str) -> AsyncIterator[Any]:
        adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
        predict = dspy.streamify(dspy.Predict("question -> answer"))
        with dspy.context(lm=lm(to), adapter=adapter):
            # The server's words are no answer in the form that DSPy reads.
            with contextlib.suppress(Exception):
                async for chunk in predict(question=QUESTION):
                    yield chunk

    def sync_call(to: str) -> Any:
        return lm(to)(QUESTION)

    return Ways(call, stream, sync_call)


def instructor() -> Ways:
    import instructor
    import litellm

    def given(to: str) -> dict[str, Any]:
        ask = {"model": MODEL, "messages": MESSAGES, "response_model": None, "max_retries": 0}
        return {**ask, "api_base": to, "api_key": "any"}

    asking = instructor.from_litellm(litellm.acompletion, mode=instructor.Mode.JSON)
    sync_asking = instructor.from_litellm(litellm.completion, mode=instructor.Mode.JSON)

    async def call(to: str) -> Any:
        return await asking.create(**given(to))

    async def stream(to: str) -> AsyncIterator[Any]:
        async for chunk in await asking.create(stream=True, **given(to)):
            yield chunk

    def sync_call(to: str) -> Any:
        return sync_asking.create(**given(to))

    def sync_stream(to: str) -> Iterator[Any]:
        yield from sync_asking.create(stream=True, **given(to))

    return Ways(call, stream, sync_call, sync_stream)


def langchain() -> Ways:
    from langchain_litellm import ChatLiteLLM

    def model(to: str) -> Any:
        return ChatLiteLLM(model=MODEL, api_base=to, api_key="any", max_retries=0)

    def stream(to: str) -> AsyncIterator[Any]:
        return model(to).astream(QUESTION)

    def sync_stream(to: str) -> Iterator[Any]:
        return model(to).stream(QUESTION)

    return Ways(
        lambda to: model(to).ainvoke(QUESTION),
        stream,
        lambda to: model(to).invoke(QUESTION),
        sync_stream,
    )


def openai_agents() -> Ways:
    from agents import Agent, ModelSettings, Runner, set_tracing_disabled
    from agents.extensions.models.litellm_model import LitellmModel

    set_tracing_disabled(True)

    def agent(to: str) -> Any:
        model = LitellmModel(MODEL, base_url=to, api_key="any")
        return Agent(name="any", model=model, model_settings=ModelSettings(include_usage=True))

    async def call(to: str) -> Any:
        return await Runner.run(agent(to), QUESTION)

    async def stream(to: str) -> AsyncIterator[Any]:
        result = Runner.run_streamed(agent(to), QUESTION)
        try:
            async for event in result.stream_events():
                yield event
        finally:
            result.cancel()

    return Ways(call, stream)


def pydantic_ai() -> Ways:
    from pydantic_ai import Agent
    from pydantic_ai_litellm import LiteLLMModel

    def agent(to: str) -> Any:
        return Agent(LiteLLMModel(MODEL, api_base=to, api_key="any"))

    async def call(to: str) -> Any:
        return await agent(to).run(QUESTION)

    async def stream(to: str) -> AsyncIterator[Any]:
        async with agent(to).run_stream(QUESTION) as answer:
            async for text in answer.stream_text(debounce_by=None):
                yield text

    return Ways(call, stream)


def smolagents() -> Ways:
    from smolagents import LiteLLMModel

    def model(to: str) -> Any:
        return LiteLLMModel(MODEL, api_base=to, api_key="any")

    return Ways(
        sync_call=lambda to: model(to).generate(MESSAGES),
        sync_stream=lambda to: model(to).generate_stream(MESSAGES),
    )


@dataclass(frozen=True)
class Framework:
    """One framework: its name, the package that it comes with, how it asks."""

    name: str
    package: str
    ways: Callable[[], Ways]


FRAMEWORKS = {
    "crewai": Framework("CrewAI: `LLM(is_litellm=True)`", "crewai", crewai),
    "dspy": Framework('DSPy: `dspy.LM(engine="litellm")`', "dspy", dspy),
    "instructor": Framework("instructor: `from_litellm`", "instructor", instructor),
    "langchain": Framework("LangChain: `ChatLiteLLM`", "langchain-litellm", langchain),
    "openai-agents": Framework("OpenAI Agents: `LitellmModel`", "openai-agents", openai_agents),
    "pydantic-ai": Framework(
        "Pydantic AI: `LiteLLMModel` of pydantic-ai-litellm", "pydantic-ai-litellm", pydantic_ai
    ),
    "smolagents": Framework("smolagents: `LiteLLMModel`", "smolagents", smolagents),
}
