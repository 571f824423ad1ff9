"""Reports: sums over the ledger, and the sentences that say how sure they are."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from tests.ledger_by_hand import NOON, OTHER_WRITER, HandMade, spoil

from litellm_ledger._aggregates.formatting import dollars
from litellm_ledger._aggregates.groups import Quantiles
from litellm_ledger._errors import MissingExtra
from litellm_ledger._reading.lines import Line
from litellm_ledger._reports.ledger import Ledger
from litellm_ledger._reports.report import added, build


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


def test_days_come_in_order_and_the_most_expensive_first_within_one(hand: HandMade) -> None:
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
    assert Ledger(hand.root).report(None).total == report.total


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
        "Tokens: 1 call counted by the provider, 1 estimated, 3 unknown (not included).",
        (
            "Cost: calls that ended early, or whose provider sent no usage, are estimated from "
            "what was received. The provider may have produced, and may bill, more."
        ),
        "Cost: 2 calls that succeeded could not be priced; the real cost is higher.",
        (
            "Cost: unknown and not included for 2 calls cancelled, abandoned, unsettled or failed "
            "halfway; the provider may still bill them."
        ),
        "Unsettled: 1 call in flight when the process died; the outcome is unknown.",
        "Damage: 1 place in 1 file not counted; run litellm-ledger verify.",
    ]


def test_a_group_of_unknown_cost_is_not_0_and_one_that_nobody_bills_is(hand: HandMade) -> None:
    lines = [
        hand.line(1, model="refused", status="error", error="RateLimitError"),
        hand.line(2, model="broken", status="error", input_tokens=5, usage_source="estimated"),
        hand.line(3, model="cut", status="cancelled"),
        hand.line(4, model="new", input_tokens=5),
        hand.line(5, model="free", input_tokens=5, cost=Decimal(0)),
        hand.line(6, model="guess", status="abandoned", cost=Decimal(1), usage_source="estimated"),
    ]
    hand.sealed(1, 6, lines)
    report = Ledger(hand.root).report(["model"])
    rows = {row.group["model"]: row for row in report.rows}
    zero = Decimal(0)
    assert {name: (row.known_cost, row.is_floor) for name, row in rows.items()} == {
        "refused": (zero, False),
        "broken": (None, True),
        "cut": (None, True),
        "new": (None, True),
        "free": (zero, False),
        "guess": (Decimal(1), True),
    }
    assert report.total.known_cost == 1
    plain = {row["group"]["model"]: row for row in report.to_dict()["rows"]}
    parts = ("cost", "estimated_cost", "wasted_cost")
    assert {plain[name][part] for name in ("broken", "cut", "new") for part in parts} == {None}
    assert {plain[name][part] for name in ("refused", "free") for part in parts} == {"0"}
    columns = report.to_arrow().to_pylist()
    assert {one["model"] for one in columns if one["cost"] is None} == {"broken", "cut", "new"}


def test_a_report_with_everything_known_has_one_note(hand: HandMade) -> None:
    hand.sealed(1, 2, hand.lines(1, 2, input_tokens=1, cost=Decimal(0)))
    assert Ledger(hand.root).report().notes() == ["Tokens: 2 calls counted by the provider."]


def test_money_saved_is_said_with_the_tokens_that_were_paid_for_once(hand: HandMade) -> None:
    hit = {"input_tokens": 1, "cost": Decimal(0), "cache_hit": True, "saved_cost": Decimal("0.5")}
    hand.sealed(1, 2, [hand.line(1, input_tokens=1, cost=Decimal("0.5")), hand.line(2, **hit)])
    assert Ledger(hand.root).report().notes() == [
        "Tokens: 2 calls counted by the provider.",
        (
            "Saved: $0.5 by answers from a cache. Their tokens are included in the token sums and "
            "were paid for once."
        ),
    ]


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
        "adjusted",
        "aggregated",
        "pruned",
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


def test_periods_are_those_of_the_zone_and_come_in_order(hand: HandMade) -> None:
    back = datetime(2025, 10, 26, 0, 30, tzinfo=UTC)  # in Berlin this half hour comes twice
    lines = [
        hand.line(1, ts=back + timedelta(hours=1), cost=Decimal(9)),
        hand.line(2, ts=back, cost=Decimal(1)),
        hand.line(3, ts=back - timedelta(hours=3), cost=Decimal(3)),
    ]
    hand.sealed(1, 3, lines)
    ledger = Ledger(hand.root)
    hours = ledger.report([], every="hour", tz="Europe/Berlin").rows
    assert [(row.group["hour"], row.cost) for row in hours] == [
        ("2025-10-25T23:00+02:00", Decimal(3)),
        ("2025-10-26T02:00+02:00", Decimal(1)),
        ("2025-10-26T02:00+01:00", Decimal(9)),
    ]
    days = ledger.report(["model"], every="day", tz="Europe/Berlin")
    assert days.by == ("day", "model")
    assert [(row.group["day"], row.calls) for row in days.rows] == [
        ("2025-10-25", 1),
        ("2025-10-26", 2),
    ]
    weeks = ledger.report([], every="week", tz="Europe/Berlin", week_start="sunday").rows
    assert [row.group["week"] for row in weeks] == ["2025-10-19", "2025-10-26"]
    with pytest.raises(ValueError, match="hour, day, week, month"):
        ledger.report(every="year")


def test_retries_waste_and_estimates_are_told_apart(hand: HandMade) -> None:
    lines = [
        hand.line(1, status="error", attempt=1, cost=Decimal(1)),
        hand.line(2, attempt=2, cost=Decimal(2)),
        hand.line(3, status="abandoned", cost=Decimal(4), usage_source="estimated"),
        hand.line(4, cache_hit=True, cost=Decimal(0), saved_cost=Decimal(8)),
    ]
    hand.sealed(1, 4, lines)
    total = Ledger(hand.root).report([]).total
    assert (total.calls, total.retries, total.cache_hits) == (4, 1, 1)
    assert (total.cost, total.wasted_cost) == (Decimal(7), Decimal(5))
    assert (total.estimated_cost, total.saved_cost) == (Decimal(4), Decimal(8))


def test_quantiles_are_within_a_bucket_of_what_was_measured_on_calls_that_succeeded(
    hand: HandMade,
) -> None:
    lines = [hand.line(n, model="ab"[n % 2], latency_ms=float(n)) for n in range(1, 11)]
    lines += [hand.line(11, status="error", latency_ms=1e6), hand.line(12, ttft_ms=7.5)]
    hand.sealed(1, 12, lines)
    report = Ledger(hand.root).report(quantiles=True)
    spread = report.total.latency_ms
    assert spread == Quantiles(count=10, p50=5.03125, p90=9.0625, p99=10.0, max=10.0)
    by_model = {row.group["model"]: row for row in report.rows}
    assert by_model["b"].latency_ms == Quantiles(count=5, p50=5.03125, p90=9.0, p99=9.0, max=9.0)
    assert by_model["a"].ttft_ms is None
    assert by_model["m"].ttft_ms == Quantiles(count=1, p50=7.5, p90=7.5, p99=7.5, max=7.5)
    assert Ledger(hand.root).report().total.latency_ms is None


def test_the_top_and_the_rest_make_up_the_total(hand: HandMade) -> None:
    hand.sealed(1, 5, [hand.line(n, model=f"m{n}", cost=Decimal(n)) for n in range(1, 6)])
    report = Ledger(hand.root).report()
    rows, rest = report.top(2)
    assert [row.group["model"] for row in rows] == ["m5", "m4"]
    assert rest is not None
    assert (rest.calls, rest.cost, rest.group) == (3, Decimal(6), {})
    assert added([*rows, rest]) == report.total
    assert report.top(5)[1] is None


def test_any_of_several_values_can_be_asked_for(hand: HandMade) -> None:
    hand.sealed(1, 3, [hand.line(n, model=f"m{n}") for n in range(1, 4)])
    report = Ledger(hand.root).report(where={"model": ["m1", "m3"], "tag:user": "(none)"})
    assert {row.group["model"] for row in report.rows} == {"m1", "m3"}


def test_a_misspelt_tag_is_said_with_the_one_that_is_near(hand: HandMade) -> None:
    tags = {"tenant": "acme", **{f"a{n:02}": "x" for n in range(30)}}
    hand.sealed(1, 1, [hand.line(1, tags=tags)])
    ledger = Ledger(hand.root)
    for report in (
        ledger.report(["tenannt"]),
        ledger.report(where={"tenannt": "acme"}),
        ledger.report(where={"tenannt": "(none)"}),
        ledger.report(where_not={"tenannt": "acme"}),
    ):
        assert report.missing_tags == ("tenannt",)
        assert any("Did you mean tag:tenant?" in note for note in report.notes())
    assert ledger.report(where_not={"tenant": "other"}).missing_tags == ()
    assert ledger.report(where={"tenant": "acme"}, by=["tenant"]).missing_tags == ()


def test_where_nothing_matches_it_is_said_what_there_is(hand: HandMade) -> None:
    lines = [
        hand.line(n, model=f"openai/m{min(n, 25):02}", tags={"env": "p"}) for n in range(1, 31)
    ]
    hand.sealed(1, 30, lines)
    ledger = Ledger(hand.root)
    report = ledger.report(where={"model": "gpt", "env": "p"})
    assert (report.total.calls, list(report.instead)) == (0, ["model", "tag:env"])
    assert report.instead["model"][:2] == ("openai/m25", "openai/m01")
    assert report.instead["model"][19:] == ("openai/m19", "…")
    assert report.instead["tag:env"] == ("p",)
    assert report.notes()[-1].startswith("No call matches. Existing values: model: openai/m25, ")
    assert report.warnings() == report.notes()[-1:]
    assert ledger.report(where={"model": "m01"}).instead == {}
    assert ledger.report(where_not={"env": "p"}).instead == {"tag:env": ("p",)}
    never = ledger.report(where={"model": "gpt"}, until=datetime(2020, 1, 1, tzinfo=UTC))
    assert never.instead == {}


def test_rows_become_columns_with_exact_money(hand: HandMade) -> None:
    tiny = Decimal("0.000000000001")
    lines = [
        hand.line(1, model="a", cost=Decimal(9_000_000) + tiny, latency_ms=2.5, tags={"user": "x"}),
        hand.line(2, model="b", cost=tiny),
    ]
    hand.sealed(1, 2, lines)
    report = Ledger(hand.root).report(["model", "tag:user"], quantiles=True)
    expected = [Decimal(9_000_000) + tiny, tiny]
    arrow = report.to_arrow()
    assert arrow.column("cost").to_pylist() == expected
    assert arrow.column("tag:user").to_pylist() == ["x", "(none)"]
    assert arrow.column("latency_ms_p50").to_pylist() == [2.5, None]
    polars = report.to_polars()
    assert polars["cost"].to_list() == expected
    assert polars["calls"].sum() == 2
    pandas = report.to_pandas()
    assert list(pandas["cost"]) == expected
    assert "ttft_ms_p50" not in pandas.columns


def test_a_table_of_a_library_that_is_not_installed_says_what_to_install(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.sealed(1, 1)
    for name in ("pyarrow", "polars", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    report = Ledger(hand.root).report()
    for convert in (report.to_arrow, report.to_polars, report.to_pandas):
        with pytest.raises(MissingExtra, match="pip install"):
            convert()
