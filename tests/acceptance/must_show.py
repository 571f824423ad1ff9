"""What this library is for, shown with figures.

    python -m tests.acceptance.must_show [DIRECTORY]

Each function runs the programs of `programs` in processes of their own, looks at the ledger that
they leave, and returns what it found; `test_must_show` asserts on the same figures, some of them
with fewer calls.  Exit status 1 if a figure is not what it has to be.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from litellm_ledger import Ledger
from litellm_ledger._maintenance.recover import recover
from litellm_ledger.testing import Behaviour, OpenAIServer

PROGRAMS = Path(__file__).with_name("programs.py")


def fresh(arguments: list[str], **popen: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *arguments], **popen)


START: Callable[..., subprocess.Popen[str]] = fresh
"""Starts a program, with the arguments of ``subprocess.Popen``."""

TIMEOUT = 120.0
"""Seconds after which a program that should have ended has not."""


@dataclass
class Found:
    """What is on a ledger.

    Attributes:
        outcomes: by status.  verified: nothing lost, nothing damaged, no number twice.
        said: what the program itself had to say.
        status: exit status as a shell has it: 128 + the number of the signal that killed it.
    """

    outcomes: Counter[str | None]
    verified: bool
    said: dict[str, Any] = field(default_factory=dict)
    status: int = 0

    @property
    def total(self) -> int:
        return self.outcomes.total()


def look(ledger: Path, **found: Any) -> Found:
    """Read a ledger to its end and verify it."""
    ids: set[str | None] = set()
    outcomes: Counter[str | None] = Counter()
    for record in Ledger(ledger).records():
        ids.add(record.id)
        outcomes[record.status] += 1
    verified = Ledger(ledger).verify().ok and len(ids) == outcomes.total()
    return Found(outcomes, verified, **found)


@contextmanager
def program(name: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start a program, and leave nothing of it behind."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    with START(
        [str(PROGRAMS), name, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(ledger: Path, name: str, *arguments: object) -> Found:
    """Run a program to its end; look at what it left."""
    with program(name, ledger, *arguments) as process:
        output, errors = process.communicate(timeout=TIMEOUT)
    status = process.returncode
    if status > 0:
        raise RuntimeError(f"{name} ended with status {status}:\n{errors}")
    said = json.loads(output.splitlines()[-1])
    return look(ledger, said=said, status=128 - status if status else 0)


def bursts(root: Path, runs: int, calls: int, how: Literal["closed", "left open"]) -> Found:
    """All calls at once, then the loop ends; one `asyncio.run` after another."""
    return run(root, "bursts", runs, calls, how)


def heard_alone(runs: int, calls: int) -> int:
    """The same with LiteLLM alone: how many calls its own callback is told of."""
    with program("bursts", "-", runs, calls, "alone") as process:
        output, _ = process.communicate(timeout=TIMEOUT)
    said = json.loads(output.splitlines()[-1])
    assert said["returned"] == runs * calls
    return int(said["heard"])


def streams(root: Path, each: int) -> tuple[Found, dict[str, Counter[str | None]]]:
    """Streams in five kinds of ending; return also, by kind, the statuses of those with tokens."""
    found = run(root, "streams", each)
    kinds: dict[str, Counter[str | None]] = {}
    for record in Ledger(root).records():
        counted = record.total_tokens and record.usage_source in ("provider", "estimated")
        if counted and record.cost is not None:
            kinds.setdefault((record.tags or {})["ending"], Counter())[record.status] += 1
    return found, kinds


@dataclass
class Killed:
    """What many kills left behind, summed up.

    Attributes:
        acked: answers the programs had seen; lost: those whose record is not on the ledger.
        unsettled: calls that recovery found in flight; open: calls without any outcome even then.
        damaged: places that hold no valid record after recovery.
    """

    kills: int = 0
    acked: int = 0
    lost: int = 0
    unsettled: int = 0
    open: int = 0
    damaged: int = 0


def kills(
    nursery: subprocess.Popen[str], root: Path, count: int, durability: str = "written"
) -> Killed:
    """Kill a calling program at a random moment, again and again; compare acks with ledgers.

    ``nursery`` is the `program` of that name.
    """
    moments = random.Random(2)
    killed = Killed()
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    for number in range(count):
        ledger = root / f"kill-{number:02}"
        nursery.stdin.write(f"{ledger} {durability}\n")
        nursery.stdin.flush()
        pid = int(nursery.stdout.readline().split()[1])
        acked: list[str] = []
        after = moments.randint(1, 40)  # acks, and then a moment that nobody chooses
        while line := nursery.stdout.readline():
            word, what = line.split()
            if word == "ended":
                break
            acked.append(what)
            if len(acked) == after:
                time.sleep(moments.random() * 0.01)
                os.kill(pid, signal.SIGKILL)
        _count(ledger, acked, killed)
    return killed


def _count(ledger: Path, acked: list[str], killed: Killed) -> None:
    before = {record.id for record in Ledger(ledger).records()}
    recover(ledger)
    records = list(Ledger(ledger).records(kinds=("started", "usage")))
    after = {record.id for record in records if record.kind == "usage"}
    started = {record.operation for record in records if record.kind == "started"}
    settled = {record.operation for record in records if record.kind == "usage"}
    killed.kills += 1
    killed.acked += len(acked)
    killed.lost += len({*acked} - before) + len({*acked} - after)
    killed.unsettled += sum(record.status == "unsettled" for record in records)
    killed.open += len(started - settled)
    killed.damaged += Ledger(ledger).verify().total("quarantined")


def queued(root: Path, records: int, number: str, loop: str) -> Found:
    """A signal finds records in the queue that the writer has not had a turn to write."""
    return run(root, "queue", records, number, loop)


def in_flight(root: Path, calls: int) -> Found:
    """Kill a program whose calls are with the provider; then ``litellm-ledger recover``."""
    silent = OpenAIServer(default=Behaviour(hang=True))
    with silent as server, program("in_flight", root, server.base_url, calls) as process:
        server.wait_for(lambda requests: len(requests) == calls, timeout=60)
        process.send_signal(signal.SIGKILL)
        status = process.wait()
    command = [sys.executable, "-m", "litellm_ledger", "recover", "--json", str(root)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return look(root, said=json.loads(done.stdout), status=128 - status)


@dataclass
class Shared:
    """What a burst of equal calls with a cache, and a few calls that differ, left behind.

    Attributes:
        found: the ledger.  requests: all that the servers saw.
        paid, hits: records of the burst.  different: paid records of the calls that differ.
        spent, saved: US dollars, as the report's JSON has them; table: its text.
    """

    found: Found
    requests: int
    paid: int
    hits: int
    different: int
    spent: Decimal
    saved: Decimal
    table: str


def equal_calls(root: Path, calls: int) -> Shared:
    """Equal calls at once with a response cache; calls that differ in one thing, twice each."""
    slow = Behaviour(slow=0.3)
    with OpenAIServer(default=slow) as server, OpenAIServer(default=slow) as other:
        found = run(root, "equal", server.base_url, other.base_url, calls)
        requests = len(server.requests) + len(other.requests)
    kinds = Counter(
        ((record.tags or {})["n"] == "different", bool(record.cache_hit))
        for record in Ledger(root).records()
    )
    total = json.loads(_report(root, "--json"))["total"]
    return Shared(
        found,
        requests=requests,
        paid=kinds[False, False],
        hits=kinds[False, True],
        different=kinds[True, False],
        spent=Decimal(total["cost"]),
        saved=Decimal(total["saved_cost"]),
        table=_report(root),
    )


def _report(root: Path, *options: str) -> str:
    command = [sys.executable, "-m", "litellm_ledger", "report", *options, str(root)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Show it all; return the exit status."""
    scratch = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="must-show-")
    root = Path(scratch)
    holds = True

    def show(what: str, figures: str, ok: bool) -> None:
        nonlocal holds
        holds = holds and ok
        print(f"{'yes' if ok else 'NO '}  {what}\n       {figures}", flush=True)

    for what, runs, calls in (
        ("burst of 5,000 calls, then the loop ends", 1, 5_000),
        ("10 × asyncio.run × 50 calls", 10, 50),
    ):
        alone = heard_alone(runs, calls)
        for how in ("closed", "left open"):
            found = bursts(root / f"bursts-{runs}-{how.replace(' ', '-')}", runs, calls, how)
            show(
                f"{what}, the client {how}",
                f"calls returned {found.said['returned']:,}; outcomes on the ledger "
                f"{found.total:,} (LiteLLM's own callback: {found.said['heard']:,}; of LiteLLM "
                f"alone: {alone:,})",
                found.outcomes == {"ok": runs * calls} and found.verified,
            )
    found, kinds = streams(root / "streams", 40)
    show(
        "200 streams in five kinds of ending",
        f"LiteLLM's own callback heard of {found.said['heard']}; outcomes on the ledger "
        f"{found.total}; with tokens and cost: "
        + ", ".join(f"{kind} {counts.total()}" for kind, counts in kinds.items()),
        found.total == 200 and found.verified and [*map(Counter.total, kinds.values())] == [40] * 5,
    )
    with program("nursery") as nursery:
        killed = kills(nursery, root / "kills", 30)
    show(
        "30 SIGKILLs at random moments",
        f"answers seen {killed.acked:,}; acked records lost {killed.lost}; unsettled "
        f"{killed.unsettled}; calls without an outcome {killed.open}; damaged {killed.damaged}",
        killed.kills == 30 and not (killed.lost or killed.open or killed.damaged),
    )
    for loop in ("asyncio", "uvloop"):
        for number, status in (("SIGTERM", 143), ("SIGINT", 130)):
            found = queued(root / f"queued-{loop}-{number}", 20_000, number, loop)
            show(
                f"20,000 records queued, none written, then {number}, on {loop}",
                f"outcomes on the ledger {found.total:,}; exit status {found.status}",
                found.said["queued"] == found.total == 20_000
                and found.verified
                and found.status == status,
            )
    found = in_flight(root / "in-flight", 7)
    show(
        "7 calls in flight, SIGKILL, recover",
        f"unsettled {found.outcomes['unsettled']}; other outcomes "
        f"{found.total - found.outcomes['unsettled']}; exit status {found.status}",
        found.outcomes == {"unsettled": 7} and found.verified,
    )
    shared = equal_calls(root / "equal", 1_000)
    show(
        "1,000 equal calls at once with a cache; calls that differ in one thing",
        f"records {shared.paid} paid, {shared.hits} hits; of {shared.found.said['different']} "
        f"different calls, twice each, {shared.different} paid; requests {shared.requests} in all; "
        f"spent ${shared.spent}, saved ${shared.saved}",
        (shared.paid, shared.hits) == (1, 999)
        and shared.different == shared.found.said["different"]
        and shared.requests == 1 + shared.different
        and shared.found.verified
        and shared.saved > shared.spent,
    )
    print(f"\n{'All of it holds' if holds else 'It does NOT hold'}. The ledgers are in {root}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
