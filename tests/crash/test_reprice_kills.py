"""Repricing killed, failed and cut off from power at every step: whole, or as before."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from tests.crash.steps import Steps, survives_failures, survives_kills
from tests.crash.test_power import Scratch, scratch  # noqa: F401 - a fixture
from tests.disks import QUICK
from tests.power import Medium, NeverSyncsFiles, Recorder, states
from tests.priced_ledger import MAP, PricedLedger
from tests.tally import Tally

from litellm_ledger import Ledger
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._maintenance.reprice import reprice
from litellm_ledger._prices.price_list import PriceList
from litellm_ledger._reading.price_check import check_prices

PRICES = json.dumps({"m": {"input": "7", "output": "9"}}).encode()

WHAT = "repricing, killed or failed at a step"


def begun(root: Path) -> Path:
    hand = PricedLedger(root)
    tokens: Any = {"input_tokens": 1_000, "output_tokens": 100}
    hand.sealed(1, 3, [hand.priced(seq, MAP, **tokens) for seq in (1, 2, 3)])
    return root


def again(root: Path, disk: Any = QUICK) -> None:
    reprice(root, Selection(), PriceList(PRICES), who="a", why="b", fs=disk)


def total(root: Path) -> Any:
    report = Ledger(root).report(["day", "model"])
    assert not report.problems
    return report.rows


class Case:
    def __init__(self, tmp_path: Path) -> None:
        self.original = begun(tmp_path / "original")
        self.before = total(self.original)
        self.steps = Steps(self.original, tmp_path / "usage", again)
        again(root := self.steps.fresh())
        self.after = total(root)
        assert self.before != self.after

    def check(self, root: Path) -> None:
        """All of it or nothing; the next run ends it, and every figure is proved."""
        assert total(root) in (self.before, self.after)
        assert Ledger(root).verify().ok
        again(root)
        assert total(root) == self.after
        found = check_prices(root)
        assert (found.ok, found.missing, found.adjusted) == (True, 0, 3)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_killed_at_every_step_it_is_whole_or_as_before(case: Case, tally: Tally) -> None:
    assert case.steps.count > 10
    survives_kills(case, tally, WHAT, 3)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_step_that_fails_is_an_error_and_the_next_run_ends_it(
    case: Case, tally: Tally, number: int
) -> None:
    failed = survives_failures(case, number, tally, WHAT, 3)
    assert failed > case.steps.count // 2


def check_power(case: Case, scratch: Scratch, disk: Recorder) -> int:  # noqa: F811
    base, running = case.original, case.steps.fresh()
    again(running, disk)
    count = 0
    for where, root in states(disk.events, Medium(running, base), scratch.fresh):
        count += 1
        assert total(root) in (case.before, case.after), f"something is wrong {where}"
        if where.startswith(f"after {len(disk.events)} "):
            assert total(root) == case.after, f"an adjustment is gone {where}"
        found = check_prices(root)
        assert found.ok, f"something is wrong {where}"
        assert not found.missing, f"an adjustment names a price that is gone {where}"
    return count


def test_a_power_cut_leaves_all_of_it_or_nothing(
    case: Case,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    assert check_power(case, scratch, Recorder()) > 50


def test_adjustments_that_are_not_synced_before_they_have_their_name_are_caught(
    case: Case,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    with pytest.raises(AssertionError):
        check_power(case, scratch, NeverSyncsFiles())
