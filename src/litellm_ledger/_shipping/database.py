"""From a URL to a connection: whose word counts, how it is protected, how long it may take.

Owns the rules for TLS, time-outs and what a text may say of a URL: never a password.  Imports
asyncpg, and is imported only where a database is used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._errors import MissingExtra

if TYPE_CHECKING:
    import asyncpg

__all__ = ["CONNECT_TIMEOUT", "STATEMENT_TIMEOUT", "connect", "module"]

CONNECT_TIMEOUT: Final = 10.0
"""Seconds until a connection is open, at most: name, socket, TLS, password."""
STATEMENT_TIMEOUT: Final = 60.0
"""Seconds that a statement may take."""


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
    url: str,
    *,
    connect_timeout: float = CONNECT_TIMEOUT,
    statement_timeout: float = STATEMENT_TIMEOUT,
    name: str = "litellm-ledger",
) -> asyncpg.Connection:
    """Open one connection.  It prepares no statements by name: PgBouncer may stand between.

    Args:
        url: ``postgresql://…``.
        connect_timeout: seconds until it is open.
        statement_timeout: seconds after which the client gives a statement up.
        name: what the server lists it as.
    """
    connection: asyncpg.Connection = await module().connect(
        url,
        timeout=connect_timeout,
        command_timeout=statement_timeout,
        statement_cache_size=0,
        service=os.environ.get("PGSERVICE"),
        server_settings={"application_name": name},
    )
    return connection
