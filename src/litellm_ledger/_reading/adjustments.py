"""Adjustments (records that were priced again) and audits, read from segments of nothing else.

Owns what is believed of them: whole segments of valid lines, each number once.  Never writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from litellm_ledger._records.adjustment import Adjustment, erased_of
from litellm_ledger._records.audit import DEEDS, Audit, addition_of
from litellm_ledger._records.layout import ADJUSTMENT_VERSION, SEGMENTS, SegmentName, record_id
from litellm_ledger._records.line import newer_version
from litellm_ledger._storage.filesystem import open_file
from litellm_ledger._storage.format_version import newer_format

from .lines import Problem

__all__ = [
    "Adjusted",
    "adjusted_segments",
    "are_there",
    "each_addition",
    "newest",
    "read_additions",
    "read_adjustments",
]


def read_adjustments(
    root: Path,
    names: Sequence[SegmentName],
    problems: list[Problem],
    before: datetime | None = None,
) -> list[Adjustment]:
    """Return the adjustments of a ledger in the order in which they hold.

    Args:
        root: the ledger.
        names: the segments of adjustments, ``Snapshot.adjustments``.
        problems: where what is no adjustment is noted.
        before: only those that were made before this time.

    Raises:
        UnsupportedFormat: a newer version wrote one.
    """
    return [
        one
        for one in read_additions(root, names, problems)
        if isinstance(one, Adjustment) and (before is None or one.at < before)
    ]


def read_additions(
    root: Path, names: Sequence[SegmentName], problems: list[Problem]
) -> list[Adjustment | Audit]:
    """Return adjustments and audits in the order of their time; as ``read_adjustments``."""
    return sorted(each_addition(root, names, problems), key=lambda one: (one.at, one.id))


def each_addition(
    root: Path, names: Sequence[SegmentName], problems: list[Problem]
) -> Iterator[Adjustment | Audit]:
    """Yield adjustments and audits as they lie there, none twice; as ``read_adjustments``."""
    writer, last = "", 0
    for name in sorted(names):
        if name.writer != writer:
            writer, last = name.writer, 0
        for one in _of_segment(root, name, problems):
            if one.seq > last:  # else it is in a copy of a segment too
                last = one.seq
                yield one


class Adjusted(NamedTuple):
    """A segment of adjustments or audits: of when, its name, the SHA-256 of its bytes."""

    at: datetime
    name: str
    sha256: str


def adjusted_segments(root: Path, names: Sequence[SegmentName]) -> list[Adjusted]:
    """Return what an anchor covers of adjustments; a segment that cannot be read is left out."""
    found = []
    for name in names:
        try:
            with open_file(root / SEGMENTS / str(name)) as file:
                first = addition_of(raw := file.readline()) or erased_of(raw)
                file.seek(0)
                import hashlib  # a report needs none, and the import takes time

                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            continue
        if first is not None:
            found.append(Adjusted(first.at, str(name), sha256))
    return sorted(found)


def are_there(root: Path, names: Sequence[SegmentName]) -> bool:
    """Whether any of the segments begins with an adjustment; others hold audits."""
    for name in names:
        with contextlib.suppress(OSError), open_file(root / SEGMENTS / str(name)) as file:
            raw = file.readline()
            if isinstance(addition_of(raw), Adjustment) or erased_of(raw) is not None:
                return True
    return False


def newest(adjustments: Sequence[Adjustment]) -> dict[str, Adjustment]:
    """Return the one that holds for each record, by the id of that."""
    return {one.adjusts: one for one in adjustments}


def _of_segment(
    root: Path, name: SegmentName, problems: list[Problem]
) -> Iterator[Adjustment | Audit]:
    where = f"{SEGMENTS}/{name}"
    try:
        file = open_file(root / where)
    except OSError as exc:
        problems.append(Problem(where, "unreadable", detail=exc.strerror or str(exc)))
        return
    offset, seq = 0, name.first
    with file:
        for raw in file:
            one = addition_of(raw)
            erased = erased_of(raw) if one is None else None
            if erased is not None and erased.id == record_id(name.writer, seq) == record_id(
                name.writer, erased.seq
            ):
                offset, seq = offset + len(raw), seq + 1
                continue
            if one is None:
                version = newer_version(raw)
                if version is not None and version > ADJUSTMENT_VERSION:
                    raise newer_format(root / where, version, ADJUSTMENT_VERSION)
            if one is None or one.id != record_id(name.writer, seq) or one.seq != seq:
                detail = "no adjustment and no audit"
                problems.append(Problem(where, "damaged", offset, len(raw), 1, detail))
            elif isinstance(one, Audit) and one.did not in DEEDS:
                raise newer_format(root / where, f"2 (audit: {one.did})", ADJUSTMENT_VERSION)
            else:
                yield one
            offset += len(raw)
            seq += 1
    if name.last != seq - 1:
        detail = f"ends with number {seq - 1}, its name says {name.last}"
        problems.append(Problem(where, "misnamed", detail=detail))
