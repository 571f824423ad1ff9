"""One framework, tried in its own environment: `python -m tests.frameworks.trial NAME [CASE]`.

Prints one line of JSON: what the server was asked, and what capture has recorded of it, for each
way in which the framework can ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.frameworks.asking import FRAMEWORKS, Ways

from litellm_ledger import Ledger, LiteLLMClient
from litellm_ledger.testing import Behaviour, OpenAIServer

PATIENCE = 5.0
"""Seconds after which a call that is not on record will not be."""
TAGS = {"feature": "trial"}
FIELDS = ["status", "usage_source", "input_tokens", "output_tokens", "cost_source"]

Run = Callable[[OpenAIServer], Awaitable[Any]]


async def try_it(server: OpenAIServer, path: Path, run: Run) -> dict[str, Any]:
    """Run one case with capture on; tell what was asked and what is on record."""
    server.clear()
    async with LiteLLMClient(path) as client:
        await client.warm_up()
        with client.capture():
            with client.tag(**TAGS):
                await run(server)
            asked = len(server.requests)
            until = time.monotonic() + PATIENCE
            while len(list(Ledger(path).records())) < asked and time.monotonic() < until:
                gc.collect()  # calls that were cancelled and streams that were left end so
                await asyncio.sleep(0.05)
    records = []
    for record in Ledger(path).records():
        told = {name: getattr(record, name) for name in FIELDS}
        told["cost"] = None if record.cost is None else f"{record.cost:f}"
        records.append({**told, "tags": record.tags == TAGS})
    sent = [
        None if request.usage is None else [request.usage[key] for key in _SENT]
        for request in server.requests
    ]
    return {"sent": sent, "records": records}


_SENT = ("prompt_tokens", "completion_tokens")


async def _read(stream: Any) -> None:
    async with contextlib.aclosing(stream):
        async for _ in stream:
            pass


def _read_sync(stream: Any, at_most: int = sys.maxsize) -> None:
    for _, _ in zip(range(at_most), stream, strict=False):
        pass
    stream.close()


async def _cancel(work: Awaitable[Any], server: OpenAIServer, chunks: int) -> None:
    """Cancel `work` when the server has its request, and has sent `chunks` of the answer."""
    task = asyncio.ensure_future(work)
    await asyncio.to_thread(
        server.wait_for, lambda requests: requests and requests[0].chunks >= chunks
    )
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


def cases(ways: Ways) -> dict[str, tuple[str, Run]]:
    """Of each case the server it needs, and what is run."""
    found: dict[str, tuple[str, Run]] = {}
    if (call := ways.call) is not None:
        found["call"] = "quick", lambda server: call(server.base_url)
        found["call, cancelled"] = "silent", lambda s: _cancel(call(s.base_url), s, 0)
    if (stream := ways.stream) is not None:
        found["stream"] = "quick", lambda server: _read(stream(server.base_url))
        found["stream, cancelled"] = "stuck", lambda s: _cancel(_read(stream(s.base_url)), s, 2)
    if (sync := ways.sync_call) is not None:
        found["sync call"] = "quick", lambda s: asyncio.to_thread(sync, s.base_url)
    if (syncs := ways.sync_stream) is not None:
        found["sync stream"] = (
            "quick",
            lambda s: asyncio.to_thread(lambda: _read_sync(syncs(s.base_url))),
        )
        if not ways.whole:
            found["sync stream, left"] = (
                "quick",
                lambda s: asyncio.to_thread(lambda: _read_sync(syncs(s.base_url), 2)),
            )
    return found


async def main(name: str, only: str | None) -> None:
    """Try every case, one after the other."""
    framework = FRAMEWORKS[name]
    with contextlib.ExitStack() as stack:
        servers = {
            "quick": stack.enter_context(OpenAIServer()),
            "silent": stack.enter_context(OpenAIServer(default=Behaviour(hang=True))),
            "stuck": stack.enter_context(OpenAIServer(default=Behaviour(hang_after=2))),
        }
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = {}
        for case, (server, run) in cases(framework.ways()).items():
            if only in (None, case):
                found[case] = await try_it(servers[server], directory / case, run)
    packages = framework.package, "litellm"
    versions = {package: importlib.metadata.version(package) for package in packages}
    print("\n" + json.dumps({"versions": versions, "cases": found}))  # CrewAI prints, too


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
