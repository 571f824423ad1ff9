"""The segments of a ledger directory, listed and opened while others create and rename them.

Owns the listing and the opening.  Never writes, never reads a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from litellm_ledger._archive.archive import archived, read_archived
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._records.layout import ARCHIVE, LIVE, SEGMENTS, SegmentName
from litellm_ledger._storage.filesystem import open_file, refuse_links

__all__ = ["Vanished", "by_writer", "list_segments", "open_segment"]


class Vanished(FileNotFoundError):
    """An open segment went away while we read.  It held no record.

    Its writer, or recovery, removes one that has no whole line; with lines it would be found under
    its sealed name.  One that somebody deletes by hand shows as a hole in the numbers.
    """


def list_segments(root: Path) -> list[SegmentName]:
    """List the segments of a ledger by writer and first number.

    Listed twice: a directory that is read while a file in it is renamed may show neither name.
    Those in the archive come last: a segment is there before it goes from ``segments/``.

    Raises:
        MissingExtra: some are in the archive, and DuckDB is not installed.
        LedgerPathError: there is no ledger, or it cannot be read; the text says what to do.
    """
    refuse_links(root)
    before = _names(root)
    after = _names(root)
    there = {(name.writer, name.first) for name in after}
    after += [name for name in before if name.open and (name.writer, name.first) not in there]
    return sorted({*after, *archived(root)}, key=_order)


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
        Vanished: it was open when it was listed, and is gone under any name.
        OSError: it is gone, or cannot be read.
    """
    try:
        return open_file(root / SEGMENTS / str(name)), name
    except FileNotFoundError as exc:
        if not name.open:
            data = read_archived(root, name)
            if data is None:
                raise
            return BytesIO(data), name
        gone = exc
    for _ in range(2):  # a look during the renaming may show neither name
        for other in {*_names(root), *archived(root)}:
            if not other.open and (other.writer, other.first) == (name.writer, name.first):
                return open_segment(root, other)
    raise Vanished(gone.errno, gone.strerror, gone.filename) from None
