"""The command ``erase``: what it asks, says and refuses."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from tests.ledger_by_hand import WRITER
from tests.people import MARY, People, traces, two_people
from tests.terminal import as_json, run, told

WHERE = ("--where", f"user={MARY}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    two_people(tmp_path / "usage", archive=False)
    return tmp_path / "usage"


def test_in_a_pipe_it_needs_yes(root: Path) -> None:
    done = run("erase", root, *WHERE)
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert traces(root)


@pytest.mark.parametrize(("answer", "status", "gone"), [("yes\n", 0, True), ("n\n", 1, False)])
def test_on_a_terminal_it_asks(
    root: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, gone: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    from litellm_ledger._cli import erasures as _erasures

    monkeypatch.setattr(_erasures.sys, "stdin", Terminal(answer), raising=True)
    function = _erasures.erase
    from litellm_ledger import Ledger
    from litellm_ledger._cli.flags import Output

    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    assert function(Output(), Ledger(root), [f"user={MARY}"]) == status
    assert "10 records (5 calls, $0.00000615) of this person" in shown.getvalue()
    assert (traces(root) == []) is gone


def test_what_it_says_is_what_verify_says(root: Path) -> None:
    dry = told("erase", root, *WHERE, "--dry-run")
    assert "10 records (5 calls, $0.00000615), 1 adjustment would be erased from" in dry
    said = told("erase", root, *WHERE, "--yes", "--who", "Ann", "--why", "ticket 4711")
    assert "10 records (5 calls, $0.00000615), 1 adjustment erased;" in said
    assert "1 record in recovery/ written over." in said
    assert "Backups and copies" in said
    assert traces(root) == []
    verified = told("verify", root)
    assert "by Ann: 10 records; " in verified
    assert verified.rstrip().endswith("nothing lost or damaged.")
    assert "Nothing of this person" in told("erase", root, *WHERE, "--yes", "--allow-missing")
    (erased,) = as_json("verify", root)["erased"]
    assert (erased["records"], erased["who"], erased["why"]) == (10, "Ann", "ticket 4711")


def test_the_json_form_has_all_of_it(root: Path) -> None:
    plain = as_json("erase", root, *WHERE, "--yes", "--keep-amounts")
    assert (plain["records"], plain["calls"], plain["cost"]) == (10, 5, "0.00000615")
    assert (plain["waiting"], plain["left"], plain["marks"]) == (0, [], [])


def test_an_anchor_says_what_was_written_anew(root: Path, tmp_path: Path) -> None:
    line = told("anchor", root)
    (tmp_path / "anchors").write_text(line)
    told("erase", root, *WHERE, "--yes", "--who", "Ann")
    assert "written anew since: " in (
        said := told("verify", root, "--anchor", tmp_path / "anchors")
    )
    assert " by Ann." in said


def test_records_that_wait_make_its_status_1(tmp_path: Path) -> None:
    hand = People(tmp_path)
    hand.open(1, hand.call(1, MARY))
    with hand.alive(2):
        done = run("erase", tmp_path, *WHERE, "--yes")
    assert done.exit_code == 1
    assert "2 records not erased yet" in done.stdout
    assert WRITER in json.dumps(json.loads(run("verify", tmp_path, "--json").stdout))


def test_where_all_has_to_wait_nothing_is_said_to_be_erased(tmp_path: Path) -> None:
    hand = People(tmp_path)
    hand.open(1, hand.call(1, MARY))
    with hand.alive(2):
        said = run("erase", tmp_path, *WHERE, "--yes").stdout
        tried = run("erase", tmp_path, *WHERE, "--dry-run").stdout
    assert said.startswith("Nothing was erased yet.\n2 records not erased yet")
    assert tried.startswith("Nothing would be erased yet.\n")
    assert "verify says so" not in said
    assert "Backups and copies" not in said


def test_a_tag_that_no_call_has_is_a_mistake(root: Path) -> None:
    done = run("erase", root, "--where", "usr=x", "--yes")
    assert done.exit_code == 2
    assert "did you mean user?" in done.stderr
    assert told("erase", root, "--where", "usr=x", "--yes", "--allow-missing")


@pytest.mark.parametrize("words", [("--why", f"for {MARY}"), ("--who", MARY)])
def test_words_that_name_the_person_are_refused(root: Path, words: tuple[str, str]) -> None:
    done = run("erase", root, *WHERE, "--yes", *words)
    assert done.exit_code == 2
    assert "mark of the person" in done.stderr
