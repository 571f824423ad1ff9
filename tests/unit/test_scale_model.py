"""The simulation behind docs/scale.md obeys the laws that any such system obeys."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks._scale_model import Costs, Fleet, Outcome, simulate
from benchmarks._scale_slopes import Fit
from benchmarks._table import Table
from benchmarks.scale import BEGIN, END, PAGE, STEPS, _outside, gone, puts_of, write

COSTS = Costs(client=(0.001, 0.00002), server=(0.002, 0.00001), sums=(0.001, 0.000005), look=0.001)


def test_what_is_shipped_is_what_is_written_and_the_server_works_for_exactly_that() -> None:
    fleet = Fleet(writers=20, shippers=20, rate=50.0, cores=4, sums=False)
    usual, _ = simulate(fleet, COSTS, settle=10.0, steady=100.0)
    assert usual.lines == pytest.approx(20 * 50 * 100, rel=0.03)
    assert usual.busy == pytest.approx(usual.batches * 0.002 + usual.lines * 0.00001, rel=0.03)
    assert usual.batches == pytest.approx(20 * 100, rel=0.05), "one for each sync"
    assert 0.5 < usual.lag(0.5) < 1.2, "calls wait for the sync, and hardly for the server"


def test_a_backlog_is_gone_after_as_long_as_the_capacity_says() -> None:
    cut = (40.0, 640.0)
    fleet = Fleet(writers=8, shippers=8, rate=4_000.0, cores=1, sums=False, cut=cut)
    _, after = simulate(fleet, COSTS, settle=10.0, steady=30.0)
    backlog = after.waiting
    assert backlog == pytest.approx(8 * 4_000 * 600, rel=0.01)
    capacity = 5_000 / (0.002 + 5_000 * 0.00001)
    assert after.caught_up is not None
    # Up to a pause of 30 s goes by before all of them have noticed that the network is back.
    expected = backlog / (capacity - 8 * 4_000)
    assert expected * 0.97 < after.caught_up < expected * 1.05 + 31


def test_a_server_that_is_too_small_never_catches_up() -> None:
    fleet = Fleet(writers=50, shippers=50, rate=3_000.0, cores=1, sums=False, cut=(20.0, 80.0))
    usual, after = simulate(fleet, COSTS, settle=10.0, steady=10.0, longest=120.0)
    assert usual.busy / usual.seconds == pytest.approx(1.0, abs=0.15)
    assert after.caught_up is None


def test_shipping_once_a_minute_takes_fewer_batches_and_looks_cost_by_the_shipper() -> None:
    often = Fleet(writers=100, shippers=100, rate=2.0, cores=4)
    rarely = Fleet(writers=100, shippers=100, rate=2.0, cores=4, every=60.0)
    found = [simulate(one, COSTS, settle=120.0, steady=240.0)[0] for one in (often, rarely)]
    assert found[0].batches > 20 * found[1].batches
    assert found[0].lines == pytest.approx(found[1].lines, rel=0.1)
    assert found[1].busy < found[0].busy
    looks = 240 * 100 / 5
    assert found[0].busy > looks * COSTS.look, "each looks at the sums every 5 s"
    assert found[1].busy < looks * COSTS.look, "or when it ships"


def test_a_line_is_fitted_and_how_far_it_is_off_is_told() -> None:
    fit = Fit.of((1, 2, 3), (12.0, 22.0, 32.0))
    assert (fit.fixed, fit.slope, fit.off) == pytest.approx((2.0, 10.0, 0.0))
    assert Fit.of((1, 2, 3), (10.0, 40.0, 30.0)).off > 0.2


def test_a_backlog_goes_no_faster_than_the_disk_takes_its_wal() -> None:
    after = Outcome(caught_up=30.0)
    assert gone(after, 53e9, 0.2e9) == pytest.approx(265.0)
    assert gone(after, 1e9, 0.2e9) == 30.0
    assert gone(Outcome(), 1e9, 0.2e9) is None


def test_what_is_outside_of_the_range_of_the_model_is_marked() -> None:
    assert "too low" in _outside(17.3, (3.0, 15.5))
    assert "too high" in _outside(2.0, (3.0, 15.5))
    assert _outside(3.0, (3.0, 15.5)) == "within the range"


def test_each_process_seals_once_a_day_at_least() -> None:
    for step in STEPS:
        assert puts_of(step, 0.0) == 2 * step.processes
        assert puts_of(step, 1_160.0) > 2 * step.processes


def test_the_page_has_its_marks_once_and_only_what_is_between_is_written(tmp_path: Path) -> None:
    assert PAGE.read_text("utf-8").count(BEGIN) == PAGE.read_text("utf-8").count(END) == 1
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(page, [Table("New", ["", "a"], rows=[["x", "1"]])], 60.0)
    text = page.read_text("utf-8")
    assert "old" not in text
    assert "| x | 1 |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    page.write_text("no marks")
    with pytest.raises(SystemExit):
        write(page, [], 60.0)
