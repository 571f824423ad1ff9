"""The pages: what the API answers, as HTML.

Owns what each page asks of the API (nothing else), and the words and links around the figures.
Jinja2 escapes all that is put in; text of records is also cleared of what is invisible (``clean``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, Final

import msgspec
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from litellm_ledger import __version__
from litellm_ledger._aggregates.formatting import clean, counted, money, percent
from litellm_ledger._aggregates.groups import MONEY
from litellm_ledger._page.drawing import SIDE, rounded_cost

from .asks import Invalid
from .assets import named
from .explore import explore
from .overview import overview
from .parts import (
    Api,
    Given,
    call_of,
    passed_on,
    query,
    size_of,
    time_of,
)

__all__ = ["page", "verification", "waiting", "wrong"]


_NAV: Final = (("", "Overview"), ("explore", "Explore"), ("live", "Live"), ("ledger", "Ledger"))


@cache
def _environment() -> Environment:
    return Environment(
        loader=ChoiceLoader(
            [PackageLoader(f"litellm_ledger.{room}", "assets") for room in ("_web", "_page")]
        ),
        autoescape=True,
        auto_reload=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(what: str, given: Sequence[tuple[str, str]], api: Api, *, operator: bool, up: str) -> str:
    """Return a page.

    Args:
        what: ``overview``, ``explore``, ``live``, ``ledger`` or ``operation``.
        given: the parameters of its address.
        api: asks the API, cut to the viewer.
        operator: whether the viewer sees the ledger itself.
        up: from this page to the root of the dashboard.

    Raises:
        Invalid: a parameter cannot be read.
    """
    found: Given = {}
    for name, value in given:
        found.setdefault(name, []).append(value)
    context = _PAGES[what](found, api)
    return _render(f"{what}.html", context, operator=operator, up=up, here=what, given=found)


def wrong(status: int, text: str, *, operator: bool, up: str, bare: bool = False) -> str:
    """Return a page that says what is wrong; ``bare``: to somebody who may see nothing."""
    context = {"status": status, "text": clean(text, 600), "bare": bare}
    return _render("wrong.html", context, operator=operator, up=up, here="", given={})


def waiting(what: str, seconds: float, *, operator: bool, up: str) -> str:
    """Return the page of somebody who waits for another one."""
    context = {"seconds": int(seconds)}
    return _render("wait.html", context, operator=operator, up=up, here=what, given={})


def verification(up: str) -> tuple[str, Callable[[dict[str, Any]], str], str]:
    """Return the beginning of a page that grows, what makes a line of it, and its end."""
    context = {"operator": True, "up": up, "here": "ledger", "given": {}}
    text = _render("verify.html", {}, **context)  # type: ignore[arg-type]
    start, _, end = text.partition("<!-- lines -->")
    template = _environment().get_template("verify_line.html")

    def line(one: dict[str, Any]) -> str:
        sizes = {name: size_of(one[name]) for name in ("done", "total") if name in one}
        return template.render(
            one=one, sizes=sizes, counted=counted, clean=lambda text: clean(text, 600)
        )

    return start, line, end


def _render(
    name: str, context: dict[str, Any], *, operator: bool, up: str, here: str, given: Given
) -> str:
    kept = {key: given[key] for key in ("tz",) if given.get(key)}
    nav = [
        (f"{up or './'}{path}{query(kept)}", label, label.lower() == here)
        for path, label in _NAV
        if operator or path != "ledger"
    ]
    return (
        _environment()
        .get_template(name)
        .render(
            nav=nav,
            up=up or "./",
            side=SIDE,
            version=__version__,
            css=named("dashboard.css"),
            js=named("dashboard.js"),
            icon=named("icon.svg"),
            **{"tz": (given.get("tz") or ["UTC"])[0] or "UTC", **context},
        )
    )


def _operation(given: Given, api: Api) -> dict[str, Any]:
    unknown = [name for name in given if name not in ("id", "tz")]
    if unknown:
        raise Invalid(clean(unknown[0]), "this page has no such parameter")
    told = api("operation", **given)
    tz = (given.get("tz") or ["UTC"])[0]
    attempts = [
        {
            "number": one["number"],
            "status": (one["outcome"] or {}).get("status", "in flight"),
            "members": _members(one["outcome"] or one["started"] or {}, tz),
            "terms": (one.get("price") or {}).get("terms", []),
            "missing": [clean(name) for name in (one.get("price") or {}).get("missing", [])],
            "price": (one.get("price") or {}).get("cost"),
            "adjustments": [
                {k: clean(str(v), 200) for k, v in made.items()}
                for made in one.get("adjustments", [])
            ],
        }
        for one in told["attempts"]
    ]
    costs = [a["outcome"]["cost"] for a in told["attempts"]
             if a["outcome"] and a["outcome"].get("cost") is not None]  # fmt: skip
    total = money(sum(map(Decimal, costs), Decimal(0))) if costs else "unknown"
    return {"id": told["id"], "attempts": attempts, "cost": total, "as_of": told["as_of"]}


def _members(record: dict[str, Any], tz: str) -> list[tuple[str, str]]:
    found = []
    for name, value in record.items():
        if name in ("content", "v"):
            continue
        if name == "ts":
            text = f"{time_of(value, tz)} ({tz})"
        elif name in MONEY:
            text = money(Decimal(value))
        elif isinstance(value, dict):
            text = clean(msgspec.json.encode(value).decode(), 4_000)
        else:
            text = clean(str(value), 4_200)
        found.append((name, text))
    return found


def _live(given: Given, api: Api) -> dict[str, Any]:
    told = api("live", **passed_on("live", given, to="live"))
    tz = told["tz"]
    budgets = api("budgets")
    return {
        "budgets": {
            "ready": budgets["ready"],
            "rows": [_budget(one, tz) for one in budgets["budgets"]],
            "more": f"{budgets['more']:,}" if budgets["more"] else "",
            "problems": [clean(problem, 600) for problem in budgets["problems"]],
        },
        "per_minute": f"{told['per_minute']:,.0f}",
        "in_flight": f"{told['in_flight']:,}",
        "since": time_of(told["in_flight_since"], tz) if told["in_flight_since"] else None,
        "list": [call_of(call, tz) for call in told["calls"]],
        "processes": told.get("processes"),
        "as_of": told["as_of"],
        "tz": tz,
    }


def _budget(one: dict[str, Any], tz: str) -> dict[str, Any]:
    """A budget as a row of the table."""
    unit = one["unit"]

    def said(name: str) -> str:
        amount = Decimal(one[name])
        return rounded_cost(amount) if unit == "usd" else f"{int(amount):,}"

    limit, settled, held = (Decimal(one[name]) for name in ("limit", "settled", "held"))
    whole = max(limit, settled + held)
    parts = [float(100 * max(part, Decimal(0)) / whole) if whole else 0.0
             for part in (settled, held)]  # fmt: skip
    return {
        "name": clean(one["budget"], 120),
        "scope": clean(one["scope"], 120) or "all calls",
        **{name: said(name) for name in ("settled", "held", "free")},
        "limit": said("limit") if unit == "usd" else f"{said('limit')} {unit}",
        "refused": f"{one['refused']:,}",
        "resets": time_of(one["resets_at"], tz) if one["resets_at"] else "–",
        "warned": percent(Decimal(one["warned"][-1])) if one["warned"] else "",
        "state": "bad" if settled >= limit else "spent",
        "spent_part": parts[0],
        "held_part": parts[1],
    }


def _ledger(given: Given, api: Api) -> dict[str, Any]:
    passed_on("ledger", {k: v for k, v in given.items() if k != "tz"}, to="ledger")
    told = api("ledger")
    return {
        "path": clean(told["path"], 300),
        "facts": _facts(told),
        "processes": told["processes"],
        "unsettled": told["unsettled"],
        "unknown_cost": told["unknown_cost"],
        "unpriced": [(clean(one["model"]), f"{one['calls']:,}") for one in told["unpriced"]],
        "damaged": told["damaged"],
        "damaged_files": [clean(name, 120) for name in told["damaged_files"]],
        "findings": [
            (one["check"], one["level"], clean(one["text"], 600)) for one in told["findings"]
        ],
        "as_of": told["as_of"],
    }


def _facts(told: dict[str, Any]) -> list[tuple[str, str]]:
    """What there is of a ledger."""
    writers = ("Writers", f"{told['writers']:,}")
    if "segments" not in told:  # it is elsewhere
        behind = told["unshipped"]
        late = "none known" if behind is None else f"{behind['records']:,}"
        return [writers, ("Records", f"{told['records']:,}"), ("Not shipped yet", late)]
    segments = told["segments"]
    return [
        writers,
        ("Sealed segments", f"{segments['sealed']:,}"),
        ("Open segments", f"{segments['open']:,}"),
        ("In the archive", f"{segments['archived']:,}"),
        ("Without a manifest", f"{segments['without_manifest']:,}"),
        *((name, size_of(size)) for name, size in told["bytes"].items()),
        ("Free", size_of(told["free_bytes"])),
    ]


_PAGES: Final[dict[str, Callable[[Given, Api], dict[str, Any]]]] = {
    "overview": overview,
    "explore": explore,
    "operation": _operation,
    "live": _live,
    "ledger": _ledger,
}
