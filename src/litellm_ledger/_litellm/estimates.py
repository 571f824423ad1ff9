"""What a call used that was cut short, or whose provider did not count: by LiteLLM's own counter.

Owns the estimate of its tokens; ``_calls.pricing`` has their price.  Blocks for 0.1 ms to 0.1 s, by
the length of the text: run it in a thread.  Never raises, never counts over what the provider
counted, never reaches for the network: images are counted at LiteLLM's default size, and models
whose tokenizer would be downloaded with OpenAI's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .load import load_sync
from .outcome import from_stream
from .stream_readers import written

__all__ = ["estimate", "estimate_stream"]


def estimate_stream(
    model: str, messages: Any, chunks: Iterable[Any], tools: Any = None
) -> dict[str, Any]:
    """Estimate what a stream used that was left early, or whose provider sent no usage.

    Args:
        messages: of a chat, or the text or texts of a ``prompt`` or ``input``.
        chunks: ``wrapper.chunks``.  Empty for a call that was cancelled before anything came back:
            then only the input is counted, and its price is a floor.
        tools: of the call.

    Returns:
        As ``from_stream``, with ``usage_source`` ``estimated`` (``provider`` if the chunks hold the
        provider's final usage after all, ``none`` if nothing could be counted).
    """
    chunks = list(chunks)
    fields = from_stream(chunks, finished=False)
    return estimate(model, messages, fields, written(chunks) if chunks else None, tools)


def estimate(
    model: str,
    messages: Any,
    fields: dict[str, Any],
    text: str | None,
    tools: Any = None,
) -> dict[str, Any]:
    """Estimate what is missing in ``fields``, as ``estimate_stream`` does.

    Args:
        fields: what the stream itself said; completed in place and returned.
        text: all that the model wrote; ``None``: nothing came back.
    """
    try:
        litellm: Any = load_sync()
        if fields["usage_source"] != "provider":
            counting = _counting_model(model)
            if "input_tokens" not in fields:
                found = _count_input(litellm, counting, messages, tools)
                if found is not None:
                    fields["input_tokens"] = found
            if text is not None:
                found = _count_text(litellm, counting, text)
                if found is not None:
                    fields["output_tokens"] = max(found, fields.get("output_tokens", 0))
            counts = [fields[name] for name in ("input_tokens", "output_tokens") if name in fields]
            if counts:
                fields["total_tokens"] = sum(counts)
            fields["usage_source"] = "estimated" if counts else "none"
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
