"""The price book killed, failed and cut off from power at every step: no record is lost for it."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.crash.test_power import Scratch, scratch  # noqa: F401 - a fixture
from tests.disks import QUICK
from tests.ledger_by_hand import HandMade
from tests.power import Medium, NeverSyncsFiles, Recorder, states
from tests.runs import calls_of, keys, usage
from tests.tally import Tally

from litellm_ledger import ModelPrice, UsageTracker
from litellm_ledger._reading.price_entries import PriceEntries
from litellm_ledger._records.layout import PRICES
from litellm_ledger._storage.price_book import PriceBook
from litellm_ledger.testing import FaultyFileSystem, Killed

PRICE = ModelPrice(input="0.20", output="0.60")
OTHER = ModelPrice(request="0.01")


def believed(root: Path) -> set[str]:
    """The entries that are believed; each that is there must be."""
    entries = PriceEntries(root)
    entries.check()
    assert not entries.problems
    return {price.version for price in (PRICE, OTHER) if entries.get(price.version) is not None}


def write(root: Path, disk: FaultyFileSystem | Recorder) -> PriceBook:
    book = PriceBook(disk, root)
    for price in (PRICE, OTHER):
        book.add(price.version, price.text)
    book.write()
    return book


def test_killed_at_every_step_an_entry_is_whole_or_not_there(tmp_path: Path) -> None:
    counted = FaultyFileSystem(QUICK)
    write(HandMade(tmp_path / "counted").root, counted)
    assert len(counted.calls) > 12
    for step in range(1, len(counted.calls) + 1):
        root = HandMade(tmp_path / str(step)).root
        disk = FaultyFileSystem(QUICK)
        disk.kill(step, torn=step % 3)
        with suppress(Killed):
            write(root, disk)
        before = believed(root)
        there = {path: path.read_bytes() for path in (root / PRICES).glob("*.json")}
        write(root, FaultyFileSystem(QUICK))
        assert before <= believed(root) == {PRICE.version, OTHER.version}
        assert {path: path.read_bytes() for path in there} == there


async def life(
    root: Path,
    disk: FaultyFileSystem,
    durability: str = "written",
    fault: Callable[[], None] = lambda: None,
) -> tuple[set[str], int]:
    """A client whose records name two prices; return what was acknowledged, and entries kept."""
    tracker = UsageTracker(root, fs=disk, durability=durability, handle_signals=False)  # type: ignore[arg-type]
    calls = calls_of(tracker)
    await tracker.open()
    fault()
    acked = set()
    kept = 0
    for number, price in enumerate([PRICE, PRICE, OTHER, OTHER]):
        calls.keep_price(price.version, price.text)
        await tracker.record(usage(number, price_version=price.version, cost_source="user"))
        acked.add(str(number))
    kept = len(believed(root))
    await tracker.aclose(2.0)
    return acked, kept


@pytest.mark.parametrize("durability", ["written", "synced"])
@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "sync_directory"])
def test_an_entry_that_cannot_be_written_costs_no_record_and_is_written_later(
    tmp_path: Path, operation: str, durability: str, tally: Tally
) -> None:
    struck, nth = True, 0
    while struck:
        nth += 1
        root = tmp_path / str(nth)
        disk = FaultyFileSystem(QUICK)
        before: list[int] = []

        def fault(disk: FaultyFileSystem = disk, nth: int = nth, told: list[int] = before) -> None:
            told.append(disk.count(operation))  # type: ignore[arg-type]
            disk.fail(operation, nth=nth, error=errno.ENOSPC)  # type: ignore[arg-type]

        acked, _ = asyncio.run(life(root, disk, durability, fault))
        struck = disk.count(operation) >= before[0] + nth  # type: ignore[arg-type]
        assert sorted(keys(root), key=str) == sorted(acked) == list("0123")
        assert believed(root) == {PRICE.version, OTHER.version}, f"{operation} {nth}"
        tally("one call of the disk fails while a price is kept", tried=1, promised=4, lost=0)


def test_a_price_is_kept_before_the_record_that_names_it_is_acknowledged(tmp_path: Path) -> None:
    _, kept = asyncio.run(life(tmp_path, FaultyFileSystem(QUICK)))
    assert kept == 2


def test_the_last_resort_keeps_the_price_of_what_it_saves(tmp_path: Path) -> None:
    async def late() -> None:
        tracker = UsageTracker(tmp_path, fs=FaultyFileSystem(QUICK), handle_signals=False)
        calls = calls_of(tracker)
        await tracker.open()
        calls.join()  # a call in flight, whose outcome comes when the writer's task is gone
        await tracker.aclose()
        calls.keep_price(OTHER.version, OTHER.text)
        calls.end(usage(1, price_version=OTHER.version), None)

    asyncio.run(late())
    assert keys(tmp_path) == ["1"]
    assert believed(tmp_path) == {OTHER.version}


def test_a_directory_that_cannot_be_made_costs_no_record(tmp_path: Path) -> None:
    (tmp_path / PRICES).write_text("in the way")
    tracked, kept = asyncio.run(life(tmp_path, FaultyFileSystem(QUICK)))
    assert (len(tracked), kept, len(keys(tmp_path))) == (4, 0, 4)


def test_after_a_power_cut_each_entry_is_whole_or_not_there(
    tmp_path: Path,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    assert check_power(tmp_path, Recorder(), scratch) > 50


def test_an_entry_that_is_not_synced_before_it_has_its_name_is_caught(
    tmp_path: Path,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    with pytest.raises(AssertionError):
        check_power(tmp_path, NeverSyncsFiles(), scratch)


def check_power(tmp_path: Path, disk: Recorder, scratch: Scratch) -> int:  # noqa: F811
    base = HandMade(tmp_path / "base").root
    running = tmp_path / "usage"
    shutil.copytree(base, running)
    write(running, disk)
    count = 0
    for where, root in states(disk.events, Medium(running, base), scratch.fresh):
        count += 1
        found = believed(root)
        if where.startswith(f"after {len(disk.events)} "):
            assert len(found) == 2, f"an entry is gone {where}"
    return count
