"""Reports: sums over the ledger, and the sentences that say how sure they are."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from tests.ledger_by_hand import NOON, OTHER_WRITER, HandMade, spoil

from litellm_ledger._ledger import Ledger
from litellm_ledger._reading import Line
from litellm_ledger._report import build, dollars


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path)


def test_a_report_sums_outcomes_of_all_writers_by_group(hand: HandMade) -> None:
    hand.sealed(
        1,
        4,
        [
            hand.started(1),
            hand.outcome(2, of=1, cost=Decimal("0.1"), input_tokens=10, tags={"user": "a"}),
            hand.line(3, cost=Decimal("0.2"), input_tokens=20, tags={"user": "b"}),
            hand.line(4, model="big", cost=Decimal(7), output_tokens=1, tags={"user": "a"}),
        ],
    )
    other = HandMade(hand.root, OTHER_WRITER)
    other.open(1, [other.line(1, cost=Decimal("0.4"), saved_cost=Decimal("0.5"))])
    report = Ledger(hand.root).report(["model"])
    assert [(row.group["model"], row.calls, row.cost) for row in report.rows] == [
        ("big", 1, Decimal(7)),
        ("m", 3, Decimal("0.7")),
    ]
    assert (report.total.calls, report.total.cost) == (4, Decimal("7.7"))
    assert (report.total.input_tokens, report.total.saved_cost) == (30, Decimal("0.5"))
    by_user = Ledger(hand.root).report(["tag:user", "model"])
    assert [tuple(row.group.values()) for row in by_user.rows] == [
        ("a", "big"),
        ("(none)", "m"),
        ("b", "m"),
        ("a", "m"),
    ]


def test_days_come_in_order_and_the_dearest_first_within_one(hand: HandMade) -> None:
    day = timedelta(days=1)
    lines = [
        hand.line(1, ts=NOON + day, cost=Decimal(9)),
        hand.line(2, ts=NOON, cost=Decimal(1)),
        hand.line(3, ts=NOON, model="big", cost=Decimal(5)),
    ]
    hand.sealed(1, 3, lines)
    rows = Ledger(hand.root).report(["day", "model"]).rows
    assert [tuple(row.group.values()) for row in rows] == [
        ("2025-01-01", "big"),
        ("2025-01-01", "m"),
        ("2025-01-02", "m"),
    ]


def test_an_attempt_counts_once_when_recovery_and_the_process_both_told_its_end(
    hand: HandMade,
) -> None:
    hand.sealed(1, 2, [hand.started(1), hand.outcome(2, of=1, cost=Decimal(3))])
    hand.sealed(3, 3, [hand.outcome(3, of=1, status="unsettled")])
    hand.open(2, [hand.outcome(2, of=1, cost=Decimal(3))])
    total = Ledger(hand.root).report([]).total
    assert (total.calls, total.ok, total.unsettled, total.cost) == (1, 1, 0, Decimal(3))


def test_no_key_gives_the_total_alone(hand: HandMade) -> None:
    hand.sealed(1, 2)
    report = Ledger(hand.root).report([])
    assert (report.rows, report.total.calls) == ([], 2)


def test_selection_narrows_a_report(hand: HandMade) -> None:
    hand.sealed(1, 2, [hand.line(1, model="a"), hand.line(2, model="b", ts=NOON - timedelta(1))])
    ledger = Ledger(hand.root)
    assert ledger.report(["model"], where={"model": "b"}).total.calls == 1
    assert ledger.report(["model"], since=NOON).rows[0].group == {"model": "a"}
    assert ledger.report(["model"], until=NOON).rows[0].group == {"model": "b"}


def test_what_is_unknown_is_said_and_not_summed_as_zero(hand: HandMade) -> None:
    path = hand.sealed(
        1,
        7,
        [
            hand.line(1, input_tokens=5, cost=Decimal(1)),
            hand.line(2, input_tokens=5, usage_source="estimated"),
            hand.line(3),
            hand.line(4, status="cancelled"),
            hand.line(5, status="unsettled"),
            hand.line(6, status="error"),
            hand.line(7),
        ],
    )
    spoil(path, line=6)
    report = Ledger(hand.root).report(["model"])
    assert report.notes() == [
        (
            "Tokens: 1 call counted by the provider, 1 estimated, "
            "3 unknown (nothing is added for them)."
        ),
        (
            "Cost: an estimate covers what was seen of a call that ended early; the provider "
            "may have written, and bill, more."
        ),
        "Cost: 2 calls that succeeded could not be priced; the real sum is higher.",
        (
            "Cost: 2 calls cancelled, abandoned or unsettled without a known cost; "
            "the provider may bill them."
        ),
        "Unsettled: 1 call in flight when the process died; their outcome is unknown.",
        "Damage: 1 place in 1 file not counted; run litellm-ledger verify.",
    ]


def test_a_report_with_everything_known_has_one_note(hand: HandMade) -> None:
    hand.sealed(1, 2, hand.lines(1, 2, input_tokens=1, cost=Decimal(0)))
    assert Ledger(hand.root).report().notes() == ["Tokens: 2 calls counted by the provider."]


def test_too_many_groups_are_said() -> None:
    lines = [Line(id=f"{n}", seq=n, kind="usage", status="ok", model=str(n)) for n in range(5)]
    report = build(lines, ["model"], [], max_groups=2)
    assert report.folded == 3
    assert any(note.startswith("(other): 3 calls in groups") for note in report.notes())


def test_the_json_form_gives_exact_decimals_as_text(hand: HandMade) -> None:
    cost = Decimal("0.000000000001")
    hand.sealed(1, 2, [hand.line(1, cost=cost), hand.line(2, cost=Decimal("12345.5"))])
    plain = Ledger(hand.root).report(["model"]).to_dict()
    assert set(plain) == {
        "by",
        "rows",
        "total",
        "folded",
        "in_flight",
        "cut_off",
        "notes",
        "problems",
    }
    assert plain["rows"][0]["group"] == {"model": "m"}
    assert plain["total"]["cost"] == plain["rows"][0]["cost"] == "12345.500000000001"
    assert plain["total"]["saved_cost"] == "0"
    assert msgspec.json.decode(msgspec.json.encode(plain)) == plain


@pytest.mark.parametrize(
    ("cost", "text"), [("4.5E-6", "0.0000045"), ("1E+3", "1000"), ("0", "0"), ("1.50", "1.50")]
)
def test_amounts_never_have_an_exponent(cost: str, text: str) -> None:
    assert dollars(Decimal(cost)) == text
