"""Lines of CSV: how a value becomes a cell, and how a cell is kept from being a formula.

Owns quoting, and the apostrophe before text that a spreadsheet would run.  Writes nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from litellm_ledger._aggregates.formatting import dollars
from litellm_ledger._records.escaping import escaped

__all__ = ["FORMULA", "QUOTED", "CsvLines"]

FORMULA: Final = "=+-@\t\r\n＝＋－＠"
"""A cell of text that begins with one of these is a formula to some spreadsheet (OWASP, "CSV
Injection")."""

QUOTED: Final = ',"\r\n'
_quoted: Final = re.compile(f"[{QUOTED}]")


class CsvLines:
    """The form of a CSV file.

    Args:
        raw: leave text that is a formula to a spreadsheet as it is.
        terminal: it is shown directly, so control characters are escaped.
    """

    def __init__(self, *, raw: bool = False, terminal: bool = False) -> None:
        self._raw = raw
        self._terminal = terminal

    def line(self, values: Iterable[Any]) -> str:
        """Return a row with its line feed."""
        return (",".join(map(self.cell, values)) or '""') + "\n"

    def cell(self, value: Any) -> str:
        """Return a value as it stands between two commas.

        ``None`` and an empty mapping are unknown, and empty.  Numbers are our own: text alone can
        be a formula.
        """
        if value is None or value == {}:
            return ""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, Decimal):
            return dollars(value)
        if isinstance(value, datetime):
            return value.isoformat().replace("+00:00", "Z")
        if isinstance(value, dict):
            return self._text(msgspec.json.encode(value).decode())
        return str(value)

    def _text(self, text: str) -> str:
        if text[:1] and text[0] in FORMULA and not self._raw:
            text = f"'{text}"
        if self._terminal:
            text = escaped(text)
        if _quoted.search(text):
            text = '"' + text.replace('"', '""') + '"'
        return text
