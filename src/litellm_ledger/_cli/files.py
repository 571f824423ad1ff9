"""Files that a command writes: whole or not at all.

Owns their names: a file has its own when it is complete.  What is in it is the command's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Final, TextIO

from litellm_ledger._aggregates.formatting import counted

from .tables import aside

__all__ = ["form_of", "part_of", "printed_to", "target", "tell_written"]

_SUFFIXES: Final = {".json": "json", ".csv": "csv", ".md": "md"}
_ELSEWHERE: Final = {
    ".html": "litellm-ledger html FILE writes pages",
    ".jsonl": "litellm-ledger export writes JSON lines",
    ".parquet": "litellm-ledger export writes Parquet",
}


def form_of(out: Path) -> str | None:
    """Return the form that the name of a file asks for: ``json``, ``csv``, ``md``; else a table.

    Raises:
        ValueError: a form that this command cannot write; the text says which one does.
    """
    suffix = out.suffix.lower()
    if suffix in _ELSEWHERE:
        raise ValueError(f"-o {out}: {_ELSEWHERE[suffix]}; here a name ends in .json, .csv or .md")
    return _SUFFIXES.get(suffix)


@contextmanager
def printed_to(out: Path, *, private: bool) -> Iterator[None]:
    """Have what is printed go to a file, and say so at the end; ``-`` is standard output.

    Args:
        private: whether nobody but the owner may read it: it may hold prompts.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    with target(out) as to:
        if private and to is not sys.stdout and hasattr(os, "fchmod"):
            os.fchmod(to.fileno(), 0o600)
        with redirect_stdout(to):
            yield
    tell_written(out)


@contextmanager
def target(out: Path | None) -> Iterator[TextIO]:
    """Yield where to write: standard output, or a file that gets its name when it is whole."""
    if out is None or str(out) == "-":
        yield sys.stdout
        return
    with part_of(out) as part, part.open("w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def part_of(out: Path) -> Iterator[Path]:
    """Yield where to write a file; it is renamed when it is whole, and removed when it is not.

    Raises:
        FileNotFoundError: the directory that it is to be in is not there.
        IsADirectoryError: it is a directory.
    """
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a directory; name a file in it")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {out.parent}; create it, or name another")
    part = out.with_name(
        f".{os.urandom(8).hex()}.part"
    )  # a name that nobody can have put a link at
    try:
        yield part
        part.replace(out)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def tell_written(out: Path | None) -> None:
    """Say on standard error which file was written, if one was."""
    if out is not None and str(out) != "-":
        size = out.stat().st_size
        text = counted(size, "byte") if size < 1_000 else f"{size / 1_000:,.0f} kB"
        aside(f"wrote {out}, {text}")
