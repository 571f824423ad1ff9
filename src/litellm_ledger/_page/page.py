"""A report as one HTML file: for mail and archive, readable without a network; nothing in it runs.

Owns the words and figures of the page's tables; the HTML is ``assets/page.html``, where Jinja2
escapes all that is put in.  The sums are ``_page.figures``', the charts ``_page.drawing``'s.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from litellm_ledger import __version__
from litellm_ledger._aggregates.formatting import amounts, clean, counted, money
from litellm_ledger._aggregates.groups import Row
from litellm_ledger._reports.report import floor_mark

from .drawing import SIDE, compact, draw, rounded_cost
from .figures import Page, Top

__all__ = ["basis", "percent", "render", "shares"]

_MOST: Final = 20
"""Tags that are listed by name."""


def render(page: Page) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("litellm_ledger._page", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tops, waste, tags = [_top(top, page.total) for top in page.tops], _waste(page), _tags(page)
    narrow = len(page.tops) + sum(chart.id != "spend" for chart in page.charts)
    odd = (narrow + bool(waste) + bool(tags)) % 2 == 1  # a hole in two columns, were tokens narrow
    charts = {
        chart.id: draw(chart, wide=chart.id == "spend" or (chart.id == "tokens" and odd))
        for chart in page.charts
    }
    return environment.get_template("page.html").render(
        page=page,
        path=clean(page.path, 200),
        ends=list(dict.fromkeys([_when(page.first), _when(page.last)])) if page.every else [],
        about=clean("; ".join(_about(page)), 120),
        tiles=_tiles(page),
        charts=charts,
        side=SIDE,
        tops=tops,
        waste=waste,
        errors=[[clean(name), f"{row.calls:,}"] for name, row in page.errors],
        tags=tags,
        shares=shares(page.total),
        basis=basis(page.total),
        version=__version__,
    )


def _cost(row: Row) -> str:
    return "unknown" if row.known_cost is None else money(row.cost) + floor_mark(row)


def _about(page: Page) -> list[str]:
    question = page.question
    asked = [f"{key} = {' or '.join(values)}" for key, values in question.where.items()]
    asked += [f"{key} not {' or '.join(values)}" for key, values in question.where_not.items()]
    asked += question.conditions
    made = f"created {page.made:%Y-%m-%d %H:%M} UTC from {page.path}"
    return [f"time zone {question.tz}", *asked, made]


def _when(label: str) -> str:
    """A period for a headline: of an hour the time on the clock, without its offset."""
    return clean(label[:16].replace("T", " "), 120)


def _tiles(page: Page) -> list[tuple[str, str]]:
    """The figures at the top of the page, the cost first, and what each of them is."""
    total, failed = page.total, page.failed
    known = total.known_cost is not None
    requests = "call" if total.calls == 1 else "calls"
    if total.retries:
        requests = f"requests for {counted(total.calls - total.retries, 'call')}"
    cached = f", {percent(total.cache_read_tokens, total.input_tokens)} of the input from cache"
    mark = "+" if failed.is_floor or page.has_missing else ""
    failed_cost = (
        "their cost is unknown"
        if failed.known_cost is None
        else f"they cost {money(failed.cost)}{mark}"
    )
    counted_calls = total.provider_reported + total.estimated + total.uncounted
    return [
        (
            rounded_cost(total.cost) if known else "unknown",
            f"exactly {_cost(total)}" if known else "cost",
        ),
        (f"{total.calls:,}", requests),
        (compact(total.total_tokens), f"tokens{cached if total.cache_read_tokens else ''}"),
        (
            percent(failed.calls, total.calls),
            f"failed or abandoned ({failed.calls:,}); {failed_cost}",
        ),
        (
            percent(total.provider_reported, counted_calls),
            "of the calls counted by the provider itself",
        ),
    ]


def percent(part: int | Decimal, whole: int | Decimal) -> str:
    """Write a share."""
    if not whole:
        return "–"
    share = 100 * float(part / whole)
    if 0 < share < 0.05:
        return "under 0.1 %"
    return f"{share:.0f} %" if share >= 99.95 else f"{share:.1f} %"


def _top(top: Top, total: Row) -> dict[str, Any]:
    """A table of groups; a row has a bar, unless its cost is not comparable with the others'."""
    listed = list(top.rows)
    if top.others is not None:
        count, rest = top.others
        listed.append((counted(count, "other"), rest))
    most = max((row.cost for _, row in top.rows), default=Decimal(0))
    costs = amounts([row.known_cost for _, row in listed], exact=False)
    rows = [
        {
            "name": clean(name, 120),
            "bar": 100 * float(row.cost / most) if most and row.cost <= most else 0,
            "calls": f"{row.calls:,}",
            "exact": _cost(row),
            "cost": f"{cost}{floor_mark(row)}",
            "share": "–" if row.known_cost is None else percent(row.cost, total.cost),
        }
        for (name, row), cost in zip(listed, costs, strict=True)
    ]
    return {"key": clean(top.key.removeprefix("tag:"), 120), "rows": rows}


def _waste(page: Page) -> list[list[str]]:
    return [
        [
            clean(name),
            f"{row.calls:,}",
            "-" if row.known_cost is None else _cost(row),
            f"{row.unknown_cost:,}" if row.unknown_cost else "-",
        ]
        for name, row in page.statuses
        if name != "ok"
    ]


def _tags(page: Page) -> list[list[str]]:
    shown = page.left_out[:_MOST]
    rows = [[clean(name), f"{tag.values:,}", f"{tag.calls:,}"] for name, tag in shown]
    rest = len(page.left_out) - len(rows)
    return [*rows, [counted(rest, "other"), "", ""]] if rest else rows


def shares(total: Row) -> list[tuple[str, list[tuple[str, int, str, int]]]]:
    """What the tokens and costs of calls rest on: name, calls, their share, colour."""
    parts: list[tuple[str, list[tuple[str, int, int]]]] = [
        (
            "Calls by token count",
            [
                ("counted by the provider", total.provider_reported, 2),
                ("estimated", total.estimated, 1),
                ("not counted", total.uncounted, 5),
            ],
        ),
        (
            "Calls by cost",
            [
                ("with a cost", total.priced, 2),
                ("answers that could not be priced", total.unpriced, 1),
                ("cut or failed calls with unknown cost", total.unknown_cost, 5),
            ],
        ),
    ]
    return [
        (
            title,
            [
                (name, count, percent(count, sum(calls for _, calls, _ in rows)), color)
                for name, count, color in rows
                if count
            ],
        )
        for title, rows in parts
    ]


def basis(total: Row) -> str:
    """Say how much of a cost rests on an estimate."""
    estimated = total.estimated_cost
    return (
        f"Of {_cost(total)}, {money(total.cost - estimated)} is based on the provider's count "
        f"and {money(estimated)} ({percent(estimated, total.cost)}) on an estimate."
    )
