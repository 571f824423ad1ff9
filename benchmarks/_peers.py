"""Ways to get a usage record off one's hands: ours, the bare minimum, and what others built.

Each ``Recorder`` is used as its documentation says.  ``put`` is what the caller's code runs for one
record; ``flush`` comes back when all of it is on disk (or with the collector); ``close`` is its
orderly end.  ``queue`` is set so that a burst fits: with their own defaults OpenTelemetry and
Langfuse drop what is beyond 2,048, which the loss table shows and a race must not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import sqlite3
import threading
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Final, Self
from zlib import crc32

import msgspec

from litellm_ledger import UsageTracker

from ._work import BATCH, COST, fields, made

__all__ = [
    "PEERS",
    "Bare",
    "Callback",
    "Langfuse",
    "LedgerRecorder",
    "OpenTelemetry",
    "Recorder",
    "Sqlite",
    "missing",
]

_encode = msgspec.json.Encoder().encode
INSTALL: Final = "not installed; in a checkout: `pip install --group bench`"


class Recorder:
    """See the module.  ``package`` is what must be installed, ``None`` if nothing more."""

    name: ClassVar[str]
    package: ClassVar[str | None] = None

    def __init__(self, directory: Path, *, queue: int = 10_000, url: str = "") -> None:
        self.directory = directory
        self.queue = queue
        self.url = url

    async def open(self) -> None:
        """Get ready; not timed."""

    def put(self, n: int) -> None:
        """Take one record off the caller's hands."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Return when all that was put is where it belongs."""
        raise NotImplementedError

    async def close(self) -> None:
        """End in order."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class LedgerRecorder(Recorder):
    """Ours, through ``record_nowait``."""

    name = "litellm-ledger"
    durability: ClassVar[Any] = "written"

    async def open(self) -> None:
        self.tracker = UsageTracker(
            self.directory, queue_size=self.queue, durability=self.durability, drain_timeout=120
        )
        await self.tracker.open()

    def put(self, n: int) -> None:
        self.tracker.record_nowait(made(n))

    async def flush(self) -> None:
        await self.tracker.flush()

    async def close(self) -> None:
        await self.tracker.aclose()


class Bare(Recorder):
    """A dict into an ``asyncio.Queue``; one task encodes and writes, and promises nothing."""

    name = "bare queue of dicts and a task"

    async def open(self) -> None:
        self.waiting: asyncio.Queue[Any] = asyncio.Queue()
        self.fd = os.open(self.directory / "bare", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        waiting = self.waiting
        while True:
            taken = [await waiting.get()]
            while len(taken) < BATCH and not waiting.empty():
                taken.append(waiting.get_nowait())
            os.write(self.fd, b"".join(self.lines(taken)))
            for _ in taken:
                waiting.task_done()
            await asyncio.sleep(0)

    def lines(self, taken: list[Any]) -> list[bytes]:
        """Encode a batch."""
        encode = _encode
        lines = []
        for item in taken:
            body = encode(item)[:-1]
            lines.append(b'%b,"crc":"%08x"}\n' % (body, crc32(body)))
        return lines

    def put(self, n: int) -> None:
        self.waiting.put_nowait(fields(n))

    async def flush(self) -> None:
        await self.waiting.join()

    async def close(self) -> None:
        await self.waiting.join()
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        os.close(self.fd)


class Callback(Recorder):
    """LiteLLM's way: a ``CustomLogger`` whose coroutine its logging worker runs."""

    name = "LiteLLM's callback to a file"
    package = "litellm"

    async def open(self) -> None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

        self.worker = GLOBAL_LOGGING_WORKER
        self.logger = file_logger(self.directory / "callback.jsonl")

    def put(self, n: int) -> None:
        # As LiteLLM itself does at the end of each call.
        given = {"model": "gpt-4o-mini", "metadata": {"call_id": str(n)}, "response_cost": 0.00027}
        self.worker.ensure_initialized_and_enqueue(
            async_coroutine=self.logger.async_log_success_event(given, _ANSWER, 0, 0)
        )

    async def flush(self) -> None:
        await self.worker.flush()

    async def close(self) -> None:
        await self.worker.flush()
        self.logger.file.close()


class _Usage:
    prompt_tokens = 1_000
    completion_tokens = 200


class _Answer:
    usage = _Usage()


_ANSWER = _Answer()


def file_logger(path: Path) -> Any:
    """Make the ``CustomLogger`` that people write: one JSON line a call, flushed."""
    from litellm.integrations.custom_logger import CustomLogger

    class FileLogger(CustomLogger):
        def __init__(self) -> None:
            super().__init__()
            self.file = path.open("a", buffering=1, encoding="utf-8")

        async def async_log_success_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            usage = getattr(response_obj, "usage", None)
            params = kwargs.get("litellm_params") or {}
            metadata = params.get("metadata") or kwargs.get("metadata") or {}
            line = {
                "model": kwargs.get("model"),
                "cost": kwargs.get("response_cost"),
                "input_tokens": getattr(usage, "prompt_tokens", None),
                "output_tokens": getattr(usage, "completion_tokens", None),
                "call_id": metadata.get("call_id"),
            }
            self.file.write(json.dumps(line) + "\n")

    return FileLogger()


class OpenTelemetry(Recorder):
    """A span a record, through the SDK's batch processor and its own exporter, to a file."""

    name = "OpenTelemetry, batch processor to a file"
    package = "opentelemetry.sdk"

    async def open(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

        self.file = (self.directory / "spans.jsonl").open("a", encoding="utf-8")
        exporter = ConsoleSpanExporter(
            out=self.file, formatter=lambda span: span.to_json(indent=None) + "\n"
        )
        self.provider = TracerProvider()
        more = {"max_queue_size": self.queue} if self.queue else {}
        self.provider.add_span_processor(BatchSpanProcessor(exporter, **more))
        self.tracer = self.provider.get_tracer("benchmark")

    def put(self, n: int) -> None:
        self.tracer.start_span(
            "acompletion",
            attributes={
                "gen_ai.request.model": "gpt-4o-mini",
                "gen_ai.provider.name": "openai",
                "gen_ai.usage.input_tokens": 1_000,
                "gen_ai.usage.output_tokens": 200,
                "cost": 0.00027,
                "user": "alice",
                "call_id": str(n),
            },
        ).end()

    async def flush(self) -> None:
        self.provider.force_flush(timeout_millis=120_000)

    async def close(self) -> None:
        self.provider.shutdown()
        self.file.close()


class Langfuse(Recorder):
    """Langfuse's SDK, sending to a collector on this machine that takes all it is given."""

    name = "Langfuse's SDK to a local collector"
    package = "langfuse"
    keys: ClassVar[count[int]] = count()

    async def open(self) -> None:
        if self.queue:  # the SDK has no argument for it
            os.environ["OTEL_BSP_MAX_QUEUE_SIZE"] = str(self.queue)
        import langfuse
        from opentelemetry.sdk.trace import TracerProvider

        # Instances of one key share everything, also after a shutdown.
        self.client = langfuse.Langfuse(
            public_key=f"pk-lf-{next(self.keys)}",
            secret_key="sk-lf-none",
            base_url=self.url,
            tracer_provider=TracerProvider(),
        )

    def put(self, n: int) -> None:
        self.client.start_observation(
            name="acompletion",
            as_type="generation",
            model="gpt-4o-mini",
            usage_details={"input": 1_000, "output": 200},
            cost_details={"total": 0.00027},
            metadata={"user": "alice", "call_id": str(n)},
        ).end()

    async def flush(self) -> None:
        await asyncio.to_thread(self.client.flush)

    async def close(self) -> None:
        await asyncio.to_thread(self.client.shutdown)


SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS usage (call_id TEXT, ts TEXT DEFAULT CURRENT_TIMESTAMP, model TEXT,"
    " provider TEXT, input_tokens INTEGER, output_tokens INTEGER, cost_picousd INTEGER, tags TEXT)"
)
INSERT: Final = (
    "INSERT INTO usage (call_id, model, provider, input_tokens, output_tokens, cost_picousd, tags)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_PICOUSD: Final = int(COST.scaleb(12))


def row(n: int) -> tuple[object, ...]:
    """Return the record as a row."""
    return str(n), "gpt-4o-mini", "openai", 1_000, 200, _PICOUSD, '{"user":"alice"}'


def connect(path: Path, *, synchronous: str = "NORMAL") -> sqlite3.Connection:
    """Open a database in WAL mode, with its table; commits are ours."""
    found = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
    found.execute("PRAGMA journal_mode=WAL")
    found.execute(f"PRAGMA synchronous={synchronous}")
    found.execute(SCHEMA)
    return found


class Sqlite(Recorder):
    """SQLite in WAL mode on a thread that takes what waits, at most 256 rows a transaction."""

    name = "SQLite (WAL) on a thread, 256 a transaction"
    batch: ClassVar[int] = BATCH

    async def open(self) -> None:
        self.waiting: queue.SimpleQueue[tuple[object, ...] | threading.Event | None]
        self.waiting = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()
        await self.flush()

    def _write(self) -> None:
        with contextlib.closing(connect(self.directory / "usage.db")) as connection:
            while True:
                taken = [self.waiting.get()]
                while len(taken) < self.batch and not self.waiting.empty():
                    taken.append(self.waiting.get())
                connection.execute("BEGIN")
                connection.executemany(INSERT, [i for i in taken if isinstance(i, tuple)])
                connection.execute("COMMIT")
                for item in taken:
                    if isinstance(item, threading.Event):
                        item.set()
                if None in taken:
                    return

    def put(self, n: int) -> None:
        self.waiting.put(row(n))

    async def flush(self) -> None:
        done = threading.Event()
        self.waiting.put(done)
        await asyncio.to_thread(done.wait)

    async def close(self) -> None:
        self.waiting.put(None)
        await asyncio.to_thread(self.thread.join)


PEERS: Final[tuple[type[Recorder], ...]] = (Callback, OpenTelemetry, Langfuse, Sqlite)
"""What others built, in the order of the tables."""


def missing(peer: type[Recorder]) -> bool:
    """Tell whether its package is not installed."""
    if peer.package is None:
        return False
    try:
        return find_spec(peer.package) is None
    except ModuleNotFoundError:
        return True
