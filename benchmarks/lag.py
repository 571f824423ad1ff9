"""How late an event loop is while records are made on it.

``python -m benchmarks lag`` runs this section alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ._collector import Collector
from ._peers import INSTALL, PEERS, Bare, LedgerRecorder, Recorder, missing
from ._size import Size
from ._table import Table, quantity

__all__ = ["run"]

_TICK: Final = 0.001
_RATES: Final = (1_000, 5_000, 20_000)
_BEHIND: Final = 0.95
"""Below this share of the rate, the maker did not keep up and the lag says nothing."""


class _Idle(Recorder):
    name = "an idle loop"


class _Thrown(Recorder):
    """Makes the same dicts at the same rate, and throws them away."""

    name = "records made and thrown away"

    def put(self, n: int) -> None:
        self.last = {"call_id": str(n)}


class _Synced(LedgerRecorder):
    name = "litellm-ledger, synced"
    durability = "synced"


_KINDS: Final[tuple[type[Recorder], ...]] = (_Idle, _Thrown, LedgerRecorder, _Synced, Bare, *PEERS)


@dataclass
class _Seen:
    p50: float
    p99: float
    kept: float


def run(size: Size) -> list[Table]:
    """Return the table of this section."""
    return [asyncio.run(_table(size))]


async def _table(size: Size) -> Table:
    table = Table(
        "Lag of the event loop",
        ["", *(f"{what} at {rate:,}/s" for rate in _RATES for what in ("p50", "p99"))],
        f"Milliseconds by which `asyncio.sleep({_TICK})` wakes late, while another task of "
        "the loop makes records at a steady rate; the medians of several runs in turns. The timer "
        "alone is as late as the first row says. Who cannot keep the rate has its share instead.",
    )
    seconds, rounds = size(0.8, 0.1), size(3, 1)
    kinds = [kind for kind in _KINDS if not missing(kind)]
    seen: dict[tuple[type[Recorder], int], list[_Seen]] = {}
    with tempfile.TemporaryDirectory() as directory, Collector() as collector:
        recorders: dict[type[Recorder], Recorder] = {}
        for kind in kinds:
            own = tempfile.mkdtemp(dir=directory)
            recorders[kind] = kind(Path(own), queue=100_000, url=collector.url)
            await recorders[kind].open()
        for turn in range(rounds):
            for rate in _RATES:
                for kind in kinds if turn % 2 else reversed(kinds):
                    one = await _run(recorders[kind], 0 if kind is _Idle else rate, seconds)
                    seen.setdefault((kind, rate), []).append(one)
        for kind in kinds:
            if kind not in (_Idle, _Thrown):
                await recorders[kind].close()
    for kind in _KINDS:
        if kind in kinds:
            table.add(kind.name, *(c for rate in _RATES for c in _cells(seen[kind, rate])))
        else:
            table.add(kind.name, INSTALL)
    return table


def _cells(runs: list[_Seen]) -> tuple[str, str]:
    kept = statistics.median(one.kept for one in runs)
    if kept < _BEHIND:
        return f"keeps {kept:.0%}", ""
    p50 = statistics.median(one.p50 for one in runs)
    return quantity(p50), quantity(statistics.median(one.p99 for one in runs))


async def _run(recorder: Recorder, rate: int, seconds: float) -> _Seen:
    ends = time.perf_counter() + seconds
    late: list[float] = []
    made = 0

    async def tick() -> None:
        while (began := time.perf_counter()) < ends:
            await asyncio.sleep(_TICK)
            late.append(time.perf_counter() - began - _TICK)

    async def make() -> None:
        nonlocal made
        began = time.perf_counter()
        while (now := time.perf_counter()) < ends:
            due = min(int((now - began) * rate) - made, rate // 100)  # no burst to catch up
            for n in range(made, made + due):
                recorder.put(n)
            made += max(0, due)
            await asyncio.sleep(_TICK)

    makers = [asyncio.create_task(make())] if rate else []
    await tick()
    for task in makers:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    if rate:
        with contextlib.suppress(NotImplementedError):
            await recorder.flush()
    ordered = sorted(late)
    return _Seen(
        statistics.median(ordered) * 1e3,
        ordered[int(len(ordered) * 0.99)] * 1e3,
        made / (rate * seconds) if rate else 1.0,
    )
