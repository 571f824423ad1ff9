"""The batches of a database beside the lines of the ledgers that are shipped to it.

Owns what may differ and why: a ledger may have lost, pruned or erased what the database has, and
the database what the ledger has.  Who was erased in one of both and not in the other is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from litellm_ledger._postgres.query import query
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.verdict import Compared
from litellm_ledger._records.gaps import Gap
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._records.line import Line, line_of
from litellm_ledger._records.scan import Head
from litellm_ledger._shipping.rows import Rows
from litellm_ledger._shipping.source import Source

from .as_lines import TEXTS, line_of_row
from .stream import Row, sealed, stream

if TYPE_CHECKING:
    import asyncpg

    from litellm_ledger._postgres.link import Link

__all__ = ["MOST", "Examined", "adds", "compare"]

MOST: Final = 100
"""Places that are told of one writer."""
_LINES: Final = 2_000
_head: Final = msgspec.json.Decoder(Head).decode


@dataclass(slots=True)
class Examined:
    """What a database says of a writer, and what was found wrong."""

    said: Any
    batches: list[Any] = field(default_factory=list)
    gaps: list[Any] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def note(self, what: Any, detail: str, lines: int = 0) -> None:
        """Note a place."""
        if len(self.problems) < MOST:
            self.problems.append(Problem(self.said["writer"], what, lines=lines, detail=detail))


def adds(one: Examined) -> bool:
    """Whether a writer is one of adjustments and audits."""
    return SegmentName(one.said["writer"], 1).adjusts


def compare(
    link: Link, source: Source, writers: Mapping[str, Examined], compared: Compared
) -> dict[str, int]:
    """Compare batches with the lines of a ledger; return the last number of each of its writers."""
    source.lookout.look(afresh=True)
    found = {}
    for writer, standing in source.lookout.standings.items():
        found[writer] = standing.accepted
        one = writers.get(writer)
        if one is None:
            compared.unshipped += standing.accepted
            continue
        compared.unshipped += max(0, standing.accepted - one.said["shipped"])
        for batch in one.batches:
            _compare_batch(link, source, one, batch, compared)
    return found


def _compare_batch(
    link: Link, source: Source, one: Examined, batch: Any, compared: Compared
) -> None:
    lines = _lines(source, one.said["writer"], batch["first"], batch["last"])
    compared.batches += 1
    here = {number: line for number, raw in lines if (line := _outcome(raw)) is not None}
    there = {} if adds(one) else _outcomes(link, one.said, batch["first"], batch["last"])
    erased, removed = _removed(lines, batch)
    before = compared.not_erased
    if not adds(one):
        _compare_outcomes(one, batch, here, there, compared)
    hashed = b"".join(raw for _, raw in _as_shipped(one, batch, lines))
    if hashlib.sha256(hashed).digest() == batch["sha256"]:
        compared.same += 1
        return
    more = there.keys() - here.keys()
    excused = more or batch["rewritten"] or compared.not_erased > before
    compared.not_erased += len(more & erased)
    compared.beyond += len(more - erased)
    if not (excused or removed - _gaps(one, batch, here=False).keys()):
        one.note("altered", f"{_where(batch)}: the hash of the batch is not that of its lines")


def _as_shipped(
    one: Examined, batch: Any, lines: list[tuple[int, bytes]]
) -> list[tuple[int, bytes]]:
    """Return the lines that the hash is over: without those that were damaged, and still are."""
    reasons = _gaps(one, batch, here=False)
    doubted = [line for line in lines if reasons.get(line[0]) == "damaged"]
    if not doubted:
        return lines
    packed = Rows(one.said["writer"], 0, ())
    packed.extend(*zip(*doubted, strict=True))
    damaged = set(packed.damaged)
    return [line for line in lines if line[0] not in damaged]


def _where(batch: Any) -> str:
    return f"numbers {batch['first']} to {batch['last']}"


def _compare_outcomes(
    one: Examined, batch: Any, here: dict[int, Line], there: dict[int, Line], compared: Compared
) -> None:
    """Compare outcomes of the ledger with those of the database."""
    taken = _gaps(one, batch, here=True)
    altered, missing = [], []
    for number, line in here.items():
        other = there.get(number)
        if other is None:
            reason = taken.get(number)
            compared.gone += reason == "expired"
            compared.only_erased += reason == "erased"
            if reason is None:
                missing.append(number)
        elif _is_without_names(line, other):
            compared.not_erased += 1
        elif _is_without_names(other, line):
            compared.only_erased += 1
        elif other != line:
            altered.append(number)
    if altered:
        what = f"{_where(batch)}: outcome {altered[0]} is not what was written"
        one.note("altered", what, len(altered))
    if missing:
        what = f"{_where(batch)}: outcome {missing[0]} was written, and is not there"
        one.note("missing", what, len(missing))


def _gaps(one: Examined, batch: Any, *, here: bool) -> dict[int, str]:
    """Return numbers of a batch that gaps stand for, and why: those made here, or the others."""
    return {
        number: gap["reason"]
        for gap in one.gaps
        if gap["here"] is here
        for number in _within(gap["first"], gap["last"], batch)
    }


def _within(first: int, last: int, batch: Any) -> range:
    return range(max(first, batch["first"]), min(last, batch["last"]) + 1)


def _removed(lines: Sequence[tuple[int, bytes]], batch: Any) -> tuple[set[int], set[int]]:
    """Return the numbers of a batch that were erased in the ledger; with those that expired."""
    erased: set[int] = set()
    removed: set[int] = set()
    for _, raw in lines:
        if b'"kind":"gap"' in raw and (line := line_of(raw)) is not None and line.kind == "gap":
            gap = Gap.of(_head(raw))
            numbers = _within(gap.first, gap.last, batch)
            removed.update(numbers if gap.reason in ("erased", "expired") else ())
            erased.update(numbers if gap.reason == "erased" else ())
    return erased, removed


_NAMES: Final = ("tags", "call_id", "response_id", "meta", "content", "price_version")
_MAY_NAME: Final = (
    "call", "model", "response_model", "provider", "error", "cost_source", "operation",
)  # fmt: skip


def _is_without_names(line: Line, other: Line) -> bool:
    """Whether a line is what an erasure that keeps amounts leaves of another."""
    if line == other or any(getattr(line, name) is not None for name in _NAMES):
        return False
    named = dict.fromkeys(_NAMES) | {name: getattr(line, name) for name in _MAY_NAME}
    return msgspec.structs.replace(other, **named) == line


def _lines(source: Source, writer: str, first: int, last: int) -> list[tuple[int, bytes]]:
    """Return the lines of these numbers, as far as the ledger has them."""
    found: list[tuple[int, bytes]] = []
    while first <= last:
        stretch = source.read(writer, first, _LINES)
        if stretch.last < stretch.first:
            break
        found += [
            (number, raw)
            for number, raw in zip(stretch.numbers, stretch.lines, strict=True)
            if number <= last
        ]
        first = stretch.last + 1
    return found


def _outcome(raw: bytes) -> Line | None:
    line = line_of(raw)
    return _plain(line) if line is not None and line.kind == "usage" else None


def _plain(line: Line) -> Line:
    """Return a line as it can be compared: nothing is as good as an empty object."""
    return msgspec.structs.replace(line, tags=line.tags or None, meta=line.meta or None)


def _outcomes(link: Link, said: Any, first: int, last: int) -> dict[int, Line]:
    """Return the outcomes that the database has of these numbers."""
    found: dict[int, Line] = {}

    def put(row: Row) -> None:
        line = _outcome(sealed(row.line))
        if line is not None:
            found[row.first] = line

    async def ask(connection: asyncpg.Connection) -> None:
        await connection.execute(TEXTS)
        text = query("verify_lines").format(line=line_of_row(slim=False))
        place = said["writer_id"], first, last
        await stream(connection, text, *place, put=put, heard=link.heard)

    link.ask(ask)
    return found
