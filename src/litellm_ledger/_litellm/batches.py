"""What a finished batch used and cost, by LiteLLM's own functions.

Owns the price of a batch's usage and the reading of its output file.  What cannot be known is
``None``, never 0.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from litellm_ledger._records.money import from_litellm, picousd, usd

from .costs import is_priced
from .load import load_sync
from .usage import usage_fields

__all__ = ["batch_cost", "batch_output"]


def batch_cost(
    batch: Any, model: str, provider: str, options: Mapping[str, Any] | None = None
) -> Decimal | None:
    """Price a finished batch by the usage that came with it, at LiteLLM's price for batches.

    Args:
        options: of ``price_options``.
    """
    options = options or {}
    model = options.get("base_model") or model
    try:
        litellm: Any = load_sync()
        calculator: Any = importlib.import_module("litellm.cost_calculator")
        counts = usage_fields(getattr(batch, "usage", None))
        usage = litellm.Usage(
            prompt_tokens=counts["input_tokens"],
            completion_tokens=counts.get("output_tokens", 0),
            total_tokens=counts.get("total_tokens", 0),
            prompt_tokens_details={"cached_tokens": counts.get("cache_read_tokens", 0)},
        )
        parts = calculator.batch_cost_calculator(
            usage=usage,
            model=model,
            custom_llm_provider=provider,
            **{
                name: options[name]
                for name in inspect.signature(calculator.batch_cost_calculator).parameters
                if name in options
            },
        )
        total = sum((Decimal(repr(float(part))) for part in parts), Decimal(0))
        if total == 0 and not is_priced(model, provider):
            return None
        return usd(picousd(total))
    except Exception:
        return None


async def batch_output(
    batch: Any, provider: str, kwargs: Mapping[str, Any]
) -> tuple[Any, Decimal | None, str | None]:
    """Read the output file of a finished batch; return usage, cost and model.

    Args:
        kwargs: of the call that asked: its key and address fetch the file.
    """
    utils: Any = importlib.import_module("litellm.batches.batch_utils")
    names = ("api_key", "api_base", "base_url", "api_version", "organization", "timeout")
    given = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
    found = await utils._handle_completed_batch(  # noqa: SLF001 - LiteLLM has no public function for it
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
