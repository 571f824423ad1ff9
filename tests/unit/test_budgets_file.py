"""``budgets.toml``: what is taken from it, and when it is read again."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_ledger import Budget
from litellm_ledger._budgets import budgets_file
from litellm_ledger._budgets.budgets_file import BudgetsFile, read_budgets
from litellm_ledger._budgets.definitions import budget_of, budgets_of_toml, definition

ONE = '[[budget]]\nlimit = "5.00"\n'
TWO = f'{ONE}\n[[budget]]\nlimit = 2\nwindow = "day"\n'


def test_a_file_has_what_a_budget_takes() -> None:
    text = """
    [[budget]]
    limit = 5.10
    per = "tag:user"
    window = "day"
    tz = "Europe/Berlin"
    warn = [0.5, 0.8]

    [[budget]]
    limit = 1_000_000
    unit = "tokens"
    window = "30d"
    mode = "adaptive"
    unbounded = "allow"
    name = "all tokens"
    where = { feature = ["search", "chat"], model = "gpt-4o" }
    """
    assert budgets_of_toml(text) == (
        Budget("5.10", per="user", window="day", tz="Europe/Berlin", warn=[0.5, 0.8]),
        Budget(
            1_000_000,
            unit="tokens",
            window="30d",
            mode="adaptive",
            unbounded="allow",
            name="all tokens",
            where={"feature": ["search", "chat"], "model": "gpt-4o"},
        ),
    )
    assert budgets_of_toml("budget = []") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"it has no budget: write tables \[\[budget\]\]"),
        ("[[budget]", "it is not TOML"),
        ("[[budgets]]\nlimit = 5", "it has 'budgets'; budgets are tables"),
        ("[budget]\nlimit = 5", "with two brackets"),
        ("budget = [5]", "budget 1: it must be a table, not int"),
        (f"{ONE}\n[[budget]]\nwindow = 'day'", "budget 2: it has no limit"),
        (f"{ONE}limt = 4", "budget 1: it has 'limt'; known are limit, per"),
        (f"{ONE}window = 'dya'", "budget 1: unknown window 'dya'"),
        (f"{ONE}where = 3", "budget 1: where takes a mapping"),
        (f"{ONE}name = 3", "budget 1: name must be text"),
        ("[[budget]]\nlimit = 2020-01-01", "budget 1: limit must be decimal text"),
        ("[[budget]]\nlimit = inf", "budget 1: limit"),
        (ONE + ONE, "two budgets are called 'usd month'"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        budgets_of_toml(text)


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)


@settings(max_examples=50)
@given(
    unit=st.sampled_from(["usd", "tokens", "calls"]),
    limit=st.integers(0, 9_000_000),
    per=st.none() | st.lists(names.map("tag:{}".format), min_size=1, max_size=3),
    where=st.none() | st.dictionaries(names.map("tag:{}".format), names, max_size=2),
    warn=st.lists(st.floats(0.01, 1.0).map(lambda part: round(part, 3)), max_size=3),
)
def test_a_definition_makes_an_equal_budget(unit, limit, per, where, warn) -> None:  # type: ignore[no-untyped-def]
    budget = Budget(limit, unit=unit, per=per, where=where, warn=warn, name="n")
    again = budget_of(json.loads(json.dumps(definition(budget))))
    assert again == budget
    assert again.counts == budget.counts


# -- read again ------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "budgets.toml"
    path.write_text(ONE)
    long_ago(path)
    return path


def long_ago(path: Path) -> None:
    os.utime(path, (path.stat().st_mtime - 60,) * 2)


def replace(path: Path, text: str) -> None:
    """As editors and Kubernetes do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_a_change_counts_when_the_file_is_at_rest(file: Path) -> None:
    budgets = BudgetsFile(file)
    assert [budget.limit_units for budget in budgets.budgets] == [5 * 10**12]
    assert not budgets.look()
    replace(file, TWO)
    assert not budgets.look(), "it changed this moment: it may be half of a file"
    assert len(budgets.budgets) == 1
    assert budgets.look()
    assert len(budgets.budgets) == 2
    assert not budgets.look()
    replace(file, ONE)
    long_ago(file)
    assert budgets.look(), "it has been at rest for a minute"
    assert len(budgets.budgets) == 1
    replace(file, f"# a comment\n{ONE}")
    long_ago(file)
    assert not budgets.look(), "the budgets are the same"


@pytest.mark.parametrize("broken", ["", "[[budget]", "[[budget]]\nlimit = 'x'\n", "\udcff", None])
def test_a_broken_file_keeps_the_budgets_and_warns_once(
    file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    budgets = BudgetsFile(file)
    before = budgets.budgets
    if broken is None:
        file.unlink()
    else:
        file.write_bytes(broken.encode(errors="surrogateescape"))
        long_ago(file)
    with caplog.at_level(logging.WARNING, "litellm_ledger"):
        for _ in range(3):
            assert not budgets.look()
    assert budgets.budgets is before
    (warning,) = caplog.messages
    assert str(file) in warning
    assert "stay in force" in warning
    replace(file, TWO)
    long_ago(file)
    assert budgets.look()
    caplog.clear()
    file.write_text("[[")
    long_ago(file)
    assert not budgets.look()
    assert len(caplog.messages) == 1, "another mistake, another warning"


def test_nothing_begins_without_its_budgets(file: Path, tmp_path: Path) -> None:
    file.write_text("[[budget]")
    with pytest.raises(ValueError, match=r"budgets\.toml cannot be used: it is not TOML"):
        BudgetsFile(file)
    with pytest.raises(FileNotFoundError):
        BudgetsFile(tmp_path / "none.toml")
    file.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(ValueError, match="larger than a megabyte"):
        read_budgets(file)


def test_it_is_due_once_a_second(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(budgets_file.time, "monotonic", lambda: now)
    budgets = BudgetsFile(file)
    assert not budgets.is_due()
    now += 1
    assert budgets.is_due()
    assert not budgets.is_due()


def test_its_path_is_that_of_where_it_began(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    budgets = BudgetsFile("budgets.toml")
    monkeypatch.chdir("/")
    assert budgets.path == file
    assert not budgets.look()
