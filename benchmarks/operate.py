"""An operator's years in minutes: prune, backup, acknowledge on a large ledger that is in use.

``python -m benchmarks.operate`` makes two million records of 800 days by four processes, which go
on recording while each command runs in a process of its own.  Its processor time and peak memory
are printed; totals are compared to the picodollar, by both engines, and at the end what the ledger
has is held against what the writers say was acknowledged.  Exit status 1 if anything differs.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ._machine import peak
from ._page import ROOT
from ._table import Table

__all__ = ["Trial", "operate"]

WRITERS: Final = 4
DAYS: Final = 800


@dataclass
class Done:
    """One command: how it ended, what it used, what it said."""

    status: int
    work: float
    memory: int
    said: str


@dataclass
class Trial:
    """What was done and found."""

    table: Table = field(
        default_factory=lambda: Table(
            "Operated while four processes write", ["", "status", "CPU s", "MiB", "s", "says"]
        )
    )
    problems: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: object, status: int = 0, show: str = "") -> Done:
        """Run a command of ``litellm-ledger``."""
        return self._run(["litellm_ledger", *map(str, arguments)], status, show)

    def _run(self, program: list[str], status: int, show: str) -> Done:
        began = time.perf_counter()
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *program],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **self.environment},
            )
            memory = ended = 0
            while not ended:
                memory = max(memory, peak(process.pid))
                time.sleep(0.02)
                ended, code, used = os.wait4(process.pid, os.WNOHANG)
            process.returncode = os.waitstatus_to_exitcode(code)
            out.seek(0)
            said = out.read().decode(errors="replace").strip()
        work, took = used.ru_utime + used.ru_stime, time.perf_counter() - began
        done = Done(process.returncode, work, memory, said)
        name = show or " ".join(part for part in program[1:] if not part.startswith("/"))
        text = _short(said)
        self.table.add(name, str(done.status), f"{work:.1f}", str(memory), f"{took:.0f}", text)
        print(f"{name:40} {done.status} {work:7.1f} s CPU {memory:5} MiB  {text}", flush=True)
        if done.status != status:
            self.problems.append(f"{name}: status {done.status} instead of {status}: {said[-900:]}")
        return done

    def sums(self, root: Path, until: datetime | None) -> dict[str, Any]:
        """Return what both engines say of the time before ``until``, which has to be the same."""
        moment = "now" if until is None else until.isoformat()
        found = []
        for way in ("lines", "database"):
            done = self._run(
                ["benchmarks._operating", "count", str(root), moment, way], 0, f"reports, {way}"
            )
            found.append(json.loads(done.said.splitlines()[-1]))
        self.same("the engines", found[1], found[0])
        return found[0]

    def same(self, what: str, found: object, expected: object) -> None:
        """Note what is not as it has to be."""
        if found != expected:
            self.problems.append(f"{what}: {found} instead of {expected}")
            print(f"DIFFERS {self.problems[-1]}", flush=True)

    def prune(self, root: Path, *rule: str, again: Sequence[str] = ()) -> None:
        """Run a prune: first dry, then really, then again with nothing left to do.

        Args:
            again: what the last one asks for, where writers have added to what the rule counts.
        """
        plan = json.loads(self.run("prune", root, *rule, "--dry-run", "--json").said)
        done = json.loads(self.run("prune", root, *rule, "--json").said)
        found = [(one["segments"], one["records"], one["earliest"]) for one in (plan, done)]
        if not again:
            self.same("prune, and what it said that it would do", found[1], found[0])
        if not done["segments"] or found[1] < found[0]:
            self.problems.append(f"prune {rule} removed {done['segments']} segments")
        said = self.run("prune", root, *(again or rule)).said
        if "Nothing to prune" not in said:
            self.problems.append(f"prune again: {said}")


def _short(said: str) -> str:
    """What a command said, in one line: its figures, or its last sentence."""
    try:
        members = json.loads(said)
    except ValueError:
        return said.splitlines()[-1][:200] if said else ""
    return ", ".join(
        f"{name} {value}"
        for name, value in members.items()
        if name not in ("path", "dest") and value not in (None, 0, False, [])
    )


@contextmanager
def _writers(root: Path, records: int, segment: int, said: list[dict[str, Any]]) -> Iterator[None]:
    """Four writers, from when their history is written to when they were told to end."""
    command = [sys.executable, "-m", "benchmarks._operating", "write", str(root)]
    each = [str(records // WRITERS), str(DAYS), str(segment)]
    writers = [
        subprocess.Popen(
            [*command, *each, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for seed in range(WRITERS)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            if writer.stdout.readline() != "ready\n":
                raise RuntimeError("a writer did not write its history")
        yield
        said.extend(json.loads(writer.communicate()[0]) for writer in writers)
    finally:
        for writer in writers:
            writer.kill()


def operate(directory: Path, records: int, segment: int, *, archive: bool = False) -> Trial:
    """Make a ledger, operate it, count.  Leaves it in ``directory``.

    Args:
        records: in all.
        segment: bytes of a segment; on a real ledger one ends each day.
        archive: compact it first.
    """
    trial = Trial(environment={"XDG_CACHE_HOME": str(directory / "cache")})
    root, copy, restored = (directory / name for name in ("usage", "backup", "restored"))
    said: list[dict[str, Any]] = []
    with _writers(root, records, segment, said):
        until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        trial.run("seal", root)
        if archive:
            trial.run("compact", root, "--today")
        trial.run("verify", root)
        before = trial.sums(root, until)

        trial.run("backup", copy, root)
        trial.run("verify", copy)
        news = json.loads(trial.run("backup", copy, root, "--incremental", "--json").said)
        if news["bytes"] > WRITERS * (segment + 2**20):
            trial.problems.append(f"an incremental backup copied {news['bytes']:,} bytes")
        shutil.copytree(copy, restored)
        trial.run("recover", restored, show="recover a restored copy")
        trial.run("verify", restored, show="verify the restored copy")
        trial.same("sums of the restored copy", trial.sums(restored, until), before)
        shutil.rmtree(restored)

        trial.prune(root, "--keep", "400d")
        trial.run("verify", root)
        trial.same("sums after prune --keep", trial.sums(root, until), before)
        most = _size(root) * 2 // 3
        more = ("--max-size", str(most + 2**24))
        trial.prune(root, "--max-size", str(most), again=more)
        trial.run("verify", root)
        trial.same("sums after prune --max-size", trial.sums(root, until), before)
        trial.run("backup", copy, root, "--incremental", show="backup after prune")
        trial.run("verify", copy)

        _lose(trial, root, copy)
    trial.run("verify", root, show="verify at the end")
    acknowledged = sum(one["acknowledged"] for one in said)
    trial.same("calls at the end", trial.sums(root, None)["calls"], acknowledged)
    slowest = max(one["slowest_ms"] for one in said)
    print(f"{acknowledged:,} records acknowledged, the slowest took {slowest} ms")
    trial.table.notes = (
        f"{acknowledged:,} records acknowledged; the slowest while commands ran took {slowest} ms."
    )
    return trial


def _lose(trial: Trial, root: Path, copy: Path) -> None:
    """Take a file away and damage another; acknowledge both; put them back."""
    files = [
        path
        for path in sorted((root / "segments").glob("2*.jsonl"))
        if path.stat().st_size > 2_000 and (copy / "segments" / path.name).exists()
    ]
    gone, spoilt = files[0], next(one for one in files if one.name[:33] != files[0].name[:33])
    whole = {path: path.read_bytes() for path in (gone, spoilt)}
    gone.unlink()
    spoilt.write_bytes(whole[spoilt][:700] + b"#" + whole[spoilt][701:])
    trial.run("verify", root, status=1, show="verify, a file gone and one damaged")
    for path in (gone, spoilt):
        writer = path.name.partition(".")[0]
        trial.run("acknowledge", writer, root, "--why", "looked into", show="acknowledge WRITER")
        again = trial.run("acknowledge", writer, root, "--why", "x", show="acknowledge again")
        if "nothing to acknowledge" not in again.said:
            trial.problems.append(f"acknowledge again: {again.said}")
    trial.run("verify", root, show="verify, acknowledged")
    for path, data in whole.items():
        path.write_bytes(data)


def _size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 1 if anything is not as it has to be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operate", description=__doc__)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--segment", type=int, default=2**18, help="bytes of a segment")
    parser.add_argument("--archive", action="store_true", help="compact it first")
    parser.add_argument("--in", dest="home", type=Path, help="make it there, and leave it")
    options = parser.parse_args(arguments)
    home = options.home or Path(tempfile.mkdtemp(prefix="operate-"))
    try:
        trial = operate(home, options.records, options.segment, archive=options.archive)
    finally:
        if options.home is None:
            shutil.rmtree(home)
    print(trial.table.markdown())
    for problem in trial.problems:
        print(f"FAILED: {problem}")
    return int(bool(trial.problems))


if __name__ == "__main__":
    sys.exit(main())
