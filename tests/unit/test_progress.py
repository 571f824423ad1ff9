"""Progress: shown on a terminal, when it takes long, and gone afterwards."""

from __future__ import annotations

import sys
import threading

import pytest
from tests.terminal import pseudo_terminal

from litellm_ledger._cli import progress as _progress


def said(patience: float, each: float, monkeypatch: pytest.MonkeyPatch) -> str:
    """Work in ten steps with standard error on a terminal; return what went there."""
    monkeypatch.setattr(_progress, "_PATIENCE", patience)
    monkeypatch.setenv("TERM", "xterm-256color")
    with pseudo_terminal() as (terminal, written):
        monkeypatch.setattr(sys, "stderr", terminal)
        with _progress.progress("reading it", 10) as advance:
            for _ in range(10):
                advance(1)
                threading.Event().wait(each)
    return b"".join(written).decode()


def test_long_work_shows_a_bar_that_is_taken_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = said(0.0, 0.15, monkeypatch)
    assert "reading it" in shown
    assert "%" in shown
    assert "\x1b[?25h" in shown, "the cursor is there again"
    assert "\x1b[2K" in shown
    assert capsys.readouterr().out == ""


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(60.0, 0.0, monkeypatch) == ""


def test_a_pipe_gets_no_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    with _progress.progress("reading it", 10) as advance:
        advance(10)
        threading.Event().wait(0.2)
    assert capsys.readouterr() == ("", "")
