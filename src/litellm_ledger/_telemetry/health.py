"""How well a ledger is: observed when a reader collects, in that reader's thread.

Owns the names of these metrics.  What the process knows comes from ``statistics()``; unsettled
calls are on the ledger alone, which is asked at most once a minute.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from litellm_ledger._errors import LedgerError
from litellm_ledger._records.statistics import Statistics

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

__all__ = ["observe"]

_log = logging.getLogger("litellm_ledger")

_PAUSE: Final = 60.0
"""Seconds between two looks at the ledger for unsettled calls."""

Look = Callable[[], tuple[Statistics, Path | None] | None]


def observe(meter: Meter, look: Look, before: Callable[[], None]) -> None:
    """Make the instruments.

    Args:
        meter: where they are made.
        look: the statistics of a client and its directory; ``None``: it is gone.
        before: called first at each collection.
    """
    from opentelemetry.metrics import Observation as Seen

    def seen(of: Callable[[Statistics, Path | None], float | None]) -> Callable[..., object]:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            before()
            found = look()
            try:
                value = None if found is None else of(*found)
            except OSError as exc:
                _log.debug("no metric of the ledger: %s", exc)
                value = None
            return [] if value is None else [Seen(value)]

        return callback

    def observed(
        make: Callable[..., object],
        name: str,
        unit: str,
        text: str,
        of: Callable[[Statistics, Path | None], float | None],
    ) -> None:
        make(name, [seen(of)], unit=unit, description=text)

    gauge = partial(observed, meter.create_observable_gauge)
    counter = partial(observed, meter.create_observable_counter)
    gauge(
        "litellm_ledger.queue.depth",
        "{record}",
        "Records accepted and not yet written.",
        lambda now, _: now.queue_depth,
    )
    gauge(
        "litellm_ledger.unsynced.age",
        "s",
        "Age of the oldest record that is written and not yet synced.",
        lambda now, _: now.oldest_unsynced_s,
    )
    gauge(
        "litellm_ledger.in_flight",
        "{call}",
        "Calls that have left for the provider and not ended.",
        lambda now, _: now.in_flight,
    )
    counter(
        "litellm_ledger.unacked",
        "{record}",
        "Answers handed out before their record was acknowledged.",
        lambda now, _: now.unacked,
    )
    counter(
        "litellm_ledger.write.retries",
        "{retry}",
        "Writes and syncs that failed and were tried again.",
        lambda now, _: now.retries,
    )
    gauge(
        "litellm_ledger.sink.backlog",
        "{record}",
        "Records on the ledger that are not shipped to the sink.",
        lambda now, _: None if now.sink is None else now.sink.backlog,
    )
    gauge(
        "litellm_ledger.sink.lag",
        "s",
        "How long the oldest of them has waited.",
        lambda now, _: None if now.sink is None else now.sink.lag_s,
    )
    counter(
        "litellm_ledger.sink.shipped",
        "{record}",
        "Records that this process has shipped.",
        lambda now, _: None if now.sink is None else now.sink.shipped,
    )
    gauge(
        "litellm_ledger.sink.failing",
        "1",
        "1 while nothing, or not everything, can be shipped.",
        lambda now, _: None if now.sink is None else int(bool(now.sink.failing)),
    )
    gauge(
        "litellm_ledger.unsettled",
        "{call}",
        "Calls on the ledger, of all processes, that were cut off: their cost is unknown.",
        _Unsettled(),
    )
    gauge(
        "litellm_ledger.disk.free",
        "By",
        "Space left where the ledger is.",
        lambda _, directory: None if directory is None else _free(directory),
    )


class _Unsettled:
    """The unsettled calls of a ledger, asked for now and then."""

    def __init__(self) -> None:
        self._asked = -_PAUSE
        self._found: int | None = None

    def __call__(self, _: Statistics, directory: Path | None) -> int | None:
        if directory is None or time.monotonic() - self._asked < _PAUSE:
            return self._found
        self._asked = time.monotonic()
        from litellm_ledger._reports.ledger import Ledger

        try:
            found = Ledger(directory).report(["status"])
        except LedgerError as exc:
            _log.debug("no metric of unsettled calls: %s", exc)
            return None
        self._found = found.total.unsettled + found.cut_off
        return self._found


def _free(directory: Path) -> int:
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize
