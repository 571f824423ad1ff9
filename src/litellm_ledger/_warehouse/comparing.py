"""The batches of a database beside the lines of the ledgers that are shipped to it.

Owns what may differ and why: a ledger may have lost, pruned or erased what the database has, and
the database what the ledger has.  Who was erased in one of both and not in the other is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
            lines = _lines(source, writer, batch["first"], batch["last"])
            _Batch(one, batch, lines).compare(link, compared)
    return found


_Numbered = list[tuple[int, bytes]]
"""Lines by their numbers."""


class _Batch:
    """One batch of a writer, beside the lines that a ledger has of its numbers."""

    def __init__(self, one: Examined, said: Any, lines: _Numbered) -> None:
        self._one = one
        self._said = said
        self._lines = lines
        self._where = f"numbers {said['first']} to {said['last']}"

    def compare(self, link: Link, compared: Compared) -> None:
        """Compare its outcomes, and the hash of its lines."""
        one, said = self._one, self._said
        compared.batches += 1
        here = {number: line for number, raw in self._lines if (line := _outcome(raw)) is not None}
        there = {} if adds(one) else _outcomes(link, one.said, said["first"], said["last"])
        erased, removed = self._removed()
        before = compared.not_erased
        if not adds(one):
            self._compare_outcomes(here, there, compared)
        hashed = b"".join(raw for _, raw in self._as_shipped())
        if hashlib.sha256(hashed).digest() == said["sha256"]:
            compared.same += 1
            return
        more = there.keys() - here.keys()
        excused = more or said["rewritten"] or compared.not_erased > before
        compared.not_erased += len(more & erased)
        compared.beyond += len(more - erased)
        if not (excused or removed - self._gaps(here=False).keys()):
            detail = f"{self._where}: the hash of the batch is not that of its lines"
            one.note("altered", detail)

    def _compare_outcomes(
        self, here: dict[int, Line], there: dict[int, Line], compared: Compared
    ) -> None:
        """Compare outcomes of the ledger with those of the database."""
        taken = self._gaps(here=True)
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
            what = f"{self._where}: outcome {altered[0]} is not what was written"
            self._one.note("altered", what, len(altered))
        if missing:
            what = f"{self._where}: outcome {missing[0]} was written, and is not there"
            self._one.note("missing", what, len(missing))

    def _as_shipped(self) -> _Numbered:
        """Return the lines that the hash is over: without those that are damaged, as they were."""
        reasons = self._gaps(here=False)
        doubted = [line for line in self._lines if reasons.get(line[0]) == "damaged"]
        if not doubted:
            return self._lines
        packed = Rows(self._one.said["writer"], 0, ())
        packed.extend(*zip(*doubted, strict=True))
        damaged = set(packed.damaged)
        return [line for line in self._lines if line[0] not in damaged]

    def _gaps(self, *, here: bool) -> dict[int, str]:
        """Return numbers that gaps stand for, and why: those made here, or the others."""
        return {
            number: gap["reason"]
            for gap in self._one.gaps
            if gap["here"] is here
            for number in self._within(gap["first"], gap["last"])
        }

    def _within(self, first: int, last: int) -> range:
        return range(max(first, self._said["first"]), min(last, self._said["last"]) + 1)

    def _removed(self) -> tuple[set[int], set[int]]:
        """Return the numbers that were erased in the ledger; with those that expired."""
        erased: set[int] = set()
        removed: set[int] = set()
        for _, raw in self._lines:
            if b'"kind":"gap"' in raw and (line := line_of(raw)) is not None and line.kind == "gap":
                gap = Gap.of(_head(raw))
                numbers = self._within(gap.first, gap.last)
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


def _lines(source: Source, writer: str, first: int, last: int) -> _Numbered:
    """Return the lines of these numbers, as far as the ledger has them."""
    found: _Numbered = []
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
