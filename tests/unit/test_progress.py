"""Signs of life: on a terminal, when it takes long, and gone afterwards."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys, threading
from litellm_ledger._cli import progress as _progress

_progress._PATIENCE = {patience}
with _progress.progress("reading it", 10) as advance:
    for _ in range(10):
        advance(1)
        threading.Event().wait({each})
    sys.stdout.write("done\\n")
"""


def said(patience: float, each: float, tmp_path: Path, *, terminal: bool) -> str:
    """Run it with standard error on a terminal or in a pipe; return what went there."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", CODE.format(patience=patience, each=each)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:
                break
            if not part:
                break
            shown += part
        assert child.stdout is not None
        assert child.stdout.read() == b"done\n"
        assert child.wait(60) == 0
    os.close(ours)
    return shown.decode()


def test_long_work_shows_a_bar_that_is_taken_away(tmp_path: Path) -> None:
    shown = said(0.0, 0.15, tmp_path, terminal=True)
    assert "reading it" in shown
    assert "%" in shown
    assert "\x1b[?25h" in shown, "the cursor is there again"
    assert shown.rstrip().endswith(("\x1b[2K", "\x1b[?25h")) or "\x1b[2K" in shown


@pytest.mark.parametrize(("patience", "terminal"), [(60.0, True), (0.0, False)])
def test_short_work_and_pipes_show_nothing(tmp_path: Path, patience: float, terminal: bool) -> None:
    assert said(patience, 0.02, tmp_path, terminal=terminal) == ""
