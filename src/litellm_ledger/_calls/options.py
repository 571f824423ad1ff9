"""``CallOptions``: what a client, or a view of it, asks of every call made through it.

Owns the options, their limits, and the rule that says who makes the retries of one call: LiteLLM
or us, never both.  Pure: it never makes a call and never waits.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self, get_args

from litellm_ledger._records.checks import is_number
from litellm_ledger._records.record import clean_tags

__all__ = [
    "AbandonedStream",
    "CallOptions",
    "Keep",
    "refuse_ours",
    "without_inner_retries",
]


AbandonedStream = Literal["close", "drain"]


class Keep(enum.Enum):
    """Stands for "leave this option as it is": ``None`` is a value of its own."""

    KEEP = "keep"


_THEIRS: Final = (
    "max_retries",
    "num_retries",
    "retry_policy",
    "fallbacks",
    "context_window_fallback_dict",
)
"""LiteLLM's own arguments that send more than one request for one call."""


_OURS: Final = frozenset(
    {
        "ack_timeout",
        "budget_webhook",
        "budgets",
        "capture_content",
        "deadline",
        "drain_timeout",
        "durability",
        "fetch_prices",
        "handle_signals",
        "ledger",
        "max_concurrency",
        "on_abandoned_stream",
        "prices",
        "on_budget_alert",
        "queue_size",
        "retention",
        "tag",
        "track_in_flight",
        "wait_for_budget",
    }
)
"""Options of the client; LiteLLM, which has none of these, would send them to the provider."""


def refuse_ours(name: str, kwargs: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` if a call is given an option of the client's."""
    for option in _OURS.intersection(kwargs):
        where = "client.with_options" if option in CallOptions.__slots__ else "LiteLLMClient"
        hint = "tags={...}" if option == "tag" else f"{where}({option}=...)"
        raise TypeError(
            f"{name}() got {option!r}, which is not an argument of a call and would be sent to the "
            f"provider; use {hint}, or extra_body if the provider is to get it"
        )


class _TrueZero(int):
    """No retries, for code that asks ``max_retries or 2``, as LiteLLM's embeddings do.

    With a plain 0 a failing ``aembedding`` sent 3 requests; with this, 1 (LiteLLM 1.106).
    """

    def __bool__(self) -> bool:
        return True


_NO_RETRIES: Final = _TrueZero(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How calls are made; ``LiteLLMClient`` says what each means.  Tags are a view's own.

    Raises:
        ValueError: a value out of its range.
        InvalidRecord: tags that are not text to text.
    """

    max_retries: int | None = None
    deadline: float | None = None
    tags: Mapping[str, Any] | None = None
    on_abandoned_stream: AbandonedStream = "close"
    capture_content: bool = False
    cache: Any = None
    wait_for_budget: bool = False

    def __post_init__(self) -> None:
        retries, deadline = self.max_retries, self.deadline
        if retries is not None and (type(retries) is not int or retries < 0):
            raise ValueError(f"max_retries must be a whole number from 0, or None, not {retries!r}")
        if deadline is not None and not (is_number(deadline) and 0 < deadline < math.inf):
            raise ValueError(f"deadline must be seconds above 0, or None, not {deadline!r}")
        if self.on_abandoned_stream not in get_args(AbandonedStream):
            raise ValueError(
                f"on_abandoned_stream must be 'close' or 'drain', not {self.on_abandoned_stream!r}"
            )
        if type(self.wait_for_budget) is not bool:
            raise ValueError(f"wait_for_budget must be True or False, not {self.wait_for_budget!r}")
        if self.tags is not None:
            object.__setattr__(self, "tags", clean_tags(self.tags))

    def changed(self, **changes: Any) -> Self:
        """Return a copy with all changes that are not ``Keep.KEEP``; tags are added to ours."""
        changes = {name: value for name, value in changes.items() if value is not Keep.KEEP}
        if changes.get("tags") and self.tags:
            changes["tags"] = {**self.tags, **clean_tags(changes["tags"])}
        return replace(self, **changes)

    def tagged(self, own: Mapping[str, Any] | None) -> dict[str, str] | None:
        """Return the tags of a call whose own are ``own``; ``None`` for none at all."""
        if not own and not self.tags:
            return None
        return {**(self.tags or {}), **(clean_tags(own) if own else {})}

    def retries(self, kwargs: Mapping[str, Any]) -> int | None:
        """How many retries of this call are ours to make; ``None``: LiteLLM makes its own.

        LiteLLM does if neither ``max_retries`` nor ``deadline`` is set here, or if the caller used
        one of LiteLLM's own arguments: the call's word counts for more than the client's.
        """
        if self.max_retries is None and self.deadline is None:
            return None
        if any(kwargs.get(name) is not None for name in _THEIRS):
            return None
        return self.max_retries or 0


def without_inner_retries(kwargs: dict[str, Any]) -> None:
    """Have LiteLLM and the SDK below it send one request.

    ``num_retries`` wins over ``max_retries`` in chat calls, and over ``litellm.num_retries``, so
    both are set.
    """
    kwargs["max_retries"] = _NO_RETRIES
    kwargs["num_retries"] = 0
