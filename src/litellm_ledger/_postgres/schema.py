"""The schema in the database: which version it has, how it is brought to ours, what it lacks.

Owns the numbered files in ``sql/`` and the rule that they only go forward, one process at a time.
Never touches what a newer version made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from litellm_ledger._errors import LedgerPathError, UnsupportedFormat

from .locks import Lock, take

if TYPE_CHECKING:
    import asyncpg

__all__ = [
    "AHEAD",
    "SCHEMA",
    "Migration",
    "Standing",
    "changed_by_hand",
    "check",
    "check_shape",
    "granted_by_hand",
    "init",
    "latest",
    "migrate",
    "migrations",
    "standing",
    "statement",
    "version",
]

SCHEMA: Final = "litellm_ledger"
AHEAD: Final = 3
"""Months after this one that have a partition already."""

_TOLD: Final = 3
"""Differences that an error names."""
_FILES: Final = Path(__file__).parent / "sql"
_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql", re.ASCII)


class Migration(NamedTuple):
    """One numbered file."""

    version: int
    name: str
    text: str


@cache
def migrations() -> tuple[Migration, ...]:
    """Return the files in ``sql/`` that have a number, in their order."""
    found = []
    for path in sorted(_FILES.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match:
            found.append(Migration(int(match[1]), match[2], path.read_text("utf-8")))
    return tuple(found)


@cache
def statement(name: str) -> str:
    """Return the text of ``sql/<name>.sql``."""
    return (_FILES / f"{name}.sql").read_text("utf-8")


def latest() -> int:
    """Return the version that this library knows."""
    return migrations()[-1].version


async def version(connection: asyncpg.Connection) -> int:
    """Return the version that the database has; 0: there is no schema of this library."""
    there = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c "
        "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'litellm_ledger' AND c.relname = 'schema_version')"
    )
    if not there:
        return 0
    newest = await connection.fetchval("SELECT max(version) FROM litellm_ledger.schema_version")
    return int(newest or 0)


async def check(connection: asyncpg.Connection) -> None:
    """Refuse a schema that is not the one that this library knows.

    Raises:
        UnsupportedFormat: it is newer.
        LedgerPathError: it is older, or there is none.
    """
    _refuse(await version(connection))


async def check_shape(connection: asyncpg.Connection) -> None:
    """Refuse a schema of the version that this library knows that was changed by hand.

    Raises:
        LedgerPathError: it was; the text says what is missing, and what is new and may refuse rows.
    """
    if wrong := await changed_by_hand(connection):
        more = f" and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
        raise LedgerPathError(
            f"the schema was changed by hand: {'; '.join(wrong[:_TOLD])}{more}; have its owner "
            "undo that (litellm-ledger database check lists all)"
        )


async def changed_by_hand(connection: asyncpg.Connection) -> list[str]:
    """Return how a schema differs from what the numbered files make, as far as that matters.

    More columns that may be empty, indexes, functions and tables are nobody's harm; what a
    constraint of somebody's own refuses is set aside (``rejected``).
    """
    # quote_all_identifiers may be on.
    found = {row[0].replace('"', "") for row in await connection.fetch(statement("shape"))}
    known, tables = set(_known("shape")), set(_tables())
    new = [
        one
        for one in found - known
        if _table(one) in tables and one.startswith("column ") and one.endswith(" not null")
    ]
    return [
        *(f"{one} is missing" for one in sorted(known - found)),
        *(f"{one} is new" for one in sorted(new)),
    ]


async def granted_by_hand(connection: asyncpg.Connection) -> list[str]:
    """Return what the roles may do that the numbered files do not let them.

    What is granted to somebody by name is their owner's affair.
    """
    rows = await connection.fetch(statement("rights"), _tables())
    known = _known("rights")
    return [row[0] for row in rows if row[0] not in known]


@cache
def _known(name: str) -> tuple[str, ...]:
    return tuple((_FILES / f"{name}.txt").read_text("utf-8").splitlines())


def _tables() -> list[str]:
    """Return the tables and views that the numbered files make."""
    return sorted({_table(one) for one in _known("shape") if one.startswith("column ")})


def _table(thing: str) -> str:
    return thing.split()[1].partition(".")[0]


def _refuse(has: int) -> None:
    if has > latest():
        raise UnsupportedFormat(
            f"the database has schema version {has}; this library knows {latest()}: upgrade it"
        )
    if has == 0:
        raise LedgerPathError(
            "the database has no schema of litellm-ledger: run litellm-ledger database init URL"
        )
    if has < latest():
        raise LedgerPathError(
            f"the database has schema version {has}, and this library needs {latest()}: "
            "run litellm-ledger database migrate URL"
        )


async def init(connection: asyncpg.Connection) -> list[Migration]:
    """Make the schema, or bring it to the version that this library knows; as ``migrate``."""
    return await migrate(connection, 0)


async def migrate(connection: asyncpg.Connection, lowest: int = 1) -> list[Migration]:
    """Bring the schema to the version that this library knows, and make partitions ahead.

    It is one transaction, which any number of processes may begin at once.

    Args:
        connection: of the owner of the schema.
        lowest: the version that must be there.

    Returns:
        What was applied: nothing if it was there already.
    """
    applied = []
    async with connection.transaction():
        await take(connection, Lock.SCHEMA)
        has = await version(connection)
        if has > latest() or has < lowest:
            _refuse(has)
        for migration in migrations():
            if migration.version > has:
                await connection.execute(migration.text)
                await connection.execute(
                    "INSERT INTO litellm_ledger.schema_version (version, name) VALUES ($1, $2)",
                    migration.version,
                    migration.name,
                )
                applied.append(migration)
        await connection.execute("SELECT FROM litellm_ledger.make_partitions_ahead()")
    return applied


@dataclass(frozen=True, slots=True)
class Standing:
    """What a database is, for those who ask whether it is fit.

    Attributes:
        server: its version.
        user: who asks.
        version, known: of the schema there, and of this library.
        ships, reads, owns: what the user may do.
        months: those that have a partition, as 202611.
        outside: rows whose month has none, or that have no time.
        writers: how many have shipped; ``records``: how many of their outcomes are there.
        faults: what needs attention, and what to do.
    """

    server: str
    user: str
    version: int
    known: int
    ships: bool = False
    reads: bool = False
    owns: bool = False
    months: list[int] = field(default_factory=list)
    outside: int = 0
    writers: int = 0
    records: int = 0
    faults: list[str] = field(default_factory=list)


async def standing(connection: asyncpg.Connection) -> Standing:
    """Look at a database, and change nothing."""
    async with connection.transaction(readonly=True):
        server, user = await connection.fetchrow(
            "SELECT pg_catalog.current_setting('server_version'), CURRENT_USER::text"
        )
        has = await version(connection)
        try:
            _refuse(has)
        except (LedgerPathError, UnsupportedFormat) as exc:
            return Standing(server, user, has, latest(), faults=[str(exc)])
        changed = await changed_by_hand(connection)
        if changed:  # whatever else is asked might fail
            return Standing(
                server, user, has, latest(), faults=[f"changed by hand: {one}" for one in changed]
            )
        row = await connection.fetchrow(statement("standing"), AHEAD)
        faults = await granted_by_hand(connection)
    if row["missing"]:
        months = ", ".join(f"{month // 100}-{month % 100:02}" for month in row["missing"])
        faults.append(
            f"no partition for {months}: run litellm-ledger database migrate URL; records of these "
            "months are kept outside of all until then"
        )
    if not row["reads"]:
        faults.append(f"{user} may not read it: GRANT ledger_reader TO {user}")
    return Standing(
        server,
        user,
        has,
        latest(),
        row["ships"],
        row["reads"],
        row["owns"],
        row["months"],
        row["outside"],
        row["writers"],
        row["records"],
        faults,
    )
