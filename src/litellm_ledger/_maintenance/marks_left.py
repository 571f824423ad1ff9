"""``MarksLeft``: where bytes like a person's marks are in a ledger's directory.

Owns the search of every byte: names of files, what is in them in any way that JSON may write it,
rows and kept manifests of the archive as they read.  Whether they are about the person is for
somebody to decide.  Changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from litellm_ledger._archive.archive import kept_manifests, list_archive
from litellm_ledger._reading.lines import Problem
from litellm_ledger._records.layout import ERASING
from litellm_ledger._storage.filesystem import open_file

from .finding import archived_lines, blocks
from .person import Person

__all__ = ["MarksLeft", "marks_left"]


class MarksLeft(NamedTuple):
    """A file with bytes like a mark: relative to the ledger, how often, and whether in its name."""

    file: str
    times: int
    in_name: bool = False


def marks_left(root: Path, person: Person, problems: list[Problem]) -> list[MarksLeft]:
    """Search everything below a ledger's directory; what cannot be read goes to ``problems``.

    Raises:
        LedgerPathError: the archive cannot be read.
    """
    archive = {file.path: file for file in list_archive(root)}
    found = []
    for path in _files(root, problems):
        where = str(path.relative_to(root))
        name = person.count(os.fsencode(path.name))
        if name:
            found.append(MarksLeft(where, name, in_name=True))
        try:
            with open_file(path) as file:
                count = sum(map(person.count, blocks(file)))
        except FileNotFoundError:  # sealed or removed just now
            continue
        except OSError as exc:
            problems.append(Problem(where, "unreadable", detail=exc.strerror or str(exc)))
            continue
        if path in archive:
            rows = sum(person.count(data) for _, data in archived_lines(archive[path]))
            count = max(count, rows) + sum(map(person.count, kept_manifests(archive[path])))
        if count:
            found.append(MarksLeft(where, count))
    return found


def _files(root: Path, problems: list[Problem]) -> Iterator[Path]:
    """Yield all files, in the order of their names; links are not followed."""

    def refused(exc: OSError) -> None:
        problems.append(Problem(str(exc.filename), "unreadable", detail=exc.strerror or str(exc)))

    for directory, below, names in os.walk(root, onerror=refused):
        below.sort()
        if Path(directory) == root and ERASING in below:
            below.remove(ERASING)  # empty, or of a run that somebody else has begun
        yield from (Path(directory) / name for name in sorted(names))
