"""``litellm-ledger ship --to postgresql://…``: what it says, and what it exits with."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from tests.ledger_by_hand import WRITER, HandMade
from tests.shipped import ask, assert_exactly_once

from litellm_ledger._cli.app import app

AWAY = "postgresql://user:secret@127.0.0.1:9/none"


def test_several_ledgers_are_shipped_and_the_second_run_has_nothing_to_do(
    tmp_path: Path, database_url: str
) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    for number, root in enumerate(roots):
        HandMade(root, f"20250103T000000Z-{number:016x}").sealed(1, 5)
    args = ["ship", *map(str, roots), "--to", database_url]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    assert "10 records shipped to postgresql://" in done.output
    assert asyncio.run(assert_exactly_once(database_url, roots)) == 10
    again = json.loads(CliRunner().invoke(app, [*args, "--json"]).stdout)
    assert (again["ok"], again["shipped"], again["backlog"]) == (True, 0, 0)


def test_a_database_that_is_away_is_said_without_a_password(tmp_path: Path) -> None:
    HandMade(tmp_path).sealed(1, 5)
    done = CliRunner().invoke(app, ["ship", str(tmp_path), "--to", AWAY])
    assert done.exit_code == 1
    assert "5 records not shipped yet" in done.output
    assert "secret" not in done.output + done.stderr
    doctor = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert doctor.exit_code == 1
    assert "5 records not shipped to postgresql://127.0.0.1:9/none; it never" in doctor.output


def test_every_command_warns_once_of_a_password_on_its_line(tmp_path: Path) -> None:
    HandMade(tmp_path).sealed(1, 5)
    for args in (
        ["ship", str(tmp_path), "--to", AWAY],
        ["report", AWAY],
        ["verify", AWAY],
        ["database", "check", AWAY],
        [AWAY],
    ):
        done = CliRunner().invoke(app, args)
        assert done.stderr.count("the password in the URL can be read") == 1, args
    assert "password" not in CliRunner().invoke(app, ["report", AWAY.replace(":secret", "")]).stderr


def test_a_follower_ends_between_batches_when_it_is_told(tmp_path: Path, database_url: str) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 5)
    command = [sys.executable, "-m", "litellm_ledger", "ship", str(tmp_path), "--to", database_url]
    with subprocess.Popen([*command, "--follow"], stdout=subprocess.PIPE) as follower:
        query = "SELECT shipped FROM litellm_ledger.writers WHERE writer = $1"
        while not asyncio.run(ask(database_url, query, WRITER)):
            pass
        follower.send_signal(signal.SIGTERM)
        out, _ = follower.communicate()
    assert follower.returncode == 0
    assert b"shipped to postgresql://" in out
    assert asyncio.run(assert_exactly_once(database_url, [tmp_path])) == 5


def test_a_follower_that_rests_ships_what_came_meanwhile_when_it_is_told_to_end(
    tmp_path: Path, database_url: str
) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 5)
    command = [sys.executable, "-m", "litellm_ledger", "ship", str(tmp_path), "--to", database_url]
    command += ["--follow", "--every", "3600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        query = "SELECT accepted FROM litellm_ledger.writers WHERE writer = $1 AND closed"
        while not asyncio.run(ask(database_url, query, WRITER)):
            pass  # it was told that the writer is closed: nothing is left to do
        HandMade(tmp_path, f"20250103T000000Z-{7:016x}").sealed(1, 4)
        follower.send_signal(signal.SIGTERM)
        out, err = follower.communicate()
    assert follower.returncode == 0
    assert b"9 records shipped to postgresql://" in out
    assert b"until Ctrl-C or SIGTERM" in err
    assert asyncio.run(assert_exactly_once(database_url, [tmp_path])) == 9


def test_following_makes_nothing_where_there_is_no_ledger(
    tmp_path: Path, database_url: str
) -> None:
    there = tmp_path / "misspelt"
    done = CliRunner().invoke(app, ["ship", str(there), "--to", database_url])
    assert done.exit_code == 1
    assert "it does not exist" in done.output
    assert not there.exists()


def test_a_user_who_may_not_ship_is_told_what_to_grant(tmp_path: Path, database_url: str) -> None:
    HandMade(tmp_path).sealed(1, 5)
    asyncio.run(ask(database_url, "DROP ROLE IF EXISTS only_reads"))
    asyncio.run(ask(database_url, "CREATE ROLE only_reads LOGIN IN ROLE ledger_reader"))
    url = database_url.replace("postgres@", "only_reads@")
    assert url != database_url
    try:
        done = CliRunner().invoke(app, ["ship", str(tmp_path), "--to", url])
    finally:
        asyncio.run(ask(database_url, "DROP ROLE only_reads"))
    assert done.exit_code == 1
    assert "GRANT ledger_writer" in done.stderr


def test_quiet_says_only_what_is_wrong(tmp_path: Path, database_url: str) -> None:
    HandMade(tmp_path).sealed(1, 5)
    done = CliRunner().invoke(app, ["ship", str(tmp_path), "--to", database_url, "-q"])
    assert (done.exit_code, done.output) == (0, "")


def test_what_makes_no_sense_is_refused(tmp_path: Path, database_url: str) -> None:
    for args in (
        [str(tmp_path), "--every", "5"],
        [str(tmp_path), "--remove-compacted"],
        [database_url],
    ):
        done = CliRunner().invoke(app, ["ship", *args, "--to", database_url])
        assert done.exit_code == 2, args
