"""Links, FIFOs, sockets and devices in a ledger: never followed, never waited for, named."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.ledgers import OTHER, WRITER, directory, kept, line, lines, put, put_live

from litellm_ledger import Ledger, LedgerPathError, UsageRecord, UsageTracker
from litellm_ledger._archive.archive import list_archive
from litellm_ledger._calls.batches import on_ledger
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._reading.follow import Follower
from litellm_ledger._records.layout import SegmentName, live_name
from litellm_ledger._reports.doctor import examine
from litellm_ledger._storage.filesystem import REAL, open_regular, read_file
from litellm_ledger._storage.format_version import refuse_newer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

SECRET = b"root:$6$not for you:19000:0:99999:7:::\n"


def link(path: Path) -> None:
    secret = path.parent.parent.parent / "secret"
    secret.write_bytes(SECRET)
    path.symlink_to(secret)


def dangling(path: Path) -> None:
    path.symlink_to(path.parent.parent.parent / "nowhere")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    # A socket's path may have 107 bytes.
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
        server.bind(path.name)


def subdirectory(path: Path) -> None:
    path.mkdir()


Plant = Callable[[Path], None]
PLANTS: list[tuple[Plant, str]] = [
    (link, "a symbolic link"),
    (dangling, "a symbolic link"),
    (fifo, "a FIFO"),
    (unix_socket, "a socket"),
    (subdirectory, "a directory"),
]
EACH = pytest.mark.parametrize(("plant", "kind"), PLANTS, ids=lambda p: getattr(p, "__name__", ""))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A ledger of three records; whatever is planted in it, what a link points to stays."""
    root = directory(tmp_path / "usage")
    put(root, lines(1, 3, OTHER), 1, 3, OTHER)
    yield root
    secret = tmp_path / "secret"
    assert not secret.exists() or secret.read_bytes() == SECRET


def segment(root: Path, last: int | None) -> Path:
    return root / "segments" / str(SegmentName(WRITER, 1, last))


@EACH
@pytest.mark.parametrize("last", [None, 4], ids=["open", "sealed"])
def test_a_segment_that_is_no_file_is_refused_by_name_and_the_others_are_read(
    root: Path, plant: Plant, kind: str, last: int | None
) -> None:
    planted = segment(root, last)
    plant(planted)
    ledger = Ledger(root)
    assert [record.seq for record in ledger.records()] == [1, 2, 3]
    (problem,) = [p for writer in ledger.verify().writers for p in writer.problems]
    assert problem.file == f"segments/{planted.name}"
    assert (problem.what, problem.detail) == (
        "unreadable",
        f"refused, because it is {kind} and not a regular file",
    )
    assert not ledger.verify().ok
    report = ledger.report(["model"])
    assert report.total.calls == 3
    assert [p.file for p in report.problems] == [f"segments/{planted.name}"]
    assert ledger.sql("SELECT count(*) FROM calls").rows == [(3,)]
    assert any(
        finding.check == "damage" and finding.level == "warning" for finding in examine(ledger)
    )
    assert list(Follower(ledger.path).look()) == []
    refuse_newer(root)


@EACH
def test_compaction_leaves_a_segment_that_is_no_file_and_names_it(
    root: Path, plant: Plant, kind: str
) -> None:
    planted = segment(root, 4)
    plant(planted)
    done = compact(root, until=date(2030, 1, 1))
    assert (done.segments, done.records) == (1, 3)
    assert [problem.file for problem in done.left] == [f"segments/{planted.name}"]
    assert kind in done.left[0].detail
    assert len(list(Ledger(root).records())) == 3


@EACH
async def test_a_dead_writers_segment_that_is_no_file_is_not_recovered_and_stops_no_opening(
    root: Path, plant: Plant, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    planted = segment(root, None)
    plant(planted)
    put_live(root, 1)
    (done,) = recover(root).writers
    assert done.error is not None
    assert f"{kind} and not a regular file" in done.error
    assert planted.name in done.error
    async with UsageTracker(root) as tracker:
        await tracker.record(UsageRecord(model="m"))
    assert planted.name in caplog.text
    assert planted in list((root / "segments").iterdir())
    assert kept(root) == {}, "nothing of what a link points to is copied"


@EACH
async def test_a_live_file_that_is_no_file_is_refused_by_name(
    root: Path, plant: Plant, kind: str
) -> None:
    planted = root / "live" / live_name(WRITER)
    plant(planted)
    (problem,) = [p for writer in Ledger(root).verify().writers for p in writer.problems]
    assert problem.file == f"live/{planted.name}"
    assert kind in problem.detail
    assert examine(Ledger(root))
    assert Ledger(root).report(["model"]).total.calls == 3
    (done,) = recover(root).writers
    assert done.error is not None
    assert kind in done.error
    async with UsageTracker(root) as tracker:
        await tracker.record(UsageRecord(model="m"))


@EACH
def test_an_unborn_live_file_that_is_no_file_is_left_alone(
    root: Path, plant: Plant, kind: str
) -> None:
    planted = (root / "live" / live_name(WRITER)).with_suffix(".new")
    plant(planted)
    os.utime(planted, (0, 0), follow_symlinks=False)
    assert recover(root).writers == ()
    assert os.path.lexists(planted)


@EACH
def test_an_archive_file_that_is_no_file_is_not_whole(root: Path, plant: Plant, kind: str) -> None:
    (root / "archive").mkdir()
    planted = root / "archive" / "2026-01-02.0123456789abcdef.parquet"
    plant(planted)
    broken: list[Path] = []
    assert list_archive(root, broken) == []
    assert broken == [planted]
    assert [problem.file for problem in Ledger(root).verify().archive] == [
        f"archive/{planted.name}"
    ]
    assert compact(root, until=date(2030, 1, 1)).broken == (f"archive/{planted.name}",)
    assert len(list(Ledger(root).records())) == 3


def test_a_link_to_the_right_archive_file_is_refused_as_well(root: Path, tmp_path: Path) -> None:
    compact(root, until=date(2030, 1, 1))
    (file,) = (root / "archive").iterdir()
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert [problem.file for problem in Ledger(root).verify().archive] == [f"archive/{file.name}"]


def test_compaction_writes_through_no_link_that_was_planted_under_its_temporary_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not one that is planted after it has removed what was left of an earlier run."""
    from litellm_ledger._maintenance import compact as _compacting

    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    write = _compacting._Run._write

    def planted(self: Any, database: Any, path: Path, *args: Any) -> None:
        path.symlink_to(secret)
        write(self, database, path, *args)

    monkeypatch.setattr(_compacting._Run, "_write", planted)
    with pytest.raises(LedgerPathError, match="cannot compact"):
        compact(root, until=date(2030, 1, 1))
    assert len(list(Ledger(root).records())) == 3


@pytest.mark.parametrize("planted", [link, dangling, fifo, unix_socket, subdirectory])
def test_what_stands_under_a_name_in_recovery_is_neither_read_nor_written(
    root: Path, planted: Plant
) -> None:
    put(root, [line(1), line(2)[:40]], 1)
    put_live(root, 2)
    name = f"{SegmentName(WRITER, 1)}.{len(line(1))}.torn"
    planted(root / "recovery" / name)
    (done,) = recover(root).writers
    assert (done.error, done.torn_bytes) == (None, 40)
    assert (root / "recovery" / f"{name}.2").read_bytes() == line(2)[:40]


# -- directories -----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["segments", "live", "recovery", "archive"])
async def test_a_directory_of_the_ledger_that_is_a_link_is_refused_by_name(
    root: Path, part: str, tmp_path: Path
) -> None:
    there = root / part
    if there.exists():
        there.rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").mkdir()
    there.symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in (tmp_path / "elsewhere").iterdir())
    ledger = Ledger(root)
    for use in (
        lambda: list(ledger.records()),
        ledger.verify,
        lambda: ledger.report(["model"]),
        lambda: recover(root),
        lambda: compact(root, until=date(2030, 1, 1)),
        lambda: examine(ledger),
        lambda: Follower(ledger.path),
    ):
        with pytest.raises(LedgerPathError, match=f"'{part}' is a symbolic link"):
            use()
    with pytest.raises(LedgerPathError, match=f"'{part}' is a symbolic link"):
        async with UsageTracker(root):
            pass
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == before


async def test_a_ledger_that_is_itself_a_link_is_used_as_ever(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.symlink_to(root)
    async with UsageTracker(other) as tracker:
        await tracker.record(UsageRecord(model="m"))
    assert len(list(Ledger(other).records())) == 4
    assert Ledger(root).verify().ok


def test_a_directory_that_becomes_a_link_between_two_steps_is_not_followed(
    root: Path, tmp_path: Path
) -> None:
    path = root / "segments" / "file"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(SECRET)
    (root / "segments").rename(tmp_path / "real")
    (root / "segments").symlink_to(elsewhere)
    for use in (
        lambda: read_file(path),
        lambda: REAL.open(path),
        lambda: REAL.create(root / "segments" / "new"),
        lambda: REAL.rename(path, root / "segments" / "new"),
        lambda: REAL.unlink(path),
    ):
        with pytest.raises(OSError, match="refused, because it is a symbolic link") as caught:
            use()
        assert str(root / "segments") in str(caught.value)
    assert [file.name for file in elsewhere.iterdir()] == ["file"]


# -- the one way -----------------------------------------------------------------------------------


def test_a_device_is_refused_without_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    really = os.open

    def watched(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        opened.append(path)
        return really(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", watched)
    with pytest.raises(OSError, match="a device and not a regular file"):
        open_regular(Path("/dev/null"))
    assert opened == ["/dev"]


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_what_is_put_in_place_of_a_file_between_the_look_and_the_opening_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: int
) -> None:
    (tmp_path / "d").mkdir()
    path = tmp_path / "d" / "file"
    really = os.stat
    for plant in (link, fifo):
        path.unlink(missing_ok=True)
        path.write_bytes(b"ours")

        def swapped(name: Any, plant: Plant = plant, **kwargs: Any) -> os.stat_result:
            state = really(name, **kwargs)
            path.unlink()
            plant(path)
            return state

        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", swapped)
            with pytest.raises(OSError, match=str(path)):
                open_regular(path, flags)


def test_an_error_names_the_whole_path(tmp_path: Path) -> None:
    for path in (tmp_path / "gone", tmp_path / "no" / "directory"):
        for use in (read_file, REAL.open, REAL.unlink):
            with pytest.raises(FileNotFoundError) as caught:
                use(path)
            assert caught.value.filename == str(path)
    with pytest.raises(FileExistsError) as exists:
        REAL.create(tmp_path)
    assert exists.value.filename == str(tmp_path)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    (tmp_path / "segments").mkdir()
    fifo(tmp_path / "segments" / "pipe")
    for name in ("pipe", "gone"):
        with pytest.raises(OSError, match=name):
            read_file(tmp_path / "segments" / name)
    os.close(REAL.create(tmp_path / "segments" / "file"))
    assert stat.S_ISREG((tmp_path / "segments" / "file").stat().st_mode)
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


@EACH
def test_the_search_for_a_job_waits_for_nothing_and_follows_nothing(
    root: Path, plant: Plant, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    plant(segment(root, None))
    meta = {"background": {"status": "completed", "counted": True}}
    put(root, [line(4, writer=OTHER, response_id="resp_1", meta=meta)], 4, 4, OTHER)
    assert on_ledger(root, "resp_1", 0.0)
    assert not on_ledger(root, "resp_2", 0.0)
    if kind != "a symbolic link":
        return
    secret = root.parent / "counted"
    secret.write_bytes(line(1, response_id="resp_2", meta=meta))
    segment(root, None).unlink()
    segment(root, None).symlink_to(secret)
    assert not on_ledger(root, "resp_2", 0.0)
    assert "refused, because it is a symbolic link" in caplog.text
