"""``Recent``: the calls that ended last, held in memory for each thing that is asked for.

Owns the list of each filter, read once from the ends of the files, and how what is written since
comes into it.  Where a file changes that never grows (a record was erased, a segment sealed) all of
them are forgotten.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from itertools import islice
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._reading.follow import Follower
from litellm_ledger._reading.last_written import ended
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._records.record import UsageRecord

from .calls import newest
from .standing import Standing
from .sums import Shape

__all__ = ["HELD", "Recent"]

HELD: Final = 101
"""Calls that are held of each filter."""
_FILTERS: Final = 300
_NEWS: Final = 5_000
"""Calls that a filter may be behind; then it is read anew."""


class _Seen:
    """What is held of one filter: up to which of the news, ascending, whether there are no more."""

    def __init__(self, selection: Selection) -> None:
        self.lock = threading.Lock()
        self.selection = Selection(where=selection.where, where_not=selection.where_not)
        self.upto = -1
        self.calls: list[UsageRecord] = []
        self.known = False

    def put(self, call: UsageRecord) -> None:
        """Take an outcome that was written since."""
        key = _call(call)
        self.calls = [one for one in self.calls if one.status != "unsettled" or _call(one) != key]
        if self.selection.fits(call) and all(one.id != call.id for one in self.calls):
            self.calls.append(call)
            self.calls.sort(key=ended)
            del self.calls[:-HELD]


class Recent:
    """The newest calls of one ledger; safe for several threads.

    Args:
        root: the ledger.
        standing: tells which segments hold none of what is asked for.
    """

    def __init__(self, root: Path, standing: Standing) -> None:
        self._root = root
        self._standing = standing
        self._lock = threading.Lock()
        self._follower: Follower | None = None
        self._state: object = None
        self._news: deque[UsageRecord] = deque(maxlen=_NEWS)
        self._count = 0
        self._seen: OrderedDict[Any, _Seen] = OrderedDict()

    def last(self, selection: Selection, limit: int) -> list[UsageRecord] | None:
        """Return the calls that ended last, the newest first, without their ``content``.

        ``None``: what is held does not tell.

        Args:
            selection: which calls; cut to what the viewer may see.
            limit: how many at most.

        Raises:
            LedgerPathError, UnsupportedFormat, MissingExtra: as for ``Snapshot.take``.
        """
        if selection.until is not None or limit > HELD:
            return None
        ledger = self._standing.look()
        seen = self._of(ledger, selection)
        with seen.lock:
            self._follow(ledger, seen)
            if not seen.known:
                return None
            since = selection.since
            fits = [one for one in seen.calls if since is None or selection.fits(one)]
            short = len(fits) < limit and len(seen.calls) == HELD
            if short and not (since is not None and ended(seen.calls[0])[0] < since):
                return None
            return fits[: -limit - 1 : -1]

    def _of(self, ledger: Snapshot, selection: Selection) -> _Seen:
        """Return what is held of a filter, after a look at what is new."""
        key = Shape.of([], selection, timed=False)
        with self._lock:
            state = self._standing.state(ledger)
            if self._state is not state:
                self._seen.clear()
                self._news.clear()
                self._state = state
            if self._follower is None:
                self._follower = Follower(self._root)
            for record in self._follower.look(ledger.segments):
                if record.kind == "usage":
                    self._count += 1
                    self._news.append(replace(record, content=None))
            seen = self._seen.pop(key, None) or _Seen(selection)
            self._seen[key] = seen
            if len(self._seen) > _FILTERS:
                self._seen.popitem(last=False)
            return seen

    def _follow(self, ledger: Snapshot, seen: _Seen) -> None:
        """Bring what is held of a filter up to date."""
        with self._lock:
            count = self._count
            behind = count - seen.upto
            news = [*islice(self._news, max(0, len(self._news) - behind), None)]
        beaten = any(call.status == "unsettled" for call in news)  # perhaps, by what is not held
        if seen.upto < 0 or behind > len(news) or beaten:
            calls, seen.known = newest(self._standing, ledger, seen.selection, HELD, scope=None)
            seen.calls = [replace(call, content=None) for call in reversed(calls)]
        else:
            for call in news:
                seen.put(call)
        seen.upto = count


def _call(record: UsageRecord) -> tuple[str, int]:
    return record.operation or record.id or "", record.attempt or 1
