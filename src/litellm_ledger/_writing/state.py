"""The life of a ledger writer: every state and every transition, in one table.

The outcome of a call in flight is taken in every state after OPEN too: the provider bills it
whatever we do.  Pure: decides, never acts.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["State", "advance", "refusal"]


class State(enum.Enum):
    """Where a writer, tracker or client is in its life."""

    UNOPENED = "unopened"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"
    FAILED = "failed"


_NEXT: Final[dict[State, frozenset[State]]] = {
    State.UNOPENED: frozenset({State.OPEN, State.CLOSED}),
    State.OPEN: frozenset({State.DRAINING, State.CLOSED, State.FAILED}),
    State.DRAINING: frozenset({State.CLOSED, State.FAILED}),
    State.FAILED: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}


def advance(old: State, new: State) -> State:
    """Return ``new`` if the step from ``old`` is in the table, else raise ``RuntimeError``."""
    if new not in _NEXT[old]:
        raise RuntimeError(f"no transition {old.name} -> {new.name} (a bug in litellm-ledger)")
    return new


def refusal(state: State, what: str) -> str:
    """Say why new work is refused in ``state`` and what to do about it."""
    return {
        State.UNOPENED: f"{what} is not open; use 'async with' or await its first call",
        State.OPEN: f"{what} is open",
        State.DRAINING: f"{what} is closing and accepts no new work; finish calls before aclose()",
        State.CLOSED: f"{what} is closed; create a new one",
        State.FAILED: f"{what} cannot write any more; see the error's cause and the log",
    }[state]
