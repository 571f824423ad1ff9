"""Lines as a busy service writes them: dense, of about 750 bytes, made from a seed."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zlib import crc32

from litellm_ledger import UsageRecord
from litellm_ledger._records.layout import record_id
from litellm_ledger._records.line import encode

__all__ = ["lines", "records", "writer_name"]

_MODELS = (
    ("openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18", "openai"),
    ("anthropic/claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "anthropic"),
    ("gemini/gemini-2.5-flash", "gemini-2.5-flash", "gemini"),
    ("openai/gpt-4.1", "gpt-4.1-2025-04-14", "openai"),
)
_STATUSES = ("ok",) * 46 + ("error", "error", "cancelled", "abandoned")
BEGINS = datetime(2026, 9, 1, tzinfo=UTC)


def writer_name(number: int) -> str:
    """Return the name of one of many writers."""
    return f"20260901T000000Z-{number:016x}"


def records(writer: str, count: int, *, days: float = 30.0, seed: int = 1) -> Iterator[UsageRecord]:
    """Yield outcomes numbered from 1, over a number of days: 2,000 users of 50 teams."""
    chance = random.Random(f"{writer} {seed}")
    step = timedelta(days=days) / count
    for seq in range(1, count + 1):
        model, answered, provider = chance.choices(_MODELS, (6, 2, 2, 1))[0]
        status = chance.choice(_STATUSES)
        counted = status != "error"
        tokens = int(chance.lognormvariate(7, 1)), int(chance.lognormvariate(5, 1))
        user = int(chance.paretovariate(0.7)) % 2_000
        name = record_id(writer, seq)
        yield UsageRecord(
            id=name,
            seq=seq,
            ts=BEGINS + step * seq + timedelta(microseconds=chance.randrange(1_000_000)),
            operation=name,
            attempt=1,
            call="acompletion",
            model=model,
            response_model=answered if counted else None,
            provider=provider,
            status=status,
            error=None if counted else "RateLimitError",
            input_tokens=tokens[0] if counted else None,
            output_tokens=tokens[1] if counted else None,
            cache_read_tokens=tokens[0] // 2 if counted and seq % 3 == 0 else None,
            usage_source="provider" if status == "ok" else "estimated" if counted else "none",
            cost=Decimal(tokens[0] * 150_000 + tokens[1] * 600_000).scaleb(-12)
            if counted
            else None,
            cost_source="price_map" if counted else None,
            price_version=f"map-{crc32(model.encode()):024x}" if counted else None,
            latency_ms=round(chance.lognormvariate(6.5, 0.7), 3),
            ttft_ms=round(chance.lognormvariate(5, 0.7), 3) if seq % 2 else None,
            stream=bool(seq % 2),
            tags={
                "user": f"user-{user:05d}",
                "team": f"team-{user % 50}",
            },
            call_id=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            response_id=f"chatcmpl-{chance.getrandbits(116):029x}" if counted else None,
            meta={"litellm": "1.110.2"} if counted else {"litellm": "1.110.2", "http_status": 429},
        )


def lines(writer: str, count: int, *, days: float = 30.0, seed: int = 1) -> Iterator[bytes]:
    """Yield the same as lines."""
    return map(encode, records(writer, count, days=days, seed=seed))
