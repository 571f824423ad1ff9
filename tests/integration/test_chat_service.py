"""`examples/chat_service/` under load: the ledger equals what the provider saw.

Many clients, a third of which leave in mid-stream, a loop with tools, titles in the background, two
workers, and SIGTERM in the middle.  The provider is an `OpenAIServer` in this process; its journal
is what the ledger is compared with.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.forked import LITELLM, Forked
from tests.ports import free_port

from litellm_ledger import Ledger, UsageRecord
from litellm_ledger.testing import Behaviour, OpenAIServer, ServedRequest

pytest.importorskip("uvicorn_worker")  # of the group `peers`

SERVICE = Path(__file__).parents[2] / "examples" / "chat_service"
KEYS = ("acme-alice", "acme-bob", "globex-carol", "globex-dan")
DEADLINE = 120.0
SPEECH = Behaviour(chunks=12, chunk_delay=0.02, tool_calls=1)
COMMANDS = {
    "uvicorn": [str(SERVICE)],  # the one command of the example
    "gunicorn": ["-m", "gunicorn", "app:app", "--bind"],
}


class Service:
    """The service with two workers."""

    def __init__(self, kind: str, ledger: Path, provider: OpenAIServer) -> None:
        self.port = free_port()
        where = str(self.port) if kind == "uvicorn" else f"127.0.0.1:{self.port}"
        self._log = (ledger.parent / "log").open("w+")
        command = [*COMMANDS[kind], where]
        given: dict[str, Any] = {
            "cwd": SERVICE,
            "stdout": self._log,
            "stderr": subprocess.STDOUT,
            "env": {
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(SERVICE), *sys.path]),
                "NO_PROXY": "127.0.0.1",
                "OPENAI_API_BASE": provider.base_url,
                "OPENAI_API_KEY": "none",
                "CHAT_LEDGER": str(ledger),
                "CHAT_GRACE": "0.3",
            },
        }
        self.process: subprocess.Popen[Any]
        if kind == "gunicorn":  # whose workers are forks of a process that has imported LiteLLM
            self.process = Forked(command, modules=LITELLM, **given)
        else:
            self.process = subprocess.Popen([sys.executable, *command], **given)

    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text("utf-8")

    async def ready(self) -> None:
        for _ in range(int(DEADLINE / 0.05)):
            assert self.process.poll() is None, self.log()
            try:
                _, answer = await self.send("GET", "/usage/health", "")
            except OSError:
                await asyncio.sleep(0.05)
            else:
                assert b" 200 " in answer.splitlines()[0], answer
                return
        raise TimeoutError(self.log())

    async def send(
        self, method: str, path: str, key: str, body: str = "", leave_at: int | None = None
    ) -> tuple[bool, bytes]:
        """Send a request; return whether its answer was complete, and the answer.

        Args:
            leave_at: leaves when that many events have come.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        got = b""
        try:
            head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            head += f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
            while part := await reader.read(65_536):
                got += part
                if leave_at is not None and got.count(b"data: ") >= leave_at:
                    return False, got
        except ConnectionError:
            return False, got
        finally:
            writer.close()
        return got.endswith((b"0\r\n\r\n", b"}")), got

    async def ask(self, number: int, leave_at: int | None) -> tuple[bool, bytes]:
        question = {"messages": [{"role": "user", "content": f"How warm is it in city {number}?"}]}
        key = KEYS[number % len(KEYS)]
        return await self.send("POST", f"/chats/{number}", key, json.dumps(question), leave_at)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        print(self.log())
        self._log.close()


async def drive(service: Service, clients: int) -> Counter[str]:
    """Let the clients come, a third leave, and the service be told to end in the middle."""
    await service.ready()
    _, answer = await service.send("POST", "/chats/1", "nobody", '{"messages": []}')
    assert b" 401 " in answer.splitlines()[0]
    whole, answer = await service.ask(0, None)
    assert whole, answer
    # What it says at its end: the round with the tool, the round that answers; the title follows.
    assert b'"tool": "temperature"' in answer
    assert b'event: usage\ndata: {"calls": 2, ' in answer
    await service.ask(2, None)
    for key, sees in (("acme-bob", {"acme"}), ("operator", {"acme", "globex"})):
        _, answer = await service.send("GET", "/usage/api/report?by=tag:tenant", key)
        rows = json.loads(answer.partition(b"\r\n\r\n")[2])["rows"]
        assert {row["group"]["tag:tenant"] for row in rows} == sees
    seen: Counter[str] = Counter()
    half = asyncio.Event()

    async def client(number: int) -> None:
        try:
            whole, answer = await service.ask(number, 2 + number % 9 if number % 3 == 0 else None)
        except OSError:  # it listens no more
            seen["refused"] += 1
        else:
            status = answer.partition(b" ")[2][:3]
            kind = "left" if number % 3 == 0 and not whole else "read" if whole else "cut"
            seen[kind if status in (b"200", b"") else f"status {status.decode()}"] += 1
        if sum(seen.values()) >= clients // 2:
            half.set()

    waves = 10  # at once
    slots = asyncio.Semaphore(max(1, clients // waves * 3))

    async def arrive(number: int) -> None:
        async with slots:
            await client(number)

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        for number in range(1, clients + 1):
            group.create_task(arrive(number))
        await half.wait()
        service.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(service.process.wait, DEADLINE)
    return seen


def compare(records: list[UsageRecord], served: list[ServedRequest]) -> Counter[str]:
    """Check that each request is one record, and says what the provider says; count them."""
    by_id = {record.response_id: record for record in records if record.response_id}
    nameless = [record for record in records if not record.response_id]
    assert len(by_id) + len(nameless) == len(records)  # none twice
    found: Counter[str] = Counter()
    unheard: Counter[str] = Counter()
    for request in served:
        record = by_id.pop(f"chatcmpl-{request.number:08d}", None)
        if record is None:  # it was left before a chunk came through, sent or not
            unheard[str(request.body["user"])] += 1
            continue
        assert record.tags["request"] == request.body["user"]
        assert record.stream is request.stream
        assert record.status in ("ok", "cancelled", "abandoned")
        if record.status == "ok":
            assert request.finished
            assert request.usage is not None
            assert record.usage_source == "provider"
            assert record.input_tokens == request.usage["prompt_tokens"]
            assert record.output_tokens == request.usage["completion_tokens"]
        assert record.cost is not None
        found[record.status] += 1
    assert not by_id  # nothing that the provider has not seen
    left = Counter(str(record.tags["request"]) for record in nameless)
    assert unheard <= left
    assert {record.status for record in nameless} <= {"cancelled", "abandoned"}
    found["no chunk heard"] = unheard.total()
    found["never arrived"] = (left - unheard).total()
    return found


def run(kind: str, clients: int, tmp_path: Path) -> None:
    ledger = tmp_path / "usage"
    with OpenAIServer(default=SPEECH) as provider:
        service = Service(kind, ledger, provider)
        try:
            seen = asyncio.run(drive(service, clients))
        finally:
            service.close()
        served = provider.requests
    assert sum(seen.values()) == clients
    assert seen["left"]
    verification = Ledger(ledger).verify()
    assert verification.ok
    assert {writer.state for writer in verification.writers} == {"closed"}
    assert len(verification.writers) == 2
    records = list(Ledger(ledger).records())
    found = compare(records, served)
    for wrong in (records[1:], [*records, records[0]]):  # would we see one missing, or twice?
        with pytest.raises(AssertionError):
            compare(wrong, served)
    print(f"{kind}: {clients} clients {dict(seen)}; {len(served)} requests, records {dict(found)}")
    tenants = {"acme": {"alice", "bob"}, "globex": {"carol", "dan"}}
    for record in records:
        assert record.tags["user"] in tenants[record.tags["tenant"]]
        assert record.tags["route"] == "/chats/{chat}"
        assert record.tags["feature"] == ("chat" if record.stream else "title")


def test_the_ledger_equals_what_the_provider_saw(tmp_path: Path) -> None:
    run("gunicorn", 60, tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", [*COMMANDS])
def test_the_ledger_equals_what_the_provider_saw_of_two_hundred_clients(
    kind: str, tmp_path: Path
) -> None:
    run(kind, 200, tmp_path)
