"""Readers that disappear in every way, under real servers and on real sockets: all is on record.

Closed, reset, silent with bytes waiting for them, cut by a proxy, gone before the first piece; and
the server told to end while it streams, without a time limit of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.ports import free_port

from litellm_ledger import Ledger, UsageRecord

for package in ("granian", "hypercorn"):
    pytest.importorskip(package)  # of the group `peers`, which the oldest dependencies go without

ROOT = Path(__file__).parents[2]
APP = "tests.integration.leaving_server:unmarked"
DEADLINE = 60.0
COMMANDS = {
    "uvicorn": ["uvicorn", APP, "--port", "{port}", "--loop", "asyncio", "--no-access-log"],
    "hypercorn": ["hypercorn", APP, "-b", "127.0.0.1:{port}", "--graceful-timeout", "1"],
    "granian": [
        *("granian", APP, "--interface", "asgi", "--port", "{port}"),
        *("--workers-kill-timeout", "60"),
    ],
}
"""Without a limit, or with a long one, so that it is ours that ends the streams; but no signal
reaches a worker of hypercorn's, whose master tells it by other means, and its limit does."""


class Server:
    """One server process."""

    def __init__(self, name: str, ledger: Path) -> None:
        self.port = free_port()
        self.ledger = ledger
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", *(part.format(port=self.port) for part in COMMANDS[name])],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
                "LEDGER": str(ledger),
                "GRACE": "0.2",
                "SEND_TIMEOUT": "0.5",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.log.append(line.rstrip("\n"))

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, "\n".join(self.log)
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
                connection.request("GET", "/ready")
                connection.getresponse().read()
                connection.close()
                return True
            return False

        until(ready)

    def open(self, path: str, user: str, port: int | None = None) -> socket.socket:
        """Send a request, with a small buffer for the answer."""
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        reader.settimeout(DEADLINE)
        reader.connect(("127.0.0.1", port or self.port))
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-User: {user}\r\n\r\n"
        reader.sendall(head.encode())
        return reader

    def records(self, user: str, kind: str = "usage") -> list[UsageRecord]:
        found = Ledger(self.ledger).records(kinds=(kind,))
        return [record for record in found if (record.tags or {}).get("user") == user]

    def outcome(self, user: str) -> UsageRecord:
        """Wait for the outcome of a user's only call."""
        until(lambda: self.records(user))
        (found,) = self.records(user)
        return found

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        print("\n".join(self.log))  # pytest shows it if the test has failed


def until(happens: Callable[[], object]) -> None:
    limit = time.monotonic() + DEADLINE
    while not happens():
        assert time.monotonic() < limit
        time.sleep(0.05)


def read_until(reader: socket.socket, text: bytes) -> bytes:
    got = b""
    while text not in got:
        part = reader.recv(4_096)
        assert part, got
        got += part
    return got


@contextlib.contextmanager
def proxy(port: int) -> Iterator[tuple[int, threading.Event]]:
    """A proxy for one connection that cuts both sides when it is told to."""
    cut = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            front, _ = listener.accept()
            with front, socket.create_connection(("127.0.0.1", port)) as back:
                back.sendall(front.recv(65_536))
                back.settimeout(0.05)
                while not cut.is_set():
                    with contextlib.suppress(TimeoutError):
                        front.sendall(back.recv(4_096))

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1], cut
        cut.set()
        thread.join()


@pytest.fixture(scope="module", params=[*COMMANDS])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = Server(request.param, tmp_path_factory.mktemp("leaving") / "usage")
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.close()


LEFT = ("cancelled", "abandoned")


def check_that_nothing_is_in_force_in_the_next_request(server: Server) -> None:
    """A large body has the server stop and start its reading from within the request that reads
    it; a pipelined request is started from within the answer to the one before it."""
    body = b"x" * 2_000_000
    post = f"POST /body HTTP/1.1\r\nHost: h\r\nX-User: {{}}\r\nContent-Length: {len(body)}\r\n\r\n"
    get = b"GET /context HTTP/1.1\r\nHost: h\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as connection:
        for user in ("alice", "bob"):
            sent = post.format(user).encode() + body + get
            thread = threading.Thread(target=connection.sendall, args=(sent,))
            thread.start()
            answers = read_until(connection, b" known")
            thread.join()
            assert f'"{user}"'.encode() in answers
            assert b"x-llm-calls: 1\r\n" in answers
            assert b"0 in force" in answers
            connection.sendall(get)
            assert b"0 in force" in read_until(connection, b" known")


def test_everybody_who_leaves_is_on_record_and_a_server_that_ends_takes_its_streams_along(
    server: Server,
) -> None:
    check_that_nothing_is_in_force_in_the_next_request(server)

    # Read to its end: the provider's own count.
    reader = server.open("/stream/plain", "whole")
    read_until(reader, b"0\r\n\r\n")
    reader.close()
    assert server.outcome("whole").usage_source == "provider"

    # Closed, while the provider is waited for, and before it has sent anything.
    for user, path, text in [
        ("closed", "/stream/plain?hang_at=3", b"x\n"),
        ("careless", "/stream/own?hang_at=3", b"x\n"),
        ("elsewhere", "/stream/elsewhere", b"x\n"),
        ("events", "/stream/events?hang_at=3", b": ping\n\n"),
    ]:
        reader = server.open(path, user)
        read_until(reader, text)
        reader.close()
        assert server.outcome(user).status in LEFT, user
    reader = server.open("/stream/plain?hang_at=0", "closed-early")
    until(lambda: server.records("closed-early", "started"))
    reader.close()
    assert server.outcome("closed-early").status in LEFT

    # Reset.
    reader = server.open("/stream/plain?hang_at=3", "reset")
    read_until(reader, b"x\n")
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reader.close()
    assert server.outcome("reset").status in LEFT

    # There, and takes nothing: until the server's own buffers are full, too.
    silent = server.open("/stream/plain?count=10000&size=65536", "silent")
    assert server.outcome("silent").status in LEFT
    silent.close()

    # A proxy whose time is over.
    with proxy(server.port) as (port, cut):
        reader = server.open("/stream/plain?hang_at=3", "proxied", port)
        read_until(reader, b"x\n")
        cut.set()
        assert server.outcome("proxied").status in LEFT
        reader.close()

    # The server is told to end, and would wait for these.
    last = [server.open("/stream/plain?hang_at=3", f"last-{number}") for number in range(3)]
    for reader in last:
        read_until(reader, b"x\n")
    server.process.send_signal(signal.SIGTERM)
    for reader in last:
        rest = b""
        with contextlib.suppress(ConnectionError):
            while part := reader.recv(4_096):
                rest += part
        assert not rest.endswith(b"0\r\n\r\n")  # its reader can tell that this is not all
        reader.close()
    server.process.wait(DEADLINE)
    for number in range(3):
        assert server.outcome(f"last-{number}").status in LEFT
    assert {record.status for record in Ledger(server.ledger).records()} <= {"ok", *LEFT}
    verification = Ledger(server.ledger).verify()
    assert verification.ok
    assert [writer.state for writer in verification.writers] == ["closed"]
