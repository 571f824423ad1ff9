"""The command ``sql``: an answer as a table, JSON, CSV or Markdown.

Owns how values of the database are written.  The rows are ``Ledger.sql``'s.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from litellm_ledger._aggregates.formatting import clean
from litellm_ledger._reports.plain import one_line, plain_value

from .flags import Output, complain, emit, paths_dict, place
from .parameters import argument, option
from .progress import working
from .records import damage, missing, refuse_directory
from .tables import Column, show, show_upright, tell, too_wide, write, write_notes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litellm_ledger._reports.ledger import Ledger as Ledgers
    from litellm_ledger._reports.sql import Table

__all__ = ["sql"]


def sql(
    query: Annotated[
        str,
        argument(help="One SELECT statement; - reads it from standard input."),
    ],
    output: Output,
    ledger: Ledgers,
    allow_files: Annotated[
        bool,
        option("--allow-files", help="Let the statement read files too, not only the views."),
    ] = False,
) -> int:
    """Run an SQL query on the views calls and records (docs/reports.md lists the columns)."""
    refuse_directory(query, "sql QUERY PATH")
    if query == "-":
        query = sys.stdin.read()
    try:
        with working(f"querying {place(ledger)}"):
            found = ledger.sql(query, allow_files=allow_files)
    except ValueError as exc:
        complain(exc, lines=True)  # the database draws a caret below the place
        return 2

    def plain() -> dict[str, Any]:
        return {
            **paths_dict(ledger),
            "columns": found.columns,
            "types": found.types,
            "rows": [[plain_value(value) for value in row] for row in found],
            "problems": found.problems,
        }

    def csv() -> None:
        from litellm_ledger._reports.csv_lines import put_rows

        rows = (map(_cell, row) for row in found)
        put_rows(found.columns, rows, sys.stdout, raw=output.raw)

    return emit(output, plain, lambda: _print(found, output, missing(ledger)), csv=csv)


def _print(table: Table, output: Output, notes: Sequence[str]) -> None:
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
            tell("Too wide for this terminal: one line per column. --csv prints one line per row.")
        else:
            show(columns, md=output.md, color=output.color)
    else:
        write("No rows.")
    told = [*damage(table.problems), *notes]
    if told and not output.quiet:
        write()
        write_notes(told, md=output.md)


def _cell(value: Any) -> Any:
    """A value for CSV: numbers stay what they are, so that no minus is taken for a formula."""
    return value if isinstance(value, int | float | Decimal) else _text(value, "")


def _text(value: Any, unknown: str) -> str:
    if value is None:
        return unknown
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | tuple):
        return one_line(value)
    return str(plain_value(value))
