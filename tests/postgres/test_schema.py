"""The schema: made once however many begin, refused when it is newer."""

from __future__ import annotations

import asyncio

import pytest

from litellm_ledger import LedgerError, UnsupportedFormat
from litellm_ledger._shipping import database, schema

pytestmark = pytest.mark.asyncio


async def test_ten_at_once_make_one_schema(empty_url: str) -> None:
    connections = [await database.connect(empty_url) for _ in range(10)]
    applied = await asyncio.gather(*map(schema.init, connections))
    assert sorted(map(len, applied)) == [0] * 9 + [len(schema.migrations())]
    for connection in connections:
        await schema.check(connection)
        await connection.close()


async def test_a_newer_schema_is_refused_and_untouched(database_url: str) -> None:
    connection = await database.connect(database_url)
    await connection.execute(
        "INSERT INTO litellm_ledger.schema_version (version, name) VALUES (9999, 'later')"
    )
    for step in (schema.check, schema.init, schema.migrate):
        with pytest.raises(UnsupportedFormat, match=r"version 9999.*upgrade"):
            await step(connection)
    await connection.close()


async def test_an_empty_database_says_init(empty_url: str) -> None:
    connection = await database.connect(empty_url)
    for step in (schema.check, schema.migrate):
        with pytest.raises(LedgerError, match="database init"):
            await step(connection)
    await connection.close()
