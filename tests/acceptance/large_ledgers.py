"""Reports of large ledgers, checked to the picodollar, with the time and memory of each command.

    python -m tests.acceptance.large_ledgers [--lines 1000000] [--small 10000] [--quick]

Makes a ledger by four processes (see ``tests.generated``), reckons in plain Python what it says,
and runs the commands on it, each in a process of its own: as JSON lines, then compacted.  Also a
ledger of many small segments.  Exit status 1 if a figure differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks._machine import peak
from tests.generated import Question, Reckoning, make_ledger

QUESTIONS: list[Question] = [
    (("model", "status"), "UTC"),
    (("day", "tag:user"), "Europe/Berlin"),
    (("hour",), "America/New_York"),
    (("week",), "Europe/Berlin"),
]
_COUNTS = frozenset({"group", "latency_ms", "ttft_ms", "breakdown"})


class Command:
    """One run of the program: what it said, seconds (also of CPU), and peak memory in MiB."""

    def __init__(self, *args: object) -> None:
        began = time.perf_counter()
        command = [sys.executable, "-m", "litellm_ledger", *map(str, args)]
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command, stdout=said, stderr=errors)
            self.memory = ended = 0
            while not ended:
                self.memory = max(self.memory, peak(process.pid))
                time.sleep(0.02)
                ended, status, used = os.wait4(process.pid, os.WNOHANG)
            self.seconds = time.perf_counter() - began
            said.seek(0)
            errors.seek(0)
            self.said, self.errors = said.read(), errors.read().decode()
        self.work = used.ru_utime + used.ru_stime
        self.status = process.returncode = os.waitstatus_to_exitcode(status)

    def json(self) -> Any:
        return json.loads(self.said)


class Check:
    """The runs, a line each, and whether all was as reckoned."""

    def __init__(self) -> None:
        self.good = True

    def run(self, what: str, *args: object) -> Command:
        done = Command(*args)
        name = " ".join(str(arg) for arg in args if not isinstance(arg, Path))
        took = f"{done.seconds:7.2f} s, of CPU {done.work:7.2f} s {done.memory:5d} MiB"
        print(f"{what:8} {name:50.50} {took}", flush=True)
        return done

    def equal(self, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            self.good = False
            print(f"DIFFERS  {what}: {str(found)[:200]} instead of {str(expected)[:200]}")


def sums_of(row: dict[str, Any]) -> dict[str, int]:
    """Turn a row of a report's JSON into what the reckoning has."""
    found = {}
    for name, value in row.items():
        if name in _COUNTS:
            continue
        if isinstance(value, str):
            value = int(Decimal(value).scaleb(12))
        if value:
            found[name] = value
    return found


def commands(
    check: Check, what: str, root: Path, truth: Reckoning, questions: list[Question]
) -> None:
    """Run every command that reads the whole ledger; with few questions only the main ones."""
    for by, zone in questions:
        args = ["report", root, "--by", ",".join(by), "--tz", zone, "--json"]
        report = check.run(what, *args, "--week-start", "sunday").json()
        found = {tuple(row["group"].values()): sums_of(row) for row in report["rows"]}
        check.equal(f"{by}", found, truth.sums(by, zone))
        check.equal("total", sums_of(report["total"]), truth.sums()[()])
        damaged = sum(problem["lines"] for problem in report["problems"])
        check.equal("damaged lines", damaged, truth.damaged)
    latency = check.run(what, "daily", root, "--latency", "--json").json()["total"]
    for name in ("latency_ms", "ttft_ms"):
        found = [latency[name][key] for key in ("count", "max", "p50", "p90", "p99")]
        count, p50, p90, p99, most = truth.spread(name)
        check.equal(name, found[:2], [count, most])
        near = [abs(a / b - 1) <= 1 / 128 for a, b in zip(found[2:], (p50, p90, p99), strict=True)]
        check.equal(f"quantiles of {name}", near, [True] * 3)
    calls = check.run(what, "calls", root, "-n", 20, "--json").json()
    check.equal("calls", (calls["matched"], len(calls["calls"])), (truth.calls, 20))
    query = "SELECT model, count(*), sum(cost_picousd) FROM calls GROUP BY model"
    answer = check.run(what, "sql", query, root, "--json")
    check.equal("sql", answer.status, 0)
    shown = check.run(what, "show", calls["calls"][0]["id"], root, "--json").json()
    check.equal("show", bool(shown["attempts"]), True)
    verdict = check.run(what, "verify", root, "--json").json()
    check.equal("found", sum(writer["found"] for writer in verdict["writers"]), truth.records)
    places = [p for writer in verdict["writers"] for p in writer["problems"]]
    check.equal("damage", sum(problem["lines"] for problem in places), truth.damaged)
    if len(questions) < len(QUESTIONS):
        return
    top = check.run(what, "top", "users", root, "--json").json()
    check.equal("top", sums_of(top["total"])["cost"], truth.sums()[()]["cost"])
    listed = check.run(what, "records", root, "--json", "--limit", 1)
    check.equal("records", listed.said.count(b"\n"), 1)
    with tempfile.TemporaryDirectory(dir=root.parent) as out:
        for form in ("parquet", "csv"):
            done = check.run(what, "export", root, f"--{form}", "--out", Path(out) / "x")
            check.equal(f"export {form}", done.status, 0)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=10_000, help="small segments; 0: leave out")
    parser.add_argument("--keep", type=Path, help="make it there, and leave it")
    parser.add_argument("--quick", action="store_true", help="two reports, and the main commands")
    options = parser.parse_args()
    questions = QUESTIONS[:2] if options.quick else QUESTIONS
    home = options.keep or Path(tempfile.mkdtemp(prefix="large-ledgers-"))
    check = Check()
    try:
        root = home / "usage"
        began = time.perf_counter()
        make_ledger(root, options.lines, segment=64 * 2**20, damage=0.1)
        size = sum(path.stat().st_size for path in (root / "segments").iterdir())
        print(
            f"{options.lines:,} lines, {size / 2**20:,.0f} MiB, made in {_since(began)}", flush=True
        )
        began = time.perf_counter()
        truth = Reckoning(root, questions)
        print(
            f"{truth.calls:,} outcomes, {truth.damaged} damaged lines, reckoned in {_since(began)}"
        )
        commands(check, "lines", root, truth, questions)
        done = check.run("lines", "compact", root, "--today", "--json")
        check.equal("memory of compact under 300 MiB", done.memory < 300, True)
        result = done.json()
        print(
            f"compacted {result['records']:,} lines: {result['bytes_before']:,} bytes are now "
            f"{result['bytes_after']:,}; {len(result['left'])} damaged segments left"
        )
        commands(check, "archive", root, truth, questions)
        shutil.rmtree(root)
        if options.small:
            began = time.perf_counter()
            make_ledger(root, options.small * 20, segment=8_000, damage=0.01)
            count = len(list((root / "segments").iterdir()))
            print(f"{count:,} small segments, made in {_since(began)}")
            commands(check, "small", root, Reckoning(root, questions), questions)
            check.run("small", "compact", root, "--today", "--json")
    finally:
        if options.keep is None:
            shutil.rmtree(home)
    print("all as reckoned" if check.good else "NOT as reckoned")
    return int(not check.good)


def _since(began: float) -> str:
    return f"{time.perf_counter() - began:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
