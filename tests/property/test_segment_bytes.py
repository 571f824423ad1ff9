"""Segments under every truncation, every bit flip, shuffled lines, and random runs with faults.

A segment of a dozen records is small enough to try all of them.  What ``scan`` must keep is
compared with a plain list; saboteurs of ``scan`` and of the log show that the comparison sees what
it is there to see.
"""

from __future__ import annotations

import errno
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.disks import QUICK, ForgetfulDisk
from tests.ledgers import (
    OTHER,
    WRITER,
    assert_finished,
    call,
    directory,
    found,
    gap,
    kept,
    line,
    lines,
    put,
    put_live,
)
from tests.tally import Tally
from tests.unit.test_segment import LeavesShortWrites, RetriesTheSync

from litellm_ledger._maintenance.recover import recover
from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._records.line import checked, decode
from litellm_ledger._records.scan import Scan, heads, scan
from litellm_ledger._storage.live_file import ACCEPTED, LiveFile
from litellm_ledger._storage.segment import SegmentLog

DOZEN = [*call(1), *lines(3, 5), gap(6, 8), *call(9, tags={"user": "ż"}), *lines(11, 14)]
DATA = b"".join(DOZEN)
NUMBERS = {content: decode(content).seq for content in DOZEN}
ENDS = list(itertools.accumulate(map(len, DOZEN)))
Scanner = Callable[[bytes, str, int], Scan]


def kept_by(found: Scan) -> list[bytes]:
    return [content for _, content in found.lines]


def accounts(found: Scan) -> None:
    """Every byte is in exactly one place, and nothing is believed that was not written."""
    valid = sum(map(len, kept_by(found)))
    assert valid + sum(end - start for start, end in found.damaged) + found.torn == found.size
    assert set(kept_by(found)) <= set(DOZEN)


# -- scan against everything that can happen to a dozen lines --------------------------------------


def check_truncations(scanner: Scanner) -> None:
    for end in range(len(DATA) + 1):
        whole = sum(stop <= end for stop in ENDS)
        found = scanner(DATA[:end], WRITER, 1)
        accounts(found)
        assert kept_by(found) == DOZEN[:whole]
        assert found.damaged == []
        assert found.torn == end - ([0, *ENDS][whole])


def check_bit_flips(scanner: Scanner, step: int = 1) -> None:
    for bit in range(0, 8 * len(DATA), step):
        flipped = bytearray(DATA)
        flipped[bit // 8] ^= 1 << bit % 8
        hit = sum(stop <= bit // 8 for stop in ENDS)
        found = scanner(bytes(flipped), WRITER, 1)
        accounts(found)
        assert kept_by(found) == DOZEN[:hit] + DOZEN[hit + 1 :]
        assert bool(found.damaged) is (hit < len(DOZEN) - 1)


def test_any_truncation_yields_the_longest_valid_prefix() -> None:
    check_truncations(scan)


def test_any_flipped_bit_costs_its_line_and_no_other() -> None:
    check_bit_flips(scan)


def believes_everything(data: bytes, writer: str, first: int) -> Scan:
    """Sabotage: parses without looking at the checksum."""
    result = Scan(size=len(data))
    import msgspec

    from litellm_ledger._records.scan import Head

    for part in data.splitlines(keepends=True):
        try:
            result.lines.append((msgspec.json.decode(part, type=Head), part))
        except (msgspec.DecodeError, UnicodeDecodeError):
            result.damaged.append((0, len(part)))
    return result


def stops_at_the_first(data: bytes, writer: str, first: int) -> Scan:
    """Sabotage: takes the first invalid line for the end."""
    result = Scan(size=len(data))
    for offset, head, content in heads(data):
        if head is None:
            result.torn = len(data) - offset
            break
        result.lines.append((head, content))
    return result


def splits_at_line_feeds(data: bytes, writer: str, first: int) -> Scan:
    """Sabotage: a damaged line feed takes the line after it along."""
    result = Scan(size=len(data))
    by_content = {content: head for head, content in scan(DATA, WRITER, 1).lines}
    offset = 0
    for part in data.splitlines(keepends=True):
        if checked(part) and part in by_content:
            result.lines.append((by_content[part], part))
        else:
            result.damaged.append((offset, offset + len(part)))
        offset += len(part)
    return result


@pytest.mark.parametrize(
    "saboteur", [believes_everything, stops_at_the_first, splits_at_line_feeds]
)
def test_a_saboteur_of_the_scan_is_caught(saboteur: Scanner) -> None:
    with pytest.raises(AssertionError):
        check_bit_flips(saboteur)


# -- lines dropped, doubled, swapped, and bytes from elsewhere -------------------------------------

Change = Callable[[list[bytes]], None]


def drop(at: int) -> Change:
    def change(content: list[bytes]) -> None:
        content.pop(at % len(content))

    return change


def double(at: int, to: int) -> Change:
    return lambda content: content.insert(to % (len(content) + 1), content[at % len(content)])


def swap(at: int, to: int) -> Change:
    def change(content: list[bytes]) -> None:
        a, b = at % len(content), to % len(content)
        content[a], content[b] = content[b], content[a]

    return change


def insert(at: int, rubbish: bytes) -> Change:
    return lambda content: content.insert(at % (len(content) + 1), rubbish)


def overwrite(at: int, offset: int, with_what: bytes) -> Change:
    def change(content: list[bytes]) -> None:
        old = content[at % len(content)]
        start = offset % len(old)
        content[at % len(content)] = old[:start] + with_what + old[start + len(with_what) :]

    return change


places = st.integers(0, 30)
rubbish = (
    st.binary(min_size=1, max_size=40)
    | st.sampled_from([b"\0" * 512, b"\n", b"{", b'{"v":', b'{"v":1,"crc":"00000000"}\n'])
    | st.sampled_from([line(3, writer=OTHER), line(40), line(4)[:50], line(4)[50:], line(6)])
)
changes = st.lists(
    st.builds(drop, places)
    | st.builds(double, places, places)
    | st.builds(swap, places, places)
    | st.builds(insert, places, rubbish)
    | st.builds(overwrite, places, st.integers(0, 400), rubbish),
    min_size=1,
    max_size=5,
)


def changed(what: Sequence[Change]) -> bytes:
    content = list(DOZEN)
    for change in what:
        if content:
            change(content)
    return b"".join(content)


@contextmanager
def ledger() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield directory(Path(path) / "usage")


def intact(data: bytes) -> set[bytes]:
    return {content for content in DOZEN if content in data}


@given(changes)
@example([overwrite(3, 0, b"\0" * 512)])
@example([insert(0, b"\n"), double(0, 30)])
def test_no_intact_line_is_lost_and_no_other_is_believed(what: list[Change]) -> None:
    data = changed(what)
    result = scan(data, WRITER, 1)
    valid = kept_by(result)
    assert sum(map(len, valid)) + sum(e - s for s, e in result.damaged) + result.torn == len(data)
    assert intact(data) <= set(valid)
    assert set(valid) <= {*DOZEN, line(40), line(6)}
    assert len(set(valid)) == len(valid)


@given(changes)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_recovery_keeps_every_intact_record_and_every_damaged_byte(what: list[Change]) -> None:
    data = changed(what)
    with ledger() as root:
        path = put(root, [data], 1)
        put_live(root, 14, oldest=1)
        before = scan(data, WRITER, 1)
        (done,) = recover(root, fs=QUICK).writers
        assert done.error is None
        assert_finished(root)
        after = found(root)
        for content in intact(data):
            number = NUMBERS[content]
            assert number is not None
            if decode(content).kind != "gap":
                assert after[number] == content
        if before.damaged:
            assert data in kept(root).values()
        elif before.torn and before.lines:
            assert data[-before.torn :] in kept(root).values()
        elif before.torn:
            assert kept(root)[path.name] == data
        assert recover(root, fs=QUICK).writers == ()


def recover_flipped(bit: int, last: int | None) -> None:
    """Flip one bit of an open or sealed segment and recover: that line is lost, and no other."""
    flipped = bytearray(DATA)
    flipped[bit // 8] ^= 1 << bit % 8
    hit = DOZEN[sum(stop <= bit // 8 for stop in ENDS)]
    with ledger() as root:
        put(root, [bytes(flipped)], 1, last)
        put_live(root, 14, oldest=1)
        recover(root, fs=QUICK)
        assert_finished(root)
        after = found(root)
        for content in DOZEN:
            record = decode(content)
            if content != hit and record.kind != "gap":
                assert record.seq is not None
                assert after[record.seq] == content
        if decode(hit).kind != "gap":
            assert after[decode(hit).seq or 0] in ("lost", "quarantined")
        assert any(DATA[: bit // 8] == saved[: bit // 8] for saved in kept(root).values()) or (
            hit == DOZEN[-1]
        ), "the damaged original is gone"


open_or_sealed = pytest.mark.parametrize("last", [None, 14], ids=["open", "sealed"])


@open_or_sealed
@given(bit=st.integers(0, 8 * len(DATA) - 1))
@settings(max_examples=40)
def test_recovery_after_a_flipped_bit_loses_one_record_at_most(bit: int, last: int | None) -> None:
    recover_flipped(bit, last)


@pytest.mark.matrix
@open_or_sealed
def test_recovery_after_any_flipped_bit_loses_one_record_at_most(
    last: int | None, tally: Tally
) -> None:
    for bit in range(8 * len(DATA)):
        recover_flipped(bit, last)
    tally("one bit of a segment flipped", tried=bit + 1, promised=(bit + 1) * (len(DOZEN) - 1))


# -- the log against a plain list ------------------------------------------------------------------

operations = st.sampled_from(["create", "write", "sync", "rename", "sync_directory", "truncate"])
steps = st.lists(
    st.tuples(st.just("append"), st.integers(1, 4))
    | st.tuples(st.just("append"), st.integers(1, 4))
    | st.tuples(st.just("again"), st.integers(1, 4))
    | st.tuples(st.just("sync"), st.just(0))
    | st.tuples(st.just("seal"), st.just(0))
    | st.tuples(st.just("fill"), st.integers(0, 600))
    | st.tuples(st.just("empty"), st.just(0))
    | st.tuples(st.just("short"), st.integers(1, 300))
    | st.tuples(st.just("fail"), st.tuples(operations, st.integers(1, 3), st.integers(1, 2))),
    max_size=25,
)
Step = tuple[str, Any]


class Run:
    """A log and, beside it, what it was given: a plain list."""

    def __init__(self, root: Path, log_class: type[SegmentLog]) -> None:
        self.root = root
        self.disk = ForgetfulDisk()
        self.live = LiveFile(QUICK, root, WRITER)
        self.log = log_class(
            self.disk, root, WRITER, cells=self.live.cells, rotate_bytes=5 * len(line(1))
        )
        self.accepted: list[bytes] = []

    def step(self, what: str, argument: Any) -> None:
        match what:
            case "append":
                first = len(self.accepted) + 1
                self.accepted += lines(first, first + argument - 1)
                self.live.cells[ACCEPTED] = len(self.accepted)
                self.write()
            case "again":  # a thread that was stuck, or the last resort: lines it has already
                first = max(1, self.log.written - argument)
                with suppress(OSError):
                    self.log.append(first, self.accepted[first - 1 :])
            case "sync" | "seal":
                with suppress(OSError):
                    getattr(self.log, what)()
            case "fill":
                self.disk.fill(argument)
            case "empty":
                self.disk.empty()
            case "short":
                self.disk.largest_write = argument
            case "fail":
                operation, nth, times = argument
                self.disk.fail(operation, nth=nth, times=times, error=errno.EIO)

    def write(self) -> None:
        first = self.log.written + 1
        with suppress(OSError):
            self.log.append(first, self.accepted[first - 1 :])

    def check(self) -> None:
        """All that counts as written is there, once, in order; nothing is invented."""
        assert self.log.synced <= self.log.written <= len(self.accepted)
        there = found(self.root)  # asserts that copies are identical
        assert list(there) == sorted(there)
        for seq in range(1, self.log.written + 1):
            assert there[seq] == self.accepted[seq - 1]
        for seq, line_or_reason in there.items():
            assert line_or_reason == self.accepted[seq - 1]
        for path in (self.root / SEGMENTS).iterdir():
            name = SegmentName.parse(path.name)
            if name is not None:
                content = scan(path.read_bytes(), WRITER, name.first)
                assert not content.damaged, f"torn bytes inside {path.name}"
                assert name.open or not content.torn, f"torn bytes at the end of {path.name}"

    def check_recovery(self) -> None:
        self.live.release()
        (done,) = recover(self.root, fs=QUICK).writers
        assert done.error is None
        assert_finished(self.root)
        there = found(self.root)
        assert list(there) == list(range(1, len(self.accepted) + 1))
        lost = [seq for seq, content in there.items() if content == "lost"]
        assert len(lost) == done.lost <= len(self.accepted) - self.log.written
        assert all(
            content == self.accepted[seq - 1] for seq, content in there.items() if seq not in lost
        )

    def check_power_cut(self) -> None:
        self.disk.power_cut(self.root / SEGMENTS)
        there = found(self.root)
        for seq in range(1, self.log.synced + 1):
            assert there.get(seq) == self.accepted[seq - 1], f"{seq} was synced and is gone"


def run(what: Sequence[Step], log_class: type[SegmentLog] = SegmentLog) -> None:
    for end in (Run.check_recovery, Run.check_power_cut):
        with ledger() as root:
            this = Run(root, log_class)
            for name, argument in what:
                this.step(name, argument)
                this.check()
            end(this)
            this.live.release()


@given(steps)
@settings(max_examples=120)
@example([("append", 3), ("fail", ("sync", 1, 2)), ("sync", 0), ("append", 2), ("seal", 0)])
@example([("fill", 100), ("fail", ("truncate", 1, 1)), ("append", 4), ("empty", 0), ("again", 1)])
@example([("append", 2), ("fail", ("sync_directory", 1, 1)), ("sync", 0), ("sync", 0)])
def test_the_log_agrees_with_a_plain_list(what: list[Step]) -> None:
    run(what)


class WritesWhatItHasAgain(SegmentLog):
    """Forgets to drop what is written, and numbers it anew."""

    def _append(self, first: int, batch: Sequence[bytes]) -> None:
        super()._append(self.written + 1, batch)


@pytest.mark.parametrize(
    ("saboteur", "what"),
    [
        (RetriesTheSync, [("append", 3), ("fail", ("sync", 1, 1)), ("sync", 0)]),
        (
            LeavesShortWrites,
            [("append", 1), ("fill", 50), ("append", 2), ("empty", 0), ("append", 1)],
        ),
        (WritesWhatItHasAgain, [("append", 4), ("again", 2)]),
    ],
)
def test_a_saboteur_of_the_log_is_caught(saboteur: type[SegmentLog], what: Sequence[Step]) -> None:
    run(what)
    with pytest.raises(AssertionError):
        run(what, saboteur)
