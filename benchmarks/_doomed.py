"""The programs of the loss table: each makes records in its own way until it ends, or is ended.

    python -m benchmarks._doomed MODULE …      a nursery: imports these once, then forks

For every line read (a JSON object) the nursery forks a program, so that a thousand ends do not cost
a thousand imports; it has imported what its programs need and no more, because that is what an
interpreter takes time over when it ends.

A program marks on a board, shared memory that outlives it, each record that its code believes to be
safe: the call came back.  What is found afterwards is held against that.
"""

from __future__ import annotations

import asyncio
import gc
import json
import mmap
import os
import resource
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from litellm_ledger import LiteLLMClient, UsageTracker

from ._peers import (
    INSERT,
    Langfuse,
    OpenTelemetry,
    Recorder,
    connect,
    file_logger,
    row,
)
from ._work import made

__all__ = ["MAKERS"]

_MESSAGES: Final = [{"role": "user", "content": "What is a ledger?"}]


class Maker:
    """One way to record.  ``make`` comes back when the caller's code goes on."""

    async def open(self, directory: Path, url: str) -> None:
        """Get ready."""

    async def make(self, n: int) -> None:
        """Record number ``n``."""
        raise NotImplementedError

    async def close(self) -> None:
        """End in order, as the documentation says."""


class Acked(Maker):
    """``await tracker.record(...)``, at ``written``."""

    async def open(self, directory: Path, url: str) -> None:
        self.tracker = UsageTracker(directory)
        await self.tracker.open()

    async def make(self, n: int) -> None:
        await self.tracker.record(made(n))

    async def close(self) -> None:
        await self.tracker.aclose()


class Queued(Acked):
    """``tracker.record_nowait(...)``: on its way, and not acknowledged."""

    async def make(self, n: int) -> None:
        self.tracker.record_nowait(made(n))


class Client(Maker):
    """``await client.acompletion(...)``."""

    async def open(self, directory: Path, url: str) -> None:
        import litellm

        litellm.suppress_debug_info = True  # a banner on standard output is no word of loss
        self.client = LiteLLMClient(directory)
        await self.client.warm_up()

    async def make(self, n: int) -> None:
        await self.client.acompletion(
            model="gpt-4o-mini",
            messages=_MESSAGES,
            mock_response="yes",
            tags={"call_id": str(n)},
        )

    async def close(self) -> None:
        await self.client.aclose()


class Callback(Maker):
    """``await litellm.acompletion(...)`` with a ``CustomLogger`` that writes to a file."""

    async def open(self, directory: Path, url: str) -> None:
        import litellm

        litellm.suppress_debug_info = True
        litellm.callbacks = [file_logger(directory / "callback.jsonl")]
        self.call = litellm.acompletion

    async def make(self, n: int) -> None:
        await self.call(
            model="gpt-4o-mini",
            messages=_MESSAGES,
            mock_response="yes",
            metadata={"call_id": str(n)},
        )

    async def close(self) -> None:
        from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

        await GLOBAL_LOGGING_WORKER.flush()


class _Peer(Maker):
    kind: type[Recorder]

    async def open(self, directory: Path, url: str) -> None:
        self.recorder = self.kind(directory, queue=0, url=url)  # its own default
        await self.recorder.open()

    async def make(self, n: int) -> None:
        self.recorder.put(n)

    async def close(self) -> None:
        await self.recorder.close()


class Spans(_Peer):
    """OpenTelemetry's batch processor with its own defaults, to a file."""

    kind = OpenTelemetry


class Generations(_Peer):
    """Langfuse's SDK with its own defaults, to a collector."""

    kind = Langfuse


class Rows(Maker):
    """SQLite in WAL mode: a transaction a record, on a thread, waited for."""

    async def open(self, directory: Path, url: str) -> None:
        self.connection = connect(directory / "usage.db")
        self.turn = asyncio.Lock()

    async def make(self, n: int) -> None:
        async with self.turn:
            await asyncio.to_thread(self.connection.execute, INSERT, row(n))

    async def close(self) -> None:
        self.connection.close()


MAKERS: Final[dict[str, type[Maker]]] = {
    "ledger, record()": Acked,
    "ledger, record_nowait()": Queued,
    "ledger, client.acompletion()": Client,
    "LiteLLM's callback to a file": Callback,
    "OpenTelemetry, batch processor": Spans,
    "Langfuse's SDK": Generations,
    "SQLite (WAL), commit awaited": Rows,
}


async def program(
    maker: Maker, directory: Path, url: str, board: mmap.mmap, order: dict[str, Any]
) -> None:
    """Make records by the order; the end is somebody else's business."""
    records, pause = int(order["records"]), float(order["pause"])
    await maker.open(directory, url)
    if order["full"]:  # as a full disk: no file may grow beyond this
        soft = 65_536
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
        hard = resource.RLIM_INFINITY
        asyncio.get_running_loop().call_later(
            float(order["full"]), resource.setrlimit, resource.RLIMIT_FSIZE, (hard, hard)
        )
    os.write(1, b"open\n")
    numbers = iter(range(records))

    async def some() -> None:
        for n in numbers:
            try:
                await maker.make(n)
                board[n] = 1
            except (OSError, sqlite3.Error):
                board[n] = 2  # refused, and the caller knows
            if pause:
                await asyncio.sleep(pause)

    await asyncio.gather(*[some() for _ in range(int(order["at_once"]))])
    if order["close"]:
        await maker.close()
    elif order["wait"]:
        await asyncio.sleep(60)


def _child(order: dict[str, Any]) -> None:
    directory = Path(order["directory"])
    with (directory / "board").open("r+b") as file:
        board = mmap.mmap(file.fileno(), int(order["records"]))
    errors = os.open(directory / "stderr", os.O_CREAT | os.O_WRONLY)
    os.dup2(errors, 2)
    run: Callable[[Awaitable[None]], None] = asyncio.run  # type: ignore[assignment]
    run(program(MAKERS[order["maker"]](), directory / "data", order["url"], board, order))


def nursery(modules: Sequence[str]) -> None:
    """Fork a program for each line; say how each ended."""
    for name in modules:
        import_module(name)
    gc.freeze()  # else each program collects, when it ends, what was imported here
    os.write(1, b"ready\n")
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.write(1, f"pid {os.getpid()}\n".encode())
            _child(order)
            sys.exit(0)  # the ordinary end, atexit and all
        _, status = os.waitpid(pid, 0)
        os.write(1, f"ended {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    nursery(sys.argv[1:])
