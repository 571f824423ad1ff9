"""Commands run in this process, into a pipe or on a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
import tty
from collections.abc import Iterator
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result

from litellm_ledger._cli.app import app


def run(*args: object) -> Result:
    """Run a command into a pipe."""
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="litellm-ledger")


def told(*args: object) -> str:
    """Return what a command prints that ends well."""
    done = run(*args)
    assert done.exit_code == 0, (args, done.output, done.exception)
    return done.stdout


def as_json(*args: object) -> Any:
    """Return what a command prints as JSON."""
    return json.loads(told(*args, "--json"))


def in_a_pipe(*args: str) -> str:
    done = run(*args)
    assert done.exit_code in (0, 1, 2), (args, done.exception)
    return done.stdout + done.stderr


@contextlib.contextmanager
def pseudo_terminal() -> Iterator[tuple[IO[str], list[bytes]]]:
    """Yield a terminal to write to, and the list of what was written, whole after the ``with``."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    written: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while data := os.read(ours, 65_536):
                written.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    with open(theirs, "w", encoding="utf-8", newline="") as terminal:
        yield terminal, written
    reader.join()
    os.close(ours)


def on_a_terminal(
    *args: object, columns: int = 700, color: bool = False, errors: bool = True
) -> str:
    """Return what a command writes to a pseudo-terminal.

    Without ``errors`` standard error is no terminal: what takes long would show its progress there.
    """
    with pseudo_terminal() as (terminal, written), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal if errors else io.StringIO())
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("TERM", "xterm-256color" if color else "dumb")
        patch.delenv("NO_COLOR", raising=False)
        if not color:
            patch.setenv("NO_COLOR", "1")
        with pytest.raises(SystemExit) as ended:
            app([str(arg) for arg in args], prog_name="litellm-ledger")
        assert ended.value.code in (0, 1, 2)
    return b"".join(written).decode()
