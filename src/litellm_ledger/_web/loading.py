"""Sealed segments, read once into columns: by processes of their own, or on this thread.

Owns the reading and the frames between the two.  A child ends with its parent, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final
from zlib import crc32

import msgspec

from litellm_ledger._errors import LedgerError
from litellm_ledger._reading.listing import open_segment
from litellm_ledger._records.layout import SegmentName

from .blocks import Block, Outcome, block_of, outcomes_of

__all__ = ["Child", "load"]

_PIECE: Final = 2**18
"""Bytes that are made of objects at once: a millisecond in which no other thread runs."""
_NICE: Final = 1
_SIZE: Final = struct.Struct("!I")


def load(root: Path, name: SegmentName, checksum: str) -> Block | None:
    """Return the outcomes of a sealed segment; ``None`` if it is not to be had as columns.

    Args:
        root: the ledger.
        name: of a segment whose lines all count, as its manifest says.
        checksum: the CRC-32 of its bytes, as that says.
    """
    try:
        file, _ = open_segment(root, name)
        with file:
            data = file.read()
    except (OSError, LedgerError):
        return None
    if f"{crc32(data):08x}" != checksum:  # another one by now
        return None
    found: list[Outcome] = []
    for piece in _pieces(data):
        some = outcomes_of(piece)
        if some is None:
            return None
        found += some
    return block_of(found)


def _pieces(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + _PIECE) + 1 or len(data)
        yield data[start:end]
        start = end


class Child:
    """A process that loads; not safe for several threads.

    Args:
        root: the ledger.
    """

    def __init__(self, root: Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
        )

    def load(self, name: SegmentName, checksum: str) -> Block | None:
        """Do what ``load`` does.

        Raises:
            OSError: the process has ended.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(msgspec.json.encode((str(name), checksum)) + b"\n")
        self._child.stdin.flush()
        head = self._child.stdout.read(_SIZE.size)
        if len(head) < _SIZE.size:
            raise OSError("the process that loads has ended")
        data = self._child.stdout.read(_SIZE.unpack(head)[0])
        # Made by our own child a moment ago.
        found: Block | None = pickle.loads(data)
        return found

    def close(self) -> None:
        """End the process."""
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._child.wait(2)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Nothing here is worth a thread of NumPy's libraries."""


def _put(out: IO[bytes], block: Block | None) -> None:
    data = pickle.dumps(block, pickle.HIGHEST_PROTOCOL)
    out.write(_SIZE.pack(len(data)) + data)
    out.flush()


def _main() -> None:
    """Be that process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICE)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    root = Path(sys.argv[1])
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            name, checksum = msgspec.json.decode(line, type=tuple[str, str])
            segment = SegmentName.parse(name)
            _put(out, None if segment is None else load(root, segment, checksum))
    os._exit(0)


if __name__ == "__main__":
    _main()
