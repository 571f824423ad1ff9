"""The metrics of calls: what an outcome adds to which instrument.

Owns the two generations of names.  The one that collectors know is the default; the newer one is
for those who set ``OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental``.  Both are never
recorded at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from litellm_ledger._records.money import usd
from litellm_ledger._records.record import UsageRecord

from .capped import Capped
from .conventions import (
    SECONDS,
    TOKENS,
    Tokens,
    attributes,
    billed,
    by_modality,
    error_type,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram, Meter

__all__ = ["LATEST", "Instruments"]

LATEST: Final = "gen_ai_latest_experimental"

_USAGE: Final = (
    ("input_tokens", "Input (prompt) tokens used, cached tokens among them.", "input"),
    ("output_tokens", "Output (completion) tokens used, reasoning tokens among them.", "output"),
    ("cache_read.input_tokens", "Input tokens read from the provider's cache.", "cached"),
    ("cache_write.input_tokens", "Input tokens written to the provider's cache.", "written"),
    ("reasoning.output_tokens", "Output tokens spent on reasoning.", "reasoning"),
)
"""Name, description, and the kind of tokens in the order of ``Tokens``."""


class Instruments:
    """The instruments of one meter.

    Args:
        meter: where they are made.
        latest: the newer names.
        estimated: also count tokens that this library has estimated.
        tags: the tags that become attributes.
        most: different values of a tag or a model that are kept apart.
    """

    def __init__(
        self, meter: Meter, *, latest: bool, estimated: bool, tags: Sequence[str], most: int
    ) -> None:
        self._estimated = estimated
        self._tags = {tag: Capped(most) for tag in tags}
        self._models = Capped(most)
        self._add_tokens = self._add_usage if latest else self._add_sizes
        kind = "inference" if latest else "operation"
        self._duration = _seconds(
            meter, f"gen_ai.client.{kind}.duration", "Duration of the call, as the client saw it."
        )
        self._first_chunk = _seconds(
            meter,
            f"gen_ai.client.{kind}.time_to_first_chunk",
            "Time from the request to the first chunk of the stream.",
        )
        self._embeddings = self._duration
        if latest:
            self._embeddings = _seconds(
                meter, "gen_ai.client.embeddings.duration", "Duration of an embeddings call."
            )
            self._usage = [
                _counter(meter, f"gen_ai.client.inference.usage.{name}", "{token}", text)
                for name, text, _ in _USAGE
            ]
            self._sizes = [
                _tokens(meter, f"gen_ai.client.inference.operation.{name}", text)
                for name, text, _ in _USAGE[:2]
            ]
        else:
            self._sizes = [
                _tokens(meter, "gen_ai.client.token.usage", "Input and output tokens used.")
            ]
        self._calls = _counter(
            meter, "litellm_ledger.calls", "{call}", "Outcomes on the ledger, by status."
        )
        # The conventions have no metric of cost yet.  {USD} is an annotation: the unit USD would
        # become part of the name in Prometheus.
        self._cost = _counter(
            meter, "litellm_ledger.cost", "{USD}", "Cost of calls whose cost is known, in dollars."
        )
        self._saved = _counter(
            meter, "litellm_ledger.saved_cost", "{USD}", "Not spent: answered by a response cache."
        )
        self._unknown = _counter(
            meter,
            "litellm_ledger.unknown_cost.calls",
            "{call}",
            "Calls whose cost is unknown: no price, or no usage.",
        )

    def add(self, record: UsageRecord, cost: int | None, context: Context | None) -> None:
        """Add one outcome.

        Args:
            record: the outcome.
            cost: picodollars; ``None`` is unknown.
            context: that of the call, for exemplars.
        """
        common = self._common(record)
        self._add_money(record, cost, common, context)
        if record.cache_hit or record.status == "refused":  # no request was made
            return
        self._add_times(record, common, context)
        tokens = billed(record, estimated=self._estimated)
        if tokens is not None:
            self._add_tokens(record, tokens, common, context)

    def _common(self, record: UsageRecord) -> dict[str, str]:
        """Return the attributes of all metrics of a call."""
        common = attributes(record)
        for name in ("gen_ai.request.model", "gen_ai.response.model"):
            if name in common:
                common[name] = self._models(common[name])
        for tag, capped in self._tags.items():
            if tag in record.tags:
                common[f"litellm_ledger.tag.{tag}"] = capped(record.tags[tag])
        return common

    def _add_money(
        self, record: UsageRecord, cost: int | None, common: dict[str, str], context: Context | None
    ) -> None:
        status = {**common, "litellm_ledger.status": record.status or "ok"}
        self._calls.add(1, status, context=context)
        if cost is None:
            self._unknown.add(1, common, context=context)
        elif cost:
            self._cost.add(float(usd(cost)), common, context=context)
        if record.saved_cost:
            self._saved.add(float(record.saved_cost), common, context=context)

    def _add_times(
        self, record: UsageRecord, common: dict[str, str], context: Context | None
    ) -> None:
        if record.latency_ms is not None:
            error = error_type(record)
            embeds = common["gen_ai.operation.name"] == "embeddings"
            duration = self._embeddings if embeds else self._duration
            duration.record(
                record.latency_ms / 1000,
                common if error is None else {**common, "error.type": error},
                context=context,
            )
        if record.ttft_ms is not None:
            self._first_chunk.record(record.ttft_ms / 1000, common, context=context)

    def _add_sizes(
        self, _: UsageRecord, tokens: Tokens, common: dict[str, str], context: Context | None
    ) -> None:
        for kind, count in (("input", tokens.input), ("output", tokens.output)):
            if count is not None:
                self._sizes[0].record(count, {**common, "gen_ai.token.type": kind}, context=context)

    def _add_usage(
        self, record: UsageRecord, tokens: Tokens, common: dict[str, str], context: Context | None
    ) -> None:
        for counter, (_, _, kind), count in zip(self._usage, _USAGE, tokens, strict=True):
            for modality, part in () if count is None else by_modality(record, kind, count):
                counter.add(part, {**common, "gen_ai.token.modality": modality}, context=context)
        for histogram, count in zip(self._sizes, tokens[:2], strict=True):
            if count is not None:
                histogram.record(count, common, context=context)


def _seconds(meter: Meter, name: str, text: str) -> Histogram:
    return meter.create_histogram(
        name, unit="s", description=text, explicit_bucket_boundaries_advisory=SECONDS
    )


def _tokens(meter: Meter, name: str, text: str) -> Histogram:
    return meter.create_histogram(
        name, unit="{token}", description=text, explicit_bucket_boundaries_advisory=TOKENS
    )


def _counter(meter: Meter, name: str, unit: str, text: str) -> Counter:
    return meter.create_counter(name, unit=unit, description=text)
