"""The segments of a ledger directory, listed and opened while others create and rename them.

Owns the listing and the opening.  Never writes, never reads a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from ._errors import LedgerPathError
from ._layout import ARCHIVE, LIVE, SEGMENTS, SegmentName

__all__ = ["by_writer", "list_segments", "open_segment"]


def list_segments(root: Path) -> list[SegmentName]:
    """List the segments of a ledger by writer and first number.

    Listed twice: a directory that is read while a file in it is renamed may show neither name.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read; the text says what to do.
    """
    before = _names(root)
    after = _names(root)
    there = {(name.writer, name.first) for name in after}
    after += [name for name in before if name.open and (name.writer, name.first) not in there]
    return sorted(after, key=_order)


def _order(name: SegmentName) -> tuple[str, int, int]:
    return name.writer, name.first, name.last or 0


def _names(root: Path) -> list[SegmentName]:
    try:
        listed = [SegmentName.parse(path.name) for path in (root / SEGMENTS).iterdir()]
    except FileNotFoundError:
        if (root / LIVE).is_dir() or (root / ARCHIVE).is_dir():
            return []
        raise LedgerPathError(_no_ledger(root)) from None
    except NotADirectoryError:
        raise LedgerPathError(
            f"{root} is a file, or its 'segments' is; give the directory of a ledger"
        ) from None
    except OSError as exc:
        raise LedgerPathError(
            f"cannot list {root / SEGMENTS}: {exc.strerror}; read it as the user who owns it"
        ) from exc
    return [name for name in listed if name is not None]


def _no_ledger(root: Path) -> str:
    where = "has no 'segments' directory" if root.is_dir() else "does not exist"
    return (
        f"no ledger at {root}: it {where}; give the directory that the client writes to "
        "(its ledger= argument, or set LITELLM_LEDGER_DIR)"
    )


def by_writer(names: Sequence[SegmentName]) -> Iterator[tuple[str, list[SegmentName]]]:
    """Group a sorted listing by writer."""
    for writer, group in groupby(names, key=lambda name: name.writer):
        yield writer, list(group)


def open_segment(root: Path, name: SegmentName) -> tuple[BinaryIO, SegmentName]:
    """Open a segment, under the name it was sealed to if that happened since it was listed.

    Raises:
        OSError: it is gone altogether, or cannot be read.
    """
    try:
        return open(root / SEGMENTS / str(name), "rb"), name
    except FileNotFoundError:
        if not name.open:
            raise
    for other in _names(root):
        if not other.open and (other.writer, other.first) == (name.writer, name.first):
            return open(root / SEGMENTS / str(other), "rb"), other
    return open(root / SEGMENTS / str(name), "rb"), name  # raises: it is gone
