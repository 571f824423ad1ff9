"""How deep JSON nests, told from its bytes without parsing it.

Parsers recurse and give up at a depth that depends on the interpreter and on the caller's stack, so
the ledger has a limit of its own, far below.  Pure: bytes in, an answer out.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DEEPEST", "nests_deeper"]

DEEPEST: Final = 64
"""Levels of objects and arrays that the value of a record's field may have."""

_ONE_KIND: Final = bytes.maketrans(b"[]", b"{}")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"{}[]"))


def nests_deeper(data: bytes, levels: int = DEEPEST) -> bool:
    """Whether objects and arrays in JSON text nest more than ``levels`` deep.

    Also true of text whose brackets do not match, which is not JSON.
    """
    # Nearly always: no array, and few objects.  What replaces looks for a byte faster than what
    # counts.
    if b"[" not in data and len(data) - len(data.replace(b"{", b"")) <= levels:
        return False
    if data.count(b"{") + data.count(b"[") <= levels:
        return False
    outside = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    brackets = b"".join(outside).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(levels):  # each round takes the innermost brackets away
        inner = brackets.replace(b"{}", b"")
        if len(inner) == len(brackets):
            break
        brackets = inner
    return bool(brackets)
