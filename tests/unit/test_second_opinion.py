"""``doctor --prices``: what calls were priced by, beside the prices of another source."""

from __future__ import annotations

import json
import socket
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.priced_ledger import MAP, OWN, PricedLedger
from tests.terminal import run

from litellm_ledger import Ledger, MissingExtra
from litellm_ledger._prices.entry import Entry
from litellm_ledger._reports.second_opinion import second_opinion
from litellm_ledger._storage.filesystem import REAL
from litellm_ledger._storage.price_book import PriceBook

TODAY = datetime.now(UTC) - timedelta(hours=1)
TOKENS = {"input_tokens": 100, "output_tokens": 10, "ts": TODAY}


def entry(key: str, provider: str, **prices: float) -> Entry:
    return Entry(key, {**prices, "litellm_provider": provider, "mode": "chat"})


def ledger(root: Path, *entries: Entry) -> PricedLedger:
    """A ledger with a call for each entry, and one by a price of the user's own."""
    hand = PricedLedger(root / "usage")
    book = PriceBook(REAL, hand.root)
    lines = []
    for seq, one in enumerate(entries, 1):
        book.add(one.version, one.text)
        provider = one.members["litellm_provider"]
        lines.append(hand.priced(seq, one, model=one.key, provider=provider, **TOKENS))
    book.write()
    last = len(entries) + 1
    lines.append(hand.priced(last, OWN, model="gpt-4o-mini", provider="openai", **TOKENS))
    hand.sealed(1, last, lines)
    return hand


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is to be fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("offline")
def test_prices_that_agree_are_no_finding(tmp_path: Path) -> None:
    gemini = entry(
        "gemini/gemini-2.5-flash-lite",
        "gemini",
        input_cost_per_token=1e-07,
        output_cost_per_token=4e-07,
        cache_read_input_token_cost=1e-08,
    )
    hand = ledger(tmp_path, MAP, gemini)
    found = second_opinion(Ledger(hand.root))
    assert (found.compared, found.differences, found.unknown) == (2, [], [])
    assert found.finding.level == "ok"


@pytest.mark.usefixtures("offline")
def test_prices_that_differ_are_named_with_both_figures_and_the_day(tmp_path: Path) -> None:
    wrong = entry(
        "gpt-4o-mini", "openai", input_cost_per_token=1.6e-07, output_cost_per_token=6e-07
    )
    odd = entry("nobody/knows", "openai", input_cost_per_token=1e-06)
    hand = ledger(tmp_path, wrong, odd)
    found = second_opinion(Ledger(hand.root))
    assert [(one.price, one.recorded, one.other) for one in found.differences] == [
        ("input", Decimal("0.16"), Decimal("0.15")),
        ("cache read", None, Decimal("0.075")),
    ]
    assert {one.day for one in found.differences} == {TODAY.date()}
    assert {one.price_version for one in found.differences} == {wrong.version}
    assert (found.compared, found.unknown) == (1, ["nobody/knows"])

    before = sorted((path, path.stat().st_mtime_ns) for path in hand.root.rglob("*"))
    done = run("doctor", hand.root, "--prices")
    assert done.exit_code == 1
    assert "0.16" in done.output
    assert "0.15" in done.output
    told: Any = json.loads(run("doctor", hand.root, "--prices", "--json").stdout)
    assert told["ok"] is False
    assert told["findings"][-1]["check"] == "second opinion"
    assert told["findings"][-1]["level"] == "warning"
    assert told["prices"]["differences"][0] == {
        "model": "gpt-4o-mini",
        "provider": "openai",
        "price": "input",
        "recorded": "0.16",
        "other": "0.15",
        "day": TODAY.date().isoformat(),
        "price_version": wrong.version,
    }
    assert sorted((path, path.stat().st_mtime_ns) for path in hand.root.rglob("*")) == before
    assert "prices" not in json.loads(run("doctor", hand.root, "--json").stdout)


def test_an_entry_that_somebody_made_up_costs_no_memory_and_no_time(tmp_path: Path) -> None:
    huge = Entry(
        "gpt-4o-mini", {"input_cost_per_token": "1e999999999", "litellm_provider": "openai"}
    )
    long = Entry("a" * 1_000, {"input_cost_per_token": 1e-06, "litellm_provider": "openai"})
    hand = PricedLedger(tmp_path / "usage")
    book = PriceBook(REAL, hand.root)
    lines = []
    for seq, one in enumerate((huge, long), 1):
        book.add(one.version, one.text)
        more = {"cost": Decimal(1), "cost_source": "price_map", "price_version": one.version}
        lines.append(hand.line(seq, status="ok", provider="openai", **more, **TOKENS))
    book.write()
    hand.sealed(1, 2, lines)
    found = second_opinion(Ledger(hand.root))
    assert [one.recorded for one in found.differences] == [None] * 3
    assert found.unknown == [long.key]
    assert len(run("doctor", hand.root, "--prices").output) < 20_000


def test_prices_that_a_program_has_fetched_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genai_prices.data_snapshot._custom_snapshot", object())
    hand = ledger(tmp_path, MAP)
    assert second_opinion(Ledger(hand.root)).compared == 1


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    hand = ledger(tmp_path, MAP)
    with pytest.raises(MissingExtra, match=r"litellm-ledger\[second-opinion\]"):
        second_opinion(Ledger(hand.root))
    done = run("doctor", hand.root, "--prices")
    assert done.exit_code == 2
    assert "second-opinion" in done.output


def test_it_is_no_check_of_litellm(tmp_path: Path) -> None:
    assert run("doctor", "--litellm", "--prices").exit_code == 2
