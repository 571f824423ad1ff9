"""Background responses: made by one call, billed when they are done, read by another.

Owns what an answer of OpenAI's Responses says about that.  Pure.
"""

from __future__ import annotations

from typing import Any, Final

from .members import member

__all__ = ["background", "is_background", "is_done"]

_FINAL: Final = frozenset({"cancelled", "completed", "failed", "incomplete"})


def is_background(answer: Any) -> bool:
    """Whether the provider makes this response in the background."""
    return member(answer, "background") is True


def is_done(answer: Any) -> bool:
    """Whether a response is in its final state."""
    return _status(answer) in _FINAL


def background(answer: Any, *, counted: bool) -> dict[str, Any]:
    """Return what goes into ``meta`` of a record: nothing for any other answer.

    ``counted`` marks the one record that carries the tokens of a response that is done.

    Args:
        counted: whether this record carries the provider's count.
    """
    if not is_background(answer):
        return {}
    told: dict[str, Any] = {"status": _status(answer)[:32]}
    if counted and is_done(answer):
        told["counted"] = True
    return {"background": told}


def _status(answer: Any) -> str:
    status = member(answer, "status")
    return str(getattr(status, "value", status) or "")
