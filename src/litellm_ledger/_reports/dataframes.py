"""Rows as columns, for Arrow, Polars and pandas: whoever of them is installed.

Owns the columns and their types.  Money stays exact: ``decimal(38, 12)`` in Arrow and Polars,
``Decimal`` objects in pandas.  Imports each of them only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from litellm_ledger._aggregates.groups import MONEY, Quantiles, Row
from litellm_ledger._aggregates.quantiles import MEASURED
from litellm_ledger._errors import MissingExtra

__all__ = ["COSTS", "columns", "to_arrow", "to_pandas", "to_polars"]

COSTS: Final = ("cost", "estimated_cost", "wasted_cost")
"""The amounts of a row that are unknown where its cost is."""


def columns(by: Sequence[str], rows: Sequence[Row]) -> dict[str, tuple[str, list[Any]]]:
    """Return name -> (``text``, ``count``, ``money`` or ``number``, values)."""
    found: dict[str, tuple[str, list[Any]]] = {
        key: ("text", [row.group[key] for row in rows]) for key in by
    }
    for name in Row.__struct_fields__:
        if name == "group":
            continue
        values = [
            None if name in COSTS and row.known_cost is None else getattr(row, name) for row in rows
        ]
        if name not in MEASURED:
            found[name] = ("money" if name in MONEY else "count", values)
        elif any(value is not None for value in values):
            for part in Quantiles.__struct_fields__:
                kind = "count" if part == "count" else "number"
                found[f"{name}_{part}"] = (kind, [v and getattr(v, part) for v in values])
    return found


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
