"""Disks for tests: one that is quick, and one that forgets what was not synced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from litellm_ledger._storage.filesystem import PRIVATE, FileSystem
from litellm_ledger.testing import FaultyFileSystem


class QuickDisk(FileSystem):
    """Real files without a real sync: no test here cuts the power of the machine it runs on."""

    def sync(self, fd: int) -> None:
        os.fstat(fd)  # a descriptor that is closed is an error all the same

    def sync_directory(self, path: Path) -> None:
        path.stat()


QUICK = QuickDisk()


class ForgetfulDisk(FaultyFileSystem):
    """Knows what a power cut would take: bytes and names that no successful sync covers.

    It lies as Linux does: after a sync that failed, the pages are marked clean, so a second sync of
    the same file succeeds, and the bytes of the failed one are gone all the same.
    """

    def __init__(self) -> None:
        super().__init__(QUICK)
        self._durable: dict[int, int] = {}  # bytes by inode
        self._gone: dict[int, list[tuple[int, int]]] = {}
        # (renamed from, name) of files and directories, not yet durable
        self._names: list[tuple[Path | None, Path]] = []

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._names.append((None, path))
        inode = os.fstat(fd).st_ino  # perhaps that of a file that is gone
        self._durable[inode] = 0
        self._gone.pop(inode, None)
        return fd

    def sync(self, fd: int) -> None:
        file = os.fstat(fd)
        before = self._durable.get(file.st_ino, 0)
        self._durable[file.st_ino] = file.st_size
        try:
            super().sync(fd)
        except OSError:
            self._gone.setdefault(file.st_ino, []).append((before, file.st_size))
            raise

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self._names.append((old, new))

    def make_directory(self, path: Path, mode: int = PRIVATE) -> None:
        new = not path.exists()
        super().make_directory(path, mode)
        if new:
            self._names.append((None, path))

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self._names = [change for change in self._names if change[1].parent != path]

    def power_cut(self, directory: Path) -> None:
        """Make the directory, and all below it, what the medium has."""
        for old, new in reversed(self._names):
            if old is None and new.is_dir():
                shutil.rmtree(new)
            elif old is None:
                new.unlink(missing_ok=True)
            elif new.exists():
                new.rename(old)
        for path in directory.rglob("*"):
            if path.is_dir() or path.suffix == ".live":  # counters that no sync ever covers
                continue
            inode = path.stat().st_ino
            content = bytearray(path.read_bytes()[: self._durable.get(inode)])
            for start, end in self._gone.get(inode, []):
                content[start:end] = bytes(end - start)
            path.write_bytes(content)
