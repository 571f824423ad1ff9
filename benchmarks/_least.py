"""The least that such a ledger could cost: the same lines on disk, and nothing promised.

Three floors.  They tell our distance from the limit apart from the distance that any ledger has
which is written in Python, numbers its records, or goes through an ``asyncio.Queue``.  None of them
checks a value, adds up totals, knows tags, waits for room, acknowledges, syncs, or tries again.
"""

from __future__ import annotations

import os
import time
import uuid
from copy import copy
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import msgspec

from ._asking import Call
from ._peers import Bare
from ._work import BATCH, Line, line, sealed

__all__ = ["Least", "LeastCall", "numbered"]

_ID: Final = "20260101T000000Z-0123456789abcdef-{:016d}"


def numbered(path: Path, records: int, *, long: bool = False) -> None:
    """Write lines as docs/FORMAT.md demands them, as fast as one thread can, and nothing else.

    Each has its own number, its id, and a time if its caller gave none; a record of no call is its
    own operation.
    """
    one = line(long=long)
    encode = msgspec.json.Encoder().encode
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        for start in range(0, records, BATCH):
            lines = []
            for number in range(start + 1, min(start + BATCH, records) + 1):
                one.seq = number
                one.id = _ID.format(number)
                if not long:
                    one.ts = datetime.now(UTC)
                    one.operation = one.id
                body = encode(one)[:-1]
                lines.append(b'%b,"crc":"%08x"}\n' % (body, crc32(body)))
            os.write(fd, b"".join(lines))
    finally:
        os.close(fd)
        path.unlink()


class Least(Bare):
    """A record into the queue; one task gives each a number and its id, encodes and writes."""

    name = "the least: a queue, and a task that numbers, encodes and writes"
    line = line(long=True)

    def lines(self, taken: list[tuple[int, Line]]) -> list[bytes]:
        lines = []
        for number, given in taken:
            numbered = copy(given)
            numbered.seq = number
            numbered.id = _ID.format(number)
            lines.append(sealed(numbered))
        return lines

    def put(self, n: int) -> None:
        self.waiting.put_nowait((n, self.line))


class LeastCall:
    """``litellm.acompletion`` with the two lines of a call written around it, nothing between."""

    def __init__(self, path: Path, bare: Call) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._bare = bare
        self._last = 0

    async def __call__(self, **kwargs: Any) -> Any:
        ts, began = datetime.now(UTC), time.perf_counter()
        operation = self._next()
        common: dict[str, Any] = {
            "ts": ts,
            "operation": operation,
            "attempt": 1,
            "call": "acompletion",
            "model": kwargs["model"],
            "stream": False,
            "call_id": kwargs.setdefault("litellm_call_id", str(uuid.uuid4())),
        }
        self._write(Line(id=operation, seq=self._last, kind="started", **common))
        answer = await self._bare(**kwargs)
        usage, hidden = answer.usage, answer._hidden_params
        outcome = Line(
            id=self._next(),
            seq=self._last,
            kind="usage",
            response_model=answer.model,
            provider=hidden["custom_llm_provider"],
            status="ok",
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
            usage_source="provider",
            cost_picousd=int(Decimal(repr(hidden["response_cost"])).scaleb(12)),
            cost_source="litellm",
            latency_ms=round((time.perf_counter() - began) * 1000, 3),
            response_id=answer.id,
            meta={"litellm": "1.106.2"},
            **common,
        )
        self._write(outcome)
        object.__setattr__(answer, "usage_record", outcome)
        return answer

    def _next(self) -> str:
        self._last += 1
        return _ID.format(self._last)

    def _write(self, one: Line) -> None:
        os.write(self._fd, sealed(one))

    def close(self) -> None:
        os.close(self._fd)
