"""A ledger in object storage answers as its directory does, and fetches what it needs."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore
from tests.ledger_by_hand import NOON, OTHER_WRITER, WRITER, HandMade
from tests.object_stores import FaultyStore, contents, overwrite, prefix
from tests.people import MARY, traces, two_people
from tests.terminal import run

from litellm_ledger import Ledger, LedgerError, LedgerPathError, UnsupportedFormat
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.erase import erase
from litellm_ledger._maintenance.person import Person
from litellm_ledger._maintenance.prune import prune
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._objects import reading as objects_reading
from litellm_ledger._objects.reading import SIZE
from litellm_ledger._objects.ship import ObjectShipper
from litellm_ledger.testing import Killed

URL = "memory://there"
FIRST = f"segments/{WRITER}.0000000000000001-0000000000000005.jsonl"
SECOND = f"segments/{WRITER}.0000000000000006-0000000000000009.jsonl"


def ship(root: Path, store: Any) -> None:
    assert not ObjectShipper(root, prefix(store)).run().problems


def days(root: Path, *, archive: bool = True) -> None:
    """A segment a day, for a week; those of the first days in the archive."""
    hand = HandMade(root, WRITER)
    for day in range(7):
        first = 1 + 3 * day
        lines = [
            hand.line(first + i, ts=NOON + timedelta(days=day, minutes=i), tags={"day": str(day)})
            for i in range(3)
        ]
        hand.sealed(first, first + 2, lines)
    seal(root)
    if archive:
        compact(root, until=(NOON + timedelta(days=3)).date())


def fetched(store: FaultyStore, since: int = 0) -> list[str]:
    """The segments and files of the archive that were read as a whole."""
    parts = ("segments/2", "archive/")
    return sorted(
        {name for verb, name in store.asked[since:] if verb == "get" and name.startswith(parts)}
    )


# -- the same answers --------------------------------------------------------------------------


def test_every_question_has_the_answer_of_the_directory(tmp_path: Path, store: FaultyStore) -> None:
    root = tmp_path / "usage"
    two_people(root)
    ship(root, store)
    here, there = Ledger(root), Ledger(URL)
    span = {"since": NOON + timedelta(seconds=2), "until": NOON + timedelta(seconds=6)}
    for asked in (
        {},
        span,
        {"where": {"user": MARY}},
        {"where": ["cost>0.000001"]},
        {"quantiles": True},
    ):
        for by in ([], ["model"], ["day", "status"], ["user"], ["nothing"]):
            assert here.report(by, **asked) == there.report(by, **asked), (by, asked)  # type: ignore[arg-type]
    kinds = ("usage", "started", "gap")
    assert [*there.records(kinds=kinds)] == [*here.records(kinds=kinds)]
    assert [*there.records(**span)] == [*here.records(**span)]
    assert there.calls() == here.calls()
    assert there.calls(limit=2, where={"user": MARY}) == here.calls(limit=2, where={"user": MARY})
    assert there.tags() == here.tags()
    key = f"{WRITER}-0000000000000005"
    assert there.operation(key) == here.operation(key)
    assert there.segments() == here.segments()
    query = "SELECT model, count(*), sum(cost) FROM calls GROUP BY ALL ORDER BY ALL"
    assert there.sql(query).rows == here.sql(query).rows
    assert there.pruned() == here.pruned()


@pytest.mark.parametrize(
    "words",
    [("daily",), ("report", "--by", "user"), ("calls",), ("records",), ("top",)],
    ids=lambda words: words[0],
)
def test_commands_print_the_same(
    tmp_path: Path, store: FaultyStore, words: tuple[str, ...]
) -> None:
    root = tmp_path / "usage"
    two_people(root, archive=False)
    ship(root, store)
    printed = [run(words[0], place, *words[1:], "--json").stdout for place in (root, URL)]
    assert printed[0].replace(str(root), "") == printed[1].replace(URL, "")


def test_what_was_pruned_on_the_machine_is_still_answered_there(
    tmp_path: Path, store: FaultyStore
) -> None:
    root = tmp_path / "usage"
    days(root)
    ship(root, store)
    before = Ledger(root).report(["day", "day_tag"]), [*Ledger(root).records()]
    prune(root, Retention(keep=timedelta(days=1)), who="x", why="old", shipped=lambda _: 10**9)
    assert not [*Ledger(root).records()]
    ObjectShipper(root, prefix(store)).run()
    assert (Ledger(URL).report(["day", "day_tag"]), [*Ledger(URL).records()]) == before
    assert Ledger(URL).verify().ok


def test_several_places_are_read_as_one_and_a_directory_beside_its_objects_is_refused(
    root: Path, store: FaultyStore, tmp_path: Path
) -> None:
    ship(root, store)
    other = HandMade(tmp_path / "other", OTHER_WRITER)
    other.sealed(1, 2)
    seal(other.root)
    ObjectShipper(other.root, prefix(FaultyStore(), "memory://elsewhere")).run()
    both = Ledger([URL, "memory://elsewhere"]).report([])
    assert both == Ledger([root, other.root]).report([])
    with pytest.raises(LedgerPathError, match="would count twice"):
        Ledger([root, URL]).report([])


# -- what is fetched ---------------------------------------------------------------------------


def test_manifests_alone_answer_a_report(tmp_path: Path, store: FaultyStore) -> None:
    root = tmp_path / "usage"
    days(root)
    ship(root, store)
    for by in (["day"], ["model"], ["day:day", "model"][1:], ["tag:day"]):
        assert Ledger(URL).report(by) == Ledger(root).report(by)
    assert fetched(store) == [], "of the archive only the footers"


def test_of_a_time_only_its_segments_are_fetched_and_only_once(
    tmp_path: Path, store: FaultyStore
) -> None:
    root = tmp_path / "usage"
    days(root)
    ship(root, store)
    start = len(store.asked)
    span = {"since": NOON + timedelta(days=5), "until": NOON + timedelta(days=6)}
    for _ in range(2):
        assert [*Ledger(URL).records(**span)] == [*Ledger(root).records(**span)]
    assert len(fetched(store, start)) == 1
    start = len(store.asked)
    assert [*Ledger(URL).records(**span)]
    assert {verb for verb, _ in store.asked[start:]} == {"list"}
    assert Ledger(URL).tags() == ["day"]
    assert not fetched(store, start), "manifests know the tags"


def test_a_file_that_was_replaced_or_removed_there_goes_from_the_cache(
    tmp_path: Path, store: FaultyStore
) -> None:
    root = tmp_path / "usage"
    two_people(root)
    ship(root, store)
    assert [*Ledger(URL).records(where={"user": MARY})]
    assert traces(tmp_path / "caches")
    erase(root, Person([f"user={MARY}"]), who="x", why="asked")
    ship(root, store)
    assert not [*Ledger(URL).records(where={"user": MARY})]
    assert not traces(tmp_path / "caches")
    assert Ledger(URL).report(["user"]) == Ledger(root).report(["user"])


def test_what_is_beyond_the_size_goes_between_questions(
    root: Path, store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept() -> set[str]:
        found = (tmp_path / "caches").rglob("*.jsonl*")
        return {path.parent.name for path in found if path.is_file()}

    ship(root, store)
    monkeypatch.setattr(objects_reading, "cache_limit", lambda: 1)
    records = Ledger(URL).records()
    next(records)
    assert [*Ledger(URL).records()]
    assert kept() == {"segments", "manifests"}, "a question is being answered"
    records.close()
    assert [*Ledger(URL).records()] == [*Ledger(root).records()]
    assert kept() == {"manifests"}
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    monkeypatch.setenv(SIZE, "0")
    assert [*Ledger(URL).records()]
    assert not (tmp_path / "none").exists()
    monkeypatch.setenv(SIZE, "much")
    with pytest.raises(LedgerPathError, match=SIZE):
        Ledger(URL).report([])


def test_processes_share_a_cache(root: Path, tmp_path: Path) -> None:
    there = tmp_path / "store"
    there.mkdir()
    ObjectShipper(root, prefix(LocalStore(there))).run()
    code = (
        "import sys; from litellm_ledger import Ledger\n"
        "one = Ledger(sys.argv[1]); print(one.report([]).total.calls, len([*one.records()]))"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"file://{there}"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert [child.communicate()[0] for child in children] == ["9 9\n"] * 2
    left = [path for path in (tmp_path / "caches").rglob("*") if path.suffix == ".tmp"]
    assert not left


# -- what goes wrong ---------------------------------------------------------------------------


def test_a_request_that_fails_is_made_again_and_a_killed_reader_leaves_nothing_false(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FaultyStore()
    ship(root, store)
    truth = [*Ledger(root).records()]
    monkeypatch.setattr("litellm_ledger._objects.store.time.sleep", lambda _: None)
    start = len(store.asked)
    assert [*Ledger(URL).records()] == truth
    for nth in range(1, len(store.asked) - start + 1):
        for lost in (False, True):
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"caches{nth}{lost}"))
            store.fail(nth, lost=lost)
            assert [*Ledger(URL).records()] == truth, nth
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"killed{nth}{lost}"))
            store.kill(nth, lost=lost)
            with pytest.raises(Killed):
                [*Ledger(URL).records()]
            store.heal()
            assert [*Ledger(URL).records()] == truth, nth


@pytest.mark.parametrize("signed", [False, True], ids=["without a checksum", "with the old one"])
def test_an_object_that_an_attacker_replaced_is_named(
    root: Path, store: FaultyStore, signed: bool
) -> None:
    ship(root, store)
    assert Ledger(URL).verify().ok
    assert [*Ledger(URL).records()], "the cache has the true one"
    overwrite(store, FIRST, contents(store)[FIRST].replace(b'"m"', b'"n"'), signed=signed)
    found = Ledger(URL).verify()
    assert not found.ok
    problems = [(one.file, one.what) for writer in found.writers for one in writer.problems]
    assert problems == [(FIRST, "altered"), (FIRST, "damaged")]
    if signed:
        with pytest.raises(LedgerError, match=f"{URL}/{FIRST} is not what was sent"):
            [*Ledger(URL).records()]
        with pytest.raises(LedgerPathError, match="is not what was sent"):
            Ledger(URL).calls()
    else:
        assert Ledger(URL).records() is not None


def test_what_is_missing_is_named_and_counted(root: Path, store: FaultyStore) -> None:
    ship(root, store)
    store.below.delete(FIRST)
    found = Ledger(URL).verify()
    assert [(one.file, one.what) for writer in found.writers for one in writer.problems] == [
        (FIRST, "missing")
    ]
    store.below.delete(f"manifests/{FIRST.removeprefix('segments/')}.json")
    found = Ledger(URL).verify()
    assert (found.ok, found.total("lost"), found.writers[0].lost_numbers) == (False, 5, [(1, 5)])
    store.below.delete(SECOND)
    store.below.delete(f"manifests/{SECOND.removeprefix('segments/')}.json")
    store.below.put("segments/x", b"")
    assert not Ledger(URL).verify().writers, "nobody can tell: only the directory knows"
    found = Ledger(URL).verify(against=[root])
    assert not found.ok
    assert {(one.file, one.what) for one in found.archive} == {
        (FIRST, "missing"),
        (SECOND, "missing"),
    }


def test_a_file_of_the_archive_that_is_not_its_name_is_refused(
    tmp_path: Path, store: FaultyStore
) -> None:
    root = tmp_path / "usage"
    days(root)
    ship(root, store)
    name = next(name for name in contents(store) if name.startswith("archive/"))
    data = contents(store)[name]
    store.below.put(name, data[:40] + bytes(20) + data[60:])
    assert not Ledger(URL).verify().ok
    with pytest.raises(LedgerError, match="is not what was sent"):
        [*Ledger(URL).records()]


def test_an_object_that_is_larger_than_any_file_of_a_ledger_is_not_fetched(
    root: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(root, store)
    monkeypatch.setattr("litellm_ledger._objects.mirror.LARGEST", 1_200)
    store.below.put(FIRST, bytes(2_000))
    start = len(store.asked)
    with pytest.raises(LedgerError, match="has 2,000 bytes, more than any file"):
        [*Ledger(URL).records()]
    assert ("get", FIRST) not in store.asked[start:]


def test_the_footer_of_an_archive_that_is_too_large_is_not_fetched(
    root: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(root, store)
    name = f"archive/2025-01-01.{'0' * 16}.parquet"
    monkeypatch.setattr("litellm_ledger._objects.mirror.LARGEST", 200_000)
    store.below.put(name, bytes(200_000) + (190_000).to_bytes(4, "little") + b"PAR1")
    start = len(store.asked)
    with pytest.raises(LedgerError, match="more than any file"):
        Ledger(URL).report(["tag:x"], where={"model": "m"})
    assert not any(name in asked for asked in store.asked[start:])


def test_where_nothing_is_or_a_newer_version_was_it_is_said(store: FaultyStore) -> None:
    prefix(store)
    with pytest.raises(LedgerPathError, match="litellm-ledger ship --to"):
        Ledger(URL).report([])
    store.below.put("versions/9", b"")
    with pytest.raises(UnsupportedFormat, match="version 9"):
        Ledger(URL).report([])
    with pytest.raises(LedgerPathError) as raised:
        Ledger("s3://key:hidden@bucket/x")
    assert "hidden" not in str(raised.value)
