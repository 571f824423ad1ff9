"""Values nested too deep: refused when recorded, damage when read, and no end of an opening."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledgers import WRITER, directory, found, line, lines, put, put_live

from litellm_ledger import InvalidRecord, Ledger, UsageRecord, UsageTracker
from litellm_ledger._litellm.content import captured
from litellm_ledger._maintenance import recover as _recovery
from litellm_ledger._maintenance.dead_writer import DeadWriter, RecoveredWriter
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._reading.follow import Follower
from litellm_ledger._records.line import SEALED, checked
from litellm_ledger._records.nesting import DEEPEST, nests_deeper

pytestmark = pytest.mark.anyio


def nested(levels: int, kind: type = dict) -> Any:
    value: Any = kind()
    for _ in range(levels - 1):
        value = {"a": value} if kind is dict else [value]
    return value


def with_meta(seq: int, meta: bytes) -> bytes:
    """A line with a true checksum that no version of the library would write."""
    body = line(seq).rpartition(b',"crc"')[0] + b',"meta":' + meta
    return SEALED % (body, crc32(body))


def deep(seq: int, levels: int) -> bytes:
    return with_meta(seq, b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1))


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


# -- counting --------------------------------------------------------------------------------------


@given(
    st.recursive(
        st.none() | st.integers() | st.text(alphabet='{}[]"\\,:é\n'),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='{"\\}'), inner),
        max_leaves=30,
    )
)
def test_the_depth_told_from_the_bytes_is_that_of_the_value(value: Any) -> None:
    text = msgspec.json.encode(value)
    assert not nests_deeper(text, depth(value))
    assert depth(value) == 0 or nests_deeper(text, depth(value) - 1)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":["}","}","}","}",["}",[]]],"b":"{{{{"}',  # brackets in strings hide none outside
        b'{"a":"\\\\","b":[[[]]]}',  # an escaped backslash ends no escape
        b'{"a":"\\"}}}","b":[[[]]]}',
    ],
)
def test_brackets_in_strings_neither_add_nor_hide_levels(text: bytes) -> None:
    levels = depth(msgspec.json.decode(text))
    assert not nests_deeper(text, levels)
    assert nests_deeper(text, levels - 1)


# -- accepting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["meta", "content"])
def test_64_levels_are_taken_and_65_are_refused_by_name(field: str) -> None:
    assert getattr(UsageRecord(**{field: nested(64)}), field) == nested(64)
    with pytest.raises(InvalidRecord, match=f"^{field} nests more than 64 levels deep"):
        UsageRecord(**{field: nested(65)})
    with pytest.raises(InvalidRecord, match="nests more than 64 levels"):
        UsageRecord(**{field: {"a": nested(64, list)}})


@pytest.mark.parametrize("levels", [975, 100_000])
def test_no_depth_is_too_much_for_the_refusal(levels: int) -> None:
    with pytest.raises(InvalidRecord, match="nests more than 64 levels"):
        UsageRecord(meta=nested(levels))


def test_a_value_that_contains_itself_is_refused() -> None:
    meta: dict[str, Any] = {}
    meta["self"] = meta
    with pytest.raises(InvalidRecord, match="contains itself"):
        UsageRecord(meta=meta)


async def test_a_value_made_deep_after_the_record_was_made_is_left_out_and_said(
    tmp_path: Path,
) -> None:
    async with UsageTracker(tmp_path) as tracker:
        record = UsageRecord(model="m", input_tokens=7, meta={})
        assert record.meta is not None
        record.meta["late"] = nested(70)
        await tracker.record(record)
    (read,) = Ledger(tmp_path).records()
    assert (read.input_tokens, read.meta) == (7, {"unstorable": "InvalidRecord"})
    assert Ledger(tmp_path).verify().ok


def test_a_captured_answer_of_any_depth_is_cut_with_a_mark() -> None:
    content = captured({"messages": [nested(5_000)]}, nested(5_000, list))
    assert "[cut]" in str(content)
    assert depth(content) <= DEEPEST
    assert UsageRecord(content=content).content == content


# -- reading ---------------------------------------------------------------------------------------

LEVELS = [65, 120, 975, 5_000, 100_000]


@pytest.mark.parametrize("levels", LEVELS)
def test_a_line_that_nests_too_deep_is_damage_to_every_reader(tmp_path: Path, levels: int) -> None:
    root = directory(tmp_path)
    put(root, [line(1), deep(2, levels), line(3)], 1, 3)
    ledger = Ledger(root)
    assert [record.seq for record in ledger.records()] == [1, 3]
    verdict = ledger.verify()
    assert [problem.what for problem in verdict.writers[0].problems] == ["damaged"]
    report = ledger.report(["model"])
    assert (report.total.calls, len(report.problems)) == (2, 1)
    assert ledger.sql("SELECT count(*) FROM calls").rows == [(2,)]
    assert not ledger.verify().ok


def test_a_line_of_64_levels_is_read_as_ever(tmp_path: Path) -> None:
    root = directory(tmp_path)
    put(root, [deep(1, 64)], 1, 1)
    assert checked(deep(1, 64))
    assert Ledger(root).verify().ok
    (record,) = Ledger(root).records()
    assert record.meta == nested(64)
    assert Ledger(root).sql("SELECT count(*) FROM calls").rows == [(1,)]


def test_who_follows_passes_over_a_line_that_nests_too_deep(tmp_path: Path) -> None:
    root = directory(tmp_path)
    segment = put(root, [line(1)], 1)
    follower = Follower(root)
    with segment.open("ab") as file:
        file.write(deep(2, 975) + line(3))
    assert [record.seq for record in follower.look()] == [3]


# -- recovery --------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", LEVELS)
async def test_a_dead_writers_line_that_nests_too_deep_stops_no_opening(
    tmp_path: Path, levels: int
) -> None:
    root = directory(tmp_path)
    deep_line = deep(2, levels)
    put(root, [line(1), deep_line, line(3)], 1)
    put_live(root, 3)
    async with UsageTracker(root) as tracker:
        await tracker.record(UsageRecord(model="m"))
    assert found(root) == {1: line(1), 2: "quarantined", 3: line(3)}
    (original,) = (root / "recovery").iterdir()
    assert deep_line in original.read_bytes()


@pytest.mark.parametrize("error", [RecursionError, MemoryError, ValueError, KeyError])
async def test_an_opening_survives_whatever_recovery_raises(
    tmp_path: Path,
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = directory(tmp_path)
    other = WRITER.replace("Z-0", "Z-1")
    for writer in (WRITER, other):
        put(root, lines(1, 2, writer=writer), 1, writer=writer)
        put_live(root, 2, writer=writer)
    before = (root / "segments" / f"{WRITER}.0000000000000001.jsonl.open").read_bytes()

    class Fails(DeadWriter):
        def finish(self, live: Path) -> RecoveredWriter:
            if self.writer == WRITER:
                raise error("of a kind that nobody thought of")
            return super().finish(live)

    with monkeypatch.context() as patch:
        patch.setattr(_recovery, "DeadWriter", Fails)
        async with UsageTracker(root) as tracker:
            await tracker.record(UsageRecord(model="m"))
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert any(WRITER in record.getMessage() for record in said)
    assert any(error.__name__ in record.getMessage() for record in said)
    left = root / "segments" / f"{WRITER}.0000000000000001.jsonl.open"
    assert left.read_bytes() == before
    assert [w.state for w in Ledger(root).verify().writers if w.writer == WRITER] == ["died"]
    assert len(found(root, other)) == 2, "the other dead writer is finished all the same"
    assert [done.writer for done in recover(root).writers] == [WRITER], "tried again"


async def test_an_opening_survives_a_search_for_dead_writers_that_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("litellm_ledger._maintenance.recover.recover", fails)
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "somebody.live").write_bytes(b"")
    async with UsageTracker(tmp_path) as tracker:
        await tracker.record(UsageRecord(model="m"))
    assert "could not be recovered: too deep" in caplog.text
