"""Batches and background responses: what the call that began one holds, until it is counted.

Owns the rule (docs/FORMAT.md, "Budgets"): an outcome that counts a job names the outcome of the
call that began it, and what that holds beyond its cost counts no more.  Never writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from litellm_ledger._reading.adjustments import each_addition
from litellm_ledger._reading.lines import Line, Problem, entries
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.layout import SegmentName, split_id
from litellm_ledger._records.line import checked, line_of

from .amounts import Amounts, spent_by

__all__ = ["SETTLES", "Began", "began_by", "still_holds", "what_began", "what_it_settles"]

SETTLES: Final = "settles"
"""The member of ``meta.batch`` or ``meta.background`` that has the id of the other outcome."""
_JOBS: Final = ("background", "batch")


class Began(NamedTuple):
    """The outcome of the call that began a job.

    Attributes:
        record: its id.
        model, tags, ts: by which budgets count it.
        counts: what it counts beyond what it is known to have cost, below 0: to be added.
    """

    record: str
    model: str | None
    tags: Mapping[str, str]
    ts: datetime
    counts: Amounts


def what_it_settles(meta: Mapping[str, Any] | None) -> str | None:
    """Return the id of the outcome that an outcome with this ``meta`` settles."""
    for kind in _JOBS if meta else ():
        told = meta.get(kind) if meta else None
        if isinstance(told, Mapping) and told.get("counted") is True:
            record = told.get(SETTLES)
            return record if isinstance(record, str) else None
    return None


def began_by(line: Line | None, job: str | None) -> Began | None:
    """Return what a line holds for a job with this id of a response; ``None``: nothing."""
    if line is None or line.kind != "usage" or line.ts is None:
        return None
    if job is None or line.response_id != job:
        return None
    cost: Any = line.cost  # a line has picodollars
    counts = spent_by(line, cost)
    usd = (counts.usd or 0) - (cost or 0)
    tokens = (counts.tokens or 0) - (line.total_tokens or 0)
    if usd <= 0 and tokens <= 0:
        return None
    return Began(line.id, line.model, line.tags or {}, line.ts, Amounts(-usd, -tokens, 0))


def what_began(
    root: Path, every: Mapping[str, Sequence[SegmentName]], record: str, job: str | None
) -> Began | None:
    """Find the outcome with this id, which may be of another writer; blocks.

    ``None`` where it is gone, or holds nothing for the job: then nothing is taken off.

    Args:
        every: the segments of each writer.
    """
    writer, seq = split_id(record) or ("", 0)
    names = [
        name
        for name in every.get(writer, ())
        if name.first <= seq and (name.last is None or seq <= name.last)
    ]
    ignored: list[Problem] = []
    for entry in entries(root, names, ignored, having=record.encode("ascii"), beaten=set()):
        if entry.line.id == record:
            return began_by(entry.line, job)
    return None


def still_holds(root: Path, raw: bytes, job: str) -> Began | None:
    """Return what the bytes of a line hold for a job, unless an operator has let it go; blocks."""
    began = began_by(line_of(raw) if checked(raw) else None, job)
    if began is None:
        return None
    ignored: list[Problem] = []
    for one in each_addition(root, Snapshot.take(root).adjustments, ignored):
        if not isinstance(one, Adjustment) and any(
            let.record == began.record for let in one.released
        ):
            return None
    return began
