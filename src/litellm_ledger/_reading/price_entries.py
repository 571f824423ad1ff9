"""The price book, read: what a record was priced by.

Owns which entries are believed: those whose name is that of their content (docs/FORMAT.md).  Never
writes, and opens a file only under a name that an entry can have.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from litellm_ledger._errors import UnsupportedFormat
from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.own import AMOUNTS, ModelPrice
from litellm_ledger._records.layout import LARGEST_ENTRY, PRICES, entry_name, version_of_entry
from litellm_ledger._records.nesting import nests_deeper
from litellm_ledger._storage.filesystem import names_of, open_file

from .lines import Problem

__all__ = ["PriceEntries"]

_KEPT: Final = 1_000
"""Price versions whose entries are kept in memory: anybody may have put files there, or names."""


_Own: Any = msgspec.defstruct(
    "_Own",
    [("per", int), *((name, str | None, None) for name in AMOUNTS)],
    forbid_unknown_fields=True,
)


class _File(msgspec.Struct):
    v: int
    key: str | None = None
    entry: dict[str, Any] | None = None
    price: dict[str, Any] | None = None


_decode: Final = msgspec.json.Decoder(_File).decode


class PriceEntries:
    """The entries of one ledger; each is read when it is first asked for, and then kept."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read = lru_cache(_KEPT)(self._load)
        self._problems: dict[str, Problem] = {}

    @property
    def problems(self) -> list[Problem]:
        """Entries that are there and not believed."""
        return list(self._problems.values())

    def get(self, version: str) -> Entry | ModelPrice | None:
        """Return the entry of a price version; ``None`` if there is none to believe.

        Raises:
            UnsupportedFormat: a newer version of this library wrote it.
        """
        return self._read(version)

    def check(self) -> None:
        """Read every entry that is there."""
        try:
            names = sorted(names_of(self._root / PRICES))
        except OSError:
            return
        for version in filter(None, map(version_of_entry, names)):
            self.get(version)

    def _load(self, version: str) -> Entry | ModelPrice | None:
        name = entry_name(version)
        if version_of_entry(name) is None:
            return None  # of an older version, or anybody's text
        path = self._root / PRICES / name
        try:
            with open_file(path) as file:
                data = file.read(LARGEST_ENTRY + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            self._note(name, "unreadable", exc.strerror or str(exc))
            return None
        try:
            found = _of(path, data)
        except (msgspec.DecodeError, ValueError, TypeError) as exc:
            self._note(name, "damaged", f"is no entry: {exc}")
            return None
        if found.version == version:
            return found
        self._note(name, "misnamed", f"its content is that of {found.version}")
        return None

    def _note(self, name: str, what: Any, detail: str) -> None:
        self._problems[name] = Problem(f"{PRICES}/{name}", what, detail=detail)


def _of(path: Path, data: bytes) -> Entry | ModelPrice:
    if len(data) > LARGEST_ENTRY:
        raise ValueError("it is too long")
    if nests_deeper(data):
        raise ValueError("it nests too deep")
    file = _decode(data)
    if file.v > 1:
        raise UnsupportedFormat(
            f"{path} is of version {file.v} and this library knows version 1: upgrade "
            "litellm-ledger"
        )
    if file.key is not None and file.entry is not None:
        return Entry(file.key, file.entry)
    if file.price is not None:
        return ModelPrice(**msgspec.structs.asdict(msgspec.convert(file.price, _Own)))
    raise ValueError("it has neither entry nor price")
