"""The schema in the database: which version it has, and how it is brought to ours.

Owns the numbered files in ``sql/`` and the rule that they only go forward, one at a time, whoever
else starts now.  Never touches what a newer version made.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from litellm_ledger._errors import LedgerError, UnsupportedFormat

if TYPE_CHECKING:
    import asyncpg

__all__ = ["SCHEMA", "Migration", "check", "init", "latest", "migrate", "migrations", "version"]

SCHEMA: Final = "litellm_ledger"

_LOCK: Final = (5512117, 1)
"""Of those who change the schema: one at a time in a database."""
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
    for path in sorted((Path(__file__).parent / "sql").iterdir()):
        match = _NAME.fullmatch(path.name)
        if match:
            found.append(Migration(int(match[1]), match[2], path.read_text("utf-8")))
    return tuple(found)


def latest() -> int:
    """Return the version that this library knows."""
    return migrations()[-1].version


async def version(connection: asyncpg.Connection) -> int:
    """Return the version that the database has; 0: there is no schema of ours."""
    there = await connection.fetchval(
        "SELECT pg_catalog.to_regclass('litellm_ledger.schema_version') IS NOT NULL"
    )
    if not there:
        return 0
    newest = await connection.fetchval("SELECT max(version) FROM litellm_ledger.schema_version")
    return int(newest or 0)


async def check(connection: asyncpg.Connection) -> None:
    """Refuse a schema that is not the one that this library knows.

    Raises:
        UnsupportedFormat: it is newer.
        LedgerError: it is older, or there is none.
    """
    has = await version(connection)
    if has > latest():
        raise UnsupportedFormat(
            f"the database has schema version {has}; this library knows {latest()}: upgrade it"
        )
    if has == 0:
        raise LedgerError(
            "the database has no schema of litellm-ledger: run `litellm-ledger database init URL`"
        )
    if has < latest():
        raise LedgerError(
            f"the database has schema version {has}, and this library needs {latest()}: "
            "run `litellm-ledger database migrate URL`"
        )


async def init(connection: asyncpg.Connection) -> list[Migration]:
    """Make the schema, or bring it to the version that this library knows."""
    return await migrate(connection, 0)


async def migrate(connection: asyncpg.Connection, lowest: int = 1) -> list[Migration]:
    """Bring the schema to the version that this library knows, in one transaction.

    Any number of processes may do this at once.

    Args:
        connection: of the owner of the schema.
        lowest: the version that must be there.

    Returns:
        What was applied: nothing if it was there already.
    """
    applied = []
    async with connection.transaction():
        await connection.execute("SELECT pg_catalog.pg_advisory_xact_lock($1, $2)", *_LOCK)
        has = await version(connection)
        if has > latest() or has < lowest:
            await check(connection)
        for migration in migrations():
            if migration.version > has:
                await connection.execute(migration.text)
                await connection.execute(
                    "INSERT INTO litellm_ledger.schema_version (version, name) VALUES ($1, $2)",
                    migration.version,
                    migration.name,
                )
                applied.append(migration)
    return applied
