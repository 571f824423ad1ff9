"""``budgets postgresql://…``: what is lent of budgets that machines share.

Owns the question.  The limit is not there: each program names its own.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from litellm_ledger._postgres.query import query
from litellm_ledger._postgres.schema import check
from litellm_ledger._records.money import usd

if TYPE_CHECKING:
    import asyncpg

__all__ = ["SharedBudget", "shared_budgets"]


class SharedBudget(msgspec.Struct, frozen=True):
    """A budget of many machines, for one scope, in the window that counts now.

    Attributes:
        budget, scope, unit: its name, for whom, and ``usd``, ``tokens`` or ``calls``.
        counts: digest of all that says what it counts.
        lent: what processes may spend, what they have spent included.
        used: spent or held, as they said last.
        holders: how many processes have something of it, those that ended included.
        until: when the window no longer counts; of a rolling one, its newest step.
    """

    budget: str
    scope: str
    unit: str
    counts: str
    lent: Decimal | int
    used: Decimal | int
    holders: int
    until: datetime


async def shared_budgets(connection: asyncpg.Connection) -> list[SharedBudget]:
    """Return what is lent, by budget and scope.

    Raises:
        LedgerPathError: there is no schema, or it is an older one.
        UnsupportedFormat: a newer version made the schema.
    """
    await check(connection)
    found = []
    for row in await connection.fetch(query("lent")):
        lent, used = (
            usd(int(row[name])) if row["unit"] == "usd" else int(row[name])
            for name in ("lent", "used")
        )
        found.append(
            SharedBudget(
                budget=row["budget"],
                scope=row["scope"],
                unit=row["unit"],
                counts=row["counts"],
                lent=lent,
                used=used,
                holders=row["holders"],
                until=row["until"],
            )
        )
    return found
