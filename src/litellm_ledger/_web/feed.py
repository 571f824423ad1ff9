"""What is new on a ledger, for those who watch: calls as they end, by whichever process.

Owns the looking (twice a second, only while somebody watches), the ids by which a reader goes on
where it stopped, and the reading of what it missed.  An id names the last record of each writer.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from litellm_ledger._errors import LedgerError
from litellm_ledger._reading.follow import Follower
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._records.layout import SegmentName, record_id, split_id
from litellm_ledger._records.line import decode
from litellm_ledger._records.record import UsageRecord

from .calls import call_dict
from .lines import new_lines
from .viewer import Scope, sees

__all__ = ["Feed", "News", "missed"]

_LOOK: Final = 0.5
_MOST: Final = 1_000
"""Most calls that are sent to a reader that reconnects."""
_WRITERS: Final = 40
"""Writers that an id names at most: it is sent back in one header."""


class News(msgspec.Struct, frozen=True, array_like=True):
    """Calls that have ended since the last look.

    Attributes:
        calls: the tags, the id of the event and the call as JSON.
        at: where the ledger was read to, as an id; ``""`` if nobody has written yet.
    """

    calls: list[tuple[dict[str, str], str, bytes]]
    at: str


class Feed:
    """Looks for news on a thread of its own while it runs.

    Args:
        root: the ledger.
        tell: called with the news, on that thread.
    """

    def __init__(self, root: Path, tell: Callable[[News], None]) -> None:
        self._root = root
        self._tell = tell
        self._lock = threading.Lock()
        self._stop: threading.Event | None = None

    def run(self, wanted: bool) -> None:
        """Begin or end looking; twice is as once."""
        with self._lock:
            if not wanted and self._stop is not None:
                self._stop.set()
                self._stop = None
            elif wanted and self._stop is None:
                self._stop = threading.Event()
                threading.Thread(
                    target=self._look, args=(self._stop,), name="litellm-ledger-feed", daemon=True
                ).start()

    def _look(self, stop: threading.Event) -> None:
        follower: Follower | None = None
        last: dict[str, int] = {}
        while not stop.is_set():
            try:
                if follower is None:
                    last = _ends(Snapshot.take(self._root))
                    follower = Follower(self._root)
                    self._tell(News([], _id(last)))
                calls = []
                for record in follower.look():
                    writer, seq = split_id(record.id or "") or ("", 0)
                    if not writer:
                        continue
                    last.pop(writer, None)
                    last[writer] = seq
                    if record.kind == "usage":
                        calls.append((dict(record.tags), _id(last), _json(record)))
                if calls:
                    self._tell(News(calls, _id(last)))
            except (LedgerError, OSError):  # not there yet, or not now
                follower = None
            stop.wait(_LOOK)


def _json(record: UsageRecord) -> bytes:
    return msgspec.json.encode(call_dict(record))


def _id(last: dict[str, int]) -> str:
    """Return the id of an event: the last record of each writer, the newest at the end."""
    return ",".join(record_id(writer, seq) for writer, seq in [*last.items()][-_WRITERS:])


def _ends(ledger: Snapshot) -> dict[str, int]:
    """Return how far the open segments go."""
    found: dict[str, int] = {}
    for name in ledger.segments:
        if name.open:
            found[name.writer] = name.first - 1
            try:
                for line, _, _ in new_lines(ledger.root, name, 0):
                    if line is not None:
                        found[name.writer] = line.seq
            except OSError:
                continue
    return {writer: seq for writer, seq in found.items() if seq}


def missed(
    root: Path, since: str, scope: Scope
) -> tuple[list[tuple[str, dict[str, Any]]], str, bool] | None:
    """Return the calls that have ended since an event, each with its id.

    Then where that ends, and whether there were more than are returned; ``None``: it is no id.

    Args:
        root: the ledger.
        since: the id of an event.
        scope: what the viewer may see.
    """
    last: dict[str, int] = {}
    for one in since.split(",")[: 2 * _WRITERS]:
        known = split_id(one)
        if known is None:
            return None
        last[known[0]] = known[1]
    ledger = Snapshot.take(root)
    newest = max(last)  # a writer's name begins with its start
    found = []
    for name in ledger.segments:
        if name.writer not in last and name.writer < newest:
            continue
        after = last.get(name.writer, 0)
        if name.last is not None and name.last <= after:
            continue
        for record in _records(root, name, after):
            last.pop(name.writer, None)
            last[name.writer] = record.seq or after
            if sees(scope, record):
                found.append((_id(last), call_dict(record)))
                if len(found) >= _MOST:
                    return found, _id(last), True
    return found, _id(last), False


def _records(root: Path, name: SegmentName, after: int) -> Iterator[UsageRecord]:
    with contextlib.suppress(OSError):
        for line, _, raw in new_lines(root, name, 0):
            if line is not None and line.seq > after and line.kind == "usage":
                yield decode(raw)
