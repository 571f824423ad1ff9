"""Processes of one kind that begin their work together.

Owns what both sides say to each other: a process is ready, it is told to go, it says when it ended.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence

from ._page import ROOT

__all__ = ["side_by_side"]


def side_by_side(module: str, arguments: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Run a module once for each list of arguments.

    A process prints ``ready``, waits for a line, works, and prints the members ``ended`` (of
    ``time.monotonic``) and ``slowest`` (seconds) as JSON.

    Returns:
        Seconds from the start to the last one's end, and the slowest piece of work of all.
    """
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", module, *each],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                )
            )
            for each in arguments
        ]
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"a process of {module} did not start")
        began = time.monotonic()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        ends = []
        for process in processes:
            assert process.stdout is not None
            ends.append(json.loads(process.stdout.readline()))
        return max(end["ended"] for end in ends) - began, max(end["slowest"] for end in ends)
