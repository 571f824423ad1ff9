"""Looking at segments by several processes: they know what one look would tell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.ledger_by_hand import HandMade, spoil

from litellm_ledger import Ledger
from litellm_ledger._reading.listing import list_segments
from litellm_ledger._reports import relation as _relation
from litellm_ledger._reports import survey as _survey
from litellm_ledger._reports import surveyors as _surveyors
from litellm_ledger._reports.survey import ahead, survey
from litellm_ledger._reports.surveyors import survey_ahead


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    hand = HandMade(tmp_path / "a ledger")
    for first in range(1, 90, 10):
        path = hand.sealed(first, first + 9)
        if first == 41:
            spoil(path, 3)
    hand.open(91, hand.lines(91, 95))
    monkeypatch.setattr(_surveyors, "_WORTH_IT", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    _survey._known.clear()
    return tmp_path / "a ledger"


def test_the_processes_tell_what_one_look_would(ledger: Path) -> None:
    names = list_segments(ledger)
    mine: list[str] = []
    look = _surveyors._look
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_surveyors, "_look", lambda root, share: look(root, note(mine, share)))
        survey_ahead(ledger, names)
    assert len(mine) == 3  # of nine
    told = dict(_survey._known)
    assert len(told) == 9
    assert [name for name in names if ahead(ledger, name)] == []
    _survey._known.clear()
    for name in names:
        survey(ledger, name)
    assert told == _survey._known
    assert [found.bad != () for found in told.values()].count(True) == 1
    survey_ahead(ledger, names)  # there is nothing left to look at


def note(to: list[str], share: object) -> list[object]:
    found = list(share)  # type: ignore[call-overload]
    to += found
    return found


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python3"])
def test_processes_that_fail_leave_their_share(
    ledger: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(_surveyors, "_is_python", lambda: True)
    monkeypatch.setattr(sys, "executable", program)
    monkeypatch.setattr(_relation, "_SMALL", 0)
    with _relation.Relation(ledger) as relation:
        assert relation.rows("SELECT count(*) FROM records") == [(94,)]
    assert len(_survey._known) == 9


@pytest.mark.parametrize("executable", ["", None, "/usr/sbin/uwsgi"])
def test_a_program_that_is_not_python_is_not_begun(
    ledger: Path, monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    survey_ahead(ledger, list_segments(ledger))
    assert not _survey._known
    assert Ledger(ledger).report().total.calls == 94


def test_a_copy_of_a_file_that_was_cut_meanwhile_ends(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"123")
    with (tmp_path / "short").open("rb") as file, (tmp_path / "copy").open("wb") as copy:
        _relation._copy(file, copy, 1, 10)
    assert (tmp_path / "copy").read_bytes() == b"23"
