"""After every call of LiteLLM, made through a client that is closed, no connection is left open."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from tests import forked
from tests.arguments import ARGUMENTS, STREAMS, to
from tests.packages import missing

from litellm_ledger import LiteLLMClient
from litellm_ledger._litellm.connections import Strays
from litellm_ledger._litellm.load import load_sync
from litellm_ledger.testing import Behaviour, OpenAIServer

ROOT = Path(__file__).parents[2]

# A process of its own, without the server's connections. Nothing is collected before all is
# counted: what is closed by then was closed by somebody, and what LiteLLM drops is still open.
CHILD = """
import gc
gc.disable()

import asyncio, json, os, sys, types
from litellm_ledger import LiteLLMClient
from tests.arguments import to

server, path, watched, calls = types.SimpleNamespace(base_url=sys.argv[1]), *sys.argv[2:]
if watched == "no":
    from litellm_ledger._calls import core as _core
    async def watch(self, call, given=None):
        return await call
    _core.Strays.watch = watch

def sockets():
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
        except FileNotFoundError:
            pass
    return found

async def main(name, stream):
    asyncio.get_running_loop().slow_callback_duration = 60  # LiteLLM's first call takes its time
    before = sockets()
    async with LiteLLMClient(path) as client:
        given = to(server, name)
        if name == "aretrieve_batch":
            batch = await client.acreate_batch(**to(server, "acreate_batch"))
            given["batch_id"] = batch.id
        # Of a batch that is done LiteLLM's logging reads the output, in its own time.
        for _ in range(1 if name == "aretrieve_batch" else 3):
            answer = await getattr(client, name)(**given, **({"stream": True} if stream else {}))
            if stream:
                async for _ in answer:
                    pass
        del answer
    print(name, stream, sockets() - before, flush=True)

for call in json.loads(calls):
    asyncio.run(main(*call))
"""


BACKOFF = "ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning"
"""What LiteLLM's `backoff` asks Python 3.14 for; pyproject.toml has the same."""


def run(server: OpenAIServer, path: Path, watched: str, *calls: tuple[str, bool]) -> list[str]:
    """Make the calls, and return what the process says."""
    done = forked.run(
        ["-c", CHILD, server.base_url, str(path), watched, json.dumps(calls)],
        options=("-X", "dev", "-W", "ignore::UserWarning", "-W", BACKOFF),
        modules=forked.LITELLM,
        cwd=ROOT,
        env={"PYTHONPATH": ":".join([str(ROOT), *sys.path]), "PATH": "", "HOME": str(path)},
        timeout=100,
    )
    return (done.stdout + done.stderr).splitlines()


@pytest.mark.asyncio
async def test_no_connection_is_left(server: OpenAIServer, tmp_path: Path) -> None:
    calls = [
        (name, stream) for name in ARGUMENTS for stream in (False, True)[: 1 + (name in STREAMS)]
    ]
    calls = [(name, stream) for name, stream in calls if not await missing(name, stream=stream)]
    assert len(calls) > 10
    said = await asyncio.to_thread(run, server, tmp_path, "yes", *calls)
    assert said == [f"{name} {stream} 0" for name, stream in calls]


def test_what_litellm_drops_is_there_to_be_found(server: OpenAIServer, tmp_path: Path) -> None:
    """The control: unwatched, each of three calls leaves a connection, and somebody complains."""
    said = run(server, tmp_path, "no", ("atext_completion", False), ("acreate_batch", False))
    assert said[:2] == ["atext_completion False 3", "acreate_batch False 3"]
    assert "nclosed" in "\n".join(said[2:])


@pytest.mark.asyncio
async def test_a_client_that_the_user_gave_is_left_open(
    server: OpenAIServer, tmp_path: Path
) -> None:
    load_sync()
    from openai import AsyncOpenAI

    given = to(server, "atext_completion")
    async with AsyncOpenAI(base_url=given["api_base"], api_key="any") as theirs:
        async with LiteLLMClient(tmp_path) as client:
            await client.atext_completion(**given, client=theirs)
            stream = await client.atext_completion(**given, client=theirs, stream=True)
            assert [chunk async for chunk in stream]
        assert not theirs.is_closed()


@pytest.mark.asyncio
async def test_a_client_of_a_handler_of_the_users_is_left_open(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    litellm: Any = load_sync()
    from openai import AsyncOpenAI

    given = to(server, "acompletion")
    async with AsyncOpenAI(base_url=given["api_base"], api_key="any") as theirs:

        class Handler(litellm.CustomLLM):  # type: ignore[misc,name-defined]
            async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
                await theirs.chat.completions.create(model="m", messages=given["messages"])
                return litellm.ModelResponse()

        mine = {"provider": "mine", "custom_handler": Handler()}
        monkeypatch.setattr(litellm, "custom_provider_map", [mine])
        async with LiteLLMClient(tmp_path) as client:
            await client.atext_completion(model="mine/model", prompt="three words here")
        assert not theirs.is_closed()


@pytest.mark.asyncio
async def test_watching_asks_nothing_of_what_is_not_litellms() -> None:
    load_sync()
    from openai import AsyncOpenAI

    class Proxy:
        @property
        def __class__(self) -> Any:  # as of an object of a request, outside of one
            raise RuntimeError("there is no request")

    @types.coroutine
    def hold(_: object) -> Generator[None]:
        yield

    async def call() -> str:
        stands_for = Proxy()
        await hold(asyncio.current_task().get_coro())  # type: ignore[union-attr]
        del stands_for
        return "returns"

    namespace = {"__name__": "litellm.anything", "call": call, "Proxy": Proxy}
    exec("async def theirs():\n stands_for = Proxy()\n return await call()", namespace)
    async with AsyncOpenAI(api_key="any"):
        strays = Strays()
        assert await strays.watch(namespace["theirs"]()) == "returns"  # type: ignore[operator]
        assert not strays


@pytest.mark.asyncio
async def test_one_that_cannot_be_closed_keeps_no_other_open() -> None:
    closed: list[str] = []

    class Client:
        _mounts = None

        async def close(self) -> None:
            closed.append("tried")
            raise RuntimeError if len(closed) == 1 else asyncio.CancelledError

    strays = Strays()
    strays._clients = {number: Client() for number in range(3)}
    with pytest.raises(asyncio.CancelledError):
        await strays.close()
    assert len(strays) == 1  # that one is still known


@pytest.mark.asyncio
async def test_a_client_that_litellm_keeps_is_left_open(server: OpenAIServer) -> None:
    litellm: Any = load_sync()
    strays = Strays()
    await strays.watch(litellm.acompletion(**to(server, "acompletion")))
    assert not strays


@pytest.mark.asyncio
async def test_only_what_is_idle_is_closed(server: OpenAIServer) -> None:
    litellm: Any = load_sync()
    strays = Strays()
    slow = to(server, "atext_completion", Behaviour(chunk_delay=0.02))
    stream = await litellm.atext_completion(**slow, stream=True)
    await strays.watch(anext(stream))
    await strays.watch(litellm.atext_completion(**to(server, "atext_completion")))
    assert len(strays) == 2
    await strays.close()
    assert len(strays) == 1
    assert [chunk async for chunk in stream]
    await strays.close()
    assert not strays


@pytest.mark.asyncio
async def test_a_call_that_is_watched_ends_as_it_would_have() -> None:
    ended: list[str] = []

    async def call(how: str) -> str:
        try:
            await asyncio.sleep(0)
            if how == "raises":
                raise KeyError(how)
            if how == "stops":
                raise StopAsyncIteration(how)
            await asyncio.sleep(60 if how in ("cancelled", "closed") else 0)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        except GeneratorExit:
            ended.append("closed")
            raise
        return how

    assert await Strays().watch(call("returns")) == "returns"
    with pytest.raises(KeyError, match="raises"):
        await Strays().watch(call("raises"))
    with pytest.raises(StopAsyncIteration):
        await Strays().watch(call("stops"))
    task = asyncio.create_task(Strays().watch(call("cancelled")))
    await asyncio.sleep(0.01)
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError):
        await task
    watching = Strays().watch(call("closed"))
    watching.send(None)
    watching.send(None)
    watching.close()
    assert ended == ["cancelled", "closed"]
