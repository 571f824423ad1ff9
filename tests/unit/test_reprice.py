"""``reprice``: other costs beside the recorded ones, in every way of answering, and back again."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import NOON, OTHER_WRITER, HandMade, altered, framed
from tests.priced_ledger import CALL, MAP, OWN, PricedLedger
from tests.terminal import as_json, run, told

from litellm_ledger import Ledger, LedgerPathError, UnsupportedFormat, UsageRecord, UsageTracker
from litellm_ledger._aggregates.calendar import calendar
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._maintenance.reprice import Repriced, reprice
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._prices.price_list import PriceList
from litellm_ledger._reading.anchor import anchor
from litellm_ledger._reading.price_check import check_prices
from litellm_ledger._reading.verify import verify
from litellm_ledger._records.layout import MANIFESTS, PRICES, SEGMENTS, SegmentName
from litellm_ledger._records.line import newer_version
from litellm_ledger._reports import engine as _engine
from litellm_ledger._storage.live_file import lock_directory, unlock

DEARER = {
    "gpt-4o-mini": {
        "input_cost_per_token": 3e-07, "output_cost_per_token": 7e-07,
        "cache_read_input_token_cost": 1e-07, "litellm_provider": "openai", "mode": "chat",
    },
    "new": {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "mode": "chat"},
}  # fmt: skip
EVERYTHING = Selection()
LATER = datetime(2030, 1, 1, tzinfo=UTC).date()


def prices(given: Any) -> PriceList:
    return PriceList(json.dumps(given).encode())


def write(root: Path, given: Any = DEARER, selection: Selection = EVERYTHING) -> Repriced:
    return reprice(root, selection, given and prices(given), who="alice", why="a test")


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def adjustments(root: Path) -> list[dict[str, Any]]:
    paths = sorted((root / SEGMENTS).glob("9999*"))
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


@pytest.fixture
def hand(tmp_path: Path) -> PricedLedger:
    """Three priced records, one whose model had no price, and four that nobody may price."""
    hand = PricedLedger(tmp_path / "usage")
    tokens: Any = {"input_tokens": 1_000, "output_tokens": 100, "usage_source": "provider"}
    server = {"cost": Decimal("0.5"), "cost_source": "provider"}
    hand.sealed(
        1,
        9,
        [
            hand.priced(1, MAP, model="gpt-4o-mini", tags={"user": "a"}, **tokens),
            hand.priced(2, MAP, model="gpt-4o-mini", ts=NOON + timedelta(days=1), **tokens),
            hand.priced(3, OWN, model="own", **tokens),
            hand.line(4, model="new", status="ok", **tokens),
            hand.line(5, model="gpt-4o-mini", status="ok", **server, **tokens),
            hand.priced(6, MAP, model="gpt-4o-mini", cache_hit=True, **tokens),
            hand.line(7, model="gpt-4o-mini", status="ok", cost=Decimal(2), **tokens),
            hand.line(8, model="new", status="ok", meta={"unpriced": ["iterations"]}, **tokens),
            hand.line(9, model="new", status="error", usage_source="none"),
        ],
    )
    return hand


def test_the_difference_is_shown_by_model_and_day_and_nothing_is_written(
    hand: PricedLedger, tmp_path: Path
) -> None:
    before = files(hand.root)
    file = tmp_path / "prices.json"
    file.write_text(json.dumps(DEARER))
    found = as_json("reprice", hand.root, "--with", file, "--dry-run")
    assert found["rows"] == [
        {"day": "2025-01-01", "model": "gpt-4o-mini", "records": 1, "old_cost": "0.00021",
         "new_cost": "0.00037", "difference": "0.00016"},
        {"day": "2025-01-01", "model": "new", "records": 1, "old_cost": None,
         "new_cost": "0.0012", "difference": "0.0012"},
        {"day": "2025-01-02", "model": "gpt-4o-mini", "records": 1, "old_cost": "0.00021",
         "new_cost": "0.00037", "difference": "0.00016"},
    ]  # fmt: skip
    assert (found["changed"], found["looked_at"], found["unpriced"]) == (3, 4, 1)
    assert "3 records would change" in told("reprice", hand.root, "--with", file)
    assert files(hand.root) == before


@pytest.mark.parametrize("large", [0, 2**60])
def test_a_comparison_selects_adjustments_by_their_records(
    hand: PricedLedger, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(_engine, "_LARGE", large)
    write(hand.root)
    ledger = Ledger(hand.root)
    for text, cost, adjusted in (
        ("cost<0.001", Decimal("0.00074"), 2),  # as recorded: two of 0.00021, now 0.00037 each
        ("cost=(none)", Decimal("0.0012"), 1),
        ("tokens>0", None, None),
    ):
        found = ledger.report([], where=[text, "model=gpt*"] if "<" in text else [text])
        if cost is not None:
            assert (found.total.cost, found.adjusted) == (cost, adjusted), text


def test_what_is_written_changes_no_file_and_says_who_why_and_what(hand: PricedLedger) -> None:
    before = files(hand.root)
    done = write(hand.root)
    assert len(done.segments) == 1
    after = files(hand.root)
    assert {name: after[name] for name in before} == before
    first, _, third = adjustments(hand.root)
    assert first["adjusts"] == hand.id(1)
    assert (first["who"], first["why"]) == ("alice", "a test")
    assert (first["old_cost_picousd"], first["new_cost_picousd"]) == (210_000_000, 370_000_000)
    assert first["old_price_version"] == MAP.version
    assert first["tags"] == {"user": "a"}
    assert third["adjusts"] == hand.id(4)
    assert "old_cost_picousd" not in third
    assert f"prices/{first['new_price_version']}.json" in after
    assert Ledger(hand.root).verify(full=True).ok


def test_a_second_run_changes_nothing(hand: PricedLedger) -> None:
    write(hand.root)
    before = files(hand.root)
    again = write(hand.root)
    assert (again.rows, again.segments, again.changed) == ([], [], 0)
    assert files(hand.root) == before


def test_reports_use_the_newest_cost_and_can_use_the_others(hand: PricedLedger) -> None:
    ledger = Ledger(hand.root)
    recorded = ledger.report(["model"])
    assert recorded.total.unpriced == 2
    write(hand.root)
    (at, *_) = {datetime.fromisoformat(one["at"]) for one in adjustments(hand.root)}
    newest = ledger.report(["model"])
    assert newest.total.cost == recorded.total.cost + Decimal("0.00152")
    assert (newest.total.priced, newest.total.unpriced) == (recorded.total.priced + 1, 1)
    assert newest.total.calls == recorded.total.calls
    assert newest.adjusted == 3
    assert any("3 adjustments" in note for note in newest.notes())
    assert ledger.report(["model"], as_recorded=True) == recorded
    assert ledger.report(["model"], as_of=at) == recorded
    assert ledger.report(["model"], as_of=at + timedelta(microseconds=1)) == newest
    cost = as_json("report", hand.root, "--as-recorded")["total"]["cost"]
    assert Decimal(cost) == recorded.total.cost
    cost = as_json("daily", hand.root, "--as-of", "2025-06-01")["total"]["cost"]
    assert Decimal(cost) == recorded.total.cost
    assert Decimal(as_json("top", hand.root)["total"]["cost"]) == newest.total.cost


def test_forth_and_back_the_totals_are_what_they_were_to_the_picodollar(
    hand: PricedLedger,
) -> None:
    ledger = Ledger(hand.root)
    recorded = ledger.report(["day", "model", "tag:user"])
    write(hand.root)
    dear = {"gpt-4o-mini": {"input": "0.333333333333", "output": "7", "per": 7}}
    write(hand.root, dear)
    assert ledger.report([]).total.cost > recorded.total.cost
    write(hand.root, None)
    back = ledger.report(["day", "model", "tag:user"])
    assert (back.rows, back.total) == (recorded.rows, recorded.total)
    assert write(hand.root, None).changed == 0


def test_only_what_is_asked_for_is_priced_again(hand: PricedLedger) -> None:
    write(
        hand.root, selection=Selection(where={"model": "gpt-4o-mini"}, until=NOON.replace(hour=23))
    )
    assert [one["adjusts"] for one in adjustments(hand.root)] == [hand.id(1)]


def test_a_price_of_the_users_has_dates_and_digits(hand: PricedLedger) -> None:
    text = b"""{"gpt-4o-mini": [{"input": 0.1, "output": 0, "per": 1000},
        {"input": "0.30", "output": 0, "per": 1000, "valid_from": "2025-01-02"}]}"""
    reprice(hand.root, EVERYTHING, PriceList(text), who="a", why="b")
    costs = {one["adjusts"]: one["new_cost_picousd"] for one in adjustments(hand.root)}
    assert costs == {hand.id(1): 100_000_000_000, hand.id(2): 300_000_000_000}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "{",
        '{"m": {"input": "-1"}}',
        '{"m": {"input": "x"}}',
        '{"m": [{}]}',
        '{"m": {"inptu": "1"}}',
        '{"m": {"input": "1", "ouput": "2"}}',
        '{"m": {"input": "1"}, "n": {"input_cost_per_token": 1e-6}}',
        '{"m": {"input": "1"}, "n": "free"}',
        "[" * 99_999,
    ],
)
def test_a_file_that_holds_no_prices_is_refused(
    hand: PricedLedger, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text)
    result = run("reprice", hand.root, "--with", file)
    assert result.exit_code == 2
    assert "holds no prices" in result.stderr


def test_a_file_that_is_not_there_is_named(hand: PricedLedger, tmp_path: Path) -> None:
    result = run("reprice", hand.root, "--with", tmp_path / "none.json")
    assert (result.exit_code, "takes a file, newest or recorded" in result.stderr) == (2, True)


def test_writing_needs_a_reason(hand: PricedLedger) -> None:
    result = run("reprice", hand.root, "--with", "recorded", "--write")
    assert (result.exit_code, "reason" in result.stderr) == (2, True)


def test_the_map_of_the_installed_litellm_is_read_without_importing_it(hand: PricedLedger) -> None:
    found = as_json("reprice", hand.root, "--with", "newest")
    assert found["looked_at"] == 4
    assert "new" not in {row["model"] for row in found["rows"]}


# -- every way of answering ------------------------------------------------------------------------

_KEYS = (
    "model", "status", "usage_source", "cost_source", "tag:user", "tag:team", "hour", "day", "week",
    "month",
)  # fmt: skip
_ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns")


def made(root: Path, reckon: Callable[[dict[str, Any]], Decimal | None]) -> Path:
    """A ledger of two writers around the change of clocks, with the costs that ``reckon`` says."""
    dice = random.Random(7)
    start = datetime(2025, 3, 29, 20, tzinfo=UTC)
    for writer in (None, OTHER_WRITER):
        hand = PricedLedger(root, *([writer] if writer else []))
        seq = 1
        for size in (60, 90, 40):
            lines = []
            for number in range(seq, seq + size):
                source, by = dice.choice([("price_map", MAP), ("user", OWN), ("user", CALL)])
                unknown = dice.random() < 0.2
                fields: dict[str, Any] = {
                    "model": dice.choice(["gpt-4o-mini", "openai/gpt-4o-mini", "new", "own"]),
                    "provider": "openai",
                    "status": dice.choice(["ok", "ok", "cancelled", "error"]),
                    "usage_source": dice.choice(["provider", "estimated"]),
                    "input_tokens": dice.randrange(1, 10**6),
                    "output_tokens": dice.randrange(1, 10**5),
                    "ts": start + timedelta(seconds=dice.randrange(10**6)),
                    "tags": {"user": dice.choice("abc"), "team": dice.choice("xy")},
                    "cost_source": None if unknown else source,
                    "price_version": None if unknown else by.version,
                }
                if dice.random() < 0.3:
                    del fields["tags"]
                cost = None if unknown else Decimal(dice.randrange(10**9)).scaleb(-12)
                lines.append(hand.line(number, **fields, cost=reckon({**fields, "cost": cost})))
            hand.sealed(seq, seq + size - 1, lines)
            seq += size
    return root


def new_cost(fields: dict[str, Any]) -> Decimal | None:
    """By the words of ``DEARER``, in integers."""
    by_map = fields["price_version"] == MAP.version  # under the name that priced it, whatever it is
    if not by_map and fields["model"].removeprefix("openai/") != "gpt-4o-mini":
        return fields["cost"]  # type: ignore[no-any-return]
    pico = fields["input_tokens"] * 300_000 + fields["output_tokens"] * 700_000
    return Decimal(pico).scaleb(-12)


WAYS = {
    "lines": (2**60, False, False),
    "manifests": (2**60, True, False),
    "manifests and database": (0, True, False),
    "database": (0, False, False),
    "archive by lines": (2**60, False, True),
    "archive": (0, False, True),
}


@pytest.mark.parametrize("way", WAYS)
def test_in_every_way_the_newest_cost_is_as_if_it_had_been_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    large, sealed, archived = WAYS[way]
    if archived or not large:
        pytest.importorskip("duckdb")
    root = made(tmp_path / "usage", lambda fields: fields["cost"])
    wanted = made(tmp_path / "wanted", new_cost)
    if sealed:
        seal(root)
    if archived:
        assert compact(root, until=LATER).files
    recorded = Ledger(root).report(["model"])
    assert write(root).changed > 50
    if sealed or archived:
        assert compact(root, until=LATER) is not None  # leaves adjustments where they are
        seal(root)
        assert recover(root).writers == ()
        assert not list((root / MANIFESTS).glob("9999*"))
    monkeypatch.setattr(_engine, "_LARGE", large)
    dice = random.Random(way)
    for by, zone in itertools.product(_asked(dice), dice.sample(_ZONES, 1)):
        for more in _filters(dice):
            question = {"tz": zone, **more}
            found, expected = (Ledger(p).report(by, **question) for p in (root, wanted))
            assert found.rows == expected.rows, (by, question)
            assert found.total == expected.total, (by, question)
    limited, whole = (Ledger(p).report(["tag:user"], limit=2) for p in (root, wanted))
    assert (limited.rows, limited.others) == (whole.rows, whole.others)
    assert Ledger(root).report(["model"], as_recorded=True) == recorded
    assert Ledger(root).report(["model"], quantiles=True).total.cost == whole.total.cost
    write(root, None)
    assert Ledger(root).report(["model"]).rows == recorded.rows


def _asked(dice: random.Random) -> list[list[str]]:
    return [[], ["model"], *(dice.sample(_KEYS, dice.randrange(1, 4)) for _ in range(2))]


def _filters(dice: random.Random) -> list[dict[str, Any]]:
    day = datetime(2025, 3, 30, dice.randrange(24), dice.choice([0, 17]), tzinfo=UTC)
    return [
        {},
        {"since": day, "until": day + timedelta(days=dice.randrange(1, 9))},
        {"where": {"model": "gpt-4o-mini", "user": ["a", "(none)"]}},
        {"where_not": {"status": "error"}, "since": day},
    ]


# -- what others make of it ------------------------------------------------------------------------


def test_an_older_reader_meets_the_version_first_wherever_it_looks(hand: PricedLedger) -> None:
    write(hand.root)
    names = sorted(path.name for path in (hand.root / SEGMENTS).iterdir())
    name = SegmentName.parse(names[-1])
    assert name is not None
    assert name.adjusts
    assert not name.open
    lines = (hand.root / SEGMENTS / names[-1]).read_bytes().splitlines(keepends=True)
    assert {newer_version(line) for line in lines} == {2}


def test_an_adjustment_of_a_newer_version_is_refused(hand: PricedLedger) -> None:
    write(hand.root)
    change(hand.root, lambda line: framed(line[:-19].replace(b'{"v":2', b'{"v":3')))
    for order in (Ledger(hand.root).report, Ledger(hand.root).verify):
        with pytest.raises(UnsupportedFormat, match="version 3"):
            order()


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda line: line.replace(b'"seq":2', b'"seq":3'),
        lambda line: framed(line[:-19].replace(b'"seq":2', b'"seq":3')),
        lambda line: framed(line[:-19].replace(b"adjustment", b"usage")),
        lambda line: framed(
            line[:-19].replace(b'"new_cost_picousd":', b'"new_cost_picousd":1.5,"x":')
        ),
        lambda line: b"" if b'"seq":3,' in line else line,
    ],
)
def test_damage_among_adjustments_is_said(
    hand: PricedLedger, spoilt: Callable[[bytes], bytes]
) -> None:
    write(hand.root)
    assert Ledger(hand.root).verify().ok
    change(hand.root, spoilt)
    assert Ledger(hand.root).report([]).problems
    found = Ledger(hand.root).verify()
    assert not found.ok
    assert found.adjustments
    result = run("verify", hand.root)
    assert result.exit_code == 1
    assert f"NOT OK: {len(found.adjustments)} damaged place" in result.output


def change(root: Path, of: Callable[[bytes], bytes]) -> None:
    (path,) = (root / SEGMENTS).glob("9999*")
    path.write_bytes(b"".join(map(of, path.read_bytes().splitlines(keepends=True))))


def test_records_follow_and_calls_are_as_before(hand: PricedLedger) -> None:
    ledger = Ledger(hand.root)

    def says() -> Sequence[Any]:
        return list(ledger.records()), list(ledger.calls()), ledger.segments(), ledger.tags()

    before = says()
    write(hand.root)
    assert says() == before


def test_records_are_written_beside_adjustments(hand: PricedLedger) -> None:
    write(hand.root)

    async def record() -> None:
        async with UsageTracker(hand.root, handle_signals=False) as tracker:
            await tracker.record(UsageRecord(model="new", cost=Decimal(1)))

    before = Ledger(hand.root).report([]).total.cost
    asyncio.run(record())
    assert Ledger(hand.root).report([]).total.cost == before + 1
    assert Ledger(hand.root).verify().ok


def test_two_runs_at_once_are_refused(hand: PricedLedger) -> None:
    held = lock_directory(hand.root / PRICES)
    assert held is not None
    with pytest.raises(LedgerPathError, match="being repriced"):
        write(hand.root)
    unlock(held)
    assert write(hand.root).changed == 3


def test_a_copy_of_a_ledger_has_its_adjustments(hand: PricedLedger, tmp_path: Path) -> None:
    write(hand.root)
    shutil.copytree(hand.root, tmp_path / "copy")
    assert Ledger(tmp_path / "copy").report() == Ledger(hand.root).report()


# -- what is wrong with an adjustment --------------------------------------------------------------


def test_adjustments_are_checked_by_their_record_and_their_price(hand: PricedLedger) -> None:
    write(hand.root)
    write(hand.root, None)
    found = check_prices(hand.root)
    assert (found.adjusted, found.wrong, found.ok) == (6, [], True)
    assert "6 adjustments checked: 0 wrong" in told("verify", "--prices", hand.root)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"new_cost_picousd":370000000', b'"new_cost_picousd":370000001', "new cost"),
        (b'"old_cost_picousd":210000000', b'"old_cost_picousd":1', "old cost"),
        (b'"model":"gpt-4o-mini"', b'"model":"cheaper"', "model"),
        (b'-0000000000000001","at"', b'-0000000000000077","at"', "no outcome"),
    ],
)
def test_an_adjustment_that_somebody_made_up_is_named(
    hand: PricedLedger, old: bytes, new: bytes, why: str
) -> None:
    write(hand.root)
    change(hand.root, lambda line: framed(line[:-19].replace(old, new)))
    found = check_prices(hand.root)
    assert found.wrong
    assert all(why in said for _, said in found.wrong)
    assert run("verify", "--prices", hand.root).exit_code == 1


def test_show_tells_how_a_record_was_priced_again(hand: PricedLedger) -> None:
    write(hand.root)
    (attempt,) = as_json("show", hand.id(1), hand.root)["attempts"]
    (one,) = attempt["adjustments"]
    assert (one["who"], one["old_cost"], one["new_cost"]) == ("alice", "0.00021", "0.00037")
    assert "0.00021 -> 0.00037 USD, by alice: a test" in told("show", hand.id(1), hand.root)
    assert "adjustments" not in as_json("show", hand.id(3), hand.root)["attempts"][0]


# -- Anchors ------------------------------------------------------------------------------------


def take_away(segments: list[Path]) -> None:
    segments[0].unlink()


def cheaper(segments: list[Path]) -> None:
    segments[1].write_bytes(forged(segments[1].read_bytes().splitlines()[0], new_cost_picousd=1))


def add(segments: list[Path]) -> None:
    name = segments[0].name
    writer, more = name[:33], name.replace("Z-00", "Z-0f")
    data = segments[0].read_bytes().replace(writer.encode(), more[:33].encode())
    (segments[0].parent / more).write_bytes(b"".join(map(forged, data.splitlines())))


def forged(line: bytes, **changed: Any) -> bytes:
    fields = {name: value for name, value in json.loads(line).items() if name != "crc"} | changed
    return framed(json.dumps(fields, separators=(",", ":")).encode()[:-1])


@pytest.mark.parametrize("forge", [take_away, cheaper, add])
def test_adjustments_that_were_forged_do_not_hold_an_anchor(
    hand: PricedLedger, forge: Callable[[list[Path]], None]
) -> None:
    before = anchor(hand.root)
    write(hand.root)
    taken = anchor(hand.root)
    write(hand.root, None)
    assert taken != before
    both = [before, taken]
    assert [one.ok for one in verify(hand.root, anchors=both).anchors] == [True, True]
    segments = (hand.root / SEGMENTS).glob("9999*")
    forge(sorted(segments, key=lambda one: json.loads(one.read_bytes().splitlines()[0])["at"]))
    held = [one.ok for one in verify(hand.root, anchors=[before, anchor(hand.root)]).anchors]
    assert held == [True, True]
    (found,) = verify(hand.root, anchors=[taken]).anchors
    assert found.ok is (forge is cheaper)  # that was made after the anchor


def test_a_ledger_is_not_anchored_while_it_is_repriced(hand: PricedLedger) -> None:
    write(hand.root)
    held = lock_directory(hand.root / PRICES)
    assert held is not None
    try:
        with pytest.raises(LedgerPathError, match="being repriced"):
            anchor(hand.root)
    finally:
        unlock(held)
    anchor(hand.root)


# -- By another program's hand ---------------------------------------------------------------


def by_hand(hand: PricedLedger, **members: Any) -> Path:
    """An adjustment of the first record, in another program's words."""
    writer = "99991231T000000Z-006959f53f0123ab"
    told = {
        "v": 2, "id": f"{writer}-{1:016d}", "seq": 1, "kind": "adjustment", "adjusts": hand.id(1),
        "at": "2026-01-04T05:06:07.000000Z", "who": "x", "why": "y", "new_cost_picousd": 1,
        "ts": "2025-01-01T12:00:00.000001Z", "model": "gpt-4o-mini", "status": "ok", **members,
    }  # fmt: skip
    path = hand.root / SEGMENTS / str(SegmentName(writer, 1, 1))
    path.write_bytes(framed(json.dumps(told, separators=(",", ":")).encode()[:-1]))
    return path


def test_after_the_last_moment_that_there_is_none_can_be_made(hand: PricedLedger) -> None:
    by_hand(hand, at="9999-12-31T23:59:59.999999Z")
    before = files(hand.root)
    with pytest.raises(LedgerPathError, match="end of time"):
        write(hand.root)
    assert files(hand.root) == before


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "UTC"])
@pytest.mark.parametrize("ts", ["0001-01-01T00:00:00.000001Z", "9999-12-31T23:59:59.999999Z"])
def test_an_outcome_at_either_end_of_time_is_added_up_in_any_zone(
    hand: PricedLedger, ts: str, zone: str
) -> None:
    by_hand(hand, ts=ts)
    line = altered(hand.priced(10, MAP, model="m"), b"2025-01-01T12:00:00.000001Z", ts.encode())
    hand.sealed(10, 10, [line])
    for command in ("daily", "weekly", "monthly", "records"):
        assert run(command, hand.root, "--tz", zone).exit_code == 0
    assert write(hand.root, DEARER, Selection(calendar=calendar(zone))).changed


@pytest.mark.parametrize("member", ["at", "ts"])
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"])
def test_a_time_in_no_year_of_utc_makes_no_adjustment(
    hand: PricedLedger, member: str, time: str
) -> None:
    by_hand(hand, **{member: time})
    assert run("daily", hand.root).exit_code == 0
    assert run("verify", hand.root).exit_code == 1


def test_a_live_file_of_adjustments_holds_up_no_recovery(hand: PricedLedger) -> None:
    path = by_hand(hand)
    HandMade(hand.root, path.name.partition(".")[0]).live(5)
    assert run("recover", hand.root).exit_code == 0
    assert Ledger(hand.root).verify(full=True).ok


def test_adjustments_are_added_up_one_by_one_and_a_copy_of_a_segment_adds_nothing(
    hand: PricedLedger,
) -> None:
    path = by_hand(hand, new_cost_picousd=1_000_000)
    once = Ledger(hand.root).report()
    line = json.loads(path.read_bytes())
    del line["crc"]
    writer = path.name.partition(".")[0]
    lines = []
    for seq in range(1, 20_001):
        told = {**line, "id": f"{writer}-{seq:016d}", "seq": seq, "adjusts": hand.id(100 + seq)}
        lines.append(framed(json.dumps(told, separators=(",", ":")).encode()[:-1]))
    lines[0] = path.read_bytes()
    path.with_name(str(SegmentName(writer, 1, len(lines)))).write_bytes(b"".join(lines))
    tracemalloc.start()
    try:
        found = Ledger(hand.root).report()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.total.cost - once.total.cost == Decimal("0.000001") * (len(lines) - 1)
    assert peak < 4_000_000


def test_a_list_of_calls_says_that_reports_may_have_other_costs(hand: PricedLedger) -> None:
    assert "priced again" not in told("calls", hand.root)
    write(hand.root)
    assert "Costs as recorded; some were priced again" in told("calls", hand.root)
