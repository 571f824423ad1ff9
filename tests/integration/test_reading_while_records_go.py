"""Records are pruned or erased at any moment at which a reader opens a file or lists a directory.

The change is made whole, in the middle of the reading, by the same thread: at the first such call,
the second, and so on, until the reader comes to its end before.  What it says then is what it said
before the change, or what it says after it: nothing in between, no traceback.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import HandMade
from tests.people import MARY, two_people
from tests.pruned import filled, pruned

from litellm_ledger import Ledger
from litellm_ledger._aggregates.calendar import calendar
from litellm_ledger._aggregates.groups import check_by
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._archive.archive import archived
from litellm_ledger._maintenance.backup import back_up
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.erase import erase
from litellm_ledger._maintenance.person import Person
from litellm_ledger._reading import listing
from litellm_ledger._reading.last_written import last_written
from litellm_ledger._reading.verify import verify
from litellm_ledger._reports import engine
from litellm_ledger._web import standing as _standing
from litellm_ledger._web.standing import Standing

Action = Callable[[Path], Any]


# -- what is changed -------------------------------------------------------------------------------


def compacted(root: Path) -> None:
    filled(root)
    compact(root, until=date(2030, 1, 1))


def erased(root: Path, *, keep: bool = False) -> None:
    assert erase(root, Person([f"user={MARY}"]), who="a", why="b", keep=keep).records


CHANGES: dict[str, tuple[Action, Action]] = {
    "prune": (filled, pruned),
    "prune of the archive": (compacted, pruned),
    "erase": (lambda root: two_people(root, archive=False), erased),
    "erase, amounts kept": (
        lambda root: two_people(root, archive=False),
        lambda root: erased(root, keep=True),
    ),
}


# -- who reads -------------------------------------------------------------------------------------


def report(*by: str) -> Action:
    def read(root: Path) -> Any:
        found = Ledger(root).report(by)
        assert not found.problems
        return found.rows, found.total

    return read


def dashboard(*by: str) -> Action:
    def read(root: Path) -> Any:
        found = Standing(root).report(check_by(by), Selection(calendar=calendar("UTC")))
        assert not found.problems
        return found.rows, found.total

    return read


def verdict(root: Path) -> Any:
    found = verify(root, full=True)
    problems = [problem for writer in found.writers for problem in writer.problems]
    assert found.ok, problems


def copied(root: Path) -> Any:
    to = root.parent / "copy"
    try:
        assert not back_up(root, to).problems
        with undisturbed():
            assert verify(to).ok
            return Ledger(to).report([]).total
    finally:
        shutil.rmtree(to)


def listed(root: Path) -> list[str]:
    return [str(name) for name in listing.Snapshot.take(root).segments]


def records(root: Path) -> set[str | None]:
    return {record.id for record in Ledger(root).records()}


def newest(root: Path) -> set[str | None]:
    found = last_written(root, Selection(calendar=calendar("UTC")), 100)
    return {record.id for record in found or ()}


SUMS: dict[str, Action] = {
    "report": report(),
    "report by user": report("day", "user"),
    "dashboard": dashboard(),
    "dashboard by user": dashboard("day", "user"),
    "verify": verdict,
    "backup": copied,
    "listing": listed,
}
LISTS: dict[str, Action] = {"records": records, "newest": newest}
"""Of these some of what goes may be there, and some not."""


# -- the race --------------------------------------------------------------------------------------


class At:
    """Does something in place of the reader's ``number``-th look at a file below a directory."""

    def __init__(self, root: Path, number: int, action: Callable[[], Any]) -> None:
        self.root, self.left, self.action = str(root), number, action
        self.where = ""

    @property
    def is_done(self) -> bool:
        return self.left < 0

    def saw(self, path: Any) -> None:
        if self.is_done or not str(path).startswith(self.root):
            return
        self.left -= 1
        if self.is_done:
            self.where = str(path)
            self.action()


now: list[At | None] = [None]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Nothing is done meanwhile."""
    kept, now[0] = now[0], None
    try:
        yield
    finally:
        now[0] = kept


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("open", "listdir", "scandir"):
        real = getattr(os, name)

        def seen(path: Any = ".", *args: Any, real: Any = real, **more: Any) -> Any:
            if now[0] is not None:
                now[0].saw(path)
            return real(path, *args, **more)

        monkeypatch.setattr(os, name, seen)


@pytest.fixture(scope="module", params=CHANGES)
def ledgers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    """A ledger before a change and after it."""
    make, change = CHANGES[request.param]
    home = tmp_path_factory.mktemp("race")
    make(home / "before")
    shutil.copytree(home / "before", home / "after")
    change(home / "after")
    return request.param, home / "before", home / "after"


def race(ledgers: tuple[str, Path, Path], name: str, steps: int, tmp_path: Path) -> None:
    """Let a reader run into the change at each ``steps``-th of its looks."""
    kind, old, new = ledgers
    read = (SUMS | LISTS)[name]
    before, after = read(old), read(new)
    number, done = random.randrange(steps), False
    while not done:
        root = tmp_path / str(number)
        shutil.copytree(old, root)
        now[0] = at = At(root, number, lambda: CHANGES[kind][1](root))  # noqa: B023 - called now
        try:
            found = read(root)
        finally:
            now[0] = None
        done = not at.is_done
        if name in LISTS:
            assert after <= found <= before, at.where
        else:
            assert found in (before, after), at.where
        number += steps


CASES = sorted(SUMS | LISTS)


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_is_that_of_before_or_of_after(
    ledgers: tuple[str, Path, Path], name: str, tmp_path: Path
) -> None:
    if name == "backup" and ledgers[0].startswith("erase"):
        return  # they wait for each other: tests/unit/test_backup.py
    race(ledgers, name, 7, tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize("name", CASES)
def test_so_it_is_at_every_look(ledgers: tuple[str, Path, Path], name: str, tmp_path: Path) -> None:
    if not (name == "backup" and ledgers[0].startswith("erase")):
        race(ledgers, name, 1, tmp_path)


def listed_once(root: Path, broken: list[Path], **how: Any) -> Any:
    names = listing.names_in(root, idle=how.get("idle", False))
    return names, archived(root, broken, afresh=how.get("afresh", False))


@pytest.mark.parametrize(
    ("kind", "name", "module", "part", "broken"),
    [
        ("prune", "report", engine, "was_changed_since", lambda _: False),
        ("prune", "dashboard", _standing, "was_changed_since", lambda _: False),
        ("prune of the archive", "listing", listing, "_both", listed_once),
    ],
)
def test_a_reader_that_does_not_look_again_is_caught(
    kind: str,
    name: str,
    module: Any,
    part: str,
    broken: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, change = CHANGES[kind]
    make(tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    change(tmp_path / "after")
    monkeypatch.setattr(module, part, broken)
    with pytest.raises(AssertionError):
        race((kind, tmp_path / "before", tmp_path / "after"), name, 1, tmp_path)


def test_a_ledger_that_changes_whenever_it_is_read_is_an_error_and_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    number = itertools.count()

    def changed(_: object) -> bool:
        HandMade(tmp_path, f"20260101T000000Z-{next(number):016x}").sealed(1, 2)
        return True

    for module in (engine, _standing):
        monkeypatch.setattr(module, "was_changed_since", changed)
    for read in (report(), dashboard()):
        with pytest.raises(OSError, match="pruned or erased from again and again"):
            read(tmp_path)
