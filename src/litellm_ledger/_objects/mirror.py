"""``Mirror``: a directory with some of the files of a prefix, which are fetched when they are read.

Owns that directory, in the user's caches or a temporary one.  A file in it is the object, whole: it
was hashed on its way, gets its name when it is complete, and has the object's time and mark in its
own time, by which one that was replaced since is known and dropped.  Any number of processes use
one directory; what is beyond its size is removed between questions, when none is being answered.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Final
from zlib import crc32

import msgspec

from litellm_ledger._archive.archive import SOURCES_KEY, Source
from litellm_ledger._archive.footer import read_footer, value_of
from litellm_ledger._records.layout import ARCHIVE, MANIFESTS, SEGMENTS, SegmentName
from litellm_ledger._storage.filesystem import open_file
from litellm_ledger._storage.manifest import Manifest, read_head

from .names import LARGEST, PARTS, VERSIONS, is_name, refuse_newer_objects, segment_of
from .store import Missing, NotFetched, ObjectStorageError, Prefix, Stored

__all__ = ["Mirror", "View"]

_AT_ONCE: Final = 8
_LARGE_AT_ONCE: Final = 3
_LARGE: Final = 2**22
_TRIES: Final = 3
_FOOTERS: Final = "footers"
_FOOTER: Final = ".footer"
_AT_FIRST: Final = 64 * 2**10
"""Bytes from the end of a Parquet file that are fetched at first for its footer."""
_ARCHIVED: Final = re.compile(r"[0-9-]{10}\.([0-9a-f]{16})\.parquet", re.ASCII)


class Mirror:
    """The files of a prefix as they were listed, and those that are here.

    Args:
        prefix: where they are.
        directory: for those that are here; it is made.
        proving: what is read for a checksum is the object, and never a file that is here.
    """

    def __init__(self, prefix: Prefix, directory: Path, *, proving: bool = False) -> None:
        self.prefix = prefix
        self.directory = directory
        self.proving = proving
        self._there: dict[str, dict[str, Stored]] = {part: {} for part in PARTS}
        self._lock = Lock()
        for part in (*PARTS, _FOOTERS):
            (directory / part).mkdir(mode=0o700, parents=True, exist_ok=True)

    def refresh(self) -> None:
        """List the prefix, drop what is not as it is there, and fetch the manifests.

        Raises:
            ObjectStorageError: it cannot be listed, or read.
            UnsupportedFormat: a newer version of this library has written there.
        """
        refuse_newer_objects(self.prefix.url, self.prefix.list(VERSIONS))
        there = {}
        for part in PARTS:  # in this order: a segment moves to the archive
            found = self.prefix.list(part)
            there[part] = {name: one for name, one in found.items() if is_name(part, name)}
        self._there = there
        for part in PARTS:
            with os.scandir(self.directory / part) as files:
                for file in files:
                    if not file.name.endswith(".tmp") and not self._is_here(part, file.name):
                        (self.directory / part / file.name).unlink(missing_ok=True)
        known = {f"{name}{_FOOTER}" for name in there[ARCHIVE]}
        for name in os.listdir(self.directory / _FOOTERS):
            if name not in known:
                (self.directory / _FOOTERS / name).unlink(missing_ok=True)
        added = [text for text in there[SEGMENTS] if (SegmentName.parse(text) or _NONE).adjusts]
        self.bring(MANIFESTS, there[MANIFESTS])
        self.bring(SEGMENTS, added)

    @property
    def there(self) -> Mapping[str, Mapping[str, Stored]]:
        """The objects, by part and name."""
        return self._there

    def bring(self, part: str, names: Collection[str]) -> None:
        """Fetch those of the objects that are not here, several at once."""
        there = self._there.get(part, {})
        absent = [name for name in names if name in there and not self._is_here(part, name)]
        large = any(there[name].size > _LARGE for name in absent)
        if len(absent) < 2:
            for name in absent:
                self._fetch(part, name)
            return
        with ThreadPoolExecutor(_LARGE_AT_ONCE if large else _AT_ONCE) as threads:
            futures = [threads.submit(self._fetch, part, name) for name in absent]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()

    def _is_here(self, part: str, name: str) -> bool:
        there = self._there[part].get(name)
        if there is None:
            return False
        try:
            state = (self.directory / part / name).lstat()
        except FileNotFoundError:
            return False
        return (state.st_size, state.st_mtime_ns) == (there.size, _time(there))

    def _fetch(self, part: str, name: str) -> None:
        for left in reversed(range(_TRIES)):
            try:
                self._fetch_once(part, name)
            except Missing:
                with self._lock:
                    self._there[part].pop(name, None)
                return
            except ObjectStorageError:
                if not left:
                    raise
            else:
                return

    def _fetch_once(self, part: str, name: str) -> None:
        self._refuse_large(part, name)
        known, checksum, blocks = self.prefix.opened(f"{part}/{name}")
        path = self.directory / part / name
        temporary = path.with_name(f"{name}.{secrets.token_hex(8)}.tmp")
        sha256 = hashlib.sha256()
        try:
            with temporary.open("xb") as file:
                for block in blocks:
                    sha256.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            if not self.proving:  # who proves is to see what is there
                self._check(part, name, sha256.hexdigest(), checksum)
            there = self._there[part].get(name)
            if there is not None and there.modified is not None:
                # The time in the answer may have fewer digits than that in the listing.
                known = known._replace(modified=there.modified) if _same(known, there) else known
            time = _time(known)
            os.utime(temporary, ns=(time, time))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        with self._lock:
            self._there[part][name] = known

    def _refuse_large(self, part: str, name: str) -> None:
        size = self._there[part][name].size
        if size > LARGEST:
            raise ObjectStorageError(
                f"{self.prefix.url}/{part}/{name} has {size:,} bytes, more than any file of a "
                "ledger; remove it"
            )

    def _check(self, part: str, name: str, sha256: str, sent: str | None) -> None:
        """Refuse content that is not what was sent, or, in the archive, not what its name says."""
        match = _ARCHIVED.fullmatch(name) if part == ARCHIVE else None
        if (sent is None or sent == sha256) and (match is None or sha256.startswith(match[1])):
            return
        raise ObjectStorageError(
            f"{self.prefix.url}/{part}/{name} is not what was sent: its SHA-256 is "
            f"{sha256[:16]}…, and should be {(match[1] if match else str(sent))[:16]}…; "
            "litellm-ledger verify with this URL lists all such objects; restore it from a version "
            "of it, or from the machine that sent it"
        )

    def footer(self, name: str) -> bytes | None:
        """Return the footer of a file of the archive, which is kept."""
        kept = self.directory / _FOOTERS / f"{name}{_FOOTER}"
        if not kept.exists():
            there = self._there[ARCHIVE].get(name)
            if there is None:
                return None
            self._refuse_large(ARCHIVE, name)
            start = max(0, there.size - _AT_FIRST)
            data = self.prefix.ending(f"{ARCHIVE}/{name}", there.size, start)
            length = int.from_bytes(data[-8:-4], "little") + 8
            if len(data) < length <= there.size:
                data = self.prefix.ending(f"{ARCHIVE}/{name}", there.size, there.size - length)
            temporary = kept.with_suffix(f".{secrets.token_hex(8)}.tmp")
            temporary.write_bytes(b"PAR1" + data[-length:])
            temporary.replace(kept)
        with open_file(kept) as file:
            return read_footer(file)

    def sources(self, name: str) -> list[str]:
        """Return the names of the segments that a file of the archive holds."""
        footer = self.footer(name) or b""
        try:
            found = msgspec.json.decode(value_of(footer, SOURCES_KEY) or b"[]", type=list[Source])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        return [source.name for source in found]

    def blocks(self, part: str, name: str) -> Iterator[bytes] | None:
        """Return the content of an object; ``None``: that of the file here will do."""
        if not self.proving:
            return None
        return self.prefix.opened(f"{part}/{name}")[2]

    # -- what they say ---------------------------------------------------------------------------

    def manifests(self) -> Iterator[tuple[SegmentName, Manifest]]:
        """Yield the manifests, without their tables, that are of a segment as it is there."""
        there = self._there[SEGMENTS]
        for text in self._there[MANIFESTS]:
            name = segment_of(text)
            manifest = None if name is None else read_head(self.directory, name)
            if name is None or manifest is None:
                continue
            if str(name) not in there or there[str(name)].size == manifest.size:
                yield name, manifest

    def writers(self) -> frozenset[str]:
        """Return the writers that have records there."""
        found = {segment_of(text) for text in self._there[MANIFESTS]}
        found |= {SegmentName.parse(text) for text in self._there[SEGMENTS]}
        return frozenset(name.writer for name in found if name is not None and not name.adjusts)

    # -- its size --------------------------------------------------------------------------------

    def touch(self, part: str, names: Iterable[str]) -> None:
        """Note that files are in use: those that were not for longest are the first to go."""
        for name in names:
            with contextlib.suppress(OSError):
                path = self.directory / part / name
                os.utime(path, ns=(_now(), path.lstat().st_mtime_ns))

    def trim(self, limit: int) -> None:
        """Remove what was not used for longest, until the rest has no more than these bytes.

        Manifests, price entries and audits stay: without them no question is answered.  What is
        half fetched goes: its process was killed, as no other is at it.
        """
        for part in (*PARTS, _FOOTERS):
            for name in os.listdir(self.directory / part):
                if name.endswith(".tmp"):
                    (self.directory / part / name).unlink(missing_ok=True)
        found: list[tuple[int, int, Path]] = []
        for part in (SEGMENTS, ARCHIVE):
            with os.scandir(self.directory / part) as files:
                for file in files:
                    with contextlib.suppress(FileNotFoundError):
                        state = file.stat(follow_symlinks=False)
                        found.append((state.st_atime_ns, state.st_size, Path(file.path)))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit:
                return
            path.unlink(missing_ok=True)
            total -= size


class View:
    """What one question sees of a mirror: a ``partial.Source``.

    Args:
        mirror: of what.
        hidden: the segments that do not matter to it.
    """

    def __init__(self, mirror: Mirror, hidden: Collection[str]) -> None:
        self._mirror = mirror
        self._hidden = frozenset(hidden)

    def names(self, part: str) -> Collection[str]:
        """Return the names in a part, but those that are hidden."""
        there = self._mirror.there.get(part, {})
        hidden = self._hidden
        if not hidden or part not in (SEGMENTS, ARCHIVE):
            return list(there)
        if part == SEGMENTS:
            return [name for name in there if name not in hidden]
        sources = ((name, self._mirror.sources(name)) for name in there)
        return [name for name, segments in sources if not hidden.issuperset(segments or ("",))]

    def size(self, part: str, name: str) -> int | None:
        """Return the size of an object."""
        there = self._mirror.there.get(part, {}).get(name)
        return None if there is None else there.size

    def bring(self, part: str, names: Collection[str]) -> None:
        """Fetch objects."""
        with _told():
            self._mirror.bring(part, names)
        if part in (SEGMENTS, ARCHIVE):
            self._mirror.touch(part, names)

    def footer(self, part: str, name: str) -> bytes | None:
        """Return the footer of a file of the archive."""
        with _told():
            return self._mirror.footer(name) if part == ARCHIVE else None

    def blocks(self, part: str, name: str) -> Iterator[bytes] | None:
        """Return the content of an object, where it is to be proved."""
        with _told():
            found = self._mirror.blocks(part, name)
        return None if found is None else _each(found)


def _each(found: Iterator[bytes]) -> Iterator[bytes]:
    with _told():
        yield from found


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Have a store that fails be no error of a file, which a reader would note and pass over."""
    try:
        yield
    except Missing:
        raise
    except ObjectStorageError as exc:
        raise NotFetched(str(exc)) from None


_NONE: Final = SegmentName("", 1, 1)


def _same(one: Stored, other: Stored) -> bool:
    return one.mark == other.mark


def _time(there: Stored) -> int:
    """Return the time of the file of an object: its own, to the second, and its mark in short."""
    seconds = 0 if there.modified is None else int(there.modified.timestamp())
    return seconds * 10**9 + crc32(there.mark.encode()) % 10**9


def _now() -> int:
    import time

    return time.time_ns()
