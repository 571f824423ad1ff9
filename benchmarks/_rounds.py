"""Things timed in turns, so that whatever else the machine does hits all of them alike.

Owns the turns and the medians; every benchmark here is a ratio against something measured in the
same round.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Comparison", "Contender", "Timed", "compare", "header", "race"]

Contender = tuple[Callable[[], Awaitable[float | None]], int]
"""What to run, and how many operations that is.

It returns the seconds that count, or ``None`` if all the time it took counts.
"""


@dataclass
class Timed:
    """Seconds per operation, round by round: wall clock, and this process's processor time."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of wall clock."""
        return statistics.median(self.wall)

    def over(self, other: Timed) -> list[float]:
        """Round by round, our time over the other's: below 1 is faster than the other."""
        return [mine / theirs for mine, theirs in zip(self.wall, other.wall, strict=True)]

    def cpu_over(self, other: Timed) -> list[float]:
        """The same by processor time, which other people's load disturbs less."""
        return [mine / theirs for mine, theirs in zip(self.cpu, other.cpu, strict=True)]


async def race(
    contenders: Mapping[str, Contender], *, rounds: int, seconds: float = 30.0
) -> dict[str, Timed]:
    """Run all in turns, ``rounds`` times after one to warm up, each time in another order.

    After ``seconds`` it begins no further round, but for the first two: a slow machine gets fewer
    rounds, not a longer run.
    """
    until = time.monotonic() + seconds
    found = {name: Timed() for name in contenders}
    names = list(contenders)
    for turn in range(rounds + 1):
        if turn > 2 and time.monotonic() > until:
            break
        order = names[turn % len(names) :] + names[: turn % len(names)]
        gc.collect()
        for name in order if turn % 2 else reversed(order):
            run, operations = contenders[name]
            wall, cpu = time.perf_counter(), time.process_time()
            own = await run()
            took, used = time.perf_counter() - wall, time.process_time() - cpu
            if turn:
                found[name].wall.append((took if own is None else own) / operations)
                found[name].cpu.append(used / operations)
    return found


@dataclass(frozen=True)
class Comparison:
    """Medians over all rounds, in seconds per operation, of wall clock and of processor time."""

    name: str
    ours: float
    theirs: float
    ours_cpu: float
    theirs_cpu: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """Ours over theirs: below 1 is faster than the peer."""
        return self.ours / self.theirs

    @property
    def cpu_ratio(self) -> float:
        """The same by processor time, which other people's load disturbs less."""
        return self.ours_cpu / self.theirs_cpu

    def show(self, *, inverse: bool = False) -> None:
        """Print one row; ``inverse`` shows our speed as a share of the peer's."""
        ratio, cpu = self.ratio, self.cpu_ratio
        low, high = self.low, self.high
        if inverse:
            ratio, cpu, low, high = 1 / ratio, 1 / cpu, 1 / high, 1 / low
        print(
            f"{self.name:<58} {self.ours * 1e6:>9.2f} {self.theirs * 1e6:>9.2f}"
            f" {ratio:>7.3f} {low:>6.2f}–{high:<6.2f} {cpu:>7.3f}"
        )


def header(title: str) -> None:
    """Print the head of a table, with the load that the machine is under."""
    print(f"\n{title}   (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
    print(f"{'':<58} {'ours µs':>9} {'peer µs':>9} {'ratio':>7} {'spread':^13} {'by cpu':>7}")


async def compare(
    name: str,
    ours: Callable[[], Awaitable[None]],
    theirs: Callable[[], Awaitable[None]],
    *,
    operations: int,
    rounds: int,
) -> Comparison:
    """Run both in turns, ``rounds`` times after one to warm up, and compare the medians."""
    mine: list[tuple[float, float]] = []
    peer: list[tuple[float, float]] = []
    for turn in range(rounds + 1):
        pairs = [(ours, mine), (theirs, peer)]
        for function, times in pairs if turn % 2 else reversed(pairs):
            wall, cpu = time.perf_counter(), time.process_time()
            await function()
            took = (time.perf_counter() - wall, time.process_time() - cpu)
            if turn:
                times.append((took[0] / operations, took[1] / operations))
    ratios = sorted(m[0] / p[0] for m, p in zip(mine, peer, strict=True))
    return Comparison(
        name,
        statistics.median(t[0] for t in mine),
        statistics.median(t[0] for t in peer),
        statistics.median(t[1] for t in mine),
        statistics.median(t[1] for t in peer),
        ratios[len(ratios) // 4],
        ratios[-1 - len(ratios) // 4],
    )
