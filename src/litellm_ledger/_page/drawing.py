"""Where the bars, lines and words of a chart stand, in a square that the page stretches.

Owns the scale of a chart: round numbers on its axis, paths for SVG, places in percent.  Colours
and sizes are the style sheet's, so one drawing fits light, dark, desktop, phone and paper.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import ceil, floor, log10
from typing import Final

import msgspec

from .figures import Chart

__all__ = ["SIDE", "Drawing", "compact", "draw", "rounded_cost"]

SIDE: Final = 1000
"""Units on each side of the square."""
_TICKS: Final = 5
_WORDS: Final = {True: 14, False: 6}
"""Labels of the time axis, in a wide chart and in a narrow one."""
_THICKEST: Final = {True: 40, False: 90}
"""Units that a bar is wide at most, likewise."""
_TIPS: Final = 366
"""Periods up to which each shows its figures under the pointer, and its bars are set apart."""


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """A chart, ready to be written down.

    Attributes:
        paths: of each series.
        grid: the path of the lines behind them.
        ticks, words: places in percent of the height and width, and what stands there.
        tips: for each period the series that have something there; empty if there are too many.
    """

    chart: Chart
    wide: bool
    paths: list[str]
    grid: str
    ticks: list[tuple[float, str]]
    words: list[tuple[float, str]]
    tips: list[list[int]]


def draw(chart: Chart, *, wide: bool) -> Drawing:
    """Lay out a chart; ``wide``: it has the whole width of the page."""
    count = len(chart.labels)
    stacked = chart.kind == "stack"
    columns = list(zip(*(series.values for series in chart.series), strict=True))
    heights = [(sum if stacked else max)(map(_known, column)) for column in columns]
    ticks = _ticks(max(heights), whole=chart.unit in ("calls", "tokens"))
    top = ticks[-1]
    every = ceil(count / _WORDS[wide])
    shape = _bars if stacked else _lines
    return Drawing(
        chart=chart,
        wide=wide,
        paths=shape([series.values for series in chart.series], SIDE / top, wide=wide),
        grid="".join(f"M0 {SIDE - SIDE * tick / top:.1f}h{SIDE}" for tick in ticks),
        ticks=[(100 * tick / top, _short(tick, chart.unit)) for tick in ticks],
        words=[(100 * (at + 0.5) / count, chart.short[at]) for at in range(0, count, every)],
        tips=[_shown(column, stacked=stacked) for column in columns] if count <= _TIPS else [],
    )


def _known(value: float | None) -> float:
    """A value to draw: unknown ones are not drawn, nor are credits below 0."""
    return max(0.0, value or 0.0)


def _shown(column: Sequence[float | None], *, stacked: bool) -> list[int]:
    shown = [at for at, value in enumerate(column) if value is not None and (value or not stacked)]
    return sorted(shown, key=lambda at: -(column[at] or 0)) if stacked else shown


def _bars(series: Sequence[Sequence[float | None]], scale: float, *, wide: bool) -> list[str]:
    slot = SIDE / len(series[0])
    width = min(0.82 * slot, _THICKEST[wide])
    floor_of = [float(SIDE)] * len(series[0])
    paths = []
    for values in series:
        path = []
        for at, value in enumerate(values):
            height = _known(value) * scale
            if height:
                floor_of[at] -= height
                left = (at + 0.5) * slot - width / 2
                path.append(
                    f"M{left:.1f} {floor_of[at]:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z"
                )
        paths.append("".join(path))
    return paths


def _lines(series: Sequence[Sequence[float | None]], scale: float, *, wide: bool) -> list[str]:
    """Join the known values, also across unknown ones; a single one is a dash."""
    slot, dash = SIDE / len(series[0]), _THICKEST[wide]
    paths = []
    for values in series:
        points = [
            f"{(at + 0.5) * slot:.1f} {SIDE - value * scale:.1f}"
            for at, value in enumerate(values)
            if value is not None
        ]
        single = f"m{-dash / 2} 0h{dash}" if len(points) == 1 else ""
        paths.append(f"M{'L'.join(points)}{single}")
    return paths


def _ticks(most: float, *, whole: bool) -> list[float]:
    """Round numbers from 0 to ``most`` or just above."""
    if most <= 0:
        return [0, 1]
    size = 10.0 ** floor(log10(most / _TICKS))
    steps = [factor * size for factor in ((1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10))]
    step = next((one for one in steps if one * _TICKS >= most), steps[-1])
    step = max(1, step) if whole else step
    return [step * at for at in range(ceil(most / step - 1e-9) + 1)]


def _short(value: float, unit: str) -> str:
    if unit == "ms":
        return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms" if value else "0"
    if unit == "usd" and value < 1000:
        return f"${Decimal(f'{value:.3g}'):f}"
    return ("$" if unit == "usd" else "") + compact(round(value)).replace(".0 ", " ")


def compact(count: int) -> str:
    """Write a large number with a letter for its size."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**4, "k")):
        if count >= size:
            return f"{count / (1000 if unit == 'k' else size):,.1f} {unit}"
    return f"{count:,}"


def rounded_cost(cost: Decimal) -> str:
    """Write an amount for a headline: cents from a dollar on, four digits below."""
    if cost >= 1 or not cost:
        return f"${cost:,.2f}"
    return f"${Decimal(f'{cost:.4g}'):f}"
