"""What ``sql`` prints: the answer to a query of the user's own.

Owns its text, Markdown, CSV and JSON forms.  Runs no query.
"""

from __future__ import annotations

import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from litellm_ledger._aggregates.formatting import clean, dollars

from .csv_lines import CsvLines
from .flags import Output, put_json
from .tables import Column, on_terminal, show, show_upright, too_wide, write, write_notes

if TYPE_CHECKING:
    from litellm_ledger._reports.sql import Table

__all__ = ["print_answer"]


def print_answer(path: Path, table: Table, output: Output) -> None:
    """Print the rows of an answer."""
    if output.json:
        put_json(
            {
                "path": str(path),
                "columns": table.columns,
                "types": table.types,
                "rows": [[_plain(value) for value in row] for row in table],
                "problems": msgspec.to_builtins(table.problems),
            }
        )
        return
    if output.csv:
        form = CsvLines(raw=output.raw, terminal=on_terminal())
        sys.stdout.write(form.line(table.columns))
        sys.stdout.writelines(form.line(map(_cell, row)) for row in table)
        return
    if table.rows:
        columns = [
            Column(
                clean(name),
                [clean(_text(value, "-")) for value in values],
                left=not all(
                    isinstance(value, int | float | Decimal) or value is None for value in values
                ),
            )
            for name, values in zip(table.columns, zip(*table.rows, strict=True), strict=True)
        ]
        if too_wide(columns) and not output.md:
            show_upright(columns)
            write()
            write_notes(
                ["Too wide for this terminal: one line per column. --csv prints one line per row."]
            )
        else:
            show(columns, md=output.md, color=output.color)
    else:
        write("No rows.")
    if table.problems:
        places = "1 place" if len(table.problems) == 1 else f"{len(table.problems):,} places"
        write()
        write_notes([f"Damage: {places} skipped; run litellm-ledger verify."], md=output.md)


def _plain(value: Any) -> Any:
    """A value as JSON has it: decimals as text, times in UTC."""
    if isinstance(value, Decimal):
        return dollars(value)
    if isinstance(value, datetime):
        return _time(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _cell(value: Any) -> Any:
    """A value for CSV: numbers stay what they are, so that no minus is taken for a formula."""
    return value if isinstance(value, int | float | Decimal) else _text(value, "")


def _text(value: Any, unknown: str) -> str:
    if value is None:
        return unknown
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | tuple):
        return msgspec.json.encode(_plain(value)).decode()
    return str(_plain(value))


def _time(value: datetime) -> str:
    text = value.isoformat()
    return text.replace("+00:00", "Z") if value.tzinfo else f"{text}Z"
