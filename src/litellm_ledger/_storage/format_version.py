"""Refusing a ledger that a newer version of this library has written to.

Owns the check and its wording.  Reads a few bytes, writes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from litellm_ledger._errors import UnsupportedFormat
from litellm_ledger._records.layout import (
    ADJUSTMENT_VERSION,
    LIVE,
    SEGMENTS,
    SegmentName,
    live_name,
    writer_of_live,
)
from litellm_ledger._records.line import newer_version

from .filesystem import names_of, open_file, partial

__all__ = ["newer_format", "refuse_newer"]

_MAGIC: Final = b"llmledg"  # the eighth byte is the version, from b"1" up
_NEWEST: Final = 16
_LONGEST: Final = 2**20


def refuse_newer(
    directory: Path,
    live: Iterable[str] | None = None,
    segments: Iterable[SegmentName] | None = None,
) -> None:
    """Raise ``UnsupportedFormat`` if a newer version of this library has written here.

    Looks at the live files, at the first line of the open segments and at that of the newest sealed
    ones, of records and of adjustments: enough, since an older version refuses to begin where a
    newer one has been.

    Args:
        live, segments: the writers with a live file, and the segments, where they were listed.
    """
    if live is None:
        found = (writer_of_live(file) for file in _list(directory / LIVE))
        live = [writer for writer in found if writer is not None]
    for writer in live:
        path = directory / LIVE / live_name(writer)
        with contextlib.suppress(OSError), open_file(path) as file:
            magic = file.read(8)
            if magic[:7] == _MAGIC and magic[7:] > b"1":
                raise newer_format(path, magic[7:].decode("ascii", "replace"))
    if segments is None:
        parsed = (SegmentName.parse(file) for file in _list(directory / SEGMENTS))
        segments = [name for name in parsed if name is not None]
    for known, kind in (
        (1, [name for name in segments if not name.adjusts]),
        (ADJUSTMENT_VERSION, [name for name in segments if name.adjusts]),
    ):
        sealed = sorted((n.writer, n.first, n.last) for n in kind if not n.open)
        names = [name for name in kind if name.open]
        names += [SegmentName(*name) for name in sealed[-_NEWEST:]]
        for name in names:
            path = directory / SEGMENTS / str(name)
            if directory in partial and not name.adjusts:
                continue  # not brought for that: what is elsewhere says itself of which version
            with contextlib.suppress(OSError), open_file(path) as segment:
                version = newer_version(segment.readline(_LONGEST))
                if version is not None and version > known:
                    raise newer_format(path, version, known)


def newer_format(path: Path, version: object, known: int = 1) -> UnsupportedFormat:
    """Return the error that says which file is of which version and what to do."""
    return UnsupportedFormat(
        f"{path} is of ledger format version {version} and this library knows version {known}; "
        "nothing was touched: upgrade litellm-ledger"
    )


def _list(directory: Path) -> list[str]:
    try:
        return list(names_of(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
