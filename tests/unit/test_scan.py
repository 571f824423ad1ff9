"""Every byte of a segment is valid, damaged or torn; one test for each way of being so."""

from __future__ import annotations

import pytest
from tests.ledger_by_hand import framed
from tests.ledgers import OTHER, WRITER, gap, line, lines

from litellm_ledger._records import scan as _scan
from litellm_ledger._records.line import checked
from litellm_ledger._records.scan import Scan, heads, scan

BACK = gap(2, 1)
STRANGE = line(2, writer=OTHER)


def numbers(found: Scan) -> list[int]:
    return [head.seq for head, _ in found.lines]


def accounted(found: Scan) -> int:
    valid = sum(len(content) for _, content in found.lines)
    return valid + sum(end - start for start, end in found.damaged) + found.torn


def looked_at(*content: bytes, first: int = 1) -> Scan:
    data = b"".join(content)
    found = scan(data, WRITER, first)
    assert accounted(found) == len(data) == found.size
    return found


GLUED = [line(1), b"\0" * 512, line(2), line(3)[:-1], line(4), b'{"v":', line(5)]
WAYS: dict[str, tuple[list[bytes], list[int], list[int], int]] = {
    "nothing": ([], [], [], 0),
    "whole lines": (lines(1, 4), [1, 2, 3, 4], [], 0),
    "a gap, which covers its numbers": ([line(1), gap(2, 9), line(10)], [1, 2, 10], [], 0),
    "a gap that ends before it begins": ([line(1), BACK, line(2)], [1, 2], [len(BACK)], 0),
    "bytes after the last line": ([*lines(1, 2), line(3)[:40]], [1, 2], [], 40),
    "bytes before a valid line": ([b"rubbish\n", line(1)], [1], [8], 0),
    "bytes glued to valid lines": (GLUED, [1, 2, 4, 5], [512, len(line(3)) - 1, 5], 0),
    "a line of another writer": ([line(1), STRANGE, line(2)], [1, 2], [len(STRANGE)], 0),
    "a second copy": ([line(1), line(1), line(2)], [1, 2], [len(line(1))], 0),
    "a line that vanished": ([line(1), line(3)], [1, 3], [0], 0),
}


@pytest.mark.parametrize(("content", "valid", "damaged", "torn"), WAYS.values(), ids=WAYS)
def test_what_is_found_in(
    content: list[bytes], valid: list[int], damaged: list[int], torn: int
) -> None:
    found = looked_at(*content)
    assert (numbers(found), found.torn) == (valid, torn)
    assert [end - start for start, end in found.damaged] == damaged


def test_damage_is_named_by_its_place() -> None:
    found = looked_at(line(1), line(1), line(3), b"x\n", line(4))
    first, third = len(line(1)), len(line(3))
    assert found.damaged == [(first, 2 * first), (2 * first + third, 2 * first + third + 2)]


def test_a_record_is_no_copy_of_the_gap_it_beats() -> None:
    assert numbers(looked_at(gap(1, 2), *lines(1, 3))) == [1, 1, 2, 3]
    assert numbers(looked_at(line(1), gap(1, 2), line(3))) == [1, 1, 3]


def test_a_line_below_the_first_number_is_damage() -> None:
    assert numbers(looked_at(*lines(3, 5), first=4)) == [4, 5]


def test_lines_out_of_order_are_kept_and_the_place_is_reported() -> None:
    found = looked_at(line(1), line(4), line(2), line(3), line(5))
    assert numbers(found) == [1, 4, 2, 3, 5]
    assert found.damaged


@pytest.mark.parametrize(
    "body", [b"[1", b'{"v":1', b'{"id":7', b'{"id":"x","seq":"y","kind":"z"', b'{"id":"\xff"']
)
def test_a_true_checksum_over_something_else_is_damage(body: bytes) -> None:
    found = looked_at(line(1), framed(body), line(2))
    assert (numbers(found), len(found.damaged)) == ([1, 2], 1)


def test_offsets_add_up() -> None:
    data = b"".join([line(1), b"\n\n", b"x", line(2), b"end"])
    offsets = [(offset, len(content)) for offset, _, content in heads(data)]
    assert [offset for offset, _ in offsets] == [
        sum(length for _, length in offsets[:at]) for at in range(len(offsets))
    ]
    assert sum(length for _, length in offsets) == len(data)


def test_long_damage_full_of_beginnings_costs_a_bounded_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []

    def counting(content: bytes) -> bool:
        looked.append(len(content))
        return checked(content)

    monkeypatch.setattr(_scan, "checked", counting)
    found = looked_at(b'{"v":1,' * 10_000 + b',"crc":"00000000"}\n')
    assert found.torn == 70_000 + 19
    assert len(looked) < 100
