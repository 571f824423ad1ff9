"""What a call cost where LiteLLM did not say so: computed or estimated with its own functions.

Owns the fallback price of an answer and the estimate of a call that was cut short.  Everything here
blocks (0.1 ms to 0.1 s) and never raises; what cannot be known is ``None``, never 0.  It never
counts over what the provider counted, and never reaches for the network.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeGuard

from litellm_ledger._records.money import from_litellm, picousd, usd

from .load import load_sync, loaded
from .members import member
from .outcome import from_stream
from .price_options import ON_USAGE
from .usage import cached_elsewhere, parts, usage_fields

__all__ = [
    "compute_cost",
    "estimate",
    "estimate_stream",
    "is_free",
    "is_priced",
    "map_cost",
    "price_conditions",
    "provider_of",
    "says_tier",
    "speech_cost",
    "written",
]


def is_priced(model: Any, custom_llm_provider: str | None = None) -> bool:
    """Whether the price map has a price for the model, so that a cost of 0 means free of charge.

    LiteLLM prices an entry that has no price at 0.  It also does so for anything on Ollama, which
    runs on one's own machine; that is taken as it is.
    """
    if not isinstance(model, str):
        return False
    for entry in _entries(model, custom_llm_provider):
        if any("cost" in key or "pric" in key for key in entry):
            return True
    return (custom_llm_provider or model.partition("/")[0]).startswith("ollama")


def is_free(model: Any, custom_llm_provider: str | None = None) -> bool:
    """Whether the price map says that the model costs nothing: it has prices, and all are 0."""
    if not isinstance(model, str) or not is_priced(model, custom_llm_provider):
        return False
    entry = next(_entries(model, custom_llm_provider), {})
    return not any(value for key, value in entry.items() if "cost" in key or "pric" in key)


def _entries(model: str, provider: str | None) -> Iterator[Mapping[str, Any]]:
    """The entries of the price map that a model goes by, the nearest first."""
    litellm = loaded()
    if litellm is None:
        return
    names = [model]
    prefix, _, bare = model.partition("/")
    if provider:
        names.append(f"{provider}/{model}")
        if prefix == provider:
            names.append(bare)
    elif bare:
        names.append(bare)
    for name in names:
        entry = litellm.model_cost.get(name)
        if isinstance(entry, Mapping):
            yield entry


def provider_of(model: str) -> str | None:
    """LiteLLM's name of a model's provider, by its name and the price map alone.

    LiteLLM's own function is not asked: for a few providers it logs in over the network.
    """
    litellm: Any = loaded()
    if litellm is None or not model:
        return None
    prefix, _, bare = model.partition("/")
    try:
        if bare and prefix in litellm.provider_list:
            return prefix
        entry = litellm.model_cost.get(model)
        provider = entry.get("litellm_provider") if isinstance(entry, Mapping) else None
        return provider if isinstance(provider, str) else None
    except Exception:
        return None


_ABOVE: Final = re.compile(r"input_cost_per_token_above_(\d+)(k?)_tokens")


def price_conditions(
    model: str, provider: str | None, input_tokens: int | None
) -> dict[str, int | bool]:
    """What of the moment chose the price: ``above`` so many tokens of context, ``off_peak``.

    The service tier is on the answer.  Read from the entry of the price map that LiteLLM used.
    """
    found: dict[str, int | bool] = {}
    try:
        entry = next(_entries(model, provider), None)
        if entry is None:
            return found
        for key in entry if input_tokens else ():
            match = _ABOVE.fullmatch(key) if key.startswith("input_cost_per_token_above") else None
            if match and input_tokens:
                threshold = int(match[1]) * (1_000 if match[2] else 1)
                if found.get("above", 0) < threshold < input_tokens:
                    found["above"] = threshold
        hours = entry.get("off_peak_pricing")
        if isinstance(hours, Mapping):
            utils: Any = importlib.import_module("litellm.litellm_core_utils.llm_cost_calc.utils")
            found["off_peak"] = bool(utils._is_off_peak(hours))  # noqa: SLF001 - LiteLLM has no public function for it
    except Exception:
        pass
    return found


def compute_cost(
    response: Any, *, model: str, custom_llm_provider: str | None = None, **options: Any
) -> Decimal | None:
    """Price an answer that came without a cost: from an outer retry, or a plain mapping.

    Takes 0.1 to 1 ms.  Pass the provider: without it LiteLLM looks for one, which for a few
    (``github_copilot``) means a login over the network.

    Args:
        response: any answer, or a stream's chunk with a ``usage``.
        options: of ``price_options``, and further arguments of ``litellm.completion_cost``, such as
            ``call_type``.  A service tier counts where the answer does not say which one served it.

    Returns:
        ``None`` if the price map does not know the model, or the answer carries no usage and the
        price came out as 0: unknown is not free.
    """
    try:
        litellm: Any = load_sync()
        usage = member(response, "usage")
        if iterations := parts(usage):
            options["custom_llm_provider"] = custom_llm_provider
            return _iterated(response, iterations, model=model, **options)
        counts = usage_fields(usage)
        if type(response).__name__ == "ModelResponseStream":
            response = litellm.ModelResponse(model=model, usage=usage)
        on_usage = {name: options.pop(name) for name in ON_USAGE if name in options}
        if _is_anthropics(usage):
            # LiteLLM knows Anthropic's usage by its cache counters, and only then its region.
            told = {name: value for name, value in usage.items() if value is not None}
            response = {**response, "usage": {**_NO_CACHE, **on_usage, **told}}
        tier = options.pop("service_tier", None)
        if tier is not None and not says_tier(response):
            options["optional_params"] = {"service_tier": tier}
        if hasattr(usage, "model_copy") and cached_elsewhere(usage):
            response = _cached_in_place(response, usage, litellm)
        cost = litellm.completion_cost(
            completion_response=response,
            model=model,
            custom_llm_provider=custom_llm_provider,
            **options,
        )
        if type(cost) not in (float, int) or cost < 0:
            return None
        priced = options.get("base_model") or model
        if cost == 0 and not (any(counts.values()) and is_priced(priced, custom_llm_provider)):
            return None
        return from_litellm(cost)
    except Exception:
        return None


_NO_CACHE: Final = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}


def _is_anthropics(usage: Any) -> TypeGuard[Mapping[str, Any]]:
    if not isinstance(usage, Mapping) or "input_tokens" not in usage:
        return False
    return "prompt_tokens" not in usage and "input_tokens_details" not in usage


def says_tier(answer: Any) -> bool:
    """Whether an answer names the service tier that it was served at, which then counts."""
    holders = (answer, member(answer, "usage"))
    return any(isinstance(member(holder, "service_tier"), str) for holder in holders)


def _iterated(
    response: Mapping[str, Any], iterations: list[dict[str, Any]], *, model: str, **options: Any
) -> Decimal | None:
    """Price each iteration by itself: by its own model, and by the length of its own context."""
    total = Decimal(0)
    for usage in iterations:
        if not any(usage_fields(usage).values()):
            continue  # it used nothing
        other = usage.get("model")
        answer, said = {**response, "usage": usage}, dict(options)
        if other:
            answer["model"] = other
            said.pop("base_model", None)  # it is behind the name that the caller gave
        cost = compute_cost(answer, model=other or model, **said)
        if cost is None:
            return None
        total += cost
    return total


def _cached_in_place(response: Any, usage: Any, litellm: Any) -> Any:
    """The answer with its cached tokens where LiteLLM prices them."""
    details: Any = getattr(usage, "prompt_tokens_details", None)
    told = details.model_dump(exclude_none=True) if details is not None else {}
    there = {**told, "cached_tokens": cached_elsewhere(usage)}
    usage = usage.model_copy(
        update={"prompt_tokens_details": litellm.types.utils.PromptTokensDetailsWrapper(**there)}
    )
    return response.model_copy(update={"usage": usage})


def map_cost(
    model: str, provider: str | None, fields: Mapping[str, Any], **options: Any
) -> Decimal | None:
    """Price the tokens of an outcome by the price map, whatever else was said of their cost."""
    try:
        litellm: Any = load_sync()
        usage = _usage_of(litellm, fields, options)
        answer = litellm.ModelResponse(model=model, usage=usage)
        return compute_cost(answer, model=model, custom_llm_provider=provider, **options)
    except Exception:
        return None


def _usage_of(litellm: Any, fields: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    cached = {
        theirs: fields[ours]
        for theirs, ours in (
            ("cache_read_input_tokens", "cache_read_tokens"),
            ("cache_creation_input_tokens", "cache_write_tokens"),
        )
        if ours in fields
    }
    return litellm.Usage(
        prompt_tokens=fields.get("input_tokens", 0),
        completion_tokens=fields.get("output_tokens", 0),
        total_tokens=fields.get("total_tokens", 0),
        **cached,
        **{name: options[name] for name in ON_USAGE if name in options},
    )


def speech_cost(model: str, provider: str | None, characters: int) -> Decimal | None:
    """Price a text that was read aloud, by the character; ``None`` if it is not priced so.

    LiteLLM's own figure leaves the blanks out, which providers bill.
    """
    for entry in _entries(model, provider):
        price = entry.get("input_cost_per_character")
        if type(price) in (float, int):
            return usd(picousd(Decimal(repr(price)) * characters))
    return None


def estimate_stream(
    model: str,
    messages: Any,
    chunks: Iterable[Any],
    *,
    custom_llm_provider: str | None = None,
    tools: Sequence[Any] | None = None,
    options: Mapping[str, Any] | None = None,
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
    return estimate(
        model,
        messages,
        from_stream(chunks, finished=False),
        written(chunks) if chunks else None,
        custom_llm_provider=custom_llm_provider,
        tools=tools,
        options=options,
    )


def estimate(
    model: str,
    messages: Any,
    fields: dict[str, Any],
    text: str | None,
    *,
    custom_llm_provider: str | None = None,
    tools: Sequence[Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Estimate what is missing in ``fields``, as ``estimate_stream`` does.

    Args:
        fields: what the stream itself said; completed in place and returned.
        text: all that the model wrote; ``None``: nothing came back.
        options: of ``price_options``.
    """
    options = dict(options or {})
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
        if fields["usage_source"] != "none" and "cost" not in fields:
            provider = custom_llm_provider or fields.get("provider")
            cost = map_cost(model, provider, fields, **options)
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


def written(chunks: Sequence[Any]) -> str:
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
