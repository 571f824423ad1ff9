"""What a call cost where LiteLLM did not say so: computed or estimated with its own functions.

Owns the fallback price of an answer and the estimate of a call that was cut short.  Everything here
blocks (0.1 ms to 0.1 s) and never raises; what cannot be known is ``None``, never 0.  It never
counts over what the provider counted, and never reaches for the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from ._litellm import load_sync, loaded
from ._money import from_litellm
from ._outcome import from_stream, usage_fields

__all__ = ["compute_cost", "estimate_stream", "is_priced"]


def is_priced(model: str, custom_llm_provider: str | None = None) -> bool:
    """Whether the price map has a price for the model, so that a cost of 0 means free of charge.

    LiteLLM prices an entry that has no price at 0.  It also does so for anything on Ollama, which
    runs on one's own machine; that is taken as it is.
    """
    litellm = loaded()
    if litellm is None or not isinstance(model, str):
        return False
    names = [model]
    prefix, _, bare = model.partition("/")
    if custom_llm_provider:
        names.append(f"{custom_llm_provider}/{model}")
        if prefix == custom_llm_provider:
            names.append(bare)
    elif bare:
        names.append(bare)
    for name in names:
        entry = litellm.model_cost.get(name)
        if isinstance(entry, Mapping) and any("cost" in key or "pric" in key for key in entry):
            return True
    return (custom_llm_provider or prefix).startswith("ollama")


def compute_cost(
    response: Any, *, model: str, custom_llm_provider: str | None = None, **options: Any
) -> Decimal | None:
    """Price an answer that came without a cost: from an outer retry, or a plain mapping.

    Takes 0.1 to 1 ms.  Pass the provider: without it LiteLLM looks for one, which for a few
    (``github_copilot``) means a login over the network.

    Args:
        response: any answer, or a stream's chunk with a ``usage``.
        options: further arguments of ``litellm.completion_cost``, such as ``call_type``.

    Returns:
        ``None`` if the price map does not know the model, or the answer carries no usage and the
        price came out as 0: unknown is not free.
    """
    try:
        litellm: Any = load_sync()
        usage = response.get("usage") if isinstance(response, Mapping) else None
        if usage is None:
            usage = getattr(response, "usage", None)
        counts = usage_fields(usage)
        if type(response).__name__ == "ModelResponseStream":
            response = litellm.ModelResponse(model=model, usage=usage)
        cost = litellm.completion_cost(
            completion_response=response,
            model=model,
            custom_llm_provider=custom_llm_provider,
            **options,
        )
        if type(cost) not in (float, int) or cost < 0:
            return None
        if cost == 0 and not (any(counts.values()) and is_priced(model, custom_llm_provider)):
            return None
        return from_litellm(cost)
    except Exception:
        return None


def estimate_stream(
    model: str,
    messages: Any,
    chunks: Iterable[Any],
    *,
    custom_llm_provider: str | None = None,
    tools: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Estimate what a stream cost that was left early, or whose provider sent no usage.

    Blocks: 0.1 ms to 0.1 s, by the length of the text; run it in a thread.  No network: images are
    counted at LiteLLM's default size, and models whose tokenizer would be downloaded with OpenAI's.

    Args:
        messages: of a chat, or the text or texts of a ``prompt`` or ``input``.
        chunks: ``wrapper.chunks``.  Empty for a call that was cancelled before anything came back:
            then only the input is counted, and ``cost`` is the price of the input alone, a floor.

    Returns:
        As ``from_stream``, with ``usage_source`` ``estimated`` (``provider`` if the chunks hold the
        provider's final usage after all, ``none`` if nothing could be counted).
    """
    chunks = list(chunks)
    fields = from_stream(chunks, finished=False)
    try:
        litellm: Any = load_sync()
        if fields["usage_source"] != "provider":
            counting = _counting_model(model)
            if "input_tokens" not in fields:
                found = _count_input(litellm, counting, messages, tools)
                if found is not None:
                    fields["input_tokens"] = found
            if chunks:
                found = _count_text(litellm, counting, _written(chunks))
                if found is not None:
                    fields["output_tokens"] = max(found, fields.get("output_tokens", 0))
            counts = [fields[name] for name in ("input_tokens", "output_tokens") if name in fields]
            if counts:
                fields["total_tokens"] = sum(counts)
            fields["usage_source"] = "estimated" if counts else "none"
        if fields["usage_source"] != "none" and "cost" not in fields:
            cached = {
                theirs: fields[ours]
                for theirs, ours in (
                    ("cache_read_input_tokens", "cache_read_tokens"),
                    ("cache_creation_input_tokens", "cache_write_tokens"),
                )
                if ours in fields
            }
            usage = litellm.Usage(
                prompt_tokens=fields.get("input_tokens", 0),
                completion_tokens=fields.get("output_tokens", 0),
                total_tokens=fields.get("total_tokens", 0),
                **cached,
            )
            answer = litellm.ModelResponse(model=model, usage=usage)
            provider = custom_llm_provider or fields.get("provider")
            cost = compute_cost(answer, model=model, custom_llm_provider=provider)
            if cost is not None:
                fields["cost"], fields["cost_source"] = cost, "litellm"
    except Exception:
        pass
    return fields


def _counting_model(model: str) -> str:
    name = model.lower()
    fetched = any(part in name for part in ("llama", "replicate", "command-r"))
    return "gpt-4o" if fetched else model


def _count_input(litellm: Any, model: str, messages: Any, tools: Any) -> int | None:
    if not messages:
        return None
    if isinstance(messages, str):
        return _count_text(litellm, model, messages)
    if all(isinstance(item, str) for item in messages):
        return _count_text(litellm, model, "\n".join(messages))
    if all(type(item) is int for item in messages):
        return len(messages)  # token numbers, as the OpenAI API takes them
    try:
        found: Any = litellm.token_counter(
            model=model,
            messages=[_plain(message) for message in messages],
            tools=tools or None,
            use_default_image_token_count=True,
        )
    except Exception:
        return None
    return found or None  # 0: the user has switched LiteLLM's counter off


def _plain(message: Any) -> Any:
    dump = getattr(message, "model_dump", None)
    return message if isinstance(message, Mapping) or dump is None else dump(exclude_none=True)


def _count_text(litellm: Any, model: str, text: str) -> int | None:
    if not text:
        return 0
    try:
        found: Any = litellm.token_counter(model=model, text=text, count_response_tokens=True)
    except Exception:
        return None
    return found or None


def _written(chunks: Sequence[Any]) -> str:
    """All that the model wrote: text, reasoning, names and arguments of tool calls."""
    parts: list[str] = []
    for chunk in chunks:
        for choice in getattr(chunk, "choices", None) or ():
            delta = getattr(choice, "delta", None)
            for holder, name in (
                (delta, "reasoning_content"),
                (delta, "content"),
                (choice, "text"),
            ):
                text = getattr(holder, name, None)
                if isinstance(text, str):
                    parts.append(text)
            calls = [
                getattr(call, "function", None) for call in getattr(delta, "tool_calls", None) or ()
            ]
            for call in (*calls, getattr(delta, "function_call", None)):
                for name in ("name", "arguments"):
                    text = getattr(call, name, None)
                    if isinstance(text, str):
                        parts.append(text)
    return "".join(parts)
