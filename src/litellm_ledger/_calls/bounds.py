"""What a call may cost at most, before it is sent: the hold that a budget takes for it.

Owns the way from a caller's arguments to ``_budgets.hold``: which model it is, whose prices count,
and the proper count of its input where the bytes would not fit.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from litellm_ledger._budgets.hold import Bound, bound
from litellm_ledger._litellm.calls import Asked
from litellm_ledger._litellm.models import known_model
from litellm_ledger._litellm.price_options import priced_elsewhere

from .pricing import Pricing

__all__ = ["Bounds"]


class Bounds:
    """The bounds of one client's calls.

    Args:
        pricing: the client's prices.
    """

    def __init__(self, pricing: Pricing) -> None:
        self._pricing = pricing

    def of(self, asked: Asked) -> Bound:
        """Return the most that a call may use.  Never raises, and never waits.

        LiteLLM must be loaded: without it only the user's own prices are known.
        """
        kwargs, model = asked.kwargs, asked.model
        provider = self._pricing.provider(None, asked)
        options: Any = asked.price_options(provider)
        found = known_model(
            asked.call.name,
            model,
            provider,
            base_model=options.get("base_model"),
            own=partial(self._pricing.own, model, provider),
        )
        if found.own is None and priced_elsewhere(kwargs):
            return Bound(
                None,
                None,
                reason="its price comes with the call, or LiteLLM is set to a discount or margin; "
                "give the price by prices= of the client",
            )
        return bound(asked.call.name, kwargs, found, options)
