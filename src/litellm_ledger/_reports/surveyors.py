"""Looking at many segments at once: by processes, since the look is Python's and takes a core.

Owns the sharing out.  Nothing depends on it: what was not looked at ahead, because there is little,
or one core, or a process failed, is looked at when its turn comes.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from litellm_ledger._archive.database import cores
from litellm_ledger._records.layout import SegmentName

from .survey import Learnt, ahead, learn, learnt, survey

__all__ = ["survey_ahead"]

_WORTH_IT: Final = 128 * 2**20
"""Bytes that one core looks at in half a second; a process takes a tenth of one to begin."""


def survey_ahead(root: Path, names: Iterable[SegmentName]) -> None:
    """Look at those segments that are sealed; ``survey`` knows then."""
    sizes = {name: ahead(root, name) for name in names}
    if sum(sizes.values()) < _WORTH_IT or not _is_python():
        return
    largest = sorted(filter(sizes.get, sizes), key=lambda name: -sizes[name])
    count = min(cores(), len(largest))
    mine, *others = [largest[at::count] for at in range(count)]
    with contextlib.ExitStack() as stack:
        processes = []
        for share in others:
            with contextlib.suppress(OSError):  # there is no such program, or no room for it
                processes.append(_begin(stack, root, share))
        _look(root, mine)
        for process in processes:
            assert process.stdout is not None
            with contextlib.suppress(msgspec.DecodeError):  # it failed
                learn(msgspec.json.decode(process.stdout.read(), type=Learnt))


def _begin(
    stack: contextlib.ExitStack, root: Path, share: Sequence[SegmentName]
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        # -P: a module in the working directory is none of ours
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(msgspec.json.encode((str(root), [*map(str, share)])))
    return process


def _is_python() -> bool:
    """Whether the program that runs us would run a module: a frozen one or a server would not."""
    return Path(sys.executable or "").name.startswith("python") and not hasattr(sys, "frozen")


def _look(root: Path, share: Iterable[SegmentName]) -> None:
    for name in share:
        with contextlib.suppress(OSError):  # gone, or complained of in its turn
            survey(root, name)


def _main() -> None:
    """Be such a process: names in, what was found out."""
    root, share = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[str, list[str]])
    _look(Path(root), filter(None, map(SegmentName.parse, share)))
    sys.stdout.buffer.write(msgspec.json.encode(learnt()))


if __name__ == "__main__":
    _main()
