"""What a call may cost at most, before it is sent: the hold that a budget takes for it.

Owns the way from a caller's arguments to ``_budgets.hold``: which model it is, whose prices count,
and the straight line for a chat as nearly all are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from litellm_ledger._budgets.bound import Bound, Model
from litellm_ledger._budgets.hold import bound
from litellm_ledger._budgets.weight import plain_tokens
from litellm_ledger._litellm.calls import Asked
from litellm_ledger._litellm.entries import entry_of
from litellm_ledger._litellm.models import known_model
from litellm_ledger._litellm.price_options import hangs_on_nothing, priced_elsewhere
from litellm_ledger._prices.entry import Entry

from .pricing import Pricing

__all__ = ["Bounds"]

_PLAIN: Final = frozenset(
    {
        "api_key",
        "frequency_penalty",
        "litellm_call_id",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "mock_response",
        "model",
        "presence_penalty",
        "seed",
        "stream",
        "stream_options",
        "temperature",
        "timeout",
        "top_p",
        "user",
    }
)
"""Arguments of a chat on the straight line."""
_MOST: Final = 1_000
_AT_FIRST: Final = 1_024
"""Tokens of output that are held at first for a stream that has no limit."""
_ELSEWHERE: Final = (
    "its price comes with the call, or LiteLLM is set to a discount or a margin; give the price by "
    "prices= of the client"
)


class _Plain(NamedTuple):
    """What the bound of a plain chat with one model is made of, where no threshold is reached."""

    entry: Entry
    provider: str
    limit: int  # tokens of input, from which another price may count
    most_out: int | None
    capped: bool  # the caller's limit counts what is thought
    given_price: int
    made_price: int
    fixed: int


class Bounds:
    """The bounds of one client's calls.

    Args:
        pricing: the client's prices.
    """

    def __init__(self, pricing: Pricing) -> None:
        self._pricing = pricing
        self._known: dict[str, _Plain | None] = {}

    def of(self, asked: Asked) -> Bound:
        """Return the most that a call may use: 5 µs for a plain chat, else 20 and more.

        Never raises, and never waits.  LiteLLM must be loaded: without it only the user's own
        prices are known.
        """
        kwargs = asked.kwargs
        if asked.call.plain and kwargs.keys() <= _PLAIN:
            found = self._plain(asked, kwargs)
            if found is not None:
                return found
        return self._any(asked)

    def without_limit(self, asked: Asked) -> Bound:
        """Return the bound of a call as if its output had a limit: for its prices and its input."""
        return self._any(Asked(asked.call, {**asked.kwargs, "max_tokens": _AT_FIRST}))

    def provider(self, asked: Asked) -> str | None:
        """LiteLLM's name of the provider."""
        return self._pricing.provider(None, asked)

    def hides_thoughts(self, asked: Asked) -> bool:
        """Whether the model may think before it writes, in tokens that no stream shows."""
        kwargs = asked.kwargs
        model = self._model(asked, self._pricing.provider(None, asked))
        if not model.reasons:
            return False
        effort = kwargs.get("reasoning_effort") or kwargs.get("reasoning")
        if "claude" in model.name and kwargs.get("thinking") is None and effort is None:
            return False  # Anthropic's think only where they are asked to
        return effort not in ("disable", "none")

    def counted(self, asked: Asked, count: Callable[[str], int]) -> Bound:
        """Return the bound with the tokens of each text counted, and not its bytes.

        Takes milliseconds for a long text: run it in a thread.
        """
        return self._any(asked, count)

    def _any(self, asked: Asked, count: Callable[[str], int] | None = None) -> Bound:
        provider = self._pricing.provider(None, asked)
        options: Any = asked.price_options(provider)
        model = self._model(asked, provider, options.get("base_model"))
        found = bound(asked.call.name, asked.kwargs, model, options, count)
        if model.own is None and found.usd is not None and priced_elsewhere(asked.kwargs):
            return found._replace(usd=None, reason=_ELSEWHERE)
        return found

    def _model(self, asked: Asked, provider: str | None, base_model: str | None = None) -> Model:
        return known_model(
            asked.call.name,
            asked.model,
            provider,
            base_model=base_model,
            own=partial(self._pricing.own, asked.model, provider),
        )

    def _plain(self, asked: Asked, kwargs: Mapping[str, Any]) -> Bound | None:  # noqa: C901 - one frame: a call costs as much as it touches
        """The same in one frame; ``None``: something about the call is not plain."""
        model = kwargs.get("model")
        if type(model) is not str:
            return None
        plan = self._known.get(model)
        if plan is None or entry_of(model, plan.provider) is not plan.entry:
            if plan is None and model in self._known:
                return None
            plan = self._learn(asked, model)
            if plan is None:
                return None
        if self._pricing.own(model, plan.provider) is not None:
            return None
        given = plain_tokens(kwargs.get("messages"))
        if given is None or given >= plan.limit:
            return None
        made, other = kwargs.get("max_tokens"), kwargs.get("max_completion_tokens")
        if made is None:
            made = other
        elif other is not None:
            return None
        if made is None or not plan.capped:
            if made is not None and type(made) is not int:
                return None
            if plan.most_out is None:
                return None
            made = max(made or 0, plan.most_out)
        if type(made) is not int or made < 0:
            return None
        if not hangs_on_nothing(kwargs, model=model, provider=plan.provider):
            return None
        into, out = plan.given_price, plan.made_price
        usd = plan.fixed - (-(given * into + made * out) // 1_000_000)
        return Bound(usd, given + made, 1, "", given, made, into, out, plan.fixed)

    def _learn(self, asked: Asked, model: str) -> _Plain | None:
        """Read off the general way what a plain chat with a model costs."""
        if len(self._known) >= _MOST:
            self._known.clear()
        provider = self._pricing.provider(None, asked)
        known = self._model(asked, provider)
        plan = None
        if provider and known.own is None and len(known.entries) == 1:
            least: dict[str, Any] = {"model": model, "messages": [], "max_tokens": 0}
            found = bound(asked.call.name, least, known, {})
            full = bound(asked.call.name, {**least, "max_tokens": 1}, known, {})
            entry = known.entries[0]
            if full.usd is not None:
                plan = _Plain(
                    entry,
                    provider,
                    min((each.tokens for each in entry.above), default=2**62)
                    if "tiered_pricing" not in entry.members
                    else 0,
                    known.most_out,
                    not known.reasons or full.made == 1,
                    full.given_price,
                    full.made_price,
                    found.fixed,
                )
        self._known[model] = plan
        return plan
