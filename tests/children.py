"""Real processes that tests start, talk to by lines, kill, and look at afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

from tests.forked import LEDGER, Forked

PATIENCE = 40.0
"""Seconds after which something that should have happened has not."""


def complaints(stderr: str) -> str:
    """Return what a process in asyncio's debug mode complained of, but for what held its loop.

    asyncio reports each step that takes longer than a tenth of a second.  On a busy machine any
    step does, and LiteLLM's first call always does.
    """
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("Executing <"))


PRELUDE = '''
import asyncio, atexit, gc, os, signal, sys, threading, time, types
from decimal import Decimal
from litellm_ledger import UsageRecord, UsageTracker
from litellm_ledger._storage.filesystem import FileSystem

PATH, LOOP = sys.argv[1], sys.argv[2]

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def usage(key=None):
    return UsageRecord(model="m", input_tokens=100, output_tokens=50, cost=Decimal("0.02"),
                       call_id=None if key is None else str(key))

def new_loop():
    if LOOP == "uvloop":
        import uvloop
        return uvloop.new_event_loop()
    return asyncio.new_event_loop()

def run(main):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)

class SlowDisk(FileSystem):
    """Every write of more than one line takes its time: it goes through the thread."""
    pause = 0.05
    def write(self, fd, data):
        time.sleep(self.pause)
        return super().write(fd, data)

def fake_litellm():
    """A LiteLLM whose calls hang until they are cancelled."""
    module = types.ModuleType("litellm")
    module.model_cost = {}
    module.Timeout = TimeoutError
    async def acompletion(**kwargs):
        say("called")
        await asyncio.Event().wait()
    module.acompletion = acompletion
    sys.modules["litellm"] = module
'''


class Child:
    """A Python program that has the ledger in ``path`` open.

    A context manager; whatever happens, the process is gone at the end.  It is a fork of a process
    that has imported the ledger, unless it is ``fresh`` or needs an interpreter of its own because
    of its command, its options, or what it does ``before`` it imports the ledger.
    """

    def __init__(
        self,
        code: str,
        path: Path,
        *,
        loop: str = "asyncio",
        before: str = "",
        command: Sequence[str] = (),
        options: Sequence[str] = (),
        fresh: bool = False,
    ) -> None:
        # A fifth of what a child takes to begin, and most need none.
        client = "from litellm_ledger import LiteLLMClient" if "LiteLLMClient" in code else ""
        script = f"{before}\n{PRELUDE}\n{client}\n{code}"
        arguments = ["-c", script, str(path), loop]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        pipes["stdin"] = subprocess.DEVNULL
        self._process: subprocess.Popen[str]
        if command:
            self._process = subprocess.Popen([*command, sys.executable, *arguments], **pipes)
        else:
            modules = () if fresh or before or options else LEDGER
            self._process = Forked(arguments, options=tuple(options), modules=modules, **pipes)
        self.said: list[str] = []
        self.stderr = ""
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        reading = (self._read_stdout, self._read_stderr)
        self._readers = [threading.Thread(target=read, daemon=True) for read in reading]
        for reader in self._readers:
            reader.start()

    def _read_stdout(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        self.stderr = self._process.stderr.read()

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(PATIENCE)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def line(self) -> str | None:
        """The next line it says; ``None`` when it has closed its output."""
        try:
            line = self._lines.get(timeout=PATIENCE)
        except Empty:
            raise AssertionError(f"silent; it had said {self.said[-5:]}") from None
        if line is not None:
            self.said.append(line)
        return line

    def expect(self, word: str) -> None:
        """Wait until it says a line that begins with ``word``."""
        while (line := self.line()) is not None:
            if line.startswith(word):
                return
        self._process.wait(PATIENCE)
        self._readers[1].join(PATIENCE)
        raise AssertionError(f"it ended without {word!r}: {self.said[-5:]}\n{self.stderr}")

    @property
    def acked(self) -> set[str]:
        """What it has said ``ack`` of."""
        return {line.removeprefix("ack ") for line in self.said if line.startswith("ack ")}

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Wait for its end; return the status as ``subprocess`` tells it (-15: died of SIGTERM)."""
        while self.line() is not None:
            pass
        status = self._process.wait(PATIENCE)
        self._readers[1].join(PATIENCE)
        return status


def run(code: str, path: Path, **options: object) -> Child:
    """Run a program to its end; its status must be 0."""
    with Child(code, path, **options) as child:  # type: ignore[arg-type]
        status = child.end()
    assert status == 0, f"status {status}\n{child.stderr}"
    return child
