"""Whether LiteLLM is at work for one of our calls: what tells them from those that capture records.

Owns the one context variable.  It is set while we are inside LiteLLM, and LiteLLM's callbacks see
it because they run in the context of the call, or in a copy of it.  A call that a client makes is
on that client's ledger, so that no other client captures it either.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

__all__ = ["is_ours", "our_context", "ours"]

_ours: Final[ContextVar[bool]] = ContextVar("litellm_ledger_ours", default=False)


def is_ours() -> bool:
    """Whether this runs on behalf of a call that a client of ours makes."""
    return _ours.get()


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """Mark what LiteLLM does inside as ours; about 1 µs."""
    token = _ours.set(True)
    try:
        yield
    finally:
        # A coroutine that is closed by the garbage collector ends in another context, which never
        # saw the mark.
        with contextlib.suppress(ValueError):
            _ours.reset(token)


def our_context() -> contextvars.Context:
    """Return a context for a task of ours: the mark, and nothing of whoever starts the task."""
    context = contextvars.Context()
    context.run(_ours.set, True)
    return context
