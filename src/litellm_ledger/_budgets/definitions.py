"""Budgets as data: a ``budgets.toml``, and the JSON in which a client says what it enforces.

Owns the two forms.  Pure: files are ``budgets_file``'s and ``known``'s.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, cast

from .budget import Budget, check_budgets

__all__ = ["budget_of", "budgets_of_toml", "definition"]

_MEMBERS: Final = (
    "limit",
    "per",
    "where",
    "window",
    "tz",
    "mode",
    "warn",
    "unbounded",
    "unit",
    "name",
)


def budgets_of_toml(text: str) -> tuple[Budget, ...]:
    """Return the budgets of a file: a list of tables ``budget``, whose members are ``Budget``'s.

    A number with a point is taken as the decimal that is written.

    Raises:
        ValueError: what is wrong, and in which budget.
    """
    try:
        read = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"it is not TOML: {exc}") from None
    unknown = sorted(set(read) - {"budget"})
    if unknown:
        raise ValueError(f"it has {unknown[0]!r}; budgets are tables [[budget]]")
    if "budget" not in read:  # as of a file that is being written
        raise ValueError(
            "it has no budget: write tables [[budget]], or budget = [] for none at all"
        )
    tables = read["budget"]
    if not isinstance(tables, list):
        raise ValueError("budget is not a list: write [[budget]] with two brackets")
    budgets = []
    for number, table in enumerate(tables, 1):
        try:
            budgets.append(budget_of(table))
        except (TypeError, ValueError) as exc:
            raise ValueError(f"budget {number}: {exc}") from None
    return check_budgets(budgets)


def budget_of(members: object) -> Budget:
    """Make a budget of what was read from a file.

    Raises:
        TypeError, ValueError: as ``Budget``, or it has no limit, or an unknown member.
    """
    if not isinstance(members, dict):
        raise TypeError(f"it must be a table, not {type(members).__name__}")
    given = cast("dict[str, Any]", members)
    for name in given:
        if name not in _MEMBERS:
            raise ValueError(f"it has {name!r}; known are {', '.join(_MEMBERS)}")
    if "limit" not in given:
        raise ValueError("it has no limit")
    return Budget(**given)


def definition(budget: Budget) -> dict[str, Any]:
    """Return a budget as plain JSON values, of which ``budget_of`` makes an equal one."""
    where = cast("Mapping[str, tuple[str, ...]] | None", budget.where)
    warn = cast("tuple[Decimal, ...]", budget.warn)
    members = {
        "limit": f"{budget.limit:f}" if budget.unit == "usd" else budget.limit,
        "per": None if budget.per is None else list(budget.per),
        "where": None if where is None else {key: list(values) for key, values in where.items()},
        "window": budget.window,
        "tz": budget.tz,
        "mode": budget.mode,
        "warn": [f"{part:f}" for part in warn],
        "unbounded": budget.unbounded,
        "unit": budget.unit,
        "name": budget.name,
    }
    return {name: value for name, value in members.items() if value is not None}
