"""Reports of many groups: rows are made as they are asked for, and printed as they come."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text
from tests.generated import make_ledger

from litellm_ledger import Ledger, LedgerPathError
from litellm_ledger._aggregates.groups import OTHER
from litellm_ledger._aggregates.question import Question
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._cli import parts
from litellm_ledger._cli.flags import Looks, Output
from litellm_ledger._cli.print_reports import ask, print_report
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reports import answer as _answer
from litellm_ledger._reports import engine, grouped
from litellm_ledger._reports.report import added


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("groups") / "usage"
    make_ledger(root, 500, segment=34_000)
    return root


@pytest.fixture(scope="module")
def sealed(root: Path) -> Path:
    sealed = root.with_name("sealed")
    shutil.copytree(root, sealed)
    seal(sealed)
    return sealed


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The rows that the database's answers are made into."""
    made: list[object] = []
    real = grouped.row_of

    def row_of(group: dict[str, str], sums: dict[str, Any]) -> Any:
        made.append(group)
        return real(group, sums)

    monkeypatch.setattr(grouped, "row_of", row_of)
    monkeypatch.setattr(engine, "_LARGE", 0)
    return made


def test_only_the_rows_that_are_asked_for_are_made(root: Path, made: list[object]) -> None:
    for by in (["tag:user"], ["day", "tag:user"]):
        made.clear()
        report = Ledger(root).report(by, limit=2)
        assert (len(report.rows), len(made)) == (2, 3)  # and the total
        assert report.others_count > 10


def test_a_row_is_made_when_the_one_before_it_is_printed(root: Path, made: list[object]) -> None:
    selection = Selection(None, None)
    for nested in (False, True):
        made.clear()
        with engine.open_report(root, ["tag:user", "model"], selection, nested=nested) as answer:
            rows = answer.rows(None)
            for count in range(1, 6):
                next(rows)
                assert len(made) == count + 1


FORMS = [Output(json=True), Output(csv=True), Output(md=True), Output()]


@pytest.mark.parametrize("top", [None, 2])
@pytest.mark.parametrize("breakdown", [False, True])
@pytest.mark.parametrize("by", [["tag:user"], ["tag:team é'\"", "hour"]])
def test_every_way_prints_the_same_bytes(
    root: Path,
    sealed: Path,
    by: list[str],
    breakdown: bool,
    top: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(grouped, "_ROWS", 50)
    for output in FORMS:
        found = []
        # Line by line or by the database; from manifests, what they do not tell added by either.
        for path, large, many in (
            (root, 2**60, 2**60),
            (root, 0, 2**60),
            (sealed, 2**60, 2**60),
            (sealed, 2**60, -1),
        ):
            monkeypatch.setattr(engine, "_LARGE", large)
            monkeypatch.setattr(engine, "_MANY", many)
            looks = Looks(limit=top or 0, breakdown=breakdown)
            asked = ask(Ledger(path), by, Question(), output, looks)
            with asked as report:
                print_report(report, output, looks)
            found.append(capsys.readouterr().out.replace(str(path), "PATH"))
        assert found[1:] == [found[0]] * 3
        assert found[0]


def test_beyond_a_million_groups_the_least_expensive_are_folded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_LARGE", 0)
    whole = Ledger(root).report(["tag:user"])
    monkeypatch.setattr(_answer, "MAX_GROUPS", 2)
    report = Ledger(root).report(["tag:user"])
    other = next(row for row in report.rows if row.group == {"tag:user": OTHER})
    assert [row for row in report.rows if row is not other] == whole.rows[:2]
    assert added([other]) == added(whole.rows[2:])
    assert (report.folded, report.total, report.others) == (other.calls, whole.total, None)


def test_what_fits_neither_into_memory_nor_onto_the_disk_is_an_error_that_says_what_to_do(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_LARGE", 0)
    monkeypatch.setattr(grouped, "_MEMORY", (("1MB", 1),))
    with pytest.raises(LedgerPathError, match="set TMPDIR, or ask for fewer groups"):
        Ledger(root).report(["tag:user"])


@pytest.mark.parametrize("width", [200, 40, 20])
def test_a_table_in_parts_looks_as_one(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(rows: int, count: int) -> str:
        monkeypatch.setattr(parts, "_ROWS", rows)
        file = io.StringIO()
        console = Console(file=file, width=width, force_terminal=True, color_system="standard")
        table = parts.Parts(console)
        cells = [["user-" + "x" * (7 * at % 30), f"{at:,}", "a b" * at] for at in range(count)]
        cells.append(["total", "9,999", ""])
        for at, title in enumerate(("user", "calls", "note")):
            widest = max(len(title), *(len(row[at]) for row in cells))
            table.add(title, widest, left=at != 1, whole=False, style="cyan", footer=cells[-1][at])
        table.print([[Text(cell, "dim") for cell in row] for row in cells[:-1]])
        return file.getvalue()

    for count in (0, 1, 6, 7):
        assert draw(3, count) == draw(1_000, count)
