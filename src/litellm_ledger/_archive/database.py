"""The database that reports run in: DuckDB, in memory, of this process alone, without a network.

Owns its settings and the error when it is not there.  Imported only when it is used.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._errors import MissingExtra

if TYPE_CHECKING:
    import duckdb

__all__ = ["available", "connect", "cores", "literally", "module", "refuse_without", "statement"]

_THREADS: Final = 4
_MEMORY: Final = "1GB"


def module() -> Any:
    """Return the module ``duckdb``.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import duckdb
    except ImportError:
        raise MissingExtra("duckdb", "report") from None
    return duckdb


def available() -> bool:
    """Whether DuckDB is installed."""
    try:
        module()
    except MissingExtra:
        return False
    return True


def refuse_without() -> None:
    """Say so if DuckDB is not installed.  Nothing is imported: that takes a tenth of a second.

    Raises:
        MissingExtra: it is not.
    """
    if find_spec("duckdb") is None:
        raise MissingExtra("duckdb", "report")


def connect(
    memory: str = _MEMORY, threads: int | None = None, *, ordered: bool = False
) -> duckdb.DuckDBPyConnection:
    """Open an empty database.  It never fetches an extension: its wheels bring what we need.

    Args:
        memory: beyond it, sorting and grouping go to a temporary directory of the system's.
        threads: at most this number; default one a core, at most four.
        ordered: read and write files in the order of their rows.

    Raises:
        MissingExtra: DuckDB is not installed.
    """
    connection: duckdb.DuckDBPyConnection = module().connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "memory_limit": memory,
            "preserve_insertion_order": ordered,
            "temp_directory": _spill(),
            "threads": threads or cores(),
        },
    )
    # Else times are those of the machine: `ts >= ?` of an aware time would mean another moment.
    connection.execute("SET TimeZone = 'UTC'")
    # Else DuckDB prints one to stdout at a prompt, in a notebook and under `python -c`.
    connection.execute("SET enable_progress_bar = false")
    # Else a name in a query that is no table is looked for among the variables of this program.
    connection.execute("SET python_enable_replacements = false")
    return connection


def cores() -> int:
    """How many processor cores a report may take: at most four."""
    return min(_THREADS, os.cpu_count() or 1)


def _spill() -> str:
    """Where to put what does not fit into memory; nowhere if there is no such place."""
    import tempfile

    try:
        return str(Path(tempfile.gettempdir(), f"litellm-ledger-{os.getpid()}"))
    except FileNotFoundError:
        return ""


def literally(path: Path) -> str:
    """Write a path so that the database takes nothing in it for a pattern, a home or an address."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in str(path.absolute()))


@cache
def statement(name: str) -> str:
    """Return the text of ``sql/<name>.sql``, its places in braces still open.

    Its comments are left out: what is put in their places may have line feeds, which end a comment.
    """
    text = (Path(__file__).parent / "sql" / f"{name}.sql").read_text("utf-8")
    return "".join(line for line in text.splitlines(True) if not line.startswith("--"))
