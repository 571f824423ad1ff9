"""Real servers told to end, once and twice, idle and at work: they keep no record from the ledger.

The server keeps its own order and exit status; nothing of ours is printed; what was acknowledged is
there.  A few combinations run always, chosen so that each server, signal and kind of traffic comes
up; `make matrix` runs all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_readme import blocks
from tests.ports import free_port
from tests.runs import keys
from tests.tally import Tally

from litellm_ledger import Ledger
from litellm_ledger._maintenance.recover import recover

for package in ("granian", "gunicorn", "hypercorn", "uvicorn_worker"):
    pytest.importorskip(package)  # of the group `peers`, which the oldest dependencies go without

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0
APP = "tests.integration.lifecycle_server"
TERM, INT = signal.SIGTERM, signal.SIGINT

UVICORN = ["uvicorn", "{app}", "--port", "{port}", "--timeout-graceful-shutdown", "2"]
GUNICORN = [
    *("gunicorn", "{app}", "-b", "127.0.0.1:{port}", "-w", "2", "-c", "{config}"),
    *("--graceful-timeout", "5"),
]
SERVERS = {
    "uvicorn": [*UVICORN, "--loop", "asyncio"],
    "uvicorn-uvloop": [*UVICORN, "--loop", "uvloop"],
    "uvicorn-two-workers": [*UVICORN, "--workers", "2"],
    "uvicorn-reload": [*UVICORN, "--reload", "--reload-dir", "docs/images"],
    "gunicorn": GUNICORN,
    "gunicorn-preload": [*GUNICORN, "--preload"],
    "hypercorn": ["hypercorn", "{app}", "-b", "127.0.0.1:{port}", "--graceful-timeout", "2"],
    "granian": [
        *("granian", "{app}", "--interface", "asgi", "--port", "{port}"),
        *("--workers-kill-timeout", "3"),
    ],
}
UNLIMITED = "gunicorn with uvicorn's own worker"
COMMANDS = {**SERVERS, UNLIMITED: [*GUNICORN, "-k", "uvicorn_worker.UvicornWorker"]}
TRAFFIC = ("idle", "busy", "streaming", "background")

LIMIT = '"timeout_graceful_shutdown": 10'
(CONFIG,) = [
    block.replace(LIMIT, LIMIT.replace("10", "1"))
    for block in blocks("python", (ROOT / "docs" / "fastapi.md").read_text("utf-8"))
    if LIMIT in block
]
"""gunicorn's configuration as documented, except that streams get one second."""

STATUS = {("uvicorn", TERM): -TERM, ("uvicorn-uvloop", TERM): -TERM}
"""The status of each server without us, where it is not 0."""


def is_killed(name: str, traffic: str, number: int) -> bool:
    """Whether the server ends its workers with SIGKILL, when its own time is over.

    gunicorn does not tell uvicorn's worker of a SIGINT; granian has no limit for open streams.
    """
    if name.startswith("gunicorn"):
        return number == INT
    return name == "granian" and traffic == "streaming"


class Server:
    """One server process and all that it says."""

    def __init__(self, name: str, app: str, ledger: Path) -> None:
        self.port = free_port()
        config = ledger.with_name(f"{ledger.name}.conf.py")
        config.write_text(CONFIG, "utf-8")
        command = [
            part.format(app=f"{APP}:{app}", port=self.port, config=config)
            for part in COMMANDS[name]
        ]
        early = {"EARLY": "1"} if name == "gunicorn-preload" and app == "app" else {}
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
                "LEDGER": str(ledger),
                **early,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._threads: list[threading.Thread] = []
        self.stopping = False

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.log.append(line.rstrip("\n"))

    def get(self, path: str, lines: int | None = None) -> None:
        """Fetch; with ``lines``, only that many, and hold the rest open until the server ends."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=DEADLINE) as it:
            if lines is not None:
                for _ in range(lines):
                    it.readline()
                self._reading.release()
            it.read()

    def wait_until_ready(self) -> None:
        limit = time.monotonic() + DEADLINE
        while True:
            try:
                self.get("ready")
            except OSError:
                assert self.process.poll() is None, "\n".join(self.log)
                assert time.monotonic() < limit, "\n".join(self.log)
                time.sleep(0.05)
            else:
                return

    def work(self, traffic: str, streams: int = 3) -> None:
        """Begin the traffic, and return when it is under way."""
        self._reading = threading.Semaphore(0)
        self.get("busy")
        match traffic:
            case "busy":
                for _ in range(3):
                    self._in_thread(self._busy)
                self._acks(30)
            case "streaming":
                for _ in range(streams):
                    self._in_thread(self._stream)
                for _ in range(streams):
                    assert self._reading.acquire(timeout=DEADLINE)
            case "background":
                for _ in range(5):
                    self.get("later")

    def _in_thread(self, work: Any) -> None:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _busy(self) -> None:
        with contextlib.suppress(OSError, HTTPException):
            while not self.stopping:
                self.get("busy")

    def _stream(self) -> None:
        with contextlib.suppress(OSError, HTTPException):
            self.get("stream", lines=3)

    def _acks(self, count: int) -> None:
        limit = time.monotonic() + DEADLINE
        while len(self.acked) < count:
            assert time.monotonic() < limit, "\n".join(self.log)
            time.sleep(0.01)

    @property
    def acked(self) -> set[str]:
        return {line.removeprefix("ack ") for line in self.log if line.startswith("ack ")}

    def end(self, number: int, times: int) -> int:
        """Tell it to end; return its status."""
        for turn in range(times):
            if turn:
                time.sleep(0.15)
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
        status = self.process.wait(DEADLINE)
        self.stopping = True
        self._reader.join(DEADLINE)
        for thread in self._threads:
            thread.join(DEADLINE)
        return status

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        print("\n".join(self.log))  # pytest shows it if the test has failed


@contextlib.contextmanager
def running(name: str, app: str, ledger: Path) -> Iterator[Server]:
    server = Server(name, app, ledger)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.close()


OURS = ("litellm_ledger", "Task was destroyed", "never retrieved", "never awaited")


def check(name: str, traffic: str, number: int, times: int, path: Path, tally: Tally) -> None:
    with running(name, "app", path) as server:
        server.work(traffic)
        began = time.monotonic()
        status = server.end(number, times)
        took = time.monotonic() - began
    there = {record.id for record in Ledger(path).records(kinds=("usage",))}
    acked = server.acked
    tally("a server told to end", tried=1, promised=len(acked), lost=len(acked - there))
    assert acked, "nothing was recorded"
    assert acked <= there
    assert took < 8, "it has two or three seconds"
    said = [line for line in server.log if any(word in line for word in OURS)]
    assert not said, "\n".join(said)
    found = Ledger(path).verify()
    killed = is_killed(name, traffic, number)
    # What a kill finds between accepting and writing is lost: at most one record a request.
    most = 3 if killed else 0
    assert found.total("lost") <= most
    assert found.ok or found.total("lost")
    if times == 1:
        assert status == STATUS.get((name, number), 0)
        if not killed:
            assert {writer.state for writer in found.writers} == {"closed"}
            assert not found.total("in_flight")
    for writer in recover(path).writers:
        assert writer.error is None
        assert writer.lost <= most
    found = Ledger(path).verify()
    assert found.ok or 0 < found.total("lost") <= most
    assert not found.total("in_flight")
    if name == "gunicorn-preload":
        assert "early" in keys(path)


FEW = {
    ("uvicorn", "busy", INT, 2),
    ("uvicorn-uvloop", "streaming", TERM, 1),
    ("uvicorn-two-workers", "background", TERM, 1),
    ("uvicorn-reload", "idle", INT, 1),
    ("gunicorn", "busy", TERM, 2),
    ("gunicorn-preload", "background", TERM, 1),
    ("hypercorn", "streaming", INT, 1),
    ("hypercorn", "busy", INT, 1),
    ("granian", "busy", TERM, 1),
}
# From Python 3.12 on hypercorn waits for ever for a stream that is open, also without us: its own
# close waits for all connections.
NEVER_ENDS = {("hypercorn", "streaming")} if sys.version_info >= (3, 12) else set()
RUNS = [
    pytest.param(
        *run,
        id="-".join([*run[:2], run[2].name, ("once", "twice")[run[3] - 1]]),
        marks=() if run in FEW else pytest.mark.matrix,
    )
    for run in itertools.product(SERVERS, TRAFFIC, (TERM, INT), (1, 2))
    if run[:2] not in NEVER_ENDS
]


@pytest.mark.parametrize(("name", "traffic", "number", "times"), RUNS)
def test_a_server_that_is_told_to_end_loses_no_record(
    tmp_path: Path, name: str, traffic: str, number: int, times: int, tally: Tally
) -> None:
    check(name, traffic, number, times, tmp_path, tally)


@pytest.mark.parametrize(
    ("name", "states", "outcomes"),
    [
        ("gunicorn", {"closed"}, {("cancelled", "estimated"), ("abandoned", "estimated")}),
        # The control: gunicorn kills a worker that waits for its streams without a limit.
        (UNLIMITED, {"died"}, {("unsettled", "none")}),
    ],
)
def test_gunicorn_as_documented_records_each_stream_that_is_open_at_sigterm(
    tmp_path: Path, name: str, states: set[str], outcomes: set[tuple[str, str]]
) -> None:
    with running(name, "app", tmp_path) as server:
        server.work("streaming", streams=40)
        assert server.end(TERM, 1) == 0
    found = Ledger(tmp_path).verify()
    assert {writer.state for writer in found.writers} == states
    assert found.total("lost") == 0
    recover(tmp_path)
    streams = [r for r in Ledger(tmp_path).records(kinds=("usage",)) if r.stream]
    assert len(streams) == 40
    assert {(record.status, record.usage_source) for record in streams} <= outcomes


@pytest.mark.matrix
@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.parametrize("name", SERVERS)
def test_the_status_of_a_server_is_what_it_is_without_us(
    tmp_path: Path, name: str, number: int
) -> None:
    with running(name, "bare", tmp_path) as server:
        assert server.end(number, 1) == STATUS.get((name, number), 0)
