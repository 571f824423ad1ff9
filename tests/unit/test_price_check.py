"""``verify --prices``: each cost again, from its line and the price book and nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import altered
from tests.priced_ledger import MAP, OWN, PricedLedger
from tests.terminal import as_json, run

from litellm_ledger import Ledger
from litellm_ledger._prices.entry import Entry, number
from litellm_ledger._reading import price_entries as _price_entries
from litellm_ledger._reading.price_check import check_prices
from litellm_ledger._records.layout import PRICES
from litellm_ledger._reports.doctor import Finding, examine
from litellm_ledger._storage.filesystem import REAL
from litellm_ledger._storage.price_book import PriceBook


@pytest.fixture
def ledger(tmp_path: Path) -> PricedLedger:
    hand = PricedLedger(tmp_path / "usage")
    hand.sealed(1, 70, list(hand.mixed(70)))
    return hand


def test_each_cost_whose_entry_is_kept_is_computed_again(ledger: PricedLedger) -> None:
    found = check_prices(ledger.root)
    assert (found.computed, found.different, found.others, found.unknown) == (50, 0, 10, 10)
    assert found.ok
    result = run("verify", "--prices", ledger.root)
    assert result.exit_code == 0
    assert "50 costs computed again: none differs" in result.output


@pytest.mark.parametrize(
    ("old", "new", "computed"),
    [
        (b'"cost_picousd":43350000', b'"cost_picousd":43350001', "0.00004335"),
        (b'"input_tokens":185', b'"input_tokens":186', None),
    ],
)
def test_a_cost_that_is_not_what_was_used_comes_to_is_named(
    tmp_path: Path, old: bytes, new: bytes, computed: str | None
) -> None:
    hand = PricedLedger(tmp_path / "usage")
    line = hand.priced(5, MAP, input_tokens=185, output_tokens=26)
    assert b'"cost_picousd":43350000' in line
    lines = [*hand.mixed(4), altered(line, old, new)]
    hand.sealed(1, 5, lines)
    found = check_prices(hand.root)
    assert [one.id for one in found.differences] == [hand.id(5)]
    assert not found.ok
    result = run("verify", "--prices", hand.root)
    assert result.exit_code == 1
    assert hand.id(5) in result.output
    assert "Prices NOT OK: 1 cost not what the price gives." in result.output
    told: Any = json.loads(run("verify", "--prices", hand.root, "--json").stdout)["prices"]
    assert told["different"] == 1
    (one,) = told["differences"]
    assert (one["id"], one["price_version"]) == (hand.id(5), MAP.version)
    if computed is not None:
        assert Decimal(one["computed"]) == Decimal(computed)


def test_a_cost_by_an_entry_that_has_no_price_for_what_was_used_differs(tmp_path: Path) -> None:
    hand = PricedLedger(tmp_path / "usage")
    version = OWN.version
    meta = {"tools": {"containers": 1}}  # which that price has none for
    hand.sealed(1, 1, [hand.line(1, cost=Decimal(1), price_version=version, meta=meta)])
    (one,) = check_prices(hand.root).differences
    assert (one.recorded, one.computed) == (Decimal(1), None)


def test_an_entry_that_was_altered_is_damage_and_its_costs_are_not_proved(
    ledger: PricedLedger,
) -> None:
    path = ledger.root / PRICES / f"{MAP.version}.json"
    told = json.loads(path.read_bytes())
    told["entry"]["input_cost_per_token"] = 1.5e-09
    path.write_text(json.dumps(told))
    found = check_prices(ledger.root)
    assert (found.computed, found.missing, found.ok) == (20, 30, False)
    assert [(p.file, p.what) for p in found.entries] == [(f"prices/{MAP.version}.json", "misnamed")]
    assert run("verify", "--prices", ledger.root).exit_code == 1


def test_without_the_book_nothing_is_proved_and_nothing_is_wrong(ledger: PricedLedger) -> None:
    for path in (ledger.root / PRICES).iterdir():
        path.unlink()
    found = check_prices(ledger.root)
    assert (found.computed, found.missing, found.ok) == (0, 50, True)
    assert "50 costs could not be checked" in run("verify", "--prices", ledger.root).output


def test_a_cost_of_an_answer_from_a_cache_is_nothing_and_what_it_saved_is_computed(
    tmp_path: Path,
) -> None:
    hand = PricedLedger(tmp_path / "usage")
    line = hand.priced(1, MAP, cache_hit=True, input_tokens=1_000, output_tokens=1)
    assert b'"cost_picousd":0,' in line
    hand.sealed(1, 1, [altered(line, b'"cost_picousd":0,', b'"cost_picousd":5,')])
    assert check_prices(hand.root).different == 1


def test_show_prints_the_terms_of_the_price(tmp_path: Path) -> None:
    hand = PricedLedger(tmp_path / "usage")
    meta = {"tools": {"web_searches": 2}}
    fields = {"input_tokens": 1_000, "output_tokens": 7, "meta": meta}
    hand.sealed(1, 2, [hand.priced(1, OWN, **fields), hand.line(2, cost=Decimal(1))])
    shown = run("show", hand.id(1), hand.root).output
    assert "0.0000002" in shown
    assert "web_search" in shown
    (attempt,) = as_json("show", hand.id(1), hand.root)["attempts"]
    price = attempt["price"]
    names = ("name", "quantity", "unit", "price", "amount")
    assert [tuple(term[name] for name in names) for term in price["terms"]] == [
        ("input", "1000", "token", "0.0000002", "0.0002"),
        ("output", "7", "token", "0.0000006", "0.0000042"),
        ("web_search", "2", "web_search", "0.01", "0.02"),
    ]
    assert Decimal(price["cost"]) == sum(Decimal(term["amount"]) for term in price["terms"])
    assert Decimal(attempt["outcome"]["cost"]) == Decimal(price["cost"])
    assert "price" not in as_json("show", hand.id(2), hand.root)["attempts"][0]


def test_doctor_says_which_entries_are_missing_or_damaged(tmp_path: Path) -> None:
    hand = PricedLedger(tmp_path / "usage")
    now = datetime.now(UTC)
    hand.sealed(1, 1, [hand.priced(1, MAP, input_tokens=1, output_tokens=1, ts=now)])
    assert book(hand.root).level == "ok"
    path = hand.root / PRICES / f"{MAP.version}.json"
    path.write_bytes(b"{}")
    found = book(hand.root)
    assert (found.level, path.name in found.text) == ("warning", True)
    path.unlink()
    found = book(hand.root)
    assert (found.level, MAP.version in found.text) == ("warning", True)


def book(root: Path) -> Finding:
    (found,) = [one for one in examine(Ledger(root)) if one.check == "price book"]
    return found


def test_an_entry_that_is_longer_than_any_is_not_believed_and_not_kept_in_memory(
    ledger: PricedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"input_cost_per_token_{n}": 1e-07 for n in range(3_000)}
    long = Entry("m", members)
    book = PriceBook(REAL, ledger.root)
    book.add(long.version, long.text)
    assert not book.pending  # no reader would believe it
    path = ledger.root / PRICES / f"{long.version}.json"
    path.write_text(f'{{"v":1,{long.text[1:]}')
    monkeypatch.setattr(_price_entries, "_KEPT", 1)
    found = check_prices(ledger.root)
    assert (found.computed, found.different) == (50, 0)
    assert [problem.detail for problem in found.entries] == ["is no entry: it is too long"]


@pytest.mark.parametrize(
    ("value", "price"),
    [
        (Decimal("1e999999999"), None),
        (Decimal("1e-999999999"), None),
        ("1e999999999", None),
        (Decimal("0e-999999999"), Decimal(0)),
        (Decimal("1e-61"), None),
        (Decimal(-1), None),
        (Decimal("NaN"), None),
        (True, None),
        (10**10, None),
        (Decimal("1.5e-07"), Decimal("1.5e-07")),
        ("0.002", Decimal("0.002")),
    ],
)
def test_a_number_that_would_fill_memory_is_no_price(value: Any, price: Decimal | None) -> None:
    found = number(value)
    assert found == price
    assert found is None or len(format(found, "f")) < 80
