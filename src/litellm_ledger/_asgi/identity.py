"""What the headers of a request say about it: its id, its trace, values for tags.

Owns the question what is sane.  Anybody may send a header: what is not, is taken as not there.
Pure.
"""

from __future__ import annotations

import re
from typing import Final

from .protocol import Scope, header_values

__all__ = ["MAX_HEADER", "header_value", "sane_request_id", "trace_id"]

MAX_HEADER: Final = 256
"""Characters of a header's value that may become a tag.  A longer one is left out: a part of it
could be somebody else's."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+=~-]{0,127}")
_TRACE: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def header_value(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header that is there once, is printable and not too long."""
    values = header_values(scope, name)
    if len(values) != 1:
        return None
    text = values[0].decode("utf-8", "replace").strip()
    return text if 0 < len(text) <= MAX_HEADER and text.isprintable() else None


def sane_request_id(scope: Scope) -> str | None:
    """Return the request's ``x-request-id``, if it could be one: 1 to 128 plain characters."""
    text = header_value(scope, b"x-request-id")
    return text if text is not None and _ID.fullmatch(text) else None


def trace_id(scope: Scope) -> str | None:
    """Return the trace id of the request's ``traceparent``, if that is valid.

    By the W3C's Trace Context, level 1, section 3.2: lower-case hexadecimal, neither id all zeros,
    no version ff, nothing more than four fields in version 00; a later version may have more.
    """
    found = _TRACE.fullmatch(header_value(scope, b"traceparent") or "")
    if found is None:
        return None
    version, trace, parent, _, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    return trace if trace.strip("0") and parent.strip("0") else None
