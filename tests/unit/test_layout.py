"""Names in a ledger directory: built and parsed without loss; anything else is not ours."""

from __future__ import annotations

import pytest
from tests.ledgers import OTHER, WRITER

from litellm_ledger._records.layout import (
    SegmentName,
    live_name,
    record_id,
    split_id,
    writer_of_live,
)


@pytest.mark.parametrize("name", [SegmentName(WRITER, 1), SegmentName(WRITER, 7, 10**15)])
def test_names_survive_the_way_there_and_back(name: SegmentName) -> None:
    assert SegmentName.parse(str(name)) == name


def test_names_look_as_the_page_says() -> None:
    assert str(SegmentName(WRITER, 1)) == f"{WRITER}.0000000000000001.jsonl.open"
    sealed = SegmentName(WRITER, 1).sealed(12)
    assert str(sealed) == f"{WRITER}.0000000000000001-0000000000000012.jsonl"
    assert (SegmentName(WRITER, 1).open, sealed.open) == (True, False)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "notes.txt",
        f"{WRITER}.1.jsonl.open",
        f"{WRITER}.0000000000000001.jsonl",
        f"{WRITER}.0000000000000001.jsonl.open.gz",
        f"{WRITER}.0000000000000002-0000000000000001.jsonl",
        f"{WRITER}.0000000000000001-0000000000000002.jsonl.1.tmp",
        f"{WRITER}.0000000000000001-0000000000000002.jsonl\n",
        f"x{WRITER}.0000000000000001-0000000000000002.jsonl",
        f"{WRITER.upper()}.0000000000000001-0000000000000002.jsonl",
        f"{WRITER}.000000000000000\u0661.jsonl.open",
    ],
)
def test_other_names_are_not_segments(name: str) -> None:
    assert SegmentName.parse(name) is None


def test_live_names() -> None:
    assert writer_of_live(live_name(WRITER)) == WRITER
    for name in (f"{WRITER}.new", f"{WRITER}.live.bak", "x.live"):
        assert writer_of_live(name) is None


def test_record_ids() -> None:
    assert split_id(record_id(OTHER, 42)) == (OTHER, 42)
    for text in ("", OTHER, f"{OTHER}-42", record_id(OTHER, 42) + "x"):
        assert split_id(text) is None


def test_names_of_a_writer_sort_by_number() -> None:
    names = [SegmentName(WRITER, n, n + 1) for n in (1, 99, 100, 12_345)]
    assert sorted(map(str, names)) == list(map(str, names))
