"""Ledger directories that have only a part of the ledger: other files are brought when read.

Owns the questions that listing and opening ask about one.  Never fetches anything: that is the
source's, which is registered here.  While there is no such ledger, all of this is a look at an
empty mapping.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol, TypeVar

from .filesystem import partial

__all__ = ["Source", "blocks", "bring", "footer", "listed", "size_of", "sources"]

_T = TypeVar("_T")


class Source(Protocol):
    """Where the files of a ledger are, of which its directory has some."""

    def names(self, part: str) -> Collection[str]:
        """Return the names of all files in a part of the ledger (``segments``, …)."""

    def size(self, part: str, name: str) -> int | None:
        """Return how many bytes a file has; ``None``: there is none."""

    def bring(self, part: str, names: Collection[str]) -> None:
        """Put files into the directory, those that there are.

        Raises:
            LedgerError: one cannot be fetched, or is not what it was when it was sent; no
                ``OSError``, which readers take for a damaged file.
        """

    def footer(self, part: str, name: str) -> bytes | None:
        """Return the footer of a Parquet file; ``None`` if it is none.

        Raises:
            LedgerError: as ``bring``.
        """

    def blocks(self, part: str, name: str) -> Iterator[bytes] | None:
        """Return the content of a file as it is there now, which is not kept.

        ``None``: take the one in the directory.

        Raises:
            LedgerError: as ``bring``; also between two blocks.
        """


sources: Final[dict[Path, Source]] = partial
"""The ledgers of which only a part is in their directory, by that."""


def _asked(path: Path, question: Callable[[Source, str, str], _T], otherwise: _T) -> _T:
    source = sources.get(path.parent.parent) if sources else None
    return otherwise if source is None else question(source, path.parent.name, path.name)


def listed(directory: Path) -> Collection[str] | None:
    """Return the names in a part of a ledger that is elsewhere; ``None``: it is all here."""
    source = sources.get(directory.parent) if sources else None
    return None if source is None else source.names(directory.name)


def bring(paths: Iterable[Path]) -> bool:
    """Have files of ledgers here, those that are elsewhere; return whether any was brought.

    Raises:
        LedgerError: one cannot be fetched.
    """
    if not sources:
        return False
    wanted: dict[Path, list[str]] = {}
    for path in paths:
        if path.parent.parent in sources:
            wanted.setdefault(path.parent, []).append(path.name)
    for directory, names in wanted.items():
        sources[directory.parent].bring(directory.name, names)
    return bool(wanted)


def size_of(path: Path) -> int:
    """Return the size of a file of a ledger, wherever it is.

    Raises:
        OSError: there is none.
    """
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        size = _asked(path, lambda source, part, name: source.size(part, name), None)
        if size is None:
            raise
        return size


def footer(path: Path) -> bytes | None:
    """Return the footer of a Parquet file that is elsewhere.

    Raises:
        LedgerError: it cannot be fetched.
    """
    return _asked(path, lambda source, part, name: source.footer(part, name), None)


def blocks(path: Path) -> Iterator[bytes] | None:
    """Return the content of a file that is elsewhere, which is not kept; ``None``: it is here.

    Raises:
        LedgerError: it cannot be fetched.
    """
    return _asked(path, lambda source, part, name: source.blocks(part, name), None)
