"""A day of calls, replayed under each mode of a budget: served, refused, cut, and the overspend.

``python -m benchmarks.replay [--calls N] [--seed N]`` prints the table of docs/budgets.md.  The day
is synthetic and its clock simulated; holds, percentiles and cuts are the library's own code.  Where
the figures of the day are from:

* lengths: lognormal around the medians of Azure's traces of chats, 1,020 tokens of input and 129
  of output (Patel et al., Splitwise, ISCA 2024, https://arxiv.org/abs/2311.18677); their spread
  (σ = 1) is ours, as are 4.5 bytes a token;
* arrivals: a sine over the day, four times as many at noon as at midnight, one by one or 200 of the
  callers at once; ours;
* 60 tokens a second, six of ten calls as a stream, half of them without ``max_tokens``, the others
  with 512, 1,024 or 4,096; ours;
* prices: gpt-4o's standard tier, $2.50 and $10 a million tokens, and its 16,384 tokens of output.

One of a hundred callers leaves: its cost is unknown, and it is settled at its hold.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from litellm_ledger._budgets.bound import Bound
from litellm_ledger._budgets.meter import Meter
from litellm_ledger._budgets.usual import Usual

__all__ = ["Outcome", "main", "replay", "table"]

Mode = Literal["strict", "adaptive", "soft"]
MODES: Final[tuple[Mode, ...]] = ("strict", "adaptive", "soft")
HOUR: Final = 3_600.0
LIMIT: Final = 5 * 10**12
"""Picodollars an hour, for all callers."""
GIVEN_PRICE, MADE_PRICE = 2_500_000_000_000, 10_000_000_000_000
MOST: Final = 16_384
RATE: Final = 60.0
ON_ITS_WAY: Final = 0.2
"""Seconds of the provider's rate that it writes before it notices a cut."""


class Call(NamedTuple):
    """One call of the day."""

    at: float
    given: int
    made: int
    size: int
    limit: int | None
    stream: bool
    leaves: bool


@dataclass
class Outcome:
    """What became of the day under one mode."""

    served: int = 0
    refused: int = 0
    cut: int = 0
    billed: int = 0
    settled: int = 0
    overspent: int = 0
    possible: int = 0


def day(calls: int, seed: int, at_once: int) -> list[Call]:
    """The calls of a day, by their time."""
    rng = random.Random(seed)
    found: list[Call] = []
    at = 0.0
    while len(found) < calls:
        if len(found) % at_once == 0:
            at = rng.uniform(0, 24 * HOUR)
            while rng.random() > (1 - 0.6 * math.cos(2 * math.pi * at / (24 * HOUR))) / 1.6:
                at = rng.uniform(0, 24 * HOUR)
        given = max(1, round(rng.lognormvariate(math.log(1_020), 1)))
        limit = rng.choice((None, None, None, 512, 1_024, 4_096))
        made = max(1, round(rng.lognormvariate(math.log(129), 1)))
        made = min(made, limit or MOST)
        found.append(
            Call(
                at,
                given,
                made,
                round(4.5 * given) + 300,
                limit,
                rng.random() < 0.6,
                rng.random() < 0.01,
            )
        )
    found.sort()
    return found


class Balance:
    """One budget: hours of $5."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.settled: dict[int, int] = {}
        self.held: dict[int, int] = {}
        self.billed: dict[int, int] = {}

    def take(self, hour: int, amount: int) -> bool:
        """Hold an amount; ``False``: there is no room."""
        free = LIMIT - self.settled.get(hour, 0) - self.held.get(hour, 0)
        if amount > free and self.mode != "soft":
            return False
        self.held[hour] = self.held.get(hour, 0) + amount
        return True

    def settle(self, hour: int, held: int, counted: int, billed: int) -> None:
        """Give back what was held; count what was used."""
        self.held[hour] -= held
        self.settled[hour] = self.settled.get(hour, 0) + counted
        self.billed[hour] = self.billed.get(hour, 0) + billed


@dataclass(slots=True)
class Flight:
    """A call that is under way."""

    call: Call
    bound: Bound
    kind: tuple[str, str | None, int]
    hour: int
    given: int
    held: int
    meter: Meter
    began: float
    read: int = 0


def replay(mode: Mode, calls: list[Call]) -> Outcome:
    """Replay a day."""
    balance, usual, out = Balance(mode), Usual(), Outcome()
    events: list[tuple[float, int, Flight | Call]] = [
        (call.at, number, call) for number, call in enumerate(calls)
    ]
    heapq.heapify(events)
    number, risk = len(calls), dict[int, int]()
    while events:
        now, _, what = heapq.heappop(events)
        if isinstance(what, Call):
            flight = _begin(what, mode, balance, usual)
            if flight is None:
                out.refused += 1
                continue
            if mode == "adaptive" and not what.stream:
                most = flight.bound.costs(flight.bound.given, flight.bound.made) - flight.held
                risk[id(flight)] = most
                out.possible = max(out.possible, sum(risk.values()))
        else:
            flight = what
        number += 1
        again = _go_on(flight, now, mode, balance, usual, out)
        if again is None:
            risk.pop(id(flight), None)
        else:
            heapq.heappush(events, (again, number, flight))
    for hour, billed in balance.billed.items():
        out.billed += billed
        out.overspent += max(0, billed - LIMIT)
        out.settled += balance.settled[hour]
    return out


def _begin(call: Call, mode: Mode, balance: Balance, usual: Usual) -> Flight | None:
    made = call.limit or MOST
    bound = Bound(0, 0, 1, "", call.size, made, GIVEN_PRICE, MADE_PRICE)
    kind = usual.kind("acompletion", "gpt-4o", bound)
    given, held_made = (bound.given, bound.made) if mode == "strict" else usual.hold(kind, bound)
    held, hour = bound.costs(given, held_made), int(call.at // HOUR)
    if not balance.take(hour, held):
        return None
    meter = Meter(bound, given, held_made, limited=True)
    return Flight(call, bound, kind, hour, given, held, meter, call.at)


def _go_on(
    flight: Flight, now: float, mode: Mode, balance: Balance, usual: Usual, out: Outcome
) -> float | None:
    """Take a call on to a time; return when it is to be looked at again, ``None``: it has ended."""
    call, meter = flight.call, flight.meter
    if now < flight.began + call.made / RATE and not (mode == "adaptive" and call.stream):
        return flight.began + call.made / RATE
    if mode == "adaptive" and call.stream:
        seen = min(call.made, int((now - flight.began) * RATE + 0.5))
        meter.count(seen - flight.read, now)
        flight.read = seen
        if meter.is_short() and seen < call.made:
            for target in meter.targets():
                more, _ = meter.costs(target)
                if balance.take(flight.hour, more):
                    flight.held += more
                    meter.made = target
                    break
            else:
                written = min(call.made, seen + round(ON_ITS_WAY * RATE))
                billed = flight.bound.costs(call.given, written)
                balance.settle(flight.hour, flight.held, max(flight.held, billed), billed)
                out.cut += 1
                return None
        if seen < call.made:
            return now + max(1, min(15, call.made - seen)) / RATE
    billed = flight.bound.costs(call.given, call.made)
    counted = max(billed, flight.held) if call.leaves else billed
    balance.settle(flight.hour, flight.held, counted, billed)
    if not call.leaves:
        usual.seen(flight.kind, flight.bound, call.given, call.made)
    out.served += 1
    return None


def table(calls: int, seed: int, at_once: int) -> str:
    """The table of a day, as Markdown."""
    of_the_day = day(calls, seed, at_once)
    priced = Bound(0, 0, given_price=GIVEN_PRICE, made_price=MADE_PRICE)
    demand = sum(priced.costs(call.given, call.made) for call in of_the_day)
    how = "one by one" if at_once == 1 else f"{at_once} at once"
    heads = ("served", "refused", "cut", "billed", "settled", "may overspend", "overspent")
    lines = [
        (
            f"{calls:,} calls, {how}, which would cost {_usd(demand)}; "
            f"{_usd(LIMIT)} an hour ({_usd(24 * LIMIT)} a day):"
        ),
        "",
        f"| mode | {' | '.join(heads)} |",
        f"| --- |{' --- |' * len(heads)}",
    ]
    for mode in MODES:
        found = replay(mode, of_the_day)
        counts = [f"{count:,}" for count in (found.served, found.refused, found.cut)]
        amounts = [found.billed, found.settled, found.possible, found.overspent]
        money = [_usd(amount) for amount in amounts]
        if mode == "soft":
            money[2] = "no bound"
        lines.append(f"| `{mode}` | {' | '.join(counts + money)} |")
    return "\n".join(lines)


def _usd(picousd: int) -> str:
    return f"${picousd / 1e12:,.2f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    for at_once in (1, 200):
        print(table(asked.calls, asked.seed, at_once), end="\n\n")


if __name__ == "__main__":
    main()
