"""Labels on records: the client's own, those of ``with client.tag(...)``, the call's.

Owns the one context variable.  Context variables follow a task into the tasks it starts, so a tag
set around a request covers everything done for it, and never leaks into another request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from itertools import count
from typing import Any, Final

from litellm_ledger._records.record import clean_tags

__all__ = ["Tags"]

_Frames = Mapping[int, Mapping[str, str]]

_current: Final[ContextVar[_Frames]] = ContextVar("litellm_ledger_tags")
_numbers: Final = count()


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
        """Return the tags of a record whose own are ``own``; ``None`` for none at all."""
        frames = _current.get(None)
        scoped = frames.get(self._number) if frames else None
        if not scoped and not self._always:
            return own
        return {**self._always, **(scoped or {}), **(own or {})}
