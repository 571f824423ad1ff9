"""Memory of one queued record, by the resident size of a fresh process.

``python -m benchmarks memory`` runs this section alone.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from ._collector import Collector
from ._page import ROOT
from ._peers import (
    INSTALL,
    Bare,
    Callback,
    Langfuse,
    LedgerRecorder,
    OpenTelemetry,
    Recorder,
    missing,
)
from ._size import Size
from ._table import Table, quantity, spread

__all__ = ["run"]

_KINDS: Final[tuple[type[Recorder], ...]] = (
    LedgerRecorder,
    Bare,
    Callback,
    OpenTelemetry,
    Langfuse,
)
_SLOW: Final = (OpenTelemetry, Langfuse)
# LiteLLM's own queue takes 50,000.
_MOST: Final = 40_000
# So that nothing leaves the queue while we look: they would export from 512 on, or every 5 seconds.
_NO_EXPORT: Final = {
    "OTEL_BSP_MAX_QUEUE_SIZE": "200000",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "200000",
    "OTEL_BSP_SCHEDULE_DELAY": "600000",
    "LANGFUSE_FLUSH_AT": "200000",
    "LANGFUSE_FLUSH_INTERVAL": "600",
}


def run(size: Size) -> list[Table]:
    """Return the table of this section."""
    table = Table(
        "Memory of one queued record",
        ["", "bytes", "× a dict"],
        f"Growth of the resident memory of a process with a full queue ({_MOST:,}; "
        f"{_MOST // 4:,} spans), nothing written yet, the record as the caller made it included; "
        "median and quartiles over fresh processes.",
    )
    kinds = [kind for kind in _KINDS if not missing(kind)]
    found: dict[type[Recorder], list[float]] = {kind: [] for kind in kinds}
    with Collector() as collector:
        until = time.monotonic() + 25
        for turn in range(size(5, 1)):
            if turn and time.monotonic() > until:
                break
            for kind in kinds:
                count = size(_MOST // 4 if kind in _SLOW else _MOST, 200)
                found[kind].append(_apart(kind, count, collector.url))
    base = statistics.median(found[Bare])
    for kind in _KINDS:
        if kind not in found:
            table.add(kind.name, INSTALL)
            continue
        share = f"{quantity(statistics.median(found[kind]) / base)}×" if base > 0 else ""
        table.add(kind.name, spread(found[kind]), share)
    return [table]


def _apart(kind: type[Recorder], count: int, url: str) -> float:
    command = [sys.executable, "-m", __name__, kind.__name__, str(count), url]
    env = {**os.environ, **_NO_EXPORT}
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, check=True, timeout=120, cwd=ROOT
    )
    return float(done.stdout)


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _grown(kind: type[Recorder], count: int, url: str) -> float:
    with tempfile.TemporaryDirectory() as directory:
        recorder = kind(Path(directory), queue=200_000, url=url)
        await recorder.open()
        for n in range(100):  # what is made once
            recorder.put(n)
        if kind not in _SLOW:
            await recorder.flush()
        before = _resident()
        for n in range(count):
            recorder.put(n)
        return (_resident() - before) / count


if __name__ == "__main__":
    name, number, where = sys.argv[1:]
    (wanted,) = [kind for kind in _KINDS if kind.__name__ == name]
    grown = asyncio.new_event_loop().run_until_complete(_grown(wanted, int(number), where))
    os.write(1, f"{grown}".encode())
    os._exit(0)  # what is queued is not worth writing
