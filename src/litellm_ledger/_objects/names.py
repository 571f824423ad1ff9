"""What is under a prefix in object storage: the parts of a ledger, and which names are of it.

Owns the test of a name, by which what anybody put there is left alone: a name becomes that of a
file, so that none may lead out of its directory.  Owns the form of a URL of a prefix, too.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from litellm_ledger._errors import LedgerPathError, UnsupportedFormat
from litellm_ledger._records.layout import (
    ARCHIVE,
    MANIFESTS,
    PRICES,
    SEGMENTS,
    SegmentName,
    version_of_entry,
)

__all__ = [
    "LARGEST",
    "PARTS",
    "SCHEMES",
    "VERSION",
    "VERSIONS",
    "is_name",
    "is_prefix",
    "refuse_newer_objects",
    "refuse_secrets",
    "scheme_of",
    "segment_of",
]

SCHEMES: Final = ("s3", "gs", "az", "file", "memory")
"""Of object storage: ``memory`` is for tests."""

PARTS: Final = (PRICES, MANIFESTS, SEGMENTS, ARCHIVE)
"""In the order in which they are listed: a segment is in ``segments/`` before it is in the archive,
and has its name before its manifest."""

VERSIONS: Final = "versions"
VERSION: Final = "1"
"""The name of an object in ``versions/``: what is under the prefix needs a reader of this version
of the format of objects."""

LARGEST: Final = 2**30
"""Bytes of a file that is sent; a larger object is none of a ledger."""

_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.ASCII | re.IGNORECASE)
_SECRET: Final = re.compile(r"://[^/?#]*@|[?#]")
_ARCHIVED: Final = re.compile(r"\d{4}-\d{2}-\d{2}\.[0-9a-f]{16}\.parquet", re.ASCII)
_JSON: Final = ".json"


def is_name(part: str, name: str) -> bool:
    """Whether an object of this name is a file of a ledger."""
    if part == SEGMENTS:
        parsed = SegmentName.parse(name)
        return parsed is not None and not parsed.open
    if part == MANIFESTS:
        return segment_of(name) is not None
    if part == ARCHIVE:
        return _ARCHIVED.fullmatch(name) is not None
    return part == PRICES and version_of_entry(name) is not None


def segment_of(manifest: str) -> SegmentName | None:
    """Return the sealed segment that a manifest of this name is of."""
    name = SegmentName.parse(manifest.removesuffix(_JSON)) if manifest.endswith(_JSON) else None
    return None if name is None or name.open else name


def refuse_newer_objects(url: str, versions: Iterable[str]) -> None:
    """Refuse a prefix that a newer version of this library has written to.

    Raises:
        UnsupportedFormat: it has.
    """
    newer = [name for name in versions if name.isascii() and name.isdigit() and int(name) > 1]
    if newer:
        raise UnsupportedFormat(
            f"{url} is of version {max(map(int, newer))} of the format of objects and this library "
            f"knows version {VERSION}; nothing was touched: upgrade litellm-ledger"
        )


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case; empty: it is none."""
    match = _URL.match(url)
    return match[1].lower() if match else ""


def is_prefix(place: str) -> bool:
    """Whether this is the URL of a prefix in object storage."""
    return scheme_of(place) in SCHEMES


def refuse_secrets(url: str) -> str:
    """Return the URL of a prefix without its last slashes.

    Raises:
        LedgerPathError: it has a user, a password or a query; the text repeats none of them.
    """
    if _SECRET.search(url):
        bare = _URL.match(url)
        raise LedgerPathError(
            f"{bare[0] if bare else ''}… has a user, a query or a fragment, which would be seen in "
            "lists of processes and logs: give s3://BUCKET/PREFIX, and credentials by the "
            "environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL …)"
        )
    return url.rstrip("/")
