"""Sealed segments that their manifests speak for.

Owns the question whether a segment is what its manifest says.  Its bytes are read once for that:
what was found is remembered, by the process and in a file outside the ledger, under the identity of
the file (device, inode, size, times of its last change).  Never writes to the ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._storage.filesystem import open_file
from litellm_ledger._storage.manifest import Manifest, read

__all__ = ["manifests"]

_BLOCK: Final = 2**20
_WORTH_KEEPING: Final = 16 * 2**20
"""Bytes that were read, from which on it is remembered for other processes: they take 10 ms."""

_State = tuple[int, int, int, int, int]
"""Of a file: device, inode, size, time of its last change and of its status', in ns."""

_known: Final[dict[str, dict[str, tuple[_State, str]]]] = {}


def manifests(root: Path, names: Iterable[SegmentName]) -> dict[SegmentName, Manifest]:
    """Return the manifests of those segments that are what their manifest says.

    A segment that is open, or gone, or that has no manifest to believe, is left out.
    """
    memory = _Memory(root)
    found = {}
    for name in names:
        if name.open:
            continue
        there = read(root, name)
        if there is not None and memory.holds(name, there[0]):
            found[name] = there[0]
    memory.keep()
    return found


class _Memory:
    """The checksums of segments that were read before."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = _file_of(root)
        key = str(self._file or root)
        if key not in _known:
            _known[key] = _load(self._file)
        self._checked = _known[key]
        self._read = 0

    def holds(self, name: SegmentName, manifest: Manifest) -> bool:
        """Whether a segment has the size and the checksum that its manifest says."""
        path = self._root / SEGMENTS / str(name)
        try:
            state = _state(path.lstat())
            if state[2] != manifest.size:
                return False
            known = self._checked.get(str(name))
            if known is None or known[0] != state:
                known = _checksum(path)
                self._checked[str(name)] = known
                self._read += manifest.size
        except OSError:
            return False
        return known[1] == manifest.crc32

    def keep(self) -> None:
        """Remember for other processes; whatever is in the way of that is no matter."""
        if self._read < _WORTH_KEEPING or self._file is None:
            return
        temporary = self._file.with_suffix(f".{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_bytes(msgspec.json.encode(self._checked))
            temporary.replace(self._file)


def _file_of(root: Path) -> Path | None:
    """Return the file outside the ledger, in the user's directory of caches."""
    from platformdirs import user_cache_dir  # only where it is needed: the import takes time

    key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    try:
        return Path(user_cache_dir("litellm-ledger", appauthor=False)) / f"checked-{key}.json"
    except RuntimeError:  # there is no home
        return None


def _load(file: Path | None) -> dict[str, tuple[_State, str]]:
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        if file is not None and file.lstat().st_uid == os.geteuid():
            return msgspec.json.decode(file.read_bytes(), type=dict[str, tuple[_State, str]])
    return {}


def _state(state: os.stat_result) -> _State:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _checksum(path: Path) -> tuple[_State, str]:
    """Return a file's state and the CRC-32 of its bytes."""
    value = 0
    with open_file(path) as file:
        state = _state(os.fstat(file.fileno()))
        while block := file.read(_BLOCK):
            value = crc32(block, value)
    return state, f"{value:08x}"
