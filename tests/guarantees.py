"""The promise, in one place: what each durability level loses under each fault.

``docs/GUARANTEES.md`` shows this table and ``tests/crash/test_guarantees.py`` tries every cell of
it, in each of the ways that are named here.  ``python -m tests.guarantees`` writes the table into
the page.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from litellm_ledger._storage.live_file import Durability

Level = Durability
LEVELS: Final[tuple[Level, ...]] = tuple(one for one in get_args(Level) if one != "shipped")
"""``shipped`` needs a database, and loses nothing here that ``synced`` keeps: tests/postgres."""

NOTHING: Final = "nothing"
IN_TIME: Final = "nothing, if the disk answers within two seconds"
QUEUED: Final = "queued records; the count is known"
QUEUED_AND_UNSYNCED: Final = "queued records, and records not synced"
UNSYNCED: Final = "records not synced: usually the last second"
DEVICE: Final = "nothing, if the device honours flushes"


@dataclass(frozen=True)
class Way:
    """One program in which a fault strikes.

    Attributes:
        code: what the child does after ``PROGRAM``.
        status: how it ends.
    """

    code: str
    status: int = 0


@dataclass(frozen=True)
class Fault:
    """One row: the fault, what each level loses, the ways in which it is tried."""

    name: str
    ways: dict[str, Way]
    queued: str = NOTHING
    written: str = NOTHING
    synced: str = NOTHING

    def loses(self, level: Level) -> str:
        loss: str = getattr(self, level)
        return loss


COUNT: Final = 200

PROGRAM: Final = f"""
from litellm_ledger.testing import FaultyFileSystem
disk = FaultyFileSystem()
def tracker(**options):
    return UsageTracker(PATH, durability=LEVEL, queue_size=10_000, fs=disk, **options)
async def fill(tracker, first=0, count={COUNT}):
    for number in range(first, first + count):
        await tracker.record(usage(number))
        say("ack", number)
async def opened(**options):
    open = tracker(**options)
    await open.open()
    await fill(open)
    return open
def signal_me(number):
    os.kill(os.getpid(), number)
"""


def _inside(*then: str, status: int = 0, options: str = "") -> Way:
    """Record, then do this, all of it inside ``async with``."""
    lines = "".join(f"        {line}\n" for line in then)
    code = f"async with tracker({options}) as open:\n        await fill(open)\n{lines}"
    return Way(f"\nasync def main():\n    {code}run(main())\n", status)


def _opened(*then: str, status: int = 0) -> Way:
    """Open, record, then do this; whatever is left open stays referred to."""
    lines = "".join(f"    {line}\n" for line in then)
    code = f"global kept\n    kept = await opened()\n{lines}"
    return Way(f"\nasync def main():\n    {code}run(main())\n", status)


_CLOSED: Final = {"async with": _inside(), "aclose": _opened("await kept.aclose()")}

_LEFT: Final = {
    "an exception": _opened("1 / 0", status=1),
    "sys.exit": _opened("sys.exit(3)", status=3),
    "the loop ends": _opened(),
    "a loop that is never closed": Way("""
loop = new_loop()
kept = loop.run_until_complete(opened())
"""),
    "a loop in a daemon thread": Way("""
done = threading.Event()
async def main():
    global kept
    kept = await opened()
    done.set()
    await asyncio.Event().wait()
threading.Thread(target=lambda: run(main()), daemon=True).start()
done.wait()
"""),
}

_WAIT: Final = "await asyncio.Event().wait()"


def _signalled(number: int) -> Way:
    return _inside(f"signal_me({number:d})", _WAIT, status=-number)


def _chained(number: int) -> Way:
    return Way(f"""
async def main():
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signal.signal({number:d}, lambda *_: loop.call_soon_threadsafe(stop.set))
    async with tracker() as open:
        await fill(open)
        signal_me({number:d})
        await stop.wait()
run(main())
""")


_TERM: Final = "signal_me(signal.SIGTERM)"
_TWICE: Final = {
    "SIGTERM twice": _inside(_TERM, _TERM, _WAIT, status=-signal.SIGTERM),
    "a drain that is overdue": _inside(
        "from litellm_ledger._runtime import signals",
        "signals._GRACE = 0.2  # nothing is done in it: less to wait for",
        _TERM,
        "while True: time.sleep(0.1)",
        options="drain_timeout=0.1",
        status=128 + signal.SIGTERM,
    ),
}


_REFUSED: Final = """
async def main():
    async with tracker(sync_interval=0.02) as open:
        await fill(open, count=20)
        {fault}
        filling = asyncio.create_task(fill(open, first=20))
        while open.statistics().retries < 3:
            await asyncio.sleep(0.005)
        disk.heal()
        await filling
        if LEVEL != "queued":
            signal_me(signal.SIGKILL)
run(main())
"""


def _refusing(fault: str) -> Way:
    return Way(_REFUSED.format(fault=fault), status=-signal.SIGKILL)


FAULTS: Final = (
    Fault("leaving `async with`, `aclose()`", _CLOSED),
    Fault("exception, `sys.exit`, the loop ends around an open client, exit without close", _LEFT),
    Fault(
        "first SIGTERM or SIGINT in a program of your own",
        {"SIGTERM": _signalled(signal.SIGTERM), "SIGINT": _signalled(signal.SIGINT)},
    ),
    Fault(
        "SIGTERM or SIGINT in a server that shuts down cleanly",
        {"SIGTERM": _chained(signal.SIGTERM), "SIGINT": _chained(signal.SIGINT)},
    ),
    Fault("second signal, or a drain that is overdue", _TWICE, IN_TIME),
    Fault(
        "SIGKILL, OOM kill, `os._exit`, a crash of the interpreter, SIGHUP by default",
        {
            "SIGKILL": _inside("signal_me(signal.SIGKILL)", status=-signal.SIGKILL),
            "os._exit": _inside("os._exit(9)", status=9),
            "abort": _inside("os.abort()", status=-signal.SIGABRT),
            "SIGHUP": _inside("signal_me(signal.SIGHUP)", status=-signal.SIGHUP),
        },
        QUEUED,
    ),
    Fault(
        "the disk refuses for a while (full, write errors, sync errors), then works again",
        {
            "full": _refusing("disk.fill(free=100)"),
            "every write fails": _refusing('disk.fail("write", times=None)'),
            "every sync fails": _refusing('disk.fail("sync", times=None)'),
        },
    ),
    Fault("power cut, crash of the machine", {}, QUEUED_AND_UNSYNCED, UNSYNCED, DEVICE),
)
"""The last row has no ways: it is tried on a model of a disk (``tests/power.py``)."""


_KILLS: Final = "tests/crash/test_kills.py"
_POWER: Final = "tests/crash/test_power.py"
_PRUNE: Final = "tests/crash/test_prune_kills.py"
_STEPS: Final = "tests/crash/test_recovery_kills.py"
_BYTES: Final = "tests/property/test_segment_bytes.py"
_SEGMENT: Final = "tests/unit/test_segment.py"

SABOTAGE: Final = (
    (
        "acknowledging before the write",
        f"{_KILLS}::test_control_a_ledger_that_acknowledges_before_it_writes_is_caught",
        f"{_POWER}::test_an_ack_before_the_write_is_caught",
        f"{_SEGMENT}::test_a_saboteur_of_the_segment_is_caught",
    ),
    (
        "no `fdatasync`",
        f"{_POWER}::test_a_saboteur_of_the_syncs_is_caught",
        f"{_SEGMENT}::test_a_saboteur_of_the_segment_is_caught",
    ),
    (
        "no sync of the directory",
        f"{_POWER}::test_a_saboteur_of_the_syncs_is_caught",
        f"{_POWER}::test_a_rescue_that_does_not_sync_its_name_is_caught",
        f"{_SEGMENT}::test_a_saboteur_of_the_segment_is_caught",
    ),
    (
        "a failed sync tried again on the same file",
        f"{_POWER}::test_a_saboteur_of_the_syncs_is_caught",
        f"{_BYTES}::test_a_saboteur_of_the_log_is_caught",
    ),
    (
        "a short write not cut back; lines written twice",
        f"{_BYTES}::test_a_saboteur_of_the_log_is_caught",
    ),
    (
        (
            "the checksum not checked; reading stopped at the first damage; a damaged line feed "
            "that takes the next line along"
        ),
        f"{_BYTES}::test_a_saboteur_of_the_scan_is_caught",
    ),
    (
        (
            "truncating instead of quarantining; cutting before keeping; moving before salvaging; "
            "the live file removed first"
        ),
        f"{_STEPS}::test_a_saboteur_of_the_order_of_steps_is_caught",
    ),
    (
        "a segment of recovery written in place",
        f"{_STEPS}::test_a_saboteur_that_writes_sealed_segments_in_place_is_caught",
    ),
    (
        "a recovery that does not sync what it salvages",
        f"{_POWER}::test_a_recovery_that_does_not_sync_what_it_salvages_is_caught",
    ),
    (
        "a compaction that removes segments before the file has its name",
        (
            "tests/crash/test_compaction_kills.py::"
            "test_a_saboteur_that_removes_segments_before_the_file_has_its_name_is_caught"
        ),
    ),
    (
        (
            "pruning that removes files before the audit is there, before gaps stand for the "
            "numbers, or before the audit is synced"
        ),
        f"{_PRUNE}::test_a_saboteur_that_removes_before_it_writes_the_audit_is_caught",
        f"{_PRUNE}::test_a_saboteur_that_removes_before_gaps_stand_for_the_numbers_is_caught",
        f"{_PRUNE}::test_an_audit_that_is_not_synced_before_files_go_is_caught",
    ),
    (
        "a compaction that syncs nothing",
        f"{_POWER}::test_a_compaction_that_syncs_nothing_is_caught",
    ),
    (
        "readers that do not look again when records went meanwhile",
        (
            "tests/integration/test_reading_while_records_go.py::"
            "test_a_reader_that_does_not_look_again_is_caught"
        ),
    ),
    (
        "an erasure whose audit comes after the files",
        (
            "tests/crash/test_erase_kills.py::"
            "test_a_saboteur_whose_audit_comes_after_the_files_is_caught"
        ),
    ),
    (
        "an erasure that leaves manifests as they were",
        (
            "tests/crash/test_erase_kills.py::"
            "test_a_saboteur_who_leaves_manifests_as_they_were_is_caught"
        ),
    ),
    (
        "an erasure that does not sync what it writes",
        (
            "tests/crash/test_erase_kills.py::"
            "test_files_that_are_not_synced_before_the_audit_are_caught"
        ),
    ),
    (
        "the name of a directory that was created, left to the machine",
        f"{_POWER}::test_an_opening_that_leaves_out_a_parent_is_caught",
        f"{_POWER}::test_a_compaction_that_does_not_sync_the_name_of_the_archive_is_caught",
    ),
    (
        "the naive last resort: the queue without the batch in hand, or beside a write in progress",
        "tests/crash/test_exits.py::test_control_the_naive_last_resort_is_caught",
    ),
    (
        "a promise that is none (acks at `queued`, then SIGKILL)",
        (
            "tests/acceptance/test_must_show.py::"
            "test_the_count_of_lost_acks_finds_them_where_an_ack_promises_nothing"
        ),
    ),
)
"""What was broken on purpose, and the tests that saw it."""

PAGE: Final = Path(__file__).parents[1] / "docs" / "GUARANTEES.md"
_HEAD: Final = "| fault | `queued` | `written` (default) | `synced` |\n| --- | --- | --- | --- |\n"


def table() -> str:
    """The table as it stands in the page."""
    rows = (f"| {f.name} | {f.queued} | {f.written} | {f.synced} |\n" for f in FAULTS)
    return _HEAD + "".join(rows)


_CAUGHT: Final = "| broken on purpose | caught by |\n| --- | --- |\n"


def sabotage() -> str:
    """The table of saboteurs as it stands in the page."""
    rows = (f"| {what} | {', '.join(f'`{t}`' for t in tests)} |\n" for what, *tests in SABOTAGE)
    return _CAUGHT + "".join(rows)


def with_tables(page: str) -> str:
    """The page with the tables of today in it."""
    for head, today in ((_HEAD, table()), (_CAUGHT, sabotage())):
        start = page.index(head)
        page = page[:start] + today + page[page.index("\n\n", start) + 1 :]
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
