"""CSV of a large ledger: rows that the database writes, the very bytes that ``CsvLines`` would.

Owns the query.  Text, counts, money and times are written by the database; what it would write
otherwise than we do (fractions, JSON) is left to Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import msgspec

from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._archive.columns import COLUMNS, quoted, text_list
from litellm_ledger._archive.database import statement
from litellm_ledger._records.record import CUT_MARK, MAX_TEXT, clean_tags
from litellm_ledger._reports.in_duckdb import condition

from .csv_lines import FORMULA, QUOTED, CsvLines
from .print_records import FIELDS

if TYPE_CHECKING:
    from litellm_ledger._reports.relation import Relation

__all__ = ["csv_rows"]

_JSON: Final = ("tags", "meta", "content")
_FLOATS: Final = ("audio_seconds", "latency_ms", "ttft_ms")
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
    database = relation.database
    database.execute(
        statement("csv").format(
            most=MAX_TEXT,
            mark=quoted(CUT_MARK),
            formulas="[]::VARCHAR[]" if raw else text_list(FORMULA),
            quoted=quoted(f"[{QUOTED}]"),
        )
    )
    where, values = condition(selection)
    columns: list[str] = []
    finish: list[Callable[[Any], str]] = []
    form = CsvLines(raw=raw)
    for ours, names in groupby(FIELDS, key=lambda name: name in _JSON or name in _FLOATS):
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
