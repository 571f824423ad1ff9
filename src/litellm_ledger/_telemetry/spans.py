"""Usage as attributes of the caller's span.

Owns which span a call belongs to: the one that was current when its request left.  Makes no span,
and leaves a span alone on which an instrumented SDK has put usage already.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.trace import Span, get_current_span

from litellm_ledger._records.money import usd
from litellm_ledger._records.record import UsageRecord

from .conventions import Tokens, billed

__all__ = ["Spans"]

_INPUT: Final = "gen_ai.usage.input_tokens"
_OUTPUT: Final = "gen_ai.usage.output_tokens"
_NAMES: Final = (
    _INPUT,
    _OUTPUT,
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.reasoning.output_tokens",
)
_CALLS: Final = "litellm_ledger.calls"
_COST: Final = "litellm_ledger.cost"
_UNKNOWN: Final = "litellm_ledger.unknown_cost.calls"

Key = tuple[str | None, int | None]


class Spans:
    """The spans of the calls in flight.

    Args:
        estimated: also count tokens that this library has estimated.
    """

    def __init__(self, *, estimated: bool) -> None:
        self._estimated = estimated
        self._open: dict[Key, Span] = {}

    def started(self, record: UsageRecord) -> None:
        """Keep the current span for a call whose request is about to leave."""
        span = get_current_span()
        if span.is_recording():
            self._open[record.operation, record.attempt] = span

    def taken(self, record: UsageRecord) -> Span | None:
        """Return the span of a call that has ended; ``None``: there is none."""
        return self._open.pop((record.operation, record.attempt), None)

    def add(self, span: Span, record: UsageRecord, cost: int | None) -> None:
        """Add an outcome to what the span says of its calls so far."""
        before: Any = getattr(span, "attributes", None) or {}  # of the SDK's spans only
        if not span.is_recording() or (_INPUT in before and _CALLS not in before):
            return
        said: dict[str, int | float] = {_CALLS: before.get(_CALLS, 0) + 1}
        tokens = billed(record, estimated=self._estimated) or Tokens(*[None] * len(_NAMES))
        for name, count in zip(_NAMES, tokens, strict=True):
            if count is not None:
                said[name] = before.get(name, 0) + count
        if cost is None:
            said[_UNKNOWN] = before.get(_UNKNOWN, 0) + 1
        else:
            said[_COST] = before.get(_COST, 0.0) + float(usd(cost))
        span.set_attributes(said)
