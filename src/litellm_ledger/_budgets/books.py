"""The table over its life: opened, made of the ledger, brought up to date, grown.

Owns the order of these steps among processes, and who died.  Everything here reads files and may
take long: it runs in a thread, on a table of its own.  Never decides about a call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from litellm_ledger._errors import LedgerError, LedgerPathError
from litellm_ledger._records.layout import BALANCES, BUDGETS, LIVE, SEGMENTS
from litellm_ledger._storage.live_file import lives, unlock

from .budget import Budget
from .rebuild import Found, survey
from .table import (
    DONE,
    MOST_ACCOUNTS,
    POSTS,
    UPTO,
    Damaged,
    Full,
    Moved,
    Table,
    lock_budgets,
)

__all__ = ["Books", "locked"]

_TRIES: Final = 5


@contextlib.contextmanager
def locked(table: Table) -> Iterator[None]:
    """Hold the lock of a table.  Raises ``Moved`` and ``Damaged``."""
    table.lock()
    try:
        yield
    except (IndexError, ValueError) as exc:  # numbers that lead out of the table
        raise Damaged(str(exc)) from exc
    finally:
        table.unlock()


class Books:
    """The table of one ledger, for these budgets.

    Args:
        root: the ledger.
        budgets: what is counted.
        own: the writer of this process, which counts for itself.
    """

    def __init__(self, root: Path, budgets: Sequence[Budget], own: str | None = None) -> None:
        self.root = root
        self.budgets = budgets
        self.own = own
        self._seen: tuple[int, ...] = ()

    def ready(self) -> Table:
        """Return the table with our budgets in it, up to date.

        Raises:
            LedgerPathError: it cannot be made, or the ledger cannot be read.
            LedgerError: there are more budgets or scopes than can be kept apart.
        """
        for _ in range(_TRIES):
            try:
                table = self._open()
                try:
                    self.catch_up(table)
                except BaseException:
                    table.close()
                    raise
                return table
            except (Moved, Damaged):
                continue
        raise LedgerPathError(
            f"the balances of the budgets at {self.root / BUDGETS / BALANCES} are damaged again "
            "and again; look for what writes there"
        )

    def _open(self) -> Table:
        with contextlib.suppress(FileNotFoundError, Damaged):
            return _whole(Table.open(self.root))
        try:
            held = lock_budgets(self.root)
            try:
                with contextlib.suppress(FileNotFoundError, Damaged):
                    return _whole(Table.open(self.root))  # another process was first
                self.made(datetime.now(UTC)).write(self.root)
                return Table.open(self.root)
            finally:
                unlock(held)
        except LedgerError:
            raise
        except OSError as exc:
            raise LedgerPathError(
                f"budgets keep their balances in {self.root / BUDGETS}, which cannot be used "
                f"({exc.strerror}); make it a directory that this user can write"
            ) from exc

    def made(self, now: datetime) -> Table:
        """Make a table of what the ledger says, in memory."""
        draft = Table.draft()
        measured = {self._number(draft, one): one for one in self.budgets}
        for found in survey(self.root, measured, draft, now, afresh=True):
            while True:
                try:
                    _enter(draft, found, found.mask)
                    break
                except Full:
                    draft = _grown(draft, now)
        return draft

    def _number(self, table: Table, budget: Budget) -> int:
        try:
            return table.add_measure(budget.counts)
        except Full:
            raise LedgerError(
                "a ledger keeps the balances of at most 62 different budgets; remove "
                f"{self.root / BUDGETS / BALANCES} to forget those that are no longer used"
            ) from None

    def catch_up(self, table: Table) -> None:
        """Enter what the ledger says of writers that do not count for our budgets themselves.

        Raises:
            Moved, Damaged: another table is to be opened.
        """
        now = datetime.now(UTC)
        if any(table.measure(one.counts) is None for one in self.budgets):
            with locked(table):
                for one in self.budgets:
                    self._number(table, one)
        measured = {self._number(table, one): one for one in self.budgets}
        for found in survey(self.root, measured, table, now, own=self.own):
            try:
                with locked(table):
                    at = table.add_writer(found.writer)
                    counts_itself = 0 if found.done else table.cells[at + POSTS]
                    if not found.mask & counts_itself:  # else it began to just now
                        _enter(table, found, found.mask)
            except Full:
                self.grow()
                raise Moved from None

    def grow(self) -> None:
        """Put a larger table in the place of one that is full.

        Raises:
            LedgerError: it is as large as it may be.
        """
        now = datetime.now(UTC)
        held = lock_budgets(self.root)
        try:
            table = Table.open(self.root)
            try:
                with locked(table):
                    _grown(table, now).write(self.root)
                    table.moved()
            finally:
                table.close()
        finally:
            unlock(held)

    def remake(self) -> None:
        """Put a table that is made of the ledger in the place of the one that is there."""
        held = lock_budgets(self.root)
        try:
            before = Table.open(self.root)
            try:
                with locked(before):
                    self.made(datetime.now(UTC)).write(self.root)
                    before.moved()
            finally:
                before.close()
        finally:
            unlock(held)

    def changed(self) -> bool:
        """Whether files came or went since this was asked last, or a process died."""
        seen = tuple(_last_change(self.root / part) for part in (SEGMENTS, LIVE))
        if seen != self._seen:
            self._seen = seen
            return True
        return False

    def died(self, table: Table) -> bool:
        """Whether a process that counts for itself is gone."""
        cells = table.cells
        table.writer("")  # reads the names that are new
        return any(
            cells[at + POSTS] and name != self.own and not lives(self.root, name)
            for name, at in list(table.writers.items())
        )

    def look(self) -> None:
        """Catch up, if there is anything to catch up with; on a table that is opened for that."""
        table = Table.open(self.root)
        try:
            if self.changed() or self.died(table):
                self.catch_up(table)
        finally:
            table.close()


def _whole(table: Table) -> Table:
    try:
        with locked(table):
            table.check()
    except BaseException:
        table.close()
        raise
    return table


def _enter(table: Table, found: Found, mask: int) -> None:
    table.replace(found.writer, mask, found.figures)
    cells, at = table.cells, table.add_writer(found.writer)
    if found.done:
        cells[at + POSTS] &= ~mask
        cells[at + DONE] |= mask
    cells[at + UPTO] = max(cells[at + UPTO], found.upto)


def _grown(table: Table, now: datetime) -> Table:
    try:
        return table.grown(int(now.timestamp()))
    except Full:
        most = MOST_ACCOUNTS * 3 // 4
        raise LedgerError(
            f"the budgets have more scopes than can be kept apart ({most:,}); use a tag with fewer "
            "values in per="
        ) from None


def _last_change(directory: Path) -> int:
    try:
        return directory.stat().st_mtime_ns
    except OSError:
        return 0
