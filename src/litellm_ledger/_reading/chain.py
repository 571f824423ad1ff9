"""The manifests of a ledger, and the chain that those of a writer form.

Owns the reading of all of them and the judgement of a chain.  Never writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from litellm_ledger._records.layout import MANIFESTS, SegmentName
from litellm_ledger._records.line import newer_version
from litellm_ledger._storage.filesystem import names_of, open_file
from litellm_ledger._storage.format_version import newer_format
from litellm_ledger._storage.manifest import TOO_LARGE, Manifest, identity, read

from .erasures import NONE, Erasures
from .lines import Problem

__all__ = ["Link", "chained", "is_being_written", "list_manifests", "read_links", "tail"]

_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Link:
    """A manifest, without its tables, and what the next one names it by."""

    name: SegmentName
    manifest: Manifest
    identity: str


def list_manifests(root: Path) -> list[SegmentName]:
    """List the segments that there is a manifest of, by writer and first number."""
    try:
        files = names_of(root / MANIFESTS)
    except OSError:
        return []
    names = (
        SegmentName.parse(file.removesuffix(_SUFFIX)) for file in files if file.endswith(_SUFFIX)
    )
    return sorted(
        (name for name in names if name is not None and not name.open),
        key=lambda name: (name.writer, name.first, name.last or 0),
    )


def is_being_written(root: Path) -> bool:
    """Whether a manifest has not its name yet; a process that died may have left it so."""
    try:
        return any(file.endswith(".tmp") for file in os.listdir(root / MANIFESTS))
    except OSError:
        return False


def read_links(
    root: Path, names: Iterable[SegmentName], problems: list[Problem]
) -> dict[SegmentName, Link]:
    """Read manifests; those that are not to be believed go to ``problems``.

    Raises:
        UnsupportedFormat: a newer version wrote one.
    """
    links = {}
    for name in names:
        there = read(root, name)
        if there is None:
            problems += _unbelievable(root, name)
        else:
            links[name] = Link(name, there[0].light(), identity(there[1]))
    return links


def _unbelievable(root: Path, name: SegmentName) -> list[Problem]:
    """Say why there is no manifest to believe; nothing if there is none at all."""
    path = root / MANIFESTS / name.manifest
    where = f"{MANIFESTS}/{name.manifest}"
    try:
        with open_file(path) as file:
            data = file.read(TOO_LARGE)
    except FileNotFoundError:
        return []
    except OSError as exc:
        return [Problem(where, "unreadable", detail=exc.strerror or str(exc))]
    version = newer_version(data)
    if version is not None:
        raise newer_format(path, version)
    detail = "is no manifest; remove it, then run litellm-ledger seal"
    return [Problem(where, "damaged", detail=detail)]


def chained(
    links: Iterable[Link], problems: list[Problem], erasures: Erasures = NONE
) -> list[Link]:
    """Return the manifests of one writer in the order in which they were made.

    What breaks the chain goes to ``problems``: a manifest that is gone or was changed, a second
    one that follows the same, a time that goes back.  One that an erasure wrote anew is the one
    that it was.
    """
    left = list(links)
    after: dict[str | None, list[Link]] = {}
    known = {link.identity for link in left}
    for link in left:
        after.setdefault(_previous(link, known, erasures), []).append(link)
    starts = sorted(
        (previous for previous in after if previous is None or previous not in known),
        key=lambda previous: min(link.manifest.sealed for link in after[previous]),
    )
    order: list[Link] = []
    waiting = [link for previous in reversed(starts) for link in reversed(after[previous])]
    while waiting:
        link = waiting.pop()
        order.append(link)
        waiting += reversed(after.get(link.identity, []))
    for previous, following in after.items():
        first = min(following, key=lambda link: link.manifest.sealed)
        if previous is not None and previous not in known:
            problems.append(_broken(first, "the manifest before it is gone, or was changed"))
        why = f"follows the same manifest as that of {first.name}"
        problems += [_broken(link, why) for link in following if link is not first]
    of = {link.identity: link for link in left}
    for link in left:
        before = of.get(_previous(link, known, erasures) or "")
        if before is not None and link.manifest.sealed < before.manifest.sealed:
            problems.append(_broken(link, "was made before the manifest that it follows"))
    return order


def _previous(link: Link, known: set[str], erasures: Erasures) -> str | None:
    """Return what the manifest before one is known by now."""
    previous = link.manifest.previous
    return previous if previous is None else erasures.now(previous, known)


def _broken(link: Link, why: str) -> Problem:
    detail = f"the chain of manifests is broken: {why}"
    return Problem(f"{MANIFESTS}/{link.name.manifest}", "altered", detail=detail)


def tail(links: Iterable[Link], erasures: Erasures = NONE) -> Link | None:
    """Return the manifest of a writer that the next one is to follow."""
    there = list(links)
    known = {link.identity for link in there}
    followed = {_previous(link, known, erasures) for link in there}
    ends = [link for link in there if link.identity not in followed]
    return max(ends, key=lambda link: (link.manifest.sealed, str(link.name)), default=None)
