"""``acknowledge``: what was looked into is reported and no failure; all else is one as before."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from tests.ledger_by_hand import OTHER_WRITER, WRITER, HandMade, framed, spoil
from tests.terminal import as_json, run, told

from litellm_ledger import Ledger, LedgerPathError, UnsupportedFormat, UsageRecord, UsageTracker
from litellm_ledger._maintenance.acknowledge import Acknowledged, acknowledge
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.anchor import anchor
from litellm_ledger._reading.verdict import WriterVerdict
from litellm_ledger._reading.verify import verify
from litellm_ledger._records.adjustment import encode_addition
from litellm_ledger._records.audit import audit_of
from litellm_ledger._records.layout import PRICES, RECOVERY, SEGMENTS, SegmentName
from litellm_ledger._records.line import newer_version
from litellm_ledger._storage.live_file import lock_directory, unlock

FORMAT = Path(__file__).parents[2] / "docs" / "FORMAT.md"


def done(hand: HandMade, why: str = "the disk was full") -> Acknowledged:
    return acknowledge(hand.root, hand.writer, who="alice", why=why)


def verdict(hand: HandMade) -> WriterVerdict:
    (found,) = (one for one in verify(hand.root).writers if one.writer == hand.writer)
    assert found.ok == Ledger(hand.root).verify(full=True).ok
    return found


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def audits(root: Path) -> list[Path]:
    return sorted((root / SEGMENTS).glob("9999*"))


def change(root: Path, of: Callable[[bytes], bytes]) -> None:
    (path,) = audits(root)
    path.write_bytes(of(path.read_bytes()))


def hole(hand: HandMade) -> None:
    hand.sealed(1, 3)
    hand.sealed(6, 7)


def line_damaged(hand: HandMade) -> None:
    hand.sealed(1, 4)
    spoil(segment(hand, 1, 4), line=1)


def quarantined(hand: HandMade) -> None:
    hand.sealed(1, 4, [hand.line(1), hand.gap(2, 3, "quarantined"), hand.line(4)])


def altered(hand: HandMade) -> None:
    hand.sealed(1, 4)
    seal(hand.root)
    spoil(segment(hand, 1, 4), line=2)


def deleted(hand: HandMade) -> None:
    hand.sealed(1, 4)
    hand.sealed(5, 6)
    seal(hand.root)
    segment(hand, 1, 4).unlink()


def cut_short(hand: HandMade) -> None:
    hand.sealed(1, 4, hand.lines(1, 3))


def recovered(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 3))
    hand.live(accepted=8, written=8, level="synced")
    recover(hand.root)


def segment(hand: HandMade, first: int, last: int) -> Path:
    return hand.root / SEGMENTS / str(SegmentName(hand.writer, first, last))


LOSSES = [hole, line_damaged, quarantined, altered, deleted, cut_short, recovered]


@pytest.mark.parametrize("spoilt", LOSSES)
def test_a_loss_that_was_looked_into_is_reported_and_no_failure(
    hand: HandMade, spoilt: Callable[[HandMade], None]
) -> None:
    spoilt(hand)
    before, there = verdict(hand), files(hand.root)
    report = Ledger(hand.root).report(["model"])
    assert not before.ok
    assert run("verify", hand.root).exit_code == 1
    assert not done(hand).left
    after = verdict(hand)
    assert after.ok
    assert after.complete
    counts = ("lost", "quarantined", "unacknowledged", "undecided", "found", "accepted", "state")
    assert [getattr(after, n) for n in counts] == [getattr(before, n) for n in counts]
    assert after.known_problems == before.problems
    for flags in ((), ("--strict",), ("--full",)):
        shown = run("verify", hand.root, *flags)
        assert shown.exit_code == 0, shown.output
        assert "by alice" in shown.output
        assert "the disk was full" in shown.output
        assert "looked into" in shown.output.splitlines()[-1]
    assert {name: files(hand.root)[name] for name in there} == there
    assert Ledger(hand.root).report(["model"]) == report


@pytest.mark.parametrize("spoilt", LOSSES)
def test_a_second_run_writes_nothing(hand: HandMade, spoilt: Callable[[HandMade], None]) -> None:
    spoilt(hand)
    done(hand)
    there = files(hand.root)
    assert done(hand) == (None, [])
    assert files(hand.root) == there


def more_deleted(hand: HandMade) -> None:
    segment(hand, 1, 3).unlink()


def next_line_damaged(hand: HandMade) -> None:
    spoil(segment(hand, 6, 7), line=0)


def new_hole(hand: HandMade) -> None:
    hand.sealed(9, 9)


@pytest.mark.parametrize("later", [more_deleted, next_line_damaged, new_hole])
def test_a_later_loss_of_the_same_writer_is_a_failure_again(
    hand: HandMade, later: Callable[[HandMade], None]
) -> None:
    hole(hand)
    done(hand)
    later(hand)
    found = verdict(hand)
    assert not found.ok
    assert found.known == 2
    assert run("verify", hand.root).exit_code == 1
    assert done(hand).audit
    assert verdict(hand).ok
    assert len(verdict(hand).audits) == 2


def test_other_damage_at_the_same_place_is_a_failure_again(hand: HandMade) -> None:
    line_damaged(hand)
    done(hand)
    spoil(segment(hand, 1, 4), line=1, at=41)
    assert not verdict(hand).ok


def test_a_loss_is_known_for_its_own_reason_only(hand: HandMade) -> None:
    quarantined(hand)
    done(hand)
    hand.sealed(1, 4, [hand.line(1), hand.gap(2, 3), hand.line(4)])
    found = verdict(hand)
    assert (found.lost, found.known, found.ok) == (2, 0, False)


def test_of_another_writer_nothing_is_known(hand: HandMade) -> None:
    other = HandMade(hand.root, OTHER_WRITER)
    hole(hand)
    hole(other)
    done(hand)
    assert not verify(hand.root).ok
    assert [one.ok for one in verify(hand.root).writers] == [True, False]


def test_a_loss_stays_known_after_recovery_has_put_it_on_record(hand: HandMade) -> None:
    hole(hand)
    done(hand)
    hand.live(accepted=7)
    recover(hand.root)
    found = verdict(hand)
    assert (found.state, found.lost, found.ok) == ("recovered", 2, True)


def test_never_acknowledged_records_stay_no_failure_and_are_known_to_strict(
    hand: HandMade,
) -> None:
    hand.sealed(1, 8, [*hand.lines(1, 3), hand.gap(4, 8, acked_until=5)])
    assert (verdict(hand).unacknowledged, verdict(hand).ok) == (3, False)
    done(hand)
    found = verdict(hand)
    assert (found.lost, found.known, found.known_unacknowledged) == (5, 5, 3)
    assert found.complete


def test_only_what_was_never_acknowledged_may_be_left_unknown(hand: HandMade) -> None:
    hand.sealed(1, 8, [*hand.lines(1, 3), hand.gap(4, 8, acked_until=5)])
    done(hand)
    change(hand.root, lambda line: framed(line[:-19].replace(b"[[4,8]]", b"[[6,8]]")))
    assert not verdict(hand).ok
    change(hand.root, lambda line: framed(line[:-19].replace(b"[[6,8]]", b"[[4,5]]")))
    assert (verdict(hand).ok, verdict(hand).complete) == (True, False)
    assert "3 records lost that had never been acknowledged" in told("verify", hand.root)


def test_what_cannot_be_read_is_not_acknowledged(hand: HandMade) -> None:
    hand.sealed(3, 3)
    segment(hand, 1, 2).mkdir()
    result = run("acknowledge", WRITER, hand.root, "--why", "x")
    assert result.exit_code == 1
    assert "cannot be read" in result.stdout
    assert not verdict(hand).ok


def test_a_writer_that_died_is_recovered_first(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 3))
    hand.live(accepted=8)
    there = files(hand.root)
    with pytest.raises(ValueError, match="recover first"):
        done(hand)
    assert files(hand.root) == there


def test_the_command_says_what_it_did(hand: HandMade) -> None:
    hole(hand)
    text = told("acknowledge", WRITER, hand.root, "--why", "restored from paper", "--who", "bob")
    assert "2 lost: acknowledged" in text
    assert "nothing to acknowledge" in told("acknowledge", WRITER, hand.root, "--why", "again")
    (writer,) = as_json("verify", hand.root)["writers"]
    (audit,) = writer["audits"]
    assert (audit["who"], audit["why"], audit["lost"]) == ("bob", "restored from paper", [[4, 5]])
    assert (writer["ok"], writer["known"], writer["lost_numbers"]) == (True, 2, [[4, 5]])
    found = as_json("acknowledge", WRITER, hand.root, "--why", "x")
    assert (found["audit"], found["left"]) == (None, [])


@pytest.mark.parametrize(("writer", "why"), [(OTHER_WRITER, "x"), (WRITER, " ")])
def test_it_needs_a_writer_that_is_there_and_a_reason(
    hand: HandMade, writer: str, why: str
) -> None:
    hole(hand)
    assert run("acknowledge", writer, hand.root, "--why", why).exit_code == 2
    assert not audits(hand.root)


def test_doctor_warns_of_damage_until_it_was_looked_into(hand: HandMade) -> None:
    now = datetime.now(UTC)
    hand.sealed(1, 4, [hand.line(seq, ts=now) for seq in range(1, 5)])
    spoil(segment(hand, 1, 4), line=1)
    assert damage_in_doctor(hand) == ["warning"]
    done(hand)
    assert damage_in_doctor(hand) == ["note"]
    spoil(segment(hand, 1, 4), line=3)
    assert damage_in_doctor(hand) == ["warning"]


def damage_in_doctor(hand: HandMade) -> list[str]:
    findings = json.loads(run("doctor", hand.root, "--json").stdout)["findings"]
    return [one["level"] for one in findings if one["check"] == "damage"]


# -- what others make of it ------------------------------------------------------------------------


def test_an_older_reader_meets_the_version_first(hand: HandMade) -> None:
    hole(hand)
    done(hand)
    names = sorted(path.name for path in (hand.root / SEGMENTS).iterdir())
    assert names[-1].startswith("99991231T000000Z-")
    assert newer_version((hand.root / SEGMENTS / names[-1]).read_bytes()) == 2


def test_records_are_written_beside_audits(hand: HandMade) -> None:
    hole(hand)
    done(hand)

    async def record() -> None:
        async with UsageTracker(hand.root, handle_signals=False) as tracker:
            await tracker.record(UsageRecord(model="new", cost=Decimal(1)))

    asyncio.run(record())
    assert Ledger(hand.root).report([]).total.cost == 1
    assert verify(hand.root).ok


def test_an_anchor_covers_audits(hand: HandMade) -> None:
    hole(hand)
    seal(hand.root)
    before = anchor(hand.root)
    done(hand)
    after = anchor(hand.root)
    assert verify(hand.root, anchors=[before, after]).ok
    change(hand.root, lambda line: framed(line[:-19].replace(b"alice", b"carol")))
    found = verify(hand.root, anchors=[before, after])
    assert [one.ok for one in found.anchors] == [True, False]


def test_it_and_reprice_wait_for_each_other(hand: HandMade) -> None:
    hole(hand)
    (hand.root / PRICES).mkdir()
    held = lock_directory(hand.root / PRICES)
    assert held is not None
    with pytest.raises(LedgerPathError, match="another process"):
        done(hand)
    unlock(held)
    assert done(hand).audit


def test_a_clock_that_went_back_does_not_change_the_order(hand: HandMade) -> None:
    hole(hand)
    first = done(hand).audit
    assert first
    late = datetime(2035, 1, 1, tzinfo=UTC)
    change(
        hand.root,
        lambda line: framed(
            re.sub(rb'"at":"[^"]*"', b'"at":"2035-01-01T00:00:00.000000Z"', line[:-19])
        ),
    )
    new_hole(hand)
    second = done(hand).audit
    assert second
    assert second.at > late


# -- hostile and damaged audits -----------------------------------------------------------------


HOSTILE: dict[str, bytes] = {
    "a range that ends before it begins": b'"lost":[[5,4]]',
    "a number below 1": b'"lost":[[0,5]]',
    "no numbers": b'"lost":[["4","5"]]',
    "an amount": b'"lost":[[4,5]],"cost_picousd":7.5,"damage":7',
    "a deep line": b'"lost":[[4,5]],"x":' + b"[" * 80 + b"]" * 80,
}


@pytest.mark.parametrize(
    ("at", "sense"),
    [("9999-12-31T23:59:59.999999Z", True), ("9999-12-31T23:59:59.999999-05:00", False)],
)
def test_after_the_last_moment_that_there_is_none_can_be_made(
    hand: HandMade, at: str, sense: bool
) -> None:
    hole(hand)
    done(hand)
    now = re.compile(rb'"at":"[^"]*"')
    change(hand.root, lambda line: framed(now.sub(b'"at":"%b"' % at.encode(), line[:-19])))
    assert verify(hand.root).ok is sense
    new_hole(hand)
    if sense:
        with pytest.raises(LedgerPathError, match="end of time"):
            done(hand)
    else:
        assert done(hand).audit


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_an_audit_that_says_no_sense_is_damage(hand: HandMade, members: bytes) -> None:
    hole(hand)
    done(hand)
    change(hand.root, lambda line: framed(line[:-19].replace(b'"lost":[[4,5]]', members)))
    found = verify(hand.root)
    assert found.adjustments
    assert not found.ok
    assert not found.writers[0].ok


@pytest.mark.parametrize(
    "members",
    [
        b'"cost_picousd":9,"new_cost_picousd":7,"model":"m","status":"ok","ts":"2025-01-01T12:00:00Z"',
        b'"adjusts":"%b-0000000000000001","old_cost_picousd":1,"new_cost_picousd":7'
        % WRITER.encode(),
        b'"gap_until":7,"reason":"expired"',
    ],
)
def test_no_audit_changes_a_total(hand: HandMade, members: bytes) -> None:
    hole(hand)
    ledger = Ledger(hand.root)
    before = [ledger.report(by) for by in ([], ["model"], ["day", "status"])]
    rows = ledger.sql("SELECT count(*), sum(cost) FROM calls").rows
    done(hand)
    change(hand.root, lambda line: framed(line[:-19] + b"," + members))
    assert [ledger.report(by) for by in ([], ["model"], ["day", "status"])] == before
    assert ledger.sql("SELECT count(*), sum(cost) FROM calls").rows == rows
    assert [record.seq for record in ledger.records()] == [1, 2, 3, 6, 7]


def test_an_audit_in_another_writers_segment_is_damage_and_covers_nothing(hand: HandMade) -> None:
    hole(hand)
    done(hand)
    (path,) = audits(hand.root)
    line = path.read_bytes()
    path.unlink()
    hand.sealed(8, 8, [line])
    with pytest.raises(UnsupportedFormat):
        verify(hand.root)


def test_an_audit_of_a_newer_version_is_refused(hand: HandMade) -> None:
    hole(hand)
    done(hand)
    change(hand.root, lambda line: framed(line[:-19].replace(b'"acknowledge"', b'"promote"')))
    for order in (Ledger(hand.root).verify, Ledger(hand.root).report):
        with pytest.raises(UnsupportedFormat, match="promote"):
            order()


def test_hostile_text_is_escaped(hand: HandMade) -> None:
    hole(hand)
    acknowledge(hand.root, WRITER, who="\x1b[31mroot", why="a\nOK: all found\u202e")
    text = run("verify", hand.root).output
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\nOK: all found" not in text


def test_the_files_of_a_recovery_stay_in_the_report(hand: HandMade) -> None:
    quarantined(hand)
    (hand.root / RECOVERY).mkdir()
    (hand.root / RECOVERY / f"{WRITER}.{1:016d}.jsonl.open").write_bytes(b"?")
    done(hand)
    assert "Kept in recovery/" in told("verify", hand.root)


def test_the_example_of_the_format_is_a_line_as_we_write_it() -> None:
    (line,) = re.findall(r'^\{"v":2.*"kind":"audit".*$', FORMAT.read_text("utf-8"), re.MULTILINE)
    audit = audit_of(f"{line}\n".encode())
    assert audit is not None
    assert (audit.lost, audit.did) == ([(4, 8)], "acknowledge")
    assert encode_addition(audit).decode() == f"{line}\n"
    assert json.loads(line)["v"] == 2
