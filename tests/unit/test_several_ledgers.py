"""Several ledgers that are read as one: what they say is what one with all their files says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.generated import make_ledger
from tests.ledger_by_hand import OTHER_WRITER, HandMade
from tests.terminal import as_json, run, told

from litellm_ledger import Ledger, LedgerPathError
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reports import engine as _engine

QUESTIONS: list[dict[str, Any]] = [
    {"by": ["model", "user"]},
    {"by": ["day"], "tz": "Europe/Berlin", "quantiles": True},
    {"by": ["status"], "where": ["cost>0.0005", "user=user-1*"]},
    {"by": ["user"], "limit": 3, "sort": "calls"},
    {"by": [], "where": {"model": "none such"}},
]


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Path]]]:
    """A ledger of four writers, and the same in two directories."""
    whole = tmp_path_factory.mktemp("several") / "whole"
    make_ledger(whole, 3_000, segment=200_000)
    parts = [whole.parent / "a", whole.parent / "it's b"]
    writers = sorted({name.writer for name in Ledger(whole).segments()})
    assert len(writers) == 4
    for number, part in enumerate(parts):
        for file in sorted(path for path in whole.rglob("*") if path.is_file()):
            if any(file.name.startswith(writer) for writer in writers[number::2]):
                copy = part / file.relative_to(whole)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, copy)
        (part / "segments").mkdir(parents=True, exist_ok=True)
    yield whole, parts
    shutil.rmtree(whole.parent)


def answers(ledger: Ledger) -> list[Any]:
    found: list[Any] = []
    for question in QUESTIONS:
        report = ledger.report(**question)
        found += [report.rows, report.total, report.others, report.instead, report.missing_tags]
        found += [report.in_flight, report.cut_off, len(report.problems)]
    calls = ledger.calls(limit=50)
    found += [calls.records, calls.matched, ledger.tags()]
    found.append(sorted(record.id or "" for record in ledger.records(where="status=error")))
    return found


@pytest.mark.parametrize("large", [0, 2**60])
def test_several_are_read_as_one_ledger_with_all_their_files(
    parted: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    whole, parts = parted
    monkeypatch.setattr(_engine, "_LARGE", large)
    one = answers(Ledger(whole))
    assert answers(Ledger(parts)) == one
    assert answers(Ledger([parts[1], parts[0], str(parts[1] / ".." / parts[1].name)])) == one
    alone = [Ledger(part).report([]).total for part in parts]
    total = Ledger(parts).report([]).total
    assert total.cost == alone[0].cost + alone[1].cost
    assert total.calls == alone[0].calls + alone[1].calls > 0


def test_manifests_of_all_answer(
    parted: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = parted
    copies = [shutil.copytree(part, tmp_path / part.name) for part in parts]
    made = sum(len(seal(copy).manifests) for copy in copies)
    assert made
    asked: list[Any] = []
    real = _engine.add_sealed
    monkeypatch.setattr(_engine, "add_sealed",
                        lambda *args: asked.append(found := real(*args)) or found)  # fmt: skip
    assert answers(Ledger(copies)) == answers(Ledger(whole))
    assert all(any(found.names for found in asked[at : at + 2]) for at in (0, 2))


def test_sql_and_exports_see_all(parted: tuple[Path, list[Path]]) -> None:
    whole, parts = parted
    query = "SELECT count(*), sum(cost), count(DISTINCT id) FROM records"
    assert Ledger(parts).sql(query).rows == Ledger(whole).sql(query).rows
    lines = [sorted(told("export", *paths).splitlines()) for paths in ([whole], parts)]
    assert lines[0] == lines[1]
    rows = told("sql", "SELECT count(*) AS n FROM calls", *parts, "--csv")
    assert rows.splitlines()[1] == str(Ledger(parts).report([]).total.calls)


def test_every_reading_command_takes_several(tmp_path: Path) -> None:
    first, second = HandMade(tmp_path / "a"), HandMade(tmp_path / "b", OTHER_WRITER)
    first.sealed(1, 2, [first.line(1, cost=Decimal(1)), first.line(2, cost=Decimal(2))])
    second.sealed(1, 1, [second.line(1, cost=Decimal(4), tags={"user": "x"})])
    both = [first.root, second.root]
    for args in (["daily"], [], ["report"], ["top"], ["top", "models"], ["monthly", "-b"]):
        found = as_json(*args, *both)
        assert (found["total"]["cost"], found["paths"]) == ("7", [str(path) for path in both])
    assert as_json("top", "tags", *both)["rows"][0]["group"] == {"tag": "user", "value": "x"}
    ids = [record["id"] for record in as_json("calls", *both)["calls"]]
    assert sorted(ids) == sorted([first.id(1), first.id(2), second.id(1)])
    assert len(told("records", *both, "--json").splitlines()) == 3
    assert f"in {first.root} and {second.root} that match" in told("daily", *both, "--last", "1d")
    assert "7.00" in told("html", "-", *both)
    for command in ("verify", "doctor"):
        plain = json.loads(run(command, *both, "--json").stdout)
        assert [one["path"] for one in plain["ledgers"]] == [str(path) for path in both]
        assert plain["ok"] is all(one["ok"] for one in plain["ledgers"])
        text = run(command, *both).stdout
        assert text.startswith(f"{first.root}:\n")
        assert f"\n\n{second.root}:\n" in text
    assert run("verify", *both, "--anchor", "x").exit_code == 2
    assert run("seal", *both).exit_code == 2
    with pytest.raises(ValueError, match="one ledger at a time"):
        Ledger(both).verify()
    with pytest.raises(ValueError, match="give a directory"):
        Ledger([])
    assert repr(Ledger(both)) == f"Ledger({[str(path) for path in both]!r})"


def test_a_ledger_and_its_copy_are_refused(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "a")
    hand.sealed(1, 2)
    shutil.copytree(hand.root, tmp_path / "copy")
    (tmp_path / "link").symlink_to(hand.root)
    paths = [hand.root, tmp_path / "copy"]
    for ask in (
        lambda: Ledger(paths).report(), lambda: Ledger(paths).calls(), lambda: Ledger(paths).tags(),
        lambda: Ledger(paths).records(), lambda: Ledger(paths).sql("SELECT 1"),
    ):  # fmt: skip
        with pytest.raises(LedgerPathError, match="one is a copy of the other; give one of them"):
            ask()
    done = run("daily", *paths)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert as_json("daily", hand.root, hand.root, f"{hand.root}/")["total"]["calls"] == 2
    done = run("daily", hand.root, tmp_path / "none")
    assert (done.exit_code, f"no ledger at {tmp_path / 'none'}" in done.stderr) == (2, True)
