"""A LiteLLM that answers when the test says so: no import of the real one, no network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from litellm_ledger._calls import core as _core
from litellm_ledger._calls import pricing as _pricing
from litellm_ledger._calls import straight as _straight
from litellm_ledger._litellm import costs as _costs


def answer(text: str = "hello") -> SimpleNamespace:
    """An answer in the shape of LiteLLM's: 150 tokens."""
    return SimpleNamespace(
        id="answer-1",
        model="m",
        choices=[SimpleNamespace(message=SimpleNamespace(content=text), finish_reason="stop")],
        usage=_usage(),
        _hidden_params={"response_cost": 0.02, "custom_llm_provider": "openai"},
    )


def _usage() -> SimpleNamespace:
    return SimpleNamespace(prompt_tokens=100, completion_tokens=50, total_tokens=150)


def chunk(text: str | None = "x", *, usage: bool = False) -> SimpleNamespace:
    choices = [] if usage else [SimpleNamespace(delta=SimpleNamespace(content=text))]
    return SimpleNamespace(
        id="answer-1", model="m", choices=choices, usage=_usage() if usage else None
    )


class Gate:
    """A point where a call stops until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()

    async def stop(self) -> None:
        self.entered.set()
        await self.leave.wait()


class Stream:
    """LiteLLM's stream wrapper: keeps its chunks; may stop at a gate before chunk ``gate_at``."""

    custom_llm_provider = "openai"

    def __init__(self, count: int = 3, *, gate: Gate | None = None, gate_at: int = 99) -> None:
        self.chunks: list[Any] = []
        self.closed = 0
        self.close_gate: Gate | None = None
        self.error: Exception | None = None
        self._count = count
        self.gate = gate
        self._gate_at = gate_at

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        number = len(self.chunks)
        if self.gate is not None and number == self._gate_at:
            await self.gate.stop()
        if self.error is not None:
            raise self.error
        if number > self._count:
            raise StopAsyncIteration
        item = chunk(usage=number == self._count)
        self.chunks.append(item)
        return item

    async def aclose(self) -> None:
        self.closed += 1
        if self.close_gate is not None:
            await self.close_gate.stop()


class FakeLiteLLM:
    """What the client sees of LiteLLM: ``acompletion`` returns or raises ``result``.

    Attributes:
        calls: how often a request would have left.
        gate: where a call waits, if set.
    """

    model_cost: dict[str, Any] = {}  # noqa: RUF012
    Timeout = TimeoutError

    def __init__(self) -> None:
        self.calls = 0
        self.gate: Gate | None = None
        self.result: Callable[[], Any] = answer

    async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.gate is not None:
            await self.gate.stop()
        result = self.result()
        if isinstance(result, BaseException):
            raise result
        return result


def install(monkeypatch: pytest.MonkeyPatch) -> FakeLiteLLM:
    """Have every client call a fake; estimates are 7 tokens in, 3 out, and take no time."""
    fake = FakeLiteLLM()

    async def litellm(self: Any) -> Any:
        return fake

    def estimate(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"input_tokens": 7, "output_tokens": 3, "usage_source": "estimated"}

    monkeypatch.setattr(_core.ClientCore, "litellm", litellm)
    monkeypatch.setattr(_straight, "loaded", lambda: fake)
    monkeypatch.setattr(_core, "estimate", estimate)
    monkeypatch.setattr(_costs, "is_priced", lambda *args: True)
    monkeypatch.setattr(_costs, "compute_cost", lambda *args, **kwargs: None)
    monkeypatch.setattr(_pricing._litellm, "price_version", lambda: "fake")
    monkeypatch.setattr(_pricing._litellm, "version", lambda: "fake")
    return fake
