"""What columns tell is what the report tells; they go when their segment is not that any more."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import NOON, OTHER_WRITER, WRITER, HandMade
from tests.unit.test_standing import same

from litellm_ledger._aggregates.quantiles import bucket_of
from litellm_ledger._maintenance.erase import erase
from litellm_ledger._maintenance.person import Person
from litellm_ledger._maintenance.prune import prune
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.listing import Snapshot, list_segments
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._web import adding, chunks, cube, segments, tally
from litellm_ledger._web import standing as module
from litellm_ledger._web.loading import Child, load
from litellm_ledger._web.standing import Standing

BYS = (
    [],
    ["day"],
    ["week", "model"],
    ["hour", "tag:user"],
    ["tag:user", "tag:env"],
    ["tag:env", "status"],
    ["month", "tag:none"],
    ["provider", "error"],
)
WHERES: tuple[dict[str, Any], ...] = (
    {},
    {"where": {"tag:user": "u1"}},
    {"where": {"tag:user": ["u1", "u2", "nobody"], "model": "openai/a"}},
    {"where_not": {"tag:env": "(none)"}},
    {"where": {"tag:user": "(none)"}, "where_not": {"status": "ok"}},
    {"where": {"tag:none": "x"}},
    {"where_not": {"tag:none": "x", "tag:user": "u3"}, "where": {"model": ["b", "(none)"]}},
)
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns")
SPRING = datetime(2025, 3, 28, tzinfo=UTC)
"""Clocks go forward in Berlin two days later."""


def outcomes(count: int, seed: int) -> list[dict[str, Any]]:
    lots = random.Random(seed)
    found = []
    for _ in range(count):
        cost = lots.choice([None, Decimal(0), Decimal("0.000000000001"), Decimal("9000000.5")])
        told: dict[str, Any] = {
            "ts": SPRING + timedelta(seconds=lots.randrange(4 * 86_400)),
            "model": lots.choice(["a", "openai/a", "b", ""]),
            "provider": lots.choice(["openai", None]),
            "status": lots.choice(["ok", "ok", "error", "cancelled", "refused"]),
            "error": lots.choice([None, "E"]),
            "usage_source": lots.choice(["provider", "estimated", "none", None]),
            "cost": cost,
            "cost_source": None if cost is None else "user",
            "attempt": lots.choice([1, 2]),
            "cache_hit": lots.choice([True, None]),
            "saved_cost": lots.choice([None, Decimal("0.5")]),
            "input_tokens": lots.choice([None, 3, 2**53 - 1]),
            "reasoning_tokens": lots.randrange(300),
            "latency_ms": lots.choice([None, 0.0, 1 / 3, 1e300, lots.random() * 1e4]),
            "ttft_ms": lots.choice([None, 0.5, 64.0]),
            "tags": {
                **lots.choice([{}, {"user": f"u{lots.randrange(4)}"}]),
                **lots.choice([{}, {"env": lots.choice(["", "<b>", "(none)", "\u202e\0"])}]),
            },
        }
        found.append(told)
    return found


def year(root: Path, segments: int = 6, each: int = 60) -> HandMade:
    """Some sealed segments of two writers, and an open one."""
    hand, other = HandMade(root), HandMade(root, OTHER_WRITER)
    for number in range(segments):
        one = (hand, other)[number % 2]
        first = 1 + number // 2 * each
        told = outcomes(each, seed=number)
        one.sealed(first, first + each - 1, [one.line(first + n, **o) for n, o in enumerate(told)])
    seal(root)
    first = 1 + segments // 2 * each
    hand.open(first, [hand.line(first + n, **o) for n, o in enumerate(outcomes(20, seed=99))])
    return hand


def loaded(root: Path) -> Standing:
    standing = Standing(root)
    standing.state(standing.look())
    standing.cube.settle()
    return standing


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("columns") / "usage"
    year(root)
    return root


@pytest.fixture
def only_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reads a manifest or a line for a sum fails."""
    for name in ("by_manifest", "by_lines", "by_growth"):
        monkeypatch.setattr(segments.Segments, name, None)
    monkeypatch.setattr(module._Answer, "_read_lines", None)


@pytest.fixture(params=[2**20, 50], ids=["at once", "in parts"])
def batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcomes that are added up at once; few of them have places for few groups."""
    monkeypatch.setattr(tally, "_BATCH", request.param)
    for one in (tally, adding):
        monkeypatch.setattr(one, "DENSE", request.param // 8)
    monkeypatch.setattr(cube, "_ROWS", request.param * 3)
    return


@pytest.mark.parametrize("by", BYS)
def test_columns_answer_as_the_report_does(
    root: Path, by: list[str], only_columns: None, batch: None
) -> None:
    standing, lots = loaded(root), random.Random(",".join(by))
    for number, where in enumerate(WHERES):
        since = SPRING + timedelta(minutes=15 * lots.randrange(300))
        span = {"since": since, "until": since + timedelta(minutes=15 * lots.randrange(200))}
        asked = {**where, **lots.choice([{}, span])}
        same(standing, root, by, tz=lots.choice(ZONES), quantiles=number % 2 == 0, **asked)
    assert not standing.cube._refused


def test_a_time_within_a_quarter_is_told_by_the_lines(root: Path) -> None:
    standing = loaded(root)
    for minutes in range(0, 3_000, 217):
        since = SPRING + timedelta(minutes=minutes)
        same(standing, root, ["tag:user", "tag:env"], since=since)
        same(standing, root, ["day"], until=since, quantiles=True)


def test_buckets_of_columns_are_those_of_values() -> None:
    values = [0.0, 1 / 16, 1 / 17, 0.1, 1.0, 63.999, 64.0, 1e300, 2.0**1023, -1.0, 5e-324]
    found = adding._buckets(adding.np.array(values))
    assert found.tolist() == [bucket_of(value) for value in values]


def test_a_child_loads_what_this_process_would(root: Path) -> None:
    standing = Standing(root)
    state = standing.state(standing.look())
    child = Child(root)
    for name in [*state.alone][:2]:
        ours, theirs = load(root, name, state.told[name].crc32), None
        theirs = child.load(name, state.told[name].crc32)
        assert ours is not None
        assert theirs is not None
        assert (ours.keys, ours.rows, ours.base) == (theirs.keys, theirs.rows, theirs.base)
        assert ours.quarters.tolist() == theirs.quarters.tolist()
    assert child.load(name, "00000000") is None
    child._child.kill()
    with pytest.raises(OSError, match=r"ended|Broken pipe"):
        child.load(name, state.told[name].crc32)
    child.close()


# -- what changes ------------------------------------------------------------------------------


def words(standing: Standing) -> set[str]:
    """Every value of a tag that columns know."""
    tags = standing.cube.view().tags
    return {value for known in tags.values() if known is not None for value in known[0]}


def test_of_a_person_who_was_erased_no_column_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "usage"
    hand, other = HandMade(root), HandMade(root, OTHER_WRITER)
    hand.sealed(1, 3, hand.lines(1, 3, tags={"user": "u1", "env": "a"}))
    other.sealed(1, 3, other.lines(1, 3, tags={"user": "u2"}))
    seal(root)
    standing = loaded(root)
    same(standing, root, ["tag:user", "tag:env"])
    assert "u1" in words(standing)
    erase(root, Person(["user=u1"]), who="officer", why="asked for")
    same(standing, root, ["tag:user", "tag:env"])
    standing.cube.settle()
    same(standing, root, ["tag:user", "tag:env"], where={"tag:user": ["u1", "u2"]})
    assert words(standing) & {"u1", "u2"} == {"u2"}


def test_what_was_pruned_or_changed_is_in_no_column(tmp_path: Path) -> None:
    root = tmp_path / "usage"
    hand = HandMade(root)
    for day in range(4):
        first, told = 1 + 3 * day, {"ts": NOON + timedelta(days=day), "tags": {"user": f"u{day}"}}
        path = hand.sealed(first, first + 2, hand.lines(first, first + 2, **told))
    seal(root)
    standing = loaded(root)
    by = ["tag:user", "model"]
    same(standing, root, by)
    rule, now = Retention(keep=timedelta(days=2)), NOON + timedelta(days=3)
    assert prune(root, rule, who="alice", why="the rule", now=now).records == 3
    same(standing, root, by)
    path.write_bytes(b"".join(hand.lines(10, 12, model="other", tags={"user": "u9"})))
    same(standing, root, by)
    assert "u9" in {row.group["tag:user"] for row in standing.report(by, every()).rows}
    seal(root)
    same(standing, root, by)
    standing.cube.settle()
    same(standing, root, by)


def every() -> Any:
    from litellm_ledger._aggregates.selection import Selection

    return Selection()


def test_records_that_were_priced_again_are_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.pruned import adjusted, filled

    root = tmp_path / "usage"
    filled(root)
    standing = loaded(root)
    by = ["tag:user", "model"]
    same(standing, root, by)
    monkeypatch.setattr(module, "add_adjustments", None)  # columns have them
    for of in (10, 11, 2):
        adjusted(root, of)
        same(standing, root, by)
        same(standing, root, ["day"], where={"tag:user": "u1"}, quantiles=True)
        same(standing, root, [], since=NOON.replace(minute=0, second=0, microsecond=0))


def test_what_is_written_is_added_once_and_stays_when_it_is_sealed(
    tmp_path: Path, only_columns: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cube, "_PIECE", 8)
    root = tmp_path / "usage"
    hand = HandMade(root)
    path = hand.open(1, [])
    standing = loaded(root)
    told = outcomes(40, seed=3)
    for seq, one in enumerate(told, 1):
        with path.open("ab") as file:
            file.write(hand.line(seq, **one))
        if seq % 7 == 0:
            same(standing, root, ["tag:user", "tag:env"], quantiles=True)
            same(standing, root, ["model"], where={"tag:user": "u1"})
    monkeypatch.setattr(cube, "load", None)  # nothing is read twice
    same(standing, root, ["model"])
    path.rename(path.with_name(f"{hand.writer}.{1:016d}-{40:016d}.jsonl"))
    seal(root)
    same(standing, root, ["tag:user", "tag:env"], quantiles=True)
    assert [*standing.cube._there] == [SegmentName(WRITER, 1, 40)]


def test_a_line_that_is_odd_ends_the_columns_of_what_grows(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    path = hand.open(1, hand.lines(1, 3))
    standing = loaded(hand.root)
    same(standing, hand.root, ["model", "tag:user"])
    for seq, line in enumerate([b"no line\n", hand.line(5), hand.line(6, ts=None)], 4):
        with path.open("ab") as file:
            file.write(line)
        same(standing, hand.root, ["model", "tag:user"])
        assert (standing.cube.grown(list_segments(hand.root)[0]) is None) == (seq >= 4)


# -- bounds ------------------------------------------------------------------------------------


def test_a_tag_with_too_many_values_has_no_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "VALUES", 100)
    hand = HandMade(tmp_path / "usage")
    for at in range(3):
        first = 1 + 60 * at
        told = [{"tags": {"env": f"e{n % 3}", "id": f"{at}-{n}"}} for n in range(60)]
        hand.sealed(first, first + 59, [hand.line(first + n, **one) for n, one in enumerate(told)])
    seal(hand.root)
    standing = loaded(hand.root)
    view = standing.cube.view()
    assert view.tags["id"] is None
    assert not any("id" in chunk.tags for chunk in view.chunks)
    for by in (["tag:id"], ["tag:env"], ["tag:env", "tag:id"]):
        same(standing, hand.root, by)
        same(standing, hand.root, by, where={"tag:id": "1-7"})
        same(standing, hand.root, by, where={"tag:env": "e1"})


def test_what_would_take_too_much_memory_is_left_to_manifests(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cube, "BYTES", 3_000)
    standing = loaded(root)
    there, refused = standing.cube._there, standing.cube._refused
    assert there
    assert refused
    latest = standing.state(standing.look()).told
    assert max(latest[n].latest or "" for n in there) == max(latest[n].latest or "" for n in latest)
    same(standing, root, ["tag:user", "tag:env"], where={"tag:user": "u1"})


@pytest.mark.parametrize("members", [
    '"ts":"2025-01-01T12:00:00Z","tags":{' + ",".join(f'"t{n}":"v"' for n in range(101)) + "}",
    '"tags":{"user":"u1"}',
    '"ts":"9998-01-01T12:00:00Z","tags":{"user":"u1"}',
    '"ts":"1969-01-01T12:00:00+01:00","tags":{"user":"u1"}',
])  # fmt: skip
def test_what_no_column_says_is_read_from_the_lines(tmp_path: Path, members: str) -> None:
    hand = HandMade(tmp_path / "usage")
    hand.sealed(1, 2, [hand.line(1, tags={"user": "u2"}), hand.foreign(2, members)])
    seal(hand.root)
    standing = loaded(hand.root)
    assert not standing.cube._there
    same(standing, hand.root, ["tag:user", "tag:t7"])


def test_short_questions_do_not_wait_for_columns_and_long_ones_do(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, real = threading.Event(), cube.load
    monkeypatch.setattr(cube, "load", lambda *given: going.wait() and real(*given))
    standing = Standing(root)
    same(standing, root, ["tag:user"])  # by manifests
    found: list[BaseException | None] = []

    def ask() -> None:
        try:
            same(standing, root, ["tag:user", "tag:env"])
        except BaseException as exc:
            found.append(exc)
        else:
            found.append(None)

    monkeypatch.setattr(segments.Segments, "_from_lines", None)
    asking = threading.Thread(target=ask)
    asking.start()
    same(standing, root, ["model"], where={"tag:user": "u1"})
    assert found == []
    going.set()
    asking.join()
    assert found == [None]


def test_after_some_time_lines_are_read_in_place_of_columns(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, real = threading.Event(), cube.load
    monkeypatch.setattr(cube, "load", lambda *given: going.wait() and real(*given))
    monkeypatch.setattr(cube, "PATIENCE", 0.0)
    standing = Standing(root)
    same(standing, root, ["tag:user", "tag:env"])
    assert not standing.cube._there
    going.set()
    standing.cube.settle()
    same(standing, root, ["tag:user", "tag:env"], where={"tag:user": "u1"})


def test_a_segment_that_cannot_be_loaded_holds_nobody_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr(cube, "load", broken)
    standing = loaded(root)
    assert not standing.cube._there
    same(standing, root, ["tag:user", "tag:env"])


def test_segments_without_a_call_that_is_wanted_are_known(root: Path) -> None:
    standing = loaded(root)
    from litellm_ledger._aggregates.selection import Selection

    ledger = Snapshot.take(root)
    sealed = {name for name in ledger.segments if not name.open}
    assert standing.without(ledger, Selection(where={"tag:user": "nobody"})) == sealed
    assert standing.without(ledger, Selection(where={"tag:user": "u1"})) == set()
