"""What tests of shipping share: a shipper, and what must be true of a database afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from litellm_ledger._postgres import database
from litellm_ledger._records.audit import addition_of
from litellm_ledger._records.line import line_of
from litellm_ledger._shipping.road import Road
from litellm_ledger._shipping.shipper import Shipper
from litellm_ledger._shipping.source import Source

KINDS = ("usage", "started", "added", "gaps", "damaged", "rejected")


async def ship(url: str, *roots: Path, rounds: int = 10_000, **options: Any) -> Shipper:
    """Ship everything that can be shipped now."""
    connect = options.pop("connect", database.connect)
    shipper = Shipper(url, [Road(root, "test", **options) for root in roots], connect=connect)
    failed = 0
    for _ in range(rounds):
        if not await shipper.step(all_now=True):
            failed += 1
            if failed > 3 or shipper.failing is None:
                break
    await shipper.close()
    return shipper


async def ask(url: str, query: str, *args: Any) -> list[Any]:
    connection = await database.connect(url)
    try:
        return list(await connection.fetch(query, *args))
    finally:
        await connection.close()


async def told(url: str) -> dict[str, Any]:
    """What the database says of each writer."""
    return {row["writer"]: row for row in await ask(url, "SELECT * FROM litellm_ledger.writers")}


class Truth:
    """What a ledger has of one writer now, read in one go and told apart line by line."""

    def __init__(self, source: Source, writer: str) -> None:
        self.top = source.lookout.standings[writer].top
        found = source.read(writer, 1, 10**9, 10**12)
        assert found.last == self.top
        self.lines: dict[int, bytes] = {}
        self.kinds: dict[int, str] = {}
        self.costs: dict[int, int] = {}
        for first, last in found.damaged:
            self.kinds.update(dict.fromkeys(range(first, last + 1), "damaged"))
        for number, raw in zip(found.numbers, found.lines, strict=True):
            self._take(number, raw)

    def _take(self, number: int, raw: bytes) -> None:
        line = line_of(raw)
        if line is None:
            self.kinds[number] = "damaged" if addition_of(raw) is None else "added"
        elif line.kind == "gap":
            last = line.gap_until or number
            self.kinds.update(dict.fromkeys(range(number, last + 1), "gaps"))
        else:
            self.kinds[number] = line.kind
            self.costs[number] = int(line.cost or 0) if line.kind == "usage" else 0
        if self.kinds[number] != "damaged":
            self.lines[number] = raw

    def counts(self, first: int, last: int) -> dict[str, int]:
        kinds = [self.kinds[number] for number in range(first, last + 1)]
        return {kind: kinds.count(kind) for kind in KINDS}

    def sha256(self, first: int, last: int) -> bytes:
        lines = [raw for number, raw in self.lines.items() if first <= number <= last]
        return hashlib.sha256(b"".join(lines)).digest()

    def cost(self, first: int, last: int) -> int:
        return sum(cost for number, cost in self.costs.items() if first <= number <= last)


async def assert_exactly_once(url: str, roots: Iterable[Path]) -> int:
    """Every number up to the top of each writer is there once, and says what the ledger says.

    Returns how many numbers there are.
    """
    writers = await told(url)
    everything = 0
    for root in roots:
        source = Source(root)
        source.lookout.look()
        for writer, standing in source.lookout.standings.items():
            if not standing.top:
                continue
            truth = Truth(source, writer)
            said = writers[writer]
            assert said["shipped"] == truth.top, f"{writer}: shipped {said['shipped']}"
            await _assert_batches(url, said, truth)
            await _assert_rows(url, said["writer_id"], truth)
            everything += truth.top
    return everything


async def _assert_batches(url: str, said: Any, truth: Truth) -> None:
    query = "SELECT * FROM litellm_ledger.batches WHERE writer_id = $1 ORDER BY first"
    sums = dict.fromkeys(KINDS, 0)
    expected = 1
    for one in await ask(url, query, said["writer_id"]):
        first, last = one["first"], one["last"]
        assert first == expected, "batches follow each other"
        expected = last + 1
        if one["rejected"]:
            assert hashlib.sha256(truth.lines.pop(first)).digest() == one["sha256"]
            truth.kinds[first], truth.costs[first] = "rejected", 0
        else:
            assert one["sha256"] == truth.sha256(first, last)
        assert one["cost_picousd"] == truth.cost(first, last)
        counts = {kind: one[kind] for kind in KINDS}
        assert counts == truth.counts(first, last)
        sums = {kind: sums[kind] + counts[kind] for kind in KINDS}
    assert expected == truth.top + 1
    assert sums == {kind: said[kind] for kind in KINDS}
    assert said["cost_picousd"] == truth.cost(1, truth.top)


async def _assert_rows(url: str, writer_id: int, truth: Truth) -> None:
    for table, kind in (("calls", "usage"), ("additions", "added"), ("rejected", "rejected")):
        query = f"SELECT seq FROM litellm_ledger.{table} WHERE writer_id = $1 ORDER BY seq"
        rows = [row["seq"] for row in await ask(url, query, writer_id)]
        expected = sorted(number for number, one in truth.kinds.items() if one == kind)
        assert rows == expected, f"{table}: once, and all"
    query = "SELECT first, last, reason FROM litellm_ledger.gaps WHERE writer_id = $1"
    without = {
        number: "damaged" if row["reason"] == "damaged" else "gaps"
        for row in await ask(url, query, writer_id)
        for number in range(row["first"], row["last"] + 1)
    }
    assert without == {n: one for n, one in truth.kinds.items() if one in ("gaps", "damaged")}


__all__ = ["KINDS", "Truth", "ask", "assert_exactly_once", "ship", "told"]
