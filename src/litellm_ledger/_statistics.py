"""What ``statistics()`` returns: nothing is lost, late or retried in silence.  Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Statistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The state of one writer at one moment.

    Attributes:
        state: ``unopened``, ``open``, ``draining``, ``closed`` or ``failed``.
        writer: name of the writer, the first part of every record id (``None`` before opening).
        signals: ``on`` (we own the handlers), ``chained`` (somebody else's are called after ours),
            ``off`` (no main thread, no support, or not asked for).
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
        last_error: what the last of those said (``None``: there was none).
        unacked: answers handed out without an acknowledgement in time.
        active: requests of the client's under way, streams that are being read among them.
        waiting_for_slot: calls that wait because there are ``max_concurrency`` of those
            (``None``: no limit).
        repeated: attempts begun after the first of their call failed.
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
    active: int = 0
    waiting_for_slot: int = 0
    max_concurrency: int | None = None
    repeated: int = 0
