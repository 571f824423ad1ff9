"""Ledgers built by hand, byte for byte, for tests of what reads them. Uses no writer of ours."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

from litellm_ledger._maintenance.salvage import gap_line
from litellm_ledger._records.layout import LIVE, SEGMENTS, SegmentName, live_name, record_id
from litellm_ledger._records.line import encode
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._storage.live_file import MAGIC, boot_hash

WRITER = "20250101T000000Z-00000000000000aa"
OTHER_WRITER = "20250102T000000Z-00000000000000bb"
NOON = datetime(2025, 1, 1, 12, 0, 0, 1, tzinfo=UTC)


def framed(body: bytes) -> bytes:
    """A line of any program's: whatever stands in it, its checksum holds."""
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def altered(line: bytes, old: bytes, new: bytes) -> bytes:
    """The line as if it had been written with something else in it."""
    return framed(line[:-19].replace(old, new))


def newer(line: bytes) -> bytes:
    """The line in the next version of the format."""
    return altered(line, b'{"v":1', b'{"v":2')


def flip(content: bytes, at: int = 60, bit: int = 0) -> bytes:
    """The same bytes with one bit flipped."""
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


class HandMade:
    """One writer's files in a ledger directory."""

    def __init__(self, root: Path, writer: str = WRITER) -> None:
        self.root = root
        self.writer = writer
        for part in (SEGMENTS, LIVE):
            (root / part).mkdir(parents=True, exist_ok=True)

    def id(self, seq: int) -> str:
        return record_id(self.writer, seq)

    def line(self, seq: int, **fields: Any) -> bytes:
        given = {"kind": "usage", "ts": NOON, "model": "m", **fields}
        return encode(UsageRecord(id=self.id(seq), seq=seq, **given))

    def lines(self, first: int, last: int, **fields: Any) -> list[bytes]:
        return [self.line(seq, **fields) for seq in range(first, last + 1)]

    def foreign(self, seq: int, members: str) -> bytes:
        """A line of another program's, in a form of its own."""
        head = f'{{"v":1,"id":"{self.id(seq)}","seq":{seq},"kind":"usage",'
        return framed(f"{head}{members}".encode())

    def gap(
        self, first: int, last: int, reason: Any = "lost", acked_until: int | None = None
    ) -> bytes:
        return gap_line(self.writer, first, last, reason, acked_until)

    def started(self, seq: int) -> bytes:
        return self.line(seq, kind="started", operation=self.id(seq), attempt=1)

    def outcome(self, seq: int, of: int, **fields: Any) -> bytes:
        return self.line(seq, operation=self.id(of), attempt=1, **fields)

    def sealed(self, first: int, last: int, lines: Sequence[bytes] | None = None) -> Path:
        body = self.lines(first, last) if lines is None else lines
        return self._put(SegmentName(self.writer, first, last), b"".join(body))

    def filled(self, *outcomes: dict[str, Any]) -> HandMade:
        """Seal a segment of these outcomes, numbered from 1."""
        lines = [self.line(seq, **fields) for seq, fields in enumerate(outcomes, 1)]
        self.sealed(1, len(lines), lines)
        return self

    def open(self, first: int, lines: Sequence[bytes], tail: bytes = b"") -> Path:
        return self._put(SegmentName(self.writer, first), b"".join(lines) + tail)

    def _put(self, name: SegmentName, data: bytes) -> Path:
        path = self.root / SEGMENTS / str(name)
        path.write_bytes(data)
        return path

    def live(
        self,
        accepted: int,
        written: int | None = None,
        *,
        synced: int | None = None,
        boot: int | None = None,
        oldest: int = 0,
        level: str = "",
    ) -> Path:
        path = self.root / LIVE / live_name(self.writer)
        boot = boot_hash() if boot is None else boot
        written = accepted if written is None else written
        synced = written if synced is None else synced
        owner = 4242 + 2**32 * ["", "queued", "written", "synced"].index(level)
        cells = (MAGIC, boot, owner, accepted, written, synced, oldest, 0)
        path.write_bytes(struct.pack("=8Q", *cells))
        return path

    @contextmanager
    def alive(
        self,
        accepted: int,
        written: int | None = None,
        *,
        synced: int | None = None,
        level: str = "",
    ) -> Iterator[None]:
        with self.live(accepted, written, synced=synced, level=level).open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield


def spoil(path: Path, line: int, at: int = 40) -> None:
    """Change one byte in the middle of a line, given by its index."""
    content = path.read_bytes()
    before = sum(map(len, content.splitlines(keepends=True)[:line]))
    path.write_bytes(flip(content, before + at))
