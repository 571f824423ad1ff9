"""Every section of the benchmarks still runs, in tiny counts; nothing here is about speed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pytest
from benchmarks import loss
from benchmarks.__main__ import SECTIONS
from benchmarks._census import take
from benchmarks._doomed import MAKERS
from benchmarks._page import write_figures, write_part
from benchmarks._peers import INSTALL, Langfuse, OpenTelemetry, missing
from benchmarks._size import Size
from benchmarks._table import Table
from benchmarks._work import made
from benchmarks._year import make_year
from benchmarks.operate import operate
from benchmarks.soak import Soak, report, soak
from tests.terminal import run

from litellm_ledger import Ledger, UsageTracker

ABSENT = [peer.name for peer in (OpenTelemetry, Langfuse) if missing(peer)]


LONG = {"cache", "calls", "memory", "prices", "recording"}
"""These take most of the time of all of them, and run in the matrix."""


@pytest.mark.parametrize(
    "section",
    [
        pytest.param(section, marks=pytest.mark.matrix if section in LONG else ())
        for section in sorted({*SECTIONS} - {"loss"})
    ],
)
def test_every_section_runs_and_says_what_is_not_installed(section: str) -> None:
    tables: list[Table] = import_module(f"benchmarks.{section}").run(Size(quick=True))
    assert tables
    for table in tables:
        assert all(len(row) == len(table.head) for row in table.rows)
        assert len(table.rows) > 1
        for name, figure, *_ in table.rows:
            assert figure, f"{name} has no figure"
            assert (figure == INSTALL) == (name in ABSENT) or section == "starting"


def test_nothing_that_the_ledger_acknowledged_is_lost_in_the_loss_table() -> None:
    (table,) = loss.run(Size(quick=True))
    absent = [kind for name, kind in MAKERS.items() if loss.absent(kind)]
    assert len(absent) == len(ABSENT)
    assert sum(row[1] == INSTALL for row in table.rows) == len(absent)
    ours = [row for row in table.rows if row[0].startswith("ledger")]
    assert len(ours) == 3
    for name, *cells in ours:
        for title, cell in zip(table.head[1:], cells, strict=True):
            if name != "ledger, record_nowait()" or "SIGKILL" not in title:
                assert cell.startswith(("0 of ", "not with --quick")), (name, title, cell)


def test_a_year_that_was_made_quickly_is_what_its_manifests_say(tmp_path: Path) -> None:
    begin = datetime(2025, 3, 1, tzinfo=UTC)
    make_year(tmp_path, 800, 4, begin)
    told = Ledger(tmp_path).report(["day"])
    assert [row.calls for row in told.rows] == [200] * 4
    found = run("verify", "--full", str(tmp_path))
    assert found.exit_code == 0, found.output
    assert "OK: 800 records found" in found.stdout
    for path in tmp_path.glob("manifests/*"):
        path.unlink()
    assert Ledger(tmp_path).report(["day"]) == told


def test_the_soak_loses_and_doubles_nothing(tmp_path: Path) -> None:
    found = soak(tmp_path, 6_000, 60.0, cycle=2_000)
    assert found.problems == []
    assert found.made == 6_000
    assert found.kills == len(found.cycles) == 3
    assert found.compacted
    assert "Nothing lost" in report(found, tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize("archive", [False, True])
def test_the_trial_of_operation_finds_nothing_wrong(tmp_path: Path, archive: bool) -> None:
    assert operate(tmp_path, 6_000, 20_000, archive=archive).problems == []


def test_the_census_notices_what_is_missing_and_what_is_there_twice(tmp_path: Path) -> None:
    async def write() -> None:
        async with UsageTracker(tmp_path) as tracker:
            for n in range(10):
                await tracker.record(made(n))

    asyncio.run(write())
    (path,) = (tmp_path / "segments").iterdir()
    path.write_bytes(path.read_bytes().replace(b'"call_id":"', b'"call_id":"s-'))
    assert take(tmp_path).missing("s", 10) == 0

    lines = path.read_bytes().splitlines(keepends=True)
    again = lines[0].replace(b'"id":"2', b'"id":"3')
    path.write_bytes(b"".join([*lines[:7], lines[8], lines[8], again]))
    census = take(tmp_path)
    assert (census.missing("s", 10), census.copies, census.doubled) == (2, 1, 1)
    assert census.total() == 8


def test_a_soak_that_lost_or_grew_says_so() -> None:
    steady = {"done": 1, "peak": 100, "resident": 100, "blocks": 9, "descriptors": 8, "threads": 1}
    grown = {**steady, "peak": 200, "descriptors": 9}
    found = Soak(cycles=[steady] * 3 + [grown], lost=2, doubled=3, verified=True)
    found.judge()
    assert found.problems == [
        "2 acknowledged records are missing",
        "3 records are there twice",
        "memory grew (peak): 100 to 200",
        "descriptors grew from 8 to 9",
    ]


def test_a_part_of_the_page_is_replaced_and_the_other_kept(tmp_path: Path) -> None:
    page = tmp_path / "BENCHMARKS.md"
    write_part(page, "soak", "## Soak\n\nfirst\n")
    write_figures(
        page, {"Recording": [Table("T", ["", "µs"], rows=[["a", "1"]])], "Start": None}, 60
    )
    write_part(page, "soak", "## Soak\n\nsecond\n")
    text = page.read_text(encoding="utf-8")
    assert "| a | 1 |" in text
    assert "This section failed in this run." in text
    assert "second" in text
    assert "first" not in text
