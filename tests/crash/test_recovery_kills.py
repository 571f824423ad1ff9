"""Recovery killed, torn or failed at every step of itself, and then run again.

Whatever happened in between, the ledger says of every number what an undisturbed recovery says, and
every invalid byte of the originals is still in ``recovery/``.  The saboteurs at the end each break
one rule of the order of steps, and the same check must catch them.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.disks import QUICK
from tests.ledger_by_hand import flip
from tests.ledgers import (
    OTHER,
    assert_finished,
    call,
    directory,
    found,
    kept,
    line,
    lines,
    put,
    put_live,
)

from litellm_ledger._maintenance import dead_writer as _dead_writer
from litellm_ledger._maintenance import recover as _recovery
from litellm_ledger._maintenance.dead_writer import DeadWriter
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._records.scan import Scan, scan
from litellm_ledger.testing import FaultyFileSystem, Killed


def flipped(content: bytes) -> bytes:
    return flip(content, bit=2)


# -- what the dead left: each scenario fills a directory -------------------------------------------


def torn_tail_with_calls_in_flight(root: Path) -> None:
    put(root, [*call(1), line(3, "started"), line(4, "started"), line(5)[:70]], 1)
    put_live(root, 6, oldest=3)


def damage_in_the_middle(root: Path) -> None:
    put(root, [*call(1), flipped(line(3)), line(4, "started"), *lines(5, 6), b"torn"], 1)
    put_live(root, 8, oldest=4)


def the_sealed_name_is_taken(root: Path) -> None:
    put(root, lines(1, 4), 1)
    put(root, lines(1, 4), 1, 4)
    put(root, lines(5, 6), 5)
    put_live(root, 6)


def copies_that_complete_each_other(root: Path) -> None:
    put(root, [flipped(line(1)), *lines(2, 3)], 1)
    put(root, [*lines(1, 2), flipped(line(3))], 1, 3)
    put_live(root, 5, oldest=1)


def damaged_sealed_segment(root: Path) -> None:
    put(root, [line(1, "started"), flipped(line(2)), *lines(3, 4)], 1, 4)
    put(root, [*lines(5, 6), b"x" * 40], 5)
    put_live(root, 6, oldest=1)


def nothing_valid(root: Path) -> None:
    put(root, lines(1, 2), 1, 2)
    put(root, [b"no line at all"], 3)
    put_live(root, 4)


def holes_and_a_garbled_live_file(root: Path) -> None:
    put(root, [line(1, "started"), line(2)], 1, 2)
    put(root, lines(5, 6), 5, 6)
    put(root, lines(9, 10), 9)
    put_live(root, 10).write_bytes(b"garbled")


def an_outcome_among_the_lost(root: Path) -> None:
    put(root, [line(1, "started"), line(2)], 1, 2)
    put(root, lines(4, 5), 4)  # 3 is gone, and may have been the outcome of 1
    put_live(root, 5)


def two_writers_and_leftovers(root: Path) -> None:
    damage_in_the_middle(root)
    put(root, [*call(1, OTHER), *lines(3, 4, OTHER)], 1, writer=OTHER)
    put(root, lines(4, 4, OTHER), 4, 4, writer=OTHER)
    put_live(root, 6, boot="other", writer=OTHER)
    (root / SEGMENTS / f"{SegmentName(OTHER, 5, 5)}.3.tmp").write_bytes(line(5, writer=OTHER)[:9])


SCENARIOS = [
    torn_tail_with_calls_in_flight,
    damage_in_the_middle,
    the_sealed_name_is_taken,
    copies_that_complete_each_other,
    damaged_sealed_segment,
    nothing_valid,
    holes_and_a_garbled_live_file,
    an_outcome_among_the_lost,
    two_writers_and_leftovers,
]
Scenario = Callable[[Path], None]


class Case:
    """One scenario: what an undisturbed recovery makes of it, and disturbed ones to compare."""

    def __init__(self, scenario: Scenario, tmp_path: Path) -> None:
        self.original = directory(tmp_path / "original")
        scenario(self.original)
        self.writers = sorted({p.name.split(".")[0] for p in (self.original / "live").iterdir()})
        self._root = tmp_path / "usage"
        root, disk = self.fresh(), FaultyFileSystem(QUICK)
        self.first_run = recover(root, fs=disk)
        assert all(writer.error is None for writer in self.first_run.writers)
        self.steps = disk.calls
        self.expected = {writer: found(root, writer) for writer in self.writers}
        self.check(root)

    def fresh(self) -> Path:
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self.original, self._root)
        return self._root

    def disturbed(self, *faults: Callable[[FaultyFileSystem], None]) -> None:
        """Run with one fault after the other, then undisturbed; then check."""
        root = self.fresh()
        for fault in faults:
            disk = FaultyFileSystem(QUICK)
            fault(disk)
            with suppress(Killed):
                recover(root, fs=disk)
        for writer in recover(root, fs=QUICK).writers:
            assert writer.error is None
        self.check(root)

    def check(self, root: Path) -> None:
        for writer in self.writers:
            assert_finished(root, writer)
            assert found(root, writer) == self.expected[writer]
        saved = list(kept(root).values())
        for path in (self.original / SEGMENTS).iterdir():
            name = SegmentName.parse(path.name)
            if name is None:
                continue
            content = path.read_bytes()
            seen = scan(content, name.writer, name.first)
            if seen.damaged:
                assert content in saved, f"the original of {path.name} is gone"
            elif seen.torn:
                tail = content[-seen.torn :]
                assert any(copy.endswith(tail) for copy in saved), f"lost a tail of {path.name}"


@pytest.fixture(params=SCENARIOS, ids=lambda scenario: scenario.__name__)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(request.param, tmp_path)


def at_every_step(case: Case, fault: Callable[[FaultyFileSystem, int], None]) -> None:
    for nth in range(1, len(case.steps) + 1):
        case.disturbed(lambda disk, nth=nth: fault(disk, nth))


def test_killed_at_every_step(case: Case) -> None:
    at_every_step(case, lambda disk, nth: disk.kill(nth))


def test_killed_in_the_middle_of_every_write(case: Case) -> None:
    for nth, step in enumerate(case.steps, 1):
        if step.operation == "write":
            case.disturbed(lambda disk, nth=nth: disk.kill(nth, torn=11))


def test_an_error_at_every_step(case: Case) -> None:
    at_every_step(case, lambda disk, nth: disk.fail("*", nth=nth, error=errno.EIO))


def test_every_step_from_the_nth_on_fails(case: Case) -> None:
    at_every_step(case, lambda disk, nth: disk.fail("*", nth=nth, times=None, error=errno.ENOSPC))


@pytest.mark.parametrize("limit", [1, 13])
def test_writes_that_take_a_few_bytes_at_a_time(case: Case, limit: int) -> None:
    def short(disk: FaultyFileSystem) -> None:
        disk.largest_write = limit

    case.disturbed(short)


def test_a_disk_that_is_full_for_all_but_a_few_bytes(case: Case) -> None:
    for free in (0, 5, 100, 400):
        case.disturbed(lambda disk, free=free: disk.fill(free))


def test_killed_twice_at_any_two_steps(tmp_path: Path) -> None:
    case = Case(damaged_sealed_segment, tmp_path)
    for first in range(1, len(case.steps) + 1, 2):
        for second in range(1, len(case.steps) + 1, 3):
            case.disturbed(
                lambda disk, first=first: disk.kill(first),
                lambda disk, second=second: disk.kill(second),
            )


# -- saboteurs -----------------------------------------------------------------------------------


def caught(case: Case) -> bool:
    """Whether killing at some step shows the sabotage."""
    try:
        for nth, step in enumerate(case.steps, 1):
            for torn in (0, 11) if step.operation == "write" else (0,):
                case.disturbed(lambda disk, nth=nth, torn=torn: disk.kill(nth, torn=torn))
    except AssertionError:
        return True
    return False


class CutsInsteadOfQuarantining(DeadWriter):
    def _salvage(self, name: SegmentName, last: int, held: Any, names: set[SegmentName]) -> None:
        path = self._segments / str(name)
        found = scan(path.read_bytes(), self.writer, name.first)
        end = found.damaged[0][0]
        good = [head.last for head, _ in scan(path.read_bytes()[:end], name.writer, 1).lines]
        with open(path, "r+b") as file:
            file.truncate(end)
        path.rename(self._segments / str(name.sealed(good[-1])))


class CutsBeforeKeeping(DeadWriter):
    def _cut_and_sync(self, name: SegmentName, found: Scan) -> bool:
        end = found.size - found.torn
        content = (self._segments / str(name)).read_bytes()
        fd = self.fs.open(self._segments / str(name))
        self.fs.truncate(fd, end)
        self.fs.close(fd)
        self._keep(f"{name}.{end}.torn", content[end:])
        return True


class MovesBeforeSalvaging(DeadWriter):
    def _salvage(self, name: SegmentName, last: int, held: Any, names: set[SegmentName]) -> None:
        if name.open:
            self._set_aside(self._segments / str(name))
            path = self._segments / str(name)
            self._set_aside = lambda p: p.name  # type: ignore[method-assign,assignment]
            super()._salvage(name, last, held, names)
            assert not path.exists()
        else:
            super()._salvage(name, last, held, names)


class UnlinksLiveFirst(DeadWriter):
    def _work(self, live: Path, *rest: Any) -> None:
        content = live.read_bytes()
        self.fs.unlink(live)
        self.fs.sync_directory(live.parent)
        live.write_bytes(content)  # what the last step of the original takes away again
        try:
            super()._work(live, *rest)
        except BaseException:
            live.unlink()
            raise


def writes_in_place(fs: Any, where: Path, name: Any, data: bytes, *, attempt: int) -> None:
    """``write_sealed`` without its temporary name."""
    path = where / str(name)
    path.unlink(missing_ok=True)
    fd = fs.create(path)
    try:
        fs.write(fd, data)
        fs.sync(fd)
    finally:
        fs.close(fd)
    fs.sync_directory(where)


@pytest.mark.parametrize(
    ("saboteur", "scenario"),
    [
        (CutsInsteadOfQuarantining, damage_in_the_middle),
        (CutsBeforeKeeping, torn_tail_with_calls_in_flight),
        (MovesBeforeSalvaging, damage_in_the_middle),
        (UnlinksLiveFirst, torn_tail_with_calls_in_flight),
    ],
)
def test_a_saboteur_of_the_order_of_steps_is_caught(
    saboteur: type[DeadWriter],
    scenario: Scenario,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case(scenario, tmp_path)
    assert not caught(case)
    monkeypatch.setattr(_recovery, "DeadWriter", saboteur)
    assert caught(case)


def test_a_saboteur_that_writes_sealed_segments_in_place_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(torn_tail_with_calls_in_flight, tmp_path)
    monkeypatch.setattr(_dead_writer, "write_sealed", writes_in_place)
    assert caught(case)
