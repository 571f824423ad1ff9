"""Every way out of a process that nobody closed: all is saved, once, in order, without a word.

The controls at the end put the naive last resort in place of ours (drain in the writer's
``finally`` while a threaded write is under way); the same checks must catch it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests import children
from tests.children import complaints
from tests.runs import assert_closed, assert_once, keys, kinds

from litellm_ledger import Ledger

Child = partial(children.Child, fresh=True)
run = partial(children.run, fresh=True)
LOOPS = ["asyncio", "uvloop"]
both_loops = pytest.mark.parametrize("loop", LOOPS)
COUNT = 2_000


def ends_well(
    code: str, path: Path, expected: Iterable[object] | None = None, **options: Any
) -> children.Child:
    """Run it; it complains of nothing, and leaves a ledger that is whole and closed."""
    child = run(code, path, **options)
    assert complaints(child.stderr) == ""
    assert_once(path, expected)
    assert_closed(path)
    return child


FILL = f"""
tracker = UsageTracker(PATH, queue_size=100_000)
async def main():
    await tracker.open()
    for number in range({COUNT}):
        tracker.record_nowait(usage(number))
"""

FAIL = "async def fail():\n await main()\n 1 / 0\n"
BARE = "loop = new_loop()\nloop.run_until_complete(main())"
ENDS = {
    "the end of asyncio.run": ("run(main())", 0),
    "an exception": (f"{FAIL}run(fail())", 1),
    "sys.exit in a task": ("async def leave():\n await main()\n sys.exit(3)\nrun(leave())", 3),
    "sys.exit after the loop": ("run(main())\nsys.exit(4)", 4),
    "a bare loop left open": (BARE, 0),
    "a bare loop closed": (f"{BARE}\nloop.close()", 0),
    "an exception under a bare loop": (f"{FAIL}new_loop().run_until_complete(fail())", 1),
    "KeyboardInterrupt under a bare loop": (
        FAIL.replace("1 / 0", "raise KeyboardInterrupt") + "new_loop().run_until_complete(fail())",
        -signal.SIGINT,
    ),
    "the tracker deleted": (f"{BARE}\ndel tracker", 0),
    "a thread of its own": (
        """
thread = threading.Thread(target=lambda: run(main()))
thread.start()
thread.join()
""",
        0,
    ),
    "a daemon thread that still runs": (
        """
ready = threading.Event()
async def stay():
    await main()
    ready.set()
    await asyncio.Event().wait()
threading.Thread(target=lambda: run(stay()), daemon=True).start()
ready.wait()
""",
        0,
    ),
}


@both_loops
@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_lost_at(tmp_path: Path, loop: str, end: str) -> None:
    code, status = ENDS[end]
    with Child(FILL + code, tmp_path, loop=loop) as child:
        assert child.end() == status
    assert_once(tmp_path, range(COUNT))
    assert_closed(tmp_path)
    if status == 0:
        assert child.stderr == ""


@both_loops
def test_a_clean_life_in_development_mode_warns_of_nothing(tmp_path: Path, loop: str) -> None:
    code = """
fake_litellm()
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no news
    async with LiteLLMClient(PATH) as client:
        await client.usage.record(usage(1))
        call = asyncio.create_task(client.acompletion(model="m", messages=[]))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait({call})
run(main())
"""
    ends_well(code, tmp_path, loop=loop, options=["-X", "dev", "-W", "error"])


def test_an_unclosed_tracker_is_said_in_development_mode_and_saved(tmp_path: Path) -> None:
    code = """
async def main():
    tracker = UsageTracker(PATH)
    await tracker.open()
    for number in range(10):
        tracker.record_nowait(usage(number))
    del tracker
    gc.collect()
run(main())
"""
    child = run(code, tmp_path, options=["-X", "dev"])
    assert "unclosed UsageTracker" in child.stderr
    assert "never retrieved" not in child.stderr
    assert "destroyed" not in child.stderr
    assert_once(tmp_path, range(10))
    assert_closed(tmp_path)


def test_calls_in_flight_when_the_loop_ends_are_cancelled_on_record(tmp_path: Path) -> None:
    code = """
fake_litellm()
client = LiteLLMClient(PATH)
async def main():
    tasks = [asyncio.create_task(client.acompletion(model="m", messages=[])) for _ in range(5)]
    while client.statistics().in_flight < 5:
        await asyncio.sleep(0)
run(main())
"""
    ends_well(code, tmp_path)
    assert sorted(kinds(tmp_path)) == ["cancelled"] * 5 + ["started"] * 5


def test_threads_that_record_while_the_process_ends_lose_nothing_they_were_promised(
    tmp_path: Path,
) -> None:
    code = """
tracker = UsageTracker(PATH, queue_size=1_000_000)
begun = threading.Event()
def work(name):
    for number in range(200):
        future = tracker.record_threadsafe(usage(f"{name}-{number}"))
        if number == 20:
            begun.set()
        future.result(30)
        say("ack", f"{name}-{number}")
async def main():
    await tracker.open()
    for name in range(4):
        threading.Thread(target=work, args=(name,)).start()
    while not begun.is_set():
        await asyncio.sleep(0)
run(main())
"""
    child = run(code, tmp_path)
    assert len(child.acked) == 800
    assert sorted(map(str, keys(tmp_path))) == sorted(child.acked)
    assert_once(tmp_path)


def test_an_exit_handler_of_the_users_may_still_record(tmp_path: Path) -> None:
    code = """
tracker = UsageTracker(PATH)
async def main():
    await tracker.open()
    tracker.record_nowait(usage("early"))
run(main())
def late():
    say(tracker.record_threadsafe(usage("late")).result(10).call_id)
atexit.register(late)
"""
    assert ends_well(code, tmp_path, ["early", "late"]).said == ["late"]


def test_a_disk_that_hangs_does_not_hold_the_end_of_the_loop_for_ever(tmp_path: Path) -> None:
    code = """
class Stuck(FileSystem):
    hung = False
    def write(self, fd, data):
        if not Stuck.hung:
            Stuck.hung = True
            say("hung")
            threading.Event().wait()
        return super().write(fd, data)
async def main():
    tracker = UsageTracker(PATH, fs=Stuck(), drain_timeout=0.3)
    await tracker.open()
    for number in range(500):
        tracker.record_nowait(usage(number))
    while not Stuck.hung:
        await asyncio.sleep(0.01)
run(main())
"""
    run(code, tmp_path)
    assert_once(tmp_path, range(500))


@both_loops
def test_a_loop_that_still_records_in_a_daemon_thread_loses_nothing_acknowledged(
    tmp_path: Path, loop: str
) -> None:
    code = """
tracker = UsageTracker(PATH)
begun = threading.Event()
async def work(name):
    for number in range(1_000_000):
        try:
            await tracker.record(usage(f"{name}-{number}"))
        except Exception:
            return
        say("ack", f"{name}-{number}")
        if number == 50:
            begun.set()
async def main():
    await tracker.open()
    await asyncio.gather(*[work(name) for name in range(5)])
threading.Thread(target=lambda: run(main()), daemon=True).start()
begun.wait()
"""
    with Child(code, tmp_path, loop=loop) as child:
        child.end()
    assert child.acked <= set(keys(tmp_path))
    assert_once(tmp_path)
    assert "Traceback" not in child.stderr


# -- fork ------------------------------------------------------------------------------------------

FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of a fork with threads: we know
def wait_for(child):
    _, status = os.waitpid(child, 0)
    say("child", os.waitstatus_to_exitcode(status))
def in_the_child(main):
    asyncio.events._set_running_loop(None)
    asyncio.run(asyncio.wait_for(main, 10))
    os._exit(0)
"""


LEAVING = """
loop = new_loop()
kept = loop.run_until_complete({}())
child = os.fork()
if child == 0:
    sys.exit(0)
wait_for(child)
"""


def test_a_forked_child_never_writes_to_its_parents_segment(tmp_path: Path) -> None:
    code = """
async def main():
    async with UsageTracker(PATH) as tracker:
        for number in range(1_000):
            tracker.record_nowait(usage(number))
        child = os.fork()
        if child == 0:
            os._exit(0)
        wait_for(child)
        await tracker.record(usage("after"))
run(main())
"""
    assert ends_well(FORK + code, tmp_path, [*range(1_000), "after"]).said == ["child 0"]


def test_a_forked_child_keeps_neither_the_lock_nor_the_segment_of_its_parent(
    tmp_path: Path,
) -> None:
    """With the lock it would keep a killed parent alive.  The one left belongs to the mapping."""
    code = (
        FORK
        + """
def held():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{fd}")
            with open(f"/proc/self/fdinfo/{fd}") as file:
                locked = "lock:" in file.read()
        except FileNotFoundError:
            continue  # that of listdir itself
        if name.startswith(os.path.abspath(PATH)):
            found.append(os.path.basename(os.path.dirname(name)) + "-locked" * locked)
    return sorted(found)
async def main():
    async with UsageTracker(PATH) as tracker:
        await tracker.record(usage("before"))
        say("parent", *held())
        child = os.fork()
        if child == 0:
            say("held by the child:", *held())
            os._exit(0)
        wait_for(child)
run(main())
"""
    )
    assert run(code, tmp_path).said == [
        "parent live live-locked segments",
        "held by the child: live",
        "child 0",
    ]


def test_a_forked_child_that_runs_its_exit_handlers_writes_nothing_of_its_parents(
    tmp_path: Path,
) -> None:
    code = FORK + FILL + LEAVING.format("main")
    assert ends_well(code, tmp_path, range(COUNT)).said == ["child 0"]


def test_a_forked_child_may_record_with_a_writer_of_its_own(tmp_path: Path) -> None:
    code = """
tracker = UsageTracker(PATH, tags={"env": "test"})
async def child_main():
    await tracker.record(usage("child"))
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    say("signals", tracker.statistics().signals, tracker.totals().calls)
    await tracker.aclose()
async def main():
    await tracker.record(usage("parent"))
    child = os.fork()
    if child == 0:
        in_the_child(child_main())
    wait_for(child)
    await tracker.aclose()
run(main())
"""
    assert ends_well(FORK + code, tmp_path).said == ["signals on 1", "child 0"]
    found = list(Ledger(tmp_path).records())
    assert sorted(str(record.call_id) for record in found) == ["child", "parent"]
    assert len({str(record.id).rpartition("-")[0] for record in found}) == 2


def test_worker_processes_of_multiprocessing_share_the_ledger(tmp_path: Path) -> None:
    code = """
import multiprocessing
tracker = UsageTracker(PATH)
def work(name):
    async def main():
        for number in range(50):
            await tracker.record(usage(f"{name}-{number}"))
        await tracker.aclose()
    asyncio.run(main())
async def parent():
    await tracker.record(usage("parent"))
loop = new_loop()
loop.run_until_complete(parent())
workers = [multiprocessing.get_context("fork").Process(target=work, args=(n,)) for n in range(3)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
    say("worker", worker.exitcode)
loop.run_until_complete(tracker.aclose())
"""
    child = run(code, tmp_path)
    assert child.said == ["worker 0"] * 3
    assert len(keys(tmp_path)) == 151
    assert_once(tmp_path)
    assert_closed(tmp_path)


def test_a_fork_while_a_thread_holds_the_segment_blocks_nobody(tmp_path: Path) -> None:
    code = """
class Slow(FileSystem):
    def write(self, fd, data):
        say("writing")
        time.sleep(0.3)
        return super().write(fd, data)
tracker = UsageTracker(PATH, fs=Slow())
async def child_main():
    await tracker.record(usage("child"))
    await tracker.aclose()
async def main():
    await tracker.open()
    tracker.record_nowait(usage("parent"))
    await asyncio.sleep(0.1)  # the thread is inside the write
    child = os.fork()
    if child == 0:
        in_the_child(child_main())
    await asyncio.to_thread(wait_for, child)
    await tracker.aclose()
run(main())
"""
    assert "child 0" in ends_well(FORK + code, tmp_path).said
    assert sorted(map(str, keys(tmp_path))) == ["child", "parent"]


STREAM = (
    FORK
    + """
from types import SimpleNamespace as N
class Stream:
    custom_llm_provider = "openai"
    def __init__(self): self.chunks = []
    async def __anext__(self):
        self.chunks.append(N(id="1", model="m", usage=None, choices=[N(delta=N(content="x"))]))
        return self.chunks[-1]
    async def aclose(self): pass
fake_litellm()
async def acompletion(**kwargs): return Stream()
sys.modules["litellm"].acompletion = acompletion
from litellm_ledger._calls import core as _core
_core.estimate_stream = lambda *a, **k: {"input_tokens": 7, "usage_source": "estimated"}
client = LiteLLMClient(PATH)
async def begin():
    stream = await client.acompletion(model="m", messages=[], stream=True)
    await anext(stream)
    return stream
"""
)


def test_a_stream_that_is_open_at_the_exit_is_abandoned_on_record(tmp_path: Path) -> None:
    ends_well(STREAM + "stream = run(begin())", tmp_path)
    assert kinds(tmp_path) == ["started", "abandoned"]


def test_a_forked_child_says_nothing_of_its_parents_open_streams(tmp_path: Path) -> None:
    assert ends_well(STREAM + LEAVING.format("begin"), tmp_path).said == ["child 0"]
    assert kinds(tmp_path) == ["started", "abandoned"]


def test_a_forked_child_may_use_the_client_with_a_writer_of_its_own(tmp_path: Path) -> None:
    code = """
async def child_main():
    stream = await begin()
    await stream.aclose()
    await client.aclose()
async def main():
    stream = await begin()
    child = os.fork()
    if child == 0:
        in_the_child(child_main())
    wait_for(child)
    await stream.aclose()
    await client.aclose()
run(main())
"""
    assert ends_well(STREAM + code, tmp_path).said == ["child 0"]
    assert sorted(kinds(tmp_path)) == ["abandoned", "abandoned", "started", "started"]


PAID = STREAM.replace(
    """        self.chunks.append""",
    """        if len(self.chunks) == 3:
            await asyncio.Event().wait()
        self.chunks.append""",
).replace(
    "client = LiteLLMClient(PATH)",
    """from litellm_ledger import Budget, ModelPrice
budget = Budget("1", window="total", mode="adaptive")
price = ModelPrice(input="0", output="1", per=1_000)
client = LiteLLMClient(PATH, budgets=[budget], prices={"m": price})""",
)
"""A stream with a pump, which hangs at its fourth chunk."""


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("stream = run(begin())", 0),
        ("stream = new_loop().run_until_complete(begin())", 0),
        (
            """
async def main():
    async with client:
        stream = await begin()
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        async for _ in stream:
            pass
run(main())
""",
            -signal.SIGTERM,
        ),
    ],
)
def test_a_stream_that_a_budget_pays_for_is_on_record_with_its_hold_at_the_exit(
    tmp_path: Path, end: str, status: int
) -> None:
    with Child(PAID + end, tmp_path) as child:
        assert child.end() == status, child.stderr
    assert complaints(child.stderr) == ""
    assert_once(tmp_path)
    assert_closed(tmp_path)
    assert kinds(tmp_path) == ["started", "cancelled" if status else "abandoned"]
    (record,) = Ledger(tmp_path).records()
    assert record.hold_picousd == 256 * 10**9


# -- many ordinary ends, and the controls ----------------------------------------------------------

LIVES = """
import random
dice = random.Random(1)
kept = []  # else the collector closes them
async def life(path):
    tracker = UsageTracker(path, fs=SlowDisk(), queue_size=100_000, handle_signals=False)
    kept.append(tracker)
    await tracker.open()
    total = dice.choice([3, 300, 900])
    for number in range(total):
        tracker.record_nowait(usage(number))
    for _ in range(dice.randrange(12)):
        await asyncio.sleep(dice.choice([0, 0.005]))
    for number in range(total, total + 3):
        tracker.record_nowait(usage(number))
SlowDisk.pause = 0.01
for number in range(30):
    run(life(os.path.join(PATH, str(number))))
"""


def check_lives(path: Path) -> None:
    for life in range(30):
        found = keys(path / str(life))
        assert_once(path / str(life))
        assert found == [str(number) for number in range(len(found))]
        assert len(found) in (6, 303, 903), "lost"


@both_loops
def test_thirty_ordinary_ends_with_a_threaded_write_under_way(tmp_path: Path, loop: str) -> None:
    run(LIVES, tmp_path, loop=loop)
    check_lives(tmp_path)


NAIVE = """
from litellm_ledger._writing.writer import Writer
from litellm_ledger._writing.queue import Signal
async def naive(self, backlog):
    try:
        await self._writing.serve(backlog)
    finally:
        held = [item for item in HELD if not isinstance(item, Signal)]
        log = backlog.log
        if held and log._fd is not None:
            os.write(log._fd, b"".join(map(backlog.line, held)))
            log.written = backlog.accepted
            backlog.queue.forget(backlog.accepted)
Writer._run = naive
"""


@pytest.mark.parametrize(
    "held", ["[*backlog.queue.hand, *backlog.queue._queue]", "[*backlog.queue._queue]"]
)
def test_control_the_naive_last_resort_is_caught(tmp_path: Path, held: str) -> None:
    naive = NAIVE.replace("HELD", held)
    with Child(naive + LIVES, tmp_path) as child:
        child.end()
    with pytest.raises(AssertionError):
        check_lives(tmp_path)
