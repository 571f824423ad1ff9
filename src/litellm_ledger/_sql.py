"""``Table``: what a query of the user's own answers.

Owns the refusal of statements that do anything but read, and the words for what is wrong with one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ._duck import module
from ._reading import Problem
from ._relation import Relation, ask

__all__ = ["Table", "run_sql"]


_ANALYZE: Final = re.compile("analy[sz]e", re.IGNORECASE)


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a query.

    Attributes:
        columns: their names.
        types: their types, as DuckDB writes them.
        rows: Python values: ``Decimal`` for money, ``datetime``, ``dict`` for tags.
        problems: places on the ledger that hold no valid record.
    """

    columns: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]
    problems: list[Problem] = []

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a dict a row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def run_sql(
    root: Path, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None
) -> Table:
    """Run one statement that only reads; see ``Ledger.sql``."""
    duck = module()

    def question(relation: Relation) -> Table:
        database = relation.database
        statements = database.extract_statements(query)
        allowed = (duck.StatementType.SELECT, duck.StatementType.EXPLAIN)
        if len(statements) != 1 or statements[0].type not in allowed:
            raise ValueError("give one statement that only reads: SELECT, FROM, WITH, SUMMARIZE …")
        if statements[0].type == duck.StatementType.EXPLAIN and _ANALYZE.search(query):
            raise ValueError("EXPLAIN ANALYZE runs what it explains; leave ANALYZE out")
        result = database.execute(statements[0], parameters)
        described = result.description or []
        return Table(
            columns=[column[0] for column in described],
            types=[str(column[1]) for column in described],
            rows=result.fetchall(),
            problems=relation.problems,
        )

    try:
        return ask(root, question)
    except duck.Error as exc:
        raise ValueError(f"the query fails: {exc}") from exc
