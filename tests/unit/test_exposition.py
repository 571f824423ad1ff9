"""``litellm-ledger metrics``: a ledger in Prometheus' text format."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from tests.ledger_by_hand import HandMade

from litellm_ledger import Ledger, UsageRecord, UsageTracker
from litellm_ledger._telemetry.exposition import exposition


def values(text: str) -> Counter[tuple[str, str]]:
    """The sum of each metric's samples, by its name and the model."""
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("gen_ai_token_type", "input") == "input":
                found[sample.name, sample.labels.get("gen_ai_request_model", "")] += sample.value
    return found


def test_sums_are_those_of_the_report_whatever_a_model_is_called(hand: HandMade) -> None:
    hostile = 'a"b\\c\nd{} 1\n# TYPE x counter'
    hand.filled(
        {"model": hostile, "input_tokens": 10, "cost": Decimal("0.000000000001")},
        {"model": "m", "input_tokens": 5, "cost": None},
        {"model": "m", "input_tokens": 5, "provider": "azure_text", "cost": Decimal(2)},
        {"model": "m", "input_tokens": 5, "provider": "azure", "cost": Decimal(3)},
    )
    text = exposition(Ledger(hand.root))
    found = values(text)
    assert found["litellm_ledger_calls_total", hostile] == 1
    assert found["litellm_ledger_cost_total", "m"] == 5
    [azure] = [x for x in text.splitlines() if "azure.ai" in x and "_cost_total" in x and " 5" in x]
    assert azure.startswith("litellm_ledger_cost_total{")
    assert "0.000000000001" in text
    assert found["litellm_ledger_tokens_total", "m"] == 15
    assert found["litellm_ledger_disk_free_bytes", ""] > 0
    assert found["litellm_ledger_writers", ""] == 0
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE litellm")]
    assert len(names) == len(set(names))
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))


def test_no_restart_sets_them_back_and_living_writers_are_seen(tmp_path: Path) -> None:
    async def one() -> float:
        async with UsageTracker(tmp_path) as tracker:
            await tracker.record(UsageRecord(model="m", input_tokens=1, cost=Decimal(1)))
            return values(exposition(Ledger(tmp_path)))["litellm_ledger_writers", ""]

    for number in (1, 2):
        assert asyncio.run(one()) == 1
        found = values(exposition(Ledger(tmp_path)))
        assert found["litellm_ledger_cost_total", "m"] == number
        assert found["litellm_ledger_writers", ""] == 0
