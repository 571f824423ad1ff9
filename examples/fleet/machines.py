"""The three machines: each a directory with a ledger, and processes of its own."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE = 900.0  # seconds for an order, also where everything is many times slower


class Process:
    """One process, whose lines are read as they come.

    Args:
        arguments: of Python.
        env: its environment.
        log: where its standard error goes.
    """

    def __init__(self, *arguments: str, env: dict[str, str], log: Path) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._log = log
        pipe = subprocess.PIPE
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=pipe,
                stdout=pipe,
                stderr=errors,
                text=True,
                env=env,
                start_new_session=True,  # Ctrl-C is ours; we end it
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    def order(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self, until: Callable[[str], bool], each: Callable[[str], object] = len) -> None:
        """Give each line to `each`, up to the first that `until` is true of."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                said = self._log.read_text(errors="replace")[-4_000:]
                raise SystemExit(f"demo: {self._process.args} is silent or has ended:\n{said}")
            each(line)
            if until(line):
                return

    def rest(self, each: Callable[[str], object]) -> None:
        """Give the lines of a process that has ended to `each`."""
        self._reader.join()
        while (line := self._lines.get()) is not None:
            each(line)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self, signalled: bool = False) -> int:
        """Let it end well: its input ends, or SIGTERM comes; return its status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if signalled:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process.poll() is None:
            self.kill()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


class Machine:
    """A directory, the process that makes calls, and perhaps one that ships.

    Attributes:
        ledger: its ledger.
        answers: the ids of the answers that its application has seen, by name of the call.
        ended, refused: the names of calls that its application saw end, or be refused.
    """

    def __init__(self, name: str, root: Path, env: dict[str, str], provider: str, url: str) -> None:
        self.name = name
        self.root = root / name
        self.root.mkdir()
        self.ledger = self.root / "usage"
        self.answers: dict[str, str] = {}
        self.ended: list[str] = []
        self.refused: list[str] = []
        self.processes: list[Process] = []
        self._env, self._provider, self._url = env, provider, url

    def _start(self, *arguments: str) -> Process:
        process = Process(*arguments, env=self._env, log=self.root / "errors.txt")
        self.processes.append(process)
        return process

    def prepare(self, label: str, *, sink: bool) -> Process:
        """Start an application that waits for its first order."""
        program, way = str(HERE / "worker.py"), "sink" if sink else "none"
        ledger = str(self.ledger)
        return self._start(program, label, self.name, ledger, self._provider, self._url, way)

    def ship(self) -> Process:
        """Start the sidecar."""
        command = ("ship", str(self.ledger), "--to", self._url, "--follow")
        return self._start("-m", "litellm_ledger", *command)

    def take(self, line: str) -> None:
        """Note what the application says of a call."""
        what, _, rest = line.partition(" ")
        if what == "ended":
            name, _, answer = rest.partition(" ")
            self.ended.append(name)
            self.answers[name] = answer
        elif what == "refused":
            self.refused.append(rest)

    def close(self) -> None:
        for process in self.processes:
            process.close()
