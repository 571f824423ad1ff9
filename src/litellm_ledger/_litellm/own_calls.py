"""Whether LiteLLM is at work for one of our calls: what tells them from those that capture records.

Owns the one context variable.  It is set while we are inside LiteLLM, and LiteLLM's callbacks see
it because they run in the context of the call, or in a copy of it.  A call that a client makes is
on that client's ledger, so that no other client captures it either.
"""

from __future__ import annotations

import contextvars
from contextvars import ContextVar
from typing import Final

__all__ = ["is_ours", "our_context", "ours"]

_ours: Final[ContextVar[bool]] = ContextVar("litellm_ledger_ours", default=False)


def is_ours() -> bool:
    """Whether this runs on behalf of a call that a client of ours makes."""
    return _ours.get()


class ours:  # noqa: N801 - read as a word: ``with ours():``
    """Mark what LiteLLM does inside as ours.  A generator would cost thrice as much."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _ours.set(True)

    def __exit__(self, *_: object) -> None:
        try:
            _ours.reset(self._token)
        except ValueError:
            # A coroutine that is closed by the garbage collector ends in another context, which
            # never saw the mark.
            pass


def our_context() -> contextvars.Context:
    """Return a context for a task of ours: the mark, and nothing of the code that starts it."""
    context = contextvars.Context()
    context.run(_ours.set, True)
    return context
