"""What the client adds to a call, against bare LiteLLM, and what LiteLLM's own callback adds.

``python -m benchmarks calls`` runs this section alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from ._asking import at_once, one_by_one
from ._least import LeastCall
from ._peers import file_logger
from ._rounds import race
from ._size import Size
from ._table import Table, quantity

__all__ = ["run"]

ANSWER: Final = "A record of every amount that comes in or goes out."


def run(size: Size) -> list[Table]:
    """Return the table of this section."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return [asyncio.run(_table(size))]


async def _table(size: Size) -> Table:
    import litellm

    from litellm_ledger import LiteLLMClient

    litellm.suppress_debug_info = True  # this program's own choice: no banners in the table
    table = Table(
        "Calls through the client",
        [
            "",
            "bare, ms a call",
            "the client adds",
            "by processor time",
            "two lines and nothing else add",
            "LiteLLM's callback to a file adds",
        ],
        "The same call with bare `litellm.acompletion`, with `client.acompletion` (both records "
        "acknowledged at `written`), and bare with a `CustomLogger` that writes a line to a file. "
        "A mock answers inside LiteLLM; HTTP is `litellm_ledger.testing.OpenAIServer` in another "
        "process. A round ends when LiteLLM's logging, which it puts off to a task, is done: else "
        "the one that yields to the loop more often is charged for more of it. *Two lines and "
        "nothing else* (`_least.py`): the lines of a call are encoded and written around it by the "
        "shortest code there is, which promises nothing; by processor time too.",
    )
    messages = [{"role": "user", "content": "What is a ledger?"}]
    mock = {"model": "gpt-4o-mini", "messages": messages, "mock_response": ANSWER}
    with tempfile.TemporaryDirectory() as directory, _server() as url:
        http = {
            "model": "openai/gpt-4o-mini",
            "messages": messages,
            "api_base": url,
            "api_key": "none",
        }
        logger = file_logger(Path(directory, "callback.jsonl"))
        least = LeastCall(Path(directory, "least.jsonl"), litellm.acompletion)
        async with LiteLLMClient(Path(directory, "usage")) as client:
            bare = litellm.acompletion
            for transport, call in (("mock", mock), ("HTTP", http)):
                for kind, stream in (("plain", False), ("stream", True)):
                    for name, how in (("one by one", one_by_one), ("100 at once", at_once)):
                        count = size(50 if how is one_by_one and call is http else 100, 3)
                        # With its usage, which the client asks for by itself: LiteLLM's own work
                        # for that is a third of a mock stream, and none of ours.
                        usage = {"stream": True, "stream_options": {"include_usage": True}}
                        given = {**call, **usage} if stream else call
                        one = partial(how, count, given)
                        contenders = {
                            "bare": (partial(one, bare), count),
                            "ours": (partial(one, client.acompletion), count),
                            "callback": (partial(_heard, logger, partial(one, bare)), count),
                        }
                        if not stream:
                            contenders["least"] = partial(one, least), count
                        long = (transport, kind) == ("mock", "plain")
                        found = await race(
                            contenders, rounds=size(30 if long else 9, 1), seconds=20 if long else 7
                        )
                        base, ours = found["bare"], found["ours"]
                        table.add(
                            f"{transport}, {kind}, {name}",
                            quantity(base.median * 1e3),
                            _added(ours.over(base)),
                            _added(ours.cpu_over(base)),
                            _added(found["least"].cpu_over(base)) if "least" in found else "",
                            _added(found["callback"].over(base)),
                        )
        if not logger.file.tell():
            raise RuntimeError("LiteLLM never called the callback: its column says nothing")
        logger.file.close()
        least.close()
        await litellm.close_litellm_async_clients()
    return table


def _added(ratios: list[float]) -> str:
    ordered = sorted(100 * (ratio - 1) for ratio in ratios)
    low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
    return f"{statistics.median(ordered):+.1f} % ({low:+.1f} to {high:+.1f})"


async def _heard(logger: Any, run: Callable[[], Awaitable[None]]) -> None:
    """Run with LiteLLM's callback; LiteLLM copies it into many lists, and all are put back."""
    import litellm

    lists = [
        found
        for name in dir(litellm)
        if name.endswith("callback") or name == "callbacks"
        if isinstance(found := getattr(litellm, name), list)
    ]
    before = [list(one) for one in lists]
    litellm.callbacks.append(logger)
    try:
        await run()
    finally:
        for one, old in zip(lists, before, strict=True):
            one[:] = old


@contextlib.contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, "-m", "litellm_ledger.testing"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGTERM)
