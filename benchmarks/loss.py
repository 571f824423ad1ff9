"""What is lost when a program ends in six ways: real processes, counted record by record.

``python -m benchmarks loss`` runs this section alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Final

from litellm_ledger import Ledger

from ._collector import Collector
from ._doomed import MAKERS, Callback, Client, Generations, Maker, Rows, Spans
from ._page import ROOT
from ._peers import INSTALL, Langfuse, OpenTelemetry, missing
from ._size import Size
from ._table import Table

__all__ = ["absent", "run"]

_CALLS: Final = (Client, Callback)
_NEEDS: Final = {Spans: OpenTelemetry, Generations: Langfuse}
_IMPORTS: Final = ((), ("litellm",), ("opentelemetry.sdk.trace.export",), ("langfuse",))


@dataclass(frozen=True)
class _Ending:
    """How a program ends; ``pause``: seconds between two records of one task."""

    title: str
    signal: signal.Signals | None = None
    close: bool = False
    pause: float = 0.0
    full: float = 0.0


_DOWN: Final = 2.0
_STEADY: Final = 16
"""Tasks that make records where it is no burst; in a burst each record has a task of its own."""
_ENDINGS: Final = (
    _Ending("a burst, then an orderly close", close=True),
    _Ending("a burst, then the program ends, nothing closed"),
    _Ending("SIGTERM at work", signal=signal.SIGTERM, pause=0.005),
    _Ending("SIGKILL at work", signal=signal.SIGKILL, pause=0.005),
    _Ending("disk full or collector down, then an orderly close", close=True, full=_DOWN),
)


@dataclass
class _Lost:
    """Of all runs: records that the caller believed safe, and what became of them."""

    runs: int = 0
    made: int = 0
    lost: int = 0
    doubled: int = 0
    refused: int = 0
    silent: int = 0


def run(size: Size) -> list[Table]:
    """Return the table of this section."""
    table = Table(
        "Records lost",
        ["", *(ending.title for ending in _ENDINGS)],
        "Lost of made, over all runs; *made* are those whose call had come back to the caller's "
        "code. In a burst each has a task of its own, all at once; else there are 16 tasks. Ours "
        "acknowledges at `written`, `record_nowait()` excepted, which only queues. Everybody has "
        "the settings that he comes with. For two seconds the disk is full (no file may grow; for "
        "Langfuse: its collector refuses connections), then all is well again. *Silent*: at least "
        "one run lost records, exited with status 0 and wrote nothing to standard error.",
    )
    makers = [name for name, kind in MAKERS.items() if not absent(kind)]
    jobs = [(name, ending) for ending in _ENDINGS for name in makers]
    if size.quick:  # a program that has imported LiteLLM takes a second to end by itself
        slow = {name for name, kind in MAKERS.items() if kind in _CALLS}
        jobs = [job for job in jobs if job[0] not in slow or job[1] in _ENDINGS[2:4]]
    groups = {imports: [job for job in jobs if _imports(job[0]) == imports] for imports in _IMPORTS}
    found: dict[tuple[str, _Ending], _Lost] = {}

    def group(imports: tuple[str, ...]) -> None:
        with contextlib.closing(_Nursery(imports)) as nursery:
            for name, ending in groups[imports]:
                found[name, ending] = _runs(nursery, name, ending, size)

    with ThreadPoolExecutor() as pool:  # side by side: nothing here is timed
        list(pool.map(group, [imports for imports in _IMPORTS if groups[imports]]))
    for name in MAKERS:
        if name not in makers:
            table.add(name, INSTALL)
            continue
        cells = [found.get((name, ending)) for ending in _ENDINGS]
        table.add(name, *(_cell(one) if one else "not with --quick" for one in cells))
    return [table]


def absent(kind: type[Maker]) -> bool:
    """Tell whether what it needs is not installed."""
    return kind in _NEEDS and missing(_NEEDS[kind])


def _imports(name: str) -> tuple[str, ...]:
    kind = MAKERS[name]
    return _IMPORTS[
        1 if kind in _CALLS else 2 if kind is Spans else 3 if kind is Generations else 0
    ]


def _cell(lost: _Lost) -> str:
    share = f" ({lost.lost / lost.made:.0%})" if lost.lost else ""
    text = f"{lost.lost:,} of {lost.made:,}{share}"
    if lost.lost and lost.silent:
        text += ", silent"
    if lost.doubled:
        text += f", {lost.doubled:,} doubled"
    if lost.refused:
        text += f", {lost.refused:,} refused"
    return text


class _Nursery:
    """See ``_doomed``; one program at a time."""

    def __init__(self, imports: Sequence[str]) -> None:
        env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._doomed", *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=ROOT,
        )
        self.expect("ready")

    def start(self, order: dict[str, object]) -> int:
        """Fork a program; return its process id once it has begun to record."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self.expect("pid"))

    def expect(self, word: str) -> str:
        """Return what follows ``word`` on the line on which it is said."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(word):
                return line[len(word) :].strip()
            if line.startswith("ended"):
                raise RuntimeError(f"a program ended before it said {word}: {line}")
        raise RuntimeError(f"the nursery ended; it never said {word}")

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)  # closes its input, which ends it


def _runs(nursery: _Nursery, name: str, ending: _Ending, size: Size) -> _Lost:
    lost = _Lost()
    slow = MAKERS[name] in _CALLS
    burst = ending.signal is None and not ending.full
    # LiteLLM still makes about 300 callbacks up for when its loop ends: a burst has more.
    few, many = (300, 2_000) if slow else (3_000, 10_000)
    records = size(many if burst else few, 30)
    count = size(1 if ending.full else 6 if ending.signal else 2, 1)
    moments = random.Random(f"{name} {ending.title}")
    for _ in range(count):
        _once(nursery, name, ending, records, moments.random(), size, lost)
    return lost


def _once(
    nursery: _Nursery,
    name: str,
    ending: _Ending,
    records: int,
    moment: float,
    size: Size,
    lost: _Lost,
) -> None:
    maker = MAKERS[name]
    down = size(ending.full, 0.2) if ending.full else 0.0
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        root = Path(directory)
        (root / "data").mkdir()
        (root / "board").write_bytes(bytes(records))
        remote = maker is Generations
        collector = stack.enter_context(Collector(up=not (remote and down))) if remote else None
        order = {
            "maker": name,
            "directory": directory,
            "url": collector.url if collector else "",
            "records": records,
            "at_once": _STEADY if down or ending.signal is not None else records,
            # While the disk is full, records come at a rate that a queue of 2,000 can hold.
            "pause": down * _STEADY / records if down else ending.pause,
            "full": 0 if remote else down,
            "close": ending.close,
            "wait": ending.signal is not None,
        }
        pid = nursery.start(order)
        nursery.expect("open")
        if collector is not None and down:
            Timer(down, collector.rise).start()
        if ending.signal is not None:
            _strike(pid, ending.signal, root / "board", int(records * (0.2 + 0.6 * moment)))
        status = int(nursery.expect("ended"))
        if collector is not None:
            time.sleep(0.2)  # what was sent has arrived
        found = Counter(_found(maker, root / "data", collector))
        board = (root / "board").read_bytes()
        said = (root / "stderr").read_text(errors="replace")
    safe = {n for n, mark in enumerate(board) if mark == 1}
    missed = len(safe - found.keys())
    lost.runs += 1
    lost.made += len(safe)
    lost.lost += missed
    lost.doubled += sum(many - 1 for many in found.values())
    lost.refused += board.count(2)
    lost.silent += bool(missed and not status and not said.strip())


def _strike(pid: int, number: signal.Signals, board: Path, marks: int) -> None:
    """Send a signal when this number of records is made."""
    until = time.monotonic() + 60
    while board.read_bytes().count(1) < marks and time.monotonic() < until:
        time.sleep(0.001)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _found(maker: type[Maker], data: Path, collector: Collector | None) -> list[int]:
    if collector is not None:
        return collector.numbers()
    if maker is Rows:
        with contextlib.closing(sqlite3.connect(data / "usage.db")) as connection:
            return [int(key) for (key,) in connection.execute("SELECT call_id FROM usage")]
    if maker is Callback:
        return [int(line["call_id"]) for line in _lines(data / "callback.jsonl")]
    if maker is Spans:
        return [int(line["attributes"]["call_id"]) for line in _lines(data / "spans.jsonl")]
    if maker is Client:
        return [int((record.tags or {})["call_id"]) for record in Ledger(data).records()]
    return [int(record.call_id or -1) for record in Ledger(data).records()]


def _lines(path: Path) -> Iterator[dict[str, dict[str, str]]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # cut off by a kill
                yield json.loads(line)
