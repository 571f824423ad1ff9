"""Lines of version 2 (adjustments, audits) are added to a ledger.

Owns the time that an addition has, and the writing: each segment is there whole or not at all.
Never changes a line.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from litellm_ledger._errors import LedgerPathError
from litellm_ledger._reading.adjustments import read_additions
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._records.adjustment import Adjustment, encode_addition
from litellm_ledger._records.audit import Audit
from litellm_ledger._records.layout import (
    ADJUSTMENT_VERSION,
    ADJUSTMENTS,
    SEGMENTS,
    SegmentName,
    record_id,
)
from litellm_ledger._storage.filesystem import FileSystem
from litellm_ledger._storage.segment import ROTATE_BYTES, write_sealed

__all__ = ["Audits", "moment_after", "moment_now", "new_writer", "write_additions"]

_TICK: Final = timedelta(microseconds=1)


def moment_after(additions: Iterable[Adjustment | Audit], root: Path) -> datetime:
    """Return the time of an addition: after all that is there, whatever the clock says.

    Raises:
        LedgerPathError: one of them has the last moment that there is.
    """
    now = datetime.now(UTC)
    try:
        return max([now, *(one.at + _TICK for one in additions)])
    except OverflowError:
        raise LedgerPathError(
            f"an adjustment or audit of the ledger at {root} is from the end of time: none can be "
            "made after it"
        ) from None


def moment_now(root: Path) -> datetime:
    """Return the time of what is added to a ledger now: as ``moment_after``.

    Raises:
        LedgerPathError: as of ``moment_after``; or the ledger cannot be read.
    """
    return moment_after(read_additions(root, Snapshot.take(root).adjustments, []), root)


def new_writer(at: datetime) -> str:
    """Return the name of a writer of additions."""
    seconds = max(0, int(at.timestamp()))
    return f"{ADJUSTMENTS}{seconds:010x}{secrets.token_hex(3)}"


def write_additions(root: Path, fs: FileSystem, writer: str, lines: Sequence[bytes]) -> list[str]:
    """Write lines of one writer, numbered from 1; return the segments, relative to the ledger.

    Raises:
        OSError: what the disk said.
    """
    written = []
    for first, last, data in _segments(lines):
        name = SegmentName(writer, first, last)
        write_sealed(fs, root / SEGMENTS, name, data, attempt=secrets.randbits(48))
        written.append(f"{SEGMENTS}/{name}")
    return written


class Audits:
    """The audits of one deed: by one writer, at one time.

    Args:
        did: what was done.
        at: when, as ``moment_after`` has it.
        who, why: stand on each.

    Attributes:
        adder: the writer of these audits.
        made: those that were added.
    """

    def __init__(self, did: str, at: datetime, who: str, why: str) -> None:
        self.adder = new_writer(at)
        self.made: list[Audit] = []
        self._same: dict[str, Any] = {"did": did, "at": at, "who": who, "why": why}

    def add(self, writer: str, **said: Any) -> None:
        """Add an audit about a writer; ``said``: the members that tell what was done."""
        seq = len(self.made) + 1
        audit = Audit(
            v=ADJUSTMENT_VERSION,
            id=record_id(self.adder, seq),
            seq=seq,
            kind="audit",
            writer=writer,
            **self._same,
            **said,
        )
        self.made.append(audit)

    def write(self, root: Path, fs: FileSystem) -> None:
        """Write them all.

        Raises:
            OSError: what the disk said.
        """
        write_additions(root, fs, self.adder, [encode_addition(audit) for audit in self.made])


def _segments(lines: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    first, size = 1, 0
    for number, line in enumerate(lines, 1):
        size += len(line)
        if size >= ROTATE_BYTES or number == len(lines):
            yield first, number, b"".join(lines[first - 1 : number])
            first, size = number + 1, 0
