"""Millions of records through rotation, faults, reopenings, kills, compaction; then all is counted.

``python -m benchmarks.soak --records 10000000`` takes about ten minutes.  One writer lives through
all of it: its memory, descriptors and threads must stay as they are.  Others write beside it, and
are killed.  At the end nothing that was acknowledged may be missing and nothing may be there twice,
by ``verify`` and by a second count that shares no code with the library (``_census``).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from litellm_ledger import Ledger

from ._census import take
from ._machine import file_system
from ._page import ROOT, write_part
from ._table import Table, quantity

__all__ = ["Soak", "soak"]

CYCLE: Final = 250_000
"""Records between two openings."""

_GROWTH: Final = {"blocks": 0.02, "resident": 0.25, "peak": 0.25}
"""Share by which memory may grow from the second quarter of the cycles to the last.

What Python holds must not grow; what malloc keeps of the batches that a fault made large settles.
"""


@dataclass
class Soak:
    """What happened, and what was found."""

    cycles: list[dict[str, Any]] = field(default_factory=list)
    kills: int = 0
    killed_acked: int = 0
    compactions: int = 0
    compacted: int = 0
    segments: int = 0
    archives: int = 0
    bytes: int = 0
    writing: float = 0.0
    checking: float = 0.0
    lost: int = 0
    doubled: int = 0
    copies: int = 0
    found: int = 0
    verified: bool = False
    unacked: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def made(self) -> int:
        """Records of the steady writer."""
        return int(self.cycles[-1]["done"]) if self.cycles else 0

    def of(self, name: str) -> list[int]:
        """Return one figure of every cycle."""
        return [int(cycle[name]) for cycle in self.cycles]

    def judge(self) -> None:
        """Note everything that is not as it has to be."""
        if self.lost:
            self.problems.append(f"{self.lost} acknowledged records are missing")
        if self.doubled:
            self.problems.append(f"{self.doubled} records are there twice")
        if not self.verified:
            self.problems.append("verify found damage")
        quarter = len(self.cycles) // 4
        if quarter:
            for name, growth in _GROWTH.items():
                early = statistics.median(self.of(name)[quarter : 2 * quarter])
                late = statistics.median(self.of(name)[-quarter:])
                if late > early * (1 + growth):
                    self.problems.append(f"memory grew ({name}): {early:,.0f} to {late:,.0f}")
        for name in ("descriptors", "threads"):
            seen = self.of(name)
            if seen and seen[-1] > seen[0]:
                self.problems.append(f"{name} grew from {seen[0]} to {seen[-1]}")


def soak(directory: Path, records: int, seconds: float, *, cycle: int = CYCLE) -> Soak:
    """Write, break, kill, count.  Leaves the ledger in ``directory``.

    Args:
        records: of the steady writer.
        seconds: after which it begins no further cycle.
        cycle: records between two openings.
    """
    found = Soak()
    chance = random.Random(5)
    ledger = directory / "usage"
    began = time.monotonic()
    acked: dict[str, int] = {}
    arguments = [ledger, records, cycle, seconds, 5]
    with _program("steady", *arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found.cycles.append(json.loads(line))
            prefix = f"v{found.kills}"
            acked[prefix] = _kill_one(directory, ledger, prefix, chance)
            found.kills += 1
            if len(found.cycles) in (2, 4):  # beside those who write
                found.compacted += _compact(ledger)
                found.compactions += 1
        if process.wait():
            found.problems.append(f"the steady writer ended with status {process.returncode}")
    found.writing = time.monotonic() - began
    found.killed_acked = sum(acked.values())
    _run("recover", ledger)

    began = time.monotonic()
    verification = Ledger(ledger).verify()
    # What a killed writer had accepted and not acknowledged is lost, and known to the record.
    found.unacked = verification.total("lost")
    found.verified = not any(
        writer.quarantined or writer.problems for writer in verification.writers
    )
    census = take(ledger)
    found.lost = census.missing("s", found.made)
    found.lost += sum(census.missing(prefix, count) for prefix, count in acked.items())
    found.doubled, found.copies, found.found = census.doubled, census.copies, census.total()
    files = [path for path in ledger.rglob("*") if path.is_file()]
    found.segments = sum(path.suffix == ".jsonl" for path in files)
    found.archives = sum(path.suffix == ".parquet" for path in files)
    found.bytes = sum(path.stat().st_size for path in files)
    found.checking = time.monotonic() - began
    found.judge()
    return found


def _program(*arguments: object, stdout: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks._soaking", *map(str, arguments)]
    # What the ledger says of each fault is not for the terminal.
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)


def _kill_one(directory: Path, ledger: Path, prefix: str, chance: random.Random) -> int:
    """Start a writer, kill it at a moment that nobody chooses; return what it had acknowledged."""
    board = directory / f"board-{prefix}"
    board.write_bytes(bytes(8))

    def count() -> int:
        return int.from_bytes(board.read_bytes(), sys.byteorder)

    with _program("victim", ledger, board, prefix) as process:
        enough = chance.randint(1, 20_000)
        until = time.monotonic() + 30
        while count() < enough and time.monotonic() < until and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.005)
        process.kill()
    return count()


def _compact(ledger: Path) -> int:
    said = _run("compact", "--today", "--json", ledger)
    return int(json.loads(said)["records"])


def _run(*arguments: object) -> str:
    command = [sys.executable, "-m", "litellm_ledger", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout


def report(found: Soak, directory: Path) -> str:
    """Return the part of the page."""
    faults: Counter[str] = Counter()
    for cycle in found.cycles:
        faults.update(cycle["faults"])
    mib = 2**20
    table = Table("What happened, and what was found", ["", ""])
    for name, value in (
        ("records of the steady writer", f"{found.made:,}"),
        ("openings and orderly closes", f"{len(found.cycles)}"),
        ("faults it met", "; ".join(f"{what} {n}×" for what, n in sorted(faults.items()))),
        ("attempts that failed and were made again", f"{sum(found.of('retries')):,}"),
        ("writers killed beside it (SIGKILL)", f"{found.kills}"),
        ("what those had acknowledged", f"{found.killed_acked:,}"),
        ("compactions while they wrote", f"{found.compactions}, {found.compacted:,} records"),
        ("segments, archive files", f"{found.segments}, {found.archives}"),
        ("on disk", f"{found.bytes / 2**30:.1f} GiB"),
        ("**acknowledged records missing**", f"**{found.lost}**"),
        ("**records there twice**", f"**{found.doubled}**"),
        ("damage by `verify`", "none" if found.verified else "**yes**"),
        (
            "accepted by those killed, not acknowledged, lost and on record as lost",
            f"{found.unacked:,}",
        ),
        ("lines written anew after a failed sync, same id", f"{found.copies:,}"),
        ("memory after a close, MiB", _course(found.of("resident"), mib)),
        ("blocks of memory that Python holds", _course(found.of("blocks"))),
        ("most memory while it wrote, MiB", _course(found.of("peak"), mib)),
        ("descriptors after a close", _course(found.of("descriptors"))),
        ("threads after a close", _course(found.of("threads"))),
        ("time to write, and to check", f"{found.writing:.0f} s, {found.checking:.0f} s"),
    ):
        table.add(name, value)
    verdict = "Nothing lost, nothing doubled, nothing growing."
    if found.problems:
        verdict = "**Failed:** " + "; ".join(found.problems) + "."
    return (
        f"## Soak\n\n`make soak`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, "
        f"{file_system(directory)}. "
        f"{verdict} Courses are over the cycles: first, median, last. Resident memory "
        "steps up when recovering a killed writer loads DuckDB (there is an archive then), and "
        "with what malloc keeps of the batches that faults made large.\n\n"
        f"{table.markdown()}"
    )


def _course(values: list[int], unit: int = 1) -> str:
    if not values:
        return "none"
    course = (values[0], statistics.median(values), values[-1])
    return ", ".join(quantity(value / unit) if unit > 1 else f"{value:.0f}" for value in course)


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 1 if anything is lost, doubled, damaged or growing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--minutes", type=float, default=20.0, help="then it begins no more")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the soak's part of it")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        found = soak(Path(directory), options.records, 60 * options.minutes)
        text = report(found, Path(directory))
    print(text)
    if options.page is not None:
        write_part(options.page, "soak", text)
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
