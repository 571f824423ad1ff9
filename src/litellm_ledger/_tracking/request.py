"""``RequestUsage``: what one request of a server has used so far, and the tags of its calls.

Owns the sums.  For which request code runs is a context variable of ``tags``, so that those who
serve no requests load nothing of this.  Never knows of a server or of ASGI.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal

from litellm_ledger._aggregates.groups import Row
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._records.money import whole
from litellm_ledger._records.record import UsageRecord

from .tags import in_force

__all__ = ["RequestUsage"]


class RequestUsage:
    """The sums over the calls of one request so far.

    A call counts when its outcome is accepted, whichever client or tracker recorded it, and
    wherever it ended: a background task may add to it after the answer was sent.  Its methods may
    be called from any thread.

    Args:
        request_id: of the request; what named it is the caller's choice.
        trace_id: of the trace that it belongs to, if any.
        tags: returns the tags of a call that begins now; ``None``: no tags.
        outer: counts these calls as well, and its tags come before ``tags``.

    Attributes:
        request_id, trace_id: as given.
    """

    __slots__ = (
        "_begun",
        "_inbox",
        "_lock",
        "_outer",
        "_tags",
        "_totals",
        "request_id",
        "trace_id",
    )

    def __init__(
        self,
        request_id: str | None = None,
        trace_id: str | None = None,
        *,
        tags: Callable[[], Mapping[str, str]] | None = None,
        outer: RequestUsage | None = None,
    ) -> None:
        self.request_id = request_id
        self.trace_id = trace_id
        self._tags = tags
        self._outer = outer
        self._totals = Totals(by=[])
        self._inbox: deque[UsageRecord] = deque()
        self._lock = threading.Lock()
        self._begun: deque[None] = deque()

    def totals(self) -> Row:
        """Return the sums over the outcomes so far, by the rules of a report."""
        with self._lock:
            self._count()
            return self._totals.total()

    @property
    def calls(self) -> int:
        """Outcomes so far, one for each request to a provider."""
        return self.totals().calls

    @property
    def in_flight(self) -> int:
        """Calls that have begun and not ended."""
        with self._lock:
            self._count()
            return len(self._begun)

    @property
    def cost(self) -> Decimal:
        """US dollars: the exact sum over the outcomes whose cost is known."""
        return self.totals().cost

    @property
    def input_tokens(self) -> int:
        """Tokens read by the models, over the outcomes that say so."""
        return self.totals().input_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens written by the models, over the outcomes that say so."""
        return self.totals().output_tokens

    @property
    def total_tokens(self) -> int:
        """Tokens in all, over the outcomes that say so."""
        return self.totals().total_tokens

    @contextlib.contextmanager
    def attach(self) -> Iterator[RequestUsage]:
        """Have what is called inside count for this request, wherever it runs.

        For a worker that serves several requests: it takes the ``RequestUsage`` along with each
        piece of work.
        """
        with in_force(self):
            yield self

    def tags(self) -> dict[str, str]:
        """Return the tags of a call that begins now.

        Raises:
            Exception: whatever the function raises that was given for them.
        """
        found = {} if self._outer is None else self._outer.tags()
        if self._tags is not None:
            found.update(self._tags())
        return found

    def begins(self) -> None:
        """A call begins; ``ends`` says how, once."""
        self._begun.append(None)
        if self._outer is not None:
            self._outer.begins()

    def ends(self, record: UsageRecord) -> None:
        """A call that began has this outcome.

        From a finalizer as well, so nothing here waits for a lock: a finalizer may run while its
        thread holds it.
        """
        self._inbox.append(record)
        if self._lock.acquire(blocking=False):
            try:
                self._count()
            finally:
                self._lock.release()
        if self._outer is not None:
            self._outer.ends(record)

    def _count(self) -> None:
        while self._inbox:
            record = self._inbox.popleft()
            if self._begun:
                self._begun.pop()
            self._totals.add(record, None if record.cost is None else whole(record.cost))
