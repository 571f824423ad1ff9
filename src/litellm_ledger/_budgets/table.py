"""The table of balances: whole numbers in shared memory, one file for all processes of a ledger.

Owns ``budgets/balances``: its form, its lock, and the steps that change it.  Never reads the ledger
and never decides.  It is a cache, which ``_budgets.rebuild`` can make anew at any time.

The file is a header, writers, accounts and rows, all of them 64-bit integers in the byte order of
the machine.  An *account* is what is spent and held of one budget, for one scope, in one window.  A
*row* is the part of one writer in one account.  An account is the sum of its rows, kept so that a
decision reads two numbers, however many writers there are.

Each step is made under ``flock``.  Before its first store it says in the header which accounts it
is about to change, after its last one that it is done.  So after a process was killed in the middle
the next one to take the lock makes these sums again from the rows.  The rows of a process that died
are replaced by what the ledger says.

Rolling windows count several accounts: those of one scope are a chain, newest first, from a *head*
that holds no money.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from litellm_ledger._records.layout import BALANCES, BUDGETS
from litellm_ledger._storage.filesystem import REAL, create_file, open_regular, rights_beside
from litellm_ledger._storage.live_file import boot_hash

__all__ = [
    "ACCOUNT",
    "BUSY",
    "CHANGES",
    "HELD",
    "LARGEST",
    "LEFT",
    "MOST_ACCOUNTS",
    "NAMED",
    "OLDER",
    "ROW_HELD",
    "ROW_SPENT",
    "SPENT",
    "TICKETS",
    "WINDOW",
    "Damaged",
    "Forgotten",
    "Full",
    "Moved",
    "Spot",
    "Table",
    "fitting",
    "lock_budgets",
]

MAGIC: Final = int.from_bytes(b"llmbal01", "little")
MOST_ACCOUNTS: Final = 2**20
"""A scope may be a tag that anybody chooses: more accounts than this are refused."""
LARGEST: Final = 2**63 - 1
"""Sums stop here, at 9.2 million dollars, which is no less than any limit."""

# Cells of the header.
_MAGIC, _BOOT, _WRITERS, _ACCOUNTS, _ROWS, _CHECK = range(6)
_USED_WRITERS, _USED_ACCOUNTS, _USED_ROWS, _MOVED, BUSY, CHANGES, TICKETS, LEFT = range(6, 14)
NAMED: Final = 16  # how many accounts a step is about to change, then which
_MOST_NAMED: Final = 40
_MEASURES: Final = 64  # the budgets that are counted here: two cells each
MOST_MEASURES: Final = 62  # of which a writer's cell has a bit each
_HEADER: Final = 192

# Cells of a writer.
_START, _RANDOM, POSTS, DONE, UPTO, _FIRST_ROW = range(6)
_WRITER: Final = 8
# Cells of an account.
_KEY, _KEY2, MEASURE, WINDOW, LEAVES, SPENT, HELD, OLDER, _HEAD = range(9)
CLAIM, CLAIMED, CLAIMED_AT = range(9, 12)
ACCOUNT: Final = 12
# Cells of a row.
_OF, _BY, ROW_SPENT, ROW_HELD, _NEXT = range(5)
_ROW: Final = 6

_EVERYTHING: Final = -1
"""In place of the number of accounts: all sums, and the chains, are to be made again."""
_OFFSET: Final = 2**63


class Full(Exception):
    """There is no space for another writer, account or row."""


class Moved(Exception):
    """The file is no longer the ledger's table."""


class Damaged(Exception):
    """The file holds what no version of this library writes; the text says what."""


class Forgotten(Damaged):
    """A window is asked for again whose account was dropped: the clock went back."""


class Spot(NamedTuple):
    """Where an account is.

    Attributes:
        measure: the number of its budget in the table.
        counts: the budget's digest.
        scope: whose money it is.
        window: the key of its window.
        leaves: seconds since 1970 after which it counts no more.
        rolling: it is one of a chain.
    """

    measure: int
    counts: str
    scope: str
    window: int
    leaves: int
    rolling: bool


class Table:
    """The table, in a file or, until it is written to one, in memory.

    Attributes:
        cells: all of it.
        writers: the number of each writer, by name.
    """

    def __init__(self, cells: memoryview, fd: int = -1) -> None:
        self.cells = cells
        self._fd = fd
        self._size = len(cells) * 8
        most_writers, most_accounts, most_rows = cells[_WRITERS], cells[_ACCOUNTS], cells[_ROWS]
        self._accounts_at = _HEADER + most_writers * _WRITER
        self._rows_at = self._accounts_at + most_accounts * ACCOUNT
        self._most = most_writers, most_accounts, most_rows
        self.writers: dict[str, int] = {}
        self._measures: dict[str, int] = {}

    # -- making and opening ------------------------------------------------------------------------

    @classmethod
    def draft(cls, writers: int = 64, accounts: int = 1024, rows: int = 1024) -> Table:
        """Make an empty one in memory; ``accounts`` is a power of two."""
        size = _HEADER + writers * _WRITER + accounts * ACCOUNT + rows * _ROW
        cells = memoryview(bytearray(size * 8)).cast("q")
        cells[_MAGIC], cells[_BOOT] = MAGIC, boot_hash() - _OFFSET
        cells[_WRITERS], cells[_ACCOUNTS], cells[_ROWS] = writers, accounts, rows
        cells[_CHECK] = crc32(cells[:_CHECK].tobytes())
        return cls(cells)

    @classmethod
    def open(cls, root: Path) -> Table:
        """Open the one of a ledger.

        Raises:
            FileNotFoundError: there is none.
            Damaged: it is not what this version of the library writes, of this boot.
        """
        path = root / BUDGETS / BALANCES
        try:
            fd = open_regular(path, os.O_RDWR)
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise Damaged(exc.strerror or str(exc)) from exc
        try:
            size = os.fstat(fd).st_size
            if size < _HEADER * 8 or size % 8:
                raise Damaged("it is cut off")
            # The map keeps a duplicate of its descriptor, which would keep the lock of a process
            # that died alive in its forked children: so it gets a descriptor of its own.
            mapped = open_regular(path, os.O_RDWR)
            try:
                if not os.path.sameopenfile(fd, mapped):
                    raise Damaged("it was replaced just now")
                cells = memoryview(mmap.mmap(mapped, size)).cast("q")
            finally:
                os.close(mapped)
            if cells[_MAGIC] != MAGIC or cells[_CHECK] != crc32(cells[:_CHECK].tobytes()):
                raise Damaged("its header is not one")
            if not boot_hash() or cells[_BOOT] != boot_hash() - _OFFSET:
                raise Damaged("it is of another boot")
            most = cells[_WRITERS], cells[_ACCOUNTS], cells[_ROWS]
            whole = _HEADER + most[0] * _WRITER + most[1] * ACCOUNT + most[2] * _ROW
            if min(most) < 1 or whole * 8 != size or most[1] & (most[1] - 1):
                raise Damaged("its sizes are not those of its header")
        except BaseException:
            os.close(fd)
            raise
        return cls(cells, fd)

    def write(self, root: Path) -> None:
        """Write a draft in the place of what is there.  Under ``lock_budgets``.

        It is written out in full under another name: a store into a hole of a file on a full disk
        would be SIGBUS.

        Raises:
            OSError: it cannot be written.
        """
        path = root / BUDGETS / BALANCES
        temporary = path.with_suffix(".tmp")
        with contextlib.suppress(FileNotFoundError):
            REAL.unlink(temporary)
        fd = create_file(temporary, os.O_WRONLY)
        try:
            data = self.cells.cast("B")
            done = 0
            while done < len(data):
                done += os.write(fd, data[done : done + 2**20])
        except BaseException:
            with contextlib.suppress(OSError):
                REAL.unlink(temporary)
            raise
        finally:
            os.close(fd)
        REAL.rename(temporary, path)

    def close(self) -> None:
        """Give the file up."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    # -- the lock ----------------------------------------------------------------------------------

    def at_hand(self) -> bool:
        """Take the lock if it is free and there is nothing to see to: ``try_lock`` in one frame."""
        fd = self._fd
        try:
            _flock(fd, _AT_ONCE)
        except OSError:
            return False
        there = _fstat(fd)
        cells = self.cells
        if there.st_nlink and there.st_size >= self._size and not (cells[_MOVED] or cells[BUSY]):
            return True
        _flock(fd, _FREE)
        return False

    def try_lock(self) -> bool:
        """Take the lock if it is free.  Raises ``Moved`` and ``Damaged``, not locked."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._locked()
        return True

    def lock(self) -> None:
        """Take the lock, however long that takes.  Raises ``Moved`` and ``Damaged``, not locked."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._locked()

    def _locked(self) -> None:
        try:
            there = os.fstat(self._fd)
            if there.st_size < self._size:  # a look at what is not there would be SIGBUS
                raise Damaged("it was cut off")
            if there.st_nlink == 0 or self.cells[_MOVED]:
                raise Moved
            if self.cells[BUSY]:
                self.repair()
        except BaseException:
            self.unlock()
            raise

    @staticmethod
    def wait_until_free(root: Path) -> None:
        """Wait until nobody holds the lock, in the order of those who wait: for a thread."""
        fd = open_regular(root / BUDGETS / BALANCES)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    def unlock(self) -> None:
        """Give the lock back."""
        _flock(self._fd, _FREE)

    def moved(self) -> None:
        """Send all who have this file open to the one that has taken its name."""
        self.cells[_MOVED] = 1

    # -- steps -------------------------------------------------------------------------------------

    def begin(self, accounts: Iterable[int] | None = None) -> None:
        """Say which accounts are about to change; ``None``: perhaps all, and their chains."""
        cells = self.cells
        named = None if accounts is None else list(accounts)
        if named is None or len(named) > _MOST_NAMED:
            cells[NAMED] = _EVERYTHING
        else:
            cells[NAMED] = len(named)
            for at, account in enumerate(named, NAMED + 1):
                cells[at] = account
        cells[BUSY] = 1

    def end(self) -> None:
        """The step is made."""
        self.cells[BUSY] = 0

    def repair(self) -> None:
        """Make the sums again that a killed process was changing."""
        cells = self.cells
        count = cells[NAMED]
        if 0 <= count <= _MOST_NAMED:
            self._add_up(set(cells[NAMED + 1 : NAMED + 1 + count]))
        else:
            self._add_up(None)
            self._chain_all()
        cells[CHANGES] += 1
        cells[BUSY] = 0

    def _add_up(self, wanted: set[int] | None) -> None:
        cells = self.cells
        sums: dict[int, list[int]] = {}
        for row in self.each_row():
            account = cells[row + _OF]
            if wanted is None or account in wanted:
                into = sums.setdefault(account, [0, 0])
                into[0] += cells[row + ROW_SPENT]
                into[1] += cells[row + ROW_HELD]
        for account in self.each_account():
            if wanted is None or account in wanted:
                spent, held = sums.get(account, (0, 0))
                cells[account + SPENT], cells[account + HELD] = fitting(spent), fitting(held)

    def _chain_all(self) -> None:
        cells = self.cells
        links: dict[int, list[int]] = {}
        used = 0
        for account in self.each_account():
            used += 1
            if head := cells[account + _HEAD]:
                links.setdefault(head, []).append(account)
        cells[_USED_ACCOUNTS] = used
        for head, members in links.items():
            at = self._checked_account(head)
            for account in sorted(members, key=lambda one: -cells[one + WINDOW]):
                cells[at + OLDER] = account
                at = account
            cells[at + OLDER] = 0

    # -- what is in it -----------------------------------------------------------------------------

    def check(self) -> None:
        """Look through all of it.  Raises ``Damaged``."""
        cells = self.cells
        most_writers, most_accounts, most_rows = self._most
        used = cells[_USED_WRITERS], cells[_USED_ACCOUNTS], cells[_USED_ROWS]
        if not (0 <= used[0] <= most_writers and 0 <= used[1] <= most_accounts):
            raise Damaged("it counts more than it has")
        if not 0 <= used[2] <= most_rows:
            raise Damaged("it counts more than it has")
        if not all(0 <= cells[cell] < LARGEST // 2 for cell in (CHANGES, TICKETS)):
            raise Damaged("it has counted too far")
        accounts = set(self.each_account())
        if len(accounts) != used[1]:
            raise Damaged("an account is lost")
        sums = dict.fromkeys(accounts, (0, 0))
        for row in self.each_row():
            account, by = cells[row + _OF], cells[row + _BY]
            held = cells[row + ROW_HELD]
            if account not in sums or not 0 <= by < used[0] or held < 0:
                raise Damaged("a row is of nothing")
            spent, before = sums[account]
            sums[account] = spent + cells[row + ROW_SPENT], before + held
        for account, (spent, held) in sums.items():
            if (cells[account + SPENT], cells[account + HELD]) != (fitting(spent), fitting(held)):
                raise Damaged("a sum is not that of its rows")
            older, head = cells[account + OLDER], cells[account + _HEAD]
            if (older and older not in accounts) or (head and head not in accounts):
                raise Damaged("a chain leads nowhere")

    def each_account(self) -> Iterator[int]:
        """Yield where the accounts are, heads of chains among them."""
        cells, end = self.cells, self._rows_at
        for account in range(self._accounts_at, end, ACCOUNT):
            if cells[account]:
                yield account

    def each_row(self) -> Iterator[int]:
        """Yield where the rows are."""
        used = self.cells[_USED_ROWS]
        if not 0 <= used <= self._most[2]:
            raise Damaged("it counts more rows than it has")
        return iter(range(self._rows_at, self._rows_at + used * _ROW, _ROW))

    def _checked_account(self, account: int) -> int:
        at, off = divmod(account - self._accounts_at, ACCOUNT)
        if off or not 0 <= at < self._most[1]:
            raise Damaged("an account is where none can be")
        return account

    # -- measures ----------------------------------------------------------------------------------

    def measure(self, counts: str) -> int | None:
        """Return the number of a budget, by its digest; ``None``: it was never counted here."""
        known = self._measures.get(counts)
        if known is None:
            one, two = _halves(counts)
            cells = self.cells
            for number in range(MOST_MEASURES):
                at = _MEASURES + 2 * number
                if cells[at] == one and cells[at + 1] == two:
                    self._measures[counts] = known = number
                    break
        return known

    def add_measure(self, counts: str) -> int:
        """Give a budget a number.  Under the lock.  Raises ``Full``: 62 are counted already."""
        known = self.measure(counts)
        if known is not None:
            return known
        one, two = _halves(counts)
        cells = self.cells
        for number in range(MOST_MEASURES):
            at = _MEASURES + 2 * number
            if not (cells[at] or cells[at + 1]):
                cells[at + 1] = two
                cells[at] = one
                self._measures[counts] = number
                return number
        raise Full("measures")

    # -- writers -----------------------------------------------------------------------------------

    def writer(self, name: str) -> int | None:
        """Return where the cells of a writer are."""
        self._read_writers()
        return self.writers.get(name)

    def _read_writers(self) -> None:
        cells = self.cells
        used = cells[_USED_WRITERS]
        if not 0 <= used <= self._most[0]:
            raise Damaged("it counts more writers than it has")
        for number in range(len(self.writers), used):
            at = _HEADER + number * _WRITER
            digits = f"{max(0, cells[at + _START]):014d}"
            name = f"{digits[:8]}T{digits[8:]}Z-{cells[at + _RANDOM] + _OFFSET:016x}"
            if self.writers.setdefault(name, at) != at:
                raise Damaged("a writer is there twice")

    def add_writer(self, name: str) -> int:
        """Return where a writer's cells are, new ones if need be.  Under the lock."""
        known = self.writer(name)
        if known is not None:
            return known
        cells = self.cells
        used = cells[_USED_WRITERS]
        if used >= self._most[0]:
            raise Full("writers")
        at = _HEADER + used * _WRITER
        for cell in range(at, at + _WRITER):
            cells[cell] = 0
        cells[at + _START] = int(name[:8] + name[9:15])
        cells[at + _RANDOM] = int(name[17:], 16) - _OFFSET
        cells[_USED_WRITERS] = used + 1
        self.writers[name] = at
        return at

    # -- accounts and rows -------------------------------------------------------------------------

    def find(self, counts: str, scope: str, window: int | None) -> int:
        """Return where an account is, or the head of a chain (``None``); 0: there is none."""
        one, two = _key(counts, scope, window)
        cells, most, start = self.cells, self._most[1], self._accounts_at
        place = one >> 1 & (most - 1)
        for _ in range(most):
            at = start + place * ACCOUNT
            key = cells[at]
            if key == one and cells[at + _KEY2] == two:
                return at
            if key == 0:
                return 0
            place = (place + 1) & (most - 1)
        return 0

    def account(self, spot: Spot) -> int:
        """Return where an account is, a new one if need be.  Under the lock, outside a step.

        Raises:
            Full: there is no space.
            Forgotten: the account was dropped, so what was spent is not known here any more.
        """
        at = self.find(spot.counts, spot.scope, spot.window)
        if at:
            return at
        if spot.leaves <= self.cells[LEFT]:  # the clock went back
            raise Forgotten("it has forgotten a window that is asked for")
        self.begin(None)
        try:
            at = self._add(spot, spot.window)
            if spot.rolling:
                head = self.find(spot.counts, spot.scope, None) or self._add(spot, None)
                self._link(head, at)
        finally:
            self.end()
        return at

    def _add(self, spot: Spot, window: int | None) -> int:
        cells, most, start = self.cells, self._most[1], self._accounts_at
        used = cells[_USED_ACCOUNTS]
        if used >= most * 3 // 4:
            raise Full("accounts")
        one, two = _key(spot.counts, spot.scope, window)
        place = one >> 1 & (most - 1)
        while cells[start + place * ACCOUNT]:
            place = (place + 1) & (most - 1)
        at = start + place * ACCOUNT
        for cell in range(at + 1, at + ACCOUNT):
            cells[cell] = 0
        cells[at + _KEY2] = two
        cells[at + MEASURE] = spot.measure
        cells[at + WINDOW] = spot.window if window is not None else 0
        cells[at + LEAVES] = spot.leaves if window is not None else LARGEST
        cells[at] = one
        cells[_USED_ACCOUNTS] = used + 1
        return at

    def _link(self, head: int, account: int) -> None:
        cells = self.cells
        window = cells[account + WINDOW]
        at = head
        while (older := cells[at + OLDER]) and cells[
            self._checked_account(older) + WINDOW
        ] > window:
            at = older
        cells[account + OLDER] = cells[at + OLDER]
        cells[account + _HEAD] = head
        cells[at + OLDER] = account

    def counted(self, head: int, since: int) -> tuple[int, int]:
        """Return what is spent and held in a chain, under the keys from ``since`` on."""
        cells = self.cells
        spent = held = 0
        account = cells[head + OLDER]
        for _ in range(_LONGEST):
            if not account or cells[self._checked_account(account) + WINDOW] < since:
                return spent, held
            spent += cells[account + SPENT]
            held += cells[account + HELD]
            account = cells[account + OLDER]
        raise Damaged("a chain has no end")

    def rows_of(self, writer: int) -> Iterator[tuple[int, int]]:
        """Yield ``(row, account)`` of a writer."""
        cells = self.cells
        row = cells[writer + _FIRST_ROW]
        for _ in range(self._most[2] + 1):
            if not row:
                return
            at, off = divmod(row - self._rows_at, _ROW)
            if off or not 0 <= at < self._most[2]:
                raise Damaged("a row is where none can be")
            yield row, self._checked_account(cells[row + _OF])
            row = cells[row + _NEXT]
        raise Damaged("the rows of a writer have no end")

    def ended(self, account: int, own: str | None) -> dict[str, int]:
        """Return what writers have in an account that count no more for themselves, by name."""
        cells = self.cells
        bit = 1 << cells[account + MEASURE] if account else 0
        self.writer("")  # reads the names that are new
        names = {
            (at - _HEADER) // _WRITER: name
            for name, at in self.writers.items()
            if name != own and bit and not cells[at + POSTS] & bit
        }
        found: dict[str, int] = {}
        for row in self.each_row() if names else ():
            if cells[row + _OF] == account and cells[row + _BY] in names:
                found[names[cells[row + _BY]]] = cells[row + ROW_SPENT] + cells[row + ROW_HELD]
        return found

    def add_row(self, writer: int, account: int) -> int:
        """Begin a row of a writer in an account.  Under the lock.  Raises ``Full``."""
        cells = self.cells
        used = cells[_USED_ROWS]
        if used >= self._most[2]:
            raise Full("rows")
        row = self._rows_at + used * _ROW
        cells[row + _OF], cells[row + _BY] = account, (writer - _HEADER) // _WRITER
        cells[row + ROW_SPENT] = cells[row + ROW_HELD] = 0
        cells[row + _NEXT] = cells[writer + _FIRST_ROW]
        cells[_USED_ROWS] = used + 1
        cells[writer + _FIRST_ROW] = row
        return row

    def replace(self, name: str, mask: int, figures: Mapping[Spot, tuple[int, int]]) -> None:
        """Put what the ledger says of a writer in the place of its rows.  Under the lock.

        Args:
            mask: the measures that it is about, a bit each.
            figures: spent and held; what is not there is 0.

        Raises:
            Full: there is no space; some of it may be done.
        """
        writer = self.add_writer(name)
        accounts = {self.account(spot): sums for spot, sums in figures.items()}
        rows = {account: row for row, account in self.rows_of(writer)}
        cells = self.cells
        self.begin(None)
        try:
            for account, row in rows.items():
                if account not in accounts and mask >> cells[account + MEASURE] & 1:
                    self._put(account, row, 0, 0)
            for account, (spent, held) in accounts.items():
                row = rows.get(account) or self.add_row(writer, account)
                self._put(account, row, spent, held)
        except Full:
            self.repair()
            raise
        cells[CHANGES] += 1
        self.end()

    def _put(self, account: int, row: int, spent: int, held: int) -> None:
        cells = self.cells
        more_spent, more_held = spent - cells[row + ROW_SPENT], held - cells[row + ROW_HELD]
        cells[row + ROW_SPENT], cells[row + ROW_HELD] = fitting(spent), fitting(held)
        cells[account + SPENT] = fitting(cells[account + SPENT] + more_spent)
        cells[account + HELD] = fitting(cells[account + HELD] + more_held)

    # -- growing -----------------------------------------------------------------------------------

    def grown(self, now: int) -> Table:
        """Return a draft with the same content and more space; what counts no more is dropped.

        Raises:
            Full: there are as many accounts as there may be.
        """
        cells = self.cells
        self._read_writers()
        kept: list[int] = []
        heads: set[int] = set()
        left = cells[LEFT]
        for account in self.each_account():
            leaves = cells[account + LEAVES]
            if leaves == LARGEST:
                continue  # a head, which follows if it is needed
            if leaves > now or cells[account + HELD]:
                kept.append(account)
                heads.add(cells[account + _HEAD])
            else:
                left = max(left, leaves)
        kept += sorted(heads - {0})
        rows = [row for row in self.each_row() if cells[row + ROW_SPENT] or cells[row + ROW_HELD]]
        if len(kept) * 4 >= MOST_ACCOUNTS * 3:
            raise Full("accounts")
        most = self._most[1]
        while len(kept) * 2 >= most and most < MOST_ACCOUNTS:
            most *= 2
        draft = Table.draft(max(64, len(self.writers) * 2), most, max(1024, len(rows) * 2))
        draft.copy_from(self, kept, rows)
        draft.cells[LEFT] = left
        return draft

    def copy_from(self, other: Table, accounts: Iterable[int], rows: Iterable[int]) -> None:
        """Fill an empty draft with some of another table."""
        new, cells = self.cells, other.cells
        for cell in (CHANGES, TICKETS, *range(_MEASURES, _MEASURES + 2 * MOST_MEASURES)):
            new[cell] = cells[cell]
        for name, at in other.writers.items():
            to = self.add_writer(name)
            for cell in (POSTS, DONE, UPTO):
                new[to + cell] = cells[at + cell]
        places = {0: 0}
        for account in accounts:
            places[account] = self._copy(cells[account : account + ACCOUNT])
        for to in places.values():
            if to:
                new[to + _HEAD] = places.get(new[to + _HEAD], 0)
        names = list(self.writers.values())
        for row in rows:
            place = places.get(cells[row + _OF])
            if place:
                copied = self.add_row(names[cells[row + _BY]], place)
                for cell in (ROW_SPENT, ROW_HELD):
                    new[copied + cell] = cells[row + cell]
        self._chain_all()
        self._add_up(None)

    def _copy(self, account: memoryview) -> int:
        cells, most, start = self.cells, self._most[1], self._accounts_at
        place = account[0] >> 1 & (most - 1)
        while cells[start + place * ACCOUNT]:
            place = (place + 1) & (most - 1)
        at = start + place * ACCOUNT
        cells[at : at + ACCOUNT] = account
        cells[at + OLDER] = cells[at + CLAIM] = cells[at + CLAIMED] = 0
        return at


_flock, _fstat = fcntl.flock, os.fstat  # looked up less often
_AT_ONCE: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
_FREE: Final = fcntl.LOCK_UN
_LONGEST: Final = 4096
"""Steps of a chain: a rolling window has at most 97, and some may wait to be dropped."""


def fitting(amount: int) -> int:
    """Return what a cell can hold of it."""
    return max(-LARGEST, min(amount, LARGEST))


def _halves(counts: str) -> tuple[int, int]:
    return int(counts[:16], 16) - _OFFSET, int(counts[16:32], 16) - _OFFSET


def _key(counts: str, scope: str, window: int | None) -> tuple[int, int]:
    text = f"{counts} {window} {scope}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return (
        int.from_bytes(digest[:8], "little") >> 1 | 1,
        int.from_bytes(digest[8:], "little") >> 1,
    )


def lock_budgets(root: Path, *, wait: bool = True) -> int:
    """Lock the directory of a ledger's budgets, made if need be, for who makes or moves its table.

    Returns the descriptor, which ``unlock`` of ``_storage.live_file`` takes.

    Raises:
        OSError: it cannot be made, or is not a directory.
        BlockingIOError: it is locked, and ``wait`` is false.
    """
    path = root / BUDGETS
    REAL.make_directory(path, rights_beside(root))
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(fd)
        raise
    return fd
