"""What the words for a ledger mean: a directory, or a URL of one that is elsewhere.

Owns which scheme is read by which module; that is imported where such a URL is given.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:  # a command line that reads nothing needs only is_url
    from litellm_ledger._reading.elsewhere import Elsewhere, Place

__all__ = ["is_url", "place_of"]

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OBJECTS: Final = "_objects.reading"
_READERS: Final = {
    "az": _OBJECTS,
    "file": _OBJECTS,
    "gs": _OBJECTS,
    "memory": _OBJECTS,
    "postgres": "_warehouse.reading",
    "postgresql": "_warehouse.reading",
    "s3": _OBJECTS,
}
"""Scheme to the module whose ``elsewhere(url)`` reads such a ledger."""


def is_url(text: object) -> bool:
    """Whether a text is a URL, and no path."""
    return isinstance(text, str) and _URL.match(text) is not None


def place_of(given: str | os.PathLike[str] | Elsewhere) -> Place:
    """Return the ledger that is meant.

    Raises:
        ValueError: a URL that nothing here reads, or that cannot be read; the text has no password.
    """
    if not isinstance(given, str | os.PathLike):
        return given
    match = _URL.match(given) if isinstance(given, str) else None
    if match is None:
        return Path(given)
    module = _READERS.get(match[1].lower())
    if module is None:
        known = ", ".join(f"{scheme}://" for scheme in sorted(_READERS) if scheme != "memory")
        raise ValueError(f"no ledger is read from {match[0]}; give a directory, or {known}")
    reader: Any = import_module(f"litellm_ledger.{module}")
    return cast("Elsewhere", reader.elsewhere(given))
