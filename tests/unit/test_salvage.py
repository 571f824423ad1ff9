"""Lines that recovery writes: no number without a word, a record before a gap."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.ledgers import WRITER, call, gap, line, lines

from litellm_ledger._maintenance.salvage import Held, OpenCalls, fill, is_whole
from litellm_ledger._records.gaps import Gap
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._records.scan import scan


def held(*content: bytes) -> Held:
    result = Held()
    result.add(scan(b"".join(content), WRITER, 1).lines)
    return result


def test_what_is_held_needs_no_gap() -> None:
    assert fill(WRITER, 2, 4, held(*lines(1, 5))) == (lines(2, 4), 0)


def test_holes_are_quarantined() -> None:
    content, missing = fill(WRITER, 1, 6, held(line(2), line(5)))
    reason = "quarantined"
    assert content == [gap(1, 1, reason), line(2), gap(3, 4, reason), line(5), gap(6, 6, reason)]
    assert missing == 4


def test_a_gap_keeps_its_reason_and_a_record_beats_it() -> None:
    content, missing = fill(WRITER, 1, 7, held(line(1), gap(2, 5, "erased"), line(4)))
    assert content == [
        line(1),
        gap(2, 3, "erased"),
        line(4),
        gap(5, 5, "erased"),
        gap(6, 7, "quarantined"),
    ]
    assert missing == 2


def test_a_gap_that_is_written_anew_still_says_what_was_acknowledged() -> None:
    content, _ = fill(WRITER, 1, 5, held(line(1), gap(2, 5, acked_until=3), line(4)))
    assert content == [line(1), gap(2, 3, acked_until=3), line(4), gap(5, 5, acked_until=3)]


@pytest.mark.parametrize(
    ("acked_until", "unacknowledged"), [(None, 0), (0, 4), (1, 4), (2, 3), (5, 0), (9, 0)]
)
def test_a_gap_counts_what_was_never_acknowledged(
    acked_until: int | None, unacknowledged: int
) -> None:
    assert Gap(2, 5, "lost", acked_until).unacknowledged == unacknowledged


numbers = st.integers(1, 12)


@example(records={1, 2}, gaps=[(1, 2, "lost")])  # a gap inside nothing but records
@given(st.sets(numbers), st.lists(st.tuples(numbers, numbers, st.sampled_from(["lost", "erased"]))))
def test_every_number_is_covered_once(records: set[int], gaps: list[tuple[int, int, str]]) -> None:
    merged = held(*(line(seq) for seq in sorted(records)))
    for first, last, reason in gaps:
        if first <= last:
            merged.gaps.append(Gap(first, last, reason))  # type: ignore[arg-type]
    content, missing = fill(WRITER, 1, 12, merged)
    found = scan(b"".join(content), WRITER, 1)
    assert is_whole(SegmentName(WRITER, 1, 12), found)
    assert {head.seq for head, _ in found.lines if head.kind != "gap"} == records
    covered = {n for first, last, _ in gaps for n in range(first, last + 1)}
    assert missing == len(set(range(1, 13)) - records - covered)


def test_a_call_is_open_until_its_outcome() -> None:
    calls = OpenCalls()
    calls.feed(held(line(1, "started"), *call(2), line(4, "started")))
    assert [head.seq for head, _ in calls] == [1, 4]
    later = Held()
    later.add(scan(line(5, op=1), WRITER, 5).lines)
    calls.feed(later)
    assert [head.seq for head, _ in calls] == [4]
    assert len(calls) == 1
