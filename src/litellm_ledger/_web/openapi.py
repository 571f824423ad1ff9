"""The description of the API, in OpenAPI 3.1; made of the tables that requests are read by.

Owns the words about answers.  Pure.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from litellm_ledger import __version__
from litellm_ledger._aggregates.groups import MONEY, Row
from litellm_ledger._aggregates.quantiles import MEASURED

from .asks import ASKS, Parameter

__all__ = ["description"]

_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_TIME: Final = {"type": "string", "format": "date-time"}
_AMOUNT: Final = {"type": "string", "description": "US dollars, exact, as decimal text."}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def _object(
    about: str, properties: dict[str, Any], optional: tuple[str, ...] = (), *, open_: bool = False
) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    found = {"type": "object", "properties": properties, "required": required}
    return found | {"description": about, "additionalProperties": open_}


def _row() -> dict[str, Any]:
    properties: dict[str, Any] = {"group": {"type": "object", "additionalProperties": _TEXT}}
    for name in Row.__struct_fields__:
        if name in MONEY:
            properties[name] = _or_null(_AMOUNT)
        elif name in MEASURED:
            properties[name] = _or_null(_ref("Quantiles"))
        elif name != "group":
            properties[name] = _COUNT
    return _object("The sums of one group; a cost that is not known is null.", properties)


_QUALITY: Final = {
    "is_floor": {"type": "boolean", "description": "The real cost may be higher."},
    "adjusted": {**_COUNT, "description": "Costs that were priced again."},
    "notes": {**_list(_TEXT), "description": "How exact the figures are, in sentences."},
}
_PROCESS: Final = _object(
    "A process that has opened the ledger to write.",
    {
        "writer": _TEXT,
        "alive": {"type": "boolean"},
        "pid": _COUNT,
        "durability": _or_null(_TEXT),
        "accepted": _COUNT,
        "queued": {**_COUNT, "description": "Accepted and not written."},
        "unsynced": {**_COUNT, "description": "Written and not synced."},
    },
)
_LIMITED: Final = {
    "anyOf": [_AMOUNT, {"type": "integer"}],
    "description": "US dollars as decimal text; tokens or calls as a whole number.",
}
_BUDGET: Final = _object(
    "One budget, for one scope, in its window of now: as litellm-ledger budgets prints it.",
    {
        "budget": {**_TEXT, "description": "Its name, or its unit and window."},
        "scope": {**_TEXT, "description": "Whose money it is; empty: one limit for all."},
        "unit": {"type": "string", "enum": ["usd", "tokens", "calls"]},
        "mode": {"type": "string", "enum": ["strict", "adaptive", "soft"]},
        **dict.fromkeys(("limit", "settled", "held", "free"), _LIMITED),
        "projected": _or_null(_LIMITED),
        "worst_overspend": _or_null(_LIMITED),
        "refused": {**_COUNT, "description": "Calls refused, by this budget or another one."},
        "warned": {**_list(_TEXT), "description": "Parts of the limit that are reached."},
        "start": _or_null(_TIME),
        "resets_at": _or_null(_TIME),
    },
)
_ATTEMPT: Final = _object(
    "One request to a provider.",
    {
        "number": _COUNT,
        "started": _or_null(_ref("Call")),
        "outcome": _or_null(_ref("Call")),
        "price": _object("The terms of its price.", {}, open_=True),
        "adjustments": _list(_object("How it was priced again.", {}, open_=True)),
    },
    ("price", "adjustments"),
)


@cache
def _schemas() -> dict[str, Any]:
    row = _ref("Row")
    return {
        "Row": _row(),
        "Quantiles": _object(
            "How a duration in milliseconds is spread.",
            {"count": _COUNT, **{n: {"type": "number"} for n in ("p50", "p90", "p99", "max")}},
        ),
        "Call": _object(
            "A record of a call: its known members (docs/usage.md).",
            {"id": _TEXT, "kind": _TEXT, "ts": _TIME, "cost": _AMOUNT},
            ("ts", "cost"),
            open_=True,
        ),
        "Error": _object(
            "What is wrong, and what to do.",
            {
                "error": _object(
                    "One error.",
                    {"code": _TEXT, "message": _TEXT, "parameter": _TEXT},
                    ("parameter",),
                )
            },
        ),
        "summary": _object(
            "Today, this hour, this month, the month before.",
            {
                "as_of": _TIME,
                **dict.fromkeys(("tz", "day", "hour", "month", "last_month"), _TEXT),
                **dict.fromkeys(("today", "this_hour", "this_month", "month_before"), row),
                "month_before_to_date": {
                    "allOf": [{"type": "object", "properties": {"days": _COUNT}}],
                    "description": "The month before, up to the same day, and how many days.",
                },
                "projection": _or_null(
                    _object(
                        "This month at its end; 8 of 10 months are between low and high if days "
                        "continue as the days before did.",
                        {
                            **dict.fromkeys(("expected", "low", "high"), _AMOUNT),
                            "days_left": _COUNT,
                            "rests_on_days": _COUNT,
                        },
                    )
                ),
                "in_flight": _COUNT,
                "in_flight_since": _or_null(_TIME),
                **_QUALITY,
            },
        ),
        "report": _object(
            "Sums by group.",
            {
                "as_of": _TIME,
                "tz": _TEXT,
                "since": _or_null(_TIME),
                "until": _or_null(_TIME),
                "by": _list(_TEXT),
                "rows": _list(row),
                "others_count": _COUNT,
                "others": _or_null(row),
                "total": row,
                **_QUALITY,
            },
        ),
        "calls": _object(
            "Single calls, those that ended last first.",
            {
                "as_of": _TIME,
                "tz": _TEXT,
                "calls": _list(_ref("Call")),
                "next": _or_null(_TEXT),
                "complete": {
                    "type": "boolean",
                    "description": "False: too much would have to be read; ask for less time.",
                },
            },
        ),
        "tags": _object(
            "Tags of the newest calls.", {"as_of": _TIME, "calls": _COUNT, "tags": _list(_TEXT)}
        ),
        "live": _object(
            "This moment.",
            {
                "as_of": _TIME,
                "tz": _TEXT,
                "calls": _list(_ref("Call")),
                "per_minute": {"type": "number"},
                "in_flight": _COUNT,
                "in_flight_since": _or_null(_TIME),
                "processes": _list(_PROCESS),
            },
            ("processes",),
        ),
        "budgets": _object(
            "What stands against budgets.",
            {
                "as_of": _TIME,
                "ready": {
                    "type": "boolean",
                    "description": "False: it is being added up; ask again.",
                },
                "budgets": _list(_BUDGET),
                "more": {**_COUNT, "description": "Rows beyond the limit."},
                "problems": _list(_TEXT),
            },
        ),
        "operation": _object(
            "One operation with its attempts.",
            {"as_of": _TIME, "id": _TEXT, "attempts": _list(_ATTEMPT)},
        ),
        "ledger": _object("The ledger itself.", {"as_of": _TIME, "path": _TEXT}, open_=True),
    }


_ABOUT: Final = {
    "summary": "What was spent today and this month, and what the month will cost",
    "report": "Sums by group",
    "calls": "Single calls",
    "tags": "Names of tags",
    "live": "This moment",
    "budgets": "What stands against budgets: those of which each call is the viewer's",
    "operation": "One operation with its attempts and the terms of their prices",
    "ledger": "The ledger itself; for operators",
}


def _parameter(name: str, one: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 8_192}
    if one.choices:
        schema = {"type": "string", "enum": [*one.choices]}
    elif one.least is not None:
        schema = {"type": "integer", "minimum": one.least, "maximum": one.most}
    if one.many:
        most = one.most if one.least is None and one.most else 50
        schema = {"type": "array", "items": schema, "maxItems": most}
    found = {"name": name, "in": "query", "required": False, "description": one.about}
    if one.example:
        schema = {**schema, "examples": [[one.example] if one.many else one.example]}
    return {**found, "schema": schema, **({"style": "form", "explode": True} if one.many else {})}


def _answers(what: str, *, also: tuple[str, ...] = ()) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(what)}}
    if "format" in ASKS[what]:
        content["text/csv"] = {"schema": _TEXT}
    return {"200": {"description": "The answer.", "content": content}, **_errors("422", *also)}


_WHY: Final = {
    "401": "Who is asking is not known.",
    "403": "Not for this viewer.",
    "404": "There is no such call that this viewer may see.",
    "422": "A parameter cannot be read.",
    "503": "The ledger cannot be read now.",
}


def _errors(*also: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref("Error")}}
    return {
        status: {"description": _WHY[status], "content": content}
        for status in sorted({"401", "403", "503", *also})
    }


def _events(about: str) -> dict[str, Any]:
    content = {"text/event-stream": {"schema": _TEXT}}
    answers = {"200": {"description": about, "content": content}, **_errors("422")}
    return {"get": {"summary": about, "responses": answers}}


@cache
def description() -> dict[str, Any]:
    """Return the description."""
    paths: dict[str, Any] = {}
    for what, parameters in ASKS.items():
        if what == "operation":
            continue
        paths[f"/api/{what}"] = {
            "get": {
                "operationId": what,
                "summary": _ABOUT[what],
                "parameters": [_parameter(name, one) for name, one in parameters.items()],
                "responses": _answers(what, also=("404",) if what == "calls" else ()),
            }
        }
    of_id = {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The id of any record of it.",
        "schema": _TEXT,
    }
    paths["/api/operations/{id}"] = {
        "get": {
            "operationId": "operation",
            "summary": _ABOUT["operation"],
            "parameters": [of_id, _parameter("tz", ASKS["operation"]["tz"])],
            "responses": _answers("operation", also=("404",)),
        }
    }
    paths["/api/events"] = _events(
        "Calls as they end; Last-Event-ID continues after the event with that id"
    )
    paths["/api/verify"] = _events("Verifies the ledger, with progress; for operators")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "litellm-ledger",
            "version": __version__,
            "description": "Every answer is cut to the calls that the viewer may see.",
        },
        "servers": [{"url": ".."}],
        "paths": paths,
        "components": {"schemas": _schemas()},
    }
