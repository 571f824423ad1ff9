"""Databases for tests: one server a session, and a database of its own for each test that asks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from tests.postgres_server import Server

_number = itertools.count(1)


async def _run(url: str, *statements: str) -> list[Any]:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return [await connection.fetch(statement) for statement in statements]
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server; every role may log in without a password."""
    server = Server()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def _template(postgres: Server) -> str:
    from litellm_ledger._postgres import database, schema

    async def make() -> None:
        await _run(postgres.socket_url(), "CREATE DATABASE template_ledger TEMPLATE template0")
        connection = await database.connect(postgres.socket_url("template_ledger"))
        await schema.init(connection)
        await connection.close()

    asyncio.run(make())
    return "template_ledger"


def made(postgres: Server, template: str) -> Iterator[str]:
    """Make a database like another one, and yield its URL; it goes afterwards."""
    name = f"ledger_{next(_number)}"
    asyncio.run(_run(postgres.socket_url(), f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield postgres.socket_url(name)
    asyncio.run(_run(postgres.socket_url(), f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def database_url(postgres: Server, _template: str) -> Iterator[str]:
    """The URL, by socket and as superuser, of a new database with the schema in it."""
    yield from made(postgres, _template)


@pytest.fixture(scope="module")
def module_database_url(postgres: Server, _template: str) -> Iterator[str]:
    """The same, one for all tests of a file."""
    yield from made(postgres, _template)


@pytest.fixture
def empty_url(postgres: Server) -> Iterator[str]:
    """The URL of a new database with nothing in it."""
    yield from made(postgres, "template0")
