"""Format version 1 as FORMAT.md describes it, read from a ledger that was written once.

The fixture is never written again: whatever the library becomes, it keeps reading these bytes.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from litellm_ledger._maintenance.recover import recover
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.price_check import check_prices
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._records.line import SUFFIX, checked, decode, encode, newer_version
from litellm_ledger._records.scan import scan
from litellm_ledger._reports.ledger import Ledger
from litellm_ledger._storage.live_file import LiveCounters, read_live

HERE = Path(__file__).parent
FIXTURE = HERE.parent / "fixtures" / "v1"
FORMAT = HERE.parents[1] / "docs" / "FORMAT.md"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text("utf-8"))


def valid_lines() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in sorted((FIXTURE / "segments").iterdir()):
        name = SegmentName.parse(path.name)
        if name is None:
            assert path.name.endswith(".tmp")
            continue
        content = scan(path.read_bytes(), name.writer, name.first)
        assert not content.damaged
        assert content.torn == (EXPECTED["torn"]["bytes"] if name.open else 0)
        for head, line in content.lines:
            assert found.setdefault(head.id, line) == line
    return found


def plain(line: bytes) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(line)
    assert next(iter(members)) == "v"
    assert list(members)[-1] == "crc"
    del members["crc"]
    return members


def test_every_line_of_the_fixture_is_still_read() -> None:
    assert [plain(line) for line in valid_lines().values()] == EXPECTED["records"]


def test_every_line_of_the_fixture_is_still_written_the_same() -> None:
    for line in valid_lines().values():
        assert encode(decode(line)) == line


def test_money_of_the_fixture_is_exact() -> None:
    for record_id, line in valid_lines().items():
        record = decode(line)
        amounts = EXPECTED["usd"].get(record_id, {})
        for member in ("cost", "saved_cost"):
            amount = amounts.get(member)
            assert getattr(record, member) == (None if amount is None else Decimal(amount))


def test_a_reader_of_twenty_lines_that_follows_the_page_agrees() -> None:
    found: dict[str, dict[str, Any]] = {}
    for path in (FIXTURE / "segments").iterdir():
        if not re.fullmatch(r".*\.jsonl(\.open)?", path.name):
            continue
        for line in path.read_bytes().splitlines(keepends=True):
            if line[-19:-11] == b',"crc":"' and b"%08x" % crc32(line[:-19]) == line[-11:-3]:
                members = json.loads(line)
                found[members["id"]] = members
    assert [found[record["id"]] for record in EXPECTED["records"]]
    assert len(found) == len(EXPECTED["records"])


def test_the_public_reader_reads_the_fixture() -> None:
    records = Ledger(FIXTURE).records(kinds=("started", "usage", "gap"))
    assert sorted(record.id or "" for record in records) == sorted(
        record["id"] for record in EXPECTED["records"]
    )


def test_the_live_file_of_the_fixture_is_read() -> None:
    (path,) = (FIXTURE / "live").iterdir()
    assert read_live(path) == LiveCounters(valid=True, **EXPECTED["live"])
    assert path.read_bytes()[:8] == b"llmledg1"
    assert struct.unpack_from("<Q", path.read_bytes(), 24) == (EXPECTED["live"]["accepted"],)


def test_the_fixture_can_be_recovered(tmp_path: Path) -> None:
    root = tmp_path / "usage"
    shutil.copytree(FIXTURE, root)
    (done,) = recover(root).writers
    assert (done.error, done.exact, done.lost) == (None, False, 2)
    assert done.torn_bytes == EXPECTED["torn"]["bytes"]
    assert done.unsettled == 0  # the fixture's open call has its outcome


def examples() -> list[str]:
    return re.findall(r'^\{"v":.*\}$', FORMAT.read_text("utf-8"), re.MULTILINE)


def test_the_page_has_examples() -> None:
    assert len(examples()) == 4


@pytest.mark.parametrize("example", examples(), ids=[str(n) for n in range(len(examples()))])
def test_the_examples_on_the_page_have_true_checksums(example: str) -> None:
    line = example.encode() + b"\n"
    assert checked(line)
    assert line in valid_lines().values() or newer_version(line) == 2


def test_the_numbers_about_the_first_example_are_true() -> None:
    line = examples()[0].encode() + b"\n"
    said = re.search(r"is (\d+) bytes long .*?; the CRC-32 of the first (\d+)", page())
    assert said is not None
    assert (len(line), len(line) - SUFFIX) == (int(said[1]), int(said[2]))
    assert line[: len(line) - SUFFIX].endswith(b'"lost"')
    assert f"0x{crc32(line[:-SUFFIX]):08x}" in page()
    assert f"{crc32(b'123456789'):08x}" in page()


def page() -> str:
    return " ".join(FORMAT.read_text("utf-8").split())


def test_the_page_names_every_member_and_no_other() -> None:
    from msgspec.structs import fields

    from litellm_ledger._records.gaps import GapLine

    members = {field.encode_name for field in fields(GapLine)} | {"v", "crc"}
    tables = FORMAT.read_text("utf-8").split("## Members")[1].split("### Money")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE)) == members


# -- with manifests --------------------------------------------------------------------------------

FIXTURES = HERE.parent / "fixtures"
SEALED = [FIXTURES / "v1-sealed", FIXTURES / "v1-sealed-durations"]
"""The first has manifests that begin with no part of their own, and have no durations."""


@pytest.mark.parametrize("fixture", SEALED, ids=lambda path: path.name)
@pytest.mark.parametrize("manifests", [True, False])
def test_the_sealed_fixture_still_says_the_same(
    tmp_path: Path, manifests: bool, fixture: Path
) -> None:
    root = tmp_path / "usage"
    shutil.copytree(fixture, root)
    if not manifests:
        shutil.rmtree(root / "manifests")
    expected = json.loads((fixture / "expected.json").read_text("utf-8"))
    for by, rows in expected.items():
        report = Ledger(root).report([by], quantiles=True)
        found = {tuple(row.group.values()): row for row in report.rows}
        assert len(found) == len(rows)
        for row in rows:
            one = found[tuple(row["group"].values())]
            said = (one.calls, one.cost, one.total_tokens)
            assert said == (row["calls"], Decimal(row["cost"]), row["total_tokens"])
            measured, spread = row.get("latency_ms"), one.latency_ms
            assert measured == (spread and [spread.count, spread.p50, spread.p90, spread.max])


@pytest.mark.parametrize("fixture", SEALED, ids=lambda path: path.name)
def test_the_manifests_of_the_fixture_still_hold_and_so_does_its_anchor(
    tmp_path: Path, fixture: Path
) -> None:
    root = tmp_path / "usage"
    shutil.copytree(fixture, root)
    found = Ledger(root).verify(full=True, anchors=root / "anchors")
    assert [problem for writer in found.writers for problem in writer.problems] == []
    assert [one.ok for one in found.anchors] == [True]
    shutil.rmtree(root / "manifests")
    seal(root)
    for path in (root / "manifests").iterdir():
        there = json.loads(path.read_bytes())
        once = json.loads((fixture / "manifests" / path.name).read_bytes())
        for member in ("sealed", "previous", "crc", "head"):
            there.pop(member)
            once.pop(member, None)
        later = {"limits", "short", "durations"} - once.keys()
        assert {name: value for name, value in there.items() if name not in later} == once


# -- with a price book, and adjustments ------------------------------------------------------------

V2 = FIXTURES / "v2"


def test_the_fixture_with_adjustments_still_says_the_same(tmp_path: Path) -> None:
    root = tmp_path / "usage"
    shutil.copytree(V2, root)
    expected = json.loads((V2 / "expected.json").read_text("utf-8"))
    for when, models in expected["reports"].items():
        more: dict[str, Any] = {"newest": {}, "recorded": {"as_recorded": True}}.get(when, {})
        if when[0].isdigit():
            more = {"as_of": datetime.fromisoformat(when)}
        report = Ledger(root).report(["model"], **more)
        found = {r.group["model"]: [r.calls, r.priced, str(r.cost)] for r in report.rows}
        assert found == models, when
    assert Ledger(root).verify(full=True).ok


def test_every_cost_of_the_fixture_is_still_what_its_price_says() -> None:
    found = check_prices(V2)
    assert (found.ok, found.computed, found.adjusted, found.missing) == (True, 3, 5, 0)
