"""The whole of it, end to end, on this machine alone: no network, no key, no bill.

    make demo        or        python examples/demo.py [DIRECTORY OF THE LEDGER]

A local server that speaks OpenAI's HTTP API; a worker process whose four users make a few hundred
calls through LiteLLM, many of which end badly; a second worker that is killed in the middle; then
recovery, the report, and a comparison with what the server itself has noted.  Exit status 1 if
anything does not hold.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from _demo_work import FEATURES, HELD, MIX, RUNNING, plan

from litellm_ledger import Ledger, UsageRecord

HERE = Path(__file__).resolve().parent
ACKS = 100  # answers that the victim has seen when it is killed

LEFT = ("stream left by break", "stream closed", "stream cancelled")

PRICES = {  # US dollars per million tokens: input, cached input, output; typed in by hand
    "gpt-4o-mini": (Decimal("0.15"), Decimal("0.075"), Decimal("0.60")),
    "gpt-4o": (Decimal("2.50"), Decimal("1.25"), Decimal("10.00")),
    "o3-mini": (Decimal("1.10"), Decimal("0.55"), Decimal("4.40")),
}
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY")
MODEL_OF = {
    "OPENAI_API_KEY": "gpt-4o-mini",
    "ANTHROPIC_API_KEY": "anthropic/claude-haiku-4-5",
    "GEMINI_API_KEY": "gemini/gemini-2.5-flash",
    "MISTRAL_API_KEY": "mistral/mistral-small-latest",
}


# --- Processes -----------------------------------------------------------------------------------


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python beside us, and leave nothing behind."""
    # A proxy of the environment must not come between us and our own server.
    env = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=pipe, stdout=pipe, text=True, env=env
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def lines(child: subprocess.Popen[str]) -> Iterator[str]:
    """What it prints, line by line, until its end."""
    assert child.stdout is not None
    yield from (line.strip() for line in child.stdout)


def go(child: subprocess.Popen[str]) -> None:
    """Let a worker that is ready begin."""
    if next(lines(child), None) != "ready":
        raise SystemExit("demo: a worker process did not start; what it said stands above")
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def ledger_command(*arguments: str) -> int:
    """Run `litellm-ledger` as a user would, output and all."""
    say(f"\n$ litellm-ledger {' '.join(arguments)}")
    return subprocess.run(
        [sys.executable, "-m", "litellm_ledger", *arguments], check=False
    ).returncode


def say(text: str = "", *, end: str = "\n") -> None:
    """Print at once, so that our lines and those of the commands keep their order."""
    print(text, end=end, flush=True)


# --- The story -----------------------------------------------------------------------------------


def run_team(worker: subprocess.Popen[str]) -> None:
    """A few hundred calls, and a clean end."""
    total = len(plan())
    say(f"1. A worker: {total} calls of {len(FEATURES)} users, 40 at once, over HTTP.")
    mix = ", ".join(f"{count} {how}" for how, (count, _) in MIX.items())
    say(textwrap.fill(f"{mix}.", 100, initial_indent="   ", subsequent_indent="   "))
    go(worker)
    began = time.monotonic()
    done = 0
    for _ in lines(worker):
        done += 1
        if sys.stdout.isatty():
            say(f"\r   {done} of {total}", end="")
    if worker.wait() or done != total:
        raise SystemExit(f"demo: the worker ended with status {worker.returncode} after {done}")
    back = "\r" if sys.stdout.isatty() else ""
    say(f"{back}   {done} calls in {time.monotonic() - began:.1f} s.\n")


def kill_victim(victim: subprocess.Popen[str]) -> list[str]:
    """Kill a worker with calls in flight; return the ids of the answers that it had seen."""
    say("2. Another worker, killed with SIGKILL in the middle of its calls.")
    go(victim)
    acked = []
    for line in lines(victim):
        if not line.startswith("ack "):  # LiteLLM prints to standard output as well
            continue
        acked.append(line.removeprefix("ack "))
        if len(acked) == ACKS:
            time.sleep(0.1)  # so that the next calls of all have left for the server
            victim.send_signal(signal.SIGKILL)  # what it has printed until then still comes
    victim.wait()
    say(f"   Killed when it had seen {len(acked)} answers.")
    return acked


# --- The proof -----------------------------------------------------------------------------------


@dataclass
class Proof:
    """What holds, and what does not."""

    failed: list[str] = field(default_factory=list)

    def check(self, holds: bool, claim: str) -> None:
        mark = "   yes  " if holds else "   NO   "
        say(textwrap.fill(claim, 100, initial_indent=mark, subsequent_indent=" " * 8))
        if not holds:
            self.failed.append(claim)


def price(model: str, usage: dict[str, Any]) -> Decimal:
    """The cost of a usage, from our own list of prices."""
    fresh, cached, output = PRICES[model]
    read = usage["prompt_tokens_details"]["cached_tokens"]
    picousd = (
        (usage["prompt_tokens"] - read) * fresh
        + read * cached
        + usage["completion_tokens"] * output
    )
    return picousd / 1_000_000


def same(record: UsageRecord, request: dict[str, Any]) -> bool:
    """Whether a record says exactly what the server has noted."""
    usage = request["usage"]
    return (
        record.usage_source == "provider"
        and record.response_model == request["model"]
        and (record.tags or {}).get("user") == request["body"]["user"]
        and record.input_tokens == usage["prompt_tokens"]
        and record.output_tokens == usage["completion_tokens"]
        and record.cost == price(request["model"], usage)
    )


def compare(where: Path, requests: list[dict[str, Any]], acked: list[str]) -> Proof:
    """Compare the ledger with the plan, the server's request log and what the victim had seen."""
    proof = Proof()
    records = list(Ledger(where).records())
    team = [r for r in records if (r.tags or {}).get("user") in FEATURES]
    erin = [r for r in records if (r.tags or {}).get("user") == "erin"]
    by_answer = {r.response_id: r for r in records if r.response_id}

    def outcome(record: UsageRecord) -> tuple[str | None, ...]:
        tags = record.tags or {}
        return tags.get("user"), tags.get("feature"), record.model, record.status

    wanted = Counter(
        (call.user, FEATURES[call.user], f"openai/{call.model}", MIX[call.how][1])
        for call in plan()
    )
    statuses = Counter(r.status for r in team)
    proof.check(
        Counter(map(outcome, team)) == wanted,
        f"{len(team)} calls, {len(team)} outcomes, each with its user, feature, model and status: "
        + ", ".join(f"{count} {status}" for status, count in sorted(statuses.items())),
    )

    # The server's number of a request is in the id of its answer.
    billed = {f"chatcmpl-{r['number']:08d}": r for r in requests if r["usage"]}
    ours = {i: r for i, r in billed.items() if r["body"]["user"] in FEATURES}
    total = sum((price(r["model"], r["usage"]) for r in ours.values()), Decimal(0))
    counted = [r for r in team if r.usage_source == "provider"]
    proof.check(
        len(counted) == len(ours)
        and all(i in by_answer and same(by_answer[i], r) for i, r in ours.items())
        and sum(r.cost or 0 for r in counted) == total,
        f"{len(ours)} usages in the server's request log, priced here from a list typed by hand: "
        f"${total:f}; on the ledger the same, to the picodollar, call by call",
    )

    left = [r for r in team if r.stream and r.status in ("abandoned", "cancelled")]
    cut = {f"chatcmpl-{r['number']:08d}" for r in requests if r["ended"] == "disconnected"}
    proof.check(
        len(left) == sum(count for how, (count, _) in MIX.items() if how in LEFT)
        and all(r.usage_source == "estimated" and r.output_tokens and r.cost for r in left)
        and all(r.response_id in cut for r in left),
        f"{len(left)} streams were left early: their connections were closed at once, so the "
        "server never said what they used; their "
        f"{sum(r.output_tokens or 0 for r in left):,} tokens were counted from what had come: "
        f"${sum((r.cost or Decimal(0) for r in left), Decimal(0)):f}, marked as estimated",
    )

    lost = [i for i in acked if i not in by_answer or not same(by_answer[i], billed[i])]
    proof.check(
        not lost and len(acked) >= ACKS,
        f"{len(acked)} answers had been seen by the worker that was killed; acked records lost: "
        f"{len(lost)}",
    )
    unsettled = [r for r in erin if r.status == "unsettled"]
    reached = [r for r in requests if r["body"]["user"] == "erin"]
    answered = len(erin) - len(unsettled)
    proof.check(
        HELD <= len(unsettled) <= HELD + RUNNING and len(reached) <= len(erin),
        f"in flight at the kill → unsettled: {len(unsettled)} ({len(erin)} calls began, "
        f"{len(reached)} of them reached the server, {answered} have an answer on the ledger)",
    )
    return proof


def check_verify(proof: Proof, ledger: Ledger, statuses: list[int]) -> None:
    """Nothing damaged, and nothing lost that had been acknowledged."""
    found = ledger.verify()
    never = sum(writer.unacknowledged for writer in found.writers)
    lost = sum(writer.lost for writer in found.writers) - never
    damaged = sum(len(writer.problems) + writer.quarantined for writer in found.writers)
    claim = f"verify: {sum(w.found for w in found.writers):,} records found, damaged: {damaged}"
    claim += f", acknowledged records lost: {lost}"
    if never:
        claim += (
            f"; {never} more had a number in the killed worker's memory and were never "
            "acknowledged: no answer behind them had been seen"
        )
    proof.check(found.ok and not damaged and not lost and statuses == [0, 0, 0, 0], claim)


def main() -> int:
    """Tell the story; return the exit status."""
    scratch = Path(tempfile.mkdtemp(prefix="litellm-ledger-demo-"))
    where = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else scratch / "usage"
    log = scratch / "requests.jsonl"
    if where.exists() and any(where.iterdir()):
        sys.exit(f"demo: {where} is not empty; give a new directory, or none")
    began = time.monotonic()
    with ExitStack() as stack:
        server = stack.enter_context(process("-m", "litellm_ledger.testing", "--log", str(log)))
        url = next(lines(server), "")
        if not url:
            return 1
        say(f"A server that speaks OpenAI's API, here on {url}; two workers importing LiteLLM …\n")
        work = str(HERE / "_demo_work.py")
        team = stack.enter_context(process(work, "team", str(where), url))
        victim = stack.enter_context(process(work, "victim", str(where), url))
        run_team(team)
        acked = kill_victim(victim)
        server.terminate()
        server.wait()

    statuses = [
        ledger_command("recover", str(where)),
        ledger_command("report", str(where), "--by", "tag:user"),
        ledger_command("report", str(where), "--by", "model"),
        ledger_command("verify", str(where)),
    ]
    say("\n3. Does it hold?")
    requests = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    proof = compare(where, requests, acked)
    check_verify(proof, Ledger(where), statuses)
    took = time.monotonic() - began
    say(f"\n{'All of it holds' if not proof.failed else 'It does NOT hold'} ({took:.0f} s).")
    farewell(where)
    return 1 if proof.failed else 0


def farewell(where: Path) -> None:
    """Say what to look at next."""
    command = "litellm-ledger"
    if shutil.which(command) is None:
        beside = str(Path(sys.executable).with_name(command))
        command = min(beside, os.path.relpath(beside), key=len)
    say("\nThe ledger stays for you to look at:")
    say(f"  {command} records {where}")
    say(f"  {command} report {where} --by tag:feature,status")
    for key in KEYS:
        if os.environ.get(key):
            model = MODEL_OF[key]
            say(f"\n{key} is set, so this makes one real call and shows its record:")
            say(f'  {command} ask "What is a ledger?" --model {model} --ledger {where}')
            break


if __name__ == "__main__":
    sys.exit(main())
