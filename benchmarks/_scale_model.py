"""A simulation of many shippers and one database.  Pure: no clock, no database, a seed.

The model, part by part:

- *Processes* write lines at a constant mean rate, in calls that come by chance (Poisson); lines may
  be shipped from the next sync on, which comes every ``sync`` seconds.
- A *shipper* has one or several of these writers, on a core of its own.  Every ``every`` seconds
  (0: whenever something was synced) it makes a batch of each writer with lines, of 5,000 at most,
  one after the other: processor time of its own, messages over the network, and processor time of
  the server; both times are ``fixed + line * lines``.
- The *server* has some cores and serves whoever comes first, a batch on one core.  Disks are not in
  the model: what is written to them is in the table of slopes.
- *Sums* are brought forward by one leader at a time, 10,000 numbers in one go, and each shipper
  looks every 5 s whether it should, one at a time: that costs the server something too.
- While the *network is cut* no batch begins, and shippers try again after pauses that double from
  0.25 to 30 s, a random part of each.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Costs", "Fleet", "Outcome", "simulate"]

LINES: Final = 5_000
"""Lines of one batch at most (``_shipping.source.LINES``)."""
SUMMED: Final = 10_000
LOOK: Final = 0.25
"""Seconds between two steps of a shipper that has nothing to ship."""
AWAY: Final = 1.0
"""Seconds between two looks of a shipper whose database is away."""
SUMS: Final = 5.0
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True)
class Costs:
    """Seconds of a processor: of one batch, and of each line in it, and of the sums.

    Attributes:
        client, server: of a batch (fixed, for each line).
        sums: of the server, to bring sums forward (fixed, for each number).
        look: of the server, when a shipper looks and there is nothing to bring forward.
        refused: of the server, when another one leads.
    """

    client: tuple[float, float]
    server: tuple[float, float]
    sums: tuple[float, float]
    look: float
    refused: float = 0.0


@dataclass(frozen=True)
class Fleet:
    """What there is.

    Attributes:
        writers: processes that record.
        shippers: who ships; each has its share of the writers.
        rate: lines a second of one writer.
        cores: of the server.
        network: seconds that a message takes from a machine to the server and back.
        crossings: such messages in one batch.
        every: seconds between two rounds of a shipper; 0: after each sync.
        look: seconds between two looks of a shipper that no sync wakes; 0: it is woken.
        sync: seconds between two syncs of a writer.
        cut: when the network is cut, and until when.
        shared: the shippers run on the server's cores, as in a trial on one machine.
        busy: the part of the server's cores that others use.
        sums: whether sums are brought forward.
    """

    writers: int
    shippers: int
    rate: float
    cores: int
    network: float = 0.001
    crossings: int = 3
    every: float = 0.0
    look: float = 0.0
    sync: float = 1.0
    cut: tuple[float, float] | None = None
    shared: bool = False
    busy: float = 0.0
    sums: bool = True


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        batches, lines: that were shipped in the measured time.
        busy: processor seconds of the server in that time.
        seconds: how long that time was.
        lags: ``(lines, seconds)``: how old the oldest line of a batch was when it was there.
        backlog: ``(moment, lines)``: how many lines were written and not shipped, now and then.
        waiting: lines that were written and not shipped when the cut ended.
        caught_up: seconds after the end of the cut until the backlog was what it was before.
        sums_behind: most numbers that were shipped and not in the sums.
    """

    batches: int = 0
    lines: int = 0
    busy: float = 0.0
    seconds: float = 0.0
    lags: list[tuple[int, float]] = field(default_factory=list)
    backlog: list[tuple[float, float]] = field(default_factory=list)
    waiting: float = 0.0
    caught_up: float | None = None
    sums_behind: float = 0.0

    def lag(self, part: float) -> float:
        """Return a quantile of the lags, each line counting once; seconds."""
        ordered = sorted(self.lags, key=lambda one: one[1])
        wanted = part * sum(lines for lines, _ in ordered)
        for lines, seconds in ordered:
            wanted -= lines
            if wanted <= 0:
                return seconds
        return math.nan


class _Cores:
    """Cores that serve whoever comes first."""

    def __init__(self, count: int, busy: float = 0.0) -> None:
        self._free = [0.0] * count
        self._slower = 1 / (1 - busy)
        self.used = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """Return when work that comes now is done."""
        self.used += seconds
        begins = max(now, self._free[0])
        done = begins + seconds * self._slower
        heapq.heapreplace(self._free, done)
        return done


class _Writer:
    """How many lines it has written, drawn as time goes on."""

    __slots__ = ("_at", "made", "rate", "shipped", "since")

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.made = 0
        self.shipped = 0
        self.since = 0.0
        self._at = 0.0

    def until(self, moment: float, dice: random.Random) -> None:
        """Draw the lines up to a moment: calls of two lines each."""
        if moment <= self._at:
            return
        mean = self.rate * (moment - self._at) / 2
        if mean > 30:
            calls = max(0, round(dice.gauss(mean, math.sqrt(mean))))
        else:
            calls, left = 0, math.exp(-mean)
            product = dice.random()
            while product > left:
                calls += 1
                product *= dice.random()
        if self.made == self.shipped:  # the oldest that waits is of this time
            self.since = self._at + (moment - self._at) / (calls + 1)
        self.made += 2 * calls
        self._at = moment


class _Run:
    """One simulation."""

    def __init__(self, fleet: Fleet, costs: Costs, seed: int) -> None:
        self.fleet, self.costs = fleet, costs
        self.dice = random.Random(seed)
        self.server = _Cores(fleet.cores, fleet.busy)
        share = fleet.writers / fleet.shippers
        self.shippers = [
            [_Writer(fleet.rate) for _ in range(int((n + 1) * share) - int(n * share))]
            for n in range(fleet.shippers)
        ]
        self.writers = [writer for one in self.shippers for writer in one]
        self.outcome = Outcome()
        self.shipped = self.rolled = 0
        self.began = 0.0
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0

    def at(self, moment: float, do: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (moment, self._number, do))

    def go(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        while self._events and self._events[0][0] <= until and not stop():
            moment, _, do = heapq.heappop(self._events)
            do(moment)

    def measure(self, now: float) -> None:
        """Begin to count."""
        self.outcome = Outcome()
        self.server.used = 0.0
        self.began = now

    # -- a shipper ---------------------------------------------------------------------------------

    def start(self) -> None:
        pause = self.fleet.every or self.fleet.sync
        for number in range(len(self.shippers)):
            self.at(self.dice.uniform(0, pause), self._round_of(number))
        if self.fleet.sums:
            self.at(SUMS, self._sums)
            self.at(SUMS, self._look)

    def _round_of(self, number: int) -> Callable[[float], None]:
        """Return what a shipper does when its time has come: its writers, one after the other."""
        turn = 0
        moved = False

        def do(now: float) -> None:
            nonlocal turn, moved
            writers = self.shippers[number]
            again = self._when_the_network_is_back(now)
            if again is not None:
                self.at(again, do)
                return
            while turn < len(writers):
                writer = writers[turn]
                turn += 1
                writer.until(self._synced(now), self.dice)
                lines = min(LINES, writer.made - writer.shipped)
                if lines:
                    moved = True
                    self._ship(now, writer, lines, do)
                    return
            turn = 0
            behind = any(writer.made > writer.shipped for writer in writers)
            pause = 0.0 if behind else self._pause(now, moved=moved)
            moved = False
            self.at(now + pause, do)

        return do

    def _synced(self, now: float) -> float:
        """Return up to when lines may be shipped."""
        return now - self.dice.uniform(0, self.fleet.sync) if self.fleet.every else now

    def _pause(self, now: float, *, moved: bool) -> float:
        """Return when a shipper looks again: woken by the next sync, or on its own."""
        if self.fleet.every:
            return self.fleet.every
        wait = self.fleet.sync if moved else self.fleet.sync - math.fmod(now, self.fleet.sync)
        return wait + self.dice.uniform(0, self.fleet.look)

    def _when_the_network_is_back(self, now: float) -> float | None:
        """Return when it is tried again; ``None``: now is a good moment."""
        cut = self.fleet.cut
        if cut is None or not cut[0] <= now < cut[1]:
            return None
        pause, moment = FIRST_PAUSE, now
        while moment < cut[1]:
            moment += pause * self.dice.uniform(0.5, 1.0) + self.dice.uniform(0, AWAY)
            pause = min(LONGEST_PAUSE, 2 * pause)
        return moment

    def _ship(self, now: float, writer: _Writer, lines: int, then: Callable[[float], None]) -> None:
        """Ship a batch: the client's work, the network, the server's work, the network."""
        fleet, costs = self.fleet, self.costs
        client = costs.client[0] + costs.client[1] * lines
        packed = self.server.serve(now, client) if fleet.shared else now + client
        oldest = writer.since

        def arrives(moment: float) -> None:
            work = costs.server[0] + costs.server[1] * lines
            self.at(self.server.serve(moment, work) + fleet.network / 2, there)

        def there(moment: float) -> None:
            writer.shipped += lines
            writer.since = (
                moment
                if writer.made == writer.shipped
                else writer.since
                + ((moment - writer.since) * lines / (writer.made - writer.shipped + lines))
            )
            self.shipped += lines
            self.outcome.batches += 1
            self.outcome.lines += lines
            self.outcome.lags.append((lines, moment - oldest))
            then(moment)

        self.at(packed + fleet.network * (fleet.crossings - 0.5), arrives)

    # -- sums --------------------------------------------------------------------------------------

    def _sums(self, now: float) -> None:
        """Bring sums forward, as the one who leads does."""
        costs = self.costs
        behind = self.shipped - self.rolled
        self.outcome.sums_behind = max(self.outcome.sums_behind, behind)
        cut = self._when_the_network_is_back(now)
        if cut is not None:
            self.at(cut, self._sums)
            return
        numbers = min(SUMMED, behind)
        if not numbers:
            self.at(now + 1.0, self._sums)
            return
        done = self.server.serve(now, costs.sums[0] + costs.sums[1] * numbers)
        self.rolled += numbers
        # The same shipper goes on with its next step, or another one that looks meanwhile.
        self.at(done + LOOK / min(self.fleet.shippers, 25), self._sums)

    def _look(self, now: float) -> None:
        """Have the shippers look; those of one second together, as they would be most events.

        A look holds the lock of the leader, so that who comes meanwhile is refused: of ``n`` a
        second, each of ``s`` seconds, ``n / (1 + n s)`` look.
        """
        if self._when_the_network_is_back(now) is None:
            costs, cores = self.costs, self.fleet.cores
            comes = self.fleet.shippers / max(SUMS, self.fleet.every)
            led = self.shipped - self.rolled > SUMMED
            looks = 0.0 if led else comes / (1 + comes * costs.look)
            for _ in range(cores):
                self.server.serve(
                    now, (looks * costs.look + (comes - looks) * costs.refused) / cores
                )
        self.at(now + 1.0, self._look)

    # -- what is seen ------------------------------------------------------------------------------

    def backlog(self, now: float) -> float:
        for writer in self.writers:
            writer.until(now, self.dice)
        return sum(writer.made - writer.shipped for writer in self.writers)

    def watch(self, every: float) -> None:
        def look(now: float) -> None:
            self.outcome.backlog.append((now, self.backlog(now)))
            self.at(now + every, look)

        self.at(0.0, look)


def simulate(
    fleet: Fleet,
    costs: Costs,
    *,
    settle: float = 20.0,
    steady: float = 60.0,
    longest: float = 6 * 3600.0,
    watch: float | None = None,
    seed: int = 1,
) -> tuple[Outcome, Outcome]:
    """Return what a fleet does while all is well, and what it does through a cut of the network.

    Args:
        fleet: with ``cut`` of a length; it begins after the steady time.
        costs: as measured.
        settle: seconds before anything is counted.
        steady: seconds that are counted.
        longest: seconds after which a backlog is given up.
        watch: seconds between two looks at the backlog.
    """
    run = _Run(fleet, costs, seed)
    run.start()
    if watch is not None:
        run.watch(watch)
    run.go(settle)
    looked = run.outcome.backlog
    run.measure(settle)
    end = settle + steady
    run.go(end)
    usual = run.outcome
    usual.seconds, usual.busy = steady, run.server.used
    if fleet.cut is None:
        usual.backlog = [*looked, *usual.backlog]
        return usual, Outcome()
    before = run.backlog(end)
    run.measure(end)
    back = fleet.cut[1]
    run.go(back)
    waiting = run.backlog(back)
    enough = max(before * 2, before + fleet.rate * fleet.writers * 0.5)
    moment = back
    while moment < back + longest:
        moment += max(0.25, (moment - back) / 50)
        run.go(moment)
        if run.backlog(moment) <= enough:
            run.outcome.caught_up = moment - back
            break
    after = run.outcome
    after.seconds, after.busy = moment - end, run.server.used
    after.backlog = [*looked, *usual.backlog, *after.backlog]
    after.waiting = waiting
    return usual, after
