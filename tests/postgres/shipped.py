"""Ledgers for tests, and how they are put into a database: all that is certain, batch by batch."""

from __future__ import annotations

import asyncio
import random
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import NOON, OTHER_WRITER, WRITER, HandMade

from litellm_ledger._postgres.database import connect
from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._records.scan import scan
from litellm_ledger._shipping import rollup
from litellm_ledger._shipping.batch import pack, ship
from litellm_ledger._shipping.source import Source

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
)
"""Whole hours, halves and quarters; with and without a change of the clocks."""
TEAM = "team é'\""
_MONTH = re.compile(rb'"ts":"(\d{4})-(\d\d)')
_WRITERS = "SELECT writer_id, shipped, unsettled FROM litellm_ledger.writers WHERE writer = $1"


def ledger(tmp_path: Path, lines: int = 200, seed: int = 5) -> Path:
    """Two writers and four months, in any order: retries, unsettled calls, marks, damage."""
    rng = random.Random(seed)
    root = tmp_path / "usage"
    for writer in (WRITER, OTHER_WRITER):
        hand = HandMade(root, writer)
        found: list[bytes] = []
        late: list[tuple[int, dict[str, Any]]] = []
        while len(found) < lines // 2:
            seq = len(found) + 1
            tags = {"user": f"user-{rng.randrange(10, 40)}", TEAM: rng.choice(("ä", "", "b"))}
            ts = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(119 * 86_400))
            call = {
                "ts": rng.choice((ts, ts, ts, ts, ts, ts, ts, ts, None)),
                "model": rng.choice(("m", "n")),
                "tags": rng.choice((tags, tags, tags, {**tags, "n": "\0"}, None)),
                "status": rng.choice(("ok", "ok", "error")),
                "cost": rng.choice((None, Decimal(rng.randrange(10**9)) / 10**9)),
                "input_tokens": rng.randrange(10**6),
                "attempt": rng.choice((1, 1, 2)),
                "operation": hand.id(seq),
            }
            start = {key: call[key] for key in ("ts", "tags", "attempt", "operation")}
            found.append(hand.line(seq, kind="started", **start))
            if rng.random() < 0.05:
                continue  # in flight
            if rng.random() < 0.15:
                found.append(hand.line(seq + 1, **{**call, "status": "unsettled"}))
                late.append((seq, call))
            else:
                found.append(hand.line(seq + 1, **call))
        found += [hand.line(len(found) + 1 + at, **call) for at, (_, call) in enumerate(late)]
        found.append(hand.gap(len(found) + 1, len(found) + 4))
        hand.sealed(1, len(found) + 3, found)
    return root


def filled(root: Path, last: int = 30) -> HandMade:
    hand = HandMade(root)
    lines = []
    for seq in range(1, last, 2):
        lines.append(hand.started(seq))
        lines.append(
            hand.outcome(
                seq + 1,
                seq,
                ts=NOON,
                cost=Decimal(seq) / 1000,
                input_tokens=seq,
                tags={"user": "a", "b": "ü"},
                meta={"n": 1},
                status="ok",
            )
        )
    hand.sealed(1, last, lines)
    return hand


def load(url: str, *roots: Path, lines: int = 500) -> None:
    """Ship ledgers, with this number of lines in a batch."""
    asyncio.run(_load(url, roots, lines))


async def _load(url: str, roots: tuple[Path, ...], lines: int) -> None:
    connection = await connect(url)
    try:
        for root in roots:
            source = Source(root)
            source.lookout.look(afresh=True)
            for writer in list(source.lookout.standings):
                await _ship_writer(connection, source, writer, lines)
    finally:
        await connection.close()


async def _ship_writer(connection: Any, source: Source, writer: str, lines: int) -> None:
    await connection.execute(
        "INSERT INTO litellm_ledger.writers (writer) VALUES ($1) ON CONFLICT DO NOTHING", writer
    )
    writer_id, shipped, unsettled = await connection.fetchrow(_WRITERS, writer)
    while True:
        found = source.read(writer, shipped + 1, lines)
        if found.last < found.first:
            break
        months = await _months(connection, found.lines)
        parcel = pack(found, writer_id, months)
        await ship(connection, writer_id, parcel, accepted=found.last, unsettled=bool(unsettled))
        # Or another one has shipped it.
        writer_id, shipped, unsettled = await connection.fetchrow(_WRITERS, writer)
    closed = source.lookout.standings[writer].closed
    await connection.execute(
        "UPDATE litellm_ledger.writers SET closed = $2 WHERE writer_id = $1", writer_id, closed
    )


async def _months(connection: Any, lines: list[bytes]) -> list[int]:
    """Return the months that have a partition, after those of these lines were made."""
    found = {int(year + month) for raw in lines for year, month in _MONTH.findall(raw)}
    rows = await connection.fetch("SELECT litellm_ledger.make_partitions($1)", sorted(found))
    return [row[0] for row in rows]


def seal_all(root: Path) -> None:
    """Seal what is open, without what is torn: as if its writers had ended well."""
    for path in sorted((root / SEGMENTS).glob("*.open")):
        name = SegmentName.parse(path.name)
        assert name is not None
        lines = scan(path.read_bytes(), name.writer, name.first).lines
        path.write_bytes(b"".join(raw for _, raw in lines))
        path.rename(path.with_name(str(name.sealed(lines[-1][0].last))))


def roll(url: str, most: int | None = None) -> int:
    """Bring the sums forward; return how many numbers were added.

    Args:
        most: in one step, and of each writer at most this many.
    """
    with pytest.MonkeyPatch.context() as patch:
        if most is not None:
            patch.setattr(rollup, "_SHARE", most)
        return asyncio.run(_roll(url, once=most is not None))


async def _roll(url: str, *, once: bool) -> int:
    connection = await connect(url)
    done = 0
    try:
        while more := await rollup.bring_forward(connection):
            done += more
            if once:
                break
    finally:
        await connection.close()
    return done
