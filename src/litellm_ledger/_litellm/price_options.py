"""What a price hangs on beside the model and the tokens, derived from the call.

Owns the one derivation of LiteLLM's price options, so that a cost means the same whichever way it
is computed: for an answer, a stream, a captured call, a batch, or an estimate.  Never raises; what
the call does not say is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from .bill import PLAIN_TIERS
from .internals import internal
from .load import loaded
from .members import member

__all__ = [
    "ON_USAGE",
    "PRICED_BY",
    "base_model",
    "hangs_on_nothing",
    "price_options",
    "priced_elsewhere",
]

ON_USAGE: Final = ("inference_geo", "speed")
"""Options that LiteLLM reads from the usage of an answer, where Anthropic says them."""

PRICED_BY: Final = (
    *ON_USAGE,
    "api_base",
    "base_model",
    "base_url",
    "service_tier",
    "vertex_ai_location",
    "vertex_location",
)
"""Arguments of a call that its price may hang on, whatever the call is."""


def price_options(
    kwargs: Mapping[str, Any],
    *,
    model: str | None,
    provider: str | None,
    names: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the options of ``compute_cost`` that the arguments of a call ask for.

    ``names`` are further arguments that are options as they are, such as an image's size.
    """
    found: dict[str, Any] = {}
    if names or not _ASKING.isdisjoint(kwargs):
        asked = (*names, *ON_USAGE)
        found = {name: kwargs[name] for name in asked if kwargs.get(name) is not None}
        tier = kwargs.get("service_tier")
        if isinstance(tier, str) and tier and tier.lower() not in PLAIN_TIERS:
            found["service_tier"] = tier
        behind = base_model(kwargs)
        if behind:
            found["base_model"] = behind
    if provider == "openai":
        region = _data_residency(kwargs)
        if region:
            found["data_residency"] = region
    elif provider is not None and provider.startswith("vertex_ai"):
        location = _vertex_location(kwargs, model)
        if location:
            found["vertex_location"] = location
    return found


_ASKING: Final = frozenset(
    {*ON_USAGE, "base_model", "litellm_metadata", "metadata", "model_info", "service_tier"}
)
"""Arguments that hold such an option, of any provider; most calls have none of them."""


def base_model(kwargs: Mapping[str, Any]) -> str | None:
    """The model behind a deployment's name, from wherever LiteLLM takes it."""
    metadata = (kwargs, kwargs.get("metadata"), kwargs.get("litellm_metadata"))
    for holder in (kwargs, *(member(holder, "model_info") for holder in metadata)):
        found = member(holder, "base_model")
        if isinstance(found, str) and found:
            return found
    return None


_OWN_PRICES: Final = frozenset(
    {
        "cache_creation_input_token_cost",
        "cache_read_input_token_cost",
        "input_cost_per_second",
        "input_cost_per_token",
        "output_cost_per_second",
        "output_cost_per_token",
        "tiered_pricing",
    }
)
_HOLDERS: Final = frozenset({"litellm_metadata", "metadata", "model_info"})


def priced_elsewhere(kwargs: Mapping[str, Any]) -> bool:
    """Whether LiteLLM's figure is by more than the price map: prices that came with the call, or a
    discount or margin that LiteLLM is set to.
    """
    litellm = loaded()
    if member(litellm, "cost_discount_config") or member(litellm, "cost_margin_config"):
        return True
    if any(kwargs[name] is not None for name in _OWN_PRICES & kwargs.keys()):
        return True
    if _HOLDERS.isdisjoint(kwargs):
        return False
    metadata = (kwargs, kwargs.get("metadata"), kwargs.get("litellm_metadata"))
    for holder in metadata:
        info = member(holder, "model_info")
        if info is not None and any(member(info, name) is not None for name in _OWN_PRICES):
            return True
    return False


_CHOOSING: Final = _ASKING | _HOLDERS | _OWN_PRICES
_ENVIRONMENT: Final[Mapping[Any, str | bytes]] = getattr(os.environ, "_data", os.environ)
"""As the operating system has it: ``os.environ`` raises and encodes at each look."""
_BASES: Final = tuple(
    name if _ENVIRONMENT is os.environ else os.environ.encodekey(name)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE")
)


def hangs_on_nothing(kwargs: Mapping[str, Any], *, model: str, provider: str) -> bool:
    """Whether there are no ``price_options``, and it is not ``priced_elsewhere``.

    The same in one frame where the arguments have no member that either looks at.
    """
    litellm: Any = loaded()
    if not _CHOOSING.isdisjoint(kwargs) or provider.startswith("vertex_ai"):
        asked = price_options(kwargs, model=model, provider=provider)
        return not asked and not priced_elsewhere(kwargs)
    set_to = litellm.__dict__.get
    if set_to("cost_discount_config") or set_to("cost_margin_config"):
        return False
    if provider != "openai":
        return True
    where, get = kwargs.get("api_base") or kwargs.get("base_url"), _ENVIRONMENT.get
    return _known_residency(where, set_to("api_base"), get(_BASES[0]), get(_BASES[1])) is None


@lru_cache(100)
def _known_residency(where: Any, *_also_asked: Any) -> str | None:
    """``_data_residency``, asked again when anything has changed that LiteLLM looks at for it."""
    return _data_residency({"api_base": where})


def _data_residency(kwargs: Mapping[str, Any]) -> str | None:
    """The region that OpenAI's host names stand for."""
    if loaded() is None:
        return None
    try:
        where = kwargs.get("api_base") or kwargs.get("base_url")
        found = internal("infer_openai_data_residency")("openai", where)
    except Exception:
        return None
    return found if isinstance(found, str) else None


def _vertex_location(kwargs: Mapping[str, Any], model: str | None) -> str | None:
    """Where Vertex AI serves the call: as asked for, or as LiteLLM is set, or as the model is."""
    if loaded() is None:
        return None
    try:
        base = internal("VertexBase")
        asked = base.safe_get_vertex_ai_location(kwargs)
        found = base.get_vertex_region(asked, (model or "").removeprefix("vertex_ai/"))
    except Exception:
        return None
    return found if isinstance(found, str) else None
