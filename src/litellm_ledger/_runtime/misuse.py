"""Error messages for misuse of a client or tracker, and for records that are not acked in time.

Owns these messages, which say what to write instead, and the search for the caller's line that a
warning should name.  Pure.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

__all__ = ["AsyncOnly", "callers_level", "instead", "unacknowledged", "unshipped"]

_TRACKERS: Final = ("record", "record_nowait", "record_threadsafe", "summary", "totals")
"""What a client's ``usage`` has and people look for on the client."""

_NOT_THE_CALLERS: Final = frozenset(
    {"anyio", "contextlib", "litellm", "litellm_ledger", "tenacity"}
)


class _Opens(Protocol):
    async def open(self) -> None: ...

    async def aclose(self) -> None: ...


_T = TypeVar("_T", bound=_Opens)


class AsyncOnly:
    """Opens and closes with ``async with``; raises a helpful error for a plain ``with``."""

    async def __aenter__(self: _T) -> _T:  # noqa: PYI019 - Self has no bound
        await self.open()
        return self

    async def __aexit__(self: _Opens, *_: object) -> None:
        await self.aclose()

    if not TYPE_CHECKING:  # for a type checker there is no such method, which is its way to say it

        def __enter__(self) -> None:
            name = type(self).__name__
            raise TypeError(f"{name} is asynchronous: write 'async with {name}(...)'")

        def __exit__(self, *_: object) -> None:
            pass


def instead(of: object, name: str) -> AttributeError:
    """Make the error for an attribute that a client lacks, with what to write in its place."""
    kind = type(of)
    said = f"{kind.__name__!r} object has no attribute {name!r}"
    if not name.startswith("_"):
        if name in _TRACKERS:
            said += f"; write client.usage.{name}(...)"
        elif hasattr(kind, f"a{name}"):
            said += f": it is asynchronous; write await client.a{name}(...)"
    return AttributeError(said, name=name, obj=of)


def unacknowledged(directory: object, waited: float, disk: float, error: str | None) -> str:
    """Say that a record was not acknowledged in time, and what was slow.

    Args:
        waited: seconds since the record was accepted.
        disk: how many of them the writer spent in system calls.
        error: what the disk answers, or what became of the writer.
    """
    until = "as soon as the disk allows"
    if error is not None:
        why = f"writing fails ({error})"
    elif disk > waited / 2:
        why = f"the disk is slow ({disk:.2g} s of {waited:.2g} s)"
    else:
        why = (
            f"the event loop was blocked or overloaded (the disk took {disk:.2g} s of "
            f"{waited:.2g} s)"
        )
        until = "as soon as the loop runs again"
    return (
        f"the ledger in {directory} has not acknowledged a record in time: {why}.  The call "
        f"continues, and the record is written {until} (see statistics().unacked)"
    )


def unshipped(directory: object, waited: float, to: str, error: str | None) -> str:
    """Say that a record is on the disk, and not yet where it is shipped to.

    Args:
        waited: seconds since the record was accepted.
        to: the database, without a password.
        error: what the database, or the way there, answered last; ``None``: nothing.
    """
    why = error or f"it has said nothing in {waited:.2g} s"
    return (
        f"the ledger in {directory} has not acknowledged a record in time: it is written; the "
        f"database {to} has not committed it: {why}.  The call continues, and the record is "
        f"shipped later (see statistics().sink)"
    )


def callers_level() -> int:
    """Return the ``stacklevel`` with which a warning names the caller's own line.

    For use by the function that warns.  A coroutine that awaits stands on the stack below what it
    awaits.  Where nobody of the caller's is on it (a task that LiteLLM or we began), the line that
    warns is named.
    """
    level = 0
    frame: Any = sys._getframe(1)  # noqa: SLF001 - the only way to the caller's line
    while frame is not None:
        level += 1
        home = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if home == "asyncio":
            return 1
        if home not in _NOT_THE_CALLERS:
            return level
        frame = frame.f_back
    return 1
