"""Sums by group, added up, ordered and cut by the database: only rows that are asked for leave it.

Owns the tables and queries of a report.  Defines no figure: the rules are those of ``Totals``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from litellm_ledger._aggregates.calendar import PERIODS, moment_of
from litellm_ledger._aggregates.groups import MISSING, Row
from litellm_ledger._aggregates.quantiles import MEASURED, Sketch, Spread, bucket_sql
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.totals import FIELDS, FIGURES, Totals, follows, row_of
from litellm_ledger._archive.columns import quoted
from litellm_ledger._archive.database import module, statement

from .answer import Answer
from .in_duckdb import condition, expression
from .relation import Relation
from .report import Report, measured_row

if TYPE_CHECKING:
    from litellm_ledger._aggregates.order import Order

__all__ = ["report"]

_SUMS: Final = {
    "calls": "count(*)",
    "cache_hits": "count(*) FILTER (cache_hit)",
    "pico": "sum(cost_picousd)",
    "priced": "count(cost_picousd)",
    "retries": "count(*) FILTER (attempt > 1)",
    "saved": "sum(saved_cost_picousd)",
}
"""What is not the sum of the column of its name.  A sum of BIGINT is a HUGEINT: exact."""

_LARGE: Final = frozenset(FIELDS) - {"calls", "cache_hits", "priced", "retries"} | {
    name for name in FIGURES if name.endswith("_pico")
}
"""Figures that may be beyond 64 bits; the others count outcomes."""

_MEMORY: Final = (("200MB", None), ("200MB", 1), ("1GB", 1))
"""What the database may take, and on how many threads: the next where one is too little.

Tables of groups beyond it go to its temporary directory; each thread needs some that cannot.
"""

_ROWS: Final = 1_000
"""Rows that leave the database at once."""


def report(
    relation: Relation,
    totals: Totals,
    by: Sequence[str],
    selection: Selection,
    spread: Spread | None,
    *,
    nested: bool,
    order: Order | None = None,
) -> Answer:
    """Add outcomes up by group, and to what ``totals`` (and ``spread``, for quantiles) have.

    See ``Ledger.report``.

    The rows can be asked for while the relation is open, and read the ledger no more.
    """
    tables = _Tables(relation, by, selection)
    if spread is None:
        tables.add_up_within(totals)
    else:  # whose sketches are in our memory
        tables.add_up(totals)
        tables.measure(spread)
    total = tables.total()
    counted = f"count(DISTINCT ({', '.join(tables.keys[:-1])},))" if nested else "count(*)"
    ((count, *without),) = relation.rows(
        f"SELECT {counted}{''.join(f', bool_and({k} = {quoted(MISSING)})' for k in tables.keys)} "
        "FROM groups"
    )
    return Answer(
        report=Report(
            by=tuple(by), rows=[], total=total, folded=totals.folded, problems=relation.problems
        ),
        count=count if by else 0,
        whole=replace(total, **dict.fromkeys(MEASURED)),
        rows=tables.rows_in_order(nested=nested, order=order),
        missing=tuple(
            name.removeprefix("tag:")
            for name, on_none in zip(by, without, strict=True)
            if on_none and name.startswith("tag:")
        ),
        order=order,
    )


class _Tables:
    """The tables that one report is made of; ``keys`` are the names of their columns of keys."""

    def __init__(self, relation: Relation, by: Sequence[str], selection: Selection) -> None:
        self._relation = relation
        self._by = by
        self._calendar = selection.calendar
        self._spread: Spread | None = None
        self.keys = [f"k{at}" for at in range(len(by))]
        columns = [
            f", {expression(name, selection.calendar)} AS k{at}" for at, name in enumerate(by)
        ]
        self._asked = "".join(columns)
        self._where, self._values = condition(selection)

    def add_up_within(self, before: Totals) -> None:
        """Make the table ``groups`` in as little memory as will do."""
        database = self._relation.database
        ((spill,),) = self._relation.rows("SELECT current_setting('temp_directory')")
        for memory, threads in _MEMORY if spill else ():
            database.execute(f"SET memory_limit = '{memory}'")
            if threads is not None:
                database.execute(f"SET threads = {threads}")
            with contextlib.suppress(module().OutOfMemoryException):
                return self.add_up(before)
        return self.add_up(before)

    def add_up(self, before: Totals) -> None:
        """Make the table ``groups``."""
        rows, execute = self._relation.rows, self._relation.database.execute
        columns = ["status", "usage_source", *self.keys, *FIELDS]
        sums = ", ".join(_SUMS.get(name, f"sum({name})") for name in FIELDS)
        query = statement("report").format(keys=self._asked, sums=sums, where=self._where)
        execute(
            f"CREATE OR REPLACE TABLE found AS FROM ({query}) AS found({', '.join(columns)})",
            self._values,
        )
        self._label("found")
        named, joins = self._named("found")
        union = f"SELECT status, usage_source{named}, {', '.join(FIELDS)} FROM found {joins}"
        told = [(*key, *sums) for key, sums in before.sums()]
        if told:
            types = ["VARCHAR"] * (2 + len(self.keys)) + ["HUGEINT"] * len(FIELDS)
            parts = (f"unnest(?::{kind}[]) AS {n}" for kind, n in zip(types, columns, strict=True))
            values = [list(column) for column in zip(*told, strict=True)]
            execute(f"CREATE OR REPLACE TABLE told AS SELECT {', '.join(parts)}", values)
            union += " UNION ALL FROM told"
        pairs = rows(f"SELECT DISTINCT status, usage_source FROM ({union})")
        rules, figures = _rules(pairs)
        keys = "".join(f"{name}, " for name in self.keys)
        execute(statement("groups").format(keys=keys, figures=figures, sums=union, rules=rules))
        execute("DROP TABLE found")

    def measure(self, spread: Spread) -> None:
        """Add what was measured of each group."""
        names = "".join(f"{name}, " for name in self.keys)
        buckets = {f"{name}_bucket": bucket_sql(name) for name in MEASURED}
        query = statement("spread").format(
            keys=self._asked, names=names, where=self._where, **buckets
        )
        for row in self._relation.rows(query, self._values):
            group = self._labels(row[: len(self._by)])
            of_ttft, *rest = row[len(self._by) :]
            bucket, count, least, most = rest[4:] if of_ttft else rest[:4]
            if bucket is not None:
                spread.merge(group, MEASURED[of_ttft], Sketch({bucket: count}, least, most))
        self._spread = spread

    def _labels(self, values: Sequence[Any]) -> tuple[str, ...]:
        """Return the values of the keys as text."""
        return tuple(
            value
            if name not in PERIODS
            else MISSING
            if value is None
            else self._calendar.label(name, value)
            for name, value in zip(self._by, values, strict=True)
        )

    def total(self) -> Row:
        """Return the sums over all groups."""
        query = f"SELECT {', '.join(f'sum({name})' for name in FIGURES)} FROM groups"
        return self._row({}, self._relation.rows(query)[0], None)

    def rows_in_order(
        self, *, nested: bool, order: Order | None = None
    ) -> Callable[[int | None], Iterator[Row]]:
        """Return what yields rows in order; ``nested``: by the keys but the last."""
        if not self._by:
            return lambda _: iter(())
        names = [f"groups.{name}" for name in self.keys]
        columns = [*names, *(f"groups.{name}" for name in FIGURES)]
        places = first = ""
        period = next((name for name in self._by if name in PERIODS), None)
        for name in dict.fromkeys([period, order and order.column]):
            if name in PERIODS:
                column = f"k{self._by.index(name)}"
                self._place(name, column)
                places += f" JOIN places_{column} ON groups.{column} = places_{column}.label"
                first = first or f"places_{column}.place, "
        chosen, outermost = "0", "" if period else "above.pico DESC, above.calls DESC, "
        if order is not None:
            chosen = f"groups.{order.figure}"
            if order.is_key:
                key = f"k{self._by.index(order.column)}"
                chosen = f"places_{key}.place" if order.column in PERIODS else f"groups.{key}"
            direction = "DESC" if order.down else "ASC"
            first = f"{chosen} {direction}, {first}"
            outermost = f"above.chosen {direction}, {outermost}"
        query = statement("nested" if nested else "ranked").format(
            columns=", ".join(columns),
            names=", ".join(names),
            keys=", ".join(self.keys),
            places=places,
            first=first,
            outer=", ".join(self.keys[:-1]),
            outermost=outermost,
            chosen=chosen,
            above="min" if order is None or order.is_key else "sum",
            limit="{limit}",
        )
        return lambda limit: self._rows("ALL" if limit is None else int(limit), query)

    def _row(
        self, group: dict[str, str], figures: Sequence[Any], key: tuple[str, ...] | None
    ) -> Row:
        """Return the row of a group, or (``key`` is ``None``) of everything."""
        row = row_of(group, {n: value or 0 for n, value in zip(FIGURES, figures, strict=True)})
        return row if self._spread is None else measured_row(row, key, self._spread.quantiles)

    def _label(self, table: str) -> None:
        """Make a table of the labels of each period among the keys of a table."""
        for name, column in zip(self._by, self.keys, strict=True):
            if name in PERIODS:
                found = self._relation.rows(f"SELECT DISTINCT {column} FROM {table}")
                numbers = [number for (number,) in found]
                labels = [MISSING if n is None else self._calendar.label(name, n) for n in numbers]
                self._relation.database.execute(
                    f"CREATE OR REPLACE TABLE labels_{column} AS "
                    "SELECT unnest(?::BIGINT[]) AS number, unnest(?::VARCHAR[]) AS label",
                    [numbers, labels],
                )

    def _named(self, table: str) -> tuple[str, str]:
        """Return the keys of a table as text, and the joins that this takes."""
        named = joins = ""
        for name, column in zip(self._by, self.keys, strict=True):
            if name in PERIODS:
                named += f", labels_{column}.label AS {column}"
                joins += (
                    f" JOIN labels_{column} "
                    f"ON {table}.{column} IS NOT DISTINCT FROM labels_{column}.number"
                )
            else:
                named += f", {table}.{column}"
        return named, joins

    def _place(self, period: str, column: str) -> None:
        """Make a table of the places of the periods in their order."""
        labels = {
            label for (label,) in self._relation.rows(f"SELECT DISTINCT {column} FROM groups")
        }
        ordered = sorted(labels, key=lambda label: moment_of(period, label))
        self._relation.database.execute(
            f"CREATE OR REPLACE TABLE places_{column} AS "
            "SELECT unnest(?::VARCHAR[]) AS label, unnest(?::BIGINT[]) AS place",
            [ordered, list(range(len(ordered)))],
        )

    def _rows(self, limit: int | str, query: str) -> Iterator[Row]:
        # A cursor of its own: the rows of another question do not end these.
        cursor = self._relation.database.cursor()
        try:
            try:
                cursor.execute(query.format(limit=limit))
                batch = cursor.fetchmany(_ROWS)  # when they are in order
            except module().OutOfMemoryException:
                cursor.execute(f"SET memory_limit = '{_MEMORY[-1][0]}'")
                cursor.execute(query.format(limit=limit))
                batch = cursor.fetchmany(_ROWS)
            while batch:
                for values in batch:
                    group = dict(zip(self._by, values, strict=False))
                    figures = values[len(self._by) :]
                    yield self._row(group, figures, tuple(group.values()))
                batch = cursor.fetchmany(_ROWS)
        finally:
            cursor.close()


def _rules(pairs: Sequence[tuple[str | None, str | None]]) -> tuple[str, str]:
    """Return the factors for each status and usage source, and the figures that they make."""
    known = {pair: follows(*pair) for pair in pairs or [(None, None)]}
    figures, columns = [], dict[str, list[int]]()
    for figure in FIGURES:
        terms = []
        for name in FIELDS:
            factors = [found[figure].get(name, 0) for found in known.values()]
            if figure == name:
                terms.append(f"sum({name})")
            elif any(factors):
                columns[f"{figure}_{name}"] = factors
                terms.append(f"sum({name} * {figure}_{name})")
        kind = "HUGEINT" if figure in _LARGE else "BIGINT"
        figures.append(f"coalesce({' + '.join(terms) or 0}, 0)::{kind} AS {figure}")
    rows = (
        f"({', '.join('NULL' if value is None else quoted(value) for value in pair)}"
        f"{''.join(f', {factors[at]}' for factors in columns.values())})"
        for at, pair in enumerate(known)
    )
    names = ", ".join(["status", "usage_source", *columns])
    return f"(VALUES {', '.join(rows)}) AS rules({names})", ", ".join(figures)
