"""Pages that are late: the first visitor of a large ledger sees that it is being read.

Owns how long a browser waits without a sign, and answers that came after it had one.  A page of
its own says so and has the browser ask again, by a header, so that it works without a script; only
what a browser itself has opened gets it, never the API, a script or ``curl``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from .service import Asked, Reply

__all__ = ["Late", "opened_by_browser"]

PATIENCE: Final = 3.0
"""Seconds without a sign."""
_KEPT: Final = 60.0
"""Seconds for which an answer is kept for a browser that asks again."""
_MOST: Final = 64
"""Pages that may be late at once; others are waited for in silence."""


class _Page(NamedTuple):
    """One that is waited for, and since when (time of the loop)."""

    answer: asyncio.Future[Reply]
    since: float


def opened_by_browser(headers: Mapping[str, str]) -> bool:
    """Whether somebody looks at the answer, in a window of a browser."""
    return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == (
        "navigate",
        "document",
    )


class Late:
    """Pages that browsers wait for.

    Args:
        ask: computes an answer.
    """

    def __init__(self, ask: Callable[[Asked], Awaitable[Reply]]) -> None:
        self._ask = ask
        self._pages: dict[bytes, _Page] = {}

    async def answer(self, asked: Asked) -> Reply | float:
        """Return the answer, or for how many seconds it has been waited for."""
        key = msgspec.json.encode(asked)  # with what the viewer may see
        page = self._pages.get(key)
        if page is None:
            if len(self._pages) >= _MOST:
                return await self._ask(asked)
            page = self._begin(key, asked)
        await asyncio.wait([page.answer], timeout=PATIENCE)
        if not page.answer.done():
            return asyncio.get_running_loop().time() - page.since
        self._forget(key, page)
        return page.answer.result()

    def _begin(self, key: bytes, asked: Asked) -> _Page:
        loop = asyncio.get_running_loop()
        page = self._pages[key] = _Page(asyncio.ensure_future(self._ask(asked)), loop.time())

        def done(answer: asyncio.Future[Reply]) -> None:
            if not answer.cancelled():
                answer.exception()  # it may be that nobody asks again
            loop.call_later(_KEPT, self._forget, key, page)

        page.answer.add_done_callback(done)
        return page

    def _forget(self, key: bytes, page: _Page) -> None:
        if self._pages.get(key) is page:
            del self._pages[key]

    def close(self) -> None:
        """Wait for none of them."""
        for page in self._pages.values():
            page.answer.cancel()
        self._pages.clear()
