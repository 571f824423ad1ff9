"""Real commands, interrupted at one statement after the other: the next run ends the work."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.holding import HoldingProxy
from tests.postgres.databases import answers, ask, run, texts, wrong
from tests.postgres.shipped import ledger, load, roll
from tests.postgres.test_chaos import port_of, through
from tests.shipped import assert_exactly_once

from litellm_ledger import Ledger

HOW = ("killed before", "killed after", "cut after", "backend ended")
ERASE = ["erase", "{}", "--where", "user=user-13", "--yes"]
COMMANDS: dict[str, list[str]] = {
    "ship": ["ship", "{root}", "--to", "{}"],
    "prune": ["prune", "{}", "--keep", "400d", "--yes"],
    "erase": ERASE,
    "strip": [*ERASE, "--keep-amounts"],
    "rebuild": ["database", "rebuild", "{}"],
}
STATEMENTS = 20
"""How many statements are passed over from one trial to the next, in each of four ways."""


async def _command(arguments: list[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "litellm_ledger", *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


async def _interrupted(
    proxy: HoldingProxy, server: str, name: str, arguments: list[str], at: int, how: str
) -> bool:
    """Run a command until it is interrupted; tell whether it came so far."""
    proxy.arm(at, after=how.endswith("after"))
    process = await _command(arguments)
    ended = asyncio.create_task(process.communicate())
    held = asyncio.create_task(proxy.held.wait())
    await asyncio.wait([ended, held], return_when=asyncio.FIRST_COMPLETED)
    reached = held.done()
    held.cancel()
    proxy.arm(0, after=False)
    if reached:
        if how.startswith("killed"):
            process.kill()
        elif how == "backend ended":
            await asyncio.to_thread(
                run,
                server,
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
            )
        proxy.cut()
    _, said = await ended
    assert b"Traceback" not in said, said.decode()
    return reached


@pytest.mark.matrix
@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_that_is_interrupted_at_any_statement_is_ended_by_the_next_run(
    database_url: str, tmp_path: Path, what: str
) -> None:
    root = ledger(tmp_path, 120)
    expected = answers(root)
    if what != "ship":
        load(database_url, root, lines=40)
        roll(database_url)
    name = urlsplit(database_url).path.removeprefix("/")
    server = database_url.replace(f"/{name}", "/postgres", 1)
    trial = f"{name}_trial"
    here = tmp_path / "trial"

    def between(url: str) -> None:
        assert wrong(Ledger(url).verify()) == []
        if what in ("prune", "rebuild"):
            assert answers(url) == expected

    def at_the_end(url: str) -> None:
        between(url)
        if what == "ship":
            asyncio.run(assert_exactly_once(url, [here]))
            assert answers(url) == expected
        elif what == "prune":
            assert ask(
                url, "SELECT count(*) FROM litellm_ledger.calls WHERE ts > '2000-01-01'"
            ) == [(0,)]
        elif what in ("erase", "strip"):
            assert b"user-13" not in texts(url)

    async def all_of_them(checks: tuple[Callable[[str], None], ...]) -> int:
        trials = 0
        async with HoldingProxy(port_of(database_url)) as proxy:
            for offset, how in enumerate(HOW, 1):
                at, reached = offset, True
                while reached:
                    await asyncio.to_thread(
                        run,
                        server,
                        f"DROP DATABASE IF EXISTS {trial} WITH (FORCE)",
                        f"CREATE DATABASE {trial} TEMPLATE {name}",
                    )
                    shutil.rmtree(here, ignore_errors=True)
                    shutil.copytree(root, here)
                    url = database_url.replace(f"/{name}", f"/{trial}", 1)
                    way = through(url, proxy.port)
                    arguments = [one.format(way, root=here) for one in COMMANDS[what]]
                    reached = await _interrupted(proxy, server, trial, arguments, at, how)
                    trials += reached
                    await asyncio.to_thread(checks[0], url)
                    again = await _command(arguments)
                    _, said = await again.communicate()
                    assert again.returncode == 0, (at, how, said)
                    await asyncio.to_thread(checks[1], url)
                    at += STATEMENTS
        return trials

    try:
        assert asyncio.run(all_of_them((between, at_the_end))) > len(HOW)
    finally:
        run(server, f"DROP DATABASE IF EXISTS {trial} WITH (FORCE)")
