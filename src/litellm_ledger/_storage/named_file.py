"""Files outside a ledger that a user names: settings, budgets, anchors.

Owns the words for one that cannot be read.  What is in it is the caller's.
"""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path

__all__ = ["cannot_read", "open_named", "text_of"]


def open_named(path: Path, what: str, do: str) -> BufferedReader:
    """Open a file that a user has named.

    Args:
        path: as it was given.
        what: it should be: ``file of budgets``.
        do: what to do where it is none: ``give a budgets.toml``.

    Raises:
        OSError: it cannot be opened, of the kind that the system says; the text says what to do.
    """
    try:
        return path.open("rb")
    except OSError as exc:
        raise cannot_read(exc, path, what, do) from None


def cannot_read(exc: OSError, path: object, what: str, do: str) -> OSError:
    """Return the same error in words; the arguments are those of ``open_named``."""
    if isinstance(exc, FileNotFoundError):
        said = f"there is no {what} {path}"
    elif isinstance(exc, IsADirectoryError):
        said = f"{path} is a directory, and no {what}"
    else:
        said = f"the {what} {path} cannot be read: {exc.strerror or exc}"
    return type(exc)(f"{said}; {do}")


def text_of(data: bytes) -> str:
    """Decode what a user has written.

    Raises:
        ValueError: it is not UTF-8; the text says where and what to do.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise ValueError(
            f"it is not UTF-8: byte 0x{data[exc.start]:02x} in line {line}; save it as UTF-8"
        ) from None
