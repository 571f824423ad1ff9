"""What ``statistics()`` returns: nothing is lost, late or retried in silence.  Pure data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal

__all__ = ["CacheStatistics", "SinkStatistics", "Statistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """Response caches so far, each counted for all clients that use it.

    Attributes:
        hits: calls that were answered without a request of their own.
        shared: how many of those waited for an equal call that was in flight.
        misses: calls that made a request because there was no answer yet.
        skipped: calls that could not be compared (for example, an argument is an open
            connection) or whose answer is never kept; they did not use the cache.
        stored: answers put into the store.
        evictions: entries dropped because others needed their place.
        expired: entries dropped because their time was over.
        errors: times that the store failed, was too slow, or returned no valid answer.
        entries, bytes: what is in memory now; ``None`` where every store is your own.
    """

    hits: int
    shared: int
    misses: int
    skipped: int
    stored: int
    evictions: int
    expired: int
    errors: int
    entries: int | None
    bytes: int | None

    @classmethod
    def added(cls, caches: Sequence[CacheStatistics]) -> CacheStatistics:
        """Add up the figures of several caches."""
        sums: dict[str, int | None] = {}
        for field in fields(cls):
            known = [n for n in (getattr(one, field.name) for one in caches) if n is not None]
            sums[field.name] = sum(known) if known else None
        return cls(**sums)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatistics:
    """How shipping to a database goes, as of a moment ago.

    Attributes:
        to: the database, without user and password.
        backlog: records (and gaps) on the ledger that are certain and not known to be there: of
            all its writers, other processes' too.
        backlog_bytes: about how many bytes they have.
        lag_s: seconds that the oldest of them has waited, as far as this process has seen (0: none
            waits).
        rate: records a second that this process has shipped, over the last 10 seconds.
        shipped: records that this process has shipped.
        last_success: when the database last took something, or said that it has it (UTC).
        last_error: the text of the last failure (``None``: there was none).
        failing: why nothing, or not everything, is shipped at the moment (``None``: nothing is in
            the way).
    """

    to: str
    backlog: int = 0
    backlog_bytes: int = 0
    lag_s: float = 0.0
    rate: float = 0.0
    shipped: int = 0
    last_success: datetime | None = None
    last_error: str | None = None
    failing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The state of one writer at one moment.

    Attributes:
        state: ``unopened``, ``open``, ``draining``, ``closed`` or ``failed``.
        writer: name of the writer, the first part of every record id (``None`` before opening).
        signals: ``on`` (this library's handlers), ``chained`` (it also calls the handlers that
            were there), ``off`` (no main thread, no support, or not asked for).
        accepted, written, synced: records; ``written`` the operating system has, ``synced`` the
            disk.
        queue_depth: records accepted and not yet written.
        queue_size: how many of those there may be before callers wait.
        waiting: callers that wait for room.
        in_flight: calls that have left for the provider and not ended.
        unsynced_bytes: bytes written and not yet synced (kept in memory until they are).
        oldest_unsynced_s: seconds since the oldest unsynced record was written (0: none).
        bytes: bytes written by this writer.
        segments: segment files begun.
        retries: writes or syncs that failed and were tried again.
        last_error: the text of the last of those failures (``None``: there was none).
        failing: the text of the error that the disk gives at the moment (``None``: it gives none).
        unacked: answers handed out without an acknowledgement in time.
        active: the client's requests in flight, including streams that are being read.
        waiting_for_slot: calls that wait because there are ``max_concurrency`` of those
            (``None``: no limit).
        repeated: attempts begun after the first of their call failed.
        duplicates: times that LiteLLM reported an attempt to ``capture`` again (since 1.109 it
            does so for every call that is not a stream); none was recorded twice.
        cache: the response cache of the view that was asked; for a client, the sums over its own
            cache and those of its views, as long as these caches exist (``None``: there is none).
        retention_error: why the last look for records past their time failed, or which of them
            stay (``None``: neither; ``retention`` of the client).
        sink: how shipping to ``sink=`` goes (``None``: there is no sink).
        on_loop: writes made straight from the event loop; ``on_thread``: through the disk thread.
    """

    state: str
    writer: str | None
    signals: Literal["on", "chained", "off"]
    accepted: int
    written: int
    synced: int
    queue_depth: int
    queue_size: int
    waiting: int
    in_flight: int
    unsynced_bytes: int
    oldest_unsynced_s: float
    bytes: int
    segments: int
    retries: int
    last_error: str | None
    unacked: int
    on_loop: int
    on_thread: int
    failing: str | None = None
    active: int = 0
    waiting_for_slot: int = 0
    max_concurrency: int | None = None
    repeated: int = 0
    duplicates: int = 0
    cache: CacheStatistics | None = None
    retention_error: str | None = None
    sink: SinkStatistics | None = None
