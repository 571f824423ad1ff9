"""The record that all contenders write, and the limit that all are held against."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import msgspec
from msgspec import structs

from litellm_ledger import UsageRecord

__all__ = [
    "BATCH",
    "COST",
    "TAGS",
    "Line",
    "as_called",
    "fields",
    "limit",
    "line",
    "line_bytes",
    "made",
    "sealed",
]

BATCH: Final = 256
"""Records in one write of the limit: as many as the ledger's writer takes at most."""

COST: Final = Decimal("0.00027")
TAGS: Final = {"user": "alice"}


def made(n: int) -> UsageRecord:
    """Make the record a caller would make."""
    return UsageRecord(
        model="gpt-4o-mini",
        provider="openai",
        call="acompletion",
        input_tokens=1_000,
        output_tokens=200,
        cost=COST,
        tags=TAGS,
        call_id=str(n),
    )


def fields(n: int) -> dict[str, Any]:
    """Return the same as a dict, for those who queue dicts."""
    return {
        "model": "gpt-4o-mini",
        "provider": "openai",
        "call": "acompletion",
        "input_tokens": 1_000,
        "output_tokens": 200,
        "cost_picousd": 270_000_000,
        "tags": TAGS,
        "call_id": str(n),
    }


class Line(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="v", tag=1):
    """A line of the ledger as it is on disk, written down a second time: owes ours nothing."""

    id: str
    seq: int
    kind: str
    ts: datetime
    operation: str
    attempt: int
    call: str
    model: str
    response_model: str | None = None
    provider: str | None = None
    status: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    usage_source: str | None = None
    cost_picousd: int | None = None
    cost_source: str | None = None
    price_version: str | None = None
    latency_ms: float | None = None
    ttft_ms: float | None = None
    stream: bool | None = None
    tags: dict[str, str] | None = None
    call_id: str | None = None
    response_id: str | None = None
    meta: dict[str, str] | None = None


_encode = msgspec.json.Encoder().encode
_NOW: Final = datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
_ID: Final = "20260101T000000Z-0123456789abcdef-0000000000000001"
_AS_CALLED: Final[dict[str, Any]] = {
    "ts": _NOW,
    "operation": _ID,
    "attempt": 1,
    "response_model": "gpt-4o-mini-2024-07-18",
    "cost_source": "litellm",
    "price_version": "litellm-1.106.2+f1a8efb9",
    "latency_ms": 812.345,
    "ttft_ms": 120.5,
    "stream": True,
    "call_id": "27b3b99a-e027-4bb8-9fd2-4b055e4e7cb1",
    "response_id": "chatcmpl-02e34445-080c-4d1c-b5e9-4fc468648a2a",
    "meta": {"litellm": "1.106.2"},
}


def as_called() -> UsageRecord:
    """Make the record that the client makes of a call: all of its fields."""
    return structs.replace(made(1), **_AS_CALLED)


def line(*, long: bool) -> Line:
    """Make a line of the ledger, with all that a call writes or with what a caller gives."""
    given: dict[str, Any] = {
        **fields(1),
        "ts": _NOW,
        "operation": _ID,
        "attempt": 1,
        **(_AS_CALLED if long else {}),
    }
    return Line(
        id=_ID,
        seq=1,
        kind="usage",
        status="ok",
        total_tokens=1_200,
        usage_source="provider",
        **given,
    )


def sealed(line: Line) -> bytes:
    """Encode a line, with its checksum."""
    body = _encode(line)[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def line_bytes(*, long: bool) -> int:
    """Return the size of one line of the limit."""
    return len(_encode(line(long=long))) + 18


def limit(
    path: Path, records: int, *, batch: int = BATCH, syncs: int = 0, long: bool = False
) -> None:
    """Write lines as fast as one thread can: encode, checksum, write; nothing else.

    The same record each time: nothing is numbered, queued, counted, checked or promised.  ``syncs``
    calls of ``fdatasync`` are spread over it.
    """
    one = line(long=long)
    every = records / syncs if syncs else float("inf")
    due = every
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        for start in range(0, records, batch):
            lines = []
            for _ in range(min(batch, records - start)):
                body = _encode(one)[:-1]  # not ``sealed``: a call of a function is a tenth of it
                lines.append(b'%b,"crc":"%08x"}\n' % (body, crc32(body)))
            os.write(fd, b"".join(lines))
            if start + batch >= due:
                os.fdatasync(fd)
                due += every
    finally:
        os.close(fd)
        path.unlink()
