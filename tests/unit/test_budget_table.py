"""The table of balances: steps, kills in the middle of them, what is no table, how it grows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from litellm_ledger._budgets.table import (
    HELD,
    LEFT,
    ROW_HELD,
    ROW_SPENT,
    SPENT,
    Damaged,
    Full,
    Moved,
    Spot,
    Table,
    lock_budgets,
)
from litellm_ledger._records.layout import BALANCES, BUDGETS
from litellm_ledger._storage.live_file import unlock

WRITER = "20260102T030405Z-0123456789abcdef"
OTHER = "20260102T030406Z-fedcba9876543210"
COUNTS = "0123456789abcdef" * 2


def spot(scope: str = "", window: int = 7, *, leaves: int = 100, rolling: bool = False) -> Spot:
    return Spot(0, COUNTS, scope, window, leaves, rolling)


def put_down(root: Path, table: Table) -> None:
    held = lock_budgets(root)
    try:
        table.write(root)
    finally:
        unlock(held)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    draft = Table.draft(2, 16, 16)
    draft.add_measure(COUNTS)
    draft.replace(WRITER, 1, {spot("a"): (5, 3), spot("b"): (1, 0)})
    put_down(tmp_path, draft)
    return Table.open(tmp_path)


def sums(table: Table, scope: str, window: int = 7) -> tuple[int, int]:
    at = table.find(COUNTS, scope, window)
    return (table.cells[at + SPENT], table.cells[at + HELD]) if at else (0, 0)


def test_an_account_is_the_sum_of_its_rows(table: Table) -> None:
    table.replace(OTHER, 1, {spot("a"): (10, 10)})
    assert sums(table, "a") == (15, 13)
    assert sums(table, "b") == (1, 0)
    table.check()


def test_what_the_ledger_says_replaces_the_rows_of_a_writer(table: Table) -> None:
    table.replace(OTHER, 1, {spot("a"): (10, 10)})
    table.replace(WRITER, 1, {spot("a"): (6, 0), spot("c"): (2, 0)})
    assert [sums(table, scope) for scope in "abc"] == [(16, 10), (0, 0), (2, 0)]
    table.replace(WRITER, 0, {})  # about no measure at all
    assert sums(table, "a") == (16, 10)
    table.check()


def test_another_opening_sees_the_same_numbers(tmp_path: Path, table: Table) -> None:
    other = Table.open(tmp_path)
    with_lock = other.try_lock()
    assert with_lock
    assert not table.try_lock()
    at = other.account(spot("z"))
    other.begin([at])
    row = other.add_row(other.add_writer(WRITER), at)
    other.cells[row + ROW_HELD] = other.cells[at + HELD] = 9
    other.end()
    other.unlock()
    assert sums(table, "z") == (0, 9)


@pytest.mark.parametrize("stores", range(4))
def test_killed_in_the_middle_of_a_step_the_next_lock_makes_the_sums_again(
    tmp_path: Path, table: Table, stores: int
) -> None:
    at = table.find(COUNTS, "a", 7)
    ((row, _),) = [one for one in table.rows_of(table.add_writer(WRITER)) if one[1] == at]
    table.lock()
    table.begin([at])
    cells = table.cells
    for cell in (row + ROW_SPENT, row + ROW_HELD, at + SPENT, at + HELD)[:stores]:
        cells[cell] += 1
    table.unlock()  # as the kernel does it: nothing else happened
    other = Table.open(tmp_path)
    other.lock()
    other.check()
    assert sums(other, "a") == (5 + (stores > 0), 3 + (stores > 1))
    other.unlock()


def test_killed_while_an_account_was_made_its_chain_is_made_again(
    tmp_path: Path, table: Table
) -> None:
    for window in (10, 30, 20):
        table.account(spot("r", window, rolling=True))
    head = table.find(COUNTS, "r", None)
    last = table.account(spot("r", 40, rolling=True))
    table.begin(None)
    table.cells[head + 7] = table.cells[last + 7]  # the chain lost its newest
    other = Table.open(tmp_path)
    other.lock()
    other.check()
    row = other.add_row(other.add_writer(WRITER), last)
    other.cells[row + ROW_SPENT] = other.cells[last + SPENT] = 4
    assert other.counted(head, 10) == (4, 0)
    assert other.counted(head, 41) == (0, 0)
    other.unlock()


def test_a_chain_counts_from_a_window_on(table: Table) -> None:
    figures = {spot("r", window, rolling=True): (window, 1) for window in (30, 10, 20)}
    table.replace(OTHER, 1, figures)
    head = table.find(COUNTS, "r", None)
    assert [table.counted(head, since) for since in (10, 11, 21, 31)] == [
        (60, 3),
        (50, 2),
        (30, 1),
        (0, 0),
    ]


def test_a_full_table_says_so_and_one_that_grew_has_all_that_counts(tmp_path: Path) -> None:
    table = Table.draft(1, 16, 16)
    table.add_measure(COUNTS)
    most = 12  # three quarters of 16
    table.replace(WRITER, 1, {spot(str(number)): (1, 0) for number in range(most)})
    with pytest.raises(Full):
        table.replace(WRITER, 1, {spot(str(number)): (1, 0) for number in range(most + 1)})
    table.replace(WRITER, 1, {spot("0", leaves=50): (2, 0), spot("1"): (3, 0)})
    with pytest.raises(Full):
        table.add_writer(OTHER)
    grown = table.grown(99)
    grown.check()
    assert sums(grown, "1") == (3, 0)
    assert grown.add_writer(OTHER)
    assert grown.measure(COUNTS) == 0
    later = grown.grown(100)
    assert sums(later, "1") == (0, 0)
    assert later.cells[LEFT] == 100
    with pytest.raises(Damaged, match="forgotten"):
        later.account(spot("1"))
    put_down(tmp_path, later)


def test_who_has_the_old_file_open_is_sent_to_the_new_one(tmp_path: Path, table: Table) -> None:
    put_down(tmp_path, table.grown(0))
    with pytest.raises(Moved):
        table.lock()
    assert Table.open(tmp_path).try_lock()


def cut(path: Path) -> None:
    os.truncate(path, 100)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[16] ^= 1
    path.write_bytes(data)


def of_another_boot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    path.write_bytes(data)


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


@pytest.mark.parametrize("harm", [cut, flip, of_another_boot, make_fifo, make_link])
def test_what_is_no_table_is_not_opened(tmp_path: Path, table: Table, harm: object) -> None:
    path = tmp_path / BUDGETS / BALANCES
    assert callable(harm)
    harm(path)
    with pytest.raises(Damaged):
        Table.open(tmp_path)
    put_down(tmp_path, Table.draft())  # over whatever is there
    Table.open(tmp_path).close()


def test_one_that_is_cut_off_while_it_is_open_is_not_looked_at(
    tmp_path: Path, table: Table
) -> None:
    os.truncate(tmp_path / BUDGETS / BALANCES, 512)
    with pytest.raises(Damaged, match="cut off"):
        table.lock()


@pytest.mark.parametrize("value", [-1, 1, 2**40, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("cell", range(6, 20))
def test_absurd_numbers_in_the_header_are_seen_or_do_no_harm(
    tmp_path: Path, table: Table, cell: int, value: int
) -> None:
    table.cells[cell] = value
    other = Table.open(tmp_path)
    try:
        other.lock()
        other.check()
        other.replace(OTHER, 1, {spot("q"): (1, 1)})
        other.check()
    except (Damaged, Full, Moved):
        return
    assert sums(other, "q") == (1, 1)


@pytest.mark.parametrize("value", [-1, 1, 2**40, 2**63 - 1, -(2**63)])
def test_absurd_numbers_anywhere_are_seen_or_do_no_harm(
    tmp_path: Path, table: Table, value: int
) -> None:
    table.account(spot("r", 1, rolling=True))
    used = [at for at in range(192, len(table.cells)) if table.cells[at]]
    before = bytes(table.cells)
    for cell in used:
        table.cells[cell] = value
        other = Table.open(tmp_path)
        try:
            other.lock()
            other.check()
            list(other.rows_of(other.add_writer(WRITER)))
            other.counted(other.find(COUNTS, "r", None), 0)
        except (Damaged, Full, Moved, IndexError):
            pass
        finally:
            other.unlock()
            other.close()
            table.cells.cast("B")[:] = before
