"""What one call may cost at most, from its arguments and its prices.

Owns the choice of the rule.  The bound is input counted by bytes at the highest price that input
may have, the most that the model may write at the highest price of output, and the fees of what the
call allows.  What has no bound has a reason instead.  Pure: the prices, the limits of the model and
what is known of the call come from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from . import unit_calls
from .bound import Asked, Bound, Model, Unbounded
from .token_calls import by_text, by_tokens

__all__ = ["Bound", "Model", "bound"]


def bound(
    call: str,
    kwargs: Mapping[str, Any],
    model: Model,
    options: Mapping[str, Any],
    count: Callable[[str], int] | None = None,
) -> Bound:
    """Return the most that a call may use.

    Args:
        call: as on the record.
        kwargs: its arguments.
        model: what is known of the model.
        options: ``price_options`` of the call.
        count: counts the tokens of a text, where its bytes are not to be taken for them.
    """
    rule = RULES.get(call)
    try:
        if rule is None:
            raise Unbounded(f"what a call of {call} may use is not known before it ends")
        extra = kwargs.get("extra_body")
        if isinstance(extra, Mapping) and extra:
            kwargs = {**kwargs, **_both(kwargs, extra)}
        return rule(Asked(call, kwargs, model, options, count))
    except Unbounded as exc:
        return Bound(None, None, reason=str(exc))


def _both(kwargs: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in ``extra_body``; of two limits the larger one counts."""
    found = dict(extra)
    for name, value in extra.items():
        known = kwargs.get(name)
        if type(known) is int and type(value) is int:
            found[name] = max(known, value)
    return found


RULES: Final[dict[str, Callable[[Asked], Bound]]] = {
    "acompact_responses": by_tokens,
    "acompletion": by_tokens,
    "acreate_container": unit_calls.container,
    "adecisions": unit_calls.decisions,
    "aembedding": unit_calls.embedding,
    "agenerate_content": by_tokens,
    "agenerate_content_stream": by_tokens,
    "aget_responses": unit_calls.nothing,
    "aimage_edit": unit_calls.images,
    "aimage_generation": unit_calls.images,
    "aimage_variation": unit_calls.images,
    "amoderation": unit_calls.input_alone,
    "anthropic_messages": by_tokens,
    "aocr": unit_calls.pages,
    "arerank": unit_calls.ranking,
    "aresponses": by_tokens,
    "aretrieve_batch": unit_calls.nothing,
    "asearch": unit_calls.searches,
    "aspeech": unit_calls.speech,
    "atext_completion": by_text,
    "atranscription": unit_calls.transcription,
    "avideo_edit": unit_calls.video,
    "avideo_extension": unit_calls.video,
    "avideo_generation": unit_calls.video,
    "avideo_remix": unit_calls.video,
    "acreate_batch": unit_calls.batch,
    "acreate_fine_tuning_job": unit_calls.training,
    "aextraction": unit_calls.extraction,
    "allm_passthrough_route": unit_calls.unread,
    "aresponses_websocket": unit_calls.session,
    "arealtime": unit_calls.session,
    "interactions.acreate": by_tokens,
    "vector_stores.asearch": unit_calls.one_query,
}
"""Every kind of call that ``_litellm.calls`` and ``_calls.realtime`` have."""
