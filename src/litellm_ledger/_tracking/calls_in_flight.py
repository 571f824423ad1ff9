"""What a client records its calls through: admission before a call, its outcome after it.

Owns the two rules of a call on the ledger: it starts only when there is room for its outcome, and
its outcome is accepted whatever happens.  Never imports LiteLLM, never touches a file.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from pathlib import Path

from msgspec.structs import force_setattr

from litellm_ledger._errors import LedgerError, LedgerTimeout, LedgerWarning
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._runtime.misuse import callers_level, unacknowledged, unshipped
from litellm_ledger._writing.queue import Entry
from litellm_ledger._writing.state import State
from litellm_ledger._writing.writer import Writer

from .tags import Request, Tags, detached

__all__ = ["CallsInFlight"]

_log = logging.getLogger("litellm_ledger")


class CallsInFlight:
    """The calls of one client, as its tracker knows them.

    Args:
        open_ledger: opens the tracker.
        writer: the tracker's.
        tags: the tracker's.
    """

    def __init__(
        self, open_ledger: Callable[[], Awaitable[None]], writer: Writer, tags: Tags
    ) -> None:
        self._open = open_ledger
        self._writer = writer
        self._tags = tags

    def merged_tags(self, own: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Return the tags that a record made here and now gets.

        Raises:
            Exception: what the function for a request's tags raises.  Nothing has left yet.
        """
        return self._tags.merged(own)

    def tags_anyway(self, own: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """``merged_tags`` of a call that cannot be refused any more; never fails."""
        try:
            return self._tags.merged(own)
        except Exception:  # noqa: BLE001 - the user's function; logged, and the call is on record
            _log.exception("a call is recorded without the tags of its request")
            with detached():
                return self._tags.merged(own)

    @property
    def directory(self) -> Path:
        """The ledger, which is open."""
        directory = self._writer.admission.directory
        assert directory is not None
        return directory

    @property
    def writer(self) -> str:
        """The name of the writer, which is open."""
        return self._writer.admission.backlog.writer

    @property
    def accepted(self) -> int:
        """The last number that was given."""
        return self._writer.admission.backlog.accepted

    def on_written(self, hear: Callable[[int, UsageRecord], None]) -> None:
        """Have ``hear`` called with each outcome that is written; see ``Backlog``."""
        self._writer.admission.backlog.on_written = hear

    def keep_price(self, version: str, contents: str, litellm: str | None = None) -> None:
        """Have what the next outcome was priced by kept; see ``PriceBook.add``."""
        backlog = self._writer.admission.opened
        if backlog is not None:
            backlog.keep_price(version, contents, litellm)

    async def ready(self) -> None:
        """Open if need be; raise if closed or on the wrong loop."""
        admission = self._writer.admission
        if admission.state is not State.OPEN:
            await self._open()
        else:
            admission.check_loop()

    async def start(
        self,
        record: UsageRecord | None,
        *,
        ack_timeout: float,
        request: Request | None = None,
        accepted: Callable[[UsageRecord], None] | None = None,
        sure: bool = False,
    ) -> UsageRecord | None:
        """Admit a call: wait for room, put its ``started`` record down, wait for its ack.

        ``None`` admits a call that leaves no ``started`` record.  Returns the numbered record.  A
        missed ack lets the call continue, since there is room; a failed writer refuses.  An
        admitted call begins for its ``request``.

        Args:
            accepted: called with the numbered record, before anything is waited for.
            sure: wait until the operating system has it, at any durability, and refuse the call if
                that takes too long.

        Raises:
            LedgerTimeout: it does not have it in time.
        """
        admission = self._writer.admission
        if not admission.room_now():
            await admission.room()
        admission.check_open()
        if request is not None:
            request.begins()
        if record is None:
            admission.backlog.untracked += 1
            return None
        started = admission.take(record)
        if accepted is not None:
            accepted(started)
        if not admission.begun(started) or (sure and not self.is_written(started)):
            await self.started(started, ack_timeout, request, sure=sure)
        return started

    def idle(self) -> bool:
        """Whether a call may start now; then nothing waits to be written."""
        return self._writer.admission.idle()

    async def started(
        self,
        started: UsageRecord,
        ack_timeout: float,
        request: Request | None = None,
        *,
        sure: bool = False,
    ) -> None:
        """Wait for the ack of a ``started`` record, as ``start`` does."""
        admission = self._writer.admission
        try:
            began = time.monotonic(), self._writer.disk()[0]
            if sure and not await admission.written(started, ack_timeout):
                raise LedgerTimeout(
                    f"the ledger did not write the start of a call within {ack_timeout:g} s, which "
                    "its budgets need; nothing was sent"
                )
            if not await admission.ack_begun(started, ack_timeout):
                self._missed(*began)
        except BaseException:
            # Cancelled, or the writer died, before the request left: the call ends here.
            outcome = self.end(_cancelled(started), started)
            if request is not None:
                request.ends(outcome)
            raise

    def began(self, record: UsageRecord) -> UsageRecord:
        """Put a ``started`` record down: of a call under way, or while ``idle`` holds.

        Never waits, never fails.
        """
        return self._writer.admission.take(record)

    def note(self, record: UsageRecord) -> UsageRecord:
        """Put the outcome of a call down that was not made.  Never waits, never fails."""
        return self._writer.admission.take(record)

    def join(self) -> None:
        """Admit a call whose outcome is here: it waits for nothing, also while we close."""
        self._writer.admission.backlog.untracked += 1

    def end(self, record: UsageRecord, started: UsageRecord | None) -> UsageRecord:
        """Put the outcome of an admitted call down.  Never waits, never fails."""
        number = 0 if started is None else started.seq or 0
        return self._writer.admission.take(record, number)

    def end_anywhere(self, record: UsageRecord, started: UsageRecord | None) -> None:
        """``end`` from a finalizer: on any thread, at any point of the program."""
        admission = self._writer.admission
        number = 0 if started is None else started.seq or 0
        admission.submit(Entry(record, admission.way(record, number)))

    def accept_anywhere(self, record: UsageRecord) -> None:
        """Put the outcome of a call down that was never admitted; from anywhere, never waits."""
        admission = self._writer.admission
        admission.submit(Entry(record, admission.backlog.accept))

    def is_written(self, record: UsageRecord) -> bool:
        """Whether the operating system has a record."""
        return (record.seq or 0) <= self._writer.admission.backlog.log.written

    async def written(self, record: UsageRecord, timeout: float) -> bool:
        """Wait until the operating system has a record; whether it has, within ``timeout`` s."""
        try:
            return await self._writer.admission.written(record, timeout)
        except LedgerError:
            return False

    def begun(self, started: UsageRecord) -> bool:
        """Whether a request may leave, as far as its ``started`` record is concerned."""
        return self._writer.admission.begun(started)

    def acknowledged(self, record: UsageRecord) -> bool:
        """Whether there is nothing to wait for."""
        return self._writer.admission.acked(record)

    async def acknowledge(self, record: UsageRecord, timeout: float) -> None:
        """Wait for the ack of an outcome, but never withhold an answer because of the ledger."""
        began = time.monotonic(), self._writer.disk()[0]
        try:
            if not await self._writer.admission.ack(record, timeout):
                self._missed(*began, record=record)
        except LedgerError as exc:
            self._missed(*began, str(exc), record=record)

    def _missed(
        self,
        since: float,
        spent: float,
        error: str | None = None,
        record: UsageRecord | None = None,
    ) -> None:
        admission, sink = self._writer.admission, self._writer.sink
        admission.unacked += 1
        disk, refused = self._writer.disk()
        waited = time.monotonic() - since
        if sink is not None and record is not None and admission.only_unshipped(record):
            words = unshipped(admission.directory, waited, sink.figures().to, sink.failing())
        else:
            words = unacknowledged(admission.directory, waited, disk - spent, error or refused)
        warnings.warn(words, LedgerWarning, stacklevel=callers_level())


def _cancelled(started: UsageRecord) -> UsageRecord:
    """Make an outcome of a ``started`` record: of the same attempt, with nothing used."""
    outcome = copy(started)
    for name, value in (("kind", "usage"), ("status", "cancelled"), ("usage_source", "none")):
        force_setattr(outcome, name, value)
    for name in ("hold_picousd", "hold_tokens", "most_picousd", "most_tokens"):  # nothing was sent
        force_setattr(outcome, name, None)
    return outcome
