"""When two calls are equal: what goes into a cache's key, and what does not.

Owns the answer.  Everything that may change what comes back counts, to the letter; whatever cannot
be compared makes a call that is not cached.  A key is a SHA-256: no prompt, no API key and no
header can be read from it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from litellm_ledger._litellm import load as _litellm
from litellm_ledger._litellm.calls import Call

from .litellm_globals import Surroundings
from .packing import Unpackable, fingerprint

__all__ = ["IMPATIENCE", "cache_key"]

_FORM: Final = "1"
"""Of keys and entries: what another form made is never found."""

_OURS: Final = frozenset({"litellm_call_id", "litellm_session_id", "litellm_trace_id", "tags"})
"""Names for a call, and labels on it."""

IMPATIENCE: Final = (
    "max_retries",
    "num_retries",
    "request_timeout",
    "retry_policy",
    "stream_timeout",
    "timeout",
)
"""How long and how often it is tried: no part of the answer, but of how one fails."""

_NOT_COMPARED: Final = _OURS.union(IMPATIENCE)

_STATEFUL: Final = ("background", "conversation")
"""Arguments of a call that does more than answer, or answers later."""

_surroundings = Surroundings()


async def cache_key(
    call: Call,
    kwargs: Mapping[str, Any],
    litellm: Any,
    *,
    namespace: str,
    ignore: frozenset[str],
    off_loop: Callable[..., Awaitable[Any]],
) -> str | None:
    """Return the key of a call; ``None``: it cannot be compared, or must not be kept.

    Files are read to their end, by ``off_loop``, and left at the position where they were.
    """
    if call.keeps is None or any(kwargs.get(name) for name in _STATEFUL):
        return None
    left_out = _NOT_COMPARED | ignore if ignore else _NOT_COMPARED
    asked = {name: kwargs[name] for name in sorted(kwargs) if name not in left_out}
    try:
        for name in call.files:
            given = asked.get(name)
            if given is not None and type(given) is not bytes:
                asked[name] = await off_loop(_file, given)
        parts = [_FORM, _litellm.version(), namespace, call.name]
        around = _surroundings.fingerprint(litellm)
        return hashlib.sha256(fingerprint([parts, around, asked])).hexdigest()
    except Unpackable:
        return None


def _file(given: Any) -> Any:
    """What a file holds, in the place of the file.  Blocks."""
    if isinstance(given, list | tuple):  # OpenAI's (name, content, type), or several files
        return [_file(part) for part in given]
    try:
        if isinstance(given, os.PathLike):
            path = os.fspath(given)
            with open(path, "rb") as file:  # noqa: PTH123 - it may be bytes
                return [str(path), file.read()]
        if hasattr(given, "read"):
            at = given.tell()
            given.seek(0)
            try:
                content = given.read()
            finally:
                given.seek(at)
            return [str(getattr(given, "name", "")), at, content]
    except Exception as exc:
        raise Unpackable(f"a file could not be read: {type(exc).__name__}") from exc
    return given
