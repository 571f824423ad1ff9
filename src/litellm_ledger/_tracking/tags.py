"""Labels on records: the client's, the request's, those of ``with client.tag(...)``, the call's.

Owns the context variables: tags, and the request that code runs for.  Context variables follow a
task into the tasks it starts, so a tag set around a request covers everything done for it, and
never leaks into another request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from itertools import count
from typing import Any, Final, Protocol

from litellm_ledger._records.record import UsageRecord, clean_tags

__all__ = ["Request", "Tags", "current_request", "detached", "in_force"]

_Frames = Mapping[int, Mapping[str, str]]

_current: Final[ContextVar[_Frames]] = ContextVar("litellm_ledger_tags")
_numbers: Final = count()


class Request(Protocol):
    """A request that calls are made for: ``RequestUsage``."""

    def tags(self) -> Mapping[str, str]:
        """Return the tags of a call that begins now; raises what their function raises."""

    def begins(self) -> None:
        """A call begins."""

    def ends(self, record: UsageRecord) -> None:
        """A call that began has this outcome."""


_request: Final[ContextVar[Request | None]] = ContextVar("litellm_ledger_request", default=None)


def current_request() -> Request | None:
    """Return the request that this code runs for."""
    return _request.get()


@contextlib.contextmanager
def in_force(request: Request | None) -> Iterator[None]:
    """Have what is called inside, and by tasks that are started inside, count for a request."""
    token = _request.set(request)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # a generator that is finalized elsewhere
            _request.reset(token)


def detached() -> contextlib.AbstractContextManager[None]:
    """Have what is started inside belong to no request.

    For tasks that outlive a request and serve others as well, such as a pool of workers that the
    first request starts: a task keeps the context that it was started in for all its life.
    """
    return in_force(None)


class Tags:
    """The tags of one client: later ones win, the call's own last."""

    def __init__(self, always: Mapping[str, Any] | None) -> None:
        self._always = clean_tags(always) if always else {}
        self._number = next(_numbers)  # one variable for all clients: variables are never collected

    @contextlib.contextmanager
    def scope(self, tags: Mapping[str, Any]) -> Iterator[None]:
        """Put ``tags`` on everything recorded inside, also in tasks that are started inside."""
        frames = _current.get({})
        mine = {**frames.get(self._number, {}), **clean_tags(tags)}
        token = _current.set({**frames, self._number: mine})
        try:
            yield
        finally:
            # Leaving in another context happens to async generators that are finalized elsewhere;
            # that context never saw the tags, so there is nothing to undo.
            with contextlib.suppress(ValueError):
                _current.reset(token)

    def merged(self, own: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Return the tags of a record whose own are ``own``; ``None`` for none at all.

        Raises:
            Exception: what the function for a request's tags raises.
        """
        frames = _current.get(None)
        scoped = frames.get(self._number) if frames else None
        request = _request.get()
        asked = None if request is None else request.tags()
        if not scoped and not asked and not self._always:
            return own
        return {**self._always, **(asked or {}), **(scoped or {}), **(own or {})}
