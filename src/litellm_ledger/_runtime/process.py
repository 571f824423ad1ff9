"""Every open writer of this process, for the two moments that concern them all: exit and fork.

Owns the list.  At interpreter exit each is finished synchronously (there is no loop any more, no
new thread, but plain file I/O works).  In a forked child each is forgotten: descriptors closed,
queue emptied, nothing written, because all of it is the parent's.  Never touches a signal.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["at_exit", "enter", "inherits", "leave", "writers"]


class Member(Protocol):
    """What a writer must offer to be looked after."""

    def finish_now(self, budget: float) -> int:
        """Write what is held and seal, synchronously; return how many records were not saved."""

    def saving_here(self) -> bool:
        """Tell whether this very thread is in the middle of that, or of a write: a signal handler
        struck there."""


_open: dict[Member, weakref.finalize[..., Any]] = {}
_heirs: set[weakref.WeakMethod[Callable[[], None]]] = set()

EXIT_BUDGET = 10.0
"""Seconds that one writer may take at interpreter exit when other threads hold its segment."""


def enter(member: Member) -> None:
    """Look after a writer from now on."""
    _open[member] = at_exit(member.finish_now, EXIT_BUDGET)


def leave(member: Member) -> None:
    """Stop looking after a writer: it is closed."""
    finalizer = _open.pop(member, None)
    if finalizer is not None:
        finalizer.detach()


def at_exit(function: Callable[..., object], *args: object) -> weakref.finalize[..., Any]:
    """Call ``function`` at interpreter exit, before the writers that are open now are finished.

    ``weakref.finalize`` rather than ``atexit``: those run newest first, so streams that are still
    open have recorded their outcome before the writer is finished.
    """
    return weakref.finalize(at_exit, function, *args)  # of what lives as long as the module


def inherits(forget: Callable[[], None]) -> None:
    """Have ``forget``, a bound method, called in every forked child while its object is alive.

    It makes the object as new, without touching anything of the parent's.
    """
    _heirs.add(weakref.WeakMethod(forget, _heirs.discard))


def writers() -> list[Member]:
    """Return the open writers of this process."""
    return list(_open)


def _in_child() -> None:
    for finalizer in _open.values():
        finalizer.detach()
    _open.clear()
    for heir in list(_heirs):
        forget = heir()
        if forget is not None:
            forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
