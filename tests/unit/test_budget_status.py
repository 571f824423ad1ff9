"""What stands against budgets: the figures, the command, the replay, what clients say of them."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_by_hand import NOON, HandMade
from tests.terminal import as_json, run, told

from litellm_ledger import Budget, BudgetExceeded, LedgerPathError
from litellm_ledger._budgets.amounts import Amounts
from litellm_ledger._budgets.gate import Gate
from litellm_ledger._budgets.known import known_budgets, remember, shared_at
from litellm_ledger._budgets.release import release
from litellm_ledger._budgets.simulate import PastCall, simulate
from litellm_ledger._budgets.status import Standing, standing, status_of
from litellm_ledger._cli import budgets as _command
from litellm_ledger._reading.adjustments import read_additions
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._records.adjustment import encode_addition
from litellm_ledger._records.audit import Audit, audit_of

PICO = 10**12
HOUR = timedelta(hours=1)


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path / "usage")


def figures(found: list[Standing]) -> dict[tuple[str, str], tuple[int, int]]:
    return {(one.budget.label, one.scope): (one.settled, one.held) for one in found}


def test_a_standing_is_what_the_lines_of_the_window_say(hand: HandMade) -> None:
    alice, bob = {"user": "alice"}, {"user": "bob"}
    hand.filled(
        {"cost": Decimal("0.50"), "tags": alice, "total_tokens": 7},
        {"cost": Decimal("0.25"), "tags": alice},
        {"cost": Decimal("0.10"), "tags": bob},
        {"cost": Decimal("9.00"), "tags": alice, "ts": NOON - timedelta(days=1)},
        {"status": "cancelled", "tags": bob, "hold_picousd": 2 * PICO},
        {"status": "refused", "tags": bob, "cost": Decimal(0)},
        {"cache_hit": True, "cost": Decimal(0), "tags": bob},
    )
    day = Budget(5, per="user", window="day")
    rolling = Budget(100, window="30d")
    calls = Budget(100, unit="calls", window="day", where={"user": "bob"})
    tokens = Budget(100, unit="tokens", window="hour", where={"user": "nobody"})
    found = standing(hand.root, [day, rolling, calls, tokens], NOON)
    assert figures(found) == {
        (day.label, "user=bob"): (2 * PICO + PICO // 10, 0),
        (day.label, "user=alice"): (PICO * 3 // 4, 0),
        (rolling.label, ""): (PICO * 1185 // 100, 0),
        (calls.label, ""): (2, 0),
        (tokens.label, ""): (0, 0),
    }
    assert [one.scope for one in found] == ["user=bob", "user=alice", "", "", ""]
    assert standing(hand.root, [], NOON) == []


def test_a_record_of_tomorrow_is_not_spent_today(hand: HandMade) -> None:
    hand.filled({"cost": Decimal(1), "ts": NOON + timedelta(days=1)}, {"cost": Decimal(2)})
    budgets = [Budget(5, window="day"), Budget(5, window="24h"), Budget(5, window="total")]
    settled = [one.settled // PICO for one in standing(hand.root, budgets, NOON)]
    assert settled == [2, 2, 3]


def test_calls_in_flight_hold_and_those_of_the_dead_are_spent(hand: HandMade) -> None:
    held = hand.line(1, kind="started", operation=hand.id(1), hold_picousd=2 * PICO)
    without = hand.line(2, kind="started", operation=hand.id(2))
    hand.open(1, [held])
    budget = Budget(5, window="day")
    with hand.alive(2):
        (one,) = standing(hand.root, [budget], NOON)
        assert (one.settled, one.held, one.at_risk) == (0, 2 * PICO, 0)
    (one,) = standing(hand.root, [budget], NOON)
    assert (one.settled, one.held) == (2 * PICO, 0)
    adaptive = hand.line(
        2, kind="started", operation=hand.id(2), hold_picousd=PICO, most_picousd=4 * PICO
    )
    hand.open(1, [held, adaptive])
    with hand.alive(2):
        (one,) = standing(hand.root, [budget], NOON)
    assert (one.held, one.at_risk) == (3 * PICO, 3 * PICO)
    assert status_of(one, NOON).worst_overspend == 1
    hand.open(1, [held, without])
    with hand.alive(2):
        (one,) = standing(hand.root, [budget], NOON)
    assert one.at_risk is None, "what a call may cost for which nothing is held, nobody knows"
    assert status_of(one, NOON).worst_overspend is None


def test_a_status_projects_the_window_and_says_the_worst(hand: HandMade) -> None:
    budget = Budget(5, window="day", warn=[0.5, 0.8, 1])
    window = budget.window_at(NOON)
    at_six = window.start + 6 * HOUR
    one = Standing(budget, "", window, 4 * PICO, 2 * PICO, PICO)
    status = status_of(one, at_six)
    assert (status.free, status.projected, status.worst_overspend) == (0, 16, 2)
    assert status.warned == (Decimal("0.5"), Decimal("0.8"))
    assert (status.start, status.resets_at) == (window.start, window.end)
    assert not status.is_spent
    assert status_of(one._replace(settled=5 * PICO), at_six).is_spent
    early = status_of(one, window.start + timedelta(minutes=5))
    assert early.projected is None, "five minutes tell nothing of a day"
    for other in (Budget(5, window="total"), Budget(5, window="24h")):
        one = Standing(other, "", other.window_at(NOON), PICO, 0, 0)
        status = status_of(one, NOON)
        assert (status.projected, status.resets_at, status.free) == (None, None, 4)


def test_the_command_has_the_figures_and_a_status_for_cron(hand: HandMade, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    tags = {"user": "a\x1b[2Jb"}
    hand.filled({"cost": Decimal("0.60"), "tags": tags, "ts": now - timedelta(seconds=1)})
    file = tmp_path / "budgets.toml"
    file.write_text('[[budget]]\nlimit = 1.00000063\nname = "exact"\n')
    assert "$0.40000063" in told("budgets", hand.root, "--budgets", file)
    file.write_text('[[budget]]\nlimit = 1.00\nper = "user"\nwindow = "30d"\nname = "mine"\n')
    table = told("budgets", hand.root, "--budgets", file)
    assert "\x1b" not in table
    assert 'user="a\\u001b[2Jb"' in table
    (one,) = as_json("budgets", hand.root, "--budgets", file)["budgets"]
    assert {name: one[name] for name in ("budget", "limit", "settled", "held", "free")} == {
        "budget": "mine",
        "limit": "1",
        "settled": "0.6",
        "held": "0",
        "free": "0.4",
    }
    file.write_text(file.read_text() + "warn = [0.5, 0.9]\n")
    done = run("budgets", hand.root, "--budgets", file)
    assert done.exit_code == 1
    assert "is at 50 %." in done.stdout
    file.write_text("[[budget]]\nlimit = 0.60\n")
    done = run("budgets", hand.root, "--budgets", file)
    assert (done.exit_code, "usd month is spent." in done.stdout) == (1, True)
    file.write_text("[[budget]]\nlimt = 0.60\n")
    done = run("budgets", hand.root, "--budgets", file)
    assert done.exit_code == 2
    assert "budget 1: it has 'limt'" in done.stderr
    done = run("budgets", hand.root)
    assert done.exit_code == 2
    assert "give a file of budgets: --budgets budgets.toml" in done.stderr


def test_the_command_knows_what_clients_enforce(hand: HandMade) -> None:
    hand.filled({"cost": Decimal("0.60"), "ts": datetime.now(UTC) - timedelta(seconds=1)})
    (hand.root / "budgets").mkdir()
    remember(hand.root, "20250101T000000Z-00000000000000aa", [Budget(1, name="old")])
    remember(hand.root, "20250102T000000Z-00000000000000aa", [Budget(1, name="mine")])
    assert [one["budget"] for one in as_json("budgets", hand.root)["budgets"]] == ["mine"]
    hand.open(2, [hand.line(2)])
    with hand.alive(2):
        remember(hand.root, hand.writer, [Budget(1, name="living")], "postgresql://db/usage")
        remember(hand.root, "20250103T000000Z-00000000000000aa", [Budget(1, name="dead")])
        assert [one.name for one in known_budgets(hand.root)[0]] == ["living"]
        assert shared_at(hand.root) == ["postgresql://db/usage"]
        said = told("budgets", hand.root)
        assert "litellm-ledger budgets postgresql://db/usage" in " ".join(said.split())
    assert [one.name for one in known_budgets(hand.root)[0]] == ["dead"]


@pytest.mark.parametrize(
    "content",
    [
        b"nonsense",
        b"[]",
        b'{"w": 3}',
        b'{"w": {"seen": "x", "budgets": 3}}',
        b"[" * 100_000,
        b"",
        b"\xff",
    ],
)
def test_a_file_of_definitions_that_is_none_is_none(hand: HandMade, content: bytes) -> None:
    hand.filled({})
    file = hand.root / "budgets" / "definitions.json"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(LedgerPathError, match="no client"):
        known_budgets(hand.root)
    remember(hand.root, hand.writer, [Budget(1)])
    assert known_budgets(hand.root) == ([Budget(1)], [])


def test_a_definition_that_is_no_budget_is_said_and_shown_safely(hand: HandMade) -> None:
    hand.filled({})
    file = hand.root / "budgets" / "definitions.json"
    file.parent.mkdir()
    said = {"seen": "2025", "budgets": [{"limit": "1", "x\x1b[2J": 1}, {"limit": "2"}]}
    file.write_text(json.dumps({"w": said}))
    budgets, (problem,) = known_budgets(hand.root)
    assert budgets == [Budget(2)]
    assert "\x1b" not in problem
    assert "no budget" in problem
    file.unlink()
    file.symlink_to("/etc/passwd")
    with pytest.raises(LedgerPathError, match=r"definitions\.json cannot be read"):
        known_budgets(hand.root)


def test_definitions_are_shared_with_the_group_where_the_directory_is(hand: HandMade) -> None:
    hand.filled({})
    directory = hand.root / "budgets"
    directory.mkdir()
    directory.chmod(0o770)
    remember(hand.root, hand.writer, [Budget(1)])
    modes = {stat.S_IMODE(os.stat(file).st_mode) for file in directory.iterdir()}
    assert modes == {0o660}


def test_more_writers_than_are_remembered_drop_the_oldest(hand: HandMade) -> None:
    hand.filled({})
    for number in range(70):
        remember(hand.root, f"writer-{number}", [Budget(number)])
    known = json.loads((hand.root / "budgets" / "definitions.json").read_bytes())
    assert sorted(known) == sorted(f"writer-{number}" for number in range(6, 70))


# -- what would have been refused ------------------------------------------------------------------


def past(
    began: int,
    ended: int,
    spent: int,
    held: int | None = None,
    *,
    operation: str = "",
    tags: Mapping[str, str] | None = None,
) -> PastCall:
    """A call; times in minutes, money in picodollars."""
    return PastCall(
        operation or f"{began}-{ended}-{spent}",
        NOON + timedelta(minutes=began),
        NOON + timedelta(minutes=ended),
        "m",
        tags or {},
        None if held is None else Amounts(held, 0),
        Amounts(spent, 0),
    )


def test_a_call_is_refused_where_the_gate_would_have_refused_it() -> None:
    budget = Budget(Decimal(10).scaleb(-12), window="day")
    found = simulate(
        [
            past(0, 10, spent=2, held=6),
            past(1, 2, spent=1, held=5),  # 6 are held
            past(3, 20, spent=1, held=4),  # to the last unit
            past(10, 11, spent=3, held=4),  # the first has ended: 2 settled, 4 held
            past(12, 13, spent=1, held=2),
        ],
        [budget],
    )
    (one,) = found.budgets
    assert (one.admitted, one.refused, one.not_spent, one.spent, one.most) == (3, 2, 2, 6, 10)
    assert one.first == NOON + timedelta(minutes=1)
    assert (found.calls, found.refused, found.without_hold) == (5, 2, 0)


def test_attempts_after_a_refused_one_do_not_happen_and_all_budgets_or_none_are_taken() -> None:
    small = Budget(Decimal(1).scaleb(-12), per="user", window="day")
    large = Budget(Decimal(10).scaleb(-12), window="day")
    found = simulate(
        [
            past(0, 1, spent=2, operation="o", tags={"user": "a"}),
            past(2, 3, spent=1, operation="o", tags={"user": "a"}),
            past(4, 5, spent=1, tags={"user": "b"}),
        ],
        [small, large],
    )
    assert (found.calls, found.refused, found.without_hold) == (3, 2, 3)
    assert found.not_spent == Decimal(3).scaleb(-12)
    assert [(one.admitted, one.refused) for one in found.budgets] == [(1, 1), (1, 0)]
    assert found.budgets[0].scopes == {"user=a": 1}
    assert found.budgets[1].most == 1


def test_a_window_that_changes_gives_the_money_back_and_soft_refuses_nothing() -> None:
    hour = Budget(Decimal(2).scaleb(-12), window="hour")
    soft = Budget(Decimal(1).scaleb(-12), window="day", mode="soft")
    found = simulate([past(minute, minute, spent=1) for minute in range(0, 120, 20)], [hour, soft])
    assert [(one.admitted, one.refused) for one in found.budgets] == [(4, 2), (4, 0)]
    assert found.budgets[0].first == NOON + timedelta(minutes=40)


def test_what_was_spent_before_the_period_counts_as_it_was() -> None:
    budget = Budget(Decimal(2).scaleb(-12), window="day")
    calls = [past(minute, minute, spent=1) for minute in range(4)]
    found = simulate(calls, [budget], since=NOON + timedelta(minutes=3))
    (one,) = found.budgets
    assert (found.calls, one.admitted, one.refused) == (1, 0, 1)


@settings(max_examples=25)
@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=12),
    limit=st.integers(0, 12),
    lasting=st.integers(1, 4),
)
def test_the_replay_decides_as_the_gate_does(
    steps: list[tuple[int, int]], limit: int, lasting: int
) -> None:
    """Calls of a minute each begin, and end ``lasting`` minutes later."""
    budget = Budget(Decimal(limit).scaleb(-12), window="total")
    calls = [
        past(minute, minute + lasting, spent=spent, held=spent + more, operation=str(minute))
        for minute, (spent, more) in enumerate(steps)
    ]

    async def really(root: Path) -> int:
        gate = Gate(root, [budget])
        await gate.open("20250101T000000Z-00000000000000aa")
        open_now: list[tuple[int, Any, PastCall]] = []
        refused = 0
        for minute, call in enumerate(calls):
            for ended, ticket, of in list(open_now):
                if ended <= minute:
                    gate.settle(ticket, of.spent)
                    open_now.remove((ended, ticket, of))
            assert call.held is not None
            try:
                ticket = await gate.take(call.held, "m", {}, call.began)
            except BudgetExceeded:
                refused += 1
            else:
                open_now.append((minute + lasting, ticket, call))
        gate.close()
        return refused

    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as root:
        (Path(root) / "segments").mkdir()
        (Path(root) / "live").mkdir()
        assert simulate(calls, [budget]).refused == asyncio.run(really(Path(root)))


@settings(max_examples=100)
@given(
    calls=st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 60), st.integers(0, 5), st.integers(0, 3)),
        max_size=30,
    ),
    limit=st.integers(0, 20),
    window=st.sampled_from(["hour", "day", "3h"]),
)
def test_admitted_calls_never_settle_above_the_limit(
    calls: list[tuple[int, int, int, int]], limit: int, window: str
) -> None:
    """Where the hold is at least the cost, which is the promise of the gate."""
    replayed = sorted(
        past(began, began + length, spent=spent, held=spent + more, operation=str(number))
        for number, (began, length, spent, more) in enumerate(calls)
    )
    replayed.sort(key=lambda call: call.began)
    budget = Budget(Decimal(limit).scaleb(-12), window=window)
    found = simulate(replayed, [budget])
    (one,) = found.budgets
    assert one.most <= limit
    assert one.admitted + one.refused == len(calls)
    assert one.spent + one.not_spent == sum(call[2] for call in calls)


def test_the_command_replays_the_ledger_and_says_what_it_assumes(
    hand: HandMade, tmp_path: Path
) -> None:
    def call(seq: int, minute: int, cost: str, hold: int | None, **fields: Any) -> list[bytes]:
        ts = NOON + timedelta(minutes=minute)
        started = hand.line(
            seq, kind="started", operation=hand.id(seq), attempt=1, ts=ts, hold_picousd=hold
        )
        return [started, hand.outcome(seq + 1, seq, ts=ts, cost=Decimal(cost), **fields)]

    lines = [
        *call(1, 0, "0.40", 60 * PICO // 100, latency_ms=120_000.0),
        *call(3, 1, "0.10", 50 * PICO // 100),
        *call(5, 3, "0.20", None),
        hand.line(7, status="refused", cost=Decimal(0)),
        hand.line(8, kind="started", operation=hand.id(8), hold_picousd=30 * PICO // 100),
    ]
    hand.sealed(1, 8, lines)
    file = tmp_path / "budgets.toml"
    file.write_text('[[budget]]\nlimit = 1.00\nwindow = "day"\n')
    found = as_json("budgets", "simulate", hand.root, "--budgets", file)
    assert (found["calls"], found["refused"], found["not_spent"]) == (4, 1, "0.1")
    assert Decimal(found["cost"]) == 1
    assert (found["without_hold"], found["refused_then"]) == (1, 1)
    text = told("budgets", "simulate", hand.root, "--budgets", file)
    assert "1 attempt of 4 would have been refused: $0.10 of $1.00." in text
    assert "1 attempt without a recorded hold" in text
    assert "1 call refused at that time" in text
    file.write_text('[[budget]]\nlimit = 0.99\nwindow = "day"\n')
    since = ("--since", "2025-01-01T12:02")
    late = as_json("budgets", "simulate", hand.root, "--budgets", file, *since)
    assert (late["calls"], late["refused"]) == (1, 1), "the money of the morning was spent"


# -- release ---------------------------------------------------------------------------------------


def stranded_ledger(hand: HandMade) -> None:
    hand.filled(
        {
            "status": "cancelled",
            "tags": {"user": "a"},
            "hold_picousd": 2 * PICO,
            "cost": Decimal(1),
        },
        {"status": "unsettled", "tags": {"user": "b"}, "hold_picousd": PICO, "hold_tokens": 7},
        {"status": "ok", "cost": Decimal(1), "hold_picousd": PICO // 2},
        {"status": "ok", "cost": Decimal(1)},
    )


def test_a_release_lets_go_what_is_stranded_once_and_says_who_and_why(hand: HandMade) -> None:
    stranded_ledger(hand)
    before = sorted(hand.root.rglob("*.jsonl"))
    contents = [file.read_bytes() for file in before]
    dollars, tokens = Budget(9, window="total"), Budget(99, unit="tokens", window="total")
    (usd, used) = standing(hand.root, [dollars, tokens], NOON)
    assert (usd.settled, used.settled) == (5 * PICO, 7)
    arguments = ("budgets", "release", hand.root, "--who", "ann", "--why", "not on the bill")
    done = run(*arguments)
    assert done.exit_code == 2
    assert "$2.00 and 7 tokens of 2 calls (1 cancelled, 1 unsettled) would be" in done.stderr
    done = run(*arguments, "--yes", "--where", "user=a")
    assert (done.exit_code, "Released: $1.00 of 1 call" in done.stdout) == (0, True), done.output
    assert standing(hand.root, [dollars], NOON)[0].settled == 4 * PICO
    assert as_json(*arguments, "--yes")["released"] == 1
    (usd, used) = standing(hand.root, [dollars, tokens], NOON)
    assert (usd.settled, used.settled) == (3 * PICO, 0), "what they are known to have cost"
    assert "Nothing is stranded." in told(*arguments)
    assert [file.read_bytes() for file in before] == contents, "no line changes"
    first, second = (
        one
        for one in read_additions(hand.root, Snapshot.take(hand.root).adjustments, [])
        if isinstance(one, Audit)
    )
    assert (first.did, first.who, first.why) == ("release", "ann", "not on the bill")
    assert [one.record for one in first.released] == [hand.id(1)]
    assert [(one.picousd, one.tokens) for one in second.released] == [(PICO, 7)]
    assert release(hand.root, [hand.id(1)], who="x", why="x") == []


def test_a_release_asks_and_no_is_no(hand: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    stranded_ledger(hand)
    monkeypatch.setattr(_command, "_is_agreed", lambda _: False)
    done = run("budgets", "release", hand.root, "--why", "x")
    assert (done.exit_code, "Not released: $2.00" in done.stdout) == (1, True)
    assert Snapshot.take(hand.root).adjustments == []
    done = run("budgets", "release", hand.root, "--why", " ", "--yes")
    assert (done.exit_code, "a reason is needed" in done.stderr) == (2, True)


def test_a_release_by_budgets_is_of_their_windows_and_calls(hand: HandMade, tmp_path: Path) -> None:
    stranded_ledger(hand)
    file = tmp_path / "budgets.toml"
    arguments = ("budgets", "release", hand.root, "--why", "x", "--yes", "--budgets", file)
    file.write_text('[[budget]]\nlimit = 1\nwindow = "day"\n')
    assert "Nothing is stranded." in told(*arguments)
    file.write_text('[[budget]]\nlimit = 1\nwindow = "total"\nwhere = { user = "b" }\n')
    assert "Released: $1.00 and 7 tokens of 1 call (1 unsettled)." in told(*arguments)


def test_a_release_says_what_recover_has_to_settle_first(hand: HandMade) -> None:
    hand.open(1, [hand.line(1, kind="started", operation=hand.id(1), hold_picousd=PICO)])
    hand.live(1, oldest=1)
    arguments = ("budgets", "release", hand.root, "--why", "x", "--yes")
    assert "1 writer died and is not recovered: run litellm-ledger recover" in told(*arguments)
    told("recover", hand.root)
    assert "Released: $1.00 of 1 call (1 unsettled)." in told(*arguments)


def test_an_audit_of_a_release_is_shown_by_verify(hand: HandMade) -> None:
    stranded_ledger(hand)
    told("budgets", "release", hand.root, "--why", "because", "--who", "ann", "--yes")
    assert run("verify", hand.root).exit_code == 0


def test_a_release_of_more_than_a_ledger_can_hold_is_no_audit(hand: HandMade) -> None:
    stranded_ledger(hand)
    told("budgets", "release", hand.root, "--why", "because", "--who", "ann", "--yes")
    found = read_additions(hand.root, Snapshot.take(hand.root).adjustments, [])
    audit = next(one for one in found if isinstance(one, Audit))
    huge = msgspec.structs.replace(audit.released[0], picousd=10**30)
    assert audit_of(encode_addition(audit)) == audit
    assert audit_of(encode_addition(msgspec.structs.replace(audit, released=[huge]))) is None
