"""``verify postgresql://…``: whether a database has what was shipped to it, and all of it.

Owns what is counted: per writer dense numbers, the counts and exact sums of each batch, no number
twice; and, where the ledgers are at hand, the hash of every batch and every outcome against their
lines.  A database may know more than a ledger does: a line that was shipped, and damaged, erased or
pruned where it was written.  Changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.verdict import Compared, Verification, WriterVerdict
from litellm_ledger._records.gaps import Gap
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._records.line import Line, line_of

from .as_lines import line_of_row
from .laying import Rows, sealed
from .query import query
from .source import Source

if TYPE_CHECKING:
    import asyncpg

    from .link import Link

__all__ = ["verify"]

_MOST: Final = 100
"""Places that are told of one writer."""
_LINES: Final = 2_000


@dataclass(slots=True)
class _Writer:
    """What a database says of a writer, and what was found wrong."""

    said: Any
    batches: list[Any] = field(default_factory=list)
    gaps: list[Any] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def note(self, what: Any, detail: str, lines: int = 0) -> None:
        """Note a place."""
        if len(self.problems) < _MOST:
            self.problems.append(Problem(self.said["writer"], what, lines=lines, detail=detail))


def verify(link: Link, place: str, against: Sequence[Path]) -> Verification:
    """Check a database; with directories, also against the lines that were shipped from there.

    Raises:
        LedgerPathError: the database cannot be read, or a directory is no ledger.
    """
    writers = link.ask(_counted)
    for one in writers:
        _check_counts(one)
        _check_batches(one)
    compared = Compared() if against else None
    locally: dict[str, int] = {}
    if compared is not None:
        by_name = {one.said["writer"]: one for one in writers}
        for root in against:
            locally |= _compare(link, Source(root), by_name, compared)
    return Verification(
        path=place,
        writers=[_verdict(one, locally) for one in writers if not _adds(one)],
        adjustments=[problem for one in writers if _adds(one) for problem in one.problems],
        compared=compared,
    )


def _adds(one: _Writer) -> bool:
    return SegmentName(one.said["writer"], 1).adjusts


async def _counted(connection: asyncpg.Connection) -> list[_Writer]:
    from .schema import check

    await check(connection)
    found = {
        row["writer_id"]: _Writer(row) for row in await connection.fetch(query("verify_writers"))
    }
    for row in await connection.fetch(query("verify_batches")):
        found[row["writer_id"]].batches.append(row)
    for row in await connection.fetch(query("verify_gaps")):
        if row["writer_id"] in found:
            found[row["writer_id"]].gaps.append(row)
    orphans = await connection.fetchval(query("verify_orphans"))
    writers = [*found.values()]
    if orphans and writers:
        writers[0].note("altered", f"{orphans} outcomes in calls are of no writer", orphans)
    return writers


# -- by itself -------------------------------------------------------------------------------------

_COUNTS: Final = ("usage", "started", "added", "gaps", "damaged", "rejected")


def _check_counts(one: _Writer) -> None:
    """Check that a writer's numbers are dense, and that its counts are those of its rows."""
    said = one.said
    if sum(said[name] for name in _COUNTS) != said["shipped"]:
        one.note("altered", "its counts are not, in total, the numbers that are shipped")
    gone = any(gap["here"] for gap in one.gaps)
    if said["rows"] != said["usage"] and not gone:
        one.note(
            "altered",
            f"{said['usage']} outcomes were shipped, and {said['rows']} are there",
            abs(said["usage"] - said["rows"]),
        )
    if said["strange"]:
        one.note("altered", f"{said['strange']} calls in flight have numbers that were not shipped")
    for row in one.gaps:
        if row["filled"]:
            one.note(
                "altered", f"outcomes in the gap {row['first']} to {row['last']}", row["filled"]
            )


def _check_batches(one: _Writer) -> None:
    """Check that batches follow each other, and that each has what it says."""
    expected, cost = 1, 0
    for batch in one.batches:
        first, last = batch["first"], batch["last"]
        if first != expected:
            one.note("missing", f"no batch has the numbers {expected} to {first - 1}")
        expected = last + 1
        cost += int(batch["cost_picousd"])
        _check_batch(one, batch, f"numbers {first} to {last}")
    if expected != one.said["shipped"] + 1:
        one.note("missing", f"batches end with number {expected - 1}, and not with what is shipped")
    if cost != one.said["cost_picousd"]:
        one.note("altered", "its cost is not that of its batches")
    gone = [gap for gap in one.gaps if gap["here"]]
    usage = sum(batch["usage"] for batch in one.batches)
    there = sum(batch["numbers"] for batch in one.batches) + sum(gap["usage"] for gap in gone)
    if gone and usage != there:
        one.note("altered", f"{usage} outcomes were shipped, and {there} are there or were taken")
    here = sum(int(batch["cost"]) for batch in one.batches)
    if gone and cost != here + sum(int(gap["cost_picousd"]) for gap in gone):
        one.note("altered", "costs that are there and that were taken are not those shipped")


def _check_batch(one: _Writer, batch: Any, where: str) -> None:
    """Check that what a batch says is there, but for what was removed on purpose."""
    first, last = batch["first"], batch["last"]
    if sum(batch[name] for name in _COUNTS) != last - first + 1:
        one.note("altered", f"{where}: the counts of the batch are not those of its numbers")
    short = batch["usage"] - batch["numbers"]
    if short and not (batch["thinned"] and short > 0):  # _check_batches has the sums of those
        word = "missing" if short > 0 else "too many"
        one.note("altered", f"{where}: {abs(short)} outcomes {word}", abs(short))
    if batch["rows"] != batch["numbers"]:
        twice = batch["rows"] - batch["numbers"]
        one.note("altered", f"{where}: {twice} outcomes are there twice", twice)
    if not batch["thinned"] and not short and int(batch["cost"]) != batch["cost_picousd"]:
        one.note("altered", f"{where}: costs are not those that were shipped")
    if int(batch["gaps_now"]) != batch["gaps"]:
        one.note("altered", f"{where}: not as many gaps as were shipped")
    for name in ("damaged", "rejected", "added"):
        if int(batch[f"{name}_now"]) != batch[name]:
            one.note("altered", f"{where}: not as many {name} as were shipped")


def _verdict(one: _Writer, locally: Mapping[str, int]) -> WriterVerdict:
    said = one.said
    gaps = [Gap.of_reason(g["first"], g["last"], g["reason"], g["acked_until"]) for g in one.gaps
            if g["reason"] != "damaged"]  # fmt: skip

    def numbers(*reasons: str) -> int:
        return sum(gap.last - gap.first + 1 for gap in gaps if gap.reason in reasons)

    accepted = max(said["accepted"], said["shipped"], locally.get(said["writer"], 0))
    damaged = said["damaged"]
    problems = [*one.problems]
    for row in one.gaps:
        if row["reason"] == "damaged" and len(problems) < _MOST:
            where = f"numbers {row['first']} to {row['last']} held no record when they were shipped"
            count = row["last"] - row["first"] + 1
            problems.append(Problem(said["writer"], "damaged", lines=count, detail=where))
    lost = [gap for gap in gaps if gap.reason == "lost"]
    return WriterVerdict(
        writer=said["writer"],
        state="closed" if said["closed"] else "shipping",
        proves="exact" if said["closed"] else "at_least",
        accepted=accepted,
        found=said["rows"] + said["started"] + said["added"] + said["rejected"],
        lost=sum(gap.last - gap.first + 1 for gap in lost) + damaged,
        unacknowledged=sum(gap.unacknowledged for gap in lost),
        undecided=sum(gap.last - gap.first + 1 for gap in lost if gap.acked_until is None),
        quarantined=numbers("quarantined"),
        removed=numbers("erased", "expired"),
        unshipped=accepted - said["shipped"],
        unsettled=said["unsettled"],
        in_flight=said["in_flight"],
        problems=problems,
    )


# -- against the ledgers ---------------------------------------------------------------------------


def _compare(
    link: Link, source: Source, writers: Mapping[str, _Writer], compared: Compared
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
    link: Link, source: Source, one: _Writer, batch: Any, compared: Compared
) -> None:
    lines = _lines(source, one.said["writer"], batch["first"], batch["last"])
    where = f"numbers {batch['first']} to {batch['last']}"
    compared.batches += 1
    here = {number: line for number, raw in lines if (line := _outcome(raw)) is not None}
    there = {} if _adds(one) else _outcomes(link, one.said, batch["first"], batch["last"])
    differ = [number for number, line in here.items() if there.get(number, line) != line]
    gone = [number for number in here if number not in there] if not _adds(one) else []
    if differ:
        one.note("altered", f"{where}: outcome {differ[0]} is not what was written", len(differ))
    if gone:
        one.note("missing", f"{where}: outcome {gone[0]} was written, and is not there", len(gone))
    if hashlib.sha256(b"".join(raw for _, raw in lines)).digest() == batch["sha256"]:
        compared.same += 1
        return
    more = len(there.keys() - here.keys())
    compared.beyond += more
    if not more:
        one.note("altered", f"{where}: the hash of the batch is not that of its lines")


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

    async def ask(connection: asyncpg.Connection) -> None:
        rows = Rows()
        text = query("verify_lines").format(line=line_of_row(slim=False))

        async def take(piece: bytes) -> None:
            link.heard()
            for row in rows.take(piece):
                line = _outcome(sealed(row.line))
                if line is not None:
                    found[row.first] = line

        await connection.execute("SET LOCAL extra_float_digits = 1; SET LOCAL DateStyle = ISO")
        await connection.copy_from_query(
            text, said["writer_id"], first, last, output=take, format="binary"
        )

    link.ask(ask)
    return found
