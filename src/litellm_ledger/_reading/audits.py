"""Losses and damaged places that somebody has looked into, as the audits of a ledger say.

Owns when an audit covers a place: the same file, the same bytes of it.  Never writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.audit import Audit, Damage
from litellm_ledger._storage.filesystem import open_file

from .lines import Problem

__all__ = ["by_audited_writer", "place_of", "split"]

_BLOCK: Final = 2**20


def by_audited_writer(additions: Iterable[Adjustment | Audit]) -> dict[str, list[Audit]]:
    """Return the audits among additions, by the writer that they are about."""
    found: dict[str, list[Audit]] = {}
    for one in additions:
        if isinstance(one, Audit):
            found.setdefault(one.writer, []).append(one)
    return found


def split(
    root: Path, problems: Sequence[Problem], audits: Sequence[Audit]
) -> tuple[list[Problem], list[Problem]]:
    """Return the problems that no audit covers, then those that one does."""
    known = {damage for audit in audits for damage in audit.damage}
    covered = [bool(known) and place_of(root, problem) in known for problem in problems]
    sides: tuple[list[Problem], list[Problem]] = [], []
    for problem, is_covered in zip(problems, covered, strict=True):
        sides[is_covered].append(problem)
    return sides


def place_of(root: Path, problem: Problem) -> Damage | None:
    """Return a place with the digest of what is there; ``None`` if nobody can read it."""
    place = Damage(
        file=problem.file, what=problem.what, offset=problem.offset, length=problem.length
    )
    if problem.what == "missing":
        return place
    part = problem.what == "damaged" and problem.length
    sha256 = hashlib.sha256()
    try:
        with open_file(root / problem.file) as file:
            file.seek(problem.offset if part else 0)
            left = problem.length if part else -1
            while block := file.read(min(left, _BLOCK) if part else _BLOCK):
                sha256.update(block)
                left -= len(block)
    except OSError:
        return None
    return msgspec.structs.replace(place, sha256=sha256.hexdigest())
