"""The page Explore: any part of the ledger by up to two keys, down to single calls.

Owns what it asks of the API; all that was chosen is in the address.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from litellm_ledger._aggregates.calendar import calendar
from litellm_ledger._aggregates.formatting import clean
from litellm_ledger._aggregates.groups import MISSING, Row
from litellm_ledger._page.drawing import draw
from litellm_ledger._page.figures import Axis, spend
from litellm_ledger._page.page import percent
from litellm_ledger._page.time_axis import periods
from litellm_ledger._records.record import KEYS

from .asks import ASKS, FILTERS, Invalid
from .parts import (
    ALL,
    SPAN,
    Api,
    Given,
    call_of,
    changed,
    cost_of,
    exact_of,
    passed_on,
    query,
    row_of,
    shown_tags,
    span_text,
)

__all__ = ["explore"]

_COLUMNS: Final = (
    ("calls", "calls"),
    ("error", "errors"),
    ("input_tokens", "input tokens"),
    ("output_tokens", "output tokens"),
    ("cost", "cost"),
)


def explore(given: Given, api: Api) -> dict[str, Any]:
    view = (given.get("view") or ["groups"])[0] or "groups"
    if view not in ("groups", "calls"):
        raise Invalid("view", "it is groups or calls")
    if view == "calls":
        return _explore_calls(given, api)
    passed = passed_on("explore", given, to="report")
    given = {**given, **({} if passed.keys() & {"last", "since", "until"} else {"last": [SPAN]})}
    passed = passed_on("explore", given, to="report")
    if not any(passed.get("by", [])) and "every" not in passed:
        passed["by"] = ["model"]
    told = api("report", **{k: v for k, v in passed.items() if k != "format"})
    by, total = told["by"], row_of(told["total"])
    rows = [*map(row_of, told["rows"])]
    charts = []
    every = passed.get("every", [""])[0]
    if every and rows:
        wide = api("report", **{k: v for k, v in {**passed, "limit": [ALL]}.items()
                                if k not in ("sort", "order", "format")})  # fmt: skip
        wide_rows = [*map(row_of, wide["rows"])]
        labels = periods(every, [row.group[every] for row in wide_rows], calendar(told["tz"]))
        key = next((k for k in by if k != every), None)
        if key is None:
            wide_rows = [
                msgspec.structs.replace(r, group={**r.group, "all": "all calls"}) for r in wide_rows
            ]
        charts = [draw(spend(wide_rows, key or "all", Axis(every, labels)), wide=True)]
    others = row_of(told["others"]) if told["others"] else None
    return {
        **_explore_frame(given, api, view, by),
        "about": span_text(told),
        "by": [clean(key.removeprefix("tag:"), 60) for key in by],
        "heads": [
            (label, changed(given, sort=name, order=_turned(given, name)), _mark(given, name))
            for name, label in _COLUMNS
        ],
        "rows": [_explore_row(row, by, total, given) for row in rows],
        "others": others and {**_figures(others, total), "count": told["others_count"]},
        "total": _figures(total, total),
        "charts": charts,
        "notes": told["notes"],
        "csv": f"api/report{query({**passed, 'format': ['csv']})}",
        "json": f"api/report{query(passed)}",
        "calls": changed(
            given, view="calls", by=None, every=None, sort=None, order=None, limit=None
        ),
        "as_of": told["as_of"],
    }


def _explore_frame(given: Given, api: Api, view: str, by: Sequence[str]) -> dict[str, Any]:
    def one(name: str) -> str:
        return (given.get(name) or [""])[0]

    tags = shown_tags(api)
    wanted = [value for value in given.get("where", []) if value]
    return {
        "view": view,
        "fields": {name: one(name) for name in ("last", "since", "until", "tz", "status", "every",
                                                "model", "provider", "sort", "order")},
        "wheres": [*((value, clean(value, 120)) for value in wanted)],
        "statuses": FILTERS["status"].choices,
        "periods": ASKS["report"]["every"].choices,
        "groups": [*((key, key) for key in KEYS), *((f"tag:{tag}", clean(tag)) for tag in tags)],
        "chosen": [*[key for key in by if key not in ASKS["report"]["every"].choices], "", ""][:2],
        "groups_view": changed(given, view=None, before=None, limit=None),
        "calls_view": changed(given, view="calls", by=None, every=None, sort=None, order=None),
    }  # fmt: skip


def _turned(given: Given, name: str) -> str | None:
    """The order that a second click on a column asks for."""
    return "asc" if _mark(given, name) == "descending" else None


def _mark(given: Given, name: str) -> str:
    if (given.get("sort") or [""])[0] != name:
        return "none"
    return "ascending" if (given.get("order") or [""])[0] == "asc" else "descending"


def _figures(row: Row, total: Row) -> dict[str, Any]:
    return {
        "cells": [
            f"{row.calls:,}",
            f"{row.error:,}",
            f"{row.input_tokens:,}",
            f"{row.output_tokens:,}",
        ],
        "cost": cost_of(row),
        "exact": exact_of(row),
        "share": "–" if row.known_cost is None else percent(row.cost, total.cost),
    }


def _explore_row(row: Row, by: Sequence[str], total: Row, given: Given) -> dict[str, Any]:
    values = [row.group[key] for key in by]
    kept = {k: v for k, v in given.items() if k not in ("by", "every", "sort", "order", "limit")}
    wheres = list(kept.get("where", []))
    for key, value in zip(by, values, strict=True):
        if key in ASKS["report"]["every"].choices:
            span = _of_period(key, value, (given.get("tz") or ["UTC"])[0])
            kept = {k: v for k, v in kept.items() if k not in ("last", "since", "until")} | span
        else:
            wheres.append(f"{key}=={value}")
    link = query({**kept, "where": wheres, "view": ["calls"]})
    return {"values": [clean(value, 120) for value in values], "link": link, **_figures(row, total)}


def _of_period(every: str, label: str, tz: str) -> Given:
    """Return the parameters for the time of a period."""
    if label == MISSING:
        return {}
    dates = calendar(tz or "UTC")
    number = dates.parse(every, label)
    if number is None:
        return {}
    if every == "hour":
        start = datetime.fromisoformat(label)
        end = datetime.fromtimestamp(start.timestamp() + 3600, start.tzinfo)
        return {"since": [start.isoformat()], "until": [end.isoformat()]}
    if every == "week":
        return {"since": [label], "until": [dates.label("day", number + 6)]}
    return {"since": [label], "until": [label]}


def _explore_calls(given: Given, api: Api) -> dict[str, Any]:
    kept = {k: v for k, v in given.items() if k not in ("by", "every", "sort", "order", "format")}
    passed = passed_on("explore", kept, to="calls")
    told = api("calls", **passed)
    following = told["next"]
    return {
        **_explore_frame(given, api, "calls", ()),
        "about": "those that ended last first",
        "list": [call_of(call, told["tz"]) for call in told["calls"]],
        "complete": told["complete"],
        "next": changed(kept, before=following) if following else None,
        "first": changed(kept, before=None) if "before" in kept else None,
        "csv": f"api/calls{query({**passed, 'format': ['csv']})}",
        "json": f"api/calls{query(passed)}",
        "as_of": told["as_of"],
        "tz": told["tz"],
    }
