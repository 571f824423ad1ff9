"""SIGTERM and SIGINT against real processes: all is saved, and the process dies of its signal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from tests.children import Child, run
from tests.runs import assert_once, assert_whole, keys, kinds

from litellm_ledger import Ledger

TERM, INT = signal.SIGTERM, signal.SIGINT
LOOPS = ["asyncio", "uvloop"]
COUNT = 3_000

both_loops = pytest.mark.parametrize("loop", LOOPS)
both_signals = pytest.mark.parametrize("number", [TERM, INT])

FILL = f"""
def fill(tracker, count={COUNT}):
    for number in range(count):
        tracker.record_nowait(usage(number))
"""

WITH = """
async def main():
    async with UsageTracker(PATH, queue_size=100_000) as tracker:
        fill(tracker)
        say("ready", tracker.statistics().signals)
        await asyncio.Event().wait()
"""


PROGRAMS = {
    "asyncio.run": WITH + "run(main())",
    "a bare loop": WITH + "new_loop().run_until_complete(main())",
    "run_forever and nobody closes": """
tracker = UsageTracker(PATH, queue_size=100_000)
async def main():
    await tracker.open()
    fill(tracker)
    say("ready", tracker.statistics().signals)
loop = new_loop()
loop.create_task(main())
loop.run_forever()
""",
    "opened in a subtask": WITH
    + """
async def outer():
    task = asyncio.create_task(main())
    await asyncio.Event().wait()
run(outer())
""",
}


def check(
    path: Path,
    code: str,
    *steps: str | int,
    ends: tuple[int, ...],
    loop: str = "asyncio",
    count: int | None = COUNT,
) -> None:
    """Run a program to its end: all its records are saved once, and the ledger is closed.

    Args:
        steps: a line that it says is waited for; a number is a signal that it gets.
        ends: statuses with which it may end.
    """
    with Child(FILL + code, path, loop=loop) as child:
        for step in steps:
            if isinstance(step, str):
                child.expect(step)
            else:
                child.send(step)
        assert child.end() in ends
    assert_whole(path, None if count is None else range(count))


@both_loops
@both_signals
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_signal_drains_closes_and_gives_its_own_status(
    tmp_path: Path, program: str, loop: str, number: int
) -> None:
    check(tmp_path, PROGRAMS[program], "ready on", number, ends=(-number,), loop=loop)
    assert all(writer.clean for writer in Ledger(tmp_path).verify().writers)


@both_signals
def test_two_clients_are_both_closed(tmp_path: Path, number: int) -> None:
    code = """
async def main():
    async with UsageTracker(PATH) as one, UsageTracker(PATH) as two:
        fill(one, 500)
        fill(two, 700)
        say("ready")
        await asyncio.Event().wait()
run(main())
"""
    check(tmp_path, code, "ready", number, ends=(-number,), count=None)
    assert len(keys(tmp_path)) == 1_200


@both_loops
def test_calls_in_flight_end_and_their_outcomes_are_recorded(tmp_path: Path, loop: str) -> None:
    code = """
fake_litellm()
async def main():
    async with LiteLLMClient(PATH) as client:
        calls = [asyncio.create_task(client.acompletion(model="m", messages=[]))
                 for _ in range(7)]
        await asyncio.wait(calls)
run(main())
"""
    check(tmp_path, code, *["called"] * 7, TERM, ends=(-TERM,), loop=loop, count=None)
    assert sorted(kinds(tmp_path)) == ["cancelled"] * 7 + ["started"] * 7


def test_a_signal_during_the_close_waits_for_it(tmp_path: Path) -> None:
    code = """
class Disk(FileSystem):
    def sync(self, fd):
        say("syncing")
        time.sleep(0.5)
        super().sync(fd)
async def main():
    async with UsageTracker(PATH, fs=Disk(), sync_interval=1000) as tracker:
        fill(tracker, 100)
run(main())
"""
    check(tmp_path, code, "syncing", TERM, ends=(-TERM,), count=100)


# -- processes that do not do as they are told -----------------------------------------------------

DEAF = """
async def main():
    async with UsageTracker(PATH, queue_size=100_000, drain_timeout=0.2) as tracker:
        fill(tracker)
        say("ready")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                say("no")
run(main())
"""


@both_loops
def test_a_main_that_ignores_cancellation_is_ended_all_the_same(tmp_path: Path, loop: str) -> None:
    check(tmp_path, DEAF, "ready", TERM, "no", ends=(-TERM, 128 + TERM), loop=loop)


@both_loops
def test_a_second_signal_ends_it_at_once_and_saves(tmp_path: Path, loop: str) -> None:
    code = DEAF.replace("drain_timeout=0.2", "drain_timeout=60")
    check(tmp_path, code, "ready", TERM, "no", TERM, ends=(-TERM,), loop=loop)


@both_loops
def test_a_second_signal_in_the_middle_of_a_write_waits_for_it(tmp_path: Path, loop: str) -> None:
    """What has the lock of the segment is the interrupted thread itself, and not a disk that hangs.

    On a busy machine most signals strike there: behind a system call.
    """
    code = """
class Disk(FileSystem):
    def write(self, fd, data):
        written = super().write(fd, data)
        if threading.current_thread() is threading.main_thread() and len(data) > 10_000:
            say("writing")
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return written
async def main():
    async with UsageTracker(PATH, queue_size=100_000, fs=Disk()) as tracker:
        await tracker.record(usage(0))  # makes the file: a thread's work
        for number in range(1, 3_000):
            tracker.record_nowait(usage(number))
        await asyncio.Event().wait()
run(main())
"""
    check(tmp_path, code, "writing", ends=(-TERM,), loop=loop)


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_while_a_thread_is_being_started_is_no_deadlock(
    tmp_path: Path, times: int
) -> None:
    code = f"""
async def main():
    async with UsageTracker(PATH, queue_size=100_000) as tracker:
        fill(tracker)
        with threading._active_limbo_lock:  # as inside Thread.start, in the main thread
            for _ in range({times}):
                os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
run(main())
"""
    check(tmp_path, code, ends=(-TERM,))


def test_sigint_twice_saves_too(tmp_path: Path) -> None:
    code = """
async def main():
    async with UsageTracker(PATH, queue_size=100_000) as tracker:
        fill(tracker)
        say("ready")
        try:
            await asyncio.Event().wait()
        finally:
            say("cleaning")
            await asyncio.Event().wait()
run(main())
"""
    check(tmp_path, code, "ready", INT, "cleaning", INT, ends=(-INT,))


def test_a_signal_between_two_runs_of_a_loop_saves_and_ends(tmp_path: Path) -> None:
    code = """
tracker = UsageTracker(PATH, queue_size=100_000)
async def main():
    await tracker.open()
    fill(tracker)
loop = new_loop()
loop.run_until_complete(main())
say("ready")
while True:
    time.sleep(0.1)
"""
    check(tmp_path, code, "ready", TERM, ends=(-TERM,))


def test_a_signal_in_the_middle_of_the_last_resort_waits_for_it(tmp_path: Path) -> None:
    code = """
class Slow(FileSystem):
    def write(self, fd, data):
        if threading.current_thread() is threading.main_thread():
            say("saving")
            time.sleep(0.5)
        return super().write(fd, data)
tracker = UsageTracker(PATH, queue_size=100_000, fs=Slow())
async def main():
    await tracker.open()
    fill(tracker, 20_000)
new_loop().run_until_complete(main())  # and the exit saves
"""
    check(tmp_path, code, "saving", TERM, ends=(-TERM,), count=20_000)


@both_loops
@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("""
loop.create_task(main())
try:
    loop.run_forever()
except KeyboardInterrupt:
    say("caught")
""", 0),
        ("""
try:
    loop.run_until_complete(main())
except asyncio.CancelledError:
    say("caught")
""", -INT),
    ],
    ids=["forever", "until_complete"],
)  # fmt: skip
def test_who_catches_the_interrupt_and_lives_on_is_not_shot_later(
    tmp_path: Path, loop: str, end: str, status: int
) -> None:
    code = """
from litellm_ledger._runtime import signals
signals._GRACE = 0.5  # it would be shot after that
tracker = UsageTracker(PATH, queue_size=100_000, drain_timeout=0.05)
async def main():
    await tracker.open()
    fill(tracker)
    say("ready")
    await asyncio.Event().wait()
loop = new_loop()
END
time.sleep(1.5)
say("alive")
""".replace("END", end)
    check(tmp_path, code, "ready", INT, "caught", "alive", ends=(status,), loop=loop)


# -- whose the signal is ---------------------------------------------------------------------------


@both_signals
def test_a_servers_handler_is_chained_and_the_server_ends_the_process(
    tmp_path: Path, number: int
) -> None:
    code = """
stop = []
def handle(number, frame):
    say("server", number)
    stop.append(number)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, handle)
async def main():
    async with UsageTracker(PATH, sync_interval=1000) as tracker:
        fill(tracker, 100)
        await tracker.flush()
        say("ready", tracker.statistics().signals)
        while not stop:
            await asyncio.sleep(0.01)
        while tracker.statistics().synced < 100:  # the hint
            await asyncio.sleep(0.01)
        say("synced")
    assert signal.getsignal(signal.SIGTERM) is handle
    assert signal.getsignal(signal.SIGINT) is handle
loop = new_loop()
loop.run_until_complete(main())
loop.close()
sys.exit(7)
"""
    check(
        tmp_path, code, "ready chained", number, f"server {number}", "synced", ends=(7,), count=100
    )


@both_loops
@both_signals
def test_an_owner_with_a_loop_handler_is_heard(tmp_path: Path, loop: str, number: int) -> None:
    code = """
async def main():
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with UsageTracker(PATH) as tracker:
        fill(tracker, 100)
        say("ready", tracker.statistics().signals)
        await stop.wait()
        say("owner")
loop = new_loop()
loop.run_until_complete(main())
sys.exit(7)
"""
    check(tmp_path, code, "ready chained", number, "owner", ends=(7,), loop=loop, count=100)


def test_an_owner_who_takes_the_signal_after_us_keeps_it(tmp_path: Path) -> None:
    code = """
def handle(number, frame):
    say("owner")
    stop.set()
async def main():
    global stop
    stop = asyncio.Event()
    async with UsageTracker(PATH) as tracker:
        await tracker.record(usage(1))
        signal.signal(signal.SIGTERM, handle)
    assert signal.getsignal(signal.SIGTERM) is handle
    say("ready")
    await stop.wait()
run(main())
"""
    check(tmp_path, code, "ready", TERM, "owner", ends=(0,), count=None)


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    code = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
async def main():
    async with UsageTracker(PATH) as tracker:
        await tracker.record(usage(1))
        say("ready")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
        await tracker.record(usage(2))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
run(main())
"""
    run(code, tmp_path)
    assert_once(tmp_path, [1, 2])


@both_loops
def test_after_the_last_close_the_signals_are_as_they_were(tmp_path: Path, loop: str) -> None:
    code = """
before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
async def main():
    inside = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with UsageTracker(PATH) as one:
        assert signal.getsignal(signal.SIGTERM) is not inside[0]
        two = UsageTracker(PATH)
        await two.open()
        await one.aclose()
        assert signal.getsignal(signal.SIGTERM) is not inside[0], "one is still open"
        await two.aclose()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == inside
for _ in range(3):
    run(main())
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
say("ready")
time.sleep(60)
"""
    with Child(code, tmp_path, loop=loop) as child:
        child.expect("ready")
        child.send(TERM)
        assert child.end() == -TERM
    assert child.stderr == ""


def test_a_second_life_in_the_same_process_is_protected_too(tmp_path: Path) -> None:
    code = (
        WITH
        + """
async def first():
    tracker = UsageTracker(PATH)
    await tracker.open()
    tracker.record_nowait(usage("first"))
run(first())  # ends under an open client
run(main())
"""
    )
    check(tmp_path, code, "ready on", TERM, ends=(-TERM,), count=None)
    assert len(keys(tmp_path)) == COUNT + 1


@both_signals
def test_told_to_keep_its_hands_off_it_does(tmp_path: Path, number: int) -> None:
    code = """
before = signal.getsignal(signal.SIGTERM)
async def main():
    tracker = UsageTracker(PATH, handle_signals=False)
    await tracker.record(usage("acked"))
    assert signal.getsignal(signal.SIGTERM) is before
    say("ready", tracker.statistics().signals)
    time.sleep(60)
new_loop().run_until_complete(main())
"""
    with Child(code, tmp_path) as child:
        child.expect("ready off")
        child.send(number)
        assert child.end() == -number
    assert keys(tmp_path) == ["acked"]


def test_asked_for_and_not_to_be_had_is_said(tmp_path: Path) -> None:
    code = """
async def main():
    async with UsageTracker(PATH, handle_signals=True) as tracker:
        await tracker.record(usage(1))
thread = threading.Thread(target=lambda: run(main()))
thread.start()
thread.join()
"""
    assert "signals cannot be handled here" in run(code, tmp_path).stderr


def test_a_forked_child_dies_of_its_signal_and_touches_nothing(tmp_path: Path) -> None:
    code = """
async def main():
    async with UsageTracker(PATH) as tracker:
        await tracker.record(usage(1))
        tracker.record_nowait(usage(2))
        child = os.fork()
        if child == 0:
            say("child")
            time.sleep(60)
            os._exit(0)
        await asyncio.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        say("status", os.waitstatus_to_exitcode(status))
run(main())
"""
    child = run(code, tmp_path)
    assert f"status {-TERM}" in child.said
    assert_whole(tmp_path, [1, 2])


# -- process 1 -------------------------------------------------------------------------------------


def as_process_one() -> tuple[list[str], str]:
    """How to run a child as process 1: in a namespace of its own, or where that is not allowed,
    with a ``getpid`` that says so."""
    if shutil.which("unshare"):
        command = ["unshare", "--user", "--pid", "--fork", "--kill-child"]
        if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0:
            return command, ""
    return [], "import os; os.getpid, os.kill = lambda: 1, lambda pid, number: None"


@both_signals
def test_process_one_exits_with_the_status_of_the_signal(tmp_path: Path, number: int) -> None:
    command, before = as_process_one()
    code = """
async def main():
    async with UsageTracker(PATH, queue_size=100_000) as tracker:
        fill(tracker)
        say("ready", os.getpid())
        await asyncio.Event().wait()
new_loop().run_until_complete(main())
"""
    with Child(FILL + code, tmp_path, command=command, before=before) as child:
        child.expect("ready 1")
        inner = children_of(child.pid) if command else [child.pid]
        os.kill(inner[0], number)
        assert child.end() in (128 + number, -number)
    assert_whole(tmp_path, range(COUNT))


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]
