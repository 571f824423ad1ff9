"""A ledger in a directory of this machine, as the dashboard asks it.

Owns what each question is put to: sums, the newest calls, calls in flight and budgets are kept, and
cost what was written since.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._archive.archive import archived
from litellm_ledger._reading.listing import live_writers
from litellm_ledger._records.layout import ARCHIVE, LIVE, MANIFESTS, RECOVERY, SEGMENTS
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._reports.doctor import place, writers
from litellm_ledger._reports.history import Operation
from litellm_ledger._reports.plain import Prices, prices_of
from litellm_ledger._reports.report import Report

from .budgets import Budgets
from .calls import OpenCalls, newest, one_operation
from .recent import Recent
from .standing import Standing
from .viewer import Scope

__all__ = ["Here"]


class Here:
    """Such a ledger; see ``Source``.

    Args:
        root: its directory.
        process: whether this is a process of its own, which may start others.
    """

    def __init__(self, root: Path, *, process: bool = False) -> None:
        self._root = root
        self._standing = Standing(root, process=process)
        self._open = OpenCalls(root)
        self._budgets = Budgets(root, self._standing)
        self._recent = Recent(root, self._standing)

    def report(self, by: Sequence[str], selection: Selection, *, quantiles: bool) -> Report:
        """Add up outcomes."""
        return self._standing.report(by, selection, quantiles=quantiles)

    def calls(
        self, selection: Selection, limit: int, *, scope: Scope, before: str | None = None
    ) -> tuple[list[UsageRecord], bool]:
        """Return those that ended last, the newest first."""
        known = self._recent.last(selection, limit) if before is None else None
        if known is not None:
            return known, True
        ledger = self._standing.look()
        return newest(self._standing, ledger, selection, limit, scope=scope, before=before)

    def newest(self, selection: Selection, limit: int) -> list[UsageRecord]:
        """Return those that ended last and are held or found soon."""
        return self._recent.last(selection, limit) or []

    def operation(self, key: str, scope: Scope) -> tuple[Operation, Prices] | None:
        """Return an operation."""
        found = one_operation(self._standing, self._standing.look(), key, scope)
        return None if found is None else (found, prices_of(self._root, found))

    def in_flight(self, scope: Scope) -> tuple[int, datetime | None]:
        """Return what running processes have begun and not ended."""
        return self._open.look(self._standing.look(), scope)

    def budgets(self, scope: Scope, limit: int) -> dict[str, Any]:
        """Return those that the ledger's clients say they enforce."""
        return self._budgets.look(scope, limit)

    def processes(self) -> list[dict[str, Any]]:
        """The queue and the sync of each process that has a live file."""
        return [
            {
                "writer": writer,
                "alive": locked,
                "pid": found.pid,
                "durability": found.durability,
                "accepted": found.accepted,
                "queued": max(0, found.accepted - found.written),
                "unsynced": max(0, found.written - found.synced),
            }
            for writer, locked, found in live_writers(self._root)
        ]

    def about(self) -> dict[str, Any]:
        """Return its files, by kind, and what ``doctor`` says of them."""
        ledger = self._standing.look()
        told = self._standing.told(ledger)
        return {
            "path": str(self._root),
            "segments": {
                "sealed": sum(not name.open for name in ledger.segments),
                "open": sum(name.open for name in ledger.segments),
                "archived": len(archived(self._root)),
                "without_manifest": sum(
                    not name.open and name not in told for name in ledger.segments
                ),
            },
            "bytes": {part: _size(self._root / part) for part in _PARTS},
            "free_bytes": shutil.disk_usage(self._root).free,
            "writers": len({name.writer for name in ledger.segments}),
            "findings": msgspec.to_builtins([*place(self._root), *writers(self._root)]),
        }


_PARTS: Final = (SEGMENTS, ARCHIVE, MANIFESTS, RECOVERY, LIVE)


def _size(directory: Path) -> int:
    """Bytes of the files in a directory."""
    size = 0
    try:
        with os.scandir(directory) as files:
            for file in files:
                try:
                    size += file.stat(follow_symlinks=False).st_size
                except OSError:  # gone meanwhile
                    continue
    except OSError:
        return 0
    return size
