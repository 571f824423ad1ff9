"""Statements that reading a database takes, each in a file of ``queries/``.

Owns how their text is found.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["query"]


@cache
def query(name: str) -> str:
    """Return the text of ``<name>.sql``, its places in braces still open.

    Its comments are left out: what is put in their places may have line feeds, which end a comment.
    """
    text = (Path(__file__).parent / "queries" / f"{name}.sql").read_text("utf-8")
    return "".join(line for line in text.splitlines(True) if not line.startswith("--"))
