"""How a connection is made, protected and given up."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.postgres_server import Server
from tests.wires import Bouncer, Wire, certificates

from litellm_ledger import LedgerPathError
from litellm_ledger._postgres import database
from litellm_ledger._postgres.address import Address

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


async def answer(url: str | Address) -> int:
    connection = await database.connect(url)
    try:
        async with database.transaction(connection):
            return int(await connection.fetchval("SELECT $1::int + 1", 41))
    finally:
        await database.close(connection)


async def test_a_socket_and_the_loopback_need_no_tls(postgres: Server) -> None:
    assert await answer(postgres.socket_url()) == 42
    assert await answer(postgres.url()) == 42


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the loopback be another machine, whose certificate matters."""
    monkeypatch.setattr(Address, "local", property(lambda _: False))


async def test_another_machine_must_show_a_certificate_that_is_trusted_and_its_own(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch)
    root, context = certificates(tmp_path, "localhost")
    async with Wire(postgres, context).open() as wire:
        url = f"postgresql://postgres@localhost:{wire.port}/postgres"
        assert await answer(f"{url}?sslrootcert={root}") == 42
        with pytest.raises(LedgerPathError, match=r"not trusted.*sslrootcert=FILE"):
            await answer(url)
        with pytest.raises(LedgerPathError, match="not trusted"):  # the name is another
            await answer(url.replace("localhost", "127.0.0.1") + f"?sslrootcert={root}")
        with pytest.raises(LedgerPathError, match="not trusted"):
            await answer(f"{url}?sslrootcert=system")
        with pytest.raises(LedgerPathError, match=r"nothing\.crt"):
            await answer(f"{url}?sslrootcert={tmp_path}/nothing.crt")
        (tmp_path / ".postgresql").mkdir()
        root.rename(tmp_path / ".postgresql" / "root.crt")
        assert await answer(url) == 42
        assert await answer(f"{url}?sslmode=require") == 42


async def test_another_machine_without_tls_is_refused_unless_somebody_says_so(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch)
    async with Wire(postgres).open() as wire:
        url = f"postgresql://postgres:s3cret@127.0.0.1:{wire.port}/postgres"
        with pytest.raises(LedgerPathError, match=r"no connection by TLS.*sslmode=disable") as no:
            await answer(url)
        assert "s3cret" not in "".join(traceback.format_exception(no.value))
        assert await answer(f"{url}?sslmode=disable") == 42


async def test_passwords_come_from_files_and_are_said_nowhere(
    postgres: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection = await database.connect(postgres.socket_url())
    await connection.execute("CREATE ROLE careful LOGIN PASSWORD 'right'")
    hba = postgres.data / "pg_hba.conf"
    before = hba.read_text()
    caplog.set_level("DEBUG")
    try:
        hba.write_text("host all careful 127.0.0.1/32 scram-sha-256\n" + before)
        await connection.execute("SELECT pg_reload_conf()")
        where = f"127.0.0.1:{postgres.port}/postgres"
        assert await answer(f"postgresql://careful:right@{where}") == 42
        for url in (f"postgresql://careful:wrong@{where}", f"postgresql://careful@{where}"):
            with pytest.raises(LedgerPathError, match=r"careful|password") as no:
                await answer(url)
            assert "wrong" not in "".join(traceback.format_exception(no.value, chain=True))
        with pytest.raises(LedgerPathError, match="PGPASSFILE"):
            await answer(f"postgresql://careful:wrong@{where}")

        passwords = tmp_path / "passwords"
        passwords.write_text(f"127.0.0.1:{postgres.port}:*:careful:right\n")
        passwords.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(passwords))
        assert await answer(f"postgresql://careful@{where}") == 42
        monkeypatch.delenv("PGPASSFILE")
        assert await answer(f"postgresql://careful@{where}?passfile={passwords}") == 42
        (tmp_path / ".pgpass").write_bytes(passwords.read_bytes())
        (tmp_path / ".pgpass").chmod(0o600)
        assert await answer(f"postgresql://careful@{where}") == 42
        (tmp_path / ".pgpass").unlink()

        services = tmp_path / ".pg_service.conf"
        services.write_text(
            f"[books]\nhost=127.0.0.1\nport={postgres.port}\nuser=careful\npassword=right\n"
            "dbname=postgres\n"
        )
        assert await answer("postgresql://?service=books") == 42
        monkeypatch.setenv("PGSERVICE", "books")
        assert await answer("postgresql://") == 42
    finally:
        hba.write_text(before)
        await connection.execute("SELECT pg_reload_conf(); DROP ROLE careful")
        await database.close(connection)
    assert "right" not in caplog.text
    assert "wrong" not in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.removesuffix("postgres") + "nothing", "nothing.*createdb"),
        (lambda url: url.replace("postgres@", "nobody@"), "nobody"),
        (lambda url: "postgresql://postgres@127.0.0.1:1/x", "127.0.0.1:1"),
        (lambda url: "postgresql:///x?host=/nowhere", "/nowhere"),
    ],
)
async def test_an_error_says_where_and_what_to_do(
    postgres: Server, change: Callable[[str], str], words: str
) -> None:
    with pytest.raises(LedgerPathError, match=f"cannot use postgresql://.*{words}"):
        await database.connect(change(postgres.url()))


async def test_a_server_that_accepts_and_never_answers_holds_nothing_up(postgres: Server) -> None:
    async with Wire(None).open() as wire:
        for mode in ("prefer", "disable", "require", "verify-full"):
            url = f"postgresql://postgres@127.0.0.1:{wire.port}/postgres?sslmode={mode}"
            with pytest.raises(LedgerPathError, match="does not answer"):
                await database.connect(url, connect_timeout=0.1)
    for heard in (0, 1, 9, 100, 300):  # in the middle of its greeting
        wire = Wire(postgres)
        wire.dead_after = heard
        async with wire.open():
            url = f"postgresql://postgres@127.0.0.1:{wire.port}/postgres?sslmode=disable"
            with pytest.raises(LedgerPathError, match="does not answer"):
                await database.connect(url, connect_timeout=0.1)


async def _select(connection: object) -> None:
    await connection.fetchval("SELECT $1::int", 1)  # type: ignore[attr-defined]


async def _execute(connection: object) -> None:
    await connection.execute("SELECT 1")  # type: ignore[attr-defined]


async def _copy(connection: object) -> None:
    much = (b"x" * 100_000 for _ in range(200))
    await database.copy(connection, "calls", ["seq"], much, timeout=0.3)  # type: ignore[arg-type]


async def _transaction(connection: object) -> None:
    async with database.transaction(connection):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("question", [_select, _execute, _copy, _transaction])
async def test_a_line_that_goes_dead_ends_every_call_in_time(
    postgres: Server, database_url: str, question: Callable[[object], object]
) -> None:
    name = database_url.partition("@/")[2].partition("?")[0]
    async with Wire(postgres).open() as wire:
        url = f"postgresql://postgres@127.0.0.1:{wire.port}/{name}?sslmode=disable"
        connection = await database.connect(url, statement_timeout=0.1)
        await connection.execute("SELECT 1")
        wire.die()
        with pytest.raises(TimeoutError):
            await question(connection)
        await database.close(connection)
        assert connection.is_closed()


async def test_the_server_ends_a_statement_and_a_silent_transaction(postgres: Server) -> None:
    connection = await database.connect(postgres.socket_url())
    async with database.transaction(connection, timeout=7.5):
        shown = "SELECT current_setting('statement_timeout') || ' ' || current_setting($1)"
        idle = "idle_in_transaction_session_timeout"
        assert await connection.fetchval(shown, idle) == "7500ms 1min"
    assert await connection.fetchval("SHOW statement_timeout") == "0"
    await database.close(connection)


async def test_many_share_two_connections_of_pgbouncer(
    postgres: Server, database_url: str, tmp_path: Path
) -> None:
    from litellm_ledger._postgres import schema

    name = database_url.partition("@/")[2].partition("?")[0]
    bouncer = Bouncer(postgres, tmp_path)
    try:

        async def one(number: int) -> None:
            connection = await database.connect(bouncer.url(name))
            for turn in range(20):
                await schema.check(connection)
                async with database.transaction(connection):
                    asked = "SELECT $1::int * 100 + $2::int"
                    assert await connection.fetchval(asked, number, turn) == number * 100 + turn
                    await asyncio.sleep(0)
            await schema.init(connection)
            await database.close(connection)

        await asyncio.gather(*map(one, range(12)))
    finally:
        bouncer.close()
