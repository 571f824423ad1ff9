"""Settings of a database that change what statements mean, or what answers say."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.postgres.databases import answers, run, wrong
from tests.postgres.shipped import ledger
from tests.postgres_server import Server
from tests.shipped import assert_exactly_once, ship

from litellm_ledger import Ledger
from litellm_ledger._maintenance.person import Person
from litellm_ledger._warehouse.reading import Database


@pytest.mark.parametrize(
    "setting",
    [
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "client_min_messages = debug5",
        pytest.param("bytea_output = escape", marks=pytest.mark.matrix),
        pytest.param("extra_float_digits = -15", marks=pytest.mark.matrix),
        pytest.param("array_nulls = off", marks=pytest.mark.matrix),
    ],
)
def test_no_setting_of_the_server_changes_what_is_shipped_or_read(
    postgres: Server, database_url: str, tmp_path: Path, setting: str
) -> None:
    name = urlsplit(database_url).path.removeprefix("/")
    run(postgres.socket_url(), f"ALTER DATABASE {name} SET {setting}")
    root = ledger(tmp_path, 120)
    shipper = asyncio.run(ship(database_url, root))
    assert (shipper.failing, shipper.last_error) == (None, None)
    asyncio.run(assert_exactly_once(database_url, [root]))
    assert answers(database_url) == answers(root)
    found = Ledger(database_url).verify(against=[root])
    assert wrong(found) == []
    assert found.compared is not None
    assert found.compared.ok
    done = Database(database_url).erase(Person(["user=user-13"]), who="o", why="t", keep=True)
    assert (done.records > 0, done.marks) == (True, ())
    assert wrong(Ledger(database_url).verify()) == []
