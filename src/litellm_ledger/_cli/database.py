"""``database``: the schema in PostgreSQL that many ledgers are shipped to.

Owns its words, and what it prints.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from litellm_ledger._aggregates.formatting import clean, counted

from .flags import Output, emit
from .parameters import argument
from .tables import tell, write

if TYPE_CHECKING:
    import asyncpg

    from litellm_ledger._postgres.address import Address
    from litellm_ledger._postgres.schema import Migration, Standing

__all__ = [
    "URL",
    "address_of",
    "check",
    "database",
    "init",
    "migrate",
    "rebuild",
    "with_connection",
]

_T = TypeVar("_T")

VARIABLE: Final = "LITELLM_LEDGER_DATABASE"
_LONG: Final = 3_600.0
"""Seconds for a statement that changes the schema of a large database."""

URL = Annotated[
    str | None,
    argument(
        metavar="[URL]",
        help="postgresql://…; a password is better in PGPASSFILE or a service file. Default: "
        f"${VARIABLE}.",
    ),
]


def database(output: Output, url: URL = None) -> int:
    """Show whether a database is fit for ledgers; exit 1 if something needs attention."""
    return check(output, url)


def check(output: Output, url: URL = None) -> int:
    """Show whether a database is fit for ledgers; exit 1 if something needs attention."""
    from litellm_ledger._postgres.schema import standing

    address = address_of(url)
    found = with_connection(address, standing)
    return emit(
        output,
        lambda: {"database": address.place, "ok": not found.faults, **asdict(found)},
        lambda: _print_standing(address, found),
        status=int(bool(found.faults)),
        calm=True,
    )


def init(output: Output, url: URL = None) -> int:
    """Make the schema, its roles and the partitions of the next months; again does no harm."""
    from litellm_ledger._postgres.schema import init as make

    address = address_of(url)
    return _applied(output, address, with_connection(address, make))


def migrate(output: Output, url: URL = None) -> int:
    """Bring the schema to the version of this library, and make the partitions of months ahead."""
    from litellm_ledger._postgres.schema import migrate as bring

    address = address_of(url)
    return _applied(output, address, with_connection(address, bring))


def rebuild(output: Output, url: URL = None) -> int:
    """Make the sums by quarter of an hour anew; reports are exact meanwhile, and slower."""
    from litellm_ledger._shipping import rollup

    address = address_of(url)
    done = with_connection(address, rollup.rebuild)
    return emit(
        output,
        lambda: {"database": address.place, "added": done},
        lambda: tell(f"{address.place}: sums made anew of {counted(done, 'record')}."),
        calm=True,
    )


def address_of(url: str | None) -> Address:
    """Return the database that is meant.

    Raises:
        ValueError: none is, or the URL makes no sense.
    """
    from litellm_ledger._postgres.address import Address

    given = url or os.environ.get(VARIABLE)
    if not given:
        raise ValueError(f"say which database: postgresql://…, or set ${VARIABLE}")
    return Address.of(given)


def with_connection(
    address: Address, work: Callable[[asyncpg.Connection], Awaitable[_T]], timeout: float = _LONG
) -> _T:
    """Run ``work`` with a connection of its own.

    Args:
        timeout: seconds that a statement may take.

    Raises:
        LedgerPathError: the network, the server or the rights of the user do not allow it.
    """
    import asyncio  # what only reads never does

    from litellm_ledger._postgres.database import close, connect, is_theirs, unusable

    async def run() -> _T:
        connection = await connect(address, statement_timeout=timeout)
        try:
            return await work(connection)
        except Exception as exc:
            if not is_theirs(exc):
                raise
            raise unusable(address, exc) from exc
        finally:
            await close(connection)

    return asyncio.run(run())


def _applied(output: Output, address: Address, applied: list[Migration]) -> int:
    from litellm_ledger._postgres.schema import latest

    def plain() -> dict[str, Any]:
        names = [f"{one.version:04}_{one.name}" for one in applied]
        return {"database": address.place, "version": latest(), "applied": names}

    def table() -> None:
        for one in applied:
            write(f"applied {one.version:04} {one.name}")
        verb = "now has" if applied else "has"
        tell(f"{address.place} {verb} schema version {latest()}.")
        if any(one.version == 1 for one in applied):
            tell(
                "Next: GRANT ledger_writer TO those who ship, and ledger_reader TO those who read; "
                "litellm-ledger database check URL, as each of them, says what they may."
            )

    return emit(output, plain, table, calm=True)


def _print_standing(address: Address, found: Standing) -> None:
    tell(f"{address.place}: PostgreSQL {clean(found.server)}, as {clean(found.user)}")
    if found.version:
        tell(f"Schema version {found.version}; this library knows {found.known}.")
    if found.months:
        first, last = found.months[0], found.months[-1]
        months = counted(len(found.months), "month")
        tell(f"Partitions: {months}, from {_month(first)} to {_month(last)}.")
    if found.outside:
        tell(f"{counted(found.outside, 'record')} outside of all partitions.")
    if found.version == found.known:
        records, writers = counted(found.records, "outcome"), counted(found.writers, "writer")
        tell(f"{records} of {writers}.")
        may = {"ship": found.ships, "read": found.reads, "migrate": found.owns}
        said = ", ".join(verb for verb, allowed in may.items() if allowed)
        tell(f"{clean(found.user)} may {said or 'do nothing here'}.")
    for fault in found.faults:
        write(f"not fit: {clean(fault, 400)}")


def _month(month: int) -> str:
    return f"{month // 100}-{month % 100:02}"
