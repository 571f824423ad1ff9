"""The archive: what was compacted reads as before, byte for byte, in each way of reading."""

from __future__ import annotations

import base64
import fcntl
import glob
import hashlib
import json
import os
import subprocess
import sys
import time
import zlib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result
from tests.generated import Reckoning, as_sums, make_ledger
from tests.ledger_by_hand import NOON, OTHER_WRITER, HandMade, flip, spoil

from litellm_ledger import Ledger, LedgerPathError, MissingExtra, UnsupportedFormat
from litellm_ledger._archive import archive as _archive
from litellm_ledger._archive import columns as _columns
from litellm_ledger._archive import footer as _footer
from litellm_ledger._archive.archive import FORMAT_KEY
from litellm_ledger._archive.columns import COLUMNS
from litellm_ledger._calls.batches import on_ledger
from litellm_ledger._cli.app import app
from litellm_ledger._maintenance import compact as _compacting
from litellm_ledger._maintenance import parquet as _parquet
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.parquet import write_whole
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.listing import list_segments, open_segment
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._reports import engine as _reporting
from litellm_ledger._reports.relation import Relation
from litellm_ledger._storage import checked_files as _checked_files

LATER = date(2030, 1, 1)
ALL = ("usage", "started", "gap")


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path / "us'age [1]")


def contents(root: Path) -> dict[SegmentName, bytes]:
    found = {}
    for name in list_segments(root):
        file, _ = open_segment(root, name)
        with file:
            found[name] = file.read()
    return found


def without_duckdb(monkeypatch: pytest.MonkeyPatch) -> None:
    _archive._known.clear()
    monkeypatch.setitem(sys.modules, "duckdb", None)


def files(root: Path, part: str) -> list[str]:
    return sorted(os.listdir(root / part))


def test_a_compacted_ledger_says_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ledger(tmp_path, 4_000, segment=150_000)
    by = ("month", "tag:user")
    ledger, truth = Ledger(tmp_path), Reckoning(tmp_path, [(by, "Europe/Berlin")])
    before = contents(tmp_path)
    records = list(ledger.records(kinds=ALL))
    verdict = ledger.verify()
    monkeypatch.setattr(_compacting, "_FILE", 500_000)
    monkeypatch.setattr(_archive, "_AT_ONCE", 200_000)
    done = compact(tmp_path, until=LATER)
    assert done.segments > 10
    assert done.bytes_after < done.bytes_before / 3  # manifests are a third of such small files
    assert len(done.files) > 3
    assert {problem.file for problem in done.left} == {
        problem.file for writer in verdict.writers for problem in writer.problems
    }
    assert contents(tmp_path) == before
    assert list(ledger.records(kinds=ALL)) == records
    assert ledger.verify() == verdict
    for large in (0, 2**60):
        monkeypatch.setattr(_reporting, "_LARGE", large)
        report = ledger.report(by, tz="Europe/Berlin")
        assert as_sums(report.total) == truth.sums()[()]
        found = {tuple(row.group.values()): as_sums(row) for row in report.rows}
        assert found == truth.sums(by, "Europe/Berlin")
        assert sum(problem.lines for problem in report.problems) == truth.damaged
    again = compact(tmp_path, until=LATER)
    assert (again.files, again.segments, again.finished) == ((), 0, 0)


def test_lines_in_a_form_of_their_own_come_back_byte_for_byte(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        hand.foreign(1, '"status":"ok","from_the_future":{"a":[1,null]},"model":"m"'),
        hand.foreign(
            2,
            '"status":"ok","meta":{"x": 1.50,  "y":"\\u00e9\\/","big":123456789012345678901}',
        ),
        hand.foreign(3, '"status":"ok","tags":{"b":"1","a":"2"},"model":null,"images":0'),
        hand.foreign(4, '"model":"m","status":"ok","latency_ms":3,"ts":"2025-01-01T12:00:00.5Z"'),
        hand.foreign(5, '"status":"ok","cost_picousd" : 1000,"input_tokens":5'),
        hand.line(6, meta={"n": 1e22, "t": "\x00\x1f\u2028é", "l": [{}, [], None, True]}),
        hand.line(7, content={"messages": [{"role": "user", "content": "hi\n"}]}),
        hand.line(8, tags={}, latency_ms=0.1, ttft_ms=1e-7, audio_seconds=2.0, stream=False),
        hand.line(9, cost=Decimal("9223372.036854775807"), saved_cost=Decimal(-1)),
        hand.line(10, model="\x00'\"é\U0001f600", ts=datetime(1999, 1, 1, tzinfo=UTC)),
        hand.line(11, ts=None, model=None),
    ]
    hand.sealed(1, 11, lines)
    before = contents(hand.root)
    records = list(Ledger(hand.root).records())
    by_tag = Ledger(hand.root).report(["tag:a"]).rows
    done = compact(hand.root, until=LATER)
    assert (done.segments, done.records, files(hand.root, "segments")) == (1, 11, [])
    monkeypatch.setattr(_reporting, "_LARGE", 0)
    assert Ledger(hand.root).report(["tag:a"]).rows == by_tag
    assert contents(hand.root) == before
    assert list(Ledger(hand.root).records()) == records
    assert Ledger(hand.root).verify().ok


def test_files_from_before_a_column_joined_are_read_beside_later_ones(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.sealed(1, 2)
    lacking = {name: kind for name, kind in COLUMNS.items() if name != "search_units"}
    with monkeypatch.context() as before:
        for module in (_archive, _parquet, _columns):
            before.setattr(module, "COLUMNS", lacking)
        _columns.structure.cache_clear()
        compact(hand.root, until=LATER)
    _columns.structure.cache_clear()
    later = HandMade(hand.root, OTHER_WRITER)
    later.sealed(1, 2, later.lines(1, 2, search_units=3))
    for _ in range(2):
        for large in (0, 2**60):
            monkeypatch.setattr(_reporting, "_LARGE", large)
            assert Ledger(hand.root).report(["tag:x"], quantiles=True).total.calls == 4
            found = [record.search_units for record in Ledger(hand.root).records()]
            assert found == [None, None, 3, 3]
        assert Ledger(hand.root).sql("SELECT sum(search_units) FROM calls").rows == [(6,)]
        assert Ledger(hand.root).verify(full=True).ok
        compact(hand.root, until=LATER)


def test_members_of_a_later_version_are_kept_and_the_rest_is_read_by_the_database(
    hand: HandMade,
) -> None:
    body = '"ts":"2025-01-01T12:00:00.000001Z","model":"m","status":"ok","new":1'
    hand.sealed(1, 2, [hand.foreign(1, body), hand.line(2)])
    before = contents(hand.root)
    compact(hand.root, until=LATER)
    assert contents(hand.root) == before
    with Relation(hand.root) as relation:
        assert relation.rows("SELECT count(*) FROM line_by_line") == [(0,)]
        assert relation.rows("SELECT count(*) FROM calls WHERE model = 'm'") == [(2,)]


def test_only_past_days_are_compacted_unless_more_is_asked_for(hand: HandMade) -> None:
    now = datetime.now(UTC)
    hand.sealed(1, 1, [hand.line(1, ts=now - timedelta(days=1))])
    hand.sealed(2, 2, [hand.line(2, ts=now)])
    assert compact(hand.root).segments == 1
    assert len(files(hand.root, "segments")) == 1
    assert compact(hand.root, until=(now + timedelta(days=1)).date()).segments == 1
    assert [name[:10] for name in files(hand.root, "archive")] == [
        (now - timedelta(days=1)).date().isoformat(),
        now.date().isoformat(),
    ]


def test_what_a_live_or_dead_writer_may_need_stays(hand: HandMade) -> None:
    hand.sealed(1, 2)
    hand.sealed(3, 4, [hand.started(3), hand.line(4)])
    hand.sealed(5, 6)
    hand.sealed(7, 8)
    other = HandMade(hand.root, OTHER_WRITER)
    other.sealed(1, 2)
    other.live(2)  # dead: recover first
    with hand.alive(8):
        hand.live(8, oldest=4)
    with hand.live(8, oldest=4).open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert compact(hand.root, until=LATER).records == 2  # 1 and 2; 4 is in flight
        hand.live(8)
        assert compact(hand.root, until=LATER).records == 4  # not the newest
    recover(hand.root)
    assert compact(hand.root, until=LATER).segments >= 2
    assert Ledger(hand.root).verify().ok


def test_one_run_at_a_time(hand: HandMade) -> None:
    hand.sealed(1, 2)
    (hand.root / "archive").mkdir()
    fd = os.open(hand.root / "archive", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(LedgerPathError, match="another process"):
        compact(hand.root, until=LATER)
    os.close(fd)
    assert compact(hand.root, until=LATER).segments == 1


def test_a_damaged_segment_stays_and_is_named(hand: HandMade) -> None:
    good = hand.sealed(1, 3)
    bad = hand.sealed(4, 6)
    spoil(bad, line=1)
    short = hand.sealed(7, 9, hand.lines(7, 8))
    done = compact(hand.root, until=LATER)
    assert done.segments == 1
    assert [problem.file for problem in done.left] == [
        f"segments/{bad.name}",
        f"segments/{short.name}",
    ]
    assert not good.exists()
    assert bad.exists()
    assert short.exists()


def test_segments_that_are_as_their_manifests_say_are_not_read_line_by_line(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        hand.started(1),
        hand.outcome(2, of=1, tags={"ü'": '"\\', "a": ""}, model="\x00\n\x7f\u2028\U0001f600"),
        hand.line(3, latency_ms=0.1, ttft_ms=1e-7, audio_seconds=2.0, stream=False),
        hand.line(4, cost=Decimal("9223372.036854775807"), saved_cost=Decimal(-1), ts=None),
        hand.line(
            5, meta={"n": [1.5, 1e-7, 2**53, -0.0, 1e22], "t": "é\u0001", "l": [{}, None, True]}
        ),
        hand.line(6, content={"messages": [{"role": "user", "content": "hi\n" * 9_000}]}),
    ]
    hand.sealed(1, 6, lines)
    HandMade(hand.root, OTHER_WRITER).sealed(1, 1)
    before = contents(hand.root)
    monkeypatch.setattr(_compacting, "Staging", None)
    done = compact(hand.root, until=LATER)
    assert (len(done.files), done.segments, done.records) == (1, 2, 7)
    assert contents(hand.root) == before
    assert Ledger(hand.root).verify(full=True).ok


def test_a_segment_that_is_not_what_its_manifest_says_is_read_line_by_line(hand: HandMade) -> None:
    good, changed, bad = hand.sealed(1, 3), hand.sealed(4, 6), hand.sealed(7, 9)
    seal(hand.root)
    changed.write_bytes(b"".join([*hand.lines(4, 5), hand.line(6, model="n")]))
    bad.write_bytes(flip(bad.read_bytes(), 40))
    assert changed.stat().st_size + bad.stat().st_size == 2 * good.stat().st_size
    before = contents(hand.root)
    done = compact(hand.root, until=LATER)
    assert (len(done.files), done.segments, done.records) == (1, 2, 6)
    assert [problem.file for problem in done.left] == [f"segments/{bad.name}"]
    assert contents(hand.root) == before


@pytest.mark.parametrize("form", ["plain", "odd", "gap"])
def test_lines_too_wide_for_the_memory_of_the_database_get_more(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    given = [
        {"content": {"text": "".join(f"{seq * n}, " for n in range(9_000))}} for seq in range(99)
    ]
    lines = [hand.line(seq, **members) for seq, members in enumerate(given, 1)]
    if form == "odd":
        lines[50] = hand.foreign(51, '"status":"ok","from_the_future":1')
    elif form == "gap":
        lines[98] = hand.gap(99, 99)
        spoil(hand.sealed(100, 102), line=1)
    hand.sealed(1, 99, lines)
    before = contents(hand.root)
    memory = []
    real = _compacting._database
    monkeypatch.setattr(_compacting, "_MEMORY", "8MB")
    monkeypatch.setattr(_compacting, "_database", lambda given: memory.append(given) or real(given))
    with monkeypatch.context() as patched:
        patched.setattr(_compacting, "_MORE_MEMORY", "8MB")
        with pytest.raises(LedgerPathError, match=r"cannot compact segments/.*Out of Memory"):
            compact(hand.root, until=LATER)
    assert contents(hand.root) == before
    memory.clear()
    done = compact(hand.root, until=LATER)
    assert (done.segments, len(done.left), memory) == (1, form == "gap", ["8MB", "1GB"])
    assert [path.suffix for path in (hand.root / "archive").iterdir()] == [".parquet"]
    assert contents(hand.root) == before


def test_an_archive_that_does_not_read_back_is_no_reason_to_remove_a_segment(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = hand.sealed(1, 3, hand.lines(1, 3, error="\\"))  # not for the database to prove
    real = _archive._decode
    texts: list[Any] = [lambda text: text.replace('"model":"m"', '"model":"n"')]
    texts += [lambda text: text.partition("\n")[0], lambda text: f"{text}\n{text}"]
    for altered in texts:
        with monkeypatch.context() as patched:
            patched.setattr(_archive, "_decode", lambda text, how=altered: real(how(text)))
            patched.setattr(_compacting, "write_file", write_whole)  # as if both ways said so
            with pytest.raises(LedgerPathError, match="was written"):
                compact(hand.root, until=LATER)
        assert segment.exists()
    assert compact(hand.root, until=LATER).segments == 1


@pytest.mark.parametrize(
    "rows",
    [
        "SELECT * REPLACE ('n' AS model) FROM {}",
        "SELECT * REPLACE (crc + 1 AS crc) FROM {}",
        "SELECT * REPLACE (1 - source AS source) FROM {}",
        "FROM {} WHERE seq <> 2",
        "FROM {} LIMIT 3",
        "FROM {} UNION ALL FROM {}",
        "FROM {} ORDER BY seq DESC",
        "SELECT * REPLACE (CASE seq WHEN 2 THEN NULL ELSE model END AS model) FROM {}",
    ],
)
def test_the_database_proves_no_archive_of_other_rows(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch, rows: str
) -> None:
    segments = [hand.sealed(1, 3), hand.sealed(4, 4)]
    real = _parquet._copy

    def altered(database: Any, path: Path, whole: str, *rest: Any) -> None:
        real(database, path, f"({rows.replace('{}', whole)})", *rest)

    with monkeypatch.context() as patched:
        patched.setattr(_parquet, "_copy", altered)
        patched.setattr(_compacting, "write_file", write_whole)
        with pytest.raises(LedgerPathError, match="was written"):
            compact(hand.root, until=LATER)
    assert all(segment.exists() for segment in segments)
    assert compact(hand.root, until=LATER).segments == 2


PROVED = [
    '"audio_seconds":1000000.0,"latency_ms":0.0,"ttft_ms":12.5,"stream":true',
    '"cost_picousd":-9223372036854775807,"meta":{"n":[1.5,1e-7,-0.0,{}],"é":null}',
    '"error":"","tags":{"ü\'":"\x7f\u2028😀","":"x"}',
]
OTHERS = [  # what the database writes is in the line, and what a reader gets is not
    '"tags":{"a":"\\u001F"}',
    '"latency_ms":1e+20',
    '"meta":{"a":1,"a":2}',
    '"meta":[1]',
    '"error":"a\\\\b"',
    '"error":null',
    '"latency_ms":1e-9,"ttft_ms":2.50',
]


@pytest.mark.parametrize("members", [*PROVED, *OTHERS])
def test_what_the_database_proves_is_what_readers_get(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch, members: str
) -> None:
    lines = [hand.line(1), hand.foreign(2, f'"status":"ok",{members}'), hand.line(3)]
    segment = hand.sealed(1, 3, lines)
    given = segment.read_bytes()
    real, proved = _parquet.gives_back, []

    def noted(*args: Any) -> bool:
        proved.append(real(*args))
        return proved[-1]

    monkeypatch.setattr(_parquet, "gives_back", noted)
    assert compact(hand.root, until=LATER).segments == (members != '"meta":[1]')
    assert [*contents(hand.root).values()] == [given]
    assert any(proved) == (members in PROVED)


def test_one_flipped_bit_in_the_archive_is_seen(hand: HandMade) -> None:
    hand.sealed(1, 200)
    compact(hand.root, until=LATER)
    assert Ledger(hand.root).verify().ok
    (path,) = (hand.root / "archive").iterdir()
    data = path.read_bytes()
    path.write_bytes(flip(data, len(data) // 3))
    hand.sealed(201, 201)
    found = Ledger(hand.root).verify()
    assert not found.ok
    assert [problem.file for problem in found.archive] == [f"archive/{path.name}"]
    assert found.writers[0].lost == 200
    report = Ledger(hand.root).report()
    assert (report.total.calls, len(report.problems)) == (1, 1)
    assert compact(hand.root, until=LATER).broken == (f"archive/{path.name}",)


def test_a_row_that_was_altered_has_a_checksum_that_does_not_hold(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.sealed(1, 3)
    compact(hand.root, until=LATER)
    real = _archive._decode

    def altered(text: str) -> list[Any]:
        return real(text.replace('"model":"m"', '"model":"n"'))

    monkeypatch.setattr(_archive, "_decode", altered)
    assert list(Ledger(hand.root).records()) == []
    assert Ledger(hand.root).verify(full=True).writers[0].found == 0
    # Without ``full``, the digests that were proved when the file was written are believed.
    assert Ledger(hand.root).verify().writers[0].found == 3


def test_what_a_record_says_is_not_taken_for_the_metadata_of_its_file(hand: HandMade) -> None:
    false = "\x18\x16litellm_ledger_sources\x18\x02[]\x00"
    hand.sealed(1, 3, hand.lines(1, 3, model=false, call_id=false))
    (file,) = compact(hand.root, until=LATER).files
    data = (hand.root / file).read_bytes()
    with (hand.root / file).open("rb") as opened:
        footer = _footer.read_footer(opened) or b""
    assert footer.count(false.encode()) > 0
    rows = duckdb.execute("FROM parquet_kv_metadata(?)", [glob.escape(str(hand.root / file))])
    pairs = {key.decode(): value for _, key, value in rows.fetchall()}
    assert {key: _footer.value_of(footer, key) for key in pairs} == pairs
    assert len(Ledger(hand.root).segments()) == 1
    for no_file in (b"", data[:-1], data[:4] + data[-8:], data[-8:], data[-4:] * 3):
        assert not _footer.value_of(_footer.read_footer(BytesIO(no_file)) or b"", FORMAT_KEY)


def rewritten(file: Path, change: str = "", **metadata: str) -> None:
    """Put a file of other rows or metadata in the place of one, under the name of its content."""
    name = glob.escape(str(file))
    pairs = {
        key.decode(): value.decode()
        for _, key, value in duckdb.execute("FROM parquet_kv_metadata(?)", [name]).fetchall()
    } | metadata
    told = ", ".join(f"{key}: {_columns.quoted(value)}" for key, value in pairs.items())
    with duckdb.connect() as database:
        database.execute("CREATE TABLE rows AS FROM read_parquet(?)", [name])
        database.execute(change or "SELECT 1")
        database.execute(
            f"COPY rows TO {_columns.quoted(str(file))} (FORMAT parquet, KV_METADATA {{{told}}})"
        )
    file.rename(file.with_name(_archive.content_name(file.name.partition(".")[0], digest_of(file))))


def digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("of", ["rows", "sources", "manifests"])
def test_what_nests_without_end_in_an_archive_is_damage_and_ends_nothing_else(
    hand: HandMade, of: str
) -> None:
    hand.sealed(1, 3)
    seal(hand.root)
    (file,) = compact(hand.root, until=LATER).files
    deep = "[" * 5_000
    if of == "rows":
        meta = f"""{{"x":{deep}{"]" * len(deep)}}}"""
        rewritten(hand.root / file, f"UPDATE rows SET meta = '{meta}'")
    elif of == "sources":
        rewritten(hand.root / file, litellm_ledger_sources=f'[{{"x":{deep}')
    else:
        (manifest,) = (hand.root / "manifests").iterdir()
        manifest.unlink()
        kept = zlib.compress(f'{{"segment":"x","y":{deep}\n'.encode())
        rewritten(hand.root / file, litellm_ledger_manifests=base64.b64encode(kept).decode())
    hand.sealed(4, 4)
    for name in ("daily", "records", "verify", "seal", "doctor", "calls"):
        done = command(name, hand.root)
        assert not done.exception or isinstance(done.exception, SystemExit), done.exception
    assert [record.seq for record in Ledger(hand.root).records()][-1] == 4


def test_a_length_without_end_in_a_footer_is_none() -> None:
    footer = b"\x18\x01k\x18" + b"\xff" * 1_000_000
    began = time.process_time()
    assert not _footer.value_of(footer, "k")
    assert time.process_time() - began < 1  # it was a minute


def test_a_newer_archive_is_refused(hand: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    hand.sealed(1, 3)
    compact(hand.root, until=LATER)
    monkeypatch.setattr(_archive, "_FORMAT", b"0")
    _archive._known.clear()
    with pytest.raises(UnsupportedFormat, match="version 1"):
        Ledger(hand.root).segments()
    _archive._known.clear()


def test_without_duckdb_an_archive_is_an_error_that_says_what_to_install(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.sealed(1, 3)
    compact(hand.root, until=LATER)
    without_duckdb(monkeypatch)
    for ask in (Ledger(hand.root).report, Ledger(hand.root).verify, Ledger(hand.root).segments):
        with pytest.raises(MissingExtra, match=r"litellm-ledger\[report\]"):
            ask()
    with pytest.raises(MissingExtra):
        compact(hand.root, until=LATER)


# -- others that read -----------------------------------------------------------------------------


def test_recovery_knows_what_is_in_the_archive(hand: HandMade) -> None:
    hand.sealed(1, 3, [hand.started(1), hand.line(2), hand.line(3)])
    hand.sealed(4, 5)
    compact(hand.root, until=LATER)
    hand.sealed(8, 9)
    hand.open(10, [hand.line(10)], tail=b"torn")
    hand.live(12, boot=1)  # the machine was restarted: every line is looked at
    (done,) = recover(hand.root).writers
    assert (done.error, done.lost, done.unsettled) == (None, 4, 1)
    gaps = [(r.seq, r.gap_until) for r in Ledger(hand.root).records(kinds=["gap"])]
    assert gaps == [(6, 7), (11, 12)]
    (lost,) = Ledger(hand.root).records(where={"status": "unsettled"})
    assert lost.operation == hand.id(1)


def test_a_gap_in_the_archive_still_tells_what_was_acknowledged(hand: HandMade) -> None:
    hand.sealed(1, 6, [*hand.lines(1, 2), hand.gap(3, 6, acked_until=3)])
    before = Ledger(hand.root).verify()
    assert compact(hand.root, until=LATER).segments == 1
    assert files(hand.root, "segments") == []
    assert Ledger(hand.root).verify().writers == before.writers
    assert (before.total("lost"), before.total("unacknowledged")) == (4, 3)


def test_recovery_without_duckdb_calls_nothing_lost_that_may_be_in_the_archive(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.sealed(1, 3)
    compact(hand.root, until=LATER)
    hand.open(4, [hand.line(4)])
    hand.live(4)
    without_duckdb(monkeypatch)
    (done,) = recover(hand.root).writers
    assert (done.error, done.lost) == (None, 0)
    assert files(hand.root, "live") == []


def test_a_batch_in_the_archive_is_not_counted_again(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = {"batch": {"status": "completed", "counted": True}}
    hand.sealed(1, 2, [hand.line(1, response_id="b'1", meta=done), hand.line(2, response_id="b2")])
    compact(hand.root, until=LATER)
    noon = NOON.timestamp()
    assert on_ledger(hand.root, "b'1", noon - 60)
    assert not on_ledger(hand.root, "b'1", noon + 60)
    assert not on_ledger(hand.root, "b2", 0)
    without_duckdb(monkeypatch)
    assert not on_ledger(hand.root, "b'1", 0)


def test_segments_compacted_while_they_are_read_are_found(hand: HandMade) -> None:
    for first in range(1, 101, 10):
        hand.sealed(first, first + 9)
    found = Ledger(hand.root).records()
    seen = [next(found).seq for _ in range(15)]
    compact(hand.root, until=LATER)
    assert files(hand.root, "segments") == []
    seen += [record.seq for record in found]
    assert seen == list(range(1, 101))
    assert found.problems == []


def test_small_segments_are_read_together_and_large_ones_alone(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first, last in ((1, 1), (2, 2), (3, 60), (61, 61)):
        hand.sealed(first, last)
    compact(hand.root, until=LATER)
    read = []
    real = _archive.rebuilt

    def seen(database: Any, path: Path, first: int, end: int, *, few: bool) -> Any:
        read.append((first, end))
        return real(database, path, first, end, few=few)

    monkeypatch.setattr(_archive, "rebuilt", seen)
    monkeypatch.setattr(_archive, "_AT_ONCE", 1_000)
    assert [record.seq for record in Ledger(hand.root).records()] == list(range(1, 62))
    assert read == [(0, 2), (2, 3), (3, 4)]


def test_what_was_read_of_the_archive_is_kept_while_it_is_small_and_its_file_the_same(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = HandMade(hand.root, OTHER_WRITER)
    for writer in (hand, other):
        writer.sealed(1, 2)
        writer.sealed(3, 4)
    compact(hand.root, until=LATER)
    read = []
    real = _archive.rebuilt

    def seen(database: Any, path: Path, first: int, end: int, *, few: bool) -> Any:
        read.append((first, end))
        return real(database, path, first, end, few=few)

    monkeypatch.setattr(_archive, "rebuilt", seen)
    seqs = [record.seq for record in Ledger(hand.root).records()]
    assert seqs == [record.seq for record in Ledger(hand.root).records()]
    assert sorted(seqs) == [1, 1, 2, 2, 3, 3, 4, 4]
    [name] = files(hand.root, "archive")
    path = hand.root / "archive" / name
    assert read == [(0, 4)]
    os.utime(path, ns=(0, 0))
    assert len(list(Ledger(hand.root).records())) == 8
    assert read == [(0, 4)] * 2
    path.write_bytes(path.read_bytes()[:-1])
    assert list(Ledger(hand.root).records()) == []
    path.unlink()
    assert list(Ledger(hand.root).records()) == []
    assert read == [(0, 4)] * 2


@pytest.mark.parametrize("lines", [3, 700])
def test_segments_of_few_lines_and_of_many_are_read_back_as_they_were(
    hand: HandMade, lines: int
) -> None:
    assert _archive._FEW in range(3, 700)
    hand.sealed(1, lines - 2)
    odd = hand.foreign(lines, '"later":1e3')
    hand.sealed(lines - 1, lines, [hand.started(lines - 1), odd])
    before = contents(hand.root)
    compact(hand.root, until=LATER)
    assert files(hand.root, "segments") == []
    assert contents(hand.root) == before


def test_a_forked_child_reads_the_archive_with_a_database_of_its_own(hand: HandMade) -> None:
    hand.sealed(1, 3)
    compact(hand.root, until=LATER)
    script = (
        "import os, sys; from litellm_ledger import Ledger\n"
        "from litellm_ledger._archive import archive as _archive\n"
        "ledger = Ledger(sys.argv[1])\n"
        "assert len(list(ledger.records())) == 3\n"
        "_archive._lock.acquire()\n"
        "child = os.fork()\n"
        "if not child: os._exit(len(list(ledger.records())))\n"
        "_archive._lock.release()\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(hand.root)]
    assert subprocess.run(command, timeout=60, check=False).returncode == 3


def test_an_operation_is_found_in_the_archive(hand: HandMade) -> None:
    hand.sealed(1, 2, [hand.started(1), hand.outcome(2, of=1, call_id="key")])
    compact(hand.root, until=LATER)
    hand.sealed(3, 3)
    ledger = Ledger(hand.root)
    for key in ("key", hand.id(1), hand.id(2)):
        found = ledger.operation(key)
        assert found is not None
        assert found.id == hand.id(1)
        assert found.attempts[0].started is not None
        assert found.attempts[0].outcome is not None
    alone = ledger.operation(hand.id(3))
    assert alone is not None
    assert alone.attempts[0].started is None
    assert ledger.operation("nothing") is None


def test_compaction_stays_within_its_memory(tmp_path: Path) -> None:
    make_ledger(tmp_path, 20_000, segment=20 * 2**20)
    script = (
        "import re, sys, datetime; from pathlib import Path\n"
        "from litellm_ledger._maintenance.compact import compact\n"
        "done = compact(Path(sys.argv[1]), until=datetime.date(2030, 1, 1))\n"
        "assert done.records > 10_000, done\n"
        # Not ``ru_maxrss``: that begins with what the process had that started this one.
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) // 1024)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    assert int(done.stdout) < 300, "MiB"


def test_the_command_says_what_it_joined_and_what_it_left(hand: HandMade) -> None:
    hand.sealed(1, 3)
    spoil(hand.sealed(4, 5), line=0)
    first = command("compact", hand.root, "--json")
    plain = json.loads(first.stdout)
    assert (first.exit_code, plain["segments"], plain["records"]) == (1, 1, 3)
    assert plain["left"][0]["file"].startswith("segments/")
    (hand.root / "segments" / Path(plain["left"][0]["file"]).name).unlink()
    again = command("compact", hand.root)
    assert (again.exit_code, again.stdout) == (
        0,
        f"Nothing to compact in {hand.root}: no sealed segment of a past day is left.\n",
    )
    now = hand.line(6, ts=datetime.now(UTC))
    hand.sealed(6, 6, [now])
    assert command("compact", hand.root).stdout.startswith("Nothing to compact")
    assert command("compact", hand.root, "--today").stdout.startswith("1 segment with 1 line")
    path = next((hand.root / "archive").iterdir())
    path.write_bytes(b"PAR1")
    broken = command("compact", hand.root)
    assert broken.exit_code == 1
    assert f"INCOMPLETE, not read: archive/{path.name}" in broken.stdout
    assert command("verify", hand.root).exit_code == 1


def command(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="litellm-ledger")


def test_verify_reads_the_archive_whatever_is_remembered_of_it(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bit that rots on the disk changes no time of the file."""
    monkeypatch.setattr(_checked_files, "_WORTH_KEEPING", 0)
    hand.sealed(1, 3)
    (file,) = compact(hand.root, until=LATER).files
    assert Ledger(hand.root).report().total.calls == 3
    remembered = {name: list(known) for name, known in _checked_files._known.items()}
    data = bytearray((hand.root / file).read_bytes())
    data[len(data) // 2] ^= 1
    (hand.root / file).write_bytes(bytes(data))
    state = _checked_files._state((hand.root / file).lstat())
    for known in _checked_files._known.values():
        if file in known:
            known[file] = state, known[file][1]  # as if nothing had been written
    _archive._known.clear()
    assert remembered
    assert Ledger(hand.root).segments(), "the memory is believed"
    _archive._known.clear()
    found = Ledger(hand.root).verify()
    assert (found.ok, [problem.file for problem in found.archive]) == (False, [file])
