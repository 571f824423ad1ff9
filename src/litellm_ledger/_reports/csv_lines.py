"""CSV: how a value becomes a cell, how a cell is kept from being a formula, and records as lines.

Owns quoting, and the apostrophe before text that a spreadsheet would run.  Of a large ledger the
database writes the rows (``csv_rows``): the very bytes that ``put_csv`` would.  What it would write
otherwise than we do (fractions, JSON) is left to Python.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec

from litellm_ledger._aggregates.formatting import dollars
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._archive.columns import COLUMNS, quoted, text_list
from litellm_ledger._records.escaping import escaped
from litellm_ledger._records.record import CUT_MARK, MAX_TEXT, UsageRecord, clean_tags

if TYPE_CHECKING:
    from .relation import Relation

__all__ = ["CsvLines", "csv_rows", "put_csv", "put_rows"]

_FIELDS: Final = UsageRecord.__struct_fields__
"""The columns of a record: its members, ``tags``, ``meta`` and ``content`` as JSON text."""

_FORMULA: Final = "=+-@\t\r\n＝＋－＠"
"""A cell of text that begins with one of these is a formula to some spreadsheet (OWASP, "CSV
Injection")."""

_QUOTED: Final = ',"\r\n'
_needs_quotes: Final = re.compile(f"[{_QUOTED}]")


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
        if text[:1] and text[0] in _FORMULA and not self._raw:
            text = f"'{text}"
        if self._terminal:
            text = escaped(text)
        if _needs_quotes.search(text):
            text = '"' + text.replace('"', '""') + '"'
        return text


def put_rows(
    header: Iterable[str], rows: Iterable[Iterable[Any]], to: TextIO, *, raw: bool
) -> None:
    """Write rows as CSV with a header; what is unknown is empty."""
    form = CsvLines(raw=raw, terminal=to.isatty())
    to.write(form.line(header))
    to.writelines(map(form.line, rows))


def put_csv(records: Iterable[UsageRecord], to: TextIO, *, raw: bool) -> None:
    """Write records as CSV with a header."""
    put_rows(_FIELDS, map(attrgetter(*_FIELDS), records), to, raw=raw)


_JSON: Final = ("tags", "meta", "content")
_FLOATS: Final = tuple(name for name, kind in COLUMNS.items() if kind == "DOUBLE")
_BATCH: Final = 5_000

# What UsageRecord completes on an outcome that another program wrote.
_COUNTED: Final = "(input_tokens IS NOT NULL OR output_tokens IS NOT NULL)"
_COMPLETED: Final = {
    "status": "coalesce(status, 'ok')",
    "usage_source": f"coalesce(usage_source, if({_COUNTED}, 'provider', 'none'))",
    "total_tokens": "coalesce(total_tokens, "
    f"if({_COUNTED}, coalesce(input_tokens, 0) + coalesce(output_tokens, 0), NULL))",
}


def csv_rows(relation: Relation, selection: Selection, *, raw: bool) -> Iterator[str]:
    """Yield the outcomes as lines of CSV, in the order of ``Ledger.records``."""
    from litellm_ledger._archive.database import statement
    from litellm_ledger._reports.in_duckdb import condition

    database = relation.database
    database.execute(
        statement("csv").format(
            most=MAX_TEXT,
            mark=quoted(CUT_MARK),
            formulas="[]::VARCHAR[]" if raw else text_list(_FORMULA),
            quoted=quoted(f"[{_QUOTED}]"),
        )
    )
    where, values = condition(selection)
    columns: list[str] = []
    finish: list[Callable[[Any], str]] = []
    form = CsvLines(raw=raw)
    for ours, names in groupby(_FIELDS, key=lambda name: name in _JSON or name in _FLOATS):
        if not ours:
            columns.append(" || ',' || ".join(map(_written, names)))
            finish.append(str)
            continue
        for name in names:
            columns.append(f"CAST(to_json({name}) AS VARCHAR)" if name in _JSON else name)
            finish.append(_json_cell(form, name) if name in _JSON else _fraction)
    # Sorted, so that every file has been read before the first row is here.
    query = f"SELECT {', '.join(columns)} FROM calls WHERE {where} ORDER BY id"
    found = database.execute(query, values)
    while batch := found.fetchmany(_BATCH):
        for row in batch:
            cells = [write(value) for write, value in zip(finish, row, strict=True)]
            yield ",".join(cells) + "\n"


def _written(name: str) -> str:
    """Return the expression for a cell that the database writes."""
    if name in ("gap_until", "reason"):  # a gap's
        return "''"
    if name in ("cost", "saved_cost"):
        return f"csv_money({name})"
    value = _COMPLETED.get(name, name)
    kind = COLUMNS[name]
    if kind == "VARCHAR":
        return f"csv_text({value})"
    if kind == "TIMESTAMP":
        return f"csv_time({value})"
    return f"coalesce(CAST({value} AS VARCHAR), '')"


def _fraction(value: float | None) -> str:
    known = value is not None and math.isfinite(value) and value >= 0
    return str(value) if known else ""


def _json_cell(form: CsvLines, name: str) -> Callable[[str | None], str]:
    """Return what writes JSON as ``CsvLines`` writes the record's own; the same ones come often."""

    def write(text: str | None) -> str:
        if text is None:
            return ""
        value = msgspec.json.decode(text)
        return form.cell(clean_tags(value) if name == "tags" else value)

    return write if name == "content" else lru_cache(maxsize=1_024)(write)
