"""What is new on a ledger, for those who watch: calls as they end, by whichever process.

Owns the looking (twice a second, only while somebody watches), the ids by which a reader goes on
where it stopped, and the reading of what it missed.  An id names the last record of each writer.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from litellm_ledger._errors import LedgerError
from litellm_ledger._reading.elsewhere import Elsewhere, Newcomers, Place, Wanted
from litellm_ledger._reading.follow import Follower
from litellm_ledger._reading.lines import everything, whole
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._records.layout import record_id, split_id
from litellm_ledger._records.line import decode
from litellm_ledger._records.record import UsageRecord

from .calls import call_dict
from .lines import new_lines
from .viewer import Scope, sees

__all__ = ["Feed", "News", "missed"]

_LOOK: Final = 0.5
_LOOK_THERE: Final = 2.0
"""Seconds between two looks at a directory, and at what is elsewhere."""
_MOST: Final = 1_000
"""Most calls that are sent to a reader that reconnects."""
_WRITERS: Final = 40
"""Writers that an id names at most: it is sent back in one header."""
_FETCHED: Final = 20_000
"""Records that are fetched at most for a reader that reconnects."""


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
        place: the ledger.
        tell: called with the news, on that thread.
    """

    def __init__(self, place: Place, tell: Callable[[News], None]) -> None:
        self._place = place
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
        place = self._place
        pause = _LOOK_THERE if isinstance(place, Elsewhere) else _LOOK
        follower: Follower | Newcomers | None = None
        last: dict[str, int] = {}
        while not stop.is_set():
            try:
                if follower is None:
                    if isinstance(place, Elsewhere):
                        follower = Newcomers(place)
                        last = {**follower.ends}
                    else:
                        last = _ends(Snapshot.take(place))
                        follower = Follower(place)
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
            stop.wait(pause)


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
    place: Place, since: str, scope: Scope
) -> tuple[list[tuple[str, dict[str, Any]]], str, bool] | None:
    """Return the calls that have ended since an event, each with its id.

    Then where that ends, and whether there were more than are returned; ``None``: it is no id.

    Args:
        place: the ledger.
        since: the id of an event.
        scope: what the viewer may see.
    """
    last: dict[str, int] = {}
    for one in since.split(",")[: 2 * _WRITERS]:
        known = split_id(one)
        if known is None:
            return None
        last[known[0]] = known[1]
    ends: dict[str, int] = {}
    records: Iterable[tuple[str, UsageRecord]]
    if isinstance(place, Elsewhere):
        ends, records = _fetched(place, last)
    else:
        records = _read(Snapshot.take(place), last)
    found = []
    for writer, record in records:
        last.pop(writer, None)
        last[writer] = record.seq or 0
        if sees(scope, record):
            found.append((_id(last), call_dict(record)))
            if len(found) >= _MOST:
                return found, _id(last), True
    return found, _id(ends or last), bool(ends)


def _read(ledger: Snapshot, last: Mapping[str, int]) -> Iterator[tuple[str, UsageRecord]]:
    """Yield the outcomes of a directory after these numbers, each with its writer."""
    newest = max(last)  # a writer's name begins with its start
    for name in ledger.segments:
        if name.writer not in last and name.writer < newest:
            continue
        after = last.get(name.writer, 0)
        if name.last is not None and name.last <= after:
            continue
        with contextlib.suppress(OSError):
            for line, _, raw in new_lines(ledger.root, name, 0):
                if line is not None and line.seq > after and line.kind == "usage":
                    yield name.writer, decode(raw)


def _fetched(
    place: Elsewhere, last: Mapping[str, int]
) -> tuple[dict[str, int], list[tuple[str, UsageRecord]]]:
    """Return the same of a ledger elsewhere; if it is too much, where that ends, and nothing."""
    newest = max(last)
    ends = {name.writer: name.last or 0 for name in place.segments()}
    after = {writer: end for writer, end in ends.items() if writer < newest} | {**last}
    if sum(max(0, end - after.get(writer, 0)) for writer, end in ends.items()) > _FETCHED:
        return ends, []
    with place.fetch(Wanted(after=after)) as there:
        found = [
            ((record.id or "")[:33], record)
            for record in whole(everything(Snapshot.take(there.root), []), [])
            if record.kind == "usage"
        ]
    return {}, [one for one in found if (one[1].seq or 0) > after.get(one[0], 0)]
