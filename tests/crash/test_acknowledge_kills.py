"""Acknowledging killed, failed and cut off from power at every step: whole, or as before."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from tests.crash.steps import Steps, survives_failures, survives_kills
from tests.crash.test_power import Scratch, scratch  # noqa: F401 - a fixture
from tests.disks import QUICK
from tests.ledger_by_hand import WRITER, HandMade, spoil
from tests.power import Medium, Recorder, states
from tests.tally import Tally

from litellm_ledger._maintenance.acknowledge import acknowledge
from litellm_ledger._reading.verify import verify

WHAT = "acknowledging, killed or failed at a step"


def begun(root: Path) -> Path:
    hand = HandMade(root)
    spoil(hand.sealed(1, 3), line=1)
    hand.sealed(6, 9, [hand.line(6), hand.gap(7, 8, "quarantined"), hand.line(9)])
    return root


def again(root: Path, disk: Any = QUICK) -> None:
    acknowledge(root, WRITER, who="a", why="b", fs=disk)


def known(root: Path) -> tuple[int, int, int, bool]:
    found = verify(root)
    (writer,) = found.writers
    assert not found.adjustments
    assert (writer.lost, writer.quarantined, writer.found) == (3, 2, 4)
    problems = len(writer.known_problems)
    return writer.known, writer.known_quarantined, problems, found.ok


NOTHING, ALL = (0, 0, 0, False), (3, 2, 1, True)


class Case:
    def __init__(self, tmp_path: Path) -> None:
        self.original = begun(tmp_path / "original")
        self.steps = Steps(self.original, tmp_path / "usage", again)
        assert (known(self.original), known(tmp_path / "usage")) == (NOTHING, ALL)

    def check(self, root: Path) -> None:
        """All of it or nothing, and the next run ends it."""
        assert known(root) in (NOTHING, ALL)
        again(root)
        assert known(root) == ALL


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_killed_at_every_step_it_is_whole_or_as_before(case: Case, tally: Tally) -> None:
    assert case.steps.count > 5
    survives_kills(case, tally, WHAT, 4)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_step_that_fails_is_an_error_and_the_next_run_ends_it(
    case: Case, tally: Tally, number: int
) -> None:
    failed = survives_failures(case, number, tally, WHAT, 4)
    assert failed > case.steps.count // 2


def check_power(case: Case, scratch: Scratch, disk: Recorder) -> int:  # noqa: F811
    base, running = case.original, case.steps.fresh()
    again(running, disk)
    count = 0
    for where, root in states(disk.events, Medium(running, base), scratch.fresh):
        count += 1
        assert known(root) in (NOTHING, ALL), f"something is wrong {where}"
        if where.startswith(f"after {len(disk.events)} "):
            assert known(root) == ALL, f"the audit is gone {where}"
    return count


def test_a_power_cut_leaves_all_of_it_or_nothing(
    case: Case,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    assert check_power(case, scratch, Recorder()) > 10


class NeverSyncs(Recorder):
    def sync(self, fd: int) -> None:
        pass


def test_an_audit_that_is_not_synced_before_it_has_its_name_is_caught(
    case: Case,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    with pytest.raises(AssertionError):
        check_power(case, scratch, NeverSyncs())
