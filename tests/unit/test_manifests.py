"""Manifests: what they say, who believes them, and that a lie is found."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.generated import make_ledger
from tests.ledger_by_hand import NOON, OTHER_WRITER, HandMade, spoil

from litellm_ledger import Ledger, UnsupportedFormat
from litellm_ledger._aggregates.calendar import PERIODS
from litellm_ledger._aggregates.quarters import Limits
from litellm_ledger._archive import archive as _archive
from litellm_ledger._archive.archive import packed_manifests
from litellm_ledger._maintenance import compact as _compacting
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading import anchor as _anchor
from litellm_ledger._reading import sealed as _sealed
from litellm_ledger._reading.anchor import Anchor, anchor, read_anchors
from litellm_ledger._records.layout import MANIFESTS, SEGMENTS, SegmentName
from litellm_ledger._records.record import KEYS as _KEYS
from litellm_ledger._reports import by_manifest as _by_manifest
from litellm_ledger._reports import engine as _engine
from litellm_ledger._storage import checked_files as _checked_files
from litellm_ledger._storage import contents as _contents
from litellm_ledger._storage import manifest as _manifest
from litellm_ledger._writing.sealer import Sealer
from litellm_ledger.testing import FaultyFileSystem

KEYS = [*_KEYS, *PERIODS, "tag:user", "tag:team é'\"", "tag:none"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "America/St_Johns"]
LATER = datetime(2030, 1, 1, tzinfo=UTC).date()


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path / "usage")


def manifest_of(segment: Path) -> Path:
    return segment.parent.parent / MANIFESTS / f"{segment.name}.json"


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest, and give it the checksums that make it look sound."""
    plain = json.loads(path.read_bytes())
    del plain["crc"]
    change(plain)
    write_sound(path, json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode())


def write_sound(path: Path, text: bytes) -> None:
    head, mark, rest = text[:-1].partition(b',"head":"')
    body = head + (mark + b"%08x" % zlib.crc32(head) + rest[8:] if mark else b"")
    path.write_bytes(body + b',"crc":"%08x"}\n' % zlib.crc32(body))


def problems(ledger: Ledger, **how: Any) -> list[str]:
    found = ledger.verify(**how)
    return [f"{p.what}: {p.detail}" for writer in found.writers for p in writer.problems]


# -- reports -----------------------------------------------------------------------------------


def a_question(rng: random.Random) -> dict[str, Any]:
    """Keys, zone, times and conditions, as people combine them."""
    keys = rng.sample(KEYS, rng.randrange(4))
    question: dict[str, Any] = {"by": keys, "tz": rng.choice(ZONES)}
    begin = datetime(2025, 1, 1, tzinfo=UTC)
    question["quantiles"] = rng.random() < 0.5
    minutes = rng.choice((1, 15, 60 * 24))
    for bound in ("since", "until"):
        if rng.random() < 0.3:
            question[bound] = begin + timedelta(minutes=minutes * rng.randrange(525_600 // minutes))
    for name in ("where", "where_not"):
        if rng.random() < 0.3:
            question[name] = rng.choice(
                ({"model": "gpt-4o-mini"}, {"status": ["ok", "abandoned"]}, {"user": "user-3"},
                 {"month": "2025-03"}, {"day": "2025-10-26"}, {"provider": ["openai", "(none)"]})
            )  # fmt: skip
    return question


def test_a_report_from_manifests_is_that_from_the_lines_to_the_picodollar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(7)
    root = tmp_path / "usage"
    make_ledger(root, 2_000, segment=40_000, damage=0.1)
    questions = [a_question(rng) for _ in range(40)]
    ledger = Ledger(root)

    questions += [{"by": ["provider", "user"], "limit": limit} for limit in (1, 7)]

    def answers(asked: slice) -> list[Any]:
        reports = [ledger.report(**question) for question in questions[asked]]
        return [(r.rows, r.total, r.others, r.in_flight, r.cut_off, r.known_tags) for r in reports]

    told: list[int] = []

    def spy(*args: Any) -> Any:
        found = real(*args)
        told.append(len(found.names))
        return found

    real = _by_manifest.add_sealed
    monkeypatch.setattr(_engine, "add_sealed", spy)
    every, some, others = slice(None), slice(None, None, 2), slice(1, None, 2)
    true = answers(every)
    assert not any(told)
    segments = list((root / SEGMENTS).iterdir())

    def holds(large: int, asked: slice) -> None:
        monkeypatch.setattr(_engine, "_LARGE", large)
        told.clear()
        assert answers(asked) == true[asked]
        assert sum(map(bool, told)) > len(true[asked]) // 2
        assert max(told) > len(segments) // 4

    seal(root)
    for path in rng.sample(list((root / MANIFESTS).iterdir()), 5):  # half sealed
        path.unlink()
    holds(2**60, every)
    holds(0, some)  # what manifests do not tell is the database's
    compact(root, until=datetime(2025, 6, 1, tzinfo=UTC).date())
    holds(0, others)
    holds(2**60, some)


@pytest.mark.parametrize("most", [1_000, 5, 0])
def test_a_clock_that_changes_within_a_quarter_is_no_matter(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """In Newfoundland clocks went back at one minute past midnight until 2011."""
    monkeypatch.setattr(_contents, "LIMITS", Limits(kept=most))
    before = datetime(2010, 11, 7, 2, 28, tzinfo=UTC)
    moments = [before + timedelta(seconds=40 * at) for at in range(8)]
    moments += [before + timedelta(minutes=15 * at) for at in range(-4, 9)]
    moments += [before + timedelta(hours=hours) for hours in (-30, -20, 20, 30)]
    hand.sealed(1, 25, [hand.line(n, ts=ts) for n, ts in enumerate(moments, 1)])
    ledger = Ledger(hand.root)
    asked = [ledger.report([every], tz="America/St_Johns").rows for every in ("hour", "day")]
    seal(hand.root)
    again = [ledger.report([every], tz="America/St_Johns").rows for every in ("hour", "day")]
    assert again == asked
    assert len(asked[0]) > 1


def test_a_day_that_comes_for_a_minute_and_goes_again_is_told(hand: HandMade) -> None:
    """In Newfoundland: what is before it and after it is of one day."""
    before = datetime(2010, 11, 7, 2, 15, tzinfo=UTC)
    moments = [before + timedelta(seconds=seconds) for seconds in (0, 15 * 60 + 30, 40 * 60)]
    hand.sealed(1, 3, [hand.line(n, ts=ts) for n, ts in enumerate(moments, 1)])
    ledger = Ledger(hand.root)
    asked = ledger.report(["day"], tz="America/St_Johns").rows
    seal(hand.root)
    assert ledger.report(["day"], tz="America/St_Johns").rows == asked
    assert [row.calls for row in asked] == [2, 1]


def test_outcomes_of_any_time_and_sum_are_added_up(hand: HandMade) -> None:
    most = Decimal(2**63 - 1) / 10**12
    early = hand.line(3, ts=datetime(2, 1, 1, tzinfo=UTC), cost=Decimal(1))
    hand.sealed(1, 3, [hand.line(1, ts=None), hand.line(2, ts=None, cost=-most), early])
    hand.sealed(4, 5, [hand.line(4, cost=most), hand.line(5, cost=most)])
    hand.sealed(6, 8, [hand.line(n, tags={f"t{n}-{i}": "v" for i in range(20)}) for n in (6, 7, 8)])
    ledger = Ledger(hand.root)
    asked = [["day"], ["month", "model"], ["tag:t6-1"], []]
    true = [[*ledger.report(by).rows, ledger.report(by).total] for by in asked]
    assert len(seal(hand.root).manifests) == 3
    assert [[*ledger.report(by).rows, ledger.report(by).total] for by in asked] == true
    assert ledger.verify(full=True).ok


@pytest.mark.parametrize("real_first", [True, False])
def test_an_unsettled_call_that_another_segment_settles_counts_once(
    hand: HandMade, real_first: bool
) -> None:
    real = [hand.outcome(2, of=1, status="ok", cost=Decimal(1)), hand.line(3)]
    hand.sealed(1, 1, [hand.started(1)])
    hand.sealed(2, 3, real)
    hand.sealed(4, 4, [hand.outcome(4, of=1, status="unsettled")])
    ledger = Ledger(hand.root)
    true = ledger.report(["status"])
    seal(hand.root)
    if not real_first:
        manifest_of(hand.root / SEGMENTS / f"{hand.writer}.{2:016d}-{3:016d}.jsonl").unlink()
    assert ledger.report(["status"]).rows == true.rows
    assert true.total.unsettled == 0
    assert ledger.verify().writers[0].unsettled == 0


def test_a_call_that_began_in_a_sealed_segment_is_in_flight(hand: HandMade) -> None:
    hand.sealed(1, 2, [hand.started(1), hand.started(2)])
    seal(hand.root)
    hand.open(3, [hand.outcome(3, of=2)])
    hand.live(3, oldest=1)
    found = Ledger(hand.root).report()
    assert (found.cut_off, found.total.calls) == (1, 1)


@pytest.mark.parametrize("large", [2**60, 0], ids=["line by line", "database"])
def test_one_who_reads_while_another_process_makes_manifests_sees_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(_engine, "_LARGE", large)
    root = tmp_path / "usage"
    make_ledger(root, 600, segment=15_000)
    ledger = Ledger(root)
    questions: list[dict[str, Any]] = [
        {"by": ["day"]},
        {"by": ["model"], "quantiles": True},
        {"by": ["user"], "tz": "Asia/Kathmandu", "where": {"status": "ok"}},
    ]

    def answers() -> list[Any]:
        reports = [ledger.report(**question) for question in questions]
        return [(report.rows, report.total, report.in_flight) for report in reports]

    true = answers()
    code = f"""
import shutil, sys
from pathlib import Path
from litellm_ledger._maintenance.seal import seal
root = Path({str(root)!r})
while True:
    made = len(seal(root).manifests)
    print(made, flush=True)
    shutil.rmtree(root / "manifests")
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert int(child.stdout.readline()) > 10
            for _ in range(5):
                assert answers() == true
            assert int(child.stdout.readline()) > 10
        finally:
            child.kill()
    seal(root)
    assert answers() == true
    assert problems(ledger, full=True) == problems(ledger)


def test_every_process_makes_the_same_manifest(hand: HandMade) -> None:
    """``verify --full`` compares with one that another process has made."""
    tags = {f"tag-{n}": str(n) for n in range(60)}
    segment = hand.sealed(1, 3, hand.lines(1, 3, tags=tags))
    code = f"""
from pathlib import Path
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._storage.contents import make
path = Path({str(segment)!r})
print(sorted(make(path, SegmentName.parse(path.name)).tag_tables))
"""
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(made) == 1


# -- who believes ------------------------------------------------------------------------------


def test_a_manifest_of_other_bytes_is_not_believed(hand: HandMade) -> None:
    segment = hand.sealed(1, 2)
    seal(hand.root)
    segment.write_bytes(b"".join(hand.lines(1, 2, cost=Decimal(5))))
    ledger = Ledger(hand.root)
    assert ledger.report().total.cost == 10
    assert problems(ledger) == ["altered: is not what its manifest says; restore it from a backup"]


def test_compacted_segments_are_told_by_their_manifests_if_they_are_what_these_say(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = hand.sealed(1, 3, hand.lines(1, 3, cost=Decimal(5)))
    ledger = Ledger(hand.root)
    true = ledger.report().total
    compact(hand.root, until=LATER)
    assert not segment.exists()
    with monkeypatch.context() as patched:
        patched.setattr(_archive, "_reader", None)  # there is no database
        assert ledger.report().total == true

    def lie(manifest: dict[str, Any]) -> None:
        for table in ("short", "table"):
            manifest[table]["groups"][0]["sums"]["calls"] = [7]

    sound = manifest_of(segment).read_bytes()
    rewrite(manifest_of(segment), lie)
    assert ledger.report().total.calls == 7, "false sums with true digests are for verify --full"
    for member in ("sha256", "lines"):
        manifest_of(segment).write_bytes(sound)
        rewrite(manifest_of(segment), lambda m, at=member: (lie(m), m.update({at: m[at] * 2})))
        assert ledger.report().total == true
    manifest_of(segment).unlink()
    assert ledger.report().total == true


def test_the_archive_keeps_manifests_that_seal_puts_back(hand: HandMade, tmp_path: Path) -> None:
    hand.sealed(1, 3, hand.lines(1, 3, model="é" * 100))
    hand.sealed(4, 5, [hand.line(4), hand.gap(5, 5)])
    compact(hand.root, until=LATER)
    there = {path.name: path.read_bytes() for path in (hand.root / MANIFESTS).iterdir()}
    assert len(there) == 2
    copy = tmp_path / "copy"
    shutil.copytree(hand.root / "archive", copy / "archive")
    assert Ledger(copy).report().total == Ledger(hand.root).report().total
    assert [*seal(copy).manifests] == sorted(f"{MANIFESTS}/{name}" for name in there)
    assert {path.name: path.read_bytes() for path in (copy / MANIFESTS).iterdir()} == there
    assert seal(copy).manifests == ()
    first, second = sorted((copy / MANIFESTS).iterdir())
    first.unlink()
    second.write_bytes(b"x")  # what is there stays as it is
    assert len(seal(copy).manifests) == 1
    assert (first.read_bytes(), second.read_bytes()) == (there[first.name], b"x")


@pytest.mark.parametrize("member", ["sha256", "lines", "segment", "crc", "all"])
def test_no_manifest_is_put_back_that_is_not_of_what_the_archive_holds(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    segment = hand.sealed(1, 3)
    seal(hand.root)
    other = hand.root / "other"
    other.write_bytes(manifest_of(segment).read_bytes())
    if member != "crc":
        rewrite(other, lambda plain: plain.update({member: plain.get(member, "") * 2}))
    data = other.read_bytes().replace(b'"crc":"', b'"crc":"0' if member == "crc" else b'"crc":"')
    kept = b"\xff{\n[]\n\n" if member == "all" else data
    monkeypatch.setattr(_compacting, "packed_manifests", lambda _: packed_manifests([kept]))
    compact(hand.root, until=LATER)
    manifest_of(segment).unlink()
    assert seal(hand.root).manifests == ()
    assert not manifest_of(segment).exists()


def test_what_was_checked_is_remembered_by_the_next_process_until_the_file_changes(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_checked_files, "_WORTH_KEEPING", 0)
    segment = hand.sealed(1, 2)
    seal(hand.root)
    read: list[str] = []

    def noted(file: Any) -> str:
        read.append(file.name)
        return real(file)

    real = _sealed._checksum
    monkeypatch.setattr(_sealed, "_checksum", noted)
    for _ in range(3):
        assert Ledger(hand.root).report().total.calls == 2
        _checked_files._known.clear()  # as in a new process
    assert len(read) == 1
    state = segment.stat()
    forged = b"".join(hand.lines(1, 2)).replace(b'"m"', b'"n"')
    segment.write_bytes(forged)
    os.utime(segment, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (segment.stat().st_size, segment.stat().st_mtime_ns) == (len(forged), state.st_mtime_ns)
    assert Ledger(hand.root).report().total.calls == 0, "the lines, which are damaged"
    assert len(read) == 2


def test_what_was_checked_is_kept_through_no_link(
    hand: HandMade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of caches may be one that others can write to."""
    monkeypatch.setattr(_checked_files, "_WORTH_KEEPING", 0)
    hand.sealed(1, 2)
    seal(hand.root)
    kept, victim = tmp_path / "cache" / "kept.json", tmp_path / "victim"
    monkeypatch.setattr(_checked_files, "cache_file", lambda *_: kept)
    kept.parent.mkdir()
    for name in (f"kept.{os.getpid()}.tmp", kept.name):
        (kept.parent / name).symlink_to(victim)
    victim.write_text("precious")
    assert Ledger(hand.root).report().total.calls == 2
    assert victim.read_text() == "precious"
    assert not kept.is_symlink()
    assert kept.stat().st_size > 0


def test_a_call_whose_beginning_stands_in_two_segments_counts_once(hand: HandMade) -> None:
    hand.sealed(1, 3, [hand.line(1), hand.line(2), hand.started(3)])
    hand.sealed(3, 4, [hand.started(3), hand.outcome(4, 3)])
    seal(hand.root)
    (writer,) = Ledger(hand.root).verify().writers
    assert (writer.found, writer.in_flight, writer.ok) == (4, 0, True)


def test_a_damaged_manifest_is_passed_over_and_named(hand: HandMade) -> None:
    segment = hand.sealed(1, 2)
    seal(hand.root)
    manifest_of(segment).write_bytes(manifest_of(segment).read_bytes()[:-30])
    ledger = Ledger(hand.root)
    assert ledger.report().total.calls == 2
    assert problems(ledger) == ["damaged: is no manifest; remove it, then run litellm-ledger seal"]
    assert [p.what for p in seal(hand.root).left] == ["damaged"]
    manifest_of(segment).unlink()
    assert seal(hand.root).left == ()
    assert ledger.verify(full=True).ok


def test_a_manifest_of_a_newer_version_is_not_judged(hand: HandMade) -> None:
    segment = hand.sealed(1, 2)
    seal(hand.root)
    rewrite(manifest_of(segment), lambda plain: plain.update(v=2))
    assert Ledger(hand.root).report().total.calls == 2
    for judge in (Ledger(hand.root).verify, lambda: seal(hand.root), lambda: anchor(hand.root)):
        with pytest.raises(UnsupportedFormat, match="version 2"):
            judge()


def test_more_gaps_than_lines_are_no_manifest(hand: HandMade) -> None:
    segment = hand.sealed(1, 1)
    seal(hand.root)
    rewrite(manifest_of(segment), lambda plain: plain.update(gaps=[[1, 1, "lost", None]] * 5))
    assert anchor(hand.root).records == 0
    assert [p.partition(":")[0] for p in problems(Ledger(hand.root))] == ["damaged"]


def test_a_segment_that_is_not_whole_gets_none(hand: HandMade) -> None:
    spoil(hand.sealed(1, 3), line=1)
    hand.sealed(4, 5, hand.lines(4, 4))
    done = seal(hand.root)
    assert (done.manifests, [p.what for p in done.left]) == ((), ["damaged", "damaged"])


def test_a_deleted_segment_is_missed(hand: HandMade) -> None:
    hand.sealed(1, 3)
    last = hand.sealed(4, 6)
    seal(hand.root)
    last.unlink()
    found = Ledger(hand.root).verify()
    assert (found.ok, found.total("lost")) == (False, 3)
    assert problems(Ledger(hand.root)) == [
        "missing: there is only its manifest, of 3 records; restore it"
    ]


LIES: dict[str, Any] = {
    "segment": "20250101T000000Z-00000000000000aa.0000000000000001-0000000000000009.jsonl",
    "previous": "0" * 64,
    "size": 5,
    "lines": 4,
    "crc32": "00000000",
    "sha256": "0" * 64,
    "plain": True,
    "earliest": "2020-01-01T00:00:00.000000Z",
    "latest": None,
    "gaps": [],
    "open": [["x", 1]],
    "closed": [["x", 1]],
    "unsettled": [],
    "tags": ["other"],
    "keys": ["model"],
    "sums": ["calls"],
    "limits": {"kept": 0, "share": 4, "rows": 0},
    "short": None,
    "head": "00000000",
    "durations": None,
    "table": None,
    "tag_tables": {},
}


@pytest.mark.parametrize("member", LIES)
def test_a_manifest_that_lies_is_found(hand: HandMade, member: str) -> None:
    tagged = [hand.line(n, tags={"user": "a"}, cost=Decimal(1)) for n in (2, 3)]
    unsettled = hand.line(4, status="unsettled", operation=hand.id(4))
    segment = hand.sealed(1, 6, [hand.started(1), *tagged, unsettled, hand.gap(5, 6)])
    hand.sealed(7, 8)
    seal(hand.root)
    ledger = Ledger(hand.root)
    before = problems(ledger, full=True)
    said = json.loads(manifest_of(segment).read_bytes())[member]
    assert said != LIES[member]
    path = manifest_of(segment)
    if member == "head":
        data = path.read_bytes().replace(said.encode(), LIES[member].encode())
        path.write_bytes(data[:-19] + b',"crc":"%08x"}\n' % zlib.crc32(data[:-19]))
    else:
        rewrite(path, lambda plain: plain.__setitem__(member, LIES[member]))
    assert len(problems(ledger, full=True)) > len(before)
    assert problems(ledger), "the chain breaks without looking at a line"


@pytest.mark.parametrize("table", ["table", "short"])
@pytest.mark.parametrize("name", ["calls", "pico", "input_tokens", "quarters", "of"])
def test_sums_that_lie_are_found_by_the_lines(hand: HandMade, name: str, table: str) -> None:
    segment = hand.sealed(1, 2, hand.lines(1, 2, cost=Decimal(1), input_tokens=3))
    seal(hand.root)

    def change(plain: dict[str, Any]) -> None:
        group = plain[table]["groups"][0]
        if name == "of":
            group["of"][0] = "cheap"
        elif name == "quarters":
            group["quarters"][0] += 4
        else:
            group["sums"][name][0] -= 1

    rewrite(manifest_of(segment), change)
    (found,) = problems(Ledger(hand.root), full=True)
    assert found == f"altered: is not what the lines say: {table}"


@pytest.mark.parametrize("at", ["of", "quarters", "least", "most", "buckets", "counts"])
@pytest.mark.parametrize("name", ["latency_ms", "ttft_ms"])
def test_durations_that_lie_are_found_by_the_lines(hand: HandMade, name: str, at: str) -> None:
    lines = [hand.line(n, latency_ms=10.0 * n, ttft_ms=float(n)) for n in (1, 2)]
    segment = hand.sealed(1, 2, lines)
    seal(hand.root)

    def change(plain: dict[str, Any]) -> None:
        group = plain["durations"]["groups"][0]
        if at == "of":
            group["of"][0] = "fast"
        elif at == "quarters":
            group["quarters"][0] += 4
        elif at in ("least", "most"):
            group[name][0][at == "most"] += 0.25
        else:
            group[name][0][2 + (at == "counts")][-1] += 1

    rewrite(manifest_of(segment), change)
    (found,) = problems(Ledger(hand.root), full=True)
    assert found == "altered: is not what the lines say: durations"


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [None, None],
        [[1.0, 2.0, [], []]],
        [[1.0, 2.0, [300], [1, 1]]],
        [[1.0, 2.0, [300, 0], [1, 1]]],
        [[1.0, 2.0, [300, -5], [1, 1]]],
        [[1.0, 2.0, [300], [0]]],
        [[1.0, 2.0, [300], [10**30]]],
        [[1.0, 2.0, [10**9], [1]]],
        [[1.0, 2.0, [65_000, 65_000], [1, 1]]],
        [[2.0, 1.0, [300], [1]]],
        [["fast", 1.0, [300], [1]]],
        [[1.0]],
    ],
)
def test_durations_that_make_no_sense_are_passed_over(hand: HandMade, cells: Any) -> None:
    segment = hand.sealed(1, 2, hand.lines(1, 2, latency_ms=7.0))
    seal(hand.root)
    true = Ledger(hand.root).report(quantiles=True)

    def change(plain: dict[str, Any]) -> None:
        plain["durations"]["groups"][0]["latency_ms"] = cells

    rewrite(manifest_of(segment), change)
    found = Ledger(hand.root).report(quantiles=True)
    assert found.total.calls == 2
    assert found.total.latency_ms in ((None,) if cells == [] else (true.total.latency_ms,))
    assert problems(Ledger(hand.root), full=True)


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_member_that_is_there_twice_is_found(hand: HandMade, where: str) -> None:
    """One who reads the first part, and one who reads it all, must not see two sums."""
    path = manifest_of(hand.sealed(1, 2, hand.lines(1, 2, cost=Decimal(1))))
    seal(hand.root)
    data = path.read_bytes()[:-19] + b"}"
    mark = b',"short":{"groups"'
    short = mark + data.partition(mark)[2].partition(b',"head":')[0]
    assert b"2000000000000" in short
    false = short.replace(b"2000000000000", b"1000000000000")
    data = data.replace(short, false, 1)
    write_sound(
        path, data[:-1] + short + b"}" if where == "after" else data.replace(false, short + false)
    )
    assert problems(Ledger(hand.root), full=True)


# -- limits ------------------------------------------------------------------------------------


def test_a_later_change_of_limits_makes_no_older_manifest_look_altered(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = [{f"t{at}": str(n % at) for at in range(1, 8)} for n in range(50)]
    for first in (1, 51):
        lines = [hand.line(first + n, tags=tags[n], model=f"m{n % 9}") for n in range(50)]
        hand.sealed(first, first + 49, lines)
        seal(hand.root)
        small = Limits(kept=4, share=9, steps=(1, 96), values=3, tags=4, all_rows=40, short=2)
        monkeypatch.setattr(_contents, "LIMITS", small)
    assert problems(Ledger(hand.root), full=True) == []


@pytest.mark.parametrize(
    "limits",
    [
        {"rows": 10**9},
        {"all_rows": 10**9},
        {"kept": 10**9},
        {"share": 0},
        {"short": 10**9},
        {"tags": 10**9},
        {"values": 10**9},
        {"fold": 1},
        {"fold": 10**9},
        {"steps": []},
        {"steps": [0]},
        {"steps": [-1, 1]},
        {"steps": [1, 5]},
        {"steps": [4, 1]},
        {"steps": [1] * 10**5},
        {"rows": "many"},
    ],
)
def test_limits_out_of_bounds_are_no_manifest(hand: HandMade, limits: dict[str, Any]) -> None:
    path = manifest_of(hand.sealed(1, 2))
    seal(hand.root)
    rewrite(path, lambda plain: plain["limits"].update(limits))
    assert Ledger(hand.root).report().total.calls == 2
    assert problems(Ledger(hand.root), full=True) == [
        "damaged: is no manifest; remove it, then run litellm-ledger seal"
    ]


def test_a_manifest_without_limits_was_made_with_those_of_its_time(hand: HandMade) -> None:
    path = manifest_of(hand.sealed(1, 2))
    seal(hand.root)

    def as_before(plain: dict[str, Any]) -> None:
        for member in ("limits", "short", "head", "durations"):
            del plain[member]

    rewrite(path, as_before)
    assert problems(Ledger(hand.root), full=True) == []
    assert Ledger(hand.root).report(["day"]).total.calls == 2


@pytest.mark.parametrize(
    "groups",
    [
        [{"of": ["m"] * 8, "quarters": [1, 1], "sums": {"calls": [1, 1]}}],
        [{"of": ["m"] * 8, "quarters": [2, 1], "sums": {"calls": [1, 1]}}],
        [{"of": ["m"] * 8, "quarters": [1, None], "sums": {"calls": [1, 1]}}],
        [{"of": ["m"] * 7, "quarters": [1], "sums": {"calls": [1]}}],
        [{"of": ["m"] * 8, "quarters": [1], "sums": {"calls": [1, 2]}}],
        [{"of": ["m"] * 8, "quarters": [1], "sums": {"calls": [1], "other": [1]}}],
        [{"of": ["m"] * 8, "quarters": [], "sums": {"calls": []}}],
        [{"of": ["m"] * 8, "quarters": [10**12], "sums": {"calls": [1]}}],
        [{"of": ["m", "p", "c", "odd", "r", "e", "u", "c"], "quarters": [1], "sums": {}}],
        [{"of": ["m"] * 8, "quarters": [1], "sums": {"calls": [10**30]}}],
    ],
)
def test_tables_that_make_no_sense_are_passed_over(hand: HandMade, groups: Any) -> None:
    segment = hand.sealed(1, 2)
    seal(hand.root)
    rewrite(
        manifest_of(segment),
        lambda plain: plain.update(short={"groups": groups}, table={"groups": groups}),
    )
    for by in (["day"], ["status"]):
        found = Ledger(hand.root).report(by)
        assert (found.total.calls, found.total.cost) in ((2, 0), (1, 0))
    assert problems(Ledger(hand.root), full=True)


@pytest.mark.parametrize("sealed", ["~\x1b[31m", "9999", "", "2026-01-01T00:00:00.000000Z\n"])
def test_one_that_was_made_at_no_time_is_not_believed(hand: HandMade, sealed: str) -> None:
    path = manifest_of(hand.sealed(1, 2))
    seal(hand.root)
    rewrite(path, lambda plain: plain.update(sealed=sealed))
    assert any("is no manifest" in found for found in problems(Ledger(hand.root)))
    assert "\x1b" not in str(anchor(hand.root))


def test_tables_that_a_question_does_not_need_are_not_read(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [hand.line(n, tags={"user": "a"}, ts=NOON + timedelta(minutes=20 * n)) for n in (1, 2)]
    path = manifest_of(hand.sealed(1, 2, lines))
    monkeypatch.setattr(_contents, "LIMITS", Limits(short=1))
    seal(hand.root)
    read: list[str] = []
    real = _by_manifest.read
    monkeypatch.setattr(
        _by_manifest, "read", lambda root, name: (read.append(name.manifest), real(root, name))[1]
    )
    ledger = Ledger(hand.root)
    for by, tz, whole in (
        (["day"], "UTC", False),
        (["model"], "UTC", False),
        (["tag:nobody"], "UTC", False),
        (["tag:user"], "UTC", True),
        (["hour"], "Asia/Kathmandu", True),
    ):
        read.clear()
        assert ledger.report(by, tz=tz).total.calls == 2
        assert read == [path.name] * whole, by


@pytest.mark.parametrize("change", ["removed", "of another"])
def test_one_that_goes_before_its_tables_are_read_is_not_needed(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = manifest_of(hand.sealed(1, 2, [hand.line(n, tags={"user": "a"}) for n in (1, 2)]))
    seal(hand.root)
    real = _by_manifest.read

    def late(*args: Any) -> Any:
        path.unlink() if change == "removed" else rewrite(path, lambda p: p.update(sha256="0" * 64))
        return real(*args)

    monkeypatch.setattr(_by_manifest, "read", late)
    assert [row.calls for row in Ledger(hand.root).report(["user"]).rows] == [2]


def test_the_first_part_of_a_manifest_is_found_wherever_it_ends(hand: HandMade) -> None:
    lines = [hand.started(n) for n in range(1, 2_001)]
    hand.sealed(1, 2_001, [*lines, hand.line(2_001, tags={',"head":"00000000"': ',"head":"'})])
    seal(hand.root)
    (name,) = Ledger(hand.root).segments()
    head, whole = _manifest.read_head(hand.root, name), _manifest.read(hand.root, name)
    assert head is not None
    assert whole is not None
    assert (head.lines, len(head.open), head.tags) == (2_001, 2_000, whole[0].tags)
    assert head.short_table() == whole[0].short_table() == whole[0].table_of(None)
    assert problems(Ledger(hand.root), full=True) == []


def test_many_tables_are_not_kept_together(hand: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_contents, "LIMITS", Limits(all_rows=12))
    tags = [{f"t{at}": str(n % at) for at in range(1, 8)} for n in range(50)]
    hand.sealed(1, 50, [hand.line(n, tags=tags[n - 1]) for n in range(1, 51)])
    ledger = Ledger(hand.root)
    asked = [ledger.report([f"t{at}"]).rows for at in range(1, 8)]
    seal(hand.root)
    (name,) = ledger.segments()
    there = _manifest.read(hand.root, name)
    assert there is not None
    assert [*there[0].tag_tables] == ["t1", "t2", "t3", "t4"]
    assert [ledger.report([f"t{at}"]).rows for at in range(1, 8)] == asked
    assert problems(ledger, full=True) == []


@pytest.mark.parametrize("member", ["table", "open", "other"])
def test_one_that_nests_deep_is_passed_over(hand: HandMade, member: str) -> None:
    segment = hand.sealed(1, 2)
    seal(hand.root)
    rewrite(manifest_of(segment), lambda plain: plain.update({member: "NESTED"}))
    data = manifest_of(segment).read_bytes().replace(b'"NESTED"', b"[" * 100_000 + b"]" * 100_000)
    body = data[:-19]
    manifest_of(segment).write_bytes(body + b',"crc":"%08x"}\n' % zlib.crc32(body))
    assert Ledger(hand.root).report(["day"]).total.calls == 2
    assert problems(Ledger(hand.root), full=True)


# -- the chain, and anchors --------------------------------------------------------------------


def sealed_in_turn(hand: HandMade) -> list[Path]:
    """Four segments, and a manifest made after each."""
    segments = []
    for first in (1, 3, 5, 7):
        segments.append(hand.sealed(first, first + 1))
        seal(hand.root)
    return segments


def test_each_manifest_names_the_one_before_it(hand: HandMade) -> None:
    segments = sealed_in_turn(hand)
    plain = [json.loads(manifest_of(segment).read_bytes()) for segment in segments]
    assert plain[0]["previous"] is None
    assert len({one["previous"] for one in plain}) == 4
    assert [one["sealed"] for one in plain] == sorted(one["sealed"] for one in plain)
    assert Ledger(hand.root).verify().ok


def test_one_that_is_there_when_no_descriptor_is_left_is_followed(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its name, but neither can that be synced nor can it be read again."""
    for first in (1, 3, 5):
        hand.sealed(first, first + 1)
    disk = FaultyFileSystem()

    def exhausted(path: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(_contents, "read_file", exhausted)
    sealer = Sealer(disk, hand.root)
    for at, first in enumerate((1, 3, 5)):
        if at == 1:
            disk.fail("sync_directory", error=errno.EMFILE)
        sealer.add(SegmentName(hand.writer, first, first + 1), 100)
        sealer.finish(10.0)
        sealer._stopped = False
    assert len(list((hand.root / MANIFESTS).iterdir())) == 3
    assert problems(Ledger(hand.root), full=True) == []


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_manifest_taken_out_of_the_chain_is_missed(hand: HandMade, at: int) -> None:
    segments = sealed_in_turn(hand)
    manifest_of(segments[at]).unlink()
    segments[at].unlink()
    (found,) = problems(Ledger(hand.root))
    assert found.endswith("the manifest before it is gone, or was changed")
    seal(hand.root)
    assert len(problems(Ledger(hand.root))) == 1


def test_the_chain_goes_on_past_what_is_compacted(hand: HandMade) -> None:
    for first in (1, 3, 5):
        hand.sealed(first, first + 1)
        compact(hand.root, until=LATER)
        assert problems(Ledger(hand.root), full=True) == []
    assert keep(hand.root).records == 6


def test_a_sum_that_an_older_version_did_not_make_is_read_from_the_lines(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = hand.sealed(1, 2, hand.lines(1, 2, total_tokens=5))
    seal(hand.root)

    def as_before(plain: dict[str, Any]) -> None:
        plain["sums"].remove("total_tokens")
        del plain["table"]["groups"][0]["sums"]["total_tokens"]

    rewrite(manifest_of(segment), as_before)
    assert Ledger(hand.root).report().total.total_tokens == 10
    assert problems(Ledger(hand.root), full=True) == []


def test_two_that_follow_the_same_are_found(hand: HandMade) -> None:
    segments = sealed_in_turn(hand)
    second = json.loads(manifest_of(segments[1]).read_bytes())["previous"]
    rewrite(manifest_of(segments[3]), lambda plain: plain.update(previous=second))
    assert any("follows the same manifest" in found for found in problems(Ledger(hand.root)))


def anchored(root: Path) -> bool:
    return all(one.ok for one in Ledger(root).verify(anchors=root.parent / "anchors").anchors)


def keep(root: Path) -> Anchor:
    found = anchor(root)
    with (root.parent / "anchors").open("a") as file:
        file.write(f"2025-01-01 our ledger: {found} (by cron)\n")
    return found


def test_an_anchor_holds_while_a_ledger_grows(hand: HandMade) -> None:
    other = HandMade(hand.root, OTHER_WRITER)
    for hands, first in itertools.product((hand, other), (1, 3)):
        hands.sealed(first, first + 1)
        seal(hand.root)
        assert keep(hand.root).missing == 0
    assert keep(hand.root).records == 8
    other.sealed(5, 5)
    assert anchor(hand.root).missing == 1
    compact(hand.root, until=LATER)
    assert anchored(hand.root)
    assert len(read_anchors(hand.root.parent / "anchors")) == 5


def change(hand: HandMade, segments: list[Path]) -> None:
    segments[1].write_bytes(b"".join(hand.lines(3, 4, cost=Decimal(9))))
    for segment in segments[1:]:
        manifest_of(segment).unlink()


def take_away(hand: HandMade, segments: list[Path]) -> None:
    segments[3].unlink()
    manifest_of(segments[3]).unlink()


def add(hand: HandMade, segments: list[Path]) -> None:
    early = HandMade(hand.root, "20240101T000000Z-00000000000000aa").sealed(1, 2)
    seal(hand.root)
    made = "2024-01-01T00:00:00.000000Z"
    rewrite(manifest_of(early), lambda plain: plain.update(sealed=made))


def take_all_of_a_writer(hand: HandMade, segments: list[Path]) -> None:
    for segment in segments:
        manifest_of(segment).unlink()
        segment.unlink()


@pytest.mark.parametrize("forge", [change, take_away, add, take_all_of_a_writer])
def test_a_history_that_was_forged_with_new_manifests_does_not_hold_an_anchor(
    hand: HandMade, forge: Callable[[HandMade, list[Path]], None]
) -> None:
    segments = sealed_in_turn(hand)
    keep(hand.root)
    assert anchored(hand.root)
    forge(hand, segments)
    seal(hand.root)
    assert Ledger(hand.root).verify(full=True).ok, "without the anchor nothing is to be seen"
    assert not anchored(hand.root)


def test_while_somebody_writes_an_anchor_stays_behind(hand: HandMade) -> None:
    hand.sealed(1, 2)
    seal(hand.root)
    hand.live(2)
    now = datetime.now(UTC)
    assert anchor(hand.root, now=now).records == 0
    assert anchor(hand.root, now=now + timedelta(seconds=11)).records == 2


def test_an_anchor_holds_that_was_taken_while_manifests_were_made(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody writes, but another process seals: its manifests appear during the look."""
    others = [HandMade(hand.root, f"20250102T000000Z-{at:016x}") for at in range(4)]
    hand.sealed(1, 2)
    seal(hand.root)
    real = _anchor.list_manifests

    def list_and_seal(root: Path) -> list[SegmentName]:
        found = real(root)
        if others:
            others.pop().sealed(1, 2)
            seal(root)
        return found

    monkeypatch.setattr(_anchor, "list_manifests", list_and_seal)
    while others:
        keep(hand.root)
    assert anchored(hand.root)


def test_while_a_manifest_is_on_its_way_an_anchor_stays_behind(hand: HandMade) -> None:
    hand.sealed(1, 2)
    seal(hand.root)
    now = datetime.now(UTC)
    assert anchor(hand.root, now=now).records == 2
    (hand.root / MANIFESTS / "a.jsonl.json.1.tmp").touch()
    assert anchor(hand.root, now=now).records == 0


def test_a_file_without_an_anchor_is_refused(hand: HandMade) -> None:
    hand.sealed(1, 2)
    with pytest.raises(ValueError, match="no anchor found"):
        Ledger(hand.root).verify(
            anchors=hand.root / SEGMENTS / f"{hand.writer}.{1:016d}-{2:016d}.jsonl"
        )
