"""What a call cost where LiteLLM did not say so: computed with its own functions.

Owns the reading of the price map, and the price of an answer, of tokens and of a
finished batch.  What cannot be known is ``None``, never 0.  Nothing raises but the
reading of a batch's output.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from litellm_ledger._records.money import from_litellm, picousd, usd

from .internals import internal
from .load import load_sync, loaded
from .members import member, note_price, noted
from .price_options import ON_USAGE
from .usage import cached_elsewhere, parts, usage_fields

if TYPE_CHECKING:
    from .calls import Call

__all__ = [
    "batch_cost",
    "batch_output",
    "compute_cost",
    "is_priced",
    "map_cost",
    "provider_of",
    "put_litellm_cost",
    "says",
]


def is_priced(model: Any, custom_llm_provider: str | None = None) -> bool:
    """Whether the price map has a price for the model, so that a cost of 0 means free of charge.

    LiteLLM prices an entry that has no price at 0.  It also does so for anything on Ollama, which
    runs on one's own machine; that is taken as it is.
    """
    if not isinstance(model, str):
        return False
    keys = (key for entry in _entries(model, custom_llm_provider) for key in entry)
    if any("cost" in key or "pric" in key for key in keys):
        return True
    return (custom_llm_provider or model.partition("/")[0]).startswith("ollama")


def _is_free(model: Any, custom_llm_provider: str | None = None) -> bool:
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
    for name in _names(model, provider):
        entry = litellm.model_cost.get(name)
        if type(entry) is dict or isinstance(entry, Mapping):
            yield entry


@lru_cache(1_000)
def _names(model: str, provider: str | None) -> tuple[str, ...]:
    """The names that a model may have in the price map, the nearest first."""
    prefix, _, bare = model.partition("/")
    if not provider:
        return (model, bare) if bare else (model,)
    own = f"{provider}/{model}"
    return (model, own, bare) if prefix == provider else (model, own)


def provider_of(model: str) -> str | None:
    """LiteLLM's name of a model's provider, by its name and the price map alone.

    LiteLLM's own function is not asked: for a few providers it logs in over the network.
    """
    litellm: Any = loaded()
    if litellm is None or not model:
        return None
    prefix, _, bare = model.partition("/")
    if bare and prefix in (member(litellm, "provider_list") or ()):
        return prefix
    provider = member(member(member(litellm, "model_cost"), model), "litellm_provider")
    return provider if isinstance(provider, str) else None


def put_litellm_cost(
    fields: dict[str, Any],
    answer: Any,
    *,
    model: str,
    provider: str | None,
    call: Call,
    options: Mapping[str, Any],
) -> None:
    """Keep the figure that LiteLLM gave, unless it is a 0 for a missing price; else compute it.

    Args:
        fields: of the outcome; the cost of an estimate is that of its tokens.
        answer: what came, or ``None``.
        model, provider, call: as on the record.
        options: of ``price_options``.
    """
    priced, source = options.get("base_model") or model, fields.get("usage_source")
    said_free = fields.get("cost") == 0 and fields.get("cost_source") == "litellm"
    if said_free and not fields.get("cache_hit"):
        # LiteLLM says 0 for a missing price, and for an answer that does not say yet what was
        # used.  Only a price of 0 makes that one free.
        free = is_priced if source == "provider" else _is_free
        if not free(priced, provider):
            del fields["cost"], fields["cost_source"]
    hit = fields.get("cache_hit") and "saved_cost" not in fields
    if noted(fields, "unpriced") or ("cost" in fields and not hit):
        return
    cost: Decimal | None = None
    if answer is not None and (source == "provider" or call.options):
        cost = compute_cost(
            answer,
            model=model,
            custom_llm_provider=provider,
            call_type=call.name,
            **options,
        )
    elif source == "estimated":
        cost = map_cost(model, provider, fields, **options)
    if cost is None:
        return
    if hit:
        fields["saved_cost"], cost = cost, Decimal(0)
    fields["cost"], fields["cost_source"] = cost, "litellm"
    if "service_tier" in options and not says(answer, "service_tier"):
        note_price(fields, {"service_tier": options["service_tier"]})


def compute_cost(
    response: Any, *, model: str, custom_llm_provider: str | None = None, **options: Any
) -> Decimal | None:
    """Price an answer that came without a cost: from an outer retry, or a plain mapping.

    Takes 0.1 to 1 ms.  ``response`` may be a stream's chunk with a ``usage``.  Pass the provider:
    without it LiteLLM looks for one, which for a few (``github_copilot``) means a login over the
    network.  ``options`` are those of ``price_options`` and of ``litellm.completion_cost``; a
    service tier counts where the answer does not say which one served it.

    ``None`` if the price map does not know the model, or the answer carries no usage and the price
    came out as 0: unknown is not free.
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
        if tier is not None and not says(response, "service_tier"):
            options["optional_params"] = {"service_tier": tier}
        if hasattr(usage, "model_copy") and cached_elsewhere(usage):
            response = _cached_in_place(response, usage)
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


def says(answer: Any, name: str) -> bool:
    """Whether an answer says what it was: the service tier, the speed, the region of the model."""
    holders = (answer, member(answer, "usage"))
    return any(isinstance(member(holder, name), str) for holder in holders)


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


def _cached_in_place(response: Any, usage: Any) -> Any:
    """The answer with its cached tokens where LiteLLM prices them."""
    details: Any = getattr(usage, "prompt_tokens_details", None)
    told = details.model_dump(exclude_none=True) if details is not None else {}
    there = {**told, "cached_tokens": cached_elsewhere(usage)}
    usage = usage.model_copy(
        update={"prompt_tokens_details": internal("PromptTokensDetailsWrapper")(**there)}
    )
    return response.model_copy(update={"usage": usage})


def map_cost(
    model: str, provider: str | None, fields: Mapping[str, Any], **options: Any
) -> Decimal | None:
    """Price the tokens of an outcome by the price map, whatever else was said of their cost."""
    cached = {
        "cache_read_input_tokens": fields.get("cache_read_tokens"),
        "cache_creation_input_tokens": fields.get("cache_write_tokens"),
    }
    litellm: Any = loaded()
    if litellm is None:  # no call was made
        return None
    try:
        usage = litellm.Usage(
            prompt_tokens=fields.get("input_tokens", 0),
            completion_tokens=fields.get("output_tokens", 0),
            total_tokens=fields.get("total_tokens", 0),
            **{name: value for name, value in cached.items() if value is not None},
            **{name: options[name] for name in ON_USAGE if name in options},
        )
        answer = litellm.ModelResponse(model=model, usage=usage)
        return compute_cost(answer, model=model, custom_llm_provider=provider, **options)
    except Exception:
        return None


# --- Batches -----------------------------------------------------------------------------------


def batch_cost(
    batch: Any, model: str, provider: str, options: Mapping[str, Any] | None = None
) -> Decimal | None:
    """Price a finished batch by the usage that came with it, at LiteLLM's price for batches."""
    options = options or {}
    model = options.get("base_model") or model
    try:
        litellm: Any = load_sync()
        calculate = internal("batch_cost_calculator")
        counts = usage_fields(getattr(batch, "usage", None))
        usage = litellm.Usage(
            prompt_tokens=counts["input_tokens"],
            completion_tokens=counts.get("output_tokens", 0),
            total_tokens=counts.get("total_tokens", 0),
            prompt_tokens_details={"cached_tokens": counts.get("cache_read_tokens", 0)},
        )
        taken = inspect.signature(calculate).parameters.keys() & options.keys()
        given = {name: options[name] for name in taken}
        both = calculate(usage=usage, model=model, custom_llm_provider=provider, **given)
        total = sum((Decimal(repr(float(part))) for part in both), Decimal(0))
        if total == 0 and not is_priced(model, provider):
            return None
        return usd(picousd(total))
    except Exception:
        return None


async def batch_output(
    batch: Any, provider: str, kwargs: Mapping[str, Any]
) -> tuple[Any, Decimal | None, str | None]:
    """Read the output file of a finished batch, with the key of the call that asked, whose
    arguments ``kwargs`` are; return usage, cost and model.
    """
    names = ("api_key", "api_base", "base_url", "api_version", "organization", "timeout")
    given = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
    found = await internal("_handle_completed_batch")(
        batch=batch, custom_llm_provider=provider, litellm_params=given
    )
    if isinstance(found, tuple):
        cost, usage, models = found[:3]
    else:
        cost, usage, models = found.cost, found.usage, found.models
    model = models[0] if models and isinstance(models[0], str) else None
    price = None if type(cost) not in (float, int) else from_litellm(cost)
    if price == 0 and not (model and is_priced(model, provider)):
        price = None
    return usage, price, model
