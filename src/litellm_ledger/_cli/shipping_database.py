"""``ship --to postgresql://…``: ledgers of this machine are sent to a database.

Owns the words and the exit status; ``_shipping.shipper`` does the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._aggregates.formatting import clean, counted

from .flags import Output, complain, emit
from .progress import progress
from .tables import tell

if TYPE_CHECKING:
    from litellm_ledger._shipping.shipper import Shipper

__all__ = ["ship_database"]

_TRIES: Final = 3
"""How often in a row a run that does not follow tries a database that does not answer."""


def ship_database(output: Output, paths: Sequence[Path], to: str, *, follow: bool) -> int:
    """Ship ledgers; return 0 if everything that can be shipped is there."""
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
    with progress(f"shipping to {address.place}", waiting or None) as advance:
        asyncio.run(_run(shipper, advance, follow=follow))
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

    return emit(output, plain, table, status=int(bad))


async def _run(shipper: Shipper, advance: Callable[[int], None], *, follow: bool) -> None:
    """Ship until there is nothing more, or (``follow``) until a signal comes."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if shipper.stopping or not shipper.shipping:
            task.cancel()
        shipper.stopping = True
        shipper.wake()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        if follow:
            await _follow(shipper)
        else:
            await _once(shipper, advance)
    except asyncio.CancelledError:
        if not shipper.stopping:
            raise
        task.uncancel()
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
        await shipper.close()


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


async def _follow(shipper: Shipper) -> None:
    said: str | None = None
    while not shipper.stopping:
        moved = await shipper.step()
        failing = shipper.figures().failing if not moved else said
        if failing != said and failing is not None:
            complain(failing)
        said = failing
        if not moved and not shipper.stopping:
            await shipper.sleep(1.0)
