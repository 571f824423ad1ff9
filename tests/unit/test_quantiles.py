"""Quantiles: buckets that are the same in Python and in SQL, and what is lost by them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import duckdb
import pytest

from litellm_ledger._aggregates.calendar import Calendar
from litellm_ledger._aggregates.quantiles import (
    BUCKETS,
    Sketch,
    Spread,
    bucket_of,
    bucket_sql,
)
from litellm_ledger._records.record import UsageRecord


def values() -> Iterator[float]:
    """Each power of two and values inside, with their neighbours; strange ones; some at random."""
    yield from (0.0, -0.0, -1.0, 5e-324, 1e-7, 1e16, 1.7976931348623157e308)
    for power in range(-8, 1024):
        for part in (0, 1, 31, 63):
            value = 2.0**power * (1 + part / 64)
            yield from (math.nextafter(value, 0), value, math.nextafter(value, math.inf))
    rng = random.Random(3)
    for _ in range(10_000):
        yield rng.random() * 10 ** rng.uniform(-2, 7)


def test_the_database_puts_every_value_into_the_same_bucket() -> None:
    tried = [*values()]
    rows = duckdb.sql(
        f"SELECT {bucket_sql('value')} FROM (SELECT unnest(?::DOUBLE[]) AS value)", params=[tried]
    ).fetchall()
    assert [bucket for (bucket,) in rows] == [*map(bucket_of, tried)]
    assert duckdb.sql(f"SELECT {bucket_sql('NULL::DOUBLE')}").fetchall() == [(None,)]


def test_larger_values_are_in_larger_buckets() -> None:
    ordered = [bucket_of(value) for value in sorted(values())]
    assert ordered == sorted(ordered)
    assert (ordered[0], ordered[-1]) == (0, BUCKETS - 1)


def test_a_quantile_is_within_the_error_that_is_documented() -> None:
    for value in values():
        found = Sketch({bucket_of(value): 3}, -math.inf, math.inf).quantiles().p50
        assert found == pytest.approx(max(value, 0.0), rel=1 / 128, abs=1 / 16)


def test_the_smallest_and_the_largest_are_exact() -> None:
    for measured in ([120.5], [7.3, 7.3, 7.3], [1.1, 90.7], [0.001], [-1.0, 5e9]):
        found = Sketch.of(measured).quantiles()
        assert (found.count, found.max, found.p99) == (len(measured), measured[-1], measured[-1])
        assert found.p50 == measured[0]


def test_parts_in_any_order_come_to_the_whole() -> None:
    rng = random.Random(5)
    measured = [rng.lognormvariate(6, 2) for _ in range(500)]
    whole = Sketch.of(measured).quantiles()
    for _ in range(20):
        rng.shuffle(measured)
        cuts = sorted(rng.sample(range(1, 500), 5))
        parts = [Sketch.of(measured[a:b]) for a, b in zip([0, *cuts], [*cuts, 500], strict=True)]
        for part in parts[1:]:
            parts[0].merge(part)
        assert parts[0].quantiles() == whole


def test_a_copy_goes_its_own_way() -> None:
    spread = Spread(["model"], Calendar())
    spread.add(UsageRecord(model="m", latency_ms=5.0))
    other = spread.copy()
    other.add(UsageRecord(model="m", latency_ms=500.0))
    for group in (("m",), None):
        found = [one.quantiles(group, "latency_ms") for one in (spread, other)]
        assert [quantiles and (quantiles.count, quantiles.max) for quantiles in found] == [
            (1, 5.0),
            (2, 500.0),
        ]
