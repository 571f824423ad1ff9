"""The live file: counters that outlive their writer, and a lock that does not."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import pytest
from tests.disks import QUICK
from tests.ledgers import WRITER, put_live

from litellm_ledger import AsyncUsageWriter, LiteLLMClient, UsageTracker
from litellm_ledger._records.layout import LIVE
from litellm_ledger._storage import live_file as _live
from litellm_ledger._storage.live_file import (
    ACCEPTED,
    OLDEST,
    PID,
    SIZE,
    SYNCED,
    WRITTEN,
    LiveCounters,
    LiveFile,
    acked_until,
    is_locked,
    lock,
    read_live,
    same_boot,
    unlock,
)
from litellm_ledger.testing import FaultyFileSystem


@pytest.fixture
def live(root: Path) -> Iterator[LiveFile]:
    file = LiveFile(QUICK, root, WRITER)
    yield file
    file.release()


def test_counters_are_read_by_others_as_they_are_stored(live: LiveFile) -> None:
    assert live.path.stat().st_size == SIZE
    for cell, value in ((ACCEPTED, 9), (WRITTEN, 8), (SYNCED, 7), (OLDEST, 2**40)):
        live.cells[cell] = value
    counters = read_live(live.path)
    assert counters == LiveCounters(True, counters.boot, os.getpid(), 9, 8, 7, 2**40)
    assert same_boot(counters)
    assert live.cells[PID] == os.getpid()


def test_a_writer_that_continues_starts_with_what_it_has(root: Path) -> None:
    file = LiveFile(QUICK, root, WRITER, first=5)
    assert read_live(file.path) == LiveCounters(True, _live.boot_hash(), os.getpid(), 4, 4, 4, 0)
    file.remove()


def test_every_level_says_what_its_acknowledgement_waits_for_and_every_page_names_it() -> None:
    assert list(_live.WAITS_FOR) == list(get_args(_live.Durability))
    top = Path(__file__).parents[2]
    for page in ("README.md", "docs/GUARANTEES.md", "docs/FORMAT.md"):
        text = (top / page).read_text("utf-8")
        assert not [level for level in _live.WAITS_FOR if f"`{level}`" not in text.replace('"', "")]
    for public in (LiteLLMClient, UsageTracker, AsyncUsageWriter):
        said = (public.__doc__ or "") + (public.__init__.__doc__ or "")
        assert not [level for level in _live.WAITS_FOR if level not in said], public


@pytest.mark.parametrize("level", get_args(_live.Durability))
def test_the_durability_level_of_a_writer_is_on_record(root: Path, level: _live.Durability) -> None:
    file = LiveFile(QUICK, root, WRITER, durability=level)
    counters = read_live(file.path)
    assert (counters.durability, counters.pid) == (level, os.getpid())
    number = {"queued": 1, "written": 2, "synced": 3, "shipped": 4}[level]  # as FORMAT.md has them
    assert struct.unpack_from("=Q", file.path.read_bytes(), 16) == (os.getpid() + (number << 32),)
    file.remove()


@pytest.mark.parametrize("number", [0, 5, 2**32 - 1])
def test_a_level_that_is_not_known_is_not_on_record(root: Path, number: int) -> None:
    path = put_live(root, 3)
    data = bytearray(path.read_bytes())
    struct.pack_into("=Q", data, 16, 4242 + (number << 32))
    path.write_bytes(bytes(data))
    counters = read_live(path)
    assert (counters.valid, counters.pid, counters.durability) == (True, 4242, None)
    assert acked_until(counters) is None


@pytest.mark.parametrize(
    ("level", "boot", "until"),
    [
        (None, "this", None),
        (None, "other", None),
        ("queued", "this", 9),
        ("queued", "other", 9),
        ("written", "this", 7),
        ("written", "other", 9),
        ("synced", "this", 7),
        ("synced", "other", 5),
    ],
)
def test_what_may_have_been_acknowledged_follows_from_level_and_boot(
    root: Path, level: _live.Durability | None, boot: Literal["this", "other"], until: int | None
) -> None:
    path = put_live(root, 9, written=7, synced=5, boot=boot, level=level)
    assert acked_until(read_live(path)) == until


def test_counters_of_another_boot_are_told_apart(root: Path) -> None:
    assert same_boot(read_live(put_live(root, 1, boot="this")))
    assert not same_boot(read_live(put_live(root, 1, boot="other")))
    assert not same_boot(LiveCounters(True, boot=0))


@pytest.mark.parametrize("content", [b"", b"x" * 63, b"x" * 64, b"\0" * 64, b"x" * 65])
def test_what_is_no_live_file_is_not_believed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not read_live(path).valid


def test_is_locked_while_the_owner_lives_and_probing_disturbs_nobody(live: LiveFile) -> None:
    assert is_locked(live.path)
    assert lock(live.path) is None
    assert is_locked(live.path)


def test_the_lock_is_free_after_release_although_the_map_is_there(live: LiveFile) -> None:
    live.release()
    assert not is_locked(live.path)
    live.cells[ACCEPTED] = 3  # the map outlives the descriptor
    assert read_live(live.path).accepted == 3
    live.release()


def test_a_map_of_the_locked_descriptor_would_keep_the_lock(root: Path) -> None:
    """The sabotage that the live file avoids: mmap duplicates its descriptor."""
    path = put_live(root, 1)
    held = lock(path)
    assert held is not None
    mapped = mmap.mmap(held, SIZE)
    os.close(held)
    assert is_locked(path)
    mapped.close()
    assert not is_locked(path)


def test_one_holder_at_a_time(root: Path) -> None:
    path = put_live(root, 1)
    held = lock(path)
    assert held is not None
    assert lock(path) is None
    assert is_locked(path)
    unlock(held)
    assert not is_locked(path)


def test_remove_takes_the_file_away_and_may_be_repeated(live: LiveFile) -> None:
    live.remove()
    assert not live.path.exists()
    live.remove()


def test_nobody_sees_it_before_it_is_locked(root: Path) -> None:
    seen: list[tuple[bool, int]] = []

    class Watching(FaultyFileSystem):
        def rename(self, old: Path, new: Path) -> None:
            assert not new.exists()
            seen.append((is_locked(old), old.stat().st_size))
            super().rename(old, new)

    LiveFile(Watching(QUICK), root, WRITER).remove()
    assert seen == [(True, SIZE)]


@pytest.mark.parametrize("operation", ["rename", "sync_directory"])
def test_a_failed_creation_leaves_nothing(root: Path, operation: str) -> None:
    disk = FaultyFileSystem(QUICK)
    disk.fail(operation, error=errno.ENOSPC)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="No space"):
        LiveFile(disk, root, WRITER)
    assert list((root / LIVE).iterdir()) == []
    LiveFile(disk, root, WRITER).remove()


# -- processes -----------------------------------------------------------------------------------

CHILD = """
    import os, sys, signal
    from pathlib import Path
    from litellm_ledger._storage.filesystem import REAL
    from litellm_ledger._storage.live_file import ACCEPTED, LiveFile

    live = LiveFile(REAL, Path(sys.argv[1]), sys.argv[2])
    live.cells[ACCEPTED] = 7
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        if sys.argv[3] == "release":
            live.release()
        os.write(go, b"x")
        sys.stdin.read()  # lives on until the test closes its standard input
        os._exit(0)
    os.read(ready, 1)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("fork", "still_locked"), [("release", False), ("keep", True)])
def test_a_killed_owner_is_dead_although_its_forked_child_lives(
    root: Path, fork: str, still_locked: bool
) -> None:
    """And the control: a child that keeps the descriptor keeps the dead owner "alive"."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(root), WRITER, fork],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert int(process.stdout.readline()) > 0
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # the owner, not its child
        path = root / LIVE / f"{WRITER}.live"
        assert is_locked(path) is still_locked
        assert read_live(path).accepted == 7
        process.stdin.close()
        process.stdout.read()  # until the child is gone
        assert not is_locked(path)
    assert process.returncode == -signal.SIGKILL
