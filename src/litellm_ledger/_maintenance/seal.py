"""``seal``: manifests for the sealed segments that have none.

Owns the search for them, in the archive too, which keeps those of its sources.  A living writer
makes its own; older versions, processes that died and those that closed in a hurry leave some out.
Never changes a segment, nor a manifest that is there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from litellm_ledger._archive.archive import kept_manifests, source_of
from litellm_ledger._reading.adjustments import read_additions
from litellm_ledger._reading.chain import list_manifests, read_links, tail
from litellm_ledger._reading.erasures import Erasures
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.listing import Snapshot, by_writer, list_live
from litellm_ledger._reading.pruned import Gone, by_pruned_writer, pruned_in, stubs
from litellm_ledger._records.layout import MANIFESTS, SEGMENTS, SegmentName
from litellm_ledger._storage.contents import NotWholeError, make, write
from litellm_ledger._storage.filesystem import (
    REAL,
    FileSystem,
)
from litellm_ledger._storage.manifest import parse
from litellm_ledger._storage.segment import write_sealed

from .one_run import need_locks, one_run

__all__ = ["Sealing", "seal"]


@dataclass(frozen=True, slots=True)
class Sealing:
    """What one run did.

    Attributes:
        manifests: the manifests that were written, relative to the ledger.
        segments, records: of how many sealed segments, with how many records, there is a manifest.
        left: segments without one because something is the matter with them, and manifests that
            are damaged.
    """

    manifests: tuple[str, ...] = ()
    segments: int = 0
    records: int = 0
    left: tuple[Problem, ...] = ()


def seal(root: Path, *, fs: FileSystem = REAL) -> Sealing:
    """Write the manifests that are missing.

    Left alone: writers that are alive, and those that wait for ``recover``.

    Args:
        root: the ledger.
        fs: where all writing goes through.

    Raises:
        LedgerPathError: there is no ledger; it cannot be read or written; another run is at work.
        UnsupportedFormat: a newer version wrote it.
        UnsupportedPlatform: not POSIX.
    """
    need_locks("sealed")
    live = list_live(root)
    ledger = Snapshot.take(root, live)
    live += list_live(root)  # one that began, and sealed a segment, since the first look
    with one_run(fs, root, MANIFESTS, "seal", "sealed"):
        return _seal(root, fs, ledger, live)


def _seal(root: Path, fs: FileSystem, ledger: Snapshot, live: Sequence[str]) -> Sealing:
    written: list[str] = []
    problems: list[Problem] = []
    written += _restore(root, fs, ledger)
    there = dict(by_writer(list_manifests(root)))
    additions = read_additions(root, ledger.adjustments, [])
    erasures, gone = Erasures(additions), by_pruned_writer(pruned_in(additions))
    segments = records = 0
    for writer, family in by_writer(ledger.segments):
        names = [name for name in family if not name.open and name not in ledger.archive]
        if writer not in live:
            _remove_temporaries(root, fs, writer)
            written += _seal_writer(
                root,
                fs,
                names,
                there.get(writer, []),
                gone.get(writer, {}),
                problems,
                erasures,
            )
        links = read_links(root, names, [])
        segments += len(links)
        records += sum(link.manifest.records for link in links.values())
    return Sealing(tuple(written), segments, records, tuple(problems))


class _Named(msgspec.Struct):
    segment: str


def _restore(root: Path, fs: FileSystem, ledger: Snapshot) -> list[str]:
    """Put back the manifests of compacted segments that are missing, where the archive keeps them.

    They are the same bytes, so that the chain holds.
    """
    missing = {str(name): name for name in ledger.archive.keys() - {*list_manifests(root)}}
    files = {ledger.archive[name][0].path: ledger.archive[name][0] for name in missing.values()}
    restored = []
    for file in files.values():
        for data in kept_manifests(file):
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                name = missing.get(_decode(data).segment)
                manifest = None if name is None else parse(data, name)
                if name is None or manifest is None:
                    continue
                if source_of(ledger.archive[name]) == (manifest.sha256, manifest.lines):
                    write_sealed(fs, root / MANIFESTS, name.manifest, data, attempt=os.getpid())
                    restored.append(f"{MANIFESTS}/{name.manifest}")
    return sorted(restored)


_decode: Final = msgspec.json.Decoder(_Named).decode


def _seal_writer(
    root: Path,
    fs: FileSystem,
    names: Sequence[SegmentName],
    there: Sequence[SegmentName],
    gone: Gone,
    problems: list[Problem],
    erasures: Erasures,
) -> list[str]:
    """Write the manifests that are missing of one writer's sealed segments, which nobody else does.

    Returns their paths, relative to the ledger.

    Args:
        root: the ledger.
        fs: where all writing goes through.
        names: the segments.
        there: segments of the writer that there is a manifest of, compacted ones too.
        gone: what was pruned of the writer.
        problems: where what is the matter is noted.
        erasures: what was written anew.

    Raises:
        OSError: they cannot be written.
        UnsupportedFormat: a newer version wrote a segment.
    """
    written = []
    links = read_links(root, names, problems)
    others = read_links(root, {*there} - {*names}, [])
    known = [*links.values(), *others.values()]
    removed = stubs(gone, {link.identity for link in known})
    last = tail([*known, *removed], erasures)
    previous, after = (last.identity, last.manifest.sealed) if last else (None, "")
    for name in names:
        if name in links or (root / MANIFESTS / name.manifest).exists():
            continue
        try:
            manifest = make(root / SEGMENTS / str(name), name, previous=previous, after=after)
        except FileNotFoundError:  # compacted, or removed, just now
            continue
        except (NotWholeError, OSError) as exc:
            what: Literal["damaged", "unreadable"] = (
                "damaged" if isinstance(exc, NotWholeError) else "unreadable"
            )
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            problems.append(Problem(f"{SEGMENTS}/{name}", what, detail=why or str(exc)))
            continue
        previous, after = write(fs, root, manifest)
        written.append(f"{MANIFESTS}/{name.manifest}")
    return written


def _remove_temporaries(root: Path, fs: FileSystem, writer: str) -> None:
    """Remove what a process that was killed had begun."""
    with contextlib.suppress(FileNotFoundError):
        for file in os.listdir(root / MANIFESTS):
            if file.startswith(f"{writer}.") and file.endswith(".tmp"):
                fs.unlink(root / MANIFESTS / file)
