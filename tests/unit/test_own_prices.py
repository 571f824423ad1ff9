"""Prices of the user's own: with dates, named after what they are, and kept in the price book."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from litellm_ledger import ModelPrice
from litellm_ledger._prices.computed import compute
from litellm_ledger._prices.own import find_price, price_table
from litellm_ledger._reading.price_entries import PriceEntries
from litellm_ledger._storage.filesystem import REAL
from litellm_ledger._storage.price_book import PriceBook

OLD = ModelPrice(input="1", output="2")
NEW = ModelPrice(input="3", output="4", valid_from=date(2026, 3, 1))
LATER = ModelPrice(input="5", output="6", valid_from=datetime(2026, 3, 1, 12, tzinfo=UTC))


@pytest.mark.parametrize(
    ("ts", "price"),
    [
        (datetime(2020, 1, 1, tzinfo=UTC), OLD),
        (datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC), OLD),
        (datetime(2026, 3, 1, tzinfo=UTC), NEW),
        (datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))), OLD),
        (datetime(2026, 3, 1, 12, tzinfo=UTC), LATER),
        (datetime(2030, 1, 1, tzinfo=UTC), LATER),
    ],
)
def test_the_price_of_a_call_is_the_one_that_began_last_before_it(
    ts: datetime, price: ModelPrice
) -> None:
    table = price_table({"m": [NEW, LATER, OLD]})
    assert find_price(table, "m", None, ts) is price
    assert find_price(table, "p/m", "p", ts) is price


def test_before_the_first_price_begins_there_is_none() -> None:
    table = price_table({"m": NEW})
    assert find_price(table, "m", None, datetime(2026, 2, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize("prices", [[], [OLD, ModelPrice(input="9")], [NEW, NEW]])
def test_prices_of_a_model_that_begin_at_the_same_time_are_refused(
    prices: list[ModelPrice],
) -> None:
    with pytest.raises(ValueError, match="different times"):
        price_table({"m": prices})


def test_a_beginning_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        ModelPrice(input="1", valid_from=datetime(2026, 1, 1))  # noqa: DTZ001 - that is refused
    with pytest.raises(TypeError, match="valid_from"):
        ModelPrice(input="1", valid_from="2026-01-01")  # type: ignore[arg-type]


def test_a_price_is_named_after_what_it_is_and_not_after_when_or_how_it_was_written() -> None:
    price = ModelPrice(input="0.20", output=1, per=1_000)
    assert price.text == '{"price":{"input":"0.2","output":"1","per":1000}}'
    assert price.version == "user-9433fcfe3a3473021c75ab2f"
    assert price.version == ModelPrice(input="0.2", output="1.0", per=1_000).version
    assert NEW.version == ModelPrice(input="3", output="4").version != OLD.version


def kept(root: Path, price: ModelPrice = OLD) -> Path:
    book = PriceBook(REAL, root)
    book.add(price.version, price.text)
    book.write()
    (path,) = (root / "prices").glob("*.json")
    return path


def test_what_the_book_has_is_the_price(tmp_path: Path) -> None:
    path = kept(tmp_path)
    told = json.loads(path.read_bytes())
    assert told.pop("day") == f"{datetime.now(UTC):%Y-%m-%d}"
    assert told == {"v": 1, "price": {"input": "1", "output": "2", "per": 1_000_000}}
    entry = PriceEntries(tmp_path).get(OLD.version)
    assert entry == OLD
    assert entry is not None
    found = compute(entry, {"input_tokens": 10, "output_tokens": 5})
    assert found.cost == Decimal("0.00002")
    assert [(term.name, term.quantity) for term in found.lines] == [("input", 10), ("output", 5)]


def test_an_entry_is_never_written_over(tmp_path: Path) -> None:
    path = kept(tmp_path)
    path.write_bytes(b"what was there first")
    kept(tmp_path)
    assert path.read_bytes() == b"what was there first"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (b'"input":"1"', b'"input":"0.1"', "misnamed"),
        (b'"per":1000000', b'"per":2000000', "misnamed"),
        (b'"input":"1"', b'"input":"1","input_":"0"', "damaged"),
        (b'"input":"1"', b'"input":1e400', "damaged"),
        (b'"input":"1"', b'"input":"' + b"[" * 99 + b'"', "damaged"),
        (b'"price":{', b'"prices":{', "damaged"),
        (b'"price":{', b'"price":' + b"[" * 3_000 + b"{", "damaged"),
        (b"}}", b"", "damaged"),
    ],
)
def test_an_entry_that_was_altered_is_not_believed(
    tmp_path: Path, old: bytes, new: bytes, what: str
) -> None:
    path = kept(tmp_path)
    path.write_bytes(path.read_bytes().replace(old, new) if new or old != b"}}" else b'{"v":1')
    entries = PriceEntries(tmp_path)
    assert entries.get(OLD.version) is None
    assert [problem.what for problem in entries.problems] == [what]
    assert entries.problems[0].file == f"prices/{path.name}"


@pytest.mark.parametrize(
    "version", ["../segments/x", "user-12345678", "litellm-1.106.2+3f2a9c1d", "map-" + "A" * 24, ""]
)
def test_no_other_name_opens_a_file(tmp_path: Path, version: str) -> None:
    entries = PriceEntries(tmp_path)
    assert entries.get(version) is None
    assert not entries.problems
