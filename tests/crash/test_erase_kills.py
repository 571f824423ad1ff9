"""Erasing killed, failed, cut off from power at every step: his figures stay, hers go, it ends."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.crash.steps import Steps, survives_failures, survives_kills
from tests.crash.test_power import Scratch, scratch  # noqa: F401 - a fixture
from tests.disks import QUICK
from tests.ledgers import contents
from tests.people import JOHN, MARY, says, traces, two_people
from tests.power import Medium, NeverSyncsFiles, Recorder, states
from tests.tally import Tally

from litellm_ledger._maintenance.additions import Audits
from litellm_ledger._maintenance.erase import erase
from litellm_ledger._maintenance.erasing import finish_pending
from litellm_ledger._maintenance.person import Person
from litellm_ledger._maintenance.replacing import Replacing, _Told
from litellm_ledger._reading.anchor import Anchor, anchor
from litellm_ledger._reading.verify import verify
from litellm_ledger.testing import FaultyFileSystem, Killed

WHAT = "erasing, killed or failed at a step"
WHO = Person([f"user={MARY}"])


def again(root: Path, disk: Any = QUICK) -> None:
    erase(root, WHO, who="officer", why="asked for", fs=disk)


class Case:
    """A ledger of two people, and what is true of it whatever happens to an erasure.

    Many steps leave the very files that another left: what was checked is not checked again.
    """

    def __init__(self, tmp_path: Path, *, archive: bool) -> None:
        self.original = tmp_path / "original"
        two_people(self.original, archive=archive)
        self.his, self.both = says(self.original, JOHN), says(self.original)
        self.anchor: Anchor = anchor(self.original)
        self._checked: set[object] = set()
        self.unfinished = 0
        self.steps = Steps(self.original, tmp_path / "usage", again)
        self.check(tmp_path / "usage")
        assert self.unfinished == 0

    def check(self, root: Path) -> None:
        """His figures are whole, nothing is damaged; who comes next ends it, and she is gone."""
        state = frozenset(contents(root))
        if state in self._checked:
            return
        self._checked.add(state)
        self.look(root)
        finish_pending(root, QUICK)  # as recover, seal and the like do, who know of nobody
        assert not verify(root).undone
        self.look(root)
        again(root)
        self.check_done(root)

    def look(self, root: Path) -> None:
        """What every reader finds, at any step."""
        assert says(root, JOHN) == self.his
        found = verify(root, full=True, anchors=[self.anchor])
        assert not [problem for writer in found.writers for problem in writer.problems]
        assert found.archive == found.adjustments == []
        assert found.anchors[0].ok
        assert found.ok or found.undone
        self.unfinished += not found.ok

    def check_done(self, root: Path) -> None:
        """She is in no byte of it, and what was done is on record."""
        assert traces(root) == []
        assert says(root, JOHN) == self.his
        assert says(root)[1].calls == self.his[1].calls
        found = verify(root, full=True, anchors=[self.anchor])
        assert found.ok
        assert sum(run.records for run in found.erasures) == 10
        assert found.anchors[0].since
        assert not list((root / "erasing").iterdir())


@pytest.fixture
def plain(tmp_path: Path) -> Case:
    return Case(tmp_path, archive=False)


def test_killed_at_every_step_his_figures_stay_and_the_next_run_ends_it(
    plain: Case, tally: Tally
) -> None:
    assert plain.steps.count > 50
    survives_kills(plain, tally, WHAT, 10)
    assert plain.unfinished > 5, "no kill came between the audit and the end"


def test_killed_while_an_archive_is_written_anew_it_is_the_same(
    tmp_path: Path, tally: Tally
) -> None:
    case = Case(tmp_path, archive=True)
    steps = case.steps.differ[::-1]
    for step in [*steps[:12], *steps[12::6]]:  # nearly all that comes before the audit is alike
        disk = FaultyFileSystem(QUICK)
        disk.kill(step)
        root = case.steps.fresh()
        with suppress(Killed):
            again(root, disk)
        case.check(root)
        tally(WHAT, tried=1, promised=10, lost=0)
    assert case.unfinished > 5


def test_a_step_that_fails_is_an_error_and_the_next_run_ends_it(plain: Case, tally: Tally) -> None:
    failed = survives_failures(plain, errno.ENOSPC, tally, WHAT, 10)
    assert failed > plain.steps.count // 2


def test_killed_twice_it_is_no_worse(plain: Case) -> None:
    for first in range(40, plain.steps.count, 7):
        for step in (first, 5):
            disk = FaultyFileSystem(QUICK)
            disk.kill(step)
            root = plain.steps.fresh() if step == first else plain.steps._root
            with suppress(Killed):
                again(root, disk)
        plain.check(root)


def look_at_each(case: Case) -> None:
    for root in case.steps.killed():
        case.look(root)


# -- saboteurs -------------------------------------------------------------------------------------


def put_in_place(root: Path) -> None:
    """What erasing does after the audit, without one."""
    for path in sorted((root / "erasing").iterdir()):
        part, _, name = path.name.partition(".")
        path.rename(root / part / name)


def test_a_saboteur_whose_audit_comes_after_the_files_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, archive=False)
    write = Audits.write

    def late(self: Audits, root: Path, fs: Any) -> None:
        put_in_place(root)
        write(self, root, fs)

    monkeypatch.setattr(Audits, "write", late)
    with pytest.raises(AssertionError):
        look_at_each(case)


def test_a_saboteur_who_leaves_manifests_as_they_were_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, archive=False)
    monkeypatch.setattr(Replacing, "_tell", lambda *_: _Told())
    root = case.steps.fresh()
    again(root)
    with pytest.raises(AssertionError):
        case.check_done(root)


# -- power -----------------------------------------------------------------------------------------


def cuts(case: Case, scratch: Scratch, disk: Recorder) -> Iterator[tuple[str, Path]]:  # noqa: F811
    running = case.steps.fresh()
    again(running, disk)
    yield from states(disk.events, Medium(running, case.original), scratch.fresh)


def check_power(case: Case, scratch: Scratch, disk: Recorder, every: int = 1) -> int:  # noqa: F811
    count = 0
    for where, root in cuts(case, scratch, disk):
        count += 1
        if count % every:
            continue
        try:
            case.look(root)
            finish_pending(root, QUICK)
            assert not verify(root).undone
            case.look(root)
        except AssertionError as exc:
            raise AssertionError(where) from exc
    return count


def test_a_power_cut_leaves_what_the_next_run_ends(
    plain: Case,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    assert check_power(plain, scratch, Recorder(), every=20) > 100


def test_files_that_are_not_synced_before_the_audit_are_caught(
    plain: Case,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    with pytest.raises(AssertionError):
        check_power(plain, scratch, NeverSyncsFiles(), every=3)
