"""One line: encoded the same for ever, believed only with its checksum."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger_by_hand import framed
from tests.ledgers import WRITER, line

from litellm_ledger._errors import InvalidRecord, UnsupportedFormat
from litellm_ledger._records.layout import record_id
from litellm_ledger._records.line import SUFFIX, checked, decode, encode, newer_version
from litellm_ledger._records.money import MAX_PICOUSD, usd
from litellm_ledger._records.record import MAX_INT, UsageRecord

counts = st.none() | st.integers(0, MAX_INT)
money = st.none() | st.integers(-MAX_PICOUSD, MAX_PICOUSD).map(usd)
text = st.none() | st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
records = st.builds(
    UsageRecord,
    kind=st.sampled_from(["usage", "started"]),
    ts=st.none() | st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1)),  # noqa: DTZ001 - hypothesis wants it so
    attempt=st.none() | st.integers(1, 99),
    model=text,
    provider=text,
    status=st.sampled_from(["ok", "error", "cancelled", "abandoned", "unsettled", None]),
    input_tokens=counts,
    output_tokens=counts,
    total_tokens=st.integers(0, MAX_INT),
    usage_source=st.sampled_from(["provider", "estimated", "none", None]),
    cost=money,
    saved_cost=money,
    cache_hit=st.none() | st.booleans(),
    latency_ms=st.none() | st.floats(0, 1e9),
    stream=st.none() | st.booleans(),
    tags=st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4),
    call_id=text,
    meta=st.none() | st.dictionaries(st.text(max_size=5), json_values, max_size=3),
)


def numbered(record: UsageRecord, seq: int = 1) -> UsageRecord:
    from msgspec.structs import replace

    return replace(record, id=record_id(WRITER, seq), seq=seq)


@given(records)
def test_every_record_survives_the_way_to_the_disk_and_back(record: UsageRecord) -> None:
    record = numbered(record)
    encoded = encode(record)
    assert decode(encoded) == record
    assert encode(decode(encoded)) == encoded
    assert encoded.count(b"\n") == 1
    assert checked(encoded)


@given(records)
def test_every_line_is_json_for_everybody(record: UsageRecord) -> None:
    members = json.loads(encode(numbered(record)))
    assert next(iter(members)) == "v"
    assert list(members)[-1] == "crc"
    assert None not in {key: value for key, value in members.items() if key != "meta"}.values()


def test_encoding_leaves_the_record_as_it_was() -> None:
    record = numbered(
        UsageRecord(cost=Decimal("0.1"), saved_cost=Decimal(2), ts=datetime(2026, 1, 1, tzinfo=UTC))
    )
    encode(record)
    assert (record.cost, record.saved_cost) == (Decimal("0.1"), Decimal(2))
    assert record.ts == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("microsecond", [0, 1, 100_000, 120_000, 999_999])
def test_times_have_one_width_so_that_they_sort_as_text(microsecond: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    members = json.loads(
        encode(numbered(UsageRecord(ts=start + timedelta(microseconds=microsecond))))
    )
    assert members["ts"] == f"2026-01-01T00:00:00.{microsecond:06d}Z"


def test_zero_is_written_and_unknown_is_not() -> None:
    members = json.loads(encode(numbered(UsageRecord(input_tokens=0, cost=Decimal(0)))))
    assert (members["input_tokens"], members["cost_picousd"]) == (0, 0)
    assert "output_tokens" not in members
    assert "cost" not in members


def test_every_kind_is_written() -> None:
    for kind in ("usage", "started", "gap"):
        assert json.loads(encode(numbered(UsageRecord(kind=kind))))["kind"] == kind  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\n",
        b"{}\n",
        line(1)[:-1],
        line(1) + b"\n",
        line(1)[1:],
        line(1)[:-SUFFIX] + b'\n,"crc":"00000000"}',
        line(1)[:-11] + line(1)[-11:-3].upper().replace(b"0", b"O") + b'"}\n',
        b',"crc":"00000000"}\n',
    ],
)
def test_what_has_no_true_checksum_is_no_line(bad: bytes) -> None:
    assert not checked(bad)
    with pytest.raises(InvalidRecord, match="checksum"):
        decode(bad)


def line_of(members: dict[str, Any]) -> bytes:
    return framed(json.dumps(members).encode()[:-1])


@pytest.mark.parametrize(
    "members",
    [
        {"v": 1, "seq": "one"},
        {"v": 1, "kind": "other"},
        {"v": 1, "input_tokens": -1},
        {"v": 1, "cost_picousd": 1.5},
        {"v": 1, "cost_picousd": 2**70},
        {"v": 1, "saved_cost_picousd": "NaN"},
        {"v": 1, "saved_cost_picousd": "-Infinity"},
        {"v": 1, "saved_cost_picousd": "1E+999999999"},
        {"v": 0},
        {"v": "1"},
    ],
)
def test_a_true_checksum_does_not_make_a_record(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord, match="not a record"):
        decode(line_of(members))


def test_members_of_a_later_library_are_passed_over() -> None:
    members = {"v": 1, "id": record_id(WRITER, 1), "seq": 1, "kind": "usage", "colour": ["red"]}
    assert decode(line_of(members)).seq == 1


def test_a_newer_version_is_refused_not_guessed() -> None:
    newer = line_of({"v": 2, "anything": {}})
    with pytest.raises(UnsupportedFormat, match=r"version 2.*upgrade"):
        decode(newer)
    assert newer_version(newer) == 2
    assert newer_version(line(1)) is None
    assert newer_version(line_of({"v": "2"})) is None


def test_a_flipped_bit_makes_no_newer_version() -> None:
    assert newer_version(line(1).replace(b'"v":1', b'"v":3')) is None
    assert newer_version(b'{"v":3}\n') is None
    assert newer_version(framed(b'{"v":2,"\xff":1')) is None
