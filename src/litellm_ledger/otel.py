"""OpenTelemetry: metrics and span attributes of every call, by the conventions for generative AI.

    from litellm_ledger.otel import instrument

    async with LiteLLMClient(ledger="usage/") as client:
        with instrument(client):
            ...

Owns when a measurement is made.  A call only puts its outcome aside; it is measured in the loop's
next turn, so that no lock of the SDK's is taken while a record is being accepted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from litellm_ledger._client.client import LiteLLMClient
from litellm_ledger._errors import MissingExtra
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._tracking.tracker import UsageTracker, listen
from litellm_ledger._writing.state import State

try:
    from opentelemetry.context import Context, get_current
    from opentelemetry.metrics import get_meter_provider
except ModuleNotFoundError as exc:
    raise MissingExtra("opentelemetry", "otel") from exc

from litellm_ledger._telemetry.health import observe
from litellm_ledger._telemetry.instruments import LATEST, Instruments
from litellm_ledger._telemetry.spans import Spans

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.metrics import MeterProvider

    from litellm_ledger._records.statistics import Statistics

__all__ = ["Instrumentation", "instrument"]

_log = logging.getLogger("litellm_ledger")

_MOST: Final = 10_000
"""Outcomes set aside for a loop that does not turn; what comes after them is not measured."""


def instrument(
    client: LiteLLMClient | UsageTracker,
    *,
    meter_provider: MeterProvider | None = None,
    tags: Sequence[str] = (),
    max_values: int = 100,
    spans: bool = True,
    estimated: bool = False,
) -> Instrumentation:
    """Measure every outcome of a client, from now on.

    The names of the metrics are those that collectors know (``gen_ai.client.token.usage``,
    ``gen_ai.client.operation.duration``, ``gen_ai.client.operation.time_to_first_chunk``).  Where
    ``OTEL_SEMCONV_STABILITY_OPT_IN`` has ``gen_ai_latest_experimental`` they are the newer ones
    (``gen_ai.client.inference.*``).  docs/telemetry.md lists all.

    Tokens are the billable ones that the provider counted; of a call whose usage is unknown, and of
    an answer from a response cache, there are none.  No prompt, answer or key is ever measured.

    Args:
        client: a client (of all its views) or a tracker.
        meter_provider: default: the global one.
        tags: names of tags that become attributes, as ``litellm_ledger.tag.NAME``.  Default:
            none; each value makes a time series.
        max_values: different values of each of these tags, and of models, that are kept apart;
            later ones are ``(other)``.
        spans: also add usage and cost to the span that was current when the call was made.
        estimated: also count tokens that this library estimated, of streams that were cut.

    Returns:
        What ends it: ``uninstrument()``, or the end of a ``with``.

    Raises:
        TypeError: not a client or a tracker.
        ValueError: ``max_values`` below 1.
    """
    tracker = client.usage if isinstance(client, LiteLLMClient) else client
    if not isinstance(tracker, UsageTracker):
        raise TypeError(f"give a LiteLLMClient or a UsageTracker, not {type(client).__name__}")
    if isinstance(tags, str):
        raise TypeError("tags must be a sequence of names: tags=['feature']")
    if max_values < 1:
        raise ValueError(f"max_values must be at least 1, not {max_values}")
    from litellm_ledger import __version__

    meter = (meter_provider or get_meter_provider()).get_meter("litellm_ledger", __version__)
    opted = os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "")
    latest = LATEST in {word.strip() for word in opted.split(",")}
    made = Instrumentation(
        tracker,
        Instruments(meter, latest=latest, estimated=estimated, tags=tags, most=max_values),
        Spans(estimated=estimated) if spans else None,
    )
    alive = weakref.ref(client)

    def look() -> tuple[Statistics, Path | None] | None:
        found = alive()
        return None if found is None or made.ended else (found.statistics(), tracker_of(found))

    observe(meter, look, made.measure)
    return made


def tracker_of(client: LiteLLMClient | UsageTracker) -> Path | None:
    """Return the directory of a client's or tracker's ledger, once it is open."""
    return (client.usage if isinstance(client, LiteLLMClient) else client).directory


class Instrumentation:
    """What ``instrument`` has begun.  A context manager; its end is ``uninstrument``."""

    def __init__(
        self, tracker: UsageTracker, instruments: Instruments, spans: Spans | None
    ) -> None:
        self.ended = False
        """Whether ``uninstrument`` was called."""
        self._instruments = instruments
        self._spans = spans
        self._tracker = weakref.ref(tracker)
        self._aside: deque[tuple[UsageRecord, int | None, Context | None]] = deque(maxlen=_MOST)
        self._planned = False
        self._stop = listen(tracker, self._heard, None if spans is None else spans.started)

    def uninstrument(self) -> None:
        """Measure what was put aside, and no outcome after that.  Idempotent."""
        self.ended = True
        self._stop()
        self.measure()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.uninstrument()

    def measure(self) -> None:
        """Measure what was put aside so far; on any thread."""
        self._planned = False
        aside = self._aside
        while aside:
            try:
                record, cost, context = aside.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                self._instruments.add(record, cost, context)
            except Exception:  # a broken exporter is no reason to fail  # noqa: BLE001
                _log.warning("an outcome was not measured", exc_info=True)

    def _heard(self, record: UsageRecord, cost: int | None) -> None:
        """An outcome is being accepted: on the loop's thread, or wherever the program ends."""
        try:
            loop: Any = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        context = self._mark(record, cost, loop)
        self._aside.append((record, cost, context))
        if loop is not None and not self._planned:
            self._planned = True
            loop.call_soon(self.measure)

    def _mark(self, record: UsageRecord, cost: int | None, loop: Any) -> Context | None:
        """Add the outcome to the span of its call; return the context for exemplars."""
        if self._spans is None:
            return None
        span = self._spans.taken(record)
        tracker = self._tracker()
        # Late outcomes are accepted in finalizers as well, where a span's lock may be held.
        if span is None or loop is None or tracker is None or tracker.state is not State.OPEN:
            return None
        try:
            self._spans.add(span, record, cost)
        except Exception:  # as above  # noqa: BLE001
            _log.warning("an outcome was not added to its span", exc_info=True)
        return get_current()
