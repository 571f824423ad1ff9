"""``verify postgresql://…``: whether a database has what was shipped to it, and all of it.

Owns what is counted: per writer dense numbers, the counts and exact sums of each batch, no number
twice, and what deeds say of rows that were taken away.  ``comparing`` does it where the ledgers are
at hand.  Changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from litellm_ledger._aggregates.formatting import counted
from litellm_ledger._postgres.query import query
from litellm_ledger._reading.erasures import Erasure
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.verdict import Compared, Prune, Verification, WriterVerdict
from litellm_ledger._records.gaps import Gap
from litellm_ledger._records.layout import is_writer
from litellm_ledger._shipping.rollup import quarter_of
from litellm_ledger._shipping.source import Source

from .comparing import MOST, Examined, adds, compare

if TYPE_CHECKING:
    import asyncpg

    from litellm_ledger._postgres.link import Link

__all__ = ["verify"]


class _Deed(NamedTuple):
    """What was taken away by one transaction."""

    at: datetime
    did: str
    who: str
    why: str
    detail: dict[str, Any]


def verify(link: Link, place: str, against: Sequence[Path]) -> Verification:
    """Check a database; with directories, also against the lines that were shipped from there.

    Raises:
        LedgerPathError: the database cannot be read, or a directory is no ledger.
    """
    writers, deeds, others = link.ask(_counted)
    for one in writers:
        _check_counts(one)
        _check_strange(one)
        _check_batches(one)
    _check_deeds(writers, deeds)
    compared = Compared() if against else None
    locally: dict[str, int] = {}
    if compared is not None:
        by_name = {one.said["writer"]: one for one in writers}
        for root in against:
            locally |= compare(link, Source(root), by_name, compared)
    return Verification(
        path=place,
        place="database",
        writers=[_verdict(one, locally) for one in writers if not adds(one)],
        adjustments=[
            *(problem for one in writers if adds(one) for problem in one.problems),
            *others,
        ],
        erasures=_erasures(deeds),
        months=_pruned(deeds),
        compared=compared,
    )


async def _counted(
    connection: asyncpg.Connection,
) -> tuple[list[Examined], list[_Deed], list[Problem]]:
    from litellm_ledger._postgres.schema import check

    await check(connection)
    found = {
        row["writer_id"]: Examined(row) for row in await connection.fetch(query("verify_writers"))
    }
    for row in await connection.fetch(query("verify_batches")):
        found[row["writer_id"]].batches.append(row)
    for row in await connection.fetch(query("verify_gaps")):
        if row["writer_id"] in found:
            found[row["writer_id"]].gaps.append(row)
    writers = [*found.values()]
    others = [
        Problem(
            "litellm_ledger",
            "altered",
            lines=rows,
            detail=f"of {table}, {_are(rows, 'row')} of no writer",
        )
        for table, rows in await connection.fetch(query("verify_orphans"))
    ]
    text = query("verify_sums").format(quarter=quarter_of("c.ts"))
    if quarters := await connection.fetchval(text):
        detail = (
            f"sums of {counted(quarters, 'quarter')} of an hour are not those of the outcomes: "
            "make them anew by litellm-ledger database rebuild"
        )
        others.append(Problem("litellm_ledger", "altered", lines=quarters, detail=detail))
    deeds = [
        _Deed(row["at"], row["did"], row["who"], row["why"], msgspec.json.decode(row["detail"]))
        for row in await connection.fetch(query("deeds"))
    ]
    return writers, deeds, others


# -- by itself -------------------------------------------------------------------------------------

_COUNTS: Final = ("usage", "started", "added", "gaps", "damaged", "rejected")


def _are(count: int, noun: str, verbs: str = "is|are") -> str:
    """Write a count with its noun and the verb that goes with it."""
    one, many = verbs.split("|")
    return f"{counted(count, noun)} {one if count == 1 else many}"


def _check_counts(one: Examined) -> None:
    """Check that a writer's numbers are dense, and that its counts are those of its rows."""
    said = one.said
    if sum(said[name] for name in _COUNTS) != said["shipped"]:
        one.note("altered", "its counts are not, in total, the numbers that are shipped")
    if said["rows"] != said["usage"]:
        one.note(
            "altered",
            f"{_are(said['usage'], 'outcome')} to be there, and {said['rows']:,} found",
            abs(said["usage"] - said["rows"]),
        )
    for name, of in (("gaps", False), ("damaged", True)):
        numbers = sum(
            gap["last"] - gap["first"] + 1 for gap in one.gaps if (gap["reason"] == "damaged") is of
        )
        if numbers != said[name]:
            one.note("altered", f"{said[name]:,} {name} should be there, and {numbers:,} found")
    for row in one.gaps:
        if row["filled"]:
            one.note(
                "altered", f"outcomes in the gap {row['first']} to {row['last']}", row["filled"]
            )


def _check_strange(one: Examined) -> None:
    """Check that a writer has nothing that no shipper writes."""
    said = one.said
    if not is_writer(said["writer"]):
        one.note("altered", "no ledger gives a writer this name")
    for name, noun in (("beyond", "line"), ("strange", "started record")):
        if said[name]:
            lines = _are(said[name], noun, "has|have")
            one.note("altered", f"{lines} numbers that were not shipped")
    if said["unbeaten"]:
        outcomes = _are(said["unbeaten"], "outcome", "counts|count")
        one.note("altered", f"{outcomes} nowhere, and nothing beats what is there")


def _check_batches(one: Examined) -> None:
    """Check that batches follow each other, and that each has what it says."""
    expected, cost = 1, 0
    for batch in one.batches:
        first, last = batch["first"], batch["last"]
        if first != expected:
            one.note("missing", f"no batch has the numbers {expected} to {first - 1}")
        expected = last + 1
        cost += _whole(batch["cost_picousd"])
        _check_batch(one, batch, f"numbers {first} to {last}")
    if expected != one.said["shipped"] + 1:
        one.note("missing", f"batches end with number {expected - 1}, and not with what is shipped")
    if cost != one.said["cost_picousd"]:
        one.note("altered", "its cost is not that of its batches")
    started = sum(batch["started"] - batch["gone_started"] for batch in one.batches)
    if started != one.said["started"]:
        one.note("altered", "its started records are not those of its batches")


def _whole(value: Any) -> int:
    """Return an amount; of NaN or infinity one that no other is equal to."""
    return int(value) if value.is_finite() else 10**40


def _check_batch(one: Examined, batch: Any, where: str) -> None:
    """Check that what a batch says is there, but for what was removed on purpose."""
    first, last = batch["first"], batch["last"]
    if sum(batch[name] for name in _COUNTS) != last - first + 1:
        one.note("altered", f"{where}: the counts of the batch are not those of its numbers")
    short = batch["usage"] - batch["numbers"] - batch["gone"]
    if short:
        word = "missing" if short > 0 else "too many"
        one.note("altered", f"{where}: {counted(abs(short), 'outcome')} {word}", abs(short))
    if batch["beyond"]:
        one.note("altered", f"{where}: a gap ends in another batch")
    if batch["rows"] != batch["numbers"]:
        twice = batch["rows"] - batch["numbers"]
        one.note("altered", f"{where}: {_are(twice, 'outcome')} there twice", twice)
    if not short and _whole(batch["cost"]) + _whole(batch["gone_cost"]) != batch["cost_picousd"]:
        one.note("altered", f"{where}: costs are not those that were shipped")
    if int(batch["gaps_now"]) != batch["gaps"]:
        one.note("altered", f"{where}: not as many gaps as were shipped")
    taken = {"rejected": batch["gone_rejected"]}
    for name in ("damaged", "rejected", "added"):
        if int(batch[f"{name}_now"]) + taken.get(name, 0) != batch[name]:
            one.note("altered", f"{where}: not as many {name} as were shipped")


def _check_deeds(writers: Sequence[Examined], deeds: Sequence[_Deed]) -> None:
    """Check that what was taken away is what deeds say."""
    said = sum(one.detail["outcomes"] for one in deeds)
    gone = sum(gap["usage"] for one in writers for gap in one.gaps if gap["here"])
    if said != gone and writers:
        writers[0].note(
            "altered", f"{counted(gone, 'outcome')} taken away here, and the deeds say {said:,}"
        )


def _pruned(deeds: Sequence[_Deed]) -> list[Prune]:
    return [
        Prune(
            at=one.at,
            who=one.who,
            why=one.why,
            writers=one.detail["writers"],
            records=one.detail["outcomes"],
            month=one.detail["month"],
        )
        for one in deeds
        if one.did == "prune"
    ]


def _erasures(deeds: Sequence[_Deed]) -> list[Erasure]:
    """Return the runs of ``erase``; each may have been several transactions."""
    runs: dict[str, Erasure] = {}
    for one in deeds:
        if one.did == "erase":
            run = one.detail["run"]
            before = runs.get(run)
            records = one.detail["records"] + (before.records if before else 0)
            runs[run] = Erasure(
                at=before.at if before else one.at,
                who=one.who,
                why=one.why,
                records=records,
                kept=one.detail["kept"],
            )
    return [*runs.values()]


def _verdict(one: Examined, locally: Mapping[str, int]) -> WriterVerdict:
    said = one.said
    gaps = [Gap.of_reason(g["first"], g["last"], g["reason"], g["acked_until"]) for g in one.gaps
            if g["reason"] != "damaged"]  # fmt: skip

    def numbers(*reasons: str) -> int:
        return sum(gap.last - gap.first + 1 for gap in gaps if gap.reason in reasons)

    accepted = max(said["accepted"], said["shipped"], locally.get(said["writer"], 0))
    damaged = said["damaged"]
    problems = [*one.problems]
    for row in one.gaps:
        if row["reason"] == "damaged" and len(problems) < MOST:
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
