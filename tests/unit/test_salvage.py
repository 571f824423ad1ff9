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


def quarantined(first: int, last: int) -> bytes:
    return gap(first, last, "quarantined")


@pytest.mark.parametrize(
    ("there", "written", "missing"),
    [
        (lines(1, 5), lines(1, 5), 0),
        ([line(2)], [quarantined(1, 1), line(2), quarantined(3, 5)], 4),
        (  # a record beats a gap, which keeps its reason
            [line(1), gap(2, 4, "erased"), line(3)],
            [line(1), gap(2, 2, "erased"), line(3), gap(4, 4, "erased"), quarantined(5, 5)],
            1,
        ),
        (  # and says what was acknowledged
            [line(1), gap(2, 5, acked_until=3), line(4)],
            [line(1), gap(2, 3, acked_until=3), line(4), gap(5, 5, acked_until=3)],
            0,
        ),
    ],
)
def test_numbers_one_to_five_are_written_anew(
    there: list[bytes], written: list[bytes], missing: int
) -> None:
    assert fill(WRITER, 1, 5, held(*there)) == (written, missing)


def test_no_more_is_written_anew_than_was_asked_for() -> None:
    assert fill(WRITER, 2, 4, held(*lines(1, 5))) == (lines(2, 4), 0)


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
