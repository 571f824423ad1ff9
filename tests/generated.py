"""Large ledgers made up by several processes, and what they say, added up in plain Python.

Owns the making (dense around the days on which clocks change, with lines damaged, doubled, torn,
gaps, calls unsettled and in flight) and an independent reckoning: ``json``, ``zlib``, ``zoneinfo``
and integers, by the words of docs/FORMAT.md, with no code of the library's.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from litellm_ledger._records.line import encode
from litellm_ledger._records.record import UsageRecord

MODELS = ("gpt-4o-mini", "claude-sonnet-4", "gemini-2.5-flash", "o3 \"preview\" 'x'")
SEGMENT = 8 * 2**20
_SPRING = datetime(2025, 3, 29, 12, tzinfo=UTC)
_AUTUMN = datetime(2025, 10, 25, 12, tzinfo=UTC)


# -- making ------------------------------------------------------------------------------------


def make_ledger(
    root: Path, lines: int, *, seed: int = 1, segment: int = SEGMENT, damage: float = 0.5
) -> None:
    """Write about ``lines`` lines by four processes, segments of about ``segment`` bytes.

    ``damage``: in which part of the segments, besides the very first, a line is damaged.
    """
    for part in ("segments", "live", "recovery"):
        (root / part).mkdir(parents=True, exist_ok=True)
    jobs = [(root, number, lines // 4, seed, segment, damage) for number in range(4)]
    if lines < 50_000:
        for job in jobs:
            _Maker(*job).make()
        return
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(_make, jobs, chunksize=1)


def _make(*job: Any) -> None:
    _Maker(*job).make()


class _Maker:
    """One writer: sealed segments, one of them doubled in part, and an open one with a torn end."""

    def __init__(
        self, root: Path, number: int, lines: int, seed: int, segment: int, damage: float
    ) -> None:
        self.root = root
        self.writer = f"20250101T00000{number}Z-{seed:08x}{number:08x}"
        self.number = number
        self.lines = lines
        self.segment = segment
        self.damage = damage
        self.random = random.Random(seed * 1000 + number)
        self.seq = self.first = 1
        self.held: list[bytes] = []
        self.size = 0
        self.began: list[dict[str, Any]] = []

    def make(self) -> None:
        while self.seq <= self.lines:
            self.put(*self.some())
            if self.size >= self.segment:
                self.seal()
        self.seal(doubled=True)
        self.recovered()
        self.put(*self.some())
        self.put(*self.some())
        path = self.root / "segments" / f"{self.writer}.{self.first:016d}.jsonl.open"
        path.write_bytes(b"".join(self.held) + self.held[-1][:-7])

    def put(self, *records: dict[str, Any]) -> None:
        for fields in records:
            record = UsageRecord(id=f"{self.writer}-{self.seq:016d}", seq=self.seq, **fields)
            self.held.append(encode(record))
            self.size += len(self.held[-1])
            self.seq = (record.gap_until or self.seq) + 1

    def some(self) -> list[dict[str, Any]]:
        """One call: its start, its end; now and then a second attempt, or no end yet."""
        rng = self.random
        operation = f"{self.writer}-{self.seq:016d}"
        found: list[dict[str, Any]] = []
        for attempt in range(1, 2 + (rng.random() < 0.05)):
            base = {
                "ts": self.moment(),
                "operation": operation,
                "attempt": attempt,
                "call": "acompletion",
                "model": rng.choice(MODELS),
                "provider": rng.choice(("openai", "anthropic", None)),
                "tags": self.tags(),
            }
            if rng.random() < 0.001:
                self.began.append(base)
                found.append({"kind": "started", **base})
            else:
                found += [{"kind": "started", **base}, {"kind": "usage", **base, **self.outcome()}]
        return found

    def moment(self) -> datetime:
        rng = self.random
        begin, days = rng.choice(
            ((datetime(2025, 1, 1, tzinfo=UTC), 364), (_SPRING, 2), (_AUTUMN, 2))
        )
        return begin + timedelta(microseconds=rng.randrange(days * 86_400 * 10**6))

    def tags(self) -> dict[str, str] | None:
        rng = self.random
        if rng.random() < 0.1:
            return None
        return {"user": f"user-{rng.randrange(100)}", "team é'\"": rng.choice(("ä", "", "b'\""))}

    def outcome(self) -> dict[str, Any]:
        rng = self.random
        dice = rng.random()
        if dice < 0.03:
            return {
                "status": "error",
                "error": "Timeout",
                "usage_source": "none",
                "cost": Decimal(0),
            }
        if dice < 0.05:
            return {"status": rng.choice(("cancelled", "abandoned")), "usage_source": "none"}
        read, wrote = rng.randrange(50_000), rng.randrange(5_000)
        fields: dict[str, Any] = {
            "status": "ok" if dice < 0.97 else "abandoned",
            "input_tokens": read,
            "output_tokens": wrote,
            "usage_source": "provider" if dice < 0.97 else "estimated",
            "latency_ms": rng.random() * 30_000,
        }
        if dice < 0.9:
            pico = rng.randrange(10**10) if dice > 0.051 else rng.randrange(2**53, 2**56)
            fields |= {"cost": Decimal(pico).scaleb(-12), "cost_source": "litellm"}
        if dice < 0.5:
            fields |= {"cache_read_tokens": read // 2, "ttft_ms": rng.random() * 900}
        if dice < 0.1:
            fields |= {"cache_hit": True, "saved_cost": Decimal(rng.randrange(10**9)).scaleb(-12)}
        if dice < 0.3:
            fields |= {"reasoning_tokens": wrote // 3, "cache_write_tokens": 7, "meta": {"n": dice}}
        return fields

    def seal(self, *, doubled: bool = False) -> None:
        """Seal; damage a line in every other segment; or double the last half in another one."""
        if not self.held:
            return
        name = f"{self.writer}.{self.first:016d}-{self.seq - 1:016d}.jsonl"
        lines = list(self.held)
        if doubled and len(lines) > 4:
            half = lines[-min(len(lines) // 2, 2_000) :]
            first = int(json.loads(half[0])["seq"])
            twin = f"{self.writer}.{first:016d}-{self.seq - 1:016d}.jsonl"
            (self.root / "segments" / twin).write_bytes(b"".join(half))
        elif self.first == self.number + 1 or self.random.random() < self.damage:
            at = self.random.randrange(len(lines))
            spot = self.random.randrange(len(lines[at]) - 1)
            line = bytearray(lines[at])
            line[spot] ^= 1 << self.random.randrange(3)
            lines[at] = bytes(line)
        (self.root / "segments" / name).write_bytes(b"".join(lines))
        self.held, self.size, self.first = [], 0, self.seq

    def recovered(self) -> None:
        """What recovery writes: a gap, the calls unsettled, one of which has ended all the same."""
        self.put({"kind": "gap", "gap_until": self.seq + 4, "reason": "lost"})
        for base in self.began[:50]:
            self.put({"kind": "usage", **base, "status": "unsettled", "usage_source": "none"})
        if self.began:
            self.put({"kind": "usage", **self.began[0], **self.outcome()})
        self.seal()


# -- reckoning ---------------------------------------------------------------------------------

_WASTED = ("error", "cancelled", "abandoned")
_NAME = re.compile(r"(\d{8}T\d{6}Z-[0-9a-f]{16})\.(\d{16})(?:-(\d{16})\.jsonl|\.jsonl\.open)")


Question = tuple[tuple[str, ...], str]
"""Group keys, and the zone of the periods among them."""

Sums = dict[tuple[str, ...], Counter[str]]


class Reckoning:
    """What a ledger says, to the questions that are named beforehand: one pass, little memory."""

    def __init__(self, root: Path, questions: Iterable[Question] = ()) -> None:
        self.damaged = self.calls = self.records = 0
        asked = tuple({((), "UTC"), *questions})
        self._sums: dict[Question, Sums] = {question: defaultdict(Counter) for question in asked}
        self._spread = {"latency_ms": array("d"), "ttft_ms": array("d")}
        files = defaultdict(list)
        for path in sorted((root / "segments").iterdir()):
            if match := _NAME.fullmatch(path.name):
                files[match[1]].append(path)
        jobs = [(writer, paths, asked) for writer, paths in files.items()]
        if sum(path.stat().st_size for paths in files.values() for path in paths) < 2**26:
            parts = [_Part(*job) for job in jobs]
        else:
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                parts = pool.starmap(_Part, jobs, chunksize=1)
        for part in parts:
            self.damaged += part.damaged
            self.calls += part.calls
            self.records += part.records
            for name, values in part.spread.items():
                self._spread[name].extend(values)
            for question, found in part.sums.items():
                for group, sums in found.items():
                    self._sums[question][group].update(sums)

    def sums(
        self, by: Sequence[str] = (), zone: str = "UTC"
    ) -> dict[tuple[str, ...], dict[str, int]]:
        """Return group -> name -> sum, those that are not 0; money in picodollars."""
        return {
            group: {name: value for name, value in sums.items() if value}
            for group, sums in self._sums[tuple(by), zone].items()
        }

    def spread(self, name: str) -> tuple[int, float, float, float, float]:
        """Return count, the three quantiles and the largest over all calls that succeeded."""
        values = sorted(self._spread[name])
        p50, p90, p99 = (values[-(-per * len(values) // 100) - 1] for per in (50, 90, 99))
        return len(values), p50, p90, p99, values[-1]


class _Part:
    """What one writer's files say."""

    def __init__(self, writer: str, paths: list[Path], asked: tuple[Question, ...]) -> None:
        self.writer, self.paths = writer, paths
        self.damaged = self.calls = self.records = 0
        self.sums: dict[Question, Sums] = {question: defaultdict(Counter) for question in asked}
        self.spread = {"latency_ms": array("d"), "ttft_ms": array("d")}
        unsettled: dict[tuple[str, int], dict[str, Any]] = {}
        for record in self._lines(b'"unsettled"'):
            unsettled.setdefault(_call(record), record)
        seen = bytearray()
        for record in self._lines():
            seq = record["seq"]
            if record["kind"] == "gap":
                continue
            if seq >= len(seen):
                seen.extend(bytes(seq + 1_000_000))
            if seen[seq]:
                continue
            seen[seq] = 1
            self.records += 1
            if record["kind"] == "usage" and record["status"] != "unsettled":
                unsettled.pop(_call(record), None)
                self._add(record)
        for record in unsettled.values():
            self._add(record)

    def _lines(self, having: bytes = b"") -> Iterator[dict[str, Any]]:
        self.damaged = 0
        for path in self.paths:
            first = int(_NAME.fullmatch(path.name)[2])  # type: ignore[index]
            with path.open("rb") as file:
                for line in file:
                    if having not in line:
                        continue
                    body, end = line[:-19], line[-19:]
                    if end == b',"crc":"%08x"}\n' % zlib.crc32(body):
                        record = json.loads(line)
                        seq = record["seq"]
                        if record["id"] == f"{self.writer}-{seq:016d}" and seq >= first:
                            yield record
                            continue
                    if line.endswith(b"\n") or not path.name.endswith(".open"):
                        self.damaged += 1

    def _add(self, record: dict[str, Any]) -> None:
        self.calls += 1
        status, source = record["status"], record["usage_source"]
        cost = record.get("cost_picousd")
        adds = {
            "calls": 1,
            status: 1,
            "retries": record["attempt"] > 1,
            "cache_hits": bool(record.get("cache_hit")),
            "cost": cost or 0,
            "saved_cost": record.get("saved_cost_picousd") or 0,
            "priced": cost is not None,
            "unpriced": cost is None and status == "ok",
            "unknown_cost": cost is None
            and status != "ok"
            and (status != "error" or source != "none"),
            "estimated_cost": (cost or 0) if source == "estimated" else 0,
            "wasted_cost": (cost or 0) if status in _WASTED else 0,
            "provider_reported": source == "provider",
            "estimated": source == "estimated",
            "uncounted": source == "none" and status != "error",
        }
        for kind in ("input", "output", "total", "cache_read", "cache_write", "reasoning"):
            adds[f"{kind}_tokens"] = record.get(f"{kind}_tokens") or 0
        for (by, zone), sums in self.sums.items():
            sums[tuple([_value(record, key, zone) for key in by])].update(adds)
        if status == "ok":
            for name, values in self.spread.items():
                if name in record:
                    values.append(record[name])


def _call(record: dict[str, Any]) -> tuple[str, int]:
    return record.get("operation") or record["id"], record.get("attempt") or 1


@lru_cache(maxsize=100_000)
def _local(ts: str, zone: str) -> datetime:
    return datetime.fromisoformat(ts).astimezone(ZoneInfo(zone))


def _value(record: dict[str, Any], key: str, zone: str) -> str:
    if key in ("hour", "day", "week", "month"):
        local = _local(record["ts"][:13] + ":00:00+00:00", zone)
        if key == "hour":  # whole hours of UTC are whole hours in the zones that are asked for
            return local.isoformat(timespec="minutes")
        day: date = local.date()
        if key == "week":
            day -= timedelta(days=day.isoweekday() % 7)  # weeks that begin on Sunday
        return day.isoformat()[:7] if key == "month" else day.isoformat()
    if key.startswith("tag:"):
        return (record.get("tags") or {}).get(key[4:], "(none)")  # type: ignore[no-any-return]
    return record.get(key) or "(none)"


def as_sums(row: Any) -> dict[str, int]:
    """Turn a row of a report into what ``Reckoning.sums`` gives; money exactly."""
    found = {}
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if isinstance(value, Decimal):
            pico = value.scaleb(12)
            assert pico == int(pico)
            value = int(pico)
        if isinstance(value, int) and value:
            found[name] = value
    return found
