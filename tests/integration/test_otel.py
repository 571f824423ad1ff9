"""OpenTelemetry: what a real reader and a real scrape see of a client's calls."""

from __future__ import annotations

import asyncio
import gc
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client.exposition import start_http_server
from prometheus_client.parser import text_string_to_metric_families
from tests.runs import usage

from litellm_ledger import LiteLLMClient, UsageRecord, UsageTracker
from litellm_ledger.otel import Instrumentation, instrument
from litellm_ledger.testing import OpenAIServer

pytestmark = pytest.mark.asyncio

Point = dict[str, Any]


class Meter:
    """A provider with a reader in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def points(self) -> dict[str, list[Any]]:
        """The data points of each metric, by its name."""
        data = self.reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in () if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = list(metric.data.data_points)
        return found


@pytest.fixture
def meter() -> Iterator[Meter]:
    made = Meter()
    yield made
    made.provider.shutdown()


def billed(number: int, **fields: Any) -> UsageRecord:
    return UsageRecord(
        model="gpt-4o",
        provider="openai",
        call="acompletion",
        input_tokens=100 * number,
        output_tokens=10,
        cost=Decimal("0.25"),
        latency_ms=1500.0,
        **fields,
    )


async def test_the_metrics_that_collectors_know(tmp_path: Path, meter: Meter) -> None:
    async with UsageTracker(tmp_path) as tracker:
        with instrument(tracker, meter_provider=meter.provider):
            await tracker.record(billed(1, ttft_ms=250.0, stream=True))
            await tracker.record(billed(2))
        await tracker.record(billed(3))  # after the end of the `with`
        points = meter.points()
    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
    }
    sizes = {
        one.attributes["gen_ai.token.type"]: one for one in points["gen_ai.client.token.usage"]
    }
    assert {kind: (one.count, one.sum) for kind, one in sizes.items()} == {
        "input": (2, 300),
        "output": (2, 20),
    }
    assert sizes["input"].explicit_bounds[-1] == 67_108_864
    assert dict(sizes["input"].attributes) == {**common, "gen_ai.token.type": "input"}
    [duration] = points["gen_ai.client.operation.duration"]
    assert (duration.count, duration.sum, dict(duration.attributes)) == (2, 3.0, common)
    assert duration.explicit_bounds[-1] == 81.92
    [first] = points["gen_ai.client.operation.time_to_first_chunk"]
    assert (first.count, first.sum) == (1, 0.25)
    [cost] = points["litellm_ledger.cost"]
    assert cost.value == 0.5
    [calls] = points["litellm_ledger.calls"]
    assert (calls.value, calls.attributes["litellm_ledger.status"]) == (2, "ok")
    assert not any(name.startswith("gen_ai.client.inference") for name in points)


async def test_the_newer_names_are_asked_for(
    tmp_path: Path, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http, gen_ai_latest_experimental")
    async with UsageTracker(tmp_path) as tracker:
        with instrument(tracker, meter_provider=meter.provider):
            parts = {"tokens": {"audio_input": 40}}
            await tracker.record(
                billed(1, cache_read_tokens=64, reasoning_tokens=3, ttft_ms=250.0, meta=parts)
            )
            embeds = UsageRecord(call="aembedding", input_tokens=7, latency_ms=10.0)
            await tracker.record(embeds)
        points = meter.points()
    usage = "gen_ai.client.inference.usage"
    found = {
        (
            one.attributes["gen_ai.operation.name"],
            one.attributes["gen_ai.token.modality"],
        ): one.value
        for one in points[f"{usage}.input_tokens"]
    }
    assert found == {("chat", "audio"): 40, ("chat", "text"): 60, ("embeddings", "unknown"): 7}
    assert [one.value for one in points[f"{usage}.cache_read.input_tokens"]] == [64]
    assert [one.value for one in points[f"{usage}.reasoning.output_tokens"]] == [3]
    assert f"{usage}.cache_write.input_tokens" not in points  # nothing for what is unknown
    assert [one.sum for one in points["gen_ai.client.inference.duration"]] == [1.5]
    assert [one.sum for one in points["gen_ai.client.embeddings.duration"]] == [0.01]
    assert [one.sum for one in points["gen_ai.client.inference.time_to_first_chunk"]] == [0.25]
    assert {one.count for one in points["gen_ai.client.inference.operation.input_tokens"]} == {1}
    assert not {"gen_ai.client.token.usage", "gen_ai.client.operation.duration"} & set(points)


async def test_what_is_unknown_is_not_measured(tmp_path: Path, meter: Meter) -> None:
    async with UsageTracker(tmp_path) as tracker:
        with instrument(tracker, meter_provider=meter.provider):
            await tracker.record(UsageRecord(model="m", status="error", error="Timeout"))
            hit = billed(1, cache_hit=True, saved_cost=Decimal("0.75"))
            await tracker.record(hit)
            nothing_sent = UsageRecord(model="m", status="refused", latency_ms=0.1, cost=Decimal(0))
            await tracker.record(nothing_sent)
        points = meter.points()
    assert "gen_ai.client.token.usage" not in points
    assert [one.value for one in points["litellm_ledger.saved_cost"]] == [0.75]
    assert [one.value for one in points["litellm_ledger.unknown_cost.calls"]] == [1]
    assert "gen_ai.client.operation.duration" not in points  # of requests that were made


async def test_tags_are_attributes_where_they_are_asked_for_and_never_without_bound(
    tmp_path: Path, meter: Meter
) -> None:
    async with UsageTracker(tmp_path) as tracker:
        with instrument(tracker, meter_provider=meter.provider, tags=["feature"], max_values=3):
            for number in range(10):
                tags = {"feature": f"f{number}", "user": f"u{number}"}
                await tracker.record(billed(1, tags=tags))
        [*points] = meter.points()["litellm_ledger.calls"]
    features = {one.attributes["litellm_ledger.tag.feature"]: one.value for one in points}
    assert features == {"f0": 1, "f1": 1, "f2": 1, "(other)": 7}
    assert not any("u0" in str(one.attributes) for one in points)


async def test_the_health_of_the_ledger_is_observed(tmp_path: Path, meter: Meter) -> None:
    async with UsageTracker(tmp_path) as tracker:
        with instrument(tracker, meter_provider=meter.provider):
            await tracker.record(usage(1))
            points = meter.points()
    values = {name: one[0].value for name, one in points.items() if name.startswith("litellm")}
    assert values["litellm_ledger.queue.depth"] == 0
    assert values["litellm_ledger.unacked"] == 0
    assert values["litellm_ledger.unsettled"] == 0
    assert values["litellm_ledger.disk.free"] > 0
    assert values["litellm_ledger.unsynced.age"] >= 0


async def test_a_reader_that_raises_fails_no_call(
    tmp_path: Path, meter: Meter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with UsageTracker(tmp_path) as tracker:
        with instrument(tracker, meter_provider=meter.provider) as made:

            def broken(*_: object) -> None:
                raise RuntimeError("exporter")

            monkeypatch.setattr(made._instruments, "add", broken)
            record = await tracker.record(usage(1))
            assert record.seq == 1
            await asyncio.sleep(0)
    assert "was not measured" in caplog.text


async def test_an_instrumentation_keeps_nobody_alive(tmp_path: Path, meter: Meter) -> None:
    tracker = UsageTracker(tmp_path)
    await tracker.open()
    made = instrument(tracker, meter_provider=meter.provider)
    await tracker.aclose()
    del tracker
    gc.collect()
    assert made._tracker() is None
    assert "litellm_ledger.queue.depth" not in meter.points()


# -- spans -----------------------------------------------------------------------------------------


async def test_usage_is_on_the_span_that_made_the_call(
    tmp_path: Path, server: OpenAIServer
) -> None:
    tracer = TracerProvider().get_tracer("test")
    async with LiteLLMClient(tmp_path) as client:
        with instrument(client, meter_provider=MeterProvider()):

            async def request(name: str, calls: int) -> Any:
                with tracer.start_as_current_span(name) as span:
                    for number in range(calls):
                        answer = await client.acompletion(
                            model="openai/gpt-4o-mini",
                            messages=[{"role": "user", "content": "hi"}],
                            api_base=server.base_url,
                            api_key="k",
                            stream=bool(number % 2),
                        )
                        if number % 2:
                            [chunk async for chunk in answer]
                return span

            one, two = await asyncio.gather(request("one", 1), request("two", 4))
            await client.usage.record(usage("of nobody"))
        records = [r for r in client.usage.summary(["model"]) if r.group["model"] != "m"]
    assert one.attributes["litellm_ledger.calls"] == 1
    assert two.attributes["litellm_ledger.calls"] == 4
    assert two.attributes["gen_ai.usage.input_tokens"] == (
        4 * one.attributes["gen_ai.usage.input_tokens"]
    )
    assert records


async def test_a_span_that_an_sdk_has_marked_is_left_alone(tmp_path: Path) -> None:
    tracer = TracerProvider().get_tracer("test")
    async with UsageTracker(tmp_path) as tracker:
        made = instrument(tracker, meter_provider=MeterProvider())
        with tracer.start_as_current_span("request") as span:
            span.set_attribute("gen_ai.usage.input_tokens", 5)
            _start_and_end(made, billed(1))
        made.uninstrument()
    attributes: Any = span.attributes  # type: ignore[attr-defined]
    assert dict(attributes) == {"gen_ai.usage.input_tokens": 5}


async def test_a_call_outside_of_any_span_marks_none(tmp_path: Path) -> None:
    tracer = TracerProvider().get_tracer("test")
    async with UsageTracker(tmp_path) as tracker:
        made = instrument(tracker, meter_provider=MeterProvider())
        assert not trace.get_current_span().is_recording()
        with tracer.start_as_current_span("another") as span:
            made._heard(billed(1, operation="w-1", attempt=1), 1)  # ended in another's context
        made.uninstrument()
    attributes: Any = span.attributes  # type: ignore[attr-defined]
    assert not attributes


def _start_and_end(made: Instrumentation, record: UsageRecord) -> None:
    assert made._spans is not None
    made._spans.started(record)
    made._heard(record, 250_000_000_000)


# -- a real scrape ---------------------------------------------------------------------------------


async def test_what_prometheus_scrapes(tmp_path: Path) -> None:
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader])
    server, thread = start_http_server(0, "127.0.0.1")
    try:
        async with UsageTracker(tmp_path) as tracker:
            with instrument(tracker, meter_provider=provider):
                await tracker.record(billed(1, ttft_ms=250.0))
                url = f"http://127.0.0.1:{server.server_port}/metrics"
                text = await asyncio.to_thread(_scrape, url)
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
        provider.shutdown()
    families = {one.name: one for one in text_string_to_metric_families(text)}
    assert {
        "gen_ai_client_token_usage": "histogram",
        "gen_ai_client_operation_duration_seconds": "histogram",
        "gen_ai_client_operation_time_to_first_chunk_seconds": "histogram",
        "litellm_ledger_calls": "counter",
        "litellm_ledger_cost": "counter",
        "litellm_ledger_queue_depth": "gauge",
        "litellm_ledger_unsynced_age_seconds": "gauge",
        "litellm_ledger_unsettled": "gauge",
        "litellm_ledger_disk_free_bytes": "gauge",
    }.items() <= {name: one.type for name, one in families.items()}.items()
    [cost] = [one for one in families["litellm_ledger_cost"].samples if one.name.endswith("_total")]
    assert cost.name == "litellm_ledger_cost_total"  # and no unit in it
    assert cost.value == 0.25
    assert cost.labels["gen_ai_provider_name"] == "openai"


def _scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()
