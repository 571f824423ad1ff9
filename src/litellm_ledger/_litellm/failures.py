"""When another attempt is worth it, when it may start, and what the failed one may have cost.

Owns these three decisions.  Pure: it reads exceptions by their attributes and the names of their
classes, never imports LiteLLM, never waits, never looks at a clock.  ``_calls.operation`` acts on
it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["asked_to_wait", "causes", "may_be_billed", "worth_retrying"]

_WORTH_IT: Final = frozenset({408, 409, 429})
"""Statuses below 500 that may pass: time-out, conflict, too many requests.  As in OpenAI's SDK."""

_NEVER: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Codes that come with 429 and stay until somebody pays."""

_NOT_MADE: Final = "OpenAIError"
"""What OpenAI's SDK raises before it makes a request: it has no key.  LiteLLM says 500.  What comes
of a request is of a class below this one."""

_NOT_SENT: Final = frozenset(
    {
        "ClientConnectorError",
        "ConnectError",
        "ConnectTimeout",
        "ConnectionRefusedError",
        "PoolTimeout",
    }
)
_SENT: Final = frozenset(
    {
        "APITimeoutError",
        "ClientPayloadError",
        "IncompleteReadError",
        "ReadError",
        "ReadTimeout",
        "RemoteProtocolError",
        "ServerDisconnectedError",
        "ServerTimeoutError",
        "SocketTimeoutError",
        "TimeoutError",
        "WriteError",
        "WriteTimeout",
    }
)
_ANSWERED: Final = frozenset({"APIStatusError", "HTTPStatusError"})
"""Classes of httpx, aiohttp and the SDKs that tell how far a request had come."""


def worth_retrying(exc: BaseException, outside: BaseException | None = None) -> bool:
    """Whether the same request may fare better a moment later.

    429, 408, 409, 5xx, connections that failed and time-outs.  The server's ``x-should-retry`` has
    the last word, as in the SDKs.  Never what is no ``Exception`` (cancellation, exit), never a
    mistake in the request, never this library's own errors.  ``outside`` is what the caller was
    handling already, the end of every chain of causes.
    """
    if not isinstance(exc, Exception):
        return False
    said = _header(exc, "x-should-retry")
    if said in ("true", "false"):
        return said == "true"
    status = getattr(exc, "status_code", None)
    if type(status) is int:
        if status == 429:
            return not any(getattr(link, "code", None) in _NEVER for link in causes(exc, outside))
        return status in _WORTH_IT or (status >= 500 and not _lacks_a_key(exc, outside))
    # LiteLLM puts a status on all that it knows; these two come through from below it.
    return type(exc).__module__ == "builtins" and isinstance(exc, ConnectionError | TimeoutError)


def asked_to_wait(exc: BaseException, now: datetime) -> float | None:
    """Seconds that the server asked to wait before the next request; ``None`` if it did not.

    ``retry-after-ms`` (OpenAI, Azure), else ``retry-after`` in seconds or as an HTTP date (RFC 9110
    section 10.2.3).  What cannot be read is not there; the past is 0.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = _header(exc, name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            seconds = _until(text, now)
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def may_be_billed(exc: BaseException, outside: BaseException | None = None) -> bool:
    """Whether the request was sent, or may have been, and no error status came back for it.

    A time-out while waiting for the answer, an answer cut in the middle, a connection lost: the
    provider may have worked, and charges for it.  An error status is not billed, and neither is a
    request that never found a connection.  ``outside`` as for ``worth_retrying``.
    """
    if not isinstance(exc, Exception):
        return True  # cancelled in flight: how far it had come is not known
    names = {
        cls.__name__
        for link in causes(exc, outside)
        if not type(link).__module__.startswith("litellm.")  # all of LiteLLM's are APIStatusErrors
        for cls in type(link).__mro__
    }
    if names & _NOT_SENT or names & _ANSWERED:
        return False
    return bool(names & _SENT) or type(exc).__name__ == "Timeout"


def _lacks_a_key(exc: BaseException, outside: BaseException | None) -> bool:
    return any(
        type(link).__name__ == _NOT_MADE and type(link).__module__.partition(".")[0] == "openai"
        for link in causes(exc, outside)
    )


def causes(
    exc: BaseException | None, outside: BaseException | None = None
) -> Iterator[BaseException]:
    """The exception and what it came from, down to what was there before the call."""
    seen: set[int] = set()
    while exc is not None and exc is not outside and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        exc = exc.__cause__ or exc.__context__


def _header(exc: BaseException, name: str) -> str | None:
    """A header of the answer.  LiteLLM keeps them apart; ``exc.response`` is its own invention."""
    headers = getattr(exc, "litellm_response_headers", None)
    if not isinstance(headers, Mapping):
        return None
    for key, value in headers.items():
        if isinstance(value, str) and str(key).lower() in (name, f"llm_provider-{name}"):
            return value.strip()
    return None


def _until(text: str, now: datetime) -> float:
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return math.nan
    if when.tzinfo is None:  # "-0000": UTC, by RFC 5322
        when = when.replace(tzinfo=UTC)
    return (when - now).total_seconds()
