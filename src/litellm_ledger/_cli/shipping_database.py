"""``ship --to postgresql://…``: ledgers of this machine are sent to a database.

Owns the words and the exit status; ``_shipping.shipper`` does the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._aggregates.formatting import clean, counted

from .flags import Output, complain, emit, said_begin
from .progress import progress
from .tables import tell

if TYPE_CHECKING:
    from litellm_ledger._shipping.shipper import Shipper

__all__ = ["ship_database"]

_TRIES: Final = 3
"""How often in a row a run that does not follow tries a database that does not answer."""
_LAST: Final = 5.0
"""Seconds that a follower that is told to end has for what came since its last look."""


def ship_database(
    output: Output, paths: Sequence[Path], to: str, *, follow: bool, every: int | None = None
) -> int:
    """Ship ledgers; return 0 if everything that can be shipped is there.

    Args:
        every: seconds between two looks of a follower; ``None``: one.
    """
    from litellm_ledger._postgres.address import Address
    from litellm_ledger._shipping.road import Road
    from litellm_ledger._shipping.shipper import Shipper

    address = Address.of(to)
    logging.getLogger("litellm_ledger").addHandler(logging.NullHandler())  # it is said below
    shipper = Shipper(address, [Road(path, address.place) for path in paths])
    for road in shipper.roads:
        with contextlib.suppress(OSError):  # there is no ledger yet
            road.look()
    waiting = sum(road.waiting()[0] for road in shipper.roads)
    pace = None
    if follow:
        pace = max(1, every or 1)
        said_begin(output, paths, address.place)
    with progress(f"shipping to {address.place}", waiting or None) as advance:
        asyncio.run(_run(shipper, advance, pace=pace))
    figures = shipper.figures()
    held = {
        str(road.root): [*road.held().values(), *filter(None, (road.unreadable, road.unrecovered))]
        for road in shipper.roads
    }
    bad = figures.failing is not None or (figures.backlog > 0 and not follow)

    def plain() -> dict[str, Any]:
        return {
            "to": figures.to,
            "ok": not bad,
            "shipped": figures.shipped,
            "backlog": figures.backlog,
            "backlog_bytes": figures.backlog_bytes,
            "lag_s": round(figures.lag_s, 3),
            "error": figures.failing,
            "ledgers": [
                {"path": str(road.root), "backlog": road.waiting()[0], "held": held[str(road.root)]}
                for road in shipper.roads
            ],
        }

    def table() -> None:
        tell(f"{counted(figures.shipped, 'record')} shipped to {figures.to}.")
        if figures.backlog:
            size = f"about {figures.backlog_bytes:,} bytes"
            tell(f"{counted(figures.backlog, 'record')} not shipped yet, {size}.")
        for path, reasons in held.items():
            for why in reasons:
                tell(f"{path}: not shipped: {clean(why, 400)}")
        if shipper.failing is not None:
            complain(shipper.failing)

    return emit(output, plain, table, status=int(bad), calm=True)


async def _run(shipper: Shipper, advance: Callable[[int], None], *, pace: int | None) -> None:
    """Ship until there is nothing more.

    Args:
        pace: seconds between two looks, until a signal comes; what came since the last of them is
            shipped then.
    """
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    told: list[bool] = []  # with each signal: whether a batch was being shipped

    def stop() -> None:
        told.append(shipper.shipping)
        if len(told) > 1 or not shipper.shipping:
            task.cancel()
        shipper.stopping = True
        shipper.wake()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        with _cancelled_by(told, task):
            await (_once(shipper, advance) if pace is None else _follow(shipper, pace))
        if pace is not None and told == [False]:
            with _cancelled_by(told, task):
                await _ship_the_rest(shipper)
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
        await shipper.close()


@contextlib.contextmanager
def _cancelled_by(told: Sequence[bool], task: asyncio.Task[Any]) -> Iterator[None]:
    """Go on after a cancellation that a signal has asked for."""
    try:
        yield
    except asyncio.CancelledError:
        if not told:
            raise
        task.uncancel()


async def _ship_the_rest(shipper: Shipper) -> None:
    """Ship what came since the last look: it may be long until somebody ships it."""
    if shipper.failing is None and shipper.last_success is not None:
        shipper.stopping = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST):
                await _once(shipper, lambda _: None)


async def _once(shipper: Shipper, advance: Callable[[int], None]) -> None:
    failed = done = 0
    while not shipper.stopping and failed < _TRIES:
        moved = await shipper.step(all_now=True)
        advance(shipper.records - done)
        done = shipper.records
        if moved:
            failed = 0
        elif shipper.failing is None:
            break
        else:
            failed += 1
            await shipper.sleep(0.2 * failed)


async def _follow(shipper: Shipper, pace: int) -> None:
    said: str | None = None
    while not shipper.stopping:
        # With more time between two looks, all that there is to do is done at once.
        moved = await shipper.step(all_now=pace > 1 and shipper.failing is None)
        failing = shipper.figures().failing if not moved else said
        if failing != said:
            complain(failing or f"{shipper.figures().to}: shipping again")
        said = failing
        if not moved and not shipper.stopping:
            await shipper.sleep(1.0 if shipper.failing else pace)
