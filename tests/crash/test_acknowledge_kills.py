"""Acknowledging killed, failed and cut off from power at every step: whole, or as before."""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.crash.test_power import Scratch, scratch  # noqa: F401 - a fixture
from tests.disks import QUICK
from tests.ledger_by_hand import WRITER, HandMade, spoil
from tests.power import Medium, Recorder, states
from tests.tally import Tally

from litellm_ledger import LedgerPathError
from litellm_ledger._maintenance.acknowledge import acknowledge
from litellm_ledger._reading.verify import verify
from litellm_ledger.testing import FaultyFileSystem, Killed


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
        self.original, self._root = begun(tmp_path / "original"), tmp_path / "usage"
        disk = FaultyFileSystem(QUICK)
        again(self.fresh(), disk)
        self.steps = len(disk.calls)
        assert (known(self.original), known(self._root)) == (NOTHING, ALL)

    def fresh(self) -> Path:
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self.original, self._root)
        return self._root

    def check(self, root: Path) -> None:
        """All of it or nothing, and the next run ends it."""
        assert known(root) in (NOTHING, ALL)
        again(root)
        assert known(root) == ALL


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_killed_at_every_step_it_is_whole_or_as_before(case: Case, tally: Tally) -> None:
    assert case.steps > 5
    for step in range(1, case.steps + 1):
        root = case.fresh()
        disk = FaultyFileSystem(QUICK)
        disk.kill(step, torn=step % 3)
        with suppress(Killed):
            again(root, disk)
        case.check(root)
        tally("acknowledging, killed or failed at a step", tried=1, promised=4, lost=0)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_step_that_fails_is_an_error_and_the_next_run_ends_it(
    case: Case, tally: Tally, number: int
) -> None:
    failed = 0
    for step in range(1, case.steps + 1):
        root = case.fresh()
        disk = FaultyFileSystem(QUICK)
        disk.fail("*", nth=step, error=number)
        try:
            again(root, disk)
        except LedgerPathError:
            failed += 1
        case.check(root)
        tally("acknowledging, killed or failed at a step", tried=1, promised=4, lost=0)
    assert failed > case.steps // 2


def check_power(case: Case, scratch: Scratch, disk: Recorder) -> int:  # noqa: F811
    base, running = case.original, case.fresh()
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
