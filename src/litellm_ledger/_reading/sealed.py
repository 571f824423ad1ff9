"""Sealed segments that their manifests speak for.

Owns the question whether a segment is what its manifest says: its bytes are read once for that
(``_storage.checked_files`` remembers); a file of the archive tells the digests of its sources.
Never writes to the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType
from typing import Final
from zlib import crc32

from litellm_ledger._archive.archive import Place, source_of
from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._storage.checked_files import CheckedFiles
from litellm_ledger._storage.manifest import Manifest, read_head
from litellm_ledger._storage.partial import size_of

__all__ = ["manifests"]

_BLOCK: Final = 2**20


def manifests(
    root: Path,
    names: Iterable[SegmentName],
    archive: Mapping[SegmentName, Place] = MappingProxyType({}),
) -> dict[SegmentName, Manifest]:
    """Return the manifests, without their large tables, of those segments that are what these say.

    A segment that is open, or gone, or that has no manifest to believe, is left out.

    Args:
        root: the ledger.
        names: the segments.
        archive: where compacted ones are.
    """
    read_now = ((name, read_head(root, name)) for name in names if not name.open)
    there = {name: manifest for name, manifest in read_now if manifest is not None}
    size = sum(manifest.size for name, manifest in there.items() if name not in archive)
    checked = CheckedFiles(root, size)
    held = {
        name: manifest
        for name, manifest in there.items()
        if (
            source_of(archive[name]) == (manifest.sha256, manifest.lines)
            if name in archive
            else _holds(checked, root / SEGMENTS / str(name), manifest)
        )
    }
    checked.keep()
    return held


def _holds(checked: CheckedFiles, path: Path, manifest: Manifest) -> bool:
    """Whether a segment has the size and the checksum that its manifest says.

    Of one that is elsewhere, the size; its bytes are checked when it is brought.
    """
    try:
        if size_of(path) != manifest.size:
            return False
        return not path.exists() or checked.checksum(path, _checksum) == manifest.crc32
    except OSError:
        return False


def _checksum(file: BufferedReader) -> str:
    value = 0
    while block := file.read(_BLOCK):
        value = crc32(block, value)
    return f"{value:08x}"
