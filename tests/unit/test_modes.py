"""Who may read a ledger: its owner, and a group if that is asked for; whatever the umask is."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.ledgers import WRITER, directory, line, lines, put, put_live

from litellm_ledger import Ledger, LedgerPathError, LiteLLMClient, UsageRecord, UsageTracker
from litellm_ledger._aggregates.question import Question
from litellm_ledger._cli.export import export_records
from litellm_ledger._maintenance import recover as _recovery
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._reports.doctor import examine

pytestmark = pytest.mark.anyio

LATER = date(2999, 1, 1)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="umask {0:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    try:
        yield request.param
    finally:
        os.umask(before)


def modes(root: Path) -> dict[str, int]:
    """The mode of everything in a ledger, and its own, by path."""
    there = [root, *root.rglob("*")]
    return {str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode) for path in there}


def assert_modes(root: Path, directories: int, files: int) -> None:
    for name, mode in modes(root).items():
        wanted = directories if (root / name).is_dir() else files
        assert mode == wanted, f"{name} has {mode:o}"


async def record(root: Path, **options: Any) -> None:
    async with UsageTracker(root, **options) as tracker:
        await tracker.record(UsageRecord(model="m", content={"request": "a prompt"}))


def die(root: Path) -> None:
    """Leave what a killed writer leaves: a torn segment and its counters."""
    segment = put(root, [*lines(1, 2), line(3)[:50]], 1)
    live = put_live(root, 4)
    for path in (segment, live):
        path.chmod(0o600)


async def test_a_ledger_and_its_parents_are_private_under_any_umask(
    tmp_path: Path, umask: int
) -> None:
    root = tmp_path / "a" / "usage"
    tracker = UsageTracker(root)
    await tracker.open()
    await tracker.record(UsageRecord(model="m", content={"request": "a prompt"}))
    assert len(modes(root)) == 6, "an open segment and a live file among them"
    assert_modes(root.parent, 0o700, 0o600)
    await tracker.aclose()
    assert compact(root, until=LATER).segments == 1
    die(root)
    (done,) = recover(root).writers
    assert done.torn_bytes
    assert {"archive", "recovery"} <= set(modes(root))
    assert len([name for name in modes(root) if name.startswith("recovery/")]) == 1
    assert_modes(root.parent, 0o700, 0o600)


@pytest.mark.parametrize(("mode", "files"), [(0o750, 0o640), (0o770, 0o660)], ids="{0:o}".format)
async def test_a_ledger_is_shared_with_a_group_by_mode_under_any_umask(
    tmp_path: Path, umask: int, mode: int, files: int
) -> None:
    root = tmp_path / "usage"
    await record(root, mode=mode)
    assert_modes(root, mode, files)
    await record(root)  # who comes later need not say it again
    assert compact(root, until=LATER).segments == 2
    assert_modes(root, mode, files)


async def test_a_shared_ledger_keeps_what_recovery_sets_aside_for_its_owner(
    tmp_path: Path, umask: int
) -> None:
    root = tmp_path / "usage"
    await record(root, mode=0o770)
    die(root)
    damaged = put(root, [line(1), b"rubbish\n", line(3)], 1, writer=WRITER.replace("Z-0", "Z-1"))
    damaged.chmod(0o660)
    put_live(root, 3, writer=WRITER.replace("Z-0", "Z-1")).chmod(0o660)
    assert len(recover(root).writers) == 2
    found = modes(root)
    kept = {name: mode for name, mode in found.items() if name.startswith("recovery/")}
    assert len(kept) == 2
    assert set(kept.values()) == {0o600}
    assert found["recovery"] == 0o770
    written = [mode for name, mode in found.items() if "0000000000000004" in name]
    assert written == [0o660], "what recovery writes into segments/ is the group's as well"


@pytest.mark.parametrize("damage", ["cut", "set aside", "garbled counters"])
def test_copies_in_recovery_are_private_in_a_ledger_that_everybody_can_read(
    tmp_path: Path, umask: int, damage: str
) -> None:
    root = directory(tmp_path / "usage")
    for part in (root, *root.iterdir()):
        part.chmod(0o777)
    torn = [line(1), line(2)[:50]] if damage == "cut" else [b"rubbish\n", line(2)]
    put(root, torn, 1).chmod(0o666)
    live = put_live(root, 2)
    if damage == "garbled counters":
        live.write_bytes(b"nonsense")
    live.chmod(0o666)
    recover(root)
    kept = [path for path in (root / "recovery").iterdir() if path.is_file()]
    assert kept
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


async def test_a_ledger_made_before_keeps_its_group_and_gives_nothing_more_to_the_others(
    tmp_path: Path, umask: int
) -> None:
    root = directory(tmp_path / "usage")
    for part in (root, *root.iterdir()):
        part.chmod(0o755)
    await record(root)
    (segment,) = (root / "segments").iterdir()
    assert stat.S_IMODE(segment.stat().st_mode) == 0o640
    compact(root, until=LATER)
    assert modes(root)["archive"] == 0o750
    note = [finding for finding in examine(Ledger(root)) if finding.check == "readable"]
    assert [finding.level for finding in note] == ["note"]
    for part in (root, *root.rglob("*")):
        part.chmod(stat.S_IMODE(part.stat().st_mode) & 0o770)
    assert not [finding for finding in examine(Ledger(root)) if finding.check == "readable"]


async def test_mode_shares_a_ledger_that_was_private(tmp_path: Path) -> None:
    root = tmp_path / "usage"
    await record(root)
    await record(root, mode=0o750)
    found = modes(root)
    assert [found[part] for part in ("segments", "live", "recovery")] == [0o750] * 3
    assert sorted(mode for name, mode in found.items() if name.startswith("segments/")) == [
        0o600,  # what was recorded while it was private stays so
        0o640,
    ]


async def test_a_set_group_id_bit_is_kept_so_that_files_belong_to_the_group(tmp_path: Path) -> None:
    root = tmp_path / "usage"
    root.mkdir()
    root.chmod(0o2770)
    await record(root, mode=0o770)
    found = modes(root)
    assert {found[part] for part in (".", "segments", "live", "recovery")} == {0o2770}
    compact(root, until=LATER)
    assert modes(root)["archive"] == 0o2770


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o707, 0o600, 0o070, 0o1770, 0o4700, True, "0750"])
def test_a_mode_that_locks_the_owner_out_or_lets_everybody_in_is_refused(
    tmp_path: Path, mode: Any
) -> None:
    for kind in (UsageTracker, LiteLLMClient):
        with pytest.raises(ValueError, match="mode must be 0o700"):
            kind(tmp_path / "usage", mode=mode)


async def test_the_client_takes_a_mode(tmp_path: Path) -> None:
    client = LiteLLMClient(tmp_path / "usage", mode=0o750)
    await client.usage.record(UsageRecord(model="m"))
    await client.aclose()
    assert_modes(tmp_path / "usage", 0o750, 0o640)


@pytest.mark.parametrize("form", ["json", "csv", "parquet"])
@pytest.mark.parametrize("prompts", [True, False], ids=["prompts", "none"])
def test_an_export_that_holds_prompts_is_private_and_another_follows_the_umask(
    tmp_path: Path, umask: int, form: str, prompts: bool
) -> None:
    root = directory(tmp_path / "usage")
    content = {"request": "a prompt"} if prompts else None
    put(root, [line(1), line(2, content=content), line(3)], 1, 3)
    out = tmp_path / "export"
    export_records(Ledger(root), Question(), ("usage",), form, out)
    assert (b"a prompt" in out.read_bytes()) is prompts
    assert stat.S_IMODE(out.stat().st_mode) == (0o600 if prompts else 0o666 & ~umask)


# -- what an opening says --------------------------------------------------------------------------


async def test_a_read_only_file_system_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = directory(tmp_path / "usage")
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)
    with pytest.raises(LedgerPathError, match="make it writable for this user") as denied:
        await record(root)
    assert denied.value.errno == errno.EACCES
    statvfs = os.statvfs

    class ReadOnly:
        f_flag = statvfs(root).f_flag | os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda path: ReadOnly)
    with pytest.raises(LedgerPathError, match="file system is read-only; choose another") as said:
        await record(root)
    assert said.value.errno == errno.EROFS


async def test_an_opening_says_what_a_dead_process_left_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = directory(tmp_path / "usage")
    put(root, [line(1, "started"), line(2, "started"), line(3)], 1)
    put_live(root, 7, written=3, oldest=1)
    with caplog.at_level(logging.INFO, "litellm_ledger"):
        await record(root)
    (said,) = [r for r in caplog.records if "died" in r.getMessage()]
    assert said.getMessage() == (
        f"the previous process died: 2 calls unsettled, 4 records lost (writer {WRITER})"
    )
    assert said.levelno == logging.WARNING
    assert "RecoveredWriter" not in caplog.text


async def test_an_opening_says_it_quietly_where_nothing_was_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = directory(tmp_path / "usage")
    put(root, lines(1, 3), 1)
    put_live(root, 3)
    with caplog.at_level(logging.INFO, "litellm_ledger"):
        await record(root)
    (said,) = [r for r in caplog.records if "died" in r.getMessage()]
    assert said.getMessage() == f"the previous process died: nothing lost (writer {WRITER})"
    assert said.levelno == logging.INFO


async def test_an_opening_says_at_least_where_the_machine_was_restarted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = directory(tmp_path / "usage")
    put(root, lines(1, 3), 1)
    put_live(root, 4, boot="other")
    await record(root)
    assert "the previous process died: at least 1 record lost (writer" in caplog.text


async def test_an_opening_as_another_user_does_not_claim_that_a_writer_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = directory(tmp_path / "usage")
    live = put_live(root, 3)

    def denied(path: Path) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "litellm_ledger"):
        patch.setattr(_recovery, "lock", denied)
        await record(root)
    said = [r.getMessage() for r in caplog.records if WRITER in r.getMessage()]
    assert len(said) == 1
    assert "left unchanged" in said[0]
    assert "Permission denied" in said[0]
    assert "the previous process died" not in caplog.text
    assert "recovered" not in caplog.text
    assert live.exists()
