"""The list of open writers: finished at exit, newest first, and unknown to a forked child."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

from litellm_ledger._runtime import process as _process


class Member:
    def __init__(self) -> None:
        self.finished: list[float] = []

    def finish_now(self, budget: float) -> int:
        self.finished.append(budget)
        return 0

    def saving_here(self) -> bool:
        return False


def test_who_enters_is_listed_until_it_leaves() -> None:
    one, two = Member(), Member()
    before = len(_process.writers())
    _process.enter(one)
    _process.enter(two)
    assert _process.writers()[before:] == [one, two]
    _process.leave(one)
    assert one not in _process.writers()
    _process.leave(two)
    _process.leave(two)
    assert len(_process.writers()) == before
    assert not one.finished


def test_who_has_left_can_be_collected() -> None:
    member = Member()
    seen = weakref.ref(member)
    _process.enter(member)
    _process.leave(member)
    del member
    gc.collect()
    assert seen() is None


def at_exit_of(code: str) -> str:
    script = (
        "import os, sys\nfrom litellm_ledger._runtime import process as _process\n"
        "class Member:\n"
        "    def __init__(self, name): self.name = name\n"
        "    def finish_now(self, budget): print(self.name, budget, flush=True)\n" + code
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout


def test_at_exit_the_newest_is_finished_first_and_streams_before_their_writer() -> None:
    code = """
_process.enter(Member("old"))
_process.enter(Member("new"))
_process.at_exit(print, "stream")
gone = Member("gone")
_process.enter(gone)
_process.leave(gone)
"""
    budget = _process.EXIT_BUDGET
    assert at_exit_of(code).splitlines() == ["stream", f"new {budget}", f"old {budget}"]


def test_a_forked_child_finishes_nobody() -> None:
    code = """
_process.enter(Member("parents"))
if os.fork() == 0:
    print("child", _process.writers(), flush=True)
    sys.exit(0)
os.wait()
"""
    assert at_exit_of(code).splitlines() == ["child []", f"parents {_process.EXIT_BUDGET}"]


def test_an_exit_without_python_finishes_nobody() -> None:
    assert at_exit_of('_process.enter(Member("no"))\nos._exit(0)') == ""
