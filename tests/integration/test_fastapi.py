"""The lifespan under a real uvicorn: its signals, its requests, its shutdown, and our records.

The application is `fastapi_server.py`, in a process of its own; the provider is an `OpenAIServer`
in this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.forked import LITELLM, Forked

from litellm_ledger import Ledger, UsageRecord
from litellm_ledger.testing import OpenAIServer, ServedRequest

ROOT = Path(__file__).parents[2]
APP = "tests.integration.fastapi_server:app"
DEADLINE = 60.0
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(sys.path),
    "NO_PROXY": "127.0.0.1",
}
PYTHON = ("-W", "default")

# No connection is kept: uvicorn closes idle ones, perhaps just when the next request takes one.
HTTP = httpx.Client(
    timeout=DEADLINE, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
)

TERM, INT = signal.SIGTERM, signal.SIGINT
LOOPS = ["asyncio", "uvloop"]
COMBINATIONS = [
    pytest.param("asyncio", TERM, id="asyncio-SIGTERM"),
    pytest.param("uvloop", INT, id="uvloop-SIGINT"),
    pytest.param("asyncio", INT, id="asyncio-SIGINT", marks=pytest.mark.matrix),
    pytest.param("uvloop", TERM, id="uvloop-SIGTERM", marks=pytest.mark.matrix),
]
"""Each loop and each signal once; the rest is in `make matrix`: importing LiteLLM takes seconds."""
STATUS = {TERM: -TERM, INT: 0}
"""uvicorn's own: it delivers SIGTERM to itself again, and swallows KeyboardInterrupt."""
CUT = "asyncio.exceptions.CancelledError: Task cancelled, timeout graceful shutdown exceeded"


class Uvicorn:
    """`python -m uvicorn` on a free port; stdout and stderr are read as they come."""

    def __init__(self, app: str, *arguments: str, cwd: Path = ROOT, **environment: str) -> None:
        self.log: list[str] = []
        self._more = threading.Condition()
        self.process = Forked(
            ["-m", "uvicorn", app, "--port", "0", "--no-access-log", *arguments],
            options=PYTHON,
            modules=LITELLM,
            cwd=cwd,
            env={**os.environ, **ENVIRONMENT, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            self.url = self.wait_for("Uvicorn running on").split()[-5]
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._more:
                    self.log.append(line.rstrip("\n"))
                    self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def wait_for(self, text: str) -> str:
        """Wait until a line holds `text`; return it."""
        with self._more:

            def found() -> str | None:
                return next((line for line in self.log if text in line), None)

            self._more.wait_for(lambda: found() or self.process.poll() is not None, DEADLINE)
            line = found()
        assert line is not None, f"no {text!r} in:\n" + "\n".join(self.log)
        return line

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def status(self) -> int:
        """Wait for the end; return the exit status."""
        status = self.process.wait(DEADLINE)
        self._reader.join()
        return status

    def close(self) -> None:
        self.process.kill()
        self.status()
        print("\n".join(self.log))  # pytest shows it if the test has failed


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def upstream(provider: OpenAIServer) -> OpenAIServer:
    provider.clear()
    return provider


@pytest.fixture
def start(provider: OpenAIServer, tmp_path: Path) -> Iterator[Callable[..., Uvicorn]]:
    """Start servers that write to `tmp_path`; end what is left of them."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, app: str = APP, **environment: str) -> Uvicorn:
            environment |= {"LEDGER": str(tmp_path), "UPSTREAM": provider.base_url}
            server = Uvicorn(app, *arguments, **environment)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture(scope="module")
def live(
    provider: OpenAIServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Uvicorn, Path]]:
    """A server for all tests that do not end it, on uvloop; it must end clean."""
    path = tmp_path_factory.mktemp("live")
    server = Uvicorn(
        APP, "--loop", "uvloop", LEDGER=str(path), UPSTREAM=provider.base_url, WARM_UP="1"
    )
    try:
        yield server, path
        server.send(TERM)
        assert server.status() == -TERM
        assert noise(server) == []
        assert_nothing_lost(path)
    finally:
        server.close()


# -- reading what is left -------------------------------------------------------------------------


def outcomes(path: Path) -> list[UsageRecord]:
    return list(Ledger(path).records())


def by_user(path: Path) -> dict[str, UsageRecord]:
    return {(record.tags or {}).get("user", ""): record for record in outcomes(path)}


def assert_nothing_lost(path: Path) -> None:
    """Every call that was started has one outcome, and the writers ended clean."""
    calls: Counter[str | None] = Counter()
    for record in Ledger(path).records(kinds=("started", "usage")):
        calls[record.operation] += 1 if record.kind == "usage" else 10
    assert set(calls.values()) <= {11}, calls
    verification = Ledger(path).verify()
    assert verification.ok
    assert all(writer.clean for writer in verification.writers), verification
    assert not list((path / "live").iterdir())


def assert_estimated(record: UsageRecord) -> None:
    assert record.status in ("cancelled", "abandoned")
    assert record.usage_source == "estimated"
    assert record.input_tokens
    assert record.output_tokens
    assert record.cost


def noise(server: Uvicorn) -> list[str]:
    """What stands in the log beside what uvicorn says and the requests that it cut."""
    text = "\n".join(server.log)
    cuts = r"ERROR: +Exception in ASGI application\n(?: .*\n|Traceback .*\n)+?" + re.escape(CUT)
    text = re.sub(cuts, "", text)
    expected = r"(INFO|own lifespan|client) *.*|ERROR: +Cancel \d+ running task.*|"
    return [line for line in text.splitlines() if not re.fullmatch(expected, line)]


def order(server: Uvicorn) -> list[str]:
    """What is said about the end, in order."""
    begin = next(i for i, line in enumerate(server.log) if "Shutting down" in line)
    return [line for line in server.log[begin:] if line.startswith(("INFO", "own", "client"))]


# -- a client of the application ------------------------------------------------------------------


class Visitor:
    """One request in a thread of its own; `received` is the id of the record it was told of."""

    def __init__(self, server: Uvicorn, path: str, user: str, **params: Any) -> None:
        self.received: str | None = None
        self._request = ("POST", f"{server.url}/{path}")
        self._params = {"user": user, **params}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with HTTP.stream(*self._request, params=self._params) as response:
                if response.is_error:
                    print(self._params, response.status_code)
                    return
                for line in response.iter_lines():
                    value = json.loads(line)
                    if isinstance(value, dict):
                        self.received = value["id"]
        except httpx.TransportError as exc:
            print(self._params, repr(exc))

    def join(self) -> str | None:
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        return self.received


def crowd(server: Uvicorn, path: str, count: int, **params: Any) -> list[Visitor]:
    return [Visitor(server, path, f"{path}-{params}-{n}", **params) for n in range(count)]


def streaming(requests: list[ServedRequest], count: int) -> bool:
    """Whether this many streams stand still in the middle."""
    return sum(r.stream and r.chunks >= 2 and r.ended is None for r in requests) >= count


# -- the end of the server ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [TERM, INT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("loop", LOOPS)
def test_an_idle_server_ends_as_it_would_without_us(
    start: Callable[..., Uvicorn], tmp_path: Path, loop: str, number: signal.Signals
) -> None:
    servers = [start("--loop", loop, app=app) for app in (APP, f"{APP.partition(':')[0]}:bare")]
    assert HTTP.get(f"{servers[0].url}/signals").json() == "chained"
    for server in servers:
        server.send(number)
    assert [server.status() for server in servers] == [STATUS[number]] * 2
    ours, bare = ([re.sub(r"\d+", "N", line) for line in server.log] for server in servers)
    assert "own lifespan begins, client open" in ours
    assert [line for line in ours if not line.startswith("own lifespan")] == bare
    assert_nothing_lost(tmp_path)


@pytest.mark.parametrize(("loop", "number"), COMBINATIONS)
def test_a_busy_server_that_cuts_its_requests_loses_no_record(
    start: Callable[..., Uvicorn],
    upstream: OpenAIServer,
    tmp_path: Path,
    loop: str,
    number: signal.Signals,
) -> None:
    server = start("--loop", loop, "--timeout-graceful-shutdown", "1")
    answered = crowd(server, "chat", 12) + crowd(server, "stream", 4)
    for visitor in answered:
        assert visitor.join()

    cut = [
        *crowd(server, "chat", 3, behaviour="hang"),
        *crowd(server, "later", 2, behaviour="hang"),
        *crowd(server, "stream", 3, behaviour="hang_after=2"),
        *crowd(server, "stream", 2, behaviour="hang_after=2", stall=True),
        *crowd(server, "stream", 2, behaviour="hang_after=2", stall=True, careful=True),
    ]
    upstream.wait_for(lambda served: len(served) == 28 and streaming(served, 7), DEADLINE)
    under_way = [
        *crowd(server, "chat", 4, behaviour="slow=0.4"),
        *crowd(server, "stream", 4, behaviour="chunk_delay=0.1"),
        *crowd(server, "later", 2, behaviour="slow=0.4"),
    ]
    upstream.wait_for(lambda served: len(served) == 38)
    server.send(number)

    assert server.status() == STATUS[number]
    assert order(server) == [
        "INFO:     Shutting down",
        "INFO:     Waiting for connections to close. (CTRL+C to force quit)",
        "INFO:     Waiting for application shutdown.",
        "own lifespan ends, client open",
        "INFO:     Application shutdown complete.",
        f"INFO:     Finished server process [{server.process.pid}]",
    ]
    assert noise(server) == []
    assert [visitor.join() for visitor in cut] == [None] * len(cut)
    told = {visitor.join() for visitor in answered + under_way[:8]}
    assert None not in told
    assert_nothing_lost(tmp_path)
    records = outcomes(tmp_path)
    assert len(records) == 38
    assert Counter(record.status for record in records)["ok"] == 26
    on_record = {record.id for record in records if record.status == "ok" and record.cost}
    assert told <= on_record
    assert len(on_record) == 26  # two of them in the background, after their response
    for record in records:
        if record.status != "ok" and record.stream:
            assert_estimated(record)
        elif record.status != "ok":
            assert record.status == "cancelled"


@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=pytest.mark.matrix)])
def test_outcomes_that_come_after_the_client_has_closed_are_recorded(
    start: Callable[..., Uvicorn], upstream: OpenAIServer, tmp_path: Path, loop: str
) -> None:
    server = start("--loop", loop, "--timeout-graceful-shutdown", "0", OUTLIVE="1", SETTLE="0")
    assert Visitor(server, "chat", "first").join()
    streams = crowd(server, "stream", 4, behaviour="hang_after=2")
    upstream.wait_for(lambda served: streaming(served, 4), DEADLINE)
    detached = crowd(server, "detached", 3, behaviour="slow=1.5")
    upstream.wait_for(lambda served: len(served) == 8)
    server.send(TERM)

    assert server.status() == -TERM
    closed = re.fullmatch(r"client closed, (\d) in flight", server.wait_for("in flight"))
    assert closed is not None
    assert int(closed[1]) >= 3
    assert server.log.index(closed[0]) < server.log.index(
        "INFO:     Application shutdown complete."
    )
    assert [visitor.join() for visitor in streams + detached] == [None] * 7
    assert noise(server) == []
    assert_nothing_lost(tmp_path)
    records = outcomes(tmp_path)
    assert [record.status for record in records].count("ok") == 4
    assert all(record.cost for record in records)
    for record in records:
        if record.stream:
            assert_estimated(record)


def test_a_forced_exit_that_skips_the_lifespan_loses_no_record(
    start: Callable[..., Uvicorn], upstream: OpenAIServer, tmp_path: Path
) -> None:
    server = start()
    visitors = crowd(server, "stream", 3, behaviour="hang_after=2")
    upstream.wait_for(lambda served: streaming(served, 3), DEADLINE)
    server.send(INT)
    server.wait_for("Waiting for connections to close.")
    server.send(INT)

    assert server.status() == 0
    assert "Waiting for application shutdown." not in "\n".join(server.log)
    assert [visitor.join() for visitor in visitors] == [None] * 3
    assert_nothing_lost(tmp_path)
    assert len(outcomes(tmp_path)) == 3
    for record in outcomes(tmp_path):
        assert_estimated(record)


# -- while it lives -------------------------------------------------------------------------------


def record_of(path: Path, user: str) -> UsageRecord:
    """Wait until the call of this user has an outcome; return that."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        record = by_user(path).get(user)
        if record is not None:
            return record
        time.sleep(0.02)
    raise AssertionError(f"no record of {user} in {by_user(path)}")


@pytest.mark.parametrize(
    ("chunks", "busy"), [(2, False), (2, True), (0, False)], ids=["reading", "busy", "before"]
)
def test_a_client_that_disconnects_from_a_stream_is_recorded_and_stops_the_provider(
    live: tuple[Uvicorn, Path], upstream: OpenAIServer, chunks: int, busy: bool
) -> None:
    server, path = live
    """The generator that is cut waits for the provider, or is busy with something else."""
    user = f"leaver-{chunks}-{busy}"
    behaviour = f"hang_after={chunks}"
    params = {"user": user, "behaviour": behaviour, "stall": busy, "careful": busy}
    with HTTP.stream("POST", f"{server.url}/stream", params=params) as response:
        assert response.status_code == 200
        if chunks:
            assert next(response.iter_lines()) == json.dumps("word1")
        upstream.wait_for(lambda served: served and served[0].chunks == chunks, DEADLINE)

    upstream.wait_for(lambda served: served[0].disconnected)
    record = record_of(path, user)
    assert record.status in ("cancelled", "abandoned")
    assert record.usage_source == "estimated"
    assert record.input_tokens
    assert record.output_tokens or not chunks
    assert record.cost
    assert Visitor(server, "chat", "after the leaver").join()


def test_tags_of_concurrent_requests_never_mix(
    live: tuple[Uvicorn, Path], upstream: OpenAIServer
) -> None:
    server, path = live
    users = [f"user-{number}" for number in range(10)]
    visitors = [
        (user, Visitor(server, endpoint, user, behaviour="chunk_delay=0.01"))
        for _ in range(3)
        for user in users
        for endpoint in ("chat", "stream")
    ]
    told = {visitor.join(): user for user, visitor in visitors}
    assert len(told) == len(visitors)
    for record in outcomes(path):
        if record.id in told:
            assert record.tags == {"app": "test", "user": told.pop(record.id)}
    assert not told


def test_a_call_in_a_background_task_is_recorded(
    live: tuple[Uvicorn, Path], upstream: OpenAIServer
) -> None:
    server, path = live
    response = HTTP.post(f"{server.url}/later", params={"user": "later"})
    assert response.status_code == 200
    record = record_of(path, "later")
    assert (record.status, record.usage_source) == ("ok", "provider")
    assert record.tags == {"app": "test", "user": "later"}
    assert record.cost


# -- the example -----------------------------------------------------------------------------------


def test_the_example_answers_streams_and_knows_what_each_user_costs(
    upstream: OpenAIServer, tmp_path: Path
) -> None:
    environment = {"OPENAI_API_BASE": upstream.base_url, "OPENAI_API_KEY": "none"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    server = Uvicorn("examples.fastapi_app:app", cwd=tmp_path, **environment)
    try:
        alice, bob = ({"x-user": user} for user in ("alice", "bob"))
        question = {"text": "a short question"}
        answer = HTTP.post(f"{server.url}/chat", headers=alice, json=question).json()
        assert answer["text"] == "word1 word2 word3 word4 word5"
        assert Decimal(answer["cost"]) > 0
        for _ in range(2):
            text = HTTP.post(f"{server.url}/stream", headers=bob, json=question).text
            assert text == answer["text"]
        costly, cheapest = HTTP.get(f"{server.url}/usage").json()
        assert (costly["user"], costly["calls"]) == ("bob", 2)
        assert (cheapest["user"], cheapest["calls"]) == ("alice", 1)
        assert Decimal(cheapest["cost"]) == Decimal(answer["cost"])
        server.send(TERM)
        assert server.status() == -TERM
        assert noise(server) == []
    finally:
        server.close()
    assert_nothing_lost(tmp_path / "usage")
    assert {record.tags["user"] for record in outcomes(tmp_path / "usage")} == {"alice", "bob"}
