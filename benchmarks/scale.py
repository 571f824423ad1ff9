"""How shipping grows: slopes measured here, a model beside a trial, and simulated fleets.

``python -m benchmarks.scale [--quick] [--page docs/scale.md]`` takes some minutes on a machine that
does nothing else, prints its tables, and writes them into the page between its marks.  Prices are
the reader's: ``--core-hour``, ``--gib-month``, ``--object-gib-month``, ``--million-puts``.  So is
the WAL that a disk takes: ``--wal-rate``.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tests.postgres_server import Server, programs

from litellm_ledger import __version__

from ._scale_model import Costs, Fleet, Outcome, simulate
from ._scale_slopes import Slopes, measure, server
from ._scale_trial import Plan, Seen, trial
from ._size import Size
from ._table import Table, quantity

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
DAY = 86_400.0
MONTH = 30.4  # days
GIB = 2**30
BUSY_HOUR = 2.0  # its rate, over that of the day
OUTAGE = 3_600.0
KEPT = 90  # days of calls in the database
SEGMENT = 64 * 2**20  # bytes at which a segment is sealed
WAL_RATE = 0.2  # GB of WAL a second that the disk of a database takes: an assumption
SEEDS = 9
STARTS = 3  # of each process, that the database knows of
LOAD = 0.6  # the part of its cores that a server should use in the busy hour


@dataclass(frozen=True)
class Step:
    """A fleet of some size, and the database for it."""

    name: str
    processes: int
    calls: float  # a day
    cores: int
    every: float = 0.0
    databases: int = 1

    @property
    def fleet(self) -> Fleet:
        """One of its databases, in the busy hour."""
        processes = self.processes // self.databases
        rate = 2 * self.calls * BUSY_HOUR / DAY / self.processes
        return Fleet(processes, processes, rate, self.cores, crossings=5, every=self.every)


STEPS = (
    Step("10 processes, 1 M calls a day", 10, 1e6, 2),
    Step("100 processes, 10 M", 100, 1e7, 4),
    Step("1,000 processes, 100 M", 1_000, 1e8, 16),
    Step("1,000 processes, 100 M, once a minute", 1_000, 1e8, 8, every=60.0),
    Step("10,000 processes, 1,000 M", 10_000, 1e9, 64),
    Step("10,000 processes, 1,000 M, once a minute", 10_000, 1e9, 32, every=60.0),
    Step("the same, 8 databases by writer", 10_000, 1e9, 8, every=60.0, databases=8),
)


@dataclass(frozen=True)
class Prices:
    """US dollars: assumptions, and nobody's list prices."""

    core_hour: float = 0.05
    gib_month: float = 0.10
    object_gib_month: float = 0.023
    million_puts: float = 5.0


def costs_of(slopes: Slopes, writers: int = 1) -> Costs:
    """Return what the model takes, of what was measured.

    Args:
        writers: that the database knows, those of processes that have ended included.
    """
    look = slopes.look.fixed + slopes.look.slope * writers
    client, works = slopes.batch["client"], slopes.batch["server"]
    return Costs(
        client=(max(client.fixed, 0.0), client.slope),
        server=(max(works.fixed, 0.0), works.slope),
        sums=(max(look, 0.0), max(slopes.call["sums"].slope, 0.0) / 2),
        look=max(look, slopes.refused),
        refused=slopes.refused,
    )


# -- tables ----------------------------------------------------------------------------------------


def _slopes(slopes: Slopes) -> list[Table]:
    call = Table(
        "For each call",
        ["", "for each call", "fixed", "off"],
        "Measured. A call is two lines: `started` and its outcome, with tags, ids and durations. "
        "*fixed* is what "
        "the fit has at size 0, *off* the largest distance of a measurement from the line. A "
        "*fixed* below 0 is no gain: the line was fitted to large sizes, and what it has at 0 is "
        "within the noise of those.",
    )
    for name, key, unit in (
        ("processor of the process that records", "recorded", "µs"),
        ("bytes in the ledger", "ledger", "B"),
        ("processor of the shipper, batches of 5,000 lines", "client", "µs"),
        ("processor of the server, batches of 5,000 lines", "server", "µs"),
        ("WAL", "wal", "B"),
        ("bytes in the database, indexes included", "stored", "B"),
        ("processor of the server, sums by quarter of an hour", "sums", "µs"),
        ("WAL of the sums", "sums wal", "B"),
        ("bytes of the sums", "sums stored", "B"),
        ("processor of the server, one `VACUUM ANALYZE`", "vacuum", "µs"),
        ("WAL of that", "vacuum wal", "B"),
        ("bytes in object storage, segments and manifests", "objects", "B"),
        ("processor to send them", "sent", "µs"),
        ("bytes in the archive (Parquet)", "archive", "B"),
        ("processor of `compact`", "compacted", "µs"),
    ):
        fit = slopes.call[key]
        times, fixed = (
            (1e6, f"{fit.fixed * 1e3:,.0f} ms")
            if unit == "µs"
            else (
                1.0,
                f"{fit.fixed / 1024:,.0f} KiB",
            )
        )
        call.add(
            name, f"{quantity(max(fit.slope, 0.0) * times)} {unit}", fixed, f"{100 * fit.off:.0f} %"
        )
    batch = Table(
        "For each batch, by its lines",
        ["", "a batch", "each line in it", "off"],
        "Measured with batches of 4 to 5,000 lines of one writer. A transaction has one writer's "
        "lines.",
    )
    for name, key in (
        ("processor of the shipper", "client"),
        ("processor of the server", "server"),
    ):
        fit = slopes.batch[key]
        cells = f"{fit.fixed * 1e3:.2f} ms", f"{fit.slope * 1e6:.1f} µs", f"{100 * fit.off:.0f} %"
        batch.add(name, *cells)
    fit = slopes.batch["wal"]
    batch.add("WAL", f"{fit.fixed:,.0f} B", f"{fit.slope:,.0f} B", f"{100 * fit.off:.0f} %")
    groups = Table(
        "Sums, by how many groups there are",
        ["values of a tag", "days of the calls", "rows of sums", "µs of the server for each call"],
        "Measured with 20,000 calls. Calls that share a quarter of an hour and a group share a "
        "row: few calls over many days are the expensive case.",
    )
    for values, days, rows, taken in slopes.groups:
        groups.add(f"{values:,}", f"{days:g}", f"{rows:,}", quantity(taken))
    looks = Table(
        "Looks at the sums",
        ["", "of the server"],
        "Measured. Every shipper looks every 5 s; the query goes through all writers that the "
        "database knows, those of processes that have ended included. The first figure is that of "
        "a fit at no writers: below 0 it is noise.",
    )
    looks.add("a look, nothing to do", f"{slopes.look.fixed * 1e3:.2f} ms")
    looks.add("   more for 1,000 writers", f"{slopes.look.slope * 1e6:.2f} ms")
    looks.add("a look while another one leads", f"{slopes.refused * 1e3:.2f} ms")
    held = Table(
        "Connections and partitions",
        ["", "measured"],
        "An idle connection of a shipper, and planning time by months. An empty month takes "
        f"{slopes.partition / 1024:.0f} KiB.",
    )
    for name, fit in slopes.connection.items():
        held.add(f"memory for an idle connection, {name}", f"{max(fit.slope, 0) / 1024:,.0f} KiB")
    for months, day, everything in slopes.partitions:
        held.add(
            f"planning, {months} months: one day / all time", f"{day:.2f} / {everything:.2f} ms"
        )
    return [call, batch, groups, looks, held]


def _check(pairs: Sequence[tuple[Plan, Seen, Sequence[tuple[Outcome, Outcome]]]]) -> Table:
    table = Table(
        "The model and a trial, side by side",
        ["", "measured", "the model: median (range)", ""],
        "Each writer is a process, each shipper another one, and the database is on the same "
        "cores. The proxy between them is cut. The model takes its costs from the tables above, "
        "and its structure was revised after trials like these: they are no independent test of "
        f"it. Its {SEEDS} runs differ by chance, most by the pauses.",
    )
    for plan, seen, runs in pairs:
        name = f"{plan.writers} × {seen.rate:,.0f} lines/s, cut for {plan.cut[1]:.0f} s"
        usual = [sum(n for _, n in one.backlog) / max(len(one.backlog), 1) for one, _ in runs]
        most = [after.waiting for _, after in runs]
        gone = [after.caught_up or -1.0 for _, after in runs]
        for what, value, values, form in (
            (f"{name}: usual backlog, lines", seen.usual, usual, ",.0f"),
            ("backlog when the network is back", seen.most, most, ",.0f"),
            ("seconds until it is gone", seen.caught_up, gone, ".1f"),
        ):
            told = _range(values, form), _outside(value, values)
            table.add(what, f"{value:{form}}", *told)
    return table


def _outside(value: float, values: Sequence[float]) -> str:
    """Tell a measured value that no run of the model comes to."""
    if value > max(values):
        return "**the model is too low**"
    return "**the model is too high**" if value < min(values) else "within the range"


def _range(values: Sequence[float], form: str) -> str:
    middle = statistics.median(values)
    return f"{middle:{form}} ({min(values):{form}}–{max(values):{form}})"


def gone(after: Outcome, backlog: float, rate: float) -> float | None:
    """Return the seconds in which a backlog goes, by the model or by the disk; None: it does not.

    Args:
        after: what the model says.
        backlog: bytes of WAL for its lines.
        rate: bytes of WAL a second that the disk takes.
    """
    return None if after.caught_up is None else max(after.caught_up, backlog / rate)


def _fleets(
    slopes: Slopes, found: Sequence[tuple[Step, Outcome, Outcome]], wal_rate: float
) -> Table:
    table = Table(
        "Simulated fleets",
        [
            "",
            "cores",
            "batches/s",
            "lines in one",
            "cores used",
            "lag p50 / p99, s",
            "after an hour's cut: backlog",
            "its WAL",
            "gone after",
        ],
        f"Simulated, in an hour of {BUSY_HOUR:.0f} times the daily mean. *Cores* is an input: "
        "those of each database, as fast as those here; where "
        "*cores used* is near them, the database is too small. A lag is that of the oldest line "
        "of a batch; with `sink=`, lines "
        "are synced once a second. *Gone after* is the longer of two: what the model says, which "
        f"knows no disk, and *its WAL* (of the lines and their sums; `VACUUM` comes later) at "
        f"{wal_rate:g} GB/s, an assumption (`--wal-rate`) for the disk of each database.",
    )
    for step, usual, after in found:
        wal = after.waiting / 2 * (slopes.call["wal"].slope + slopes.call["sums wal"].slope)
        seconds = gone(after, wal, wal_rate * 1e9)
        table.add(
            step.name,
            f"{step.cores}",
            f"{usual.batches / usual.seconds:,.0f}",
            quantity(usual.lines / max(usual.batches, 1)),
            f"{usual.busy / usual.seconds:.1f}",
            f"{usual.lag(0.5):.1f} / {usual.lag(0.99):.1f}",
            f"{after.waiting / 1e6:,.2f} M lines",
            f"{quantity(wal / 1e9)} GB",
            "not in 6 hours" if seconds is None else _duration(seconds),
        )
    return table


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def puts_of(step: Step, size: float) -> float:
    """Return the PUT of a day: a full segment, and one at the end of the day, has two each.

    Args:
        size: bytes of a call in the ledger.
    """
    return 2 * (step.calls * size / SEGMENT + step.processes)


def _money(
    slopes: Slopes, found: Sequence[tuple[Step, Outcome, Outcome]], prices: Prices
) -> list[Table]:
    call = slopes.call
    database = Table(
        "A month in a database",
        ["", "cores", "GiB kept", "WAL, GiB a day", "cores, $", "storage, $", "$ a million calls"],
        f"Computed from the slopes and the simulation: cores for {100 * LOAD:.0f} % of load in "
        f"the busy hour, {KEPT} days of calls, no standby "
        "and no backup: multiply. The prices are assumptions and no offer of anybody: "
        f"${prices.core_hour} a core and hour with its memory, ${prices.gib_month} a GiB and "
        "month of block storage.",
    )
    objects = Table(
        "A month in object storage",
        [
            "",
            "GiB a month",
            "PUT a day",
            "PUT, $",
            "storage, once a year is kept, $",
            "as Parquet, $",
        ],
        "Computed from the slopes: two PUT a segment, which is sealed at 64 MiB, and what is left "
        "of it at the end of the UTC day, for each process. All $ are a month's; those of storage "
        "from when twelve months are kept. "
        f"Assumed: ${prices.object_gib_month} a GiB and month, ${prices.million_puts} a million "
        "PUT. Reading costs GET and traffic, and processor "
        "time where you read.",
    )
    seen: set[float] = set()
    for step, usual, _ in found:
        cores = usual.busy / usual.seconds / LOAD * step.databases
        kept = step.calls * KEPT * call["stored"].slope / GIB
        wal = call["wal"].slope + call["sums wal"].slope + call["vacuum wal"].slope
        # Small batches write more: their fixed part, for each of them.
        fixed = usual.batches / usual.seconds * step.databases / BUSY_HOUR * DAY
        logged = (step.calls * wal + fixed * slopes.batch["wal"].fixed) / GIB
        pay, keep = cores * 24 * MONTH * prices.core_hour, kept * prices.gib_month
        each = (pay + keep) / (step.calls * MONTH / 1e6)
        database.add(
            step.name,
            f"{cores:.1f}",
            f"{kept:,.0f}",
            f"{logged:,.1f}",
            f"{pay:,.0f}",
            f"{keep:,.0f}",
            f"{each:.3f}",
        )
        if step.calls in seen:
            continue
        seen.add(step.calls)
        month = step.calls * MONTH * call["objects"].slope
        year = 12 * step.calls * MONTH * call["archive"].slope / GIB
        puts = puts_of(step, call["ledger"].slope)
        objects.add(
            f"{step.processes:,} processes, {step.calls / 1e6:,.0f} M calls a day",
            f"{month / GIB:,.1f}",
            f"{puts:,.0f}",
            f"{puts * MONTH / 1e6 * prices.million_puts:,.2f}",
            f"{12 * month / GIB * prices.object_gib_month:,.2f}",
            f"{year * prices.object_gib_month:,.2f}",
        )
    return [database, objects]


# -- all of it -------------------------------------------------------------------------------------


def _trials(
    one: Server, slopes: Slopes, size: Size
) -> list[tuple[Plan, Seen, list[tuple[Outcome, Outcome]]]]:
    costs, found = costs_of(slopes), []
    plans = size(
        (Plan(2, 400.0, (16.0, 15.0)), Plan(4, 1_000.0, (16.0, 20.0))),
        (Plan(2, 100.0, (3.0, 2.0), steady=2.0),),
    )
    for plan in plans:
        seen = trial(one, plan)
        settle = plan.cut[0] - plan.steady + 1.5
        cut = settle + plan.steady
        busy = plan.writers * seen.rate * slopes.call["recorded"].slope / 2 / 2
        fleet = Fleet(
            plan.writers,
            plan.writers,
            seen.rate,
            cores=len(os.sched_getaffinity(0)),
            network=seen.crossing,
            crossings=5,
            look=0.25,
            cut=(cut, cut + plan.cut[1]),
            shared=True,
            busy=min(max(busy, 0.0), 0.9),
        )
        lengths = {"settle": settle, "steady": plan.steady, "watch": 0.25}
        runs = [simulate(fleet, costs, **lengths, seed=seed) for seed in range(1, SEEDS + 1)]
        found.append((plan, seen, runs))
    return found


def _simulated(slopes: Slopes, steps: Sequence[Step]) -> list[tuple[Step, Outcome, Outcome]]:
    found = []
    for step in steps:
        settle = max(10.0, 2 * step.every)
        steady = max(20.0, 2 * step.every)
        end = settle + steady
        fleet = replace(step.fleet, cut=(end, end + OUTAGE))
        began = time.monotonic()
        costs = costs_of(slopes, STARTS * fleet.writers)
        usual, after = simulate(fleet, costs, settle=settle, steady=steady)
        found.append((step, usual, after))
        _say(f"simulated: {step.name}: {time.monotonic() - began:.0f} s")
    return found


def run(size: Size, prices: Prices, wal_rate: float = WAL_RATE) -> list[Table]:
    """Measure, check and simulate; return the tables."""
    with server() as one:
        slopes = measure(one, size, _say)
        checked = _trials(one, slopes, size)
    found = _simulated(slopes, size(STEPS, STEPS[:2]))
    fleets = _fleets(slopes, found, wal_rate)
    return [*_slopes(slopes), _check(checked), fleets, *_money(slopes, found, prices)]


def write(page: Path, tables: Sequence[Table], took: float) -> None:
    """Put tables between the marks of a page."""
    text = page.read_text("utf-8")
    cores = len(os.sched_getaffinity(0))
    said = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with litellm-ledger {__version__}, on {cores} "
        f"shared cores of a virtual machine, {platform.system()}, Python "
        f"{platform.python_version()}, {_postgres()}, in {took / 60:.0f} minutes, at a "
        f"load of {os.getloadavg()[0]:.0f}: of it, {max(os.getloadavg()[0] - cores, 0):.0f} was "
        "other work. Run `python -m benchmarks.scale` for your own."
    )
    body = "\n".join([BEGIN, "", said, "", *(table.markdown() for table in tables), END])
    new, count = re.subn(f"{BEGIN}.*{END}", lambda _: body, text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{page}: {BEGIN} and {END} are not there once")
    page.write_text(new, "utf-8")


def _postgres() -> str:
    """Return the server's name and version, as it says them itself."""
    command = [programs() / "postgres", "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return said.replace("postgres (PostgreSQL)", "PostgreSQL").strip()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and write them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny counts: does it still run?")
    parser.add_argument("--page", type=Path, help=f"default: {PAGE.name}, unless --quick")
    for name, value in vars(Prices()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value)
    parser.add_argument(
        "--wal-rate",
        type=float,
        default=WAL_RATE,
        metavar="GB",
        help="GB of WAL a second that the disk of a database takes (default: %(default)s)",
    )
    given = parser.parse_args(arguments)
    prices = Prices(**{name: getattr(given, name) for name in vars(Prices())})
    began = time.monotonic()
    tables = run(Size(quick=given.quick), prices, given.wal_rate)
    for table in tables:
        print(table.text())
    page = given.page or (None if given.quick else PAGE)
    if page is not None:
        write(page, tables, time.monotonic() - began)
        print(f"\nwritten: {page.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
