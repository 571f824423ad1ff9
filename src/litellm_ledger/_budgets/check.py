"""``differences``: whether the table of balances says what the ledger says.

Owns the comparison, writer by writer.  Of a writer that lives the table knows more than the ledger:
what it is about to send; of one whose records were pruned or erased, what these counted.  Never
changes anything: a table that differs is made anew by removing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from litellm_ledger._reading.listing import list_additions
from litellm_ledger._reading.pruned import read_audits
from litellm_ledger._records.audit import ERASE, PRUNE
from litellm_ledger._records.layout import ADJUSTMENTS
from litellm_ledger._storage.live_file import lives

from .books import locked
from .budget import Budget
from .rebuild import figures, names_of
from .table import DONE, LEAVES, MEASURE, POSTS, ROW_HELD, ROW_SPENT, Damaged, Moved, Table

__all__ = ["differences"]


def differences(root: Path, budgets: Sequence[Budget]) -> list[str]:
    """Return what differs, as text; nothing where there is no table.

    Writers that live, and those that nobody has looked at since they died, are left out.

    Raises:
        LedgerPathError: the ledger cannot be read.
    """
    try:
        table = Table.open(root)
    except FileNotFoundError:
        return []
    except Damaged as exc:
        if "another boot" in str(exc):  # it is made anew by the next client
            return []
        return [f"the balances cannot be used: {exc}"]
    try:
        return list(_differences(root, budgets, table))
    except Damaged as exc:
        return [f"the balances cannot be used: {exc}"]
    except Moved:  # just now: the other is made of the ledger
        return []
    finally:
        table.close()


def _differences(root: Path, budgets: Sequence[Budget], table: Table) -> list[str]:
    now = datetime.now(UTC)
    numbers = {number: one for one in budgets if (number := table.measure(one.counts)) is not None}
    mask = sum(1 << number for number in numbers)
    cells = table.cells
    found: list[str] = []
    with locked(table):
        table.check()
        rows: dict[str, list[tuple[int, int, int]]] = {}
        table.writer("")  # reads the names that are new
        for writer, at in table.writers.items():
            if not cells[at + POSTS] and cells[at + DONE] & mask == mask:
                rows[writer] = [
                    (account, cells[row + ROW_SPENT], cells[row + ROW_HELD])
                    for row, account in table.rows_of(at)
                    if cells[account + LEAVES] > now.timestamp()
                    and mask >> cells[account + MEASURE] & 1
                ]
    every = names_of(root)
    audits = read_audits(root, list_additions(root))
    changed = {one.writer for one in audits if one.did in (ERASE, PRUNE)}
    for writer, told in rows.items():
        if lives(root, writer) or not numbers:
            continue
        if changed and (writer in changed or writer.startswith(ADJUSTMENTS)):
            continue
        said, _ = figures(root, writer, every, numbers, now, alive=False)
        left = {account: (spent, held) for account, spent, held in told if spent or held}
        for spot, sums in said.items():
            at = table.find(spot.counts, spot.scope, spot.window)
            if left.pop(at, (0, 0)) != sums:
                name = numbers[spot.measure].label
                of = f" of {spot.scope}" if spot.scope else ""
                found.append(f"{writer}: the balance of {name}{of} is not that of its records")
        if left:
            found.append(f"{writer}: balances of which it has no records")
    return found
