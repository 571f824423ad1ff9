"""Work on a ledger, killed or failed at every step that it takes on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from tests.disks import QUICK
from tests.ledgers import contents
from tests.tally import Tally

from litellm_ledger import LedgerPathError
from litellm_ledger.testing import FaultyFileSystem, Killed

__all__ = ["Steps", "Watched", "survives_failures", "survives_kills"]


class Watched(FaultyFileSystem):
    """Notes before which steps the files are not what they were before the step before.

    A kill at any other step leaves what a kill at the step before it leaves.

    Attributes:
        differ: those steps, the first being 1.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(QUICK)
        self.differ: list[int] = []
        self._root, self._before = root, frozenset[object]()

    def _do(self, operation: Any, path: Path, call: Any, *, torn: Any = None) -> Any:
        now = contents(self._root)
        if now != self._before:
            self.differ.append(len(self.calls) + 1)
        self._before = now
        return super()._do(operation, path, call, torn=torn)


class Steps:
    """The work, and how many steps it has on copies of a ledger.

    Args:
        original: the ledger, which stays as it is.
        root: where the copies are made, each over the one before.
        work: does it, on a disk.
    """

    def __init__(
        self, original: Path, root: Path, work: Callable[[Path, FaultyFileSystem], object]
    ) -> None:
        self.original, self._root, self._work = original, root, work
        disk = Watched(root)
        work(self.fresh(), disk)
        self.count, self.differ = len(disk.calls), disk.differ
        self._writes = {n for n, call in enumerate(disk.calls, 1) if call.operation == "write"}

    def fresh(self) -> Path:
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self.original, self._root)
        return self._root

    def killed(self) -> Iterator[Path]:
        """Yield what each kill leaves; of writes, two in three are torn."""
        for step in range(1, self.count + 1):
            if step not in self.differ and not (step in self._writes and step % 3):
                continue  # as the step before
            disk = FaultyFileSystem(QUICK)
            disk.kill(step, torn=step % 3)
            with suppress(Killed):
                self._work(self.fresh(), disk)
            yield self._root

    def failed(self, error: int) -> Iterator[tuple[Path, bool]]:
        """Yield what each failure leaves, and whether the work said so."""
        for step in range(1, self.count + 1):
            disk = FaultyFileSystem(QUICK)
            disk.fail("*", nth=step, error=error)
            said = False
            try:
                self._work(self.fresh(), disk)
            except LedgerPathError:
                said = True
            yield self._root, said


class Case(Protocol):
    """Some work, and what holds whatever became of it."""

    steps: Steps

    def check(self, root: Path) -> None: ...


def survives_kills(case: Case, tally: Tally, what: str, promised: int) -> None:
    """Check and count what each kill leaves."""
    for root in case.steps.killed():
        case.check(root)
        tally(what, tried=1, promised=promised, lost=0)


def survives_failures(case: Case, error: int, tally: Tally, what: str, promised: int) -> int:
    """Check and count what each failure leaves; return how many of them the work told of."""
    failed = 0
    for root, said in case.steps.failed(error):
        failed += said
        case.check(root)
        tally(what, tried=1, promised=promised, lost=0)
    return failed
