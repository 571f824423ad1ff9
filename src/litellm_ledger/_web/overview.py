"""The page Overview: what is spent, on what, and how exact that is.

Owns what it asks of the API, its words and its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from litellm_ledger._aggregates.calendar import calendar
from litellm_ledger._aggregates.formatting import amounts, clean, counted, money
from litellm_ledger._aggregates.groups import Row
from litellm_ledger._page.drawing import Drawing, compact, draw, rounded_cost
from litellm_ledger._page.figures import FAILURES, TOKENS, Axis, Chart, speed, spend, top_of
from litellm_ledger._page.page import basis, percent, shares
from litellm_ledger._page.time_axis import periods
from litellm_ledger._reports.report import added, floor_mark

from .asks import Invalid
from .parts import (
    ALL,
    SPAN,
    Api,
    Given,
    changed,
    cost_of,
    exact_of,
    passed_on,
    query,
    row_of,
    shown_tags,
    span_text,
)

__all__ = ["overview"]

_SPANS: Final = ("24h", "7d", "30d", "12w", "12mo", "month")
_TOP: Final = 10
_CARDS: Final = 2
"""Cards of the overview beside tables and charts."""
_MOST_DAYS: Final = (("hour", 3), ("day", 92), ("week", 730))


def overview(given: Given, api: Api) -> dict[str, Any]:
    passed = passed_on("overview", given, to="report")
    for name in ("by", "every", "quantiles", "sort", "order", "limit", "format"):
        if name in passed:
            raise Invalid(name, "this page has no such parameter; Explore has")
    if not passed.keys() & {"last", "since", "until"}:
        passed["last"] = [SPAN]
    filters = {k: v for k, v in passed.items() if k not in ("last", "since", "until")}
    summary = api("summary", **filters)
    tags = [f"tag:{name}" for name in shown_tags(api)]
    stack = (given.get("stack") or ["model"])[0] or "model"
    top = (given.get("top") or [""])[0] or next(iter(tags), "provider")
    whole = by_top = api("report", **passed, by=top, limit=ALL)
    every = _every(whole)
    stacked = api("report", **passed, every=every, by=stack, limit=ALL)
    errors = api(
        "report", **{**passed, "status": ["error"]}, by="error", sort="calls", limit=str(_TOP)
    )
    slow = {**passed, "tz": ["UTC"]}
    speeds = api(
        "report", **slow, every="hour" if every == "hour" else every, quantiles="1", limit=ALL
    )
    rows, total = [*map(row_of, stacked["rows"])], row_of(whole["total"])
    charts = _charts(rows, speeds, stack, every, summary["tz"])
    key = stacked["by"][-1]
    top_key = by_top["by"][-1]
    tops = [_top_table(rows, key, total, given)]
    if top_key != key:
        tops.append(_top_table([*map(row_of, by_top["rows"])], top_key, total, given))
    return {
        "about": span_text(whole),
        "tiles": _tiles(summary),
        "charts": _drawn(charts, len(tops) + _CARDS),
        "tops": tops,
        "facts": _facts(total),
        "errors": [(clean(row["group"]["error"]), f"{row['calls']:,}") for row in errors["rows"]],
        "waste": _waste(total),
        "total": total,
        "shares": shares(total),
        "basis": basis(total),
        "notes": whole["notes"],
        "spans": [
            (span, changed(given, last=span, since=None, until=None), passed.get("last") == [span])
            for span in _SPANS
        ],
        "keys": [
            (k, k.removeprefix("tag:")) for k in ("model", "provider", "call", "status", *tags)
        ],
        "stack": key,
        "top": top_key,
        "kept": _kept(given, ("stack", "top")),
        "as_of": summary["as_of"],
        "explore": f"explore{query({**passed, 'by': [key]})}",
    }


def _every(told: dict[str, Any]) -> str:
    """Choose the period that cuts the time asked for into a readable number of parts."""
    if told["since"] is None:
        return "month"
    end = datetime.fromisoformat(told["until"] or told["as_of"])
    days = (end - datetime.fromisoformat(told["since"])).days
    return next((every for every, most in _MOST_DAYS if days <= most), "month")


def _charts(
    rows: list[Row], speeds: dict[str, Any], stack: str, every: str, tz: str
) -> list[Chart]:
    if not rows:
        return []
    axis = Axis(every, periods(every, [row.group[every] for row in rows], calendar(tz)))
    charts: list[Chart] = [spend(rows, rows_key(rows, every, stack), axis)]
    charts += [
        axis.counts(
            rows, TOKENS, id="tokens", title="Tokens", unit="tokens",
            about="Input and output, with what the provider's prompt cache and reasoning took.",
        ),
        axis.counts(
            rows, FAILURES, id="failures", title="Failed and abandoned attempts", unit="calls",
            about="Errors, cancelled calls, streams left early, and calls whose process died.",
        ),
    ]  # fmt: skip
    timed = [*map(row_of, speeds["rows"])]
    if timed:
        labels = periods(every, [row.group[every] for row in timed], calendar("UTC"))
        found = speed(timed, Axis(every, labels))
        if tz != "UTC":
            found = msgspec.structs.replace(found, about=f"{found.about} By {every} in UTC.")
        charts.insert(2, found)
    return [chart for chart in charts if chart.series]


def _drawn(charts: list[Chart], others: int) -> list[Drawing]:
    """Draw charts; with as many other cards in two columns, one is wide if there were a hole."""
    narrow = others + sum(chart.id != "spend" for chart in charts)
    wide = ("spend", "tokens") if narrow % 2 else ("spend",)
    return [draw(chart, wide=chart.id in wide) for chart in charts]


def rows_key(rows: Sequence[Row], every: str, stack: str) -> str:
    """Return the key that rows are stacked by, as they name it."""
    return next((key for key in rows[0].group if key != every), stack)


def _tiles(told: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The figures at the top: what it is, the amount, what more there is to say."""
    today, month, before = (row_of(told[k]) for k in ("today", "this_month", "month_before"))
    to_date = {k: v for k, v in told["month_before_to_date"].items() if k != "days"}
    same, days = row_of(to_date), told["month_before_to_date"]["days"]
    hour = row_of(told["this_hour"])
    tiles = [
        ("Today", cost_of(today), f"{counted(today.calls, 'call')}; this hour {cost_of(hour)}"),
        ("This month", cost_of(month), _against(month.cost, same.cost, days)),
    ]
    ahead = told["projection"]
    if ahead:
        low, high = (rounded_cost(_cents(ahead[name])) for name in ("low", "high"))
        tiles.append(
            (
                "Month's end",
                rounded_cost(_cents(ahead["expected"])),
                f"projected, {low} to {high}; rests on {counted(ahead['rests_on_days'], 'day')}",
            )
        )
    tiles.append(
        (f"Month before ({told['last_month']})", cost_of(before), counted(before.calls, "call"))
    )
    since = told["in_flight_since"]
    oldest = f"the oldest since {since[11:19]} UTC" if since else "none has begun"
    tiles.append(("In flight", f"{told['in_flight']:,}", oldest))
    return tiles


def _cents(text: str) -> Decimal:
    amount = Decimal(text)
    return amount.quantize(Decimal("0.01")) if amount >= 1 else amount


def _against(now: Decimal, before: Decimal, days: int) -> str:
    if not days:
        return "so far"
    if not before:
        return f"nothing in the first {counted(days, 'day')} of the month before"
    change = 100 * float(now / before - 1)
    return f"{change:+,.0f} % against the first {counted(days, 'day')} of the month before"


def _facts(total: Row) -> list[tuple[str, str]]:
    """What the time comes to, in a list."""
    operations = total.calls - total.retries
    facts = [
        ("Cost", exact_of(total)),
        ("Attempts", f"{total.calls:,} for {counted(operations, 'call')}"),
        ("Tokens", f"{compact(total.input_tokens)} in, {compact(total.output_tokens)} out"),
        (
            "Read from the provider's cache",
            (
                f"{compact(total.cache_read_tokens)} tokens, "
                f"{percent(total.cache_read_tokens, total.input_tokens)} of the input"
            ),
        ),
        (
            "Reasoning",
            (
                f"{compact(total.reasoning_tokens)} tokens, "
                f"{percent(total.reasoning_tokens, total.output_tokens)} of the output"
            ),
        ),
        (
            "Answered by the response cache",
            f"{counted(total.cache_hits, 'call')}, {money(total.saved_cost)} saved",
        ),
        (
            "Failed or left early",
            (
                f"{counted(total.error + total.cancelled + total.abandoned, 'attempt')}, "
                f"{money(total.wasted_cost)} spent on them"
            ),
        ),
    ]
    return facts


def _waste(total: Row) -> list[tuple[str, str]]:
    return [
        (name, f"{getattr(total, name):,}")
        for name in ("error", "cancelled", "abandoned", "unsettled")
        if getattr(total, name)
    ]


def _top_table(rows: list[Row], key: str, total: Row, given: Given) -> dict[str, Any]:
    top = top_of(rows, key)
    shown = top.rows[:_TOP]
    rest = [row for _, row in top.rows[_TOP:]]
    others = added([*rest, *([top.others[1]] if top.others else [])])
    count = len(rest) + (top.others[0] if top.others else 0)
    listed = [*shown, *([(counted(count, "other"), others)] if count else [])]
    most = max((row.cost for _, row in shown), default=Decimal(0))
    costs = amounts([row.known_cost for _, row in listed], exact=False)
    passed = {k: v for k, v in given.items() if k not in ("stack", "top")}
    return {
        "key": clean(key.removeprefix("tag:"), 80),
        "rows": [
            {
                "name": clean(name, 120),
                "link": None if at >= len(shown) else _narrower(passed, key, name),
                "bar": 100 * float(row.cost / most) if most and 0 < row.cost <= most else 0,
                "calls": f"{row.calls:,}",
                "exact": exact_of(row),
                "cost": f"{cost}{floor_mark(row)}",
                "share": "–" if row.known_cost is None else percent(row.cost, total.cost),
            }
            for at, ((name, row), cost) in enumerate(zip(listed, costs, strict=True))
        ],
    }


def _narrower(given: Given, key: str, value: str) -> str:
    """Return the address of what is behind a row."""
    where = [*given.get("where", []), f"{key}=={value}"]
    return f"explore{query({**given, 'where': where})}"


def _kept(given: Given, but: Sequence[str]) -> list[tuple[str, str]]:
    """Return the parameters that a form passes on unseen."""
    return [(k, v) for k, values in given.items() if k not in but for v in values if v]
