"""From a URL to a connection: how it is protected, how long anything may take, what went wrong.

Owns TLS, time-outs and the words for failures: what, where, what to do, and never a password.
Imports asyncpg, and is imported only where a database is used.

Nothing here is prepared by name, and nothing is set for longer than a transaction, so that
PgBouncer in transaction mode may stand between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from litellm_ledger._errors import LedgerPathError, MissingExtra

from .address import Address

if TYPE_CHECKING:
    import asyncpg

__all__ = [
    "CONNECT_TIMEOUT",
    "STATEMENT_TIMEOUT",
    "close",
    "connect",
    "copy",
    "copy_records",
    "is_theirs",
    "module",
    "one_moment",
    "transaction",
    "unusable",
]

CONNECT_TIMEOUT: Final = 10.0
"""Seconds until a connection is open, at most: name, socket, TLS, password."""
STATEMENT_TIMEOUT: Final = 60.0
"""Seconds that a statement may take."""
_IDLE: Final = 60.0
"""Seconds that the server waits for the next statement of a transaction."""
_CLOSE: Final = 2.0
_LEAST: Final = 1.0

_PASSED_ON: Final = ("target_session_attrs", "krbsrvname", "gsslib", "sslnegotiation")
_TLS: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslpassword")


def module() -> Any:
    """Return the module ``asyncpg``.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import asyncpg
    except ImportError:
        raise MissingExtra("asyncpg", "postgres") from None
    return asyncpg


async def connect(
    where: str | Address,
    *,
    connect_timeout: float | None = None,
    statement_timeout: float = STATEMENT_TIMEOUT,
    name: str = "litellm-ledger",
) -> asyncpg.Connection:
    """Open one connection.

    Args:
        where: ``postgresql://…``.
        connect_timeout: seconds until it is open; default: as the URL says, else 10.
        statement_timeout: seconds after which the client gives a statement up.
        name: what the server lists it as, if the URL does not say.

    Raises:
        ValueError: the URL makes no sense.
        LedgerPathError: there is no connection; the text says why.
        MissingExtra: asyncpg is not installed.
    """
    driver = module()
    address = where if isinstance(where, Address) else Address.of(where)
    if connect_timeout is None:
        connect_timeout = _seconds(address.said.get("connect_timeout"))
    settings = {
        "application_name": address.said.get("application_name", name),
        "standard_conforming_strings": "on",  # PgBouncer keeps it apart for each client
    }
    if "options" in address.said:
        settings["options"] = address.said["options"]
    words = {key: address.said[key] for key in _PASSED_ON if key in address.said}
    mode = address.sslmode
    try:
        if mode == "verify-full":
            protection: Any = _verified(address.said)
        else:
            protection = mode
            words |= {key: address.said[key] for key in _TLS if key in address.said}
        connection: asyncpg.Connection = await driver.connect(
            f"postgresql://?{urlencode(words)}" if words else None,
            host=[host for host, _ in address.hosts] or None,
            port=[port for _, port in address.hosts] or None,
            user=address.said.get("user"),
            database=address.said.get("dbname"),
            password=address.password,
            passfile=address.said.get("passfile"),
            ssl=protection,
            timeout=connect_timeout,
            command_timeout=statement_timeout,
            statement_cache_size=0,
            server_settings=settings,
        )
    except _raised_by(driver) as exc:
        raise unusable(address, exc) from exc
    return connection


async def close(connection: asyncpg.Connection) -> None:
    """Say goodbye, and hang up if that is not heard in two seconds."""
    try:
        async with asyncio.timeout(_CLOSE):
            await connection.close(timeout=_CLOSE)
    except Exception:  # noqa: BLE001 - of a connection that is of no use any more; whatever it is
        connection.terminate()


@asynccontextmanager
async def transaction(
    connection: asyncpg.Connection,
    *,
    timeout: float = STATEMENT_TIMEOUT,
    **kind: Any,
) -> AsyncIterator[None]:
    """A transaction whose statements the server ends in time, and that it ends if we are silent.

    It has no notices: of a COPY that they come in between, asyncpg loses rows.

    Args:
        connection: of ``connect``.
        timeout: seconds for each statement.
        kind: as of asyncpg's ``transaction``.
    """
    async with connection.transaction(**kind):
        await connection.execute(
            f"SET LOCAL statement_timeout = {round(timeout * 1_000)}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {round(_IDLE * 1_000)}; "
            "SET LOCAL client_min_messages = error"
        )
        yield


@asynccontextmanager
async def one_moment(connection: asyncpg.Connection, *, timeout: float) -> AsyncIterator[None]:
    """A transaction that changes nothing, and sees what there is at one moment.

    No month is dropped while it lasts.  Else a question could see a month gone and not its sums,
    which came after its own moment.

    Args:
        connection: of ``connect``.
        timeout: seconds for each statement.
    """
    kind = {"isolation": "repeatable_read", "readonly": True}
    async with transaction(connection, timeout=timeout, **kind):
        with contextlib.suppress(Exception):  # no such table: what is asked next says so
            async with connection.transaction():
                await connection.execute(
                    "LOCK TABLE ONLY litellm_ledger.calls IN ACCESS SHARE MODE"
                )
        yield


async def copy(
    connection: asyncpg.Connection,
    table: str,
    columns: Sequence[str],
    pieces: Iterable[bytes],
    *,
    timeout: float = STATEMENT_TIMEOUT,
) -> None:
    """Copy rows into a table of the schema.

    Args:
        connection: which is to be dropped if this raises.
        table: its name.
        columns: those that the rows have.
        pieces: the rows, as ``COPY … FROM STDIN (FORMAT binary)`` reads them.
        timeout: seconds for all of it.  While asyncpg waits until a server reads on, no time-out
            of its own runs: on a dead line it would wait without end.

    Raises:
        TimeoutError: it took longer.
    """

    async def source() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    how = {"schema_name": "litellm_ledger", "columns": columns, "format": "binary"}
    await _copied(
        connection, connection.copy_to_table(table, source=source(), **how), timeout=timeout
    )


async def copy_records(
    connection: asyncpg.Connection,
    table: str,
    columns: Sequence[str],
    records: Iterable[Sequence[Any]],
    *,
    timeout: float = STATEMENT_TIMEOUT,
) -> None:
    """Copy rows into a table of the schema, given by their values; all else is as of ``copy``."""
    how = {"schema_name": "litellm_ledger", "columns": columns}
    await _copied(
        connection,
        connection.copy_records_to_table(table, records=records, **how),
        timeout=timeout,
    )


async def _copied(
    connection: asyncpg.Connection, copying: Coroutine[Any, Any, Any], *, timeout: float
) -> None:
    try:
        async with asyncio.timeout(timeout):
            await copying
    except AttributeError:  # asyncpg says goodbye on a connection that it has dropped itself
        if connection.is_closed():
            raise TimeoutError from None
        raise


# -- what went wrong -----------------------------------------------------------------------------


def is_theirs(exc: BaseException) -> bool:
    """Whether an error is of the network, the server or asyncpg, and no mistake of ours."""
    if isinstance(exc, OSError | TimeoutError):
        return True
    return type(exc).__module__.partition(".")[0] == "asyncpg"


def unusable(address: Address, exc: BaseException) -> LedgerPathError:
    """Return the error to raise for one of the network or of the server."""
    if isinstance(exc, LedgerPathError):
        return exc
    return LedgerPathError(f"cannot use {address.place}: {_why(exc)}")


def _why(exc: BaseException) -> str:
    state = getattr(exc, "sqlstate", None)
    said = " ".join(str(getattr(exc, "message", None) or exc).split())
    if isinstance(exc, TimeoutError):
        return "it does not answer; see whether the server runs and can be reached from here"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({exc.verify_message}); name the authority that "
            "signed it: sslrootcert=FILE in the URL, or ~/.postgresql/root.crt"
        )
    if isinstance(exc, ssl.SSLError) or "SSL upgrade" in said or "SSL exchange" in said:
        return (
            "it takes no connection by TLS, which is the rule for other machines; let the server "
            "have a certificate, or, where the network is yours alone, say sslmode=disable in the "
            "URL"
        )
    if isinstance(exc, socket.gaierror):
        return f"no such host ({exc.strerror})"
    if isinstance(exc, OSError) and exc.errno:
        return f"{os.strerror(exc.errno)}; see whether the server runs and can be reached from here"
    hint = getattr(exc, "hint", None)
    hint = f"; {hint}" if hint else _HINTS.get(state or "", "")
    return f"{said or type(exc).__name__}{hint}"


_HINTS: Final = {
    "25006": "; it is a standby or read-only: name the primary (target_session_attrs=read-write)",
    "28P01": "; give the password by PGPASSFILE, a service file or PGPASSWORD",
    "28000": "; create the role, or let the server's pg_hba.conf admit it from here",
    "3D000": "; create it first, by createdb or CREATE DATABASE",
    "3F000": "; run litellm-ledger database init URL",
    "42P01": "; run litellm-ledger database init URL",
    "42P06": "; it is not one that litellm-ledger made: rename it, or take another database",
    "42501": (
        "; the role of this URL may not do that: GRANT ledger_writer (ships), ledger_reader "
        "(reads) to it, or come as the owner (database init, migrate, prune, erase)"
    ),
    "53300": "; raise its max_connections, or put PgBouncer before it",
    "57014": "; it took too long",
}
"""What to do, by SQLSTATE."""


def _raised_by(driver: Any) -> tuple[type[BaseException], ...]:
    ours = driver.PostgresError, driver.InterfaceError, driver.InternalClientError
    return OSError, TimeoutError, *ours


def _seconds(text: str | None) -> float:
    if not text:
        return CONNECT_TIMEOUT
    if not (text.isascii() and text.isdigit()):
        raise ValueError("connect_timeout is a whole number of seconds")
    return max(_LEAST, float(text)) if int(text) else CONNECT_TIMEOUT


def _verified(said: Any) -> ssl.SSLContext:
    """Make what checks a server's certificate and name.

    The authorities are those of ``sslrootcert``, of ``~/.postgresql/root.crt`` if it is there, or
    of the system.

    Raises:
        LedgerPathError: a file is not there or is none.
    """
    root = said.get("sslrootcert") or _of_home("root.crt")
    certificate = said.get("sslcert") or _of_home("postgresql.crt")
    context = ssl.create_default_context()
    try:
        if root and root != "system":
            context = ssl.create_default_context(cafile=root)
        if certificate:
            key = said.get("sslkey") or _of_home("postgresql.key")
            context.load_cert_chain(certificate, key, lambda: said.get("sslpassword", ""))
        revoked = said.get("sslcrl") or _of_home("root.crl")
        if revoked:
            context.load_verify_locations(revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    except OSError as exc:
        name = exc.filename or root or certificate
        raise LedgerPathError(f"cannot use {name} for TLS: {exc.strerror or exc}") from None
    if ssl.HAS_ALPN:
        context.set_alpn_protocols(["postgresql"])
    return context


def _of_home(name: str) -> str | None:
    path = Path("~/.postgresql").expanduser() / name
    return str(path) if path.exists() else None
