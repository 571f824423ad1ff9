"""``UsageTracker``: records usage without any model call; what the client is built on.

Adds to the writer what a caller wants: waiting for room, acknowledgement, tags, running totals that
never rescan.  Owns the totals and the tags.  Never imports LiteLLM, never touches a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import warnings
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Never, Unpack

from msgspec.structs import force_setattr

from litellm_ledger._aggregates.groups import Row
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._errors import InvalidRecord, QueueFull
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._records.statistics import Statistics
from litellm_ledger._runtime import process as _process
from litellm_ledger._runtime import signals as _signals
from litellm_ledger._runtime.disk_thread import DiskThread
from litellm_ledger._runtime.misuse import AsyncOnly
from litellm_ledger._storage.filesystem import REAL, FileSystem
from litellm_ledger._storage.live_file import Durability
from litellm_ledger._writing.opening import Settings
from litellm_ledger._writing.queue import Entry
from litellm_ledger._writing.state import State
from litellm_ledger._writing.writer import Writer

from .calls_in_flight import CallsInFlight
from .tags import Tags, current_request

if TYPE_CHECKING:
    from datetime import timedelta

    from litellm_ledger._maintenance.retention import Retention
    from litellm_ledger._reports.ledger import ReportOptions
    from litellm_ledger._reports.report import Report

__all__ = ["UsageTracker", "listen", "serve_client"]

_log = logging.getLogger("litellm_ledger")

_Close = Callable[[], Awaitable[None]]


class UsageTracker(AsyncOnly):
    """Accepts usage records and writes them to the ledger, in order, without losing one.

    An async context manager.  Opens on first use as well; end it with ``await aclose()``.  Belongs
    to one event loop; other threads use ``record_threadsafe``.

    Args:
        ledger: the directory; default ``$LITELLM_LEDGER_DIR``, else the user's data directory.
        durability: what ``record`` waits for: ``queued``, ``written`` (the operating system has it;
            survives SIGKILL), ``synced`` (the disk has it; survives a power cut) or ``shipped``
            (``sink`` has it; survives the loss of the machine).
        tags: text to text, added to every record.
        queue_size: records accepted and not yet written; when full, ``record`` waits.
        drain_timeout: seconds that ``aclose`` may take.
        sync_interval: seconds after a write by which it is synced in the background.
        handle_signals: drain on SIGTERM and SIGINT.  ``auto``: where possible, as shown by
            ``statistics().signals``; ``True``: warn where it is not possible; ``False``: never.
        mode: mode of the ledger's directories, to share it with a group; see ``LiteLLMClient``.
        retention: how long records are kept; see ``LiteLLMClient``.
        sink: a database that everything is shipped to; see ``LiteLLMClient``.
        fs: the file system to use; tests put a faulty one here.
    """

    def __init__(
        self,
        ledger: str | os.PathLike[str] | None = None,
        *,
        durability: Durability = "written",
        tags: Mapping[str, Any] | None = None,
        queue_size: int = 10_000,
        drain_timeout: float = 10.0,
        sync_interval: float = 1.0,
        handle_signals: bool | Literal["auto"] = "auto",
        mode: int | None = None,
        retention: str | timedelta | Retention | None = None,
        sink: str | None = None,
        fs: FileSystem = REAL,
    ) -> None:
        self._tags = Tags(tags)
        self._totals = Totals()
        settings = Settings(
            ledger,
            durability=durability,
            queue_size=queue_size,
            drain_timeout=drain_timeout,
            sync_interval=sync_interval,
            mode=mode,
            retention=retention,
            sink=sink,
            fs=fs,
        )
        self._writer = Writer(
            settings,
            what="tracker",
            on_usage=self._totals.add,  # not a method of ours: we may be collected
        )
        self._handle_signals = handle_signals
        self._member: _signals.Member | None = None
        self._signal_mode: _signals.Mode = "off"
        self._close_on_signal: weakref.WeakMethod[_Close] = weakref.WeakMethod(self.aclose)
        self._members: list[_signals.Member] = []
        weakref.finalize(self, _collected, self._writer, self._members).atexit = False
        _process.inherits(self._forget_parent)

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._writer.admission.state

    @property
    def directory(self) -> Path | None:
        """The ledger's directory once it is open."""
        return self._writer.admission.directory

    async def open(self) -> None:
        """Open the ledger and install signal handlers.  Idempotent; the first use does the same.

        Raises:
            LedgerPathError: the directory cannot be used; the text says why and what to do.
            LedgerClosed: it was closed before; create a new one.
            WrongLoop: it is open on another event loop.
        """
        await self._writer.open()
        if self._member is None and self._handle_signals:
            self._member = _signals.Member(
                loop=asyncio.get_running_loop(),
                opener=asyncio.current_task(),
                close=_weak_close(self._close_on_signal, self._writer),
                hint=self._writer.admission.hint,
                drain_timeout=self._writer.drain_timeout,
            )
            self._members.append(self._member)
            self._signal_mode = _signals.enter(self._member)
            if self._handle_signals is True and self._signal_mode == "off":
                _log.warning("signals cannot be handled here; call aclose() before exiting")

    # -- recording -----------------------------------------------------------------------------

    async def record(self, record: UsageRecord) -> UsageRecord:
        """Record one usage; return it as written once it is as safe as ``durability`` says.

        Waits for room when the queue is full, first come, first served.  If it is cancelled while
        it waits for room, nothing is recorded; if later, the record is written all the same.

        Raises:
            LedgerClosed: the tracker is closed or closing.
            LedgerFailed: the writer died.
            InvalidRecord: not a ``usage`` record.
        """
        record = self._labelled(record)
        admission = self._writer.admission
        if admission.state is not State.OPEN:
            await self.open()
        else:
            admission.check_loop()
        if not admission.room_now():
            await admission.room()
        record = admission.take(record)
        _tell_request(record)
        await admission.ack(record)
        return record

    def record_nowait(self, record: UsageRecord) -> None:
        """Queue one usage record.  It is written soon, at the latest by ``aclose``.

        Raises:
            QueueFull: there is no room, or other callers are waiting for room.
            LedgerClosed: the tracker is not open.
        """
        admission = self._writer.admission
        record = self._labelled(record)
        if not admission.accept_nowait(record):
            raise QueueFull(
                f"{admission.queue_size} records are waiting to be written; use record(), which "
                "waits, or a larger queue_size"
            )
        _tell_request(record)

    def record_threadsafe(self, record: UsageRecord) -> Future[UsageRecord]:
        """Record from any thread; never blocks.

        Returns a ``concurrent.futures.Future`` of the record as written.  It is done when the
        record is as safe as ``durability`` says.

        Raises:
            QueueFull: no room.
            LedgerClosed: the tracker is not open.
        """
        record = self._labelled(record)
        admission = self._writer.admission
        admission.check_open()
        if admission.backlog.unwritten >= admission.queue_size:
            raise QueueFull(f"{admission.queue_size} records are waiting to be written")
        future: Future[UsageRecord] = Future()
        admission.submit(Entry(record, admission.backlog.accept, future))
        _tell_request(record)
        return future

    def tag(self, *mapping: Never, **tags: Any) -> contextlib.AbstractContextManager[None]:
        """Add tags to everything recorded inside the ``with``, also by tasks started inside it.

        Raises:
            TypeError: something that is no keyword argument; a mapping is given as ``**mapping``.
        """
        if mapping:
            raise TypeError(
                "tag() takes keyword arguments: tag(user='alice'), or tag(**mapping) for a mapping"
            )
        return self._tags.scope(tags)

    def _labelled(self, record: UsageRecord) -> UsageRecord:
        if not isinstance(record, UsageRecord):
            raise InvalidRecord(f"give a UsageRecord, not {type(record).__name__}")
        if record.kind != "usage" or record.status == "unsettled":
            what = record.kind if record.kind != "usage" else record.status
            raise InvalidRecord(f"only the ledger writes {what!r} records; give an outcome")
        tags = self._tags.merged(record.tags)
        if tags is not record.tags:
            record = record.__copy__()
            force_setattr(record, "tags", tags)
        return record

    def _forget_parent(self) -> None:
        """In a forked child: begin at zero, with signals of its own."""
        self._totals = Totals()
        self._writer.forget_listeners(self._totals.add)
        self._member = None
        self._signal_mode = "off"

    # -- reading -------------------------------------------------------------------------------

    def totals(self) -> Row:
        """Return the sums over every outcome recorded here since opening.  O(groups)."""
        return self._totals.total()

    def summary(self, by: Sequence[str] = ("model",)) -> list[Row]:
        """Return one row per group, most expensive first: ``by=["model", "tag:user"]``.  O(groups).

        Raises:
            ValueError: a key is not model, provider, call, status or a tag (``user`` is
                ``tag:user``).
        """
        return self._totals.summary(by)

    async def report(
        self, by: Sequence[str] | None = ("model",), **options: Unpack[ReportOptions]
    ) -> Report:
        """Report on the whole ledger, all writers and all time; arguments as for ``Ledger.report``.

        Reads in its own thread and never blocks the loop.  Records that are not written yet are not
        included: ``await flush()`` first.  If it is cancelled, it stops waiting at once; the thread
        reads to the end and its result is dropped.

        Raises:
            LedgerPathError, UnsupportedFormat, ValueError: as for ``Ledger.report``.
        """
        if self.directory is None:
            await self.open()
        thread = DiskThread("litellm-ledger-report")
        from litellm_ledger._reports.ledger import Ledger  # not loaded by those who only record

        read = partial(Ledger(self.directory or "").report, by, **options)
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, read)
        finally:
            thread.shutdown(wait=False)

    def statistics(self) -> Statistics:
        """Return queue depth, written and synced records, retries …  See ``Statistics``."""
        return dataclasses.replace(self._writer.statistics(), signals=self._signal_mode)

    # -- ending --------------------------------------------------------------------------------

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything recorded so far is written (and synced, at ``synced``).

        Raises:
            FlushTimeout: it took longer than ``timeout`` seconds; nothing is lost.
        """
        await self._writer.admission.flush(timeout)

    async def aclose(self, timeout: float | None = None) -> None:
        """Write and sync everything, seal the ledger.  Idempotent; several tasks may await it.

        Cancelling it does not cut it short: it finishes by its deadline and then re-raises.

        Raises:
            DrainTimeout: it took longer than ``timeout`` seconds (default ``drain_timeout``).
        """
        try:
            await self._writer.aclose(timeout)
        finally:
            if self._member is not None and self._writer.admission.state is State.CLOSED:
                _signals.leave(self._member)


def serve_client(tracker: UsageTracker, close: _Close) -> CallsInFlight:
    """Make a tracker part of a client; return what the client records its calls through.

    Args:
        close: the client's bound method that a signal closes through; held weakly.
    """
    writer = tracker._writer  # noqa: SLF001 - the one door into a tracker
    writer.admission.what = "client"
    tracker._close_on_signal = weakref.WeakMethod(close)  # noqa: SLF001 - as above
    return CallsInFlight(tracker.open, writer, tracker._tags)  # noqa: SLF001 - as above


def listen(
    tracker: UsageTracker,
    outcome: Callable[[UsageRecord, int | None], None],
    started: Callable[[UsageRecord], None] | None = None,
) -> Callable[[], None]:
    """Call a function with every outcome and its cost in picodollars; return what ends it.

    It is called while the record is being accepted, on the loop's thread or wherever the program
    ends: it must not raise, wait or take a lock.

    Args:
        started: called with every ``started`` record, in the context of the call.
    """
    return tracker._writer.listen(outcome, started)  # noqa: SLF001 - the one door into a tracker


def _tell_request(record: UsageRecord) -> None:
    request = current_request()
    if request is not None:
        request.begins()
        request.ends(record)


def _weak_close(close: weakref.WeakMethod[_Close], writer: Writer) -> _Close:
    """Close without keeping the tracker or client alive."""

    async def close_if_alive() -> None:
        method = close()
        await (writer.aclose() if method is None else method())

    return close_if_alive


def _collected(writer: Writer, members: Sequence[_signals.Member]) -> None:
    """Nobody can reach the tracker any more: save what it holds, and say that it was not closed."""
    for member in members:
        _signals.leave(member)
    if writer.admission.state is State.OPEN:
        writer.finish_now(writer.drain_timeout)  # first: a warning may be an error here
        warnings.warn(
            f"unclosed UsageTracker or LiteLLMClient for {writer.admission.directory}; "
            "use 'async with' or await aclose() (nothing was lost)",
            ResourceWarning,
            stacklevel=2,
        )
