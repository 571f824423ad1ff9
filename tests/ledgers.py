"""Ledger directories for tests: built by hand, looked at line by line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tests.ledger_by_hand import HandMade

from litellm_ledger import Ledger
from litellm_ledger._maintenance.salvage import gap_line
from litellm_ledger._records.layout import (
    LIVE,
    RECOVERY,
    SEGMENTS,
    SegmentName,
    live_name,
    record_id,
)
from litellm_ledger._records.line import encode
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._records.scan import Head, scan
from litellm_ledger._storage import live_file as _live

if TYPE_CHECKING:
    from litellm_ledger import LiteLLMClient

WRITER = "20260102T030405Z-0123456789abcdef"
OTHER = "20260102T030406Z-fedcba9876543210"
START = datetime(2026, 1, 2, 3, 4, 5, 600, UTC)


def line(seq: int, kind: str = "usage", writer: str = WRITER, **fields: Any) -> bytes:
    """One valid line; a call of its own unless ``op`` names the number that began it."""
    op = fields.pop("op", seq)
    record = UsageRecord(
        id=record_id(writer, seq),
        seq=seq,
        kind=kind,
        ts=START + timedelta(seconds=op),
        operation=record_id(writer, op),
        attempt=fields.pop("attempt", 1),
        model=fields.pop("model", "m"),
        **fields,
    )
    return encode(record)


def gap(
    first: int,
    last: int,
    reason: Any = "lost",
    writer: str = WRITER,
    acked_until: int | None = None,
) -> bytes:
    return gap_line(writer, first, last, reason, acked_until)


def lines(first: int, last: int, writer: str = WRITER) -> list[bytes]:
    return [line(seq, writer=writer) for seq in range(first, last + 1)]


def call(seq: int, writer: str = WRITER, **fields: Any) -> list[bytes]:
    """A started record and its outcome: two lines."""
    return [
        line(seq, "started", writer, **fields),
        line(seq + 1, "usage", writer, op=seq, status="ok", **fields),
    ]


def directory(path: Path) -> Path:
    for part in (SEGMENTS, LIVE, RECOVERY):
        (path / part).mkdir(parents=True)
    return path


def put(
    root: Path, content: Iterable[bytes], first: int, last: int | None = None, writer: str = WRITER
) -> Path:
    """Write a segment: open, or sealed when ``last`` is given."""
    path = root / SEGMENTS / str(SegmentName(writer, first, last))
    path.write_bytes(b"".join(content))
    return path


def put_live(
    root: Path,
    accepted: int,
    *,
    oldest: int = 0,
    written: int | None = None,
    synced: int = 0,
    boot: Literal["this", "other"] = "this",
    writer: str = WRITER,
    level: _live.Durability | None = None,
) -> Path:
    """Write the live file of a dead writer: nobody holds its lock."""
    epoch = _live.boot_hash() + (boot == "other")
    return HandMade(root, writer).live(
        accepted, written, synced=synced, boot=epoch, oldest=oldest, level=level or ""
    )


def segment_names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / SEGMENTS).iterdir())


def kept(root: Path) -> dict[str, bytes]:
    """What is in ``recovery/``, by name."""
    return {path.name: path.read_bytes() for path in sorted((root / RECOVERY).iterdir())}


def found(root: Path, writer: str = WRITER) -> dict[int, bytes | str]:
    """What the ledger says of each number: its record's line, or why there is none.

    Every file is read as a reader in another language would: line by line, duplicates dropped where
    they are identical (and only there), a record before a gap.
    """
    records: dict[int, bytes] = {}
    gaps: dict[int, str] = {}
    for path in (root / SEGMENTS).iterdir():
        name = SegmentName.parse(path.name)
        if name is None or name.writer != writer:
            continue
        for head, content in scan(path.read_bytes(), writer, name.first).lines:
            if head.kind == "gap":
                for seq in range(head.seq, head.last + 1):
                    gaps[seq] = head.reason or ""
            else:
                assert records.setdefault(head.seq, content) == content
    return {seq: records.get(seq) or gaps[seq] for seq in sorted({*records, *gaps})}


def assert_finished(root: Path, writer: str = WRITER) -> None:
    """Sealed and whole files only, nothing temporary, no live file, no number without a word."""
    for path in (root / SEGMENTS).iterdir():
        name = SegmentName.parse(path.name)
        assert name is not None, f"left over: {path.name}"
        if name.writer == writer:
            assert not name.open, f"not sealed: {path.name}"
            content = scan(path.read_bytes(), writer, name.first)
            assert not content.torn, f"torn: {path.name}"
            assert not content.damaged, f"damaged: {path.name}"
            assert content.lines[-1][0].last == name.last, f"misnamed: {path.name}"
    assert not (root / LIVE / live_name(writer)).exists()
    assert not [name for name in kept(root) if name.endswith(".tmp")]
    numbers = list(found(root, writer))
    assert numbers == list(range(1, len(numbers) + 1)), "a number without a word"


def heads(content: Sequence[tuple[Head, bytes]]) -> list[int]:
    return [head.seq for head, _ in content]


def outcomes(client: LiteLLMClient) -> list[UsageRecord]:
    """The outcomes on an open client's ledger, of all writers."""
    assert client.usage.directory is not None
    return list(Ledger(client.usage.directory).records())


def contents(root: Path) -> frozenset[tuple[str, bytes | None]]:
    """Every file and directory: what is equal need not be looked at twice."""
    return frozenset(
        (str(path.relative_to(root)), path.read_bytes() if path.is_file() else None)
        for path in root.rglob("*")
    )
