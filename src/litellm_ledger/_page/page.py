"""A report as one HTML file: for mail and archive, readable without a network and without scripts.

Owns the page: its words, its tables, and how the style, the script and Chart.js get into it.  The
figures are ``_page.figures``'s.  Everything that comes from a ledger is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from html import escape
from importlib.resources import files
from typing import Final

import msgspec

from litellm_ledger import __version__
from litellm_ledger._aggregates.formatting import amounts, clean, counted, money
from litellm_ledger._aggregates.groups import Row
from litellm_ledger._reports.report import floor_mark

from .figures import Chart, Page, Top

__all__ = ["render"]

_PARTS: Final = files("litellm_ledger._page") / "assets"
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_MOST: Final = 20
"""Tags that are listed by name."""
_MAP: Final = "\n//# sourceMappingURL="


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _chart_js() -> str:
    """Chart.js as it was published, but for the pointer to a map that nobody has."""
    return _part("chart.umd.min.js").partition(_MAP)[0]


def render(page: Page) -> str:
    """Return the page."""
    charts = {chart.id: chart for chart in page.charts}
    tops = [_top_card(top, page.total) for top in page.tops]
    last = [
        _chart_card(charts.get("speed")),
        _chart_card(charts.get("failures")),
        _waste_card(page),
        _left_out_card(page),
    ]
    narrow = sum(map(bool, [*tops, charts.get("tokens"), *last]))
    body = [
        _header(page),
        _tiles(page),
        '<div class="cards">',
        _chart_card(charts.get("spend"), wide=True),
        *tops,
        _chart_card(charts.get("tokens"), wide=narrow % 2 == 1),  # no hole in two columns
        *last,
        _exactness_card(page),
        "</div>",
        _footer(page),
    ]
    data = msgspec.json.encode({"charts": page.charts}).decode().replace("<", "\\u003c")
    scripts = ""
    if page.charts:
        scripts = (
            f'<script type="application/json" id="data">{data}</script>\n'
            f"<script>{_chart_js()}</script>\n<script>{_part('page.js')}</script>\n"
        )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(_title(page))}</title>\n<style>\n{_part('page.css')}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(part for part in body if part)}</main>\n{scripts}"
        "</body>\n</html>\n"
    )


def _title(page: Page) -> str:
    return f"Cost of language models: {clean(page.path, 200)}"


def _text(value: str | None) -> str:
    return escape(clean(value, 120))


def _cost(row: Row) -> str:
    return "unknown" if row.known_cost is None else money(row.cost) + floor_mark(row)


def _header(page: Page) -> str:
    if page.every is None:
        span = "no call on record"
    else:
        ends = dict.fromkeys([_when(page.first), _when(page.last)])
        span = " to ".join(f'<span class="whole">{_text(end)}</span>' for end in ends)
    asked = [f"time zone {page.question.tz}"]
    asked += [f"{key} = {' or '.join(values)}" for key, values in page.question.where.items()]
    made = f"created {page.made:%Y-%m-%d %H:%M} UTC from {page.path}"
    return (
        f"<header>\n<h1>Cost of language models, {span}</h1>\n"
        f'<p class="quiet">{_text("; ".join([*asked, made]))}</p>\n</header>\n'
    )


def _when(label: str) -> str:
    """A period for a headline: of an hour the time on the clock, without its offset."""
    return label[:16].replace("T", " ")


def _tiles(page: Page) -> str:
    total = page.total
    failed = page.failed
    mark = (
        '<span class="floor" title="a minimum: the real cost may be higher">+</span>'
        if page.is_floor
        else ""
    )
    cached = _percent(total.cache_read_tokens, total.input_tokens)
    tiles = [
        (
            f"{_rounded(total.cost)}{mark}" if total.known_cost is not None else "unknown",
            f"exactly {_cost(total)}" if total.known_cost is not None else "cost",
        ),
        (
            f"{total.calls:,}",
            f"requests for {total.calls - total.retries:,} calls" if total.retries else "calls",
        ),
        (
            _compact(total.total_tokens),
            f"tokens{f', {cached} of the input from cache' if total.cache_read_tokens else ''}",
        ),
        (
            _percent(failed.calls, total.calls),
            f"failed or abandoned ({failed.calls:,}); {_failed_cost(page)}",
        ),
        (
            _percent(total.provider_reported, _counted(total)),
            "of the calls counted by the provider itself",
        ),
    ]
    inner = "".join(
        f'<div class="tile"><b>{value}</b><span>{escape(words)}</span></div>\n'
        for value, words in tiles
    )
    return f'<div class="tiles">\n{inner}</div>\n'


def _failed_cost(page: Page) -> str:
    failed = page.failed
    if failed.known_cost is None:
        return "their cost is unknown"
    mark = "+" if failed.is_floor or page.has_missing else ""
    return f"they cost {money(failed.cost)}{mark}"


def _rounded(cost: Decimal) -> str:
    """An amount for a headline: cents from a dollar on, four digits below."""
    if cost >= 1 or not cost:
        return f"${cost:,.2f}"
    shown = f"{cost:.4g}"
    return f"${Decimal(shown):f}"


def _compact(count: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**4, "k")):
        if count >= size:
            return f"{count / (1000 if unit == 'k' else size):,.1f} {unit}"
    return f"{count:,}"


def _counted(row: Row) -> int:
    return row.provider_reported + row.estimated + row.uncounted


def _percent(part: int | Decimal, whole: int | Decimal) -> str:
    if not whole:
        return "–"
    share = 100 * float(part / whole)
    return (
        "under 0.1 %"
        if 0 < share < 0.05
        else f"{share:.0f} %"
        if share >= 99.95
        else f"{share:.1f} %"
    )


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, total: bool = False, safe: bool = False
) -> str:
    """A table; cells are escaped, unless ``safe`` says that they are HTML already."""
    shown = [[cell if safe else escape(cell) for cell in row] for row in rows]
    last = len(shown) - 1
    lines = [
        f"<tr{' class=total' if total and at == last else ''}>"
        + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row)
        + "</tr>\n"
        for at, row in enumerate(shown)
    ]
    head = "".join(f"<th>{escape(one)}</th>" if one else '<th class="share"></th>' for one in heads)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{''.join(lines)}</tbody></table></div>\n"
    )


def _card(title: str, about: str, inner: str, *, kind: str = "") -> str:
    return (
        f'<section class="{f"card {kind}".strip()}">\n<h2>{escape(title)}</h2>\n'
        f'<p class="quiet">{escape(about)}</p>\n{inner}</section>\n'
    )


def _chart_card(chart: Chart | None, *, wide: bool = False) -> str:
    if chart is None:
        return ""
    heads = [chart.title.rpartition(" ")[2] if chart.id == "spend" else "when"]
    heads += [series.name for series in chart.series] + (["total"] if chart.totals else [])
    rows = [
        [label, *(series.texts[at] for series in chart.series)]
        + ([chart.totals[at]] if chart.totals else [])
        for at, label in enumerate(chart.labels)
    ]
    words = f"{chart.title}: the figures are in the table below."
    inner = (
        f'<div class="chart"><canvas id="chart-{chart.id}" role="img" '
        f'aria-label="{escape(words)}"></canvas></div>\n'
        "<noscript><p class=quiet>The chart needs scripts; its figures are below.</p></noscript>\n"
        f"<details><summary>The figures</summary>\n{_table(heads, rows)}</details>\n"
    )
    return _card(chart.title, chart.about, inner, kind="wide" if wide else "")


def _top_card(top: Top, total: Row) -> str:
    most = max((row.cost for _, row in top.rows), default=Decimal(0))
    listed = list(top.rows)
    if top.others is not None:
        count, rest = top.others
        listed.append((counted(count, "other"), rest))
    costs = amounts([row.known_cost for _, row in listed], exact=False)
    rows = [
        _top_row(_text(name), row, f"{cost}{floor_mark(row)}", total, most)
        for (name, row), cost in zip(listed, costs, strict=True)
    ]
    key = top.key.removeprefix("tag:")
    inner = _table([key, "", "calls", "cost", "share"], rows, safe=True)
    return _card(f"By {key}", "The most expensive first.", inner)


def _top_row(name: str, row: Row, cost: str, total: Row, most: Decimal) -> list[str]:
    width = 100 * float(row.cost / most) if most and row.cost <= most else 0
    bar = f'<td class="share"><i style="width:{width:.1f}%"></i></td>'
    exact = f'<td title="{escape(_cost(row))}">{escape(cost)}</td>'
    share = "–" if row.known_cost is None else _percent(row.cost, total.cost)
    return [name, bar if width else '<td class="share"></td>', f"{row.calls:,}", exact, share]


def _waste_card(page: Page) -> str:
    bad = [(name, row) for name, row in page.statuses if name != "ok"]
    if not bad:
        return ""
    rows = [
        [
            clean(name),
            f"{row.calls:,}",
            "-" if row.known_cost is None else _cost(row),
            f"{row.unknown_cost:,}" if row.unknown_cost else "-",
        ]
        for name, row in bad
    ]
    inner = _table(["ended as", "calls", "known cost", "unknown cost"], rows)
    if page.errors:
        errors = [[clean(name), f"{row.calls:,}"] for name, row in page.errors]
        inner += _table(["error", "calls"], errors)
    return _card(
        "Cost of failed and abandoned calls",
        "Providers also bill answers that were cut off.",
        inner,
    )


def _left_out_card(page: Page) -> str:
    if not page.left_out:
        return ""
    rows = [
        [clean(name), f"{tag.values:,}", f"{tag.calls:,}"] for name, tag in page.left_out[:_MOST]
    ]
    rest = len(page.left_out) - len(rows)
    if rest:
        rows.append([counted(rest, "other"), "", ""])
    return _card(
        "Other tags",
        "Tags without a table on this page; --by NAME adds one.",
        _table(["tag", "values", "calls"], rows),
    )


def _exactness_card(page: Page) -> str:
    total = page.total
    notes = f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in page.notes)}</ul>\n"
    if not total.calls:
        return _card("Data quality", "", notes, kind="wide sure") if page.notes else ""
    counted = [
        ("counted by the provider", total.provider_reported, "--c2"),
        ("estimated", total.estimated, "--c1"),
        ("not counted", total.uncounted, "--c5"),
    ]
    priced = [
        ("with a cost", total.priced, "--c2"),
        ("answers that could not be priced", total.unpriced, "--c1"),
        ("cut or failed calls with unknown cost", total.unknown_cost, "--c5"),
    ]
    estimated = total.estimated_cost
    inner = "<p>Calls by token count</p>\n" + _parts(counted)
    inner += "<p>Calls by cost</p>\n" + _parts(priced)
    inner += (
        f"<p>Of {_cost(total)}, {money(total.cost - estimated)} is based on the provider's count"
    )
    inner += f" and {money(estimated)} ({_percent(estimated, total.cost)}) on an estimate.</p>\n"
    inner += (
        "<p>Amounts in the group tables are rounded; amounts in the chart tables are exact.</p>"
    )
    inner += notes
    return _card(
        "Data quality",
        "Sums are exact. An unknown cost is never counted as zero.",
        inner,
        kind="wide sure",
    )


def _parts(parts: Sequence[tuple[str, int, str]]) -> str:
    whole = sum(count for _, count, _ in parts)
    shown = [part for part in parts if part[1]]
    bars = "".join(
        f'<i style="flex:{count} 1 0;background:var({color})"></i>' for _, count, color in shown
    )
    key = "".join(
        f'<span><i style="background:var({color})"></i>{escape(name)}: {count:,} '
        f"({_percent(count, whole)})</span>"
        for name, count, color in shown
    )
    return f'<div class="parts">{bars}</div>\n<div class="key">{key}</div>\n'


def _footer(page: Page) -> str:
    charts = (
        "; charts by Chart.js (MIT licence, its notice is in the source)" if page.charts else ""
    )
    return (
        f'<footer class="quiet">litellm-ledger {__version__}. This file is complete: it fetches '
        f"nothing and sends nothing{charts}.</footer>\n"
    )
