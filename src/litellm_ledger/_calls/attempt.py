"""One request to a provider, from the moment before it leaves to its outcome on the ledger.

Owns what the client knows of the request (when, which model, whose tags) and the rule that it is
settled exactly once, by whichever comes first: the answer, an error, a cancellation, a finalizer.
Never imports LiteLLM and never waits for a provider.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self

from litellm_ledger._errors import InvalidRecord
from litellm_ledger._records.record import UsageRecord, changed, unchecked
from litellm_ledger._runtime.limits import Slot
from litellm_ledger._tracking.calls_in_flight import CallsInFlight
from litellm_ledger._tracking.tags import current_request

__all__ = ["Attempt", "Hold"]

_log = logging.getLogger("litellm_ledger")

_STARTED: Final = UsageRecord(kind="started")


class Hold(Protocol):
    """What budgets hold for one attempt."""

    def on_started(self) -> dict[str, Any]:
        """Return what its ``started`` record says of it."""

    def on_outcome(self, fields: Mapping[str, Any], *, billed: bool) -> dict[str, Any]:
        """Return what an outcome with these fields says of it."""

    def bind(self, started: UsageRecord) -> None:
        """Have it settled by the outcome of the call that this record began."""

    def pay_for(self, upstream: Any) -> None:
        """Have a stream (``_calls.stream.Upstream``) paid for while it is read, if it is to be."""

    def drop(self) -> None:
        """Nothing was sent: give it back, unless it was bound."""


class Attempt:
    """A request in flight.

    Attributes:
        ts: when it began.
        record: its outcome once it is settled.
        billed: whether the provider may bill it.
        hold: what budgets hold for it, if there are any.
        started: its ``started`` record, or ``None`` when those are not kept.

    Args:
        tags: all of its tags, merged.
        number: which attempt of its operation, from 1.
        operation: id of the operation's first record; ``None`` if this one writes it.
        slot: released when the attempt is settled.
    """

    def __init__(
        self,
        calls: CallsInFlight,
        *,
        call: str,
        model: str | None,
        stream: bool,
        tags: Mapping[str, str] | None,
        call_id: str,
        number: int = 1,
        operation: str | None = None,
        slot: Slot | None = None,
        hold: Hold | None = None,
    ) -> None:
        self._calls = calls
        self.ts = datetime.now(UTC)
        self.billed = True
        self.hold = hold
        self._began = time.perf_counter()
        self._ended: float | None = None
        self._first_token: float | None = None
        self._pid = os.getpid()
        self._admitted = False
        self._settled = False
        self._common: dict[str, Any] = {
            "call": call,
            "model": model,
            "stream": stream,
            "tags": tags,
            "call_id": call_id if call_id is None else str(call_id),  # a UUID will do for LiteLLM
            "attempt": number,
            "operation": operation,
        }
        self._slot = slot
        self._request = current_request()
        self.started: UsageRecord | None = None
        self.record: UsageRecord | None = None

    @classmethod
    def resumed(
        cls,
        calls: CallsInFlight,
        started: UsageRecord,
        began: float,
        pid: int,
        hold: Hold | None = None,
    ) -> Self:
        """The first attempt of a call, of which ``started`` is acknowledged and the request sent.

        Args:
            began: when, by ``time.perf_counter``.
            pid: of the process that sent it.
        """
        attempt = cls(
            calls,
            call=started.call or "",
            model=started.model,
            stream=False,
            tags=started.tags,
            call_id=started.call_id or "",
            hold=hold,
        )
        attempt._began, attempt._pid = began, pid
        attempt.ts = started.ts or attempt.ts
        attempt.started, attempt._admitted = started, True
        return attempt

    async def begin(self, *, write: bool, ack_timeout: float) -> None:
        """Wait for room and put the ``started`` record down before the request leaves."""
        hold = self.hold
        try:
            record = None
            if write:
                holds = {} if hold is None else hold.on_started()
                record = changed(_STARTED, {"ts": self.ts, **self._common, **holds})
            self.started = await self._calls.start(
                record,
                ack_timeout=ack_timeout,
                request=self._request,
                accepted=None if hold is None else hold.bind,
                sure=hold is not None,
            )
        except BaseException:  # nothing has left, and the tracker has settled what it wrote
            self._settled = True
            self._release()
            if hold is not None:
                hold.drop()
            raise
        self._admitted = True

    def begun(self, *, write: bool) -> None:
        """In the place of ``begin``, of a request that left long ago: never waits, never fails."""
        if write:
            self.started = self._calls.began(changed(_STARTED, {"ts": self.ts, **self._common}))
        else:
            self._calls.join()
        self._begins()

    def join(self) -> None:
        """In the place of ``begin``: another call's request brings the outcome, which is here."""
        self._calls.join()
        self._begins()

    def _begins(self) -> None:
        self._admitted = True
        if self._request is not None:
            self._request.begins()

    def first_token(self) -> None:
        """Note the time of the first chunk; later calls change nothing."""
        if self._first_token is None:
            self._first_token = time.perf_counter()

    def ended(self) -> None:
        """Stop the clock of an attempt that is settled later, when its tokens are counted."""
        self._ended = time.perf_counter()

    def settle(self, fields: Mapping[str, Any], *, plain: bool = False) -> UsageRecord | None:
        """Put the outcome down, on the loop's thread; ``None`` if it has one already.

        ``plain`` fields need no checks.
        """
        outcome = self._outcome(fields, unchecked if plain else changed)
        if outcome is None:
            return None
        try:
            self.record = self._calls.end(outcome, self.started)
        finally:
            self._release()
        if self._request is not None:
            self._request.ends(self.record)
        return self.record

    def settle_anywhere(self, fields: Mapping[str, Any]) -> None:
        """``settle`` from a finalizer or another thread; also what never went through ``begin``."""
        outcome = self._outcome(fields)
        if outcome is None:
            return
        try:
            if self._admitted:
                self._calls.end_anywhere(outcome, self.started)
            else:
                self._calls.accept_anywhere(outcome)
        finally:
            self._release()
        if self._request is not None:
            if not self._admitted:
                self._request.begins()
            self._request.ends(outcome)

    @property
    def operation(self) -> str | None:
        """The id of the operation's first record, once that is numbered."""
        record = self.started or self.record
        return self._common["operation"] if record is None else record.operation

    def _release(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.release()

    def _outcome(
        self,
        fields: Mapping[str, Any],
        make: Callable[[UsageRecord, Mapping[str, Any]], UsageRecord] = changed,
    ) -> UsageRecord | None:
        if self._settled or self._pid != os.getpid():  # a forked child settles nothing of ours
            return None
        self._settled = True
        base, common = self.started, dict[str, Any](kind="usage")
        if base is None:
            base = _STARTED
            common |= {"ts": self.ts, **self._common}
        common["latency_ms"] = _ms((self._ended or time.perf_counter()) - self._began)
        if self._first_token is not None:
            common["ttft_ms"] = _ms(self._first_token - self._began)
        if self.hold is not None:
            common |= self.hold.on_outcome(fields, billed=self.billed)
        try:
            return make(base, {**common, **fields})
        except (InvalidRecord, TypeError) as exc:  # an answer we cannot read is still an answer
            model = self._common["model"]
            _log.error("the usage of a call to %s could not be read: %s", model, exc)
            told = {"status": fields.get("status"), "meta": {"unreadable": type(exc).__name__}}
            return changed(base, {**common, **told})


def _ms(seconds: float) -> float:
    """Milliseconds to the microsecond: more digits would be noise on every line."""
    return round(seconds * 1000, 3)
