"""A history of 400 days: what the commands on it take, against DuckDB in the same run.

``python -m benchmarks reading`` runs this section alone;
``python -m benchmarks.reading --lines 5000000`` makes a larger ledger.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zlib import crc32

from litellm_ledger._archive.columns import COLUMNS, struct

from ._size import Size
from ._table import Table, quantity, times

__all__ = ["make", "run", "small_segments"]

DAYS: Final = 400
_WRITER: Final = "20250101T000000Z-00000000000000aa"
_LINE: Final = (
    b'{"v":1,"id":"%b-%016d","seq":%d,"kind":"usage","ts":"%b","operation":"%b-%016d","attempt":1,'
    b'"call":"acompletion","model":"%b","response_model":"%b","provider":"openai","status":"ok",'
    b'"input_tokens":%d,"output_tokens":%d,"total_tokens":%d,"cache_read_tokens":0,'
    b'"usage_source":"provider","cost_picousd":%d,"cost_source":"litellm","latency_ms":%d.25,'
    b'"tags":{"user":"user-%d","feature":"%b"},"response_id":"chatcmpl-%016x",'
    b'"meta":{"litellm":"1.110.2"}'
)
_DUCKDB: Final = """
import duckdb, sys
files, columns, keys = sys.argv[1:]
query = f'''SELECT {keys}, status, usage_source, count(*), sum(cost_picousd), sum(input_tokens),
sum(output_tokens), sum(total_tokens), sum(cache_read_tokens), count(cost_picousd),
count(*) FILTER (cache_hit), count(*) FILTER (attempt > 1), sum(saved_cost_picousd),
sum(cache_write_tokens), sum(reasoning_tokens) FROM read_json('{files}',
columns={columns}, format='newline_delimited', maximum_object_size=2097152)
WHERE kind = 'usage' GROUP BY ALL'''
print(len(duckdb.sql(query).fetchall()))
"""
_COPY: Final = """
import duckdb, sys
from pathlib import Path
segments, columns, to = sys.argv[1:]
duckdb.sql("SET threads = 1")
for path in Path(segments).iterdir():
    duckdb.sql(f'''COPY (FROM read_json('{path}', columns={columns}, format='newline_delimited'))
TO '{to}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 20480)''')
"""


def make(
    root: Path,
    lines: int,
    days: int = DAYS,
    users: int = 50,
    begin: datetime = datetime(2025, 1, 1, tzinfo=UTC),
) -> None:
    """Write outcomes as a writer would: one segment a day."""
    (root / "segments").mkdir(parents=True)
    (root / "live").mkdir()
    models = [b"gpt-4o", b"gpt-4o-mini", b"claude-sonnet-4", b"gemini-2.5-flash"]
    features = [b"chat", b"search", b"summary"]
    writer, seq = _WRITER.encode(), 1
    for day in range(days):
        count = lines * (day + 1) // days - lines * day // days
        first = seq
        start = begin + timedelta(days=day)
        held = []
        for at in range(count):
            ts = (start + timedelta(microseconds=at * 86_400_000_000 // count)).isoformat(
                timespec="microseconds"
            )
            model, one, two = models[seq % 4], 100 + seq % 901, 1 + seq % 467
            body = _LINE % (
                writer, seq, seq, ts.replace("+00:00", "Z").encode(), writer, seq, model, model,
                one, two, one + two, one * 150_000 + two * 600_000, 200 + seq % 999,
                seq % users, features[seq % 3], seq,
            )  # fmt: skip
            held.append(b'%b,"crc":"%08x"}\n' % (body, crc32(body)))
            seq += 1
        if held:
            name = f"{_WRITER}.{first:016d}-{seq - 1:016d}.jsonl"
            (root / "segments" / name).write_bytes(b"".join(held))


def run(size: Size) -> list[Table]:
    """Return the tables of this section."""
    history = measure(size(500_000, 2_000), rounds=size(5, 1), days=size(DAYS, 8))
    return [*history, small_segments(size(5_000, 20), rounds=size(5, 1))]


def small_segments(count: int, rounds: int) -> Table:
    """Return the table for a ledger of that many segments of twenty lines."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "usage"
        make(root, 20 * count, count)
        ours = [sys.executable, "-m", "litellm_ledger"]
        env = {**os.environ, "XDG_CACHE_HOME": str(Path(directory) / "cache")}
        subprocess.run([*ours, "seal", str(root)], env=env, check=True, capture_output=True)
        commands = {
            "`daily`": [*ours, "daily", str(root)],
            "`report`": [*ours, "report", str(root)],
            "`report --by user`": [*ours, "report", "--by", "user", str(root)],
            "`verify`": [*ours, "verify", str(root)],
        }
        _race(commands, env, 1)
        found = _race(commands, env, rounds)
    table = Table(
        f"{count:,} sealed segments of twenty lines, each a day",
        ["", "s", "CPU, s", "peak MiB"],
        "Whole programs, their start included, in turns; medians.",
    )
    for name, rows in found.items():
        wall, cpu, peak = ([row[at] for row in rows] for at in range(3))
        table.add(
            name,
            quantity(statistics.median(wall)),
            quantity(statistics.median(cpu)),
            f"{max(peak):,.0f}",
        )
    return table


def measure(lines: int, rounds: int, days: int = DAYS) -> list[Table]:
    """Return the table for a ledger of that many lines."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "usage"
        make(root, lines, days)
        files = str(root / "segments" / "*.jsonl")
        ours = [sys.executable, "-m", "litellm_ledger"]
        env = {**os.environ, "XDG_CACHE_HOME": str(Path(directory) / "cache")}
        bare = [
            sys.executable,
            "-c",
            _DUCKDB,
            files,
            struct(COLUMNS),
            "tags['user'], tags['feature']",
        ]
        by_two = ["report", "--by", "user,feature", str(root)]
        before = {
            "DuckDB alone: the same sums": bare,
            "`report --by user,feature`, without manifests": [*ours, *by_two],
            "`verify --full`, without manifests": [*ours, "verify", "--full", str(root)],
        }
        found = _race(before, env, rounds)
        began = time.perf_counter()
        subprocess.run([*ours, "seal", str(root)], env=env, check=True, capture_output=True)
        sealing = time.perf_counter() - began
        after = {
            "`python -c pass`": [sys.executable, "-c", "pass"],
            "DuckDB alone, again": bare,
            "`report --by user,feature`, from the lines": [*ours, *by_two],
            "`daily`": [*ours, "daily", str(root)],
            "`daily --tz Europe/Berlin --breakdown`": [
                *ours, "daily", "--tz", "Europe/Berlin", "--breakdown", str(root)],
            "`top users`": [*ours, "top", "users", str(root)],
            "`verify`": [*ours, "verify", str(root)],
        }  # fmt: skip
        first = _race({"the first `daily` after sealing": after["`daily`"]}, env, 1)
        found |= first | _race(after, env, rounds)
        size = sum(path.stat().st_size for path in (root / "segments").iterdir())
        manifests = sum(path.stat().st_size for path in (root / "manifests").iterdir())
        copied = str(Path(directory) / "copied.parquet")
        copy = [
            sys.executable, "-c", _COPY, str(root / "segments"), struct(COLUMNS), copied
        ]  # fmt: skip
        found |= _race(
            {
                "DuckDB alone: each segment to Parquet": copy,
                "`compact`, one file a day": [*ours, "compact", str(root)],
            },
            env,
            1,
        )
        of_archive = {
            f"{name}, of the archive": after[name] for name in ("`daily`", "`verify`")
        } | {"`report --by user,feature`, of the archive": [*ours, *by_two]}
        _race({"the first look": after["`daily`"]}, env, 1)
        found |= _race(of_archive, env, rounds)
        many = Path(directory) / "many"
        make(many, lines, 30, lines // 5)
        of_many = {
            "`report --by user --json`, many users": ["report", "--by", "user", "--json"],
            "`report --by user,day --csv`, many users": ["report", "--by", "user,day", "--csv"],
            "`report --by user`, many users": ["report", "--by", "user"],
            "`top users`, many users": ["top", "users"],
        }
        programs = {name: [*ours, *args, str(many)] for name, args in of_many.items()}
        found |= _race(programs, env, 1)
        archive = sum(path.stat().st_size for path in (root / "archive").iterdir())
    table = Table(
        f"A history of {lines:,} lines in {days} days",
        ["", "s", "× DuckDB alone", "CPU, s", "peak MiB"],
        "Whole programs, their start included, in turns; medians. "
        f"{size / 2**20:,.0f} MiB of lines, {manifests / 2**20:,.1f} MiB of manifests, "
        f"which `seal` made in {sealing:.1f} s; "
        f"{archive / 2**20:,.1f} MiB of Parquet after `compact`. "
        f"Many users: another ledger as large, with {lines // 5:,} of them in 30 days.",
    )
    base = statistics.median(s for s, _, _ in found["DuckDB alone: the same sums"])
    again = statistics.median(s for s, _, _ in found["DuckDB alone, again"])
    for name, rows in found.items():
        by = base if name in before else again
        wall, cpu, peak = ([row[at] for row in rows] for at in range(3))
        table.add(
            name,
            quantity(statistics.median(wall)),
            times([one / by for one in wall]),
            quantity(statistics.median(cpu)),
            f"{max(peak):,.0f}",
        )
    return [table]


def _race(
    commands: dict[str, list[str]], env: dict[str, str], rounds: int
) -> dict[str, list[tuple[float, float, float]]]:
    """Return (seconds, seconds of CPU, MiB) of each, round by round, in turns."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            began = time.perf_counter()
            process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            took = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise RuntimeError(f"{' '.join(command)[:200]} ended with {process.returncode}")
            found[name].append((took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for made in measure(options.lines, options.rounds):
        sys.stdout.write(made.text() + "\n" + made.notes + "\n")
