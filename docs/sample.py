"""Write a ledger that looks like one of a small product: eight weeks, three writers, six models.

    python docs/sample.py LEDGER [now]

With ``now`` the eight weeks end today, in place of a day that stays the same.

For the pictures in these pages and for a look at the commands.  The calls are invented, by a fixed
seed; the records are written by the library itself.
"""

from __future__ import annotations

import asyncio
import random
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from litellm_ledger import UsageRecord, UsageTracker

# US dollars for a million tokens: input, input read from cache, output; how often it is asked.
MODELS = {
    "openai/gpt-4o": ("2.50", "1.25", "10.00", 20),
    "openai/gpt-4o-mini": ("0.15", "0.075", "0.60", 40),
    "openai/o3-mini": ("1.10", "0.55", "4.40", 9),
    "anthropic/claude-sonnet-4": ("3.00", "0.30", "15.00", 16),
    "gemini/gemini-2.5-flash": ("0.30", "0.075", "2.50", 12),
    "mistral/our-own-tune": (None, None, None, 3),
}
USERS = {"acme": 30, "birchwood": 22, "corvid": 14, "delta": 9, "elm": 7, "fjord": 5, "gable": 3}
FEATURES = ("chat", "search", "summary", "agent")
ENDINGS = {"ok": 940, "error": 25, "cancelled": 13, "abandoned": 22}
ERRORS = ("RateLimitError", "Timeout", "APIConnectionError", "BadRequestError")
END = datetime(2025, 11, 16, tzinfo=UTC)
DAYS = 56


def call(lots: random.Random, ts: datetime) -> UsageRecord:
    """Invent one call."""
    model = lots.choices([*MODELS], [row[3] for row in MODELS.values()])[0]
    per_input, per_cached, per_output, _ = MODELS[model]
    status = lots.choices([*ENDINGS], [*ENDINGS.values()])[0]
    user = lots.choices([*USERS], [*USERS.values()])[0]
    tags = {"user": user, "feature": lots.choice(FEATURES), "env": "prod"}
    common = {"ts": ts, "call": "acompletion", "model": model, "tags": tags, "status": status}
    if status == "error":
        error = lots.choices(ERRORS, [8, 4, 2, 1])[0]
        return UsageRecord(
            **common, error=error, usage_source="none", latency_ms=round(lots.uniform(40, 900), 1)
        )
    given = int(lots.lognormvariate(7.1, 0.9))
    cached = int(given * lots.uniform(0.4, 0.9)) // 128 * 128 if lots.random() < 0.45 else 0
    written = int(lots.lognormvariate(5.4, 0.8))
    thought = int(written * 2.5) if "o3" in model else 0
    if status != "ok":
        written = written // 3
    cost = None
    if per_input is not None and status != "cancelled":
        amount = Decimal(per_input) * (given - cached) + Decimal(per_cached or 0) * cached
        cost = (amount + Decimal(per_output or 0) * (written + thought)) / 1_000_000
    slow = 1.6 if "claude" in model else 2.2 if "o3" in model else 1.0
    first = lots.lognormvariate(5.9, 0.4) * slow
    return UsageRecord(
        **common,
        provider=model.partition("/")[0],
        usage_source="provider" if status == "ok" else "estimated",
        input_tokens=given,
        output_tokens=written + thought,
        cache_read_tokens=cached,
        reasoning_tokens=thought,
        cost=cost,
        cost_source=None if cost is None else "litellm",
        latency_ms=round(first + written * lots.uniform(6, 14) * slow, 1),
        ttft_ms=round(first, 1),
        stream=True,
    )


async def write(ledger: Path, end: datetime = END) -> None:
    lots = random.Random(7)
    for part in range(3):
        async with UsageTracker(ledger, handle_signals=False) as tracker:
            for day in range(DAYS):
                date = end - timedelta(days=DAYS - day)
                busy = 90 * (1 + day / DAYS) * (0.35 if date.weekday() > 4 else 1)
                for _ in range(int(busy * lots.uniform(0.7, 1.3))):
                    hour = min(23.99, max(0.0, lots.gauss(13 + part, 4)))
                    invented = call(lots, date + timedelta(hours=hour))
                    if invented.ts <= datetime.now(UTC):
                        tracker.record_nowait(invented)
                await tracker.flush()


if __name__ == "__main__":
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    asyncio.run(
        write(Path(sys.argv[1]), midnight + timedelta(days=1) if sys.argv[2:] == ["now"] else END)
    )
