"""Erasing a person: what goes, what stays, what waits, what is on record, and who may forge it."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.disks import QUICK
from tests.ledger_by_hand import NOON, OTHER_WRITER, WRITER, HandMade, spoil
from tests.ledgers import contents
from tests.people import JOHN, LATER, MARY, People, adjusted, says, traces, two_people

from litellm_ledger import Ledger, LedgerPathError
from litellm_ledger._archive.archive import list_archive
from litellm_ledger._maintenance.acknowledge import acknowledge
from litellm_ledger._maintenance.additions import new_writer, write_additions
from litellm_ledger._maintenance.backup import back_up
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.erase import Erased, erase
from litellm_ledger._maintenance.erasing import alone, finish_pending
from litellm_ledger._maintenance.person import Person
from litellm_ledger._maintenance.prune import prune
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._maintenance.rewriting import anonymous
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.anchor import anchor
from litellm_ledger._reading.price_check import check_prices
from litellm_ledger._reading.verify import verify
from litellm_ledger._records.adjustment import encode_addition
from litellm_ledger._records.audit import Audit, Changed, ChangedFile, Was
from litellm_ledger._records.layout import SEGMENTS, SegmentName, record_id
from litellm_ledger._reports import engine as _engine
from litellm_ledger._storage import manifest as manifests
from litellm_ledger.testing import FaultyFileSystem, Killed


def out(root: Path, *where: str, keep: bool = False, fs: Any = QUICK) -> Erased:
    person = Person(where or [f"user={MARY}"])
    return erase(root, person, who="officer", why="asked for", keep=keep, fs=fs)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    two_people(tmp_path / "usage")
    return tmp_path / "usage"


def one_segment(root: Path, *lines: bytes, writer: str = WRITER) -> People:
    hand = People(root, writer)
    hand.sealed(1, len(lines), lines)
    seal(root)
    return hand


# -- what goes, what stays -------------------------------------------------------------------------


def test_she_is_in_no_byte_and_his_lines_are_the_same_bytes(root: Path) -> None:
    before = [raw for raw in lines_of(root) if JOHN.encode() in raw]
    his = says(root, JOHN)
    then = anchor(root)
    assert len(traces(root)) > 10
    done = out(root)
    assert (done.records, done.calls, done.adjustments, done.recovered, done.hidden) == (
        10, 5, 1, 1, 1,
    )  # fmt: skip
    assert (done.waiting, done.left, done.marks) == (0, (), ())
    assert traces(root) == []
    assert [raw for raw in lines_of(root) if JOHN.encode() in raw] == before
    assert says(root, JOHN) == his
    assert says(root)[1] == his[1]
    found = verify(root, full=True, anchors=[then])
    assert found.ok
    (run,) = found.erasures
    assert (run.records, run.who, run.why, run.kept) == (10, "officer", "asked for", False)
    (check,) = found.anchors
    assert check.since == [run]
    assert sum(writer.removed for writer in found.writers) == 10
    assert anchor(root).records == then.records - 12  # two of them twice


def lines_of(root: Path) -> list[bytes]:
    return [record.raw for record in _entries(root)]


def _entries(root: Path) -> Any:
    from litellm_ledger._reading.lines import everything
    from litellm_ledger._reading.listing import Snapshot

    return everything(Snapshot.take(root), [])


@pytest.mark.parametrize("keep", [False, True])
def test_both_engines_agree_afterwards(
    root: Path, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out(root, keep=keep)
    said = says(root)
    monkeypatch.setattr(_engine, "_LARGE", -1)
    assert says(root) == said


def test_kept_amounts_are_the_same_in_every_group_and_nothing_names_her(root: Path) -> None:
    before, his = says(root), says(root, JOHN)
    done = out(root, keep=True)
    assert (done.records, done.adjustments) == (10, 1)
    assert traces(root) == []
    assert (says(root), says(root, JOHN)) == (before, his)
    found = verify(root, full=True)
    assert found.ok
    assert found.erasures[0].kept
    assert check_prices(root).ok
    teams = {row.group["tag:team"] for row in Ledger(root).report(["team"]).rows}
    assert teams == {f"team of {JOHN}", "(none)"}
    state = contents(root)
    again = out(root, keep=True)
    assert again.nothing
    assert contents(root) == state


def test_a_second_run_changes_nothing(root: Path) -> None:
    out(root)
    state = contents(root)
    assert out(root).nothing
    assert contents(root) == state


def test_kept_lines_that_are_asked_for_by_their_operation_are_not_written_twice(
    tmp_path: Path,
) -> None:
    hand = one_segment(tmp_path, *People(tmp_path).call(1, MARY))
    assert out(tmp_path, f"operation={hand.id(1)}", keep=True).records == 2
    state = contents(tmp_path)
    assert out(tmp_path, f"operation={hand.id(1)}", keep=True).nothing
    assert contents(tmp_path) == state


def test_numbers_in_a_row_become_one_gap_with_the_erased_ones_beside_them(tmp_path: Path) -> None:
    hand = People(tmp_path)
    three = [hand.line(seq, tags={"user": user}) for seq, user in enumerate("abac", 1)]
    hand.sealed(1, 6, [*three, hand.gap(5, 5), hand.line(6, tags={"user": "a"})])
    out(tmp_path, "user=a")
    out(tmp_path, "user=b")
    (path,) = (path for path in (tmp_path / SEGMENTS).iterdir() if WRITER in path.name)
    assert path.read_bytes() == b"".join(
        [hand.gap(1, 3, "erased"), three[3], hand.gap(5, 5), hand.gap(6, 6, "erased")]
    )
    assert verify(tmp_path, full=True).ok is False  # number 5 was lost before
    assert [run.records for run in verify(tmp_path).erasures] == [3, 1]


@pytest.mark.parametrize("where", ["response_id=resp-mary-jones-1", "call_id=call-one"])
def test_the_beginning_goes_with_an_outcome_that_is_found_by_an_id(
    tmp_path: Path, where: str
) -> None:
    hand = People(tmp_path)
    first, second = hand.call(1, MARY), hand.call(3, JOHN)
    first[1] = hand.line(
        2, operation=hand.id(1), attempt=1, response_id="resp-mary-jones-1", call_id="call-one"
    )
    one_segment(tmp_path, *first, *second)
    assert out(tmp_path, where).records == 2
    assert Ledger(tmp_path).report([]).total.calls == 1


def test_of_one_key_any_value_may_match_and_all_keys_must(tmp_path: Path) -> None:
    hand = People(tmp_path)
    tags = [{"user": u, "env": e} for u in ("anna-1", "anna-2", "bert-1") for e in ("prod", "test")]
    hand.filled(*({"tags": one} for one in tags))
    assert erase(tmp_path, Person(["user=anna-1", "user=anna-2", "env=prod"])).records == 2
    assert erase(tmp_path, Person(["user=anna-1", "user=anna-2"])).records == 4
    assert erase(tmp_path, Person(["user=anna-1", "env!=prod"])).records == 1


@pytest.mark.parametrize(
    "where",
    [[], ["status=ok"], ["user!=u1"], ["user="], ["user=(none)"], ["call_id!=x"], ["ts>2025"]],
)
def test_conditions_that_name_nobody_are_refused(where: list[str]) -> None:
    with pytest.raises(ValueError, match=r"mark|times|id"):
        Person(where)


def test_marks_in_any_way_json_may_write_them_are_hers_and_in_other_letters_another_persons(
    tmp_path: Path,
) -> None:
    hand = People(tmp_path)
    every = "".join(f"\\u{ord(sign):04X}" for sign in MARY)
    one_segment(
        tmp_path,
        hand.foreign(1, f'"tags":{{"user":"{every}"}}'),
        hand.foreign(2, f'"tags":{{"us\\u0065r":"{MARY}"}}'),
        hand.line(3, tags={"user": MARY.upper()}),
    )
    done = out(tmp_path)
    assert done.records == 2
    assert [(one.times, one.in_name) for one in done.marks] == [(1, False), (1, False)]
    assert traces(tmp_path, "jones")
    assert Ledger(tmp_path).report(["user"]).rows[0].group == {"tag:user": MARY.upper()}


def test_marks_elsewhere_are_listed_with_file_and_count(tmp_path: Path) -> None:
    hand = People(tmp_path)
    his = hand.line(3, tags={"user": JOHN}, content={"said": f"{MARY}, {MARY}", "u": "\u001b"})
    one_segment(tmp_path, *hand.call(1, MARY), his)
    (tmp_path / f"notes-{MARY}.txt").write_text("nothing")
    done = out(tmp_path)
    assert {(one.file.split("/")[0], one.times, one.in_name) for one in done.marks} == {
        (f"notes-{MARY}.txt", 1, True),
        ("segments", 2, False),
    }
    assert done.done


def test_a_short_mark_is_looked_for_as_a_word(tmp_path: Path) -> None:
    person = Person(["user=u1"])
    assert person.count(b'"du1e" u12 xu1 "call":"u1" (U1)') == 2
    assert person.without("gpt-u1") == "gpt-u1"
    assert person.without("u1") is None
    hand = People(tmp_path)
    hand.filled({"tags": {"user": "u1"}}, {"tags": {"user": "u12"}})
    assert erase(tmp_path, person, who="x", why="y").marks == ()


def test_names_with_a_mark_go_from_lines_whose_amounts_stay(tmp_path: Path) -> None:
    hand = People(tmp_path)
    tuned = f"ft:gpt-4o:{MARY}"
    one_segment(
        tmp_path,
        hand.line(
            1, model=tuned, error=f"{MARY}Error", tags={"user": MARY}, operation=f"op {MARY}"
        ),
        hand.line(2, model=tuned, attempt=2, tags={"user": MARY}, operation=f"op {MARY}"),
    )
    out(tmp_path, keep=True)
    assert traces(tmp_path) == []
    first, second = (entry.line for entry in _entries(tmp_path))
    assert first.model is first.error is None
    assert first.operation == second.operation == first.id


# -- what waits ------------------------------------------------------------------------------------


def test_what_a_living_writer_still_needs_waits(tmp_path: Path) -> None:
    hand = People(tmp_path)
    hand.sealed(1, 3, [*hand.call(1, MARY), hand.call(3, MARY)[0]])  # 3 has no outcome yet
    seal(tmp_path)
    hand.sealed(4, 5, hand.call(4, MARY))  # its manifest is being made
    hand.open(6, hand.call(6, MARY))
    with hand.alive(7):
        done = out(tmp_path)
        assert (done.records, done.waiting, done.done) == (2, 5, False)
        found = verify(tmp_path)
        assert found.ok
        assert found.total("in_flight") == 1
    (tmp_path / "live" / f"{WRITER}.live").unlink()
    path = next((tmp_path / SEGMENTS).glob("*.open"))
    path.rename(path.with_name(str(SegmentName(WRITER, 6, 7))))
    done = out(tmp_path)
    assert (done.records, done.waiting, done.done) == (5, 0, True)
    assert traces(tmp_path) == []


def test_an_adjustment_of_a_record_that_waits_stays_with_it(tmp_path: Path) -> None:
    two_people(tmp_path / "made", archive=False)
    root = tmp_path / "made"
    hand = People(root, WRITER)
    first = SegmentName(WRITER, 1, 4)
    (root / "manifests" / first.manifest).unlink()
    with hand.alive(8):
        assert out(root).adjustments == 0
    (root / "live" / f"{WRITER}.live").unlink()
    assert out(root).adjustments == 1
    assert traces(root) == []


# -- what is not whole -----------------------------------------------------------------------------


def test_in_a_damaged_segment_all_else_stays_where_it_was(tmp_path: Path) -> None:
    hand = People(tmp_path)
    path = hand.sealed(1, 6, [*hand.call(1, MARY), *hand.call(3, JOHN), *hand.call(5, MARY)])
    spoil(path, line=2)
    acknowledge(tmp_path, WRITER, who="x", why="y", fs=QUICK)
    assert verify(tmp_path).ok
    size = path.stat().st_size
    done = out(tmp_path)
    assert [problem.what for problem in done.left] == ["damaged"]
    assert path.stat().st_size == size
    assert traces(tmp_path) == []
    assert verify(tmp_path).ok, "what was looked into is so still"


def test_damaged_bytes_with_a_mark_are_written_over(tmp_path: Path) -> None:
    hand = People(tmp_path)
    path = hand.sealed(1, 4, [*hand.call(1, MARY), *hand.call(3, JOHN)])
    spoil(path, line=1)
    done = out(tmp_path)
    assert (done.records, done.hidden, done.done) == (1, 1, False)
    assert traces(tmp_path) == []
    assert not verify(tmp_path).ok


def test_a_segment_that_is_not_what_its_manifest_says_does_not_become_so(tmp_path: Path) -> None:
    hand = one_segment(tmp_path, *People(tmp_path).call(1, MARY), *People(tmp_path).call(3, JOHN))
    hand.sealed(1, 4, [*hand.call(1, MARY), *hand.call(3, JOHN, pico=1)])
    assert not verify(tmp_path).ok
    assert not out(tmp_path).done
    assert traces(tmp_path) == []
    (writer,) = verify(tmp_path).writers
    assert [problem.what for problem in writer.problems] == ["altered"]


def test_tables_of_lines_that_are_gone_name_nobody_and_come_to_the_same(tmp_path: Path) -> None:
    hand = People(tmp_path)
    hand.filled(*({"tags": {"user": user}, "cost": Decimal(1)} for user in (MARY, JOHN, MARY)),
                {"cost": Decimal(2)})  # fmt: skip
    seal(tmp_path)
    (name,) = (SegmentName.parse(path.name) for path in (tmp_path / SEGMENTS).iterdir())
    assert name is not None
    there = manifests.read(tmp_path, name)
    assert there is not None
    new = anonymous(there[0], lambda tag, value: (tag, value) == ("user", MARY))
    assert new is not None
    read = manifests.parse(manifests.encode(new), name)
    assert read is not None
    table = read.table_of("user")
    assert table is not None
    sums = {group.of[-1]: group.sums["pico"] for group in table.groups}
    assert sums == {None: [4 * 10**12], JOHN: [10**12]}
    (tmp_path / SEGMENTS / str(name)).unlink()
    done = out(tmp_path)
    assert done.files == 1
    assert traces(tmp_path) == []


@pytest.mark.parametrize("keep", [False, True])
def test_of_what_was_pruned_nothing_names_her_and_the_sums_stay(tmp_path: Path, keep: bool) -> None:
    root, old = tmp_path / "usage", {"ts": NOON - timedelta(days=100)}
    hand = People(root)
    expired = [*hand.call(1, MARY, **old), *hand.call(3, JOHN, **old), *hand.call(5, MARY, **old)]
    hand.sealed(1, 6, expired)
    hand.sealed(7, 10, [*hand.call(7, MARY), *hand.call(9, JOHN)])
    adjusted(root, expired[1], expired[3])
    seal(root)
    anchors = [anchor(root)]
    prune(root, Retention(keep=timedelta(days=50)), who="x", why="y", now=NOON)
    anchors.append(anchor(root))
    (before, his) = (Ledger(root).report([]), says(root, JOHN))
    assert (before.total.calls, before.aggregated, before.adjusted) == (5, 3, 2)

    done = out(root, keep=keep)
    assert (done.records, done.waiting) == (2, 0)
    assert traces(root) == []
    assert says(root, JOHN) == his
    for large in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_engine, "_is_large", lambda *_, large=large: large)
            report = Ledger(root).report(["user"])
        mine = [row for row in report.rows if row.group["tag:user"] == "(none)"]
        assert [row.calls for row in mine] == [3 if keep else 2]
        gone = Decimal(0) if keep else Decimal("0.00000123")
        assert report.total.cost == before.total.cost - gone
        assert report.adjusted == 2
    anchors.append(anchor(root))
    found = verify(root, full=True, anchors=anchors)
    assert found.ok
    assert all(one.ok for one in found.anchors)
    state = contents(root)
    assert not out(root, keep=keep).records
    assert contents(root) == state
    copy = tmp_path / "copy"
    back_up(root, copy)
    assert traces(copy) == []
    rule = Retention(keep=timedelta(days=50), keep_aggregates=timedelta(days=60))
    assert prune(root, rule, who="x", why="y", now=NOON).manifests == 1
    assert verify(root, full=True, anchors=anchors).ok
    assert Ledger(root).report([]).total.calls == (2 if keep else 1)


# -- what is on record -----------------------------------------------------------------------------


def test_neither_name_nor_reason_may_have_a_mark(root: Path) -> None:
    for names in ({"who": "x", "why": f"{MARY} asked"}, {"who": MARY.upper(), "why": "y"}):
        with pytest.raises(ValueError, match="mark"):
            erase(root, Person([f"user={MARY}"]), **names)
    assert not verify(root).erasures


def test_the_audit_has_no_hash_of_her_either(root: Path) -> None:
    out(root)
    data = b"".join(path.read_bytes() for path in (root / SEGMENTS).glob("9999*"))
    for text in (MARY, f"user={MARY}", f'"{MARY}"', f"{MARY}\n"):
        for name in ("md5", "sha1", "sha256"):
            assert hashlib.new(name, text.encode()).hexdigest()[:16].encode() not in data


def test_an_anchor_of_before_between_and_after_holds(root: Path) -> None:
    anchors = [anchor(root)]
    out(root)
    anchors.append(anchor(root))
    out(root, f"user={JOHN}")
    anchors.append(anchor(root))
    found = verify(root, anchors=anchors)
    assert found.ok
    assert [len(one.since) for one in found.anchors] == [2, 1, 0]


def test_a_manifest_that_a_living_writer_makes_after_it_follows_the_old_one(tmp_path: Path) -> None:
    hand = one_segment(tmp_path, *People(tmp_path).call(1, MARY))
    first = manifests.read(tmp_path, SegmentName(WRITER, 1, 2))
    assert first is not None
    then = anchor(tmp_path)
    out(tmp_path)
    hand.sealed(3, 4, hand.call(3, JOHN))
    from litellm_ledger._storage.contents import make, write

    name = SegmentName(WRITER, 3, 4)
    told = make(
        tmp_path / SEGMENTS / str(name), name,
        previous=manifests.identity(first[1]), after=first[0].sealed,
    )  # fmt: skip
    write(QUICK, tmp_path, told)
    hand.sealed(5, 6, hand.call(5, JOHN))
    seal(tmp_path)
    found = verify(tmp_path, full=True, anchors=[then])
    assert found.ok, found.writers


def test_files_that_come_back_from_a_backup_are_told_of(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    out(root)
    for part in ("segments", "manifests"):
        shutil.copytree(copy / part, root / part, dirs_exist_ok=True)
    found = verify(root)
    assert not found.ok
    assert found.undone
    out(root)
    assert verify(root).ok
    assert traces(root) == []


def test_an_incremental_backup_takes_the_files_anew(root: Path, tmp_path: Path) -> None:
    to = tmp_path / "backup"
    back_up(root, to, fs=QUICK)
    out(root)
    done = back_up(root, to, incremental=True, fs=QUICK)
    assert done.problems == ()
    assert done.renewed > 5
    assert traces(to) == []
    assert verify(to, full=True).ok
    assert says(to) == says(root)
    assert back_up(root, to, incremental=True, fs=QUICK).renewed == 0


def test_files_keep_their_rights(root: Path) -> None:
    modes = {0o640: next((root / SEGMENTS).glob(f"{OTHER_WRITER}*")), 0o600: None}
    modes[0o600] = next((root / "recovery").iterdir())
    for mode, path in modes.items():
        assert path is not None
        path.chmod(mode)
    out(root)
    for mode, path in modes.items():
        assert path is not None
        assert path.stat().st_mode & 0o777 == mode


# -- who else is there -----------------------------------------------------------------------------


def killed_after_the_audit(root: Path) -> None:
    disk = FaultyFileSystem(QUICK)

    class Stop(FaultyFileSystem):
        def rename(self, old: Path, new: Path) -> None:
            if old.parent.name == "erasing" and new.parent.name != "erasing":
                raise Killed
            super().rename(old, new)

    with pytest.raises(Killed):
        out(root, fs=Stop(disk))
    assert verify(root).undone


@pytest.mark.parametrize("who", ["seal", "recover", "compact", "acknowledge", "erase another"])
def test_who_comes_next_finishes_what_was_killed(root: Path, who: str) -> None:
    his = says(root, JOHN)
    killed_after_the_audit(root)
    with pytest.raises(LedgerPathError, match="erased"):
        anchor(root)
    if who == "seal":
        seal(root)
    elif who == "recover":
        recover(root)
    elif who == "compact":
        compact(root, until=LATER)
    elif who == "acknowledge":
        acknowledge(root, WRITER, who="x", why="y")
    else:
        out(root, "user=nobody-else")
    assert verify(root, full=True).ok
    assert traces(root) == []
    assert says(root, JOHN) == his


def test_two_at_once_do_not_disturb_each_other(root: Path) -> None:
    with alone(root):
        for other in (
            lambda: out(root),
            lambda: seal(root),
            lambda: compact(root, until=LATER),
            lambda: back_up(root, root.parent / "copy"),
        ):
            with pytest.raises(LedgerPathError, match=r"erased|changing"):
                other()
        dead = HandMade(root, "20250103T000000Z-00000000000000cc")
        dead.open(1, dead.lines(1, 2))
        dead.live(2)
        assert recover(root).skipped == (dead.writer,)
        finish_pending(root, QUICK)
    (done,) = recover(root).writers
    assert done.writer == dead.writer


# -- attacks ---------------------------------------------------------------------------------------


def forge(root: Path, at: datetime, **members: Any) -> None:
    adder = new_writer(at)
    audit = Audit(
        v=2, id=record_id(adder, 1), seq=1, kind="audit", did="erase", at=at, who="mallory",
        why="asked for", writer=WRITER, **members,
    )  # fmt: skip
    write_additions(root, QUICK, adder, [encode_addition(audit)])


def alter(root: Path, path: Path) -> Changed:
    """Write a cheaper history over a segment, with a manifest and an audit's words that fit."""
    name = SegmentName.parse(path.name)
    assert name is not None
    there = manifests.read(root, name)
    assert there is not None
    was, data = there
    hand = People(root, name.writer)
    hand.sealed(1, 2, hand.call(1, JOHN, pico=1))
    (root / "manifests" / name.manifest).unlink()
    seal(root)
    found = manifests.read(root, name)
    assert found is not None
    new = msgspec.structs.replace(found[0], sealed=was.sealed, previous=was.previous)
    (root / "manifests" / name.manifest).write_bytes(manifests.encode(new))

    def said(one: manifests.Manifest, raw: bytes) -> Was:
        return Was(size=one.size, lines=one.lines, records=one.records, sha256=one.sha256,
                   manifest=manifests.identity(raw))  # fmt: skip

    return Changed(segment=path.name, was=said(was, data), now=said(new, manifests.encode(new)))


def test_a_forged_audit_cannot_be_dated_before_an_anchor(tmp_path: Path) -> None:
    one_segment(tmp_path, *People(tmp_path).call(1, JOHN))
    then = anchor(tmp_path)
    changed = alter(tmp_path, tmp_path / SEGMENTS / str(SegmentName(WRITER, 1, 2)))
    before = datetime.fromisoformat(then.at) - timedelta(seconds=1)
    forge(tmp_path, before, segments=[changed])
    assert not verify(tmp_path, anchors=[then]).ok


def test_a_forged_audit_after_an_anchor_is_said_whenever_it_is_asked_for(tmp_path: Path) -> None:
    one_segment(tmp_path, *People(tmp_path).call(1, JOHN))
    then = anchor(tmp_path)
    changed = alter(tmp_path, tmp_path / SEGMENTS / str(SegmentName(WRITER, 1, 2)))
    assert not verify(tmp_path, anchors=[then]).ok, "without an audit it is an alteration"
    forge(tmp_path, datetime.now(UTC) + timedelta(seconds=1), segments=[changed])
    found = verify(tmp_path, anchors=[then])
    assert [run.who for run in found.anchors[0].since] == ["mallory"]


def test_an_audit_names_no_file_outside_the_ledger(tmp_path: Path) -> None:
    root = tmp_path / "usage"
    one_segment(root, *People(root).call(1, MARY))
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (root / "erasing").mkdir()
    sha256 = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("precious", "evil")}
    names = ["recovery/../../victim", "../victim", "recovery/..", "live/x.live", str(victim)]
    for number, name in enumerate(names):
        (root / "erasing" / f"recovery.{number}").write_bytes(b"evil")
        file = ChangedFile(file=name, sha256=sha256["precious"], now=sha256["evil"])
        forge(root, datetime.now(UTC) + timedelta(seconds=number), files=[file])
    finish_pending(root, QUICK)
    assert victim.read_bytes() == b"precious"
    assert list((root / "erasing").iterdir()) == []
    assert out(root).done


def test_a_value_of_a_record_cannot_hide_a_file_of_the_archive(tmp_path: Path) -> None:
    hand = People(tmp_path)
    hand.sealed(1, 2, hand.call(1, JOHN))
    seal(tmp_path)
    compact(tmp_path, until=LATER)
    (file,) = list_archive(tmp_path)
    value = f'["{file.path.name}"]'
    key = "litellm_ledger_replaces"
    forged = f"\x18{chr(len(key))}{key}\x18{chr(len(value))}{value}\0"
    other = People(tmp_path, OTHER_WRITER)
    other.filled({"model": forged, "provider": forged, "call_id": forged})
    seal(tmp_path)
    compact(tmp_path, until=LATER)
    assert len(list_archive(tmp_path)) == 2
    assert Ledger(tmp_path).report([]).total.calls == 2


def test_a_link_in_place_of_the_directory_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / "erasing").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerPathError, match="symbolic link"):
        out(root)
