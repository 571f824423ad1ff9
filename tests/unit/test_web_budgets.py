"""The budgets of the dashboard: the figures of the command, and nothing of another tenant."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger_by_hand import NOON, OTHER_WRITER, WRITER, HandMade
from tests.terminal import run

from litellm_ledger import Budget
from litellm_ledger._budgets.known import known_budgets, remember
from litellm_ledger._budgets.release import release, stranded
from litellm_ledger._budgets.status import standing
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._records.record import MAX_TEXT, UsageRecord
from litellm_ledger._web import budgets as module
from litellm_ledger._web.budgets import Budgets, is_seen
from litellm_ledger._web.standing import Standing

PICO = 10**12
BUDGETS = [
    Budget("5.00", per="tag:user", window="day", warn=[0.5]),
    Budget("9.00", window="24h", name="all of them"),
    Budget(7, unit="calls", window="hour", per=["model", "tag:user"]),
    Budget(1000, unit="tokens", window="total", where={"user": ["u1", "u2"]}),
]


class Afresh(Standing):
    """Looks at the directory each time."""

    def look(self) -> Snapshot:
        return Snapshot.take(self._root)


class Writer:
    """A process that writes, rotates and dies."""

    def __init__(self, root: Path, name: str, lots: random.Random) -> None:
        self.hand = HandMade(root, name)
        self.lots = lots
        self.seq = 0
        self.first = 1
        self.path: Path | None = None
        self.half = b""
        self.running: list[int] = []
        self.locks = ExitStack()
        self.locks.enter_context(self.hand.alive(0))

    def write(self, **fields: Any) -> int:
        self.seq += 1
        if self.path is None:
            self.first = self.seq
            self.path = self.hand.open(self.seq, [])
        moment = NOON + timedelta(minutes=self.lots.randrange(-90, 30))
        more = {"ts": moment, "tags": {"user": f"u{self.lots.randrange(4)}"}, "total_tokens": 9}
        line = self.hand.line(self.seq, **{**more, **fields})
        cut = self.lots.randrange(len(line))
        with self.path.open("ab") as file:
            file.write(line[:cut])
            if self.lots.random() < 0.1:  # somebody looks while the line is half there
                self.half = line[cut:]
            else:
                file.write(line[cut:])
        return self.seq

    def complete(self) -> None:
        if self.half and self.path is not None:
            with self.path.open("ab") as file:
                file.write(self.half)
            self.half = b""

    def step(self) -> None:
        self.complete()
        kind = self.lots.choice(["start", "start", "end", "plain", "refused", "rotate", "twice"])
        hold = {"hold_picousd": PICO // 2, "most_picousd": PICO}
        if kind == "start":
            number = self.write(
                kind="started", operation=self.hand.id(self.seq + 1), attempt=1, ts=NOON,
                tags={"user": "u1"}, **(hold if self.lots.random() < 0.8 else {}),
            )  # fmt: skip
            self.running.append(number)
        elif kind == "end" and self.running:
            of = self.running.pop()
            how = self.lots.choice([{"status": "ok", "cost": Decimal("0.25")},
                                    {"status": "cancelled", **hold}])  # fmt: skip
            self.write(operation=self.hand.id(of), attempt=1, ts=NOON, tags={"user": "u1"}, **how)
        elif kind == "refused":
            self.write(status="refused", cost=Decimal(0))
        elif kind == "rotate":
            self.seal()
        elif kind == "twice" and self.path is not None and self.lots.random() < 0.2:
            self.seq -= 1
            self.write(status="ok", cost=Decimal(3))
        else:
            self.write(status="ok", cost=Decimal(self.lots.randrange(100)) / 100)

    def seal(self) -> None:
        self.complete()
        if self.path is not None:
            name = f"{self.hand.writer}.{self.first:016d}-{self.seq:016d}.jsonl"
            self.path.rename(self.path.with_name(name))
            self.path = None


def same(held: Budgets, root: Path, now: datetime = NOON) -> None:
    found = held._standings(now)
    assert found.standings == standing(root, BUDGETS, now)


@pytest.mark.parametrize("seed", range(6))
def test_the_figures_are_those_of_the_ledger_after_every_step(tmp_path: Path, seed: int) -> None:
    lots = random.Random(seed)
    root = tmp_path / "usage"
    writers = [Writer(root, name, lots) for name in (WRITER, OTHER_WRITER)]
    remember(root, WRITER, BUDGETS)
    held = Budgets(root, Afresh(root))
    for number in range(60):
        writer = lots.choice(writers)
        writer.step()
        same(held, root, NOON + timedelta(minutes=number))
    for writer in writers:
        writer.complete()
        writer.locks.close()
        same(held, root)
        if lots.random() < 0.5:
            writer.seal()
        if writer.running:  # recovered
            of = writer.running[0]
            writer.write(operation=writer.hand.id(of), attempt=1, status="unsettled", ts=NOON,
                         hold_picousd=PICO // 2, tags={"user": "u1"})  # fmt: skip
            writer.complete()
            writer.seal()
        same(held, root)
    ids = [one.released.record for one in stranded(root, lambda _: True)]
    release(root, ids[:1], who="alice", why="not billed")
    same(held, root)
    same(held, root, NOON + timedelta(days=3))


def test_they_are_what_the_command_prints(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    hand = HandMade(tmp_path / "usage")
    told = {"ts": now, "tags": {"user": "u1"}, "total_tokens": 5}
    hand.filled({**told, "cost": Decimal("4.5")}, {**told, "status": "refused", "cost": Decimal(0)},
                {**told, "status": "cancelled", "hold_picousd": PICO})  # fmt: skip
    remember(hand.root, WRITER, BUDGETS)
    found = Budgets(hand.root, Standing(hand.root)).look(None, 20)
    printed = json.loads(run("budgets", str(hand.root), "--json").stdout)
    for one in (*found["budgets"], *printed["budgets"]):
        del one["projected"]  # it is of the second
    assert found["budgets"] == printed["budgets"]
    assert [one["refused"] for one in found["budgets"]] == [1, 1, 1, 1]
    assert found["ready"]
    few = Budgets(hand.root, Standing(hand.root)).look(None, 0)
    assert (few["budgets"], few["more"]) == ([], 4)


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = HandMade(tmp_path / "usage")
    hand.sealed(1, 50)
    path = hand.open(51, [hand.line(51)])
    remember(hand.root, WRITER, BUDGETS)
    held = Budgets(hand.root, Afresh(hand.root))
    same(held, hand.root)
    read: list[int] = []
    real = module.new_lines

    def noted(*given: Any) -> Iterator[Any]:
        for line in real(*given):
            read.append(line[1])
            yield line

    monkeypatch.setattr(module, "new_lines", noted)
    monkeypatch.setattr(module, "count", None)
    for seq in range(52, 56):
        with path.open("ab") as file:
            file.write(hand.line(seq, cost=Decimal(1)))
        same(held, hand.root)
    path.rename(path.with_name(f"{hand.writer}.{51:016d}-{55:016d}.jsonl"))
    same(held, hand.root)
    assert len(read) == 4


def test_nobody_has_said_any(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage").filled({})
    nothing = {"ready": True, "budgets": [], "more": 0, "problems": []}
    assert Budgets(hand.root, Standing(hand.root)).look(None, 20) == nothing


def test_an_answer_does_not_wait_for_the_first_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = HandMade(tmp_path / "usage").filled({})
    remember(hand.root, WRITER, BUDGETS)
    held = Budgets(hand.root, Standing(hand.root))
    gate = threading.Event()

    def slow(root: Path) -> Any:
        gate.wait()
        return known_budgets(root)

    monkeypatch.setattr(module, "known_budgets", slow)
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    try:
        assert held.look(None, 20)["ready"] is False
    finally:
        gate.set()
    monkeypatch.setattr(module, "_PATIENCE", 600.0)
    assert held.look(None, 20)["ready"] is True


ACME = {"tenant": ["acme"]}
SEEN: list[tuple[dict[str, Any], dict[str, str], bool]] = [
    ({}, {}, False),
    ({"per": "tenant"}, {"tenant": "acme"}, True),
    ({"per": "tenant"}, {"tenant": "birch"}, False),
    ({"per": "tenant"}, {}, False),
    ({"per": ["tenant", "user"]}, {"tenant": "acme", "user": "birch"}, True),
    ({"per": ["tenant", "user"]}, {"tenant": "birch", "user": "acme"}, False),
    ({"per": "user"}, {"tenant": "acme", "user": "acme"}, False),
    ({"per": "model"}, {"tenant": "acme"}, False),
    ({"where": {"tenant": "acme"}}, {"tenant": "acme"}, True),
    ({"where": {"tenant": "acme"}, "per": "user"}, {"tenant": "acme", "user": "u"}, True),
    ({"where": {"tenant": ["acme", "birch"]}}, {"tenant": "acme"}, False),
    ({"where": {"tenant": ["acme", "birch"]}, "per": "tenant"}, {"tenant": "acme"}, False),
    ({"where": {"user": "u"}}, {"tenant": "acme", "user": "u"}, False),
]


@pytest.mark.parametrize(("given_", "tags", "seen"), SEEN)
def test_a_tenant_sees_a_budget_of_which_each_call_is_its_own(
    tmp_path: Path, given_: dict[str, Any], tags: dict[str, str], *, seen: bool
) -> None:
    budget = Budget("5.00", window="total", **given_)
    hand = HandMade(tmp_path / "usage").filled({"tags": tags, "cost": Decimal(1)})
    (one,) = standing(hand.root, [budget], NOON)
    assert is_seen(None, one)
    assert is_seen(ACME, one) is seen
    assert is_seen({**ACME, "team": ["red"]}, one) is False


def test_a_name_that_was_made_names_no_value_to_a_tenant(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    hand.filled({"ts": datetime.now(UTC), "tags": {"tenant": "acme", "user": "u"}})
    where = {"user": ["u", "secret"]}
    made = Budget(1, unit="calls", per="tenant", where=where, window="day")
    named = Budget(1, unit="calls", per="tenant", where=where, window="day", name="a day's calls")
    remember(hand.root, WRITER, [made, named])
    held = Budgets(hand.root, Standing(hand.root))
    assert [one["budget"] for one in held.look(None, 20)["budgets"]] == [made.label, named.name]
    assert [one["budget"] for one in held.look(ACME, 20)["budgets"]] == ["calls day", named.name]


words = st.text(max_size=12) | st.sampled_from(["(none)", "a b", '"', "user=x", "a\\", "ü", " "])


KEYS = ["model", "tag:user", "tag:a b", 'tag:"', "tag:x=y"]


@given(
    per=st.sets(st.sampled_from(KEYS), min_size=1),
    tags=st.dictionaries(st.sampled_from(["user", "a b", '"', "x=y"]), words),
    model=words,
)
def test_a_scope_tells_the_values_it_was_made_of(
    per: set[str], tags: dict[str, str], model: str
) -> None:
    budget = Budget(1, per=sorted(per))
    record = UsageRecord(model=model or None, tags=tags)
    scope = budget.scope_of(record.model, record.tags)
    assert scope is not None
    names = [key.removeprefix("tag:") for key in per if key != "model"]
    assert budget.tags_of(scope) == {
        name: frozenset({record.tags.get(name, "(none)")}) for name in names
    }
    assert max(map(len, record.tags.values()), default=0) <= MAX_TEXT
    with pytest.raises(ValueError, match="is no scope"):
        budget.tags_of("?" + scope)
