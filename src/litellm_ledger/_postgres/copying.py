"""Rows that a query sends as a stream, taken as they come.

Owns what happens where they cannot be taken, by a full disk or by anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from litellm_ledger._errors import LedgerPathError

if TYPE_CHECKING:
    import asyncpg

__all__ = ["copy_out"]


async def copy_out(
    connection: asyncpg.Connection, text: str, *values: Any, take: Callable[[bytes], None]
) -> None:
    """Have ``take`` called with each piece of ``COPY … TO STDOUT (FORMAT binary)``.

    What it raises is raised here, once all is read: where it goes through asyncpg, that waits for
    the rest without end.

    Raises:
        LedgerPathError: there was no room for what came.
    """
    failed: list[Exception] = []

    async def output(piece: bytes) -> None:
        if not failed:
            try:
                take(piece)
            except Exception as exc:  # noqa: BLE001 - it is raised below, whatever it is
                failed.append(exc)

    await connection.copy_from_query(text, *values, output=output, format="binary")
    for exc in failed:
        if isinstance(exc, OSError):
            raise LedgerPathError(
                f"what the database sends cannot be written down: {exc.strerror or exc}; make room "
                "in the directory for temporary files, or name another by TMPDIR"
            ) from exc
        raise exc
