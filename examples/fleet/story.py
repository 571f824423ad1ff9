"""Three machines, one database, and everything that goes wrong between them.

    make demo-fleet     or     python examples/fleet [--calls N] [--stay]

A local server that speaks OpenAI's HTTP API, a PostgreSQL server from a package, a network between
them that is slowed and cut, and three machines whose processes make calls through LiteLLM and are
killed.  In the end the database is compared with what the provider has noted, call by call.  No
key and no network are needed.  Exit status 1 if a number differs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

from database import Postgres
from machines import Machine, Process
from network import Network
from proof import Comparison
from worker import LIMIT, NIGHT

HERE = Path(__file__).resolve().parent
NAMES = ("oslo", "lima", "kyoto")
SLOW = 0.15  # seconds, there and back each, while the network is slow
HELD = 5  # calls in flight at the kill that the provider never answers
CATCH_UP = 60.0  # seconds, also on a machine that is ten times slower


def say(text: str = "") -> None:
    """Print at once, so that our lines and those of the commands keep their order."""
    print(text, flush=True)


async def ask(url: str, query: str) -> int:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query) or 0
    finally:
        await connection.close()


class Fleet:
    """The demo: its parts, and what happens to them, one scene after the other.

    Args:
        scratch: where everything is.
        calls: how many each machine makes in a scene.
    """

    def __init__(self, scratch: Path, calls: int) -> None:
        self.calls = calls
        self.scratch = scratch
        self.log = scratch / "requests.jsonl"
        self.machines: list[Machine] = []
        self.killed: list[str] = []
        self._secrets = scratch / "secrets"  # as `secrets.sh` makes them
        self._passwords = scratch / "passwords"
        # A proxy of the environment must not come between us and our own servers.
        local = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        local["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nor does LiteLLM fetch its prices
        self.env = {**os.environ, **local, "PGPASSFILE": str(self._passwords)}
        for name in [name for name in self.env if name.startswith("LITELLM_LEDGER")]:
            del self.env[name]

    # -- setting it up -----------------------------------------------------------------------------

    def set_up(self, stack: ExitStack) -> None:
        """Start the provider, the database and the network; prepare the machines."""
        words = {user: secrets.token_hex(16) for user in ("postgres", "machine", "analyst")}
        self._secrets.mkdir()
        self._passwords.touch(mode=0o600)
        for user, word in words.items():
            (self._secrets / user).write_text(word)
        lines = (f"*:*:*:{user}:{word}\n" for user, word in words.items())
        self._passwords.write_text("".join(lines))
        os.environ["PGPASSFILE"] = str(self._passwords)
        self.provider = Process(
            *("-m", "litellm_ledger.testing", "--log", str(self.log)),
            env=self.env,
            log=self.scratch / "provider.txt",
        )
        stack.callback(self.provider.close)
        address: list[str] = []
        self.provider.hear(lambda line: True, address.append)
        self.postgres = stack.enter_context(Postgres(self.scratch / "postgres", words["postgres"]))
        self.network = stack.enter_context(Network(self.postgres.socket))
        self.owner = self.postgres.url("usage")
        self.analyst = f"postgresql://analyst@127.0.0.1:{self.network.port}/usage"
        self.url = f"postgresql://machine@127.0.0.1:{self.network.port}/usage"
        for name in NAMES:
            machine = Machine(name, self.scratch, self.env, address[0], self.url)
            stack.callback(machine.close)
            self.machines.append(machine)
        self.oslo, self.lima, self.kyoto = self.machines
        say("Three machines import LiteLLM, and PostgreSQL gets its schema …")
        self.apps = [
            self.oslo.prepare("oslo", sink=True),
            self.lima.prepare("lima", sink=False),
            self.kyoto.prepare("kyoto", sink=True),
        ]
        self.spare = self.kyoto.prepare("kyoto-b", sink=True)
        self.postgres.psql(self.postgres.url(), "-c", "CREATE DATABASE usage")
        self.postgres.psql(self.owner, "-f", HERE / "roles.sql", SECRETS=str(self._secrets))
        self.command("database", "init", self.owner)
        for app in (*self.apps, self.spare):
            app.hear(lambda line: line == "ready")
        say(
            "\noslo and kyoto ship their records themselves; lima has a process beside its "
            "application that does.\nAll reach the database over a network that we have in hand."
        )

    def command(self, *arguments: str) -> int:
        """Run `litellm-ledger` as a user would, output and all."""
        shown = " ".join(arguments).replace(f"{self.scratch}{os.sep}", "")
        say(f"\n$ litellm-ledger {shown}")
        words = [sys.executable, "-m", "litellm_ledger", *arguments]
        return subprocess.run(words, check=False, env=self.env).returncode

    # -- what the scenes are made of ---------------------------------------------------------------

    def begin(self, order: str) -> None:
        for app in self.apps:
            app.order(order)

    def finish(self) -> None:
        """Hear from all applications until they have nothing to do."""
        for machine, app in zip(self.machines, self.apps, strict=True):
            app.hear(lambda line: line == "idle", machine.take)

    @property
    def made(self) -> int:
        """How many calls have ended, as the applications saw it."""
        return sum(len(machine.ended) for machine in self.machines)

    def there(self) -> int:
        """How many outcomes the database has."""
        return asyncio.run(ask(self.owner, "SELECT count(*) FROM litellm_ledger.usage"))

    def caught_up(self) -> str:
        """Wait until the database has every call that has ended; say how long that took."""
        began = time.monotonic()
        while (there := self.there()) < self.made:
            if time.monotonic() > began + CATCH_UP:
                return f"{there} of {self.made} calls are in the database after {CATCH_UP:.0f} s"
            time.sleep(0.1)
        return f"all {self.made} are in the database {time.monotonic() - began:.1f} s later"

    # -- the scenes --------------------------------------------------------------------------------

    def all_is_well(self) -> None:
        self.sidecar = self.lima.ship()
        self.begin(f"calls {self.calls}")
        self.finish()
        say(f"\n1. All is well: {self.made} calls, and {self.caught_up()}.")

    def the_network_is_slow(self) -> None:
        before = self.made
        self.network.slow(SLOW)
        self.begin(f"calls {self.calls}")
        half = len(self.lima.ended) + self.calls // 2
        self.apps[1].hear(lambda _: len(self.lima.ended) >= half, self.lima.take)
        self.sidecar.kill()
        self.finish()
        say(
            f"\n2. The network is slow, {1e3 * SLOW:.0f} ms each way, and lima's shipper is killed "
            f"with SIGKILL at its work:\n   {self.made - before} more calls; none waits for that. "
            f"{self.made - self.there()} of {self.made} are not in the database yet."
        )

    def the_network_is_cut(self) -> None:
        before = self.made
        self.network.cut()
        self.apps[2].order(f"hold {HELD}")
        self.apps[2].hear(lambda line: line == "idle", self.kyoto.take)
        self.begin(f"calls {self.calls}")
        half = len(self.kyoto.ended) + self.calls // 2
        self.apps[2].hear(lambda _: len(self.kyoto.ended) >= half, self.kyoto.take)
        self.apps[2].kill()
        self.apps[2].rest(self.kyoto.take)
        self.killed = [f"kyoto-{n:03}" for n in range(1, 3 * self.calls + HELD + 1)]
        machines, self.apps = self.machines, self.apps[:2]
        self.machines = machines[:2]
        self.finish()
        self.machines = machines
        say(
            f"\n3. The network is cut ({self.network.broken} connections broke), and kyoto's "
            f"application is killed with SIGKILL\n   in the middle of its calls: "
            f"{self.made - before} more have ended; {self.made - self.there()} of {self.made} are "
            "on the machines only."
        )

    def everybody_comes_back(self) -> None:
        before = self.made
        self.network.mend()
        self.sidecar = self.lima.ship()
        self.apps.append(self.spare)
        self.begin(f"calls {self.calls}")
        self.finish()
        say(
            f"\n4. The network is back; kyoto's next process and lima's next shipper find what the "
            f"dead ones left:\n   {self.made - before} more calls, and {self.caught_up()}."
        )

    def one_budget(self) -> None:
        before = self.made
        self.begin("spend")
        self.finish()
        say(
            f"\n5. A budget of ${LIMIT} for the {NIGHT} of all three machines, lent out by the "
            f"database:\n   {self.made - before} calls, until each machine was refused one."
        )

    def everybody_goes(self) -> bool:
        """End all processes well; tell whether they did."""
        statuses = [app.end() for app in self.apps]
        for machine, app in zip(self.machines, self.apps, strict=True):
            app.rest(machine.take)
        statuses.append(self.sidecar.end(signalled=True))
        statuses.append(self.provider.end(signalled=True))
        return not any(statuses)

    def compare(self, ended: bool) -> Sequence[str]:
        """Ask as a user would, then compare; return what does not hold."""
        ledgers = [str(machine.ledger) for machine in self.machines]
        against = [word for ledger in ledgers for word in ("--against", ledger)]
        statuses = [
            self.command("ship", *ledgers, "--to", self.url),
            self.command("report", self.analyst, "--by", "machine"),
            self.command("report", self.analyst, "--by", "model,status"),
            self.command("verify", self.analyst, *against),
        ]
        say("\nDoes it hold?")
        requests = [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]
        found = Comparison(self.analyst, requests, self.machines)
        found.calls()
        found.amounts()
        found.unsettled(self.killed)
        found.seen()
        found.budget(Decimal(LIMIT), NIGHT)
        found.answers()
        found.proof.check(
            ended and not any(statuses),
            "the processes that were not killed ended well, and every command above said that all "
            "is in order",
        )
        return found.proof.failed

    def stay(self) -> None:
        say(
            f"\nUntil Ctrl-C, everything stays for you to look at:\n"
            f"  export PGPASSFILE={self._passwords}\n"
            f"  litellm-ledger report {self.analyst} --by user\n"
            f"  litellm-ledger html fleet.html {self.analyst}"
        )
        try:
            signal.pause()
        except KeyboardInterrupt:
            say()

    def run(self) -> bool:
        self.all_is_well()
        self.the_network_is_slow()
        self.the_network_is_cut()
        self.everybody_comes_back()
        self.one_budget()
        return not self.compare(self.everybody_goes())


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell the story; return the exit status."""
    parser = argparse.ArgumentParser(prog="python examples/fleet", description=__doc__)
    parser.add_argument("--calls", type=int, default=40, help="of each machine in each scene")
    parser.add_argument("--stay", action="store_true", help="at the end, wait for Ctrl-C")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="ledger-fleet-"))
    scratch.chmod(0o711)  # PostgreSQL may be another user than we are
    before = os.environ.get("PGPASSFILE")
    try:
        with ExitStack() as stack:
            fleet = Fleet(scratch, max(given.calls, 4))
            fleet.set_up(stack)
            holds = fleet.run()
            took = time.monotonic() - began
            say(f"\n{'All of it holds' if holds else 'It does NOT hold'} ({took:.0f} s).")
            if given.stay:
                fleet.stay()
        return 0 if holds else 1
    finally:
        os.environ.pop("PGPASSFILE", None)
        if before is not None:
            os.environ["PGPASSFILE"] = before
        shutil.rmtree(scratch, ignore_errors=True)
