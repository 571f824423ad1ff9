"""The files that pages refer to: style sheet, script, icon.

Owns their names, which have a hash of what is in them, so that a browser keeps them for good.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final, NamedTuple

__all__ = ["ASSETS", "Asset", "assets", "named"]

ASSETS: Final = "assets"
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_FILES: Final = {
    "dashboard.css": (("_page", "page.css"), ("_web", "dashboard.css")),
    "dashboard.js": (("_web", "dashboard.js"),),
    "icon.svg": (("_web", "icon.svg"),),
}
"""What each is made of: the dashboard looks as the page of a report does."""


class Asset(NamedTuple):
    """A file."""

    type: str
    data: bytes
    packed: bytes


@cache
def assets() -> Mapping[str, Asset]:
    """Return the files by the names that they have on the server."""
    found = {}
    for name, parts in _FILES.items():
        data = b"".join(
            files(f"litellm_ledger.{room}").joinpath("assets", part).read_bytes()
            for room, part in parts
        )
        stem, _, kind = name.partition(".")
        hashed = f"{stem}.{sha256(data).hexdigest()[:16]}.{kind}"
        found[hashed] = Asset(_TYPES[kind], data, gzip.compress(data, 9, mtime=0))
    return found


@cache
def named(name: str) -> str:
    """Return the name on the server of one of the files."""
    stem, _, kind = name.partition(".")
    return next(one for one in assets() if one.startswith(f"{stem}.") and one.endswith(f".{kind}"))
