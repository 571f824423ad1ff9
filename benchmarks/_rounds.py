"""Things timed in turns, so that whatever else the machine does hits all of them alike.

Owns the turns and the medians; every benchmark here is a ratio against something measured in the
same round.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Contender", "Timed", "race"]

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
        if turn:  # a warm-up is not timed, and with LiteLLM imported this takes a fifth of a second
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
