"""Every byte of a segment is valid, damaged or torn; one test for each way of being so."""

from __future__ import annotations

import pytest
from tests.ledger_by_hand import framed
from tests.ledgers import OTHER, WRITER, gap, line, lines

from litellm_ledger._records import scan as _scan
from litellm_ledger._records.line import checked
from litellm_ledger._records.scan import Scan, heads, scan


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


def test_a_whole_segment_is_all_valid() -> None:
    found = looked_at(*lines(5, 9), first=5)
    assert (numbers(found), found.damaged, found.torn) == ([5, 6, 7, 8, 9], [], 0)


def test_an_empty_segment_is_valid() -> None:
    assert looked_at() == Scan()


def test_a_gap_covers_its_numbers() -> None:
    found = looked_at(line(1), gap(2, 9), line(10))
    assert (numbers(found), found.damaged) == ([1, 2, 10], [])
    assert found.lines[1][0].last == 9


def test_a_gap_that_ends_before_it_begins_is_damage() -> None:
    found = looked_at(line(1), gap(2, 1), line(2))
    assert numbers(found) == [1, 2]
    assert len(found.damaged) == 1


def test_bytes_after_the_last_line_are_torn() -> None:
    found = looked_at(*lines(1, 2), line(3)[:40])
    assert (numbers(found), found.torn) == ([1, 2], 40)


def test_bytes_before_a_valid_line_are_damage() -> None:
    found = looked_at(b"rubbish\n", line(1))
    assert (numbers(found), found.damaged) == ([1], [(0, 8)])


def test_bytes_glued_to_a_valid_line_do_not_take_it_along() -> None:
    found = looked_at(line(1), b"\0" * 512, line(2), line(3)[:-1], line(4), b'{"v":', line(5))
    assert numbers(found) == [1, 2, 4, 5]
    assert len(found.damaged) == 3


def test_a_line_of_another_writer_is_damage() -> None:
    found = looked_at(line(1), line(2, writer=OTHER), line(2))
    assert (numbers(found), len(found.damaged)) == ([1, 2], 1)


def test_a_line_below_the_first_number_is_damage() -> None:
    assert numbers(looked_at(*lines(3, 5), first=4)) == [4, 5]


def test_a_second_copy_is_damage() -> None:
    found = looked_at(line(1), line(1), line(2))
    assert numbers(found) == [1, 2]
    assert found.damaged == [(len(line(1)), 2 * len(line(1)))]


def test_a_line_that_vanished_without_a_trace_is_seen() -> None:
    found = looked_at(line(1), line(3))
    assert numbers(found) == [1, 3]
    assert found.damaged == [(len(line(1)), len(line(1)))]


def test_a_record_is_no_copy_of_the_gap_it_beats() -> None:
    assert numbers(looked_at(gap(1, 2), line(1), line(2), line(3))) == [1, 1, 2, 3]
    assert numbers(looked_at(line(1), gap(1, 2), line(3))) == [1, 1, 3]


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
