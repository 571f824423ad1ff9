"""Manifests killed, failed and cut off from power at every step: the ledger says the same."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.crash.steps import Steps, survives_failures, survives_kills
from tests.crash.test_power import Scratch, scratch  # noqa: F401 - a fixture
from tests.disks import QUICK
from tests.ledger_by_hand import OTHER_WRITER, HandMade, spoil
from tests.power import Medium, NeverSyncsFiles, Recorder, states
from tests.tally import Tally

from litellm_ledger import Ledger
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.anchor import anchor, check
from litellm_ledger._reading.chain import Link, chained, list_manifests, read_links
from litellm_ledger._reading.listing import by_writer
from litellm_ledger._records.layout import MANIFESTS
from litellm_ledger._storage import contents as _contents
from litellm_ledger._storage import manifest as _manifest
from litellm_ledger.testing import FaultyFileSystem

WHAT = "sealing, killed or failed at a step"


def begun(root: Path) -> Path:
    """A ledger of two writers, one of which has some manifests already."""
    hand, other = HandMade(root), HandMade(root, OTHER_WRITER)
    hand.sealed(1, 3, [hand.started(1), hand.outcome(2, of=1), hand.started(3)])
    seal(root)
    hand.sealed(4, 6, [hand.outcome(4, of=3), hand.gap(5, 6)])
    spoil(hand.sealed(7, 9), line=1)
    other.sealed(1, 2)
    other.sealed(3, 3)
    return root


def says(root: Path, *, full: bool = False) -> Any:
    """What a ledger says; what is damaged stays so."""
    ledger = Ledger(root)
    report = ledger.report(["status", "day"])
    writers = ledger.verify(full=full).writers
    return report.rows, report.total, writers


def work(root: Path, disk: FaultyFileSystem) -> None:
    assert len(seal(root, fs=disk).manifests) == 3


class Case:
    """A ledger, the steps of sealing it, and what it says before and after."""

    def __init__(self, tmp_path: Path) -> None:
        original = begun(tmp_path / "original")
        self.said = says(original)
        self.steps = Steps(original, tmp_path / "usage", work)

    def check(self, root: Path) -> None:
        """It reads the same; the next run ends the work; then it is whole and has one chain."""
        assert says(root) == self.said
        seal(root, fs=QUICK)
        assert says(root) == says(root, full=True) == self.said
        assert len(list((root / MANIFESTS).iterdir())) == 4
        assert anchor(root).records == 7


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_killed_at_every_step_the_next_run_ends_it(case: Case, tally: Tally) -> None:
    assert case.steps.count > 15
    survives_kills(case, tally, WHAT, 7)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_step_that_fails_is_an_error_and_the_next_run_ends_it(
    case: Case, tally: Tally, number: int
) -> None:
    failed = survives_failures(case, number, tally, WHAT, 7)
    assert failed > case.steps.count // 3


def check_power(
    tmp_path: Path, fresh: Callable[[], Path], record: Callable[[], Recorder] = Recorder
) -> int:
    base = begun(tmp_path / "base")
    said, running = says(base), tmp_path / "usage"
    shutil.copytree(base, running)
    disk = record()
    seal(running, fs=disk)
    line = anchor(running)
    count = 0
    for where, root in states(disk.events, Medium(running, base), fresh):
        count += 1
        assert says(root) == said, f"something is gone {where}"
        if where.startswith(f"after {len(disk.events)} "):
            assert check(line, chains(root), []).ok, f"something is gone {where}: of an anchor"
    return count


def chains(root: Path) -> dict[str, list[Link]]:
    return {
        writer: chained(read_links(root, names, []).values(), [])
        for writer, names in by_writer(list_manifests(root))
    }


def test_a_power_cut_while_sealing_changes_nothing(
    tmp_path: Path,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    assert check_power(tmp_path, scratch.fresh) > 50


def test_a_manifest_that_is_not_synced_before_it_has_its_name_is_caught(
    tmp_path: Path,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    with pytest.raises(AssertionError, match="something is gone"):
        check_power(tmp_path, scratch.fresh, NeverSyncsFiles)


def test_a_disk_that_takes_seconds_leaves_no_manifest_of_an_earlier_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An anchor covers the manifests of a time: none of that time may appear later."""
    hand = HandMade(tmp_path / "usage")
    hand.sealed(1, 2)
    disk = FaultyFileSystem(QUICK)
    clock = iter([0.0, _manifest.SLOW + 1, 10.0, 10.0])
    monkeypatch.setattr(_contents, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    stamps = iter(["2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:06.000000Z"])
    monkeypatch.setattr(_contents, "_now", lambda: next(stamps))
    seal(hand.root, fs=disk)
    (name,) = Ledger(hand.root).segments()
    there = _manifest.read(hand.root, name)
    assert there is not None
    assert there[0].sealed == "2026-01-01T00:00:06.000000Z"
    assert disk.count("rename") == 1
