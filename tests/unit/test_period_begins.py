"""Where periods begin, found by halves: the same as by asking of each quarter."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from litellm_ledger._aggregates.calendar import Calendar
from litellm_ledger._aggregates.quarters import QuarterQuestion
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.steps import EPOCH, QUARTER

SPRING = (datetime(2025, 3, 1, tzinfo=UTC) - EPOCH) // QUARTER
AUTUMN = (datetime(2025, 10, 1, tzinfo=UTC) - EPOCH) // QUARTER
DAYS = 40


@pytest.mark.parametrize(
    "zone",
    [
        "Europe/Berlin",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",  # clocks change by half an hour
        "Asia/Beirut",  # and at midnight
        "America/Havana",
        "Antarctica/Troll",
    ],
)
@pytest.mark.parametrize("by", [["day"], ["month"], ["week", "day"]])
@pytest.mark.parametrize("first", [SPRING, AUTUMN])
def test_begins_part_the_quarters_as_each_of_them_is(zone: str, by: list[str], first: int) -> None:
    last = first + 96 * DAYS
    calendar = Calendar(ZoneInfo(zone))
    question = QuarterQuestion(by, Selection(calendar=calendar))
    found = question.begins(first, last)
    assert found is not None
    assert found == sorted(set(found))
    assert found[0] == first
    for start, end in pairwise([*found, last + 1]):
        numbers = {
            tuple(calendar.number(every, EPOCH + quarter * QUARTER) for every in by)
            for quarter in range(start, end)
        }
        assert len(numbers) == 1, (start, numbers)
    assert len(found) <= 4 + (2 if by == ["month"] else DAYS)


def test_quarters_in_which_a_period_ends_have_no_begins() -> None:
    monrovia = Calendar(ZoneInfo("Africa/Monrovia"))  # 44 minutes and a half, until 1972
    question = QuarterQuestion(["day"], Selection(calendar=monrovia))
    assert question.begins(0, 500) is None
