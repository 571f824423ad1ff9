"""Every command on an empty, a live and a damaged ledger, in every form; and what each form holds.

In this process, through the command's own parser: ``test_cli`` runs the installed program.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.ledger_by_hand import NOON, OTHER_WRITER, HandMade, spoil
from tests.terminal import as_json, on_a_terminal, run, told

from litellm_ledger import Ledger, UsageRecord, UsageTracker
from litellm_ledger._cli.app import app
from litellm_ledger._cli.files import part_of
from litellm_ledger._reports import doctor as _doctor

DAY = timedelta(days=1)
TABLES = (
    "", "daily", "weekly", "monthly", "hourly", "daily --breakdown", "daily --latency", "report",
    "report --by user,model,status", "top", "top users -n 1", "top tags", "calls",
)  # fmt: skip
READING = {
    **dict.fromkeys(TABLES, ("json", "csv", "md")),
    **dict.fromkeys(
        (
            "records",
            "tail",
            "doctor",
            "verify",
            "recover",
            "seal",
            "anchor",
            "compact",
            "prune --keep 1d --dry-run",
            "prune --keep 1d",
            "statusline",
            "alerts",
        ),
        ("json",),
    ),
    "export": ("jsonl", "csv"),
    "metrics": (),
}


def fill(hand: HandMade) -> None:
    """Two users and models over three days; estimated, unpriced, cancelled, failed, retried."""
    lines = [
        hand.started(1),
        hand.outcome(
            2, of=1, tags={"user": "alice", "env": "prod"}, input_tokens=1_000, output_tokens=50,
            cost=Decimal("0.0000045"), latency_ms=120.5, ttft_ms=30.0, call_id="call-2",
            response_id="resp-2",
        ),
        hand.line(
            3, model="big", cost=Decimal("1.25"), input_tokens=7, cache_read_tokens=3,
            tags={"user": "bob"}, ts=NOON + DAY, latency_ms=12_000.0,
        ),
        hand.line(
            4, model="big", cost=Decimal("0.75"), input_tokens=7, output_tokens=2,
            usage_source="estimated", status="abandoned", tags={"user": "bob"}, ts=NOON + DAY,
        ),
        hand.line(5, model="new", input_tokens=1, output_tokens=1, ts=NOON + 2 * DAY),
        hand.line(6, status="cancelled", ts=NOON + 2 * DAY),
        hand.line(7, kind="started", operation=hand.id(7), attempt=1, ts=NOON),
        hand.line(
            8, operation=hand.id(7), attempt=1, status="error", error="RateLimitError", ts=NOON
        ),
        hand.line(9, kind="started", operation=hand.id(7), attempt=2, ts=NOON),
        hand.line(10, operation=hand.id(7), attempt=2, cost=Decimal("0.5"), input_tokens=4),
    ]  # fmt: skip
    hand.sealed(1, 10, lines)


@pytest.fixture
def whole(tmp_path: Path) -> HandMade:
    hand = HandMade(tmp_path / "usage")
    fill(hand)
    return hand


@pytest.fixture(params=["empty", "live", "damaged"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    hand = HandMade(tmp_path / "usage")
    if request.param == "empty":
        yield hand.root
        return
    fill(hand)
    if request.param == "damaged":
        (segment,) = (hand.root / "segments").iterdir()
        spoil(segment, line=2)
        (hand.root / "segments" / f"{OTHER_WRITER}.{1:016d}.jsonl.open").write_bytes(b"\0" * 99)
        (hand.root / "segments" / "stray.txt").write_text("not ours")
        dead = HandMade(hand.root, "20250104T000000Z-00000000000000ee")
        dead.open(1, [dead.started(1)], tail=b'{"v":1,"id":"torn')
        dead.live(accepted=2, oldest=1)
        yield hand.root
        return
    other = HandMade(hand.root, OTHER_WRITER)
    other.open(1, [other.started(1), other.line(2, cost=Decimal(1))], tail=b'{"v":1,"id":"half')
    with other.alive(accepted=2):
        yield hand.root


@pytest.mark.parametrize("command", READING)
def test_every_command_on_every_ledger_in_every_form(ledger: Path, command: str) -> None:
    empty = not Ledger(ledger).report().total.calls
    for form in ("", *(f"--{form}" for form in READING[command])):
        args = [*command.split(), ledger, *form.split()]
        if command == "report --by user,model,status":
            args = ["report", ledger, *command.split()[1:], *form.split()]
        done = run(*args)
        assert not done.exception or isinstance(done.exception, SystemExit), (args, done.exception)
        told = ("verify", "doctor", "compact", "seal", "alerts", "prune")
        statuses = (0, 1) if command.split()[:1] and command.split()[0] in told else (0,)
        assert done.exit_code in statuses, done.output
        assert "Traceback" not in done.output
        if form == "--json" and command not in ("records", "tail"):
            assert json.loads(done.stdout)
        elif form in ("--json", "--jsonl") or (command == "export" and not form):
            found = [json.loads(line) for line in done.stdout.splitlines()]
            assert bool(found) is not empty
        elif form == "--csv":
            header, *rows = csv.reader(io.StringIO(done.stdout))
            assert all(len(row) == len(header) for row in rows)
            assert rows or empty
        else:
            assert done.stdout or (empty and command in ("records", "tail"))


def test_without_a_command_it_is_daily(whole: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    daily = told("daily", whole.root)
    assert told(whole.root) == daily
    monkeypatch.setenv("LITELLM_LEDGER_DIR", str(whole.root))
    assert told() == daily
    assert told("--last", "1000w") == daily
    assert told("-s", "1000w") == daily
    assert json.loads(told("--json"))["by"] == ["day"]
    assert "Commands:" in told("--help")


@pytest.mark.parametrize(
    "command",
    ["daily", "report", "top users", "top tags", "calls", "show x", "tail", "tail -f", "records",
     "export", "export --parquet -o x", "doctor", "verify", "recover", "html -", "compact",
     "backup copy", "prune --keep=1d"],
)  # fmt: skip
def test_every_command_says_in_one_line_that_there_is_no_ledger(
    tmp_path: Path, command: str
) -> None:
    first, *rest = command.split()
    done = run(first, *rest[:1], tmp_path / "nowhere", *rest[1:])
    if rest[:1] and rest[0].startswith("-") and rest[0] != "-":
        done = run(first, tmp_path / "nowhere", *rest)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"litellm-ledger: no ledger at {tmp_path / 'nowhere'}: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_the_wrong_place_is_said(whole: HandMade) -> None:
    for args in (["sql", whole.root, "SELECT 1"], ["show", whole.root, "x"]):
        done = run(*args)
        assert done.exit_code == 2
        assert "it comes last: " in done.stderr


def test_a_path_that_is_not_there_is_said_and_home_is_expanded(
    whole: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("usgae/")
    assert (done.exit_code, done.stderr) == (
        2,
        "litellm-ledger: there is no directory usgae/; litellm-ledger --help lists the commands\n",
    )
    assert "No such command" in run("usgae").stderr
    monkeypatch.setenv("HOME", str(whole.root.parent))
    for args in (["report"], []):
        assert told(*args, f"~/{whole.root.name}") == told(*args, whole.root)


# -- reports ---------------------------------------------------------------------------------------


def test_a_day_is_a_row_and_what_is_not_known_is_marked(whole: HandMade) -> None:
    lines = told("daily", whole.root).splitlines()
    days = ["2025-01-01", "2025-01-02", "2025-01-03", "total"]
    assert [line.split()[0] for line in lines[1:5]] == days
    assert lines[0].startswith("day (UTC)   calls  ok  error  cancelled  abandoned  retries")
    costs = ["$0.5000045", "$2.0000000+", "unknown", "$2.5000045+"]
    assert [line.split()[-1] for line in lines[1:5]] == costs
    assert "+ marks a minimum: the real cost may be higher" in lines[6]
    assert any(line.startswith("Cost: 1 call that succeeded could not be priced") for line in lines)


def test_periods_are_those_of_the_zone_and_the_week_begins_as_asked(whole: HandMade) -> None:
    def groups(*args: str) -> list[str]:
        rows = as_json(args[0], whole.root, *args[1:])["rows"]
        return [next(iter(row["group"].values())) for row in rows]

    assert groups("daily", "--tz", "Pacific/Auckland") == ["2025-01-02", "2025-01-03", "2025-01-04"]
    assert groups("weekly") == ["2024-12-30"]
    assert groups("weekly", "--week-start", "friday") == ["2024-12-27", "2025-01-03"]
    assert groups("monthly") == ["2025-01"]
    assert groups("hourly", "--tz", "Asia/Kolkata")[0] == "2025-01-01T17:00+05:30"
    header = told("weekly", whole.root, "--tz", "Europe/Berlin").splitlines()[0]
    assert header.startswith("week of (Europe/Berlin)  calls")


def test_months_are_summed_up_below_their_days_and_years_below_their_months(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    days = [-35, -1, 0, 3, 40, 41]  # of 2025-01-01: three months and two years
    hand.sealed(1, 6, [
        hand.line(n, ts=NOON + day * DAY, cost=Decimal(n), model=f"m{n % 2}")
        for n, day in enumerate(days, 1)
    ])  # fmt: skip

    def firsts(*args: object) -> list[str]:
        lines = told(args[0], tmp_path, *args[1:]).partition("\n\n")[0].splitlines()[1:]
        return [" ".join([*line.split()[: 1 + (" total" in line)], line.split()[-1][:-3]])
                for line in lines]  # fmt: skip

    assert firsts("daily") == [
        "2024-11-27 $1", "2024-11 total $1", "2024-12-31 $2", "2024-12 total $2", "2025-01-01 $3",
        "2025-01-04 $4", "2025-01 total $7", "2025-02-10 $5", "2025-02-11 $6", "2025-02 total $11",
        "total $21",
    ]  # fmt: skip
    assert firsts("monthly") == [
        "2024-11 $1", "2024-12 $2", "2024 total $3", "2025-01 $7", "2025-02 $11", "2025 total $18",
        "total $21",
    ]  # fmt: skip
    assert firsts("daily", "--sort", "day:desc")[:3] == [
        "2025-02-11 $6", "2025-02-10 $5", "2025-02 total $11",
    ]  # fmt: skip
    assert "| 2025-01 total |  | 2 |" in told("daily", tmp_path, "--by", "model", "--md")
    shown = on_a_terminal("daily", tmp_path, "-b")
    assert shown.count("total") == 6
    for args in (["weekly"], ["daily", "--csv"], ["daily", "--json"], ["daily", "-n", "3"],
                 ["daily", "--sort", "cost"], ["daily", "--since", "2025-02"]):  # fmt: skip
        assert "-01 total" not in told(args[0], tmp_path, *args[1:])
        assert "2025-02 total" not in told(args[0], tmp_path, *args[1:])


def test_a_breakdown_has_the_models_below_each_row(whole: HandMade) -> None:
    lines = told("daily", whole.root, "--breakdown").splitlines()
    assert [" ".join(line.split()[:2]) for line in lines[1:9]] == [
        "2025-01-01 3", "└ m", "2025-01-02 2", "└ big", "2025-01-03 2", "└ m", "└ new", "total 7",
    ]  # fmt: skip
    plain = as_json("daily", whole.root, "--breakdown")
    assert plain["breakdown"] == "model"
    assert plain["by"] == ["day"]
    for row in plain["rows"]:
        inner = row["breakdown"]
        assert sum(one["calls"] for one in inner) == row["calls"]
        assert sum(Decimal(one["cost"] or 0) for one in inner) == Decimal(row["cost"] or 0)
    users = as_json("report", whole.root, "--by", "user", "--breakdown")["rows"]
    costs = [("bob", "2"), ("(none)", "0.5"), ("alice", "0.0000045")]
    assert [(row["group"]["tag:user"], row["cost"]) for row in users] == costs


def test_conditions_spans_and_zones_narrow_every_report(whole: HandMade) -> None:
    def calls(*args: str) -> int:
        found: int = as_json("report", whole.root, *args)["total"]["calls"]
        return found

    assert calls() == 7
    assert calls("--where", "env=prod") == 1
    assert calls("--where", "model=big", "--where", "model=new") == 3
    assert calls("--where", "status=ok", "--where", "tag:user=bob") == 1
    assert calls("--since", "2025-01-02") == 4
    assert calls("--until", "2025-01-01") == 3
    assert calls("--since", "2025-01-02", "--until", "2025-01-02", "--tz", "Europe/Berlin") == 2
    assert calls("--last", "24h") == 0
    assert told("report", whole.root, "--last", "1d").startswith("No calls on record in ")


def test_a_condition_can_say_what_is_not_wanted(whole: HandMade) -> None:
    def models(*args: str) -> list[str]:
        plain = as_json("report", whole.root, *args)
        assert plain["where_not"]
        return sorted(row["group"]["model"] for row in plain["rows"])

    assert models("--where", "user!=bob") == ["m", "new"]
    assert models("--where", "model!=m", "--where", "model!=new") == ["big"]
    assert models("--where", "status!=ok", "--where", "status!=error") == ["big", "m"]
    rows = told("records", whole.root, "--where", "user!=(none)", "--json").splitlines()
    assert [json.loads(row)["seq"] for row in rows] == [2, 3, 4]
    out = told("export", whole.root, "--where", "model!=m", "--jsonl").splitlines()
    assert [json.loads(row)["seq"] for row in out] == [3, 4, 5]


def test_conditions_compare_numbers_and_beginnings_in_every_command(whole: HandMade) -> None:
    def seqs(*texts: str) -> list[int]:
        args = [part for text in texts for part in ("-w", text)]
        found = [
            sorted(one["seq"] for one in as_json("calls", whole.root, "-n", "0", *args)["calls"]),
            sorted(json.loads(line)["seq"]
                   for line in told("export", whole.root, *args).splitlines()),
        ]  # fmt: skip
        assert found[0] == found[1]
        plain = as_json("report", whole.root, *args)
        assert plain["total"]["calls"] == len(found[0])
        assert [*plain.get("conditions", [])] == [
            t for t in texts if t[:2] != "ts" and "==" not in t
        ]
        return found[0]

    assert seqs("cost>=0.5") == [3, 4, 10]
    assert seqs("cost>=0.5", "cost<1.25") == [4, 10]
    assert seqs("cost=0.0000045") == [2]
    assert seqs("cost!=(none)", "model=b*") == [3, 4]
    assert seqs("latency>1000") == [3]
    assert seqs("model=b*", "model==m") == [2, 3, 4, 6, 8, 10]
    assert seqs("tag:user!=b*") == [2, 5, 6, 8, 10]
    assert seqs("ts>2025-01-01", "ts<=2025-01-02") == [3, 4]
    assert seqs("model==b*") == []
    done = run("daily", whole.root, "-w", "usr=b*")
    assert (done.exit_code, "did you mean user?" in done.stderr) == (2, True)
    assert "cost>=0.5" in told("html", "-", whole.root, "-w", "cost>=0.5").replace("&gt;", ">")


@pytest.mark.parametrize(
    "command",
    [
        "report --by usr", "report --by model,usr", "top usr", "top users --where usr=x",
        "daily --where usr=x", "daily --where usr!=x", "daily --where usr=(none)",
        "calls --where usr=x", "calls --where usr!=x", "records --where usr=x",
        "records --json --where usr!=x", "tail --where usr=x", "export --where usr=x",
        "html - --by usr", "html - --where usr!=x",
    ],
)  # fmt: skip
def test_a_misspelt_tag_is_refused_with_the_near_one(whole: HandMade, command: str) -> None:
    name, *args = command.split()
    first = [args.pop(0)] if name in ("top", "html") else []
    done = run(name, *first, whole.root, *args)
    assert (done.exit_code, done.stdout) == (2, "")
    said = "litellm-ledger: no call has the tag usr; did you mean user? --allow-missing accepts it"
    assert done.stderr == f"{said}\n"
    assert run(name, *first, whole.root, *args, "--allow-missing").exit_code == 0


def test_a_tag_that_other_calls_have_is_not_misspelt(whole: HandMade, tmp_path: Path) -> None:
    for args in (["--by", "env", "--since", "2025-01-02"], ["--where", "env=prod"]):
        assert run("report", whole.root, *args, "--until", "2025-01-03").exit_code == 0
    done = run("report", whole.root, "--by", "zzzzz")
    assert "no call has the tag zzzzz; the tags are env, user. --allow-missing" in done.stderr
    empty, bare = HandMade(tmp_path / "empty"), HandMade(tmp_path / "bare")
    bare.sealed(1, 1)
    assert run("report", empty.root, "--by", "user", "--where", "x=y").exit_code == 0
    done = run("top", "users", bare.root)
    assert (done.exit_code, "no call has any tag" in done.stderr) == (2, True)


@pytest.mark.parametrize("command", ["report", "daily --csv", "calls", "records --json", "tail"])
def test_where_nothing_matches_it_is_said_what_there_is(whole: HandMade, command: str) -> None:
    done = run(*command.split(), whole.root, "--where", "model=bgi", "--where", "user=bob")
    assert done.exit_code == 0
    said = " ".join((done.stdout + done.stderr).split())
    there = "model: m, big, new; tag:user: (none), bob, alice."
    assert f"No call matches. Existing values: {there}" in said
    plain = as_json("report", whole.root, "--where", "model=bgi")
    assert plain["notes"] == ["No call matches. Existing values: model: m, big, new."]


def test_top_gives_the_most_expensive_the_others_and_their_shares(whole: HandMade) -> None:
    lines = told("top", "users", whole.root, "-n", "1").splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["bob", "(2", "total"]
    assert [line.split()[-1] for line in lines[1:4]] == ["80.0%", "20.0%", "100.0%"]
    plain = as_json("top", "users", whole.root, "-n", "1")
    assert [row["group"] for row in plain["rows"]] == [{"tag:user": "bob"}]
    assert (plain["others_count"], plain["others"]["cost"]) == (2, "0.5000045")
    assert plain["total"]["cost"] == "2.5000045"
    tags = as_json("top", "tags", whole.root)
    groups = [("user", "bob"), ("env", "prod"), ("user", "alice")]
    assert [tuple(row["group"].values()) for row in tags["rows"]] == groups
    assert tags["total"]["calls"] == 7


def test_every_report_takes_keys_a_limit_and_an_order(whole: HandMade) -> None:
    def rows(*args: object) -> list[tuple[str, ...]]:
        found = as_json(args[0], whole.root, *args[1:])["rows"]
        return [tuple(row["group"].values()) for row in found]

    assert rows("daily", "--by", "model", "--where", "user!=(none)") == [
        ("2025-01-01", "m"), ("2025-01-02", "big"),
    ]  # fmt: skip
    assert rows("monthly", "--by", "user,model", "--limit", "1") == [("2025-01", "bob", "big")]
    assert rows("daily", "--sort", "day:desc", "-n", "2") == [("2025-01-03",), ("2025-01-02",)]
    assert rows("report", "--sort", "model") == [("big",), ("m",), ("new",)]
    assert rows("report", "--sort", "cost:asc") == [("new",), ("m",), ("big",)]
    assert rows("report", "--by", "user", "--sort", "user") == [("(none)",), ("alice",), ("bob",)]
    assert rows("top", "--by", "user,model", "-n", "1") == [("bob", "big")]
    told = [line.split()[0] for line in run("top", "tags", whole.root, "--sort", "value:desc")
            .stdout.splitlines()[1:4]]  # fmt: skip
    assert told == ["env", "user", "user"]
    lines = run("hourly", whole.root, "-n", "1", "--md").stdout.splitlines()
    assert lines[3].startswith("| (2 others) | 4 |")
    plain = as_json("report", whole.root, "--limit", "1")
    assert (plain["others_count"], plain["others"]["calls"], plain["total"]["calls"]) == (2, 5, 7)
    below = as_json("report", whole.root, "--by", "user", "-b", "--sort", "calls:asc")["rows"]
    assert [row["calls"] for row in below] == sorted(row["calls"] for row in below)
    for args in (["--sort", "price"], ["--sort", "cost:up"], ["--sort", ""]):
        done = run("daily", whole.root, *args)
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert "use COLUMN, COLUMN:asc or COLUMN:desc, with one of day, calls, ok," in done.stderr
    assert "not both" in run("top", "users", whole.root, "--by", "model").stderr


def test_what_is_printed_can_go_to_a_file_whose_name_says_the_form(
    whole: HandMade, tmp_path: Path
) -> None:
    for name, flag in (("x.json", "--json"), ("x.CSV", "--csv"), ("x.md", "--md"), ("x.txt", "")):
        for command in ("daily", "top", "calls"):
            args = [command, whole.root, *flag.split()]
            done = run(command, whole.root, "-o", tmp_path / name)
            assert (done.exit_code, done.stdout) == (0, ""), done.output
            assert done.stderr.startswith(f"wrote {tmp_path / name}, ")
            assert (tmp_path / name).read_text() == told(*args)
            private = (tmp_path / name).stat().st_mode & 0o077
            assert (private == 0) is (command == "calls")
            (tmp_path / name).unlink()
    run("report", whole.root, "--md", "-o", tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == told("report", whole.root, "--md")
    assert told("report", whole.root, "--csv", "-o", "-") == told("report", whole.root, "--csv")
    assert run("export", whole.root, "-o", tmp_path / "y.csv").exit_code == 0
    assert (tmp_path / "y.csv").read_text() == told("export", whole.root, "--csv")


def test_a_file_that_cannot_be_written_is_left_as_it_was(whole: HandMade, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "old.csv").write_text("old")
    before = sorted(tmp_path.iterdir())
    for args, words in (
        (["daily", whole.root, "-o", tmp_path / "out"], "out is a directory; name a file in it"),
        (["daily", whole.root, "-o", tmp_path / "no/x.csv"], "there is no directory"),
        (["daily", whole.root, "-o", tmp_path / "x.parquet"], "export writes Parquet"),
        (["daily", whole.root, "-o", tmp_path / "old.csv", "--by", "usr"], "did you mean user?"),
        (["sql", "SELECT nothing", whole.root, "-o", tmp_path / "old.csv"], "nothing"),
    ):
        done = run(*args)
        assert (done.exit_code, done.stdout) == (2, "")
        assert words in done.stderr
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.csv").read_text() == "old"


def test_latencies_are_quantiles_of_what_was_measured(whole: HandMade) -> None:
    lines = told("report", whole.root, "--latency").splitlines()
    assert "latency p50  latency p90  latency p99  first p50" in lines[0]
    assert "12.0 s" in lines[1]
    assert "120 ms" in "\n".join(lines)
    row = as_json("report", whole.root, "--latency")["rows"][0]
    assert row["latency_ms"] == {"count": 1, "p50": 12000.0, "p90": 12000.0, "p99": 12000.0,
                                 "max": 12000.0}  # fmt: skip
    assert "latency_ms_p50" in told("report", whole.root, "--latency", "--csv")
    assert run("daily", whole.root, "--latency", "--breakdown").exit_code == 2


def test_csv_and_markdown_are_exact_and_whole(whole: HandMade) -> None:
    rows = list(csv.DictReader(io.StringIO(told("report", whole.root, "--csv"))))
    costs = {"big": "2", "m": "0.5000045", "new": ""}
    assert {row["model"]: row["cost"] for row in rows} == costs
    assert {row["model"]: row["unpriced"] for row in rows}["new"] == "1"
    table = told("report", whole.root, "--md").splitlines()
    assert table[0].startswith("| model | calls |")
    assert table[1].startswith("| :-- | --: |")
    assert table[-4].startswith("- + marks") or any(line.startswith("- ") for line in table)
    assert any(line.startswith("| **total** | **7** |") for line in table)
    done = run("report", whole.root, "--md", "--csv")
    assert done.exit_code == 2


def test_what_is_wrong_is_one_line_and_what_to_do(whole: HandMade) -> None:
    for args, words in (
        (["--since", "soon"], "not a time; give a day"),
        (["--last", "7x"], "not a span of time"),
        (["--tz", "Mars/Olympus"], "unknown time zone 'Mars/Olympus'"),
        (["--week-start", "freitag"], "unknown weekday"),
        (["--where", "prod"], "write KEY=VALUE"),
        (["--last", "7d", "--since", "today"], "not both"),
    ):
        done = run("daily", whole.root, *args)
        assert done.exit_code == 2
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


PAGE = (Path(__file__).parents[2] / "docs" / "CLI.md").read_text(encoding="utf-8")


def members(value: Any) -> set[str]:
    """The names of all members, at any depth, but of the maps that a user's own keys are in."""
    if isinstance(value, list):
        return set().union(*map(members, value))
    if not isinstance(value, dict):
        return set()
    inner = [members(one) for name, one in value.items() if name not in ("group", "where", "tags")]
    return set(value).union(*inner)


@pytest.mark.parametrize("command", ["daily --breakdown", "report --latency", "top users", "calls",
                                     "doctor", "verify", "recover", "statusline",
                                     "alerts"])  # fmt: skip
def test_every_member_of_the_json_is_documented(whole: HandMade, command: str) -> None:
    spoil(next((whole.root / "segments").iterdir()), line=2)
    plain = json.loads(run(*command.split(), whole.root, "--json").stdout)
    documented = set(re.findall(r"\w+", PAGE.partition("## `--json`")[2]))
    documented |= set(UsageRecord.__struct_fields__)
    assert members(plain) <= documented, members(plain) - documented


def test_every_command_is_in_the_tables_of_this_file() -> None:
    asked = {command.split()[0] for command in READING if command}
    # they need an argument or a terminal, or no ledger, or do not end
    alone = {
        "acknowledge", "ask", "backup", "budgets", "completion", "database", "erase", "html",
        "path", "reprice", "serve", "ship", "show", "sql", "watch",
    }  # fmt: skip
    commands = re.findall(r"^  (\w+) ", told("--help").partition("Commands:")[2], re.MULTILINE)
    assert set(commands) == asked | alone


def test_every_command_and_flag_is_documented() -> None:
    commands = re.findall(r"^  (\w+) ", told("--help").partition("Commands:")[2], re.MULTILINE)
    assert len(commands) >= 15
    for name in commands:
        assert re.search(rf"`{name}\b", PAGE), name
        for flag in re.findall(r"^  (?:-\w, )?(--[\w-]+)", told(name, "--help"), re.MULTILINE):
            assert flag in PAGE or flag == "--help", (name, flag)


# -- single records --------------------------------------------------------------------------------


def test_calls_are_the_newest_first_and_say_what_is_estimated(whole: HandMade) -> None:
    assert "~ 1 of these has estimated tokens and cost." in told("records", whole.root)
    lines = told("calls", whole.root, "-n", "4").splitlines()
    assert [line.split()[2] for line in lines[1:5]] == ["m", "new", "big", "big"]
    assert "~$0.75" in lines[3]
    assert lines[-2:] == [
        "The newest 4 of 7; --limit 0 shows all.",
        "~ 1 of these has estimated tokens and cost.",
    ]
    assert len(told("records", whole.root, "-n", "2").splitlines()) == 5
    plain = as_json("calls", whole.root, "--where", "user=bob")
    assert plain["matched"] == 2
    assert [call["cost"] for call in plain["calls"]] == ["0.75", "1.25"]
    assert set(plain) == {
        "path", "since", "until", "where", "tz", "week_start", "matched", "calls", "problems",
    }  # fmt: skip
    header, *rows = csv.reader(io.StringIO(told("calls", whole.root, "--csv")))
    assert len(rows) == 7
    assert {"id", "cost", "tags", "ts"} <= set(header)


def test_times_in_tables_are_those_of_the_zone(whole: HandMade) -> None:
    for command in ("calls", "records"):
        said = told(command, whole.root, "--tz", "Asia/Kolkata", "--where", "env=prod")
        assert said.startswith("time (Asia/Kolkata)  ")
        assert said.splitlines()[1].startswith("2025-01-01 17:30:00  ")
    line = told("tail", whole.root, "--tz", "Asia/Kolkata", "-n", "1")
    assert line.startswith("2025-01-03 17:30:00  ")
    plain = as_json("calls", whole.root, "--tz", "Asia/Kolkata")
    assert plain["calls"][-1]["ts"] == "2025-01-01T12:00:00.000001Z"


@pytest.mark.parametrize("seq", [7, 8, 9, 10])
def test_show_gives_an_operation_with_its_attempts(whole: HandMade, seq: int) -> None:
    said = told("show", whole.id(seq), whole.root)
    assert said.startswith(f"operation {whole.id(7)}: 2 attempts, $0.50, 1 of unknown cost\n")
    assert told("show", whole.id(4), whole.root).splitlines()[0].endswith(": 1 attempt, $0.75+")
    assert "attempt 1: error (RateLimitError)\n" in said
    assert "attempt 2: ok\n" in said
    plain = as_json("show", whole.id(seq), whole.root)
    assert plain["id"] == whole.id(7)
    assert [one["number"] for one in plain["attempts"]] == [1, 2]
    assert plain["attempts"][1]["outcome"]["cost"] == "0.5"
    assert plain["attempts"][1]["started"]["seq"] == 9


@pytest.mark.parametrize("key", ["call-2", "resp-2"])
def test_show_finds_a_call_by_the_callers_and_the_providers_key(whole: HandMade, key: str) -> None:
    assert as_json("show", key, whole.root)["id"] == whole.id(1)
    done = run("show", "nobody", whole.root)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "litellm-ledger calls --json lists them" in done.stderr


def test_tail_shows_the_newest_last(whole: HandMade) -> None:
    lines = told("tail", whole.root, "-n", "2").splitlines()
    assert [line.split()[2] for line in lines] == ["ok", "cancelled"]
    plain = [json.loads(line) for line in told("tail", whole.root, "--json").splitlines()]
    assert [record["seq"] for record in plain][-2:] == [5, 6]


@pytest.mark.asyncio
async def test_tail_names_no_unit_where_the_time_is_unknown(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        await tracker.record(UsageRecord(model="m", cost=Decimal(1)))
        await tracker.record(UsageRecord(model="m", cost=Decimal(1), latency_ms=12.0))
    unknown, known = told("tail", tmp_path).splitlines()
    assert unknown.endswith(" -")
    assert known.endswith(" 12 ms")


async def record(tracker: UsageTracker, number: int) -> None:
    await tracker.record(UsageRecord(model="m", call_id=str(number), cost=Decimal(number)))


@pytest.mark.asyncio
async def test_tail_follows_what_others_write_across_segments_and_writers(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path, handle_signals=False) as tracker:
        await record(tracker, 1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "litellm_ledger", "tail", str(tmp_path), "-f", "--json",
            stdout=subprocess.PIPE,
        )  # fmt: skip

        async def following() -> Any:
            assert process.stdout is not None
            return json.loads(await asyncio.wait_for(process.stdout.readline(), 30))["call_id"]

        try:
            assert await following() == "1"
            await record(tracker, 2)
            assert await following() == "2"
            await tracker.aclose()  # sealed under another name
            async with UsageTracker(tmp_path, handle_signals=False) as other:
                for number in range(3, 6):
                    await record(other, number)
                assert [await following() for _ in range(3)] == ["3", "4", "5"]
        finally:
            process.terminate()
            await process.wait()


def test_export_is_every_record_and_exact(whole: HandMade, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in told("export", whole.root).splitlines()]
    assert lines == [
        json.loads(line) for line in told("records", whole.root, "--json").splitlines()
    ]
    out = tmp_path / "all.csv"
    assert told("export", whole.root, "--csv", "-o", out, "--all-kinds") == ""
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    assert [row["seq"] for row in rows] == [str(number) for number in range(1, 11)]
    assert rows[1]["cost"] == "0.0000045"
    assert json.loads(rows[1]["tags"]) == {"user": "alice", "env": "prod"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "usage"]
    narrowed = told("export", whole.root, "--where", "user=bob", "--jsonl").splitlines()
    assert len(narrowed) == 2


def test_a_parquet_file_has_the_same_records(whole: HandMade, tmp_path: Path) -> None:
    import duckdb

    out = tmp_path / "it's all.parquet"
    assert told("export", whole.root, "--parquet", "-o", out, "--where", "model=big") == ""
    rows = duckdb.read_parquet(str(out)).order("seq").project("seq, cost, tags['user']")
    assert rows.fetchall() == [(3, Decimal("1.25"), "bob"), (4, Decimal("0.75"), "bob")]
    told("export", whole.root, "--parquet", "-o", out, "--all-kinds")
    assert duckdb.read_parquet(str(out)).count("*").fetchall() == [(10,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "usage"]
    done = run("export", whole.root, "--parquet")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "name a file: -o FILE" in done.stderr
    assert run("export", whole.root, "--parquet", "-o", tmp_path / "no" / "x").exit_code == 2


# -- sql -------------------------------------------------------------------------------------------

QUERY = (
    "SELECT model, count(*) AS n, sum(cost) AS usd, max(ts) AS last FROM calls "
    "GROUP BY 1 ORDER BY 2, 1"
)


def test_sql_answers_on_every_ledger_in_every_form(ledger: Path) -> None:
    assert all(told("sql", QUERY, ledger, *form) for form in ([], ["--csv"], ["--md"]))
    found = as_json("sql", QUERY, ledger)
    assert set(found) == {"path", "columns", "types", "rows", "problems"}
    assert found["columns"] == ["model", "n", "usd", "last"]


def test_sql_is_exact_and_only_reads(whole: HandMade) -> None:
    found = as_json("sql", QUERY, whole.root)
    assert found["rows"] == [
        ["new", 1, None, "2025-01-03T12:00:00.000001Z"],
        ["big", 2, "2.000000000000", "2025-01-02T12:00:00.000001Z"],
        ["m", 4, "0.500004500000", "2025-01-03T12:00:00.000001Z"],
    ]
    said = told("sql", "SELECT tags FROM calls WHERE seq = 2", whole.root, "--csv")
    assert said == 'tags\n"{""user"":""alice"",""env"":""prod""}"\n'
    assert told("sql", "SELECT 1 WHERE false", whole.root) == "No rows.\n"
    for query, words in (
        ("DELETE FROM records", "give one statement that only reads"),
        ("SELECT nonsense FROM calls", '"nonsense" not found'),
        ("SELECT 1; SELECT 2", "give one statement"),
        ("", "give one statement"),
    ):
        done = run("sql", query, whole.root)
        assert (done.exit_code, done.stdout) == (2, "")
        assert words in done.stderr
    done = run("sql", "SELECT seq,\n  nonsense FROM calls", whole.root)
    *_, place, caret = done.stderr.splitlines()
    assert place[caret.index("^") :].startswith("nonsense")
    asked = CliRunner().invoke(app, ["sql", "-", str(whole.root)], input="SELECT 42 AS x")
    assert asked.stdout.split() == ["x", "42"]


def test_sql_reads_files_only_where_they_are_allowed(whole: HandMade, tmp_path: Path) -> None:
    budgets = tmp_path / "budgets.csv"
    budgets.write_text("name,budget\nbob,5\n", encoding="utf-8")
    query = (
        f"SELECT budget, sum(cost) FROM calls JOIN '{budgets}' ON tags['user'] = name GROUP BY 1"
    )
    done = run("sql", query, whole.root)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--allow-files" in done.stderr
    assert told("sql", query, whole.root, "--allow-files", "--csv").splitlines()[1:] == [
        "5,2.000000000000"
    ]
    done = run("sql", "SELECT user, sum(cost) FROM calls GROUP BY user", whole.root)
    assert done.exit_code == 2
    assert "the tag is tags['user']" in done.stderr


def test_an_export_that_fails_leaves_no_half_file(whole: HandMade, tmp_path: Path) -> None:
    done = run("export", whole.root, "-o", tmp_path / "no" / "where.jsonl")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"litellm-ledger: there is no directory {tmp_path / 'no'};")
    assert done.stderr.count("\n") == 1
    done = run("export", whole.root, "-o", tmp_path / "there.jsonl")
    assert done.stderr.startswith(f"wrote {tmp_path / 'there.jsonl'}, ")
    assert done.stderr.endswith(" kB\n")
    (tmp_path / "there.jsonl").unlink()
    (tmp_path / "here.jsonl").write_text("as it was")

    def interrupted() -> None:
        with part_of(tmp_path / "here.jsonl") as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.jsonl", "usage"]
    assert (tmp_path / "here.jsonl").read_text() == "as it was"


# -- doctor ----------------------------------------------------------------------------------------


def findings(root: Path) -> tuple[int, dict[str, dict[str, str]]]:
    done = run("doctor", root, "--json")
    plain = json.loads(done.stdout)
    assert plain["ok"] is (done.exit_code == 0)
    return done.exit_code, {found["check"]: found for found in plain["findings"]}


def test_doctor_of_a_ledger_in_order_says_so(tmp_path: Path) -> None:
    HandMade(tmp_path).filled({"cost": Decimal(1)})
    status, found = findings(tmp_path)
    assert status == 0
    assert {one["level"] for one in found.values()} <= {"ok", "note"}
    assert told("doctor", tmp_path).splitlines()[-1].startswith("Nothing needs attention.")


def test_doctor_names_what_is_to_be_done(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    hand = HandMade(tmp_path).filled(
        {"model": "odd", "status": "ok", "input_tokens": 1, "ts": now},
        {"status": "unsettled", "ts": now},
    )
    spoil(hand.sealed(3, 4, hand.lines(3, 4, ts=now)), line=1)
    dead = HandMade(tmp_path, OTHER_WRITER)
    dead.open(1, [dead.line(1, cost=Decimal(1))])
    dead.live(accepted=1)
    late = HandMade(tmp_path, "29990101T000000Z-00000000000000ff")
    late.open(1, [late.line(1, cost=Decimal(1), ts=now)])
    (tmp_path / "recovery").mkdir()
    (tmp_path / "recovery" / "something.torn").write_bytes(b"x")
    status, found = findings(tmp_path)
    assert status == 1
    warned = {check for check, one in found.items() if one["level"] == "warning"}
    assert warned == {"unclean shutdowns", "clock", "prices", "unsettled", "damage"}
    assert "odd (1)" in found["prices"]["text"]
    assert "litellm-ledger recover" in found["unclean shutdowns"]["text"]
    assert found["orphans"]["level"] == found["recovery"]["level"] == "note"
    assert run("doctor", tmp_path).stdout.endswith("5 things need attention.\n")


def test_doctor_tells_costs_far_from_the_price_map_and_names_prices_that_were_not_given(
    tmp_path: Path,
) -> None:
    said = {"ts": datetime.now(UTC), "status": "ok", "input_tokens": 1}
    theirs = {**said, "cost": Decimal(1), "cost_source": "provider"}
    HandMade(tmp_path).filled(
        {"model": "near", **theirs},
        {"model": "far", "meta": {"price": {"listed": "0.1"}}, **theirs},
        {"model": "odd", "meta": {"unpriced": ["web_search"]}, **said},
    )
    _, found = findings(tmp_path)
    assert found["providers' costs"]["level"] == found["prices"]["level"] == "warning"
    assert "far (1)" in found["providers' costs"]["text"]
    assert "near" not in found["providers' costs"]["text"]
    assert "odd: web_search (1)" in found["prices"]["text"]


def test_doctor_tells_a_writer_that_does_not_get_on_from_one_that_writes(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.open(1, hand.lines(1, 3, cost=Decimal(1)))
    with hand.alive(accepted=9, written=3):
        status, found = findings(tmp_path)
    assert (status, found["backlog"]["level"]) == (1, "warning")
    assert found["backlog"]["text"].startswith(
        "6 records not written, and 1 process made no progress"
    )
    with hand.alive(accepted=3):
        assert findings(tmp_path)[1]["backlog"]["text"] == "1 running writer, nothing unwritten"


def test_doctor_tells_of_segments_without_a_manifest(hand: HandMade, monkeypatch: Any) -> None:
    monkeypatch.setattr(_doctor, "_UNSEALED", 100)
    hand.sealed(1, 5)
    found = findings(hand.root)[1]["manifests"]
    assert found["level"] == "note"
    assert found["text"].startswith("1 sealed segment of 0 MiB without a manifest")
    told("seal", hand.root)
    assert "manifests" not in findings(hand.root)[1]


def test_short_flags_are_the_long_ones(whole: HandMade) -> None:
    long = ("--since", "2025-01-01", "--tz", "Asia/Kolkata", "--where", "status!=error")
    short = ("-s", "2025-01-01", "-z", "Asia/Kolkata", "-w", "status!=error")
    assert told("daily", *short, "-b", whole.root) == told(
        "daily", *long, "--breakdown", whole.root
    )
    assert as_json("daily", *short, whole.root, "-j") == as_json("daily", *long, whole.root)


def test_quiet_leaves_the_notes_out_and_nothing_else(whole: HandMade) -> None:
    for command in ("daily", "calls"):
        loud, quiet = told(command, whole.root), told(command, whole.root, "-q")
        assert loud.startswith(quiet.rstrip())
        assert "\n\n" in loud.strip()
        assert "\n\n" not in quiet.strip()
