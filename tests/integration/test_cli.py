"""The command line as a user runs it: a subprocess, its output and its exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from tests import forked
from tests.ledger_by_hand import NOON, HandMade, spoil
from tests.terminal import on_a_terminal

import litellm_ledger

ENV = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
if "PYTHONPATH" in os.environ:
    ENV["PYTHONPATH"] = os.environ["PYTHONPATH"]


def run(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    return forked.run(
        ["-m", "litellm_ledger", *map(str, args)],
        options=("-X", "utf8"),
        modules=forked.COMMAND,
        env=ENV | env,
        timeout=60,
    )


def python(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, args)]
    return subprocess.run(
        command,
        env=ENV | {"PYTHONUTF8": "1"} | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    """A closed writer: two users, two models, a failed call, one that could not be priced."""
    hand = HandMade(tmp_path / "usage")
    first = {"input_tokens": 1_000, "output_tokens": 50, "cost": Decimal("0.0000045")}
    hand.sealed(
        1,
        5,
        [
            hand.started(1),
            hand.outcome(2, of=1, tags={"user": "alice"}, **first),
            hand.line(3, model="big", cost=Decimal("1.25"), input_tokens=7, tags={"user": "bob"}),
            hand.line(4, status="error", error="RateLimitError"),
            hand.line(5, model="odd\x1b[31m\n", input_tokens=1, output_tokens=1),
        ],
    )
    return hand


# -- report -------------------------------------------------------------------------------------


def test_a_report_in_a_pipe_is_plain_aligned_text(hand: HandMade) -> None:
    done = run("report", hand.root)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "model          calls  ok  error  input  output  total tokens  unpriced         cost",
        "big                1   1      0      7       0             7         0  $1.2500000",
        "m                  2   1      1  1,000      50         1,050         0  $0.0000045",
        r"odd\x1b[31m\n      1   1      0      1       1             2         1     unknown",
        "total              4   3      1  1,008      51         1,059         1  $1.2500045+",
        "",
        "+ marks a minimum: the real cost may be higher, for the reasons below.",
        "Tokens: 3 calls counted by the provider.",
        "Cost: 1 call that succeeded could not be priced; the real cost is higher.",
    ]


def test_a_report_as_json_has_exact_amounts(hand: HandMade) -> None:
    done = run("report", hand.root, "--by", "model", "--by", "status", "--json")
    found = json.loads(done.stdout)
    assert set(found) == {
        "path", "since", "until", "where", "tz", "week_start", "by", "breakdown", "rows", "total",
        "folded", "in_flight", "cut_off", "adjusted", "aggregated", "pruned", "notes", "problems",
    }  # fmt: skip
    assert found["by"] == ["model", "status"]
    assert found["total"]["cost"] == "1.2500045"
    assert found["rows"][1]["group"] == {"model": "m", "status": "ok"}
    assert found["rows"][1]["cost"] == "0.0000045"


def test_an_empty_ledger_is_said_to_be_empty(tmp_path: Path) -> None:
    HandMade(tmp_path)
    done = run("report", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"No calls on record in {tmp_path}.\n")
    assert run("records", tmp_path).stdout == "No records.\n"
    assert run("records", tmp_path, "--json").stdout == ""
    assert run("verify", tmp_path).stdout == f"No writer has used {tmp_path} yet.\n"


def test_a_report_says_what_is_in_flight_and_what_was_cut_off(hand: HandMade) -> None:
    dead = HandMade(hand.root, "20250103T000000Z-00000000000000cc")
    dead.open(1, [dead.started(1), dead.started(2), dead.outcome(3, of=1)])
    dead.live(accepted=3, oldest=2)
    running = HandMade(hand.root, "20250103T000000Z-00000000000000dd")
    running.open(1, [running.started(1), running.started(2)])
    with running.alive(accepted=2):
        done = run("report", hand.root, "--by", "status")
    assert done.stdout.splitlines()[-2:] == [
        "In flight: 2 calls of running processes without an outcome yet, not counted above.",
        (
            "Cut off: 1 call in flight when the process died, not counted above; "
            "litellm-ledger recover records them as unsettled."
        ),
    ]
    plain = json.loads(run("report", hand.root, "--json").stdout)
    assert (plain["in_flight"], plain["cut_off"]) == (0, 3)


def test_a_ledger_of_nothing_but_calls_in_flight_is_not_said_to_be_empty(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.open(1, [hand.started(1)])
    with hand.alive(accepted=1):
        said = run("report", tmp_path).stdout
    assert said == (
        f"No call has ended yet in {tmp_path}.\n"
        "In flight: 1 call of running processes without an outcome yet, not counted above.\n"
    )


@pytest.mark.parametrize("flags", [("--by", "tag:usr"), ("--where", "tag:usr=alice")])
def test_a_tag_that_is_on_no_call_may_be_asked_for(hand: HandMade, flags: tuple[str, str]) -> None:
    said = run("report", hand.root, *flags, "--allow-missing").stdout
    named = "None of these calls has tag:usr. Did you mean tag:user? They have tag:user.\n"
    assert said.endswith(named)
    assert "None of these" not in run("report", hand.root, "--by", "tag:user").stdout


# -- records --------------------------------------------------------------------------------------


def test_what_is_missing_marks_the_total_and_is_said_beside_csv(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    path = hand.sealed(1, 3, hand.lines(1, 3, cost=Decimal(2), status="ok", usage_source="none"))
    assert "+" not in run("report", tmp_path).stdout
    spoil(path, 1)
    said = run("report", tmp_path).stdout
    row, total = said.splitlines()[1:3]
    assert row.split()[-1] == "$4.00"
    assert total.split()[-1] == "$4.00+"
    assert "+ marks a minimum: the real cost may be higher" in said
    done = run("report", tmp_path, "--csv")
    assert done.stdout.count("\n") == 2
    assert done.stderr == "Damage: 1 place in 1 file not counted; run litellm-ledger verify.\n"


def test_an_archive_that_cannot_be_read_is_named_and_nothing_is_said_to_be_exact(
    hand: HandMade,
) -> None:
    hand.sealed(1, 3, hand.lines(1, 3, cost=Decimal(2), status="ok"))
    assert run("compact", hand.root, "--today").returncode == 0
    (file,) = (hand.root / "archive").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    done = run("verify", hand.root)
    assert done.returncode == 1
    assert f"archive/{file.name}" in done.stdout
    assert "NOT OK: 5 lost, 2 damaged places, 1 file in archive/ not readable." in done.stdout
    done = run("daily", hand.root)
    assert f"Not read: archive/{file.name}; nothing in it is counted" in done.stdout
    page = run("html", "-", hand.root).stdout
    assert f"Not read: archive/{file.name}" in page


def test_records_show_the_newest_last_and_say_how_many_there_are(hand: HandMade) -> None:
    done = run("records", hand.root, "--limit", 2)
    lines = done.stdout.splitlines()
    head = "time (UTC) model status error input output cost ms tags id"
    assert lines[0].split() == head.split()
    assert lines[1].split()[3:5] == ["error", "RateLimitError"]
    assert r"odd\x1b[31m\n" in lines[2]
    assert "\x1b" not in done.stdout
    assert lines[-1] == "The newest 2 of 4; --limit 0 shows all."


def test_records_as_json_are_one_object_a_line_in_ledger_order(hand: HandMade) -> None:
    done = run("records", hand.root, "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["seq"] for record in found] == [2, 3, 4, 5]
    assert found[0]["cost"] == "0.0000045"
    assert found[0]["ts"] == NOON.isoformat().replace("+00:00", "Z")
    assert "cost" not in found[2]
    everything = run("records", hand.root, "--json", "--all-kinds", "--limit", 9)
    assert [json.loads(line)["seq"] for line in everything.stdout.splitlines()] == [1, 2, 3, 4, 5]


def test_gaps_and_started_calls_are_shown_when_asked_for(hand: HandMade) -> None:
    hand.sealed(6, 9, [hand.gap(6, 9)])
    done = run("records", hand.root, "--all-kinds")
    assert "lost to 9" in done.stdout
    assert "started" in done.stdout
    assert "lost to 9" not in run("records", hand.root).stdout


def test_damage_is_said_on_stderr_and_does_not_stop_the_listing(hand: HandMade) -> None:
    spoil(next((hand.root / "segments").iterdir()), line=2)
    done = run("records", hand.root, "--json")
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == (
        "litellm-ledger: 1 place holds no valid record; run litellm-ledger verify\n"
    )
    assert done.returncode == 0
    assert "Damage: 1 place in 1 file not counted" in run("report", hand.root).stdout


# -- verify ----------------------------------------------------------------------------------------


def test_verify_of_a_sound_ledger_exits_0_and_says_what_it_cannot_prove(hand: HandMade) -> None:
    done = run("verify", hand.root)
    assert done.returncode == 0
    assert done.stdout.startswith(
        "1 writer closed or recovered, nothing missing: 5 records (--all shows each).\n"
    )
    everything = run("verify", hand.root, "--all").stdout
    assert f"{hand.writer}: closed, or recovered: all 5 found.\n" in everything
    assert "--all" not in everything
    assert "Cannot prove: " in done.stdout
    assert done.stdout.endswith("OK: 5 records found, nothing lost or damaged.\n")


def test_verify_of_a_damaged_ledger_exits_1_and_names_the_place(hand: HandMade) -> None:
    path = next((hand.root / "segments").iterdir())
    spoil(path, line=2)
    done = run("verify", hand.root)
    assert done.returncode == 1
    assert f"  segments/{path.name}: 1 damaged line, " in done.stdout
    assert "Restore the file from a backup" in done.stdout
    assert done.stdout.endswith("NOT OK: 1 lost, 1 damaged place.\n")
    as_json = run("verify", hand.root, "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["writers"][0]["lost"] == 1


def test_verify_sums_up_writers_that_are_fine(tmp_path: Path) -> None:
    for number in range(30):
        HandMade(tmp_path, f"20250101T000000Z-{number:016x}").sealed(1, 1)
    bad = HandMade(tmp_path, "20250101T000000Z-ffffffffffffffff")
    bad.sealed(2, 2)
    done = run("verify", tmp_path)
    assert done.returncode == 1
    assert f"{bad.writer}: closed, or recovered: 1 found of 2, 1 LOST." in done.stdout
    assert (
        "30 writers closed or recovered, nothing missing: 30 records (--all shows each)."
        in done.stdout
    )
    assert f"20250101T000000Z-{7:016x}" not in done.stdout


def test_recover_then_verify_goes_on_telling_the_loss(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.open(1, [hand.started(1), *hand.lines(2, 4)], tail=b'{"torn')
    hand.live(accepted=6, oldest=1)
    before = run("verify", tmp_path)
    assert before.returncode == 1
    assert "died without closing: 4 found of 6, 2 LOST" in before.stdout
    assert "for 2 of these the ledger does not say if they were acknowledged" in before.stdout
    assert "all lost records count as acknowledged" in before.stdout
    done = run("recover", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        f"{hand.writer}: 2 segments sealed, 2 lost, 0 damaged, 1 unsettled, 6 torn bytes"
        in done.stdout
    )
    assert run("recover", tmp_path).stdout == (
        f"Nothing to recover in {tmp_path}: no writer has died.\n"
        "Sealed segments were not checked for damage; litellm-ledger verify does that.\n"
    )
    after = run("verify", tmp_path)
    assert after.returncode == 1
    assert "died, recovered since: 5 found of 7, 2 LOST" in after.stdout
    assert "Kept in recovery/ for inspection: " in after.stdout


def test_verify_after_a_kill_fails_only_if_what_is_lost_was_acknowledged(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.open(1, hand.lines(1, 4))
    for level, status, strict in (("written", 0, 1), ("synced", 0, 1), ("queued", 1, 1)):
        hand.live(accepted=6, written=4, level=level)
        assert run("verify", tmp_path).returncode == status
        assert run("verify", tmp_path, "--strict").returncode == strict
    hand.live(accepted=6, written=4, level="written")
    before = run("verify", tmp_path).stdout
    assert "died without closing: 4 found of 6, 2 lost, never acknowledged;" in before
    assert "No caller had been told that they were recorded." in before
    recovered = run("recover", tmp_path).stdout
    assert "2 lost (all of these never acknowledged)" in recovered
    after = run("verify", tmp_path)
    assert (after.returncode, after.stderr) == (0, "")
    assert after.stdout.endswith(
        "OK: 4 records found, nothing acknowledged is lost, nothing is damaged; "
        "2 records lost that had never been acknowledged.\n"
    )
    strict = run("verify", tmp_path, "--strict")
    assert strict.returncode == 1
    assert strict.stdout.endswith("NOT OK: 2 lost (all of these never acknowledged).\n")
    for flags in ([], ["--strict"]):
        said = json.loads(run("verify", tmp_path, "--json", *flags).stdout)
        assert (said["ok"], said["complete"]) == (True, False)
        assert (said["writers"][0]["lost"], said["writers"][0]["unacknowledged"]) == (2, 2)


# -- help, path, errors, exit statuses ------------------------------------------------------------


def test_the_version_is_told() -> None:
    assert run("--version").stdout == f"litellm-ledger {litellm_ledger.__version__}\n"


def test_the_list_of_commands_cuts_no_summary_off() -> None:
    done = run("--help", COLUMNS="80")
    assert done.returncode == 0
    assert "..." not in done.stdout.partition("Commands:")[2]
    said = " ".join(done.stdout.split())
    assert "exit 1 if acknowledged records are lost or files damaged" in said


def test_path_prints_the_default_directory_and_commands_use_it(hand: HandMade) -> None:
    where = {"LITELLM_LEDGER_DIR": str(hand.root)}
    assert run("path", **where).stdout == f"{hand.root}\n"
    assert "total" in run("report", **where).stdout


def test_wrong_usage_is_status_2(hand: HandMade) -> None:
    done = run("report", hand.root, "--by", "modle")
    assert done.returncode == 2
    assert done.stderr == (
        "litellm-ledger: unknown group key 'modle'; did you mean model? For a tag use tag:modle\n"
    )
    assert run("report", "--nonsense").returncode == 2
    assert run("bogus").returncode == 2


def test_a_reader_that_leaves_early_is_no_error(hand: HandMade) -> None:
    hand.sealed(6, 5_000)
    command = ["-m", "litellm_ledger", "records", str(hand.root), "--json"]
    with forked.Forked(
        command, modules=forked.COMMAND, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"id":')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_the_extra_one_line_says_what_to_install(package: str) -> None:
    code = (
        "import importlib.util as util, sys; find = util.find_spec\n"
        f"util.find_spec = lambda name: None if name == {package!r} else find(name)\n"
        "from litellm_ledger.__main__ import main; sys.exit(main())"
    )
    done = python("-c", code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"litellm-ledger: {package} is not installed; "
        "install it with: pip install 'litellm-ledger[cli]' (in a checkout: pip install '.[cli]')\n"
    )


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("re", ["report", "records", "recover", "reprice"]),
        ("daily --week", ["--week-start"]),
        ("--js", ["--json"]),  # without a command: daily's
        ("--json --la", ["--latency", "--last"]),
        ("usage --md --bre", ["--breakdown"]),
        ("no/where --versio", ["--version"]),
        ("verify us", ["usage"]),
    ],
)
def test_bash_completes_commands_flags_and_directories(
    tmp_path: Path, line: str, offered: list[str]
) -> None:
    bash = shutil.which("bash")
    assert bash is not None, "bash is missing; .ci/run needs it as well"
    (tmp_path / "usage").mkdir()
    (tmp_path / "used.txt").touch()
    command = tmp_path / "bin" / "litellm-ledger"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m litellm_ledger "$@"\n')
    command.chmod(0o755)
    script = """
        eval "$(litellm-ledger completion bash)"
        compopt() { compgen -d -- "$last"; }  # bash's own works only while a key is handled
        COMP_WORDS=(litellm-ledger $1)
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        last=${COMP_WORDS[-1]}
        _litellm_ledger_completion litellm-ledger
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    env = ENV | {"PATH": f"{command.parent}:{ENV['PATH']}"}
    done = subprocess.run(
        [bash, "--norc", "-c", script, "bash", line],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(shell: str) -> None:
    done = run("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_LITELLM_LEDGER_COMPLETE={shell}_complete" in done.stdout
    assert run(_LITELLM_LEDGER_COMPLETE=f"{shell}_source").stdout.rstrip() == done.stdout.rstrip()
    done = run("completion", "csh")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("there is no completion for 'csh'; give bash, zsh, fish\n")


def test_h_is_help() -> None:
    for command in [], ["top"]:
        short, long = run(*command, "-h"), run(*command, "--help")
        assert short.returncode == 0
        assert short.stdout == long.stdout
        assert "-h, --help" in short.stdout


def test_the_help_explains_arguments_before_options() -> None:
    assert run("top", "--help", COLUMNS="80").stdout.startswith(
        "Usage: litellm-ledger top [OPTIONS] [WHAT] [PATH]...\n\n"
        "  The most expensive users, models or tags, and their share of the cost.\n\n"
        "Arguments:\n"
        "  WHAT       users, models, providers, tags, or any group key. Default:\n"
        "             models.\n"
        "  [PATH]...  Ledger directory, s3://… or postgresql://…, or several, read as\n"
        "             one. Default: $LITELLM_LEDGER_DIR, that of litellm-ledger.toml,\n"
        "             or your user data directory.\n\n"
        "Options:\n"
        "  --by KEYS                  Group keys, comma-separated, in place of WHAT.\n"
        "  -n, --limit INTEGER RANGE  Number of rows; 0: all.  [default: 10; x>=0]\n"
    )
    assert "  QUESTION  The text to send.  [required]\n" in run("ask", "--help").stdout


def test_a_command_imports_nothing_of_the_other_ones(hand: HandMade) -> None:
    code = (
        "import sys, atexit\n"
        "from litellm_ledger.__main__ import main\n"
        "heavy = 'pydantic typer rich subprocess tempfile platformdirs hashlib'.split()\n"
        "heavy += ['litellm_ledger.' + name for name in '_cli.health _cli.records _reports.sql "
        "_reports.in_duckdb _reports.relation'.split()]\n"
        "atexit.register(lambda: print(set(heavy) & set(sys.modules)))\n"
        "sys.argv = ['litellm-ledger', 'daily']\n"
        "main()\n"
    )
    done = python("-c", code, LITELLM_LEDGER_DIR=str(hand.root))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("set()\n")


def test_an_output_that_cannot_show_a_character_is_no_error(hand: HandMade) -> None:
    hand.sealed(6, 6, [hand.line(6, model="模型")])
    command = ("-m", "litellm_ledger", "report", hand.root)
    done = python(*command, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "??" in done.stdout


@pytest.mark.parametrize(
    "args",
    [[], ["--help"], ["path"], ["report"], ["top", "users"], ["calls"], ["records", "--json"],
     ["export"], ["html", "-"], ["doctor"], ["verify"], ["recover"]],
)  # fmt: skip
def test_no_command_but_ask_imports_litellm_or_an_event_loop(
    hand: HandMade, args: list[str]
) -> None:
    heavy = {"litellm", "asyncio", "duckdb", "rich.table"}
    if args in (["--help"], ["path"]):  # these read nothing
        heavy |= {"msgspec", "litellm_ledger._reports.ledger"}
    code = (
        "import sys, atexit\n"
        "from litellm_ledger.__main__ import main\n"
        f"heavy = {heavy}\n"
        "atexit.register(lambda: print(heavy & set(sys.modules)))\n"
        f"sys.argv = ['litellm-ledger', *{args!r}]\n"
        "main()\n"
    )
    done = python("-c", code, LITELLM_LEDGER_DIR=str(hand.root))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("set()\n")


# -- on a terminal ---------------------------------------------------------------------------------


def on_terminal(width: int, *args: object, color: bool = False) -> str:
    return on_a_terminal(*args, columns=width, color=color, errors=False)


def test_a_wide_terminal_shows_every_column(hand: HandMade) -> None:
    shown = on_terminal(140, "report", hand.root, "--by", "model,tag:user")
    assert "total tokens" in shown
    assert "─" in shown
    assert "left out" not in shown
    assert "$1.2500045" in shown


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_drops_columns_and_says_so(hand: HandMade, width: int) -> None:
    shown = on_terminal(width, "report", hand.root)
    table = shown[: shown.index("(left out")]
    assert max(map(len, table.splitlines())) <= width
    assert "$1.2500045" in shown
    assert "total tokens" in shown[shown.index("(left out") :].replace("\n", " ")


def test_an_answer_too_wide_for_the_terminal_has_a_line_a_column(hand: HandMade) -> None:
    query = "SELECT id, model, cost, tags, kind FROM calls ORDER BY seq LIMIT 2"
    shown = on_terminal(60, "sql", query, hand.root)
    rows = [line.split() for line in shown.splitlines()]
    assert [row[:1] for row in rows[:6]] == [["id"], ["model"], ["cost"], ["tags"], ["kind"], []]
    assert rows[0][1].endswith("0000000000000002")
    assert shown.splitlines()[2].index("0.0000045") == len("model  ")
    assert "one line per column" in shown
    wide = on_terminal(200, "sql", query, hand.root)
    assert wide.split()[:5] == ["id", "model", "cost", "tags", "kind"]
    assert "one line per column" not in wide


# -- the looks of a terminal, of the reports -------------------------------------------------------


@pytest.fixture
def month(tmp_path: Path) -> Path:
    """Thirty days, three models, costs with more digits than a terminal shows."""
    tiny = Decimal("0.00000000001")
    calls = [
        {"ts": NOON + timedelta(n % 30), "model": f"m{n % 3}", "input_tokens": n, "cost": n + tiny}
        for n in range(1, 91)
    ]
    return HandMade(tmp_path / "usage").filled(*calls).root


def test_a_terminal_gets_a_sparkline_and_bars_where_there_is_room(month: Path) -> None:
    wide = on_terminal(120, "daily", month)
    first = wide.splitlines()[0]
    assert first.startswith("$4,095.0000000009 in 90 calls  ")
    assert set(first.split()[-1]) <= set("▁▂▃▄▅▆▇█")
    assert len(first.split()[-1]) == 30
    assert sum("█" in line for line in wide.splitlines()) >= 25, "bars"
    assert "Costs are rounded to a millionth of a dollar here; --json has every digit." in wide
    narrow = on_terminal(44, "daily", month)
    assert sum("█" in line for line in narrow.splitlines()) <= 2
    table = narrow[: narrow.index("(left out")]
    assert max(map(len, table.splitlines())) <= 44
    assert "$4,095.000000" in table


@pytest.mark.parametrize(
    "args",
    [["daily", "--breakdown"], ["top", "models"], ["calls", "-n", "3"], ["doctor"], ["verify"]],
    ids=" ".join,
)
@pytest.mark.parametrize("width", [40, 100])
def test_every_table_fits_and_words_say_what_colour_says(
    month: Path, args: list[str], width: int
) -> None:
    plain = on_terminal(width, args[0], *args[1:], month)
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= width + 1
    colored = on_terminal(width, args[0], *args[1:], month, color=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", still(colored)) == still(plain)


def still(text: str) -> str:
    """Without what changes from one second to the next."""
    return re.sub(r"[\d.,]+ GiB", "", text)


def test_no_colour_is_no_colour(month: Path) -> None:
    assert "\x1b[36m" in on_terminal(100, "daily", month, color=True)
    assert "\x1b[36m" not in on_terminal(100, "daily", month, "--no-color", color=True)
