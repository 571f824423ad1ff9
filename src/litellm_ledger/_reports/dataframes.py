"""Rows as columns, for Arrow, Polars and pandas: whichever is installed.

Owns the columns and their types.  Money stays exact: ``decimal(38, 12)`` in Arrow and Polars,
``Decimal`` objects in pandas.  Imports each of them only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, Final

from litellm_ledger._aggregates.groups import MONEY, Quantiles, Row
from litellm_ledger._aggregates.quantiles import MEASURED
from litellm_ledger._errors import MissingExtra

__all__ = ["COSTS", "cells", "columns", "kinds", "to_arrow", "to_pandas", "to_polars"]

COSTS: Final = ("cost", "estimated_cost", "wasted_cost")
"""The amounts of a row that are unknown where its cost is."""

_SUMS: Final = [name for name in Row.__struct_fields__ if name not in ("group", *MEASURED)]


def kinds(by: Sequence[str], measured: Iterable[str]) -> dict[str, str]:
    """Return column -> ``text``, ``count``, ``money`` or ``number``.

    ``measured``: what there are quantiles of.
    """
    found = dict.fromkeys(by, "text")
    for name in _SUMS:
        found[name] = "money" if name in MONEY else "count"
    for name in measured:
        for part in Quantiles.__struct_fields__:
            found[f"{name}_{part}"] = "count" if part == "count" else "number"
    return found


def cells(row: Row, by: Sequence[str], measured: Iterable[str]) -> list[Any]:
    """Return the values of a row, a column each."""
    known = row.known_cost is not None
    found: list[Any] = [row.group[key] for key in by]
    found += [None if name in COSTS and not known else getattr(row, name) for name in _SUMS]
    for name in measured:
        spread = getattr(row, name)
        found += [spread and getattr(spread, part) for part in Quantiles.__struct_fields__]
    return found


def columns(by: Sequence[str], rows: Sequence[Row]) -> dict[str, tuple[str, list[Any]]]:
    """Return column -> (kind, values); see ``kinds``."""
    measured = [name for name in MEASURED if any(getattr(row, name) for row in rows)]
    found = kinds(by, measured)
    values = zip(*(cells(row, by, measured) for row in rows), strict=True)
    by_column = list(map(list, values)) or [[] for _ in found]
    return {name: (kind, of) for (name, kind), of in zip(found.items(), by_column, strict=True)}


def _need(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        raise MissingExtra(package, install=package) from None


def to_arrow(by: Sequence[str], rows: Sequence[Row]) -> Any:
    """Return a ``pyarrow.Table``."""
    pa = _need("pyarrow")
    types = {
        "text": pa.string(),
        "count": pa.int64(),
        "money": pa.decimal128(38, 12),
        "number": pa.float64(),
    }
    return pa.table({n: pa.array(v, types[kind]) for n, (kind, v) in columns(by, rows).items()})


def to_polars(by: Sequence[str], rows: Sequence[Row]) -> Any:
    """Return a ``polars.DataFrame``."""
    pl = _need("polars")
    types = {
        "text": pl.String,
        "count": pl.Int64,
        "money": pl.Decimal(38, 12),
        "number": pl.Float64,
    }
    return pl.DataFrame(
        [pl.Series(n, v, dtype=types[kind]) for n, (kind, v) in columns(by, rows).items()]
    )


def to_pandas(by: Sequence[str], rows: Sequence[Row]) -> Any:
    """Return a ``pandas.DataFrame``; unknown quantiles are ``NaN``."""
    pd = _need("pandas")
    types = {"text": "object", "count": "Int64", "money": "object", "number": "float64"}
    return pd.DataFrame(
        {n: pd.Series(v, dtype=types[kind]) for n, (kind, v) in columns(by, rows).items()}
    )
