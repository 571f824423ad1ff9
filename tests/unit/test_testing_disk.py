"""The faulty disk does what its methods say, and nothing else."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
from tests.disks import QUICK

from litellm_ledger._storage.filesystem import FileSystem
from litellm_ledger.testing import FaultyFileSystem, Killed


@pytest.fixture
def disk() -> FaultyFileSystem:
    return FaultyFileSystem(QUICK)


def test_without_faults_it_is_the_file_system_below(disk: FaultyFileSystem, tmp_path: Path) -> None:
    path, other = tmp_path / "dir" / "a", tmp_path / "dir" / "b"
    disk.make_directory(path.parent)
    fd = disk.create(path)
    assert disk.write(fd, b"abcdef") == 6
    disk.sync(fd)
    disk.truncate(fd, 4)
    assert disk.links(fd) == 1
    disk.close(fd)
    disk.rename(path, other)
    disk.sync_directory(path.parent)
    disk.close(disk.open(other))
    assert other.read_bytes() == b"abcd"
    disk.unlink(other)
    assert " ".join(call.operation for call in disk.calls) == (
        "make_directory create write sync truncate links close rename sync_directory open close "
        "unlink"
    )
    assert disk.calls[2].path == path


def test_the_nth_call_fails_and_then_no_more(disk: FaultyFileSystem, tmp_path: Path) -> None:
    fd = disk.create(tmp_path / "a")
    disk.fail("write", nth=2, times=2, error=errno.ENOSPC)
    assert disk.write(fd, b"1") == 1
    for _ in range(2):
        with pytest.raises(OSError, match="No space left") as caught:
            disk.write(fd, b"x")
        assert caught.value.errno == errno.ENOSPC
    assert disk.write(fd, b"2") == 1
    assert disk.count("write") == 4
    assert (tmp_path / "a").read_bytes() == b"12"
    disk.close(fd)


def test_any_call_may_be_the_one_and_all_from_there_on(
    disk: FaultyFileSystem, tmp_path: Path
) -> None:
    disk.fail("*", nth=2, times=None)
    fd = disk.create(tmp_path / "a")
    for step in (lambda: disk.write(fd, b"x"), lambda: disk.sync_directory(tmp_path)):
        with pytest.raises(OSError, match="Input/output"):
            step()
    disk.heal()
    disk.close(fd)


def test_a_close_that_fails_has_closed(disk: FaultyFileSystem, tmp_path: Path) -> None:
    fd = disk.create(tmp_path / "a")
    disk.fail("close")
    with pytest.raises(OSError, match="Input/output"):
        disk.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        QUICK.close(fd)


def test_a_full_disk_takes_what_fits_and_truncating_gives_back(
    disk: FaultyFileSystem, tmp_path: Path
) -> None:
    fd = disk.create(tmp_path / "a")
    disk.fill(free=3)
    assert disk.write(fd, b"abcdef") == 3
    with pytest.raises(OSError, match="No space left"):
        disk.write(fd, b"def")
    disk.truncate(fd, 1)
    assert disk.write(fd, b"xyz") == 2
    disk.empty()
    assert disk.write(fd, b"!") == 1
    assert (tmp_path / "a").read_bytes() == b"axy!"
    disk.close(fd)


def test_short_writes(disk: FaultyFileSystem, tmp_path: Path) -> None:
    fd = disk.create(tmp_path / "a")
    disk.largest_write = 2
    assert disk.write(fd, b"abc") == 2
    disk.heal()
    assert disk.write(fd, b"def") == 3
    disk.close(fd)


def test_a_kill_stops_everything_and_may_tear_a_write(
    disk: FaultyFileSystem, tmp_path: Path
) -> None:
    fd = disk.create(tmp_path / "a")
    disk.kill(2, torn=2)
    disk.write(fd, b"1")
    for step in (lambda: disk.write(fd, b"2345"), lambda: disk.sync(fd), lambda: disk.close(fd)):
        with pytest.raises(Killed):
            step()
    assert (tmp_path / "a").read_bytes() == b"123"
    with pytest.raises(OSError, match="Bad file descriptor"):
        QUICK.close(fd)  # the dead hold no descriptors


def test_a_call_hangs_until_it_is_released(disk: FaultyFileSystem, tmp_path: Path) -> None:
    fd = disk.create(tmp_path / "a")
    done = threading.Event()

    def write() -> None:
        disk.write(fd, b"late")
        done.set()

    with disk.hang("write") as hang:
        thread = threading.Thread(target=write)
        thread.start()
        assert hang.entered.wait(10)
        disk.sync(fd)  # others go on
        assert not done.is_set()
    thread.join()
    assert (tmp_path / "a").read_bytes() == b"late"
    disk.close(fd)


def test_an_operation_that_does_not_exist_is_refused(disk: FaultyFileSystem) -> None:
    with pytest.raises(ValueError, match=r"no operation 'fsync'; there are: close, create"):
        disk.fail("fsync")  # type: ignore[arg-type]


def test_it_stands_before_every_call_of_the_file_system() -> None:
    """A call that it does not know would go past the faults, to the real disk."""
    calls = {name for name in vars(FileSystem) if not name.startswith("_")}
    assert calls <= set(vars(FaultyFileSystem))
