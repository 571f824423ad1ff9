"""What erasures did to a ledger, as its audits say: which file became which, and what that leaves.

Owns the way from a manifest as it is to what it was, so that a chain and an anchor that name the
old one are still proved.  Never writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from litellm_ledger._archive.archive import content_name
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.audit import ERASE, Audit
from litellm_ledger._records.layout import (
    ARCHIVE,
    ERASING,
    MANIFESTS,
    RECOVERY,
    SEGMENTS,
    SegmentName,
)
from litellm_ledger._storage.live_file import lock_directory, unlock

__all__ = [
    "NONE",
    "NOW",
    "AsOf",
    "Erasure",
    "Erasures",
    "Exchange",
    "exchanges",
    "is_erased_from",
    "is_unfinished",
]

_ARCHIVED: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.[0-9a-f]{16}\.parquet", re.ASCII)
_PLAIN: Final = re.compile(r"(?!\.\.?\Z)[^/\0]+")


class Exchange(NamedTuple):
    """A file that was written anew, relative to the ledger: its old and its new name and SHA-256.

    Only a file of the archive has another name.
    """

    part: str
    old_name: str
    old: str
    new_name: str
    new: str


def exchanges(audit: Audit) -> Iterator[Exchange]:
    """Yield the files that an erasure wrote anew; what names no file of a ledger is passed over."""
    if audit.did != ERASE:
        return
    for one in audit.segments:
        if one.now is None:
            continue
        if one.archive is None:
            yield Exchange(SEGMENTS, one.segment, one.was.sha256, one.segment, one.now.sha256)
        if one.was.manifest is not None and one.now.manifest is not None:
            name = f"{one.segment}.json"
            yield Exchange(MANIFESTS, name, one.was.manifest, name, one.now.manifest)
    for other in audit.files:
        part, _, name = other.file.partition("/")
        if other.now is None or not _is_file(part, name):
            continue
        new = name
        if part == ARCHIVE:
            new = content_name(name[:10], other.now)
        yield Exchange(part, name, other.sha256, new, other.now)


def _is_file(part: str, name: str) -> bool:
    """Whether a name can be that of a file that is written anew."""
    if part == ARCHIVE:
        return _ARCHIVED.fullmatch(name) is not None
    if part == RECOVERY:
        return _PLAIN.fullmatch(name) is not None
    if part == MANIFESTS:
        segment = SegmentName.parse(name.removesuffix(".json"))
        return name.endswith(".json") and segment is not None and not segment.open
    segment = SegmentName.parse(name)
    return part == SEGMENTS and segment is not None and not segment.open


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as its audits say.

    Attributes:
        at: when; ``who`` did it, and ``why``.
        records: how many were erased; ``kept``: their amounts stayed.
        files: how many were written anew.
    """

    at: datetime
    who: str
    why: str
    records: int = 0
    files: int = 0
    kept: bool = False


class Erasures:
    """All that audits say of erasures.

    Args:
        additions: of the ledger.

    Attributes:
        changed: the audits of erasures, by time, each with the files that it tells of.
    """

    def __init__(self, additions: Iterable[Adjustment | Audit] = ()) -> None:
        found = [one for one in additions if isinstance(one, Audit) and one.did == ERASE]
        audits = sorted(found, key=lambda audit: (audit.at, audit.id))
        self.changed = [(audit, list(exchanges(audit))) for audit in audits]
        self._later: dict[str, str] = {}
        for audit, files in self.changed:
            self._later.update((file.old, file.new) for file in files)
            self._later.update(  # those in the archive, too
                (one.was.sha256, one.now.sha256) for one in audit.segments if one.now is not None
            )

    def runs(self, since: int = 0) -> list[Erasure]:
        """Return what was erased, run by run; ``since``: without the first audits."""
        found: dict[tuple[datetime, str, str], Erasure] = {}
        files: dict[tuple[datetime, str, str], set[tuple[str, str]]] = {}
        for audit, changed in self.changed[since:]:
            key = audit.at, audit.who, audit.why
            run = found.get(key, Erasure(at=audit.at, who=audit.who, why=audit.why))
            there = files.setdefault(key, set())
            there.update((file.part, file.new_name) for file in changed)
            found[key] = msgspec.structs.replace(
                run, records=run.records + audit.records, files=len(there), kept=audit.kept
            )
        return list(found.values())

    def now(self, sha256: str, there: Container[str]) -> str:
        """Return by which SHA-256 a file is known that another names by this one.

        Args:
            sha256: of the file, as it was at some time.
            there: those of the files that there are.
        """
        at, left = sha256, len(self._later)
        while at not in there and left and at in self._later:
            at, left = self._later[at], left - 1
        return at if at in there else sha256

    def came_from(self, sha256: str, old: str) -> bool:
        """Whether a file took the place of another one, by the SHA-256 of both."""
        return sha256 != old and self.now(old, (sha256,)) == sha256

    def is_old(self, sha256: str) -> bool:
        """Whether a file was there before an erasure, and another one has its place since."""
        return self._later.get(sha256, sha256) != sha256

    def are_one(self, sha256: str, other: str) -> bool:
        """Whether one of two files took the place of the other."""
        return self.came_from(sha256, other) or self.came_from(other, sha256)

    def exchanges(self) -> list[Exchange]:
        """Return all files that were written anew, by time."""
        return [file for _, files in self.changed for file in files]

    def replaced(self) -> set[tuple[str, str]]:
        """Return the files that were written anew, by part of the ledger and their old name."""
        return {(one.part, one.old_name) for _, files in self.changed for one in files}

    def undone(self, there: Mapping[tuple[str, str], str]) -> list[str]:
        """Return the files that are as they were before an erasure, relative to the ledger.

        It was killed before it had put what it had ready in their place, or they are from a backup.

        Args:
            there: the SHA-256 of files, by part of the ledger and name.
        """
        last = {(one.part, one.old_name): one for _, files in self.changed for one in files}
        return sorted(
            f"{part}/{name}"
            for (part, name), one in last.items()
            if one.old != one.new and there.get((part, name)) == one.old
        )


class AsOf:
    """The files of a ledger as they were when only the first of its erasures had been made.

    Args:
        erasures: all of them.
        made: how many had been.
    """

    def __init__(self, erasures: Erasures, made: int) -> None:
        self._earlier: dict[str, tuple[str, int]] = {}
        for audit, files in reversed(erasures.changed[made:]):
            for file in files:
                self._earlier.setdefault(file.new, (file.old, 0))
            for one in audit.segments:
                if one.now is None or one.now.manifest == one.was.manifest:
                    continue
                if one.now.manifest and one.was.manifest:
                    went = one.was.records - one.now.records
                    self._earlier[one.now.manifest] = one.was.manifest, went

    def was(self, sha256: str) -> tuple[str, int]:
        """Return the SHA-256 that a file had, and how many records more it spoke for."""
        records, left = 0, len(self._earlier)
        while left and sha256 in self._earlier:
            sha256, went = self._earlier[sha256]
            records, left = records + went, left - 1
        return sha256, records


NONE: Final = Erasures()
"""Of a ledger without any."""
NOW: Final = AsOf(NONE, 0)
"""As files are."""


def is_erased_from(root: Path) -> bool:
    """Whether an erasure is at work."""
    if os.name != "posix":
        return False
    try:
        held = lock_directory(root / SEGMENTS, shared=True)
    except OSError:  # there is none
        return False
    if held is not None:
        unlock(held)
    return held is None


def is_unfinished(root: Path) -> bool:
    """Whether files are ready that have not taken the place of others."""
    try:
        return bool(os.listdir(root / ERASING))
    except OSError:
        return False
