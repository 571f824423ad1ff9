"""Sealed files sent to object storage: once, whole, over nothing, whatever fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from obstore.store import LocalStore, MemoryStore
from tests.ledger_by_hand import OTHER_WRITER, WRITER, HandMade
from tests.object_stores import FaultyStore, contents, files, overwrite, prefix, written
from tests.people import LATER, MARY, traces, two_people

from litellm_ledger import Ledger, LedgerPathError, UnsupportedFormat
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.erase import erase
from litellm_ledger._maintenance.person import Person
from litellm_ledger._maintenance.prune import prune
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._objects.erase import erase_objects
from litellm_ledger._objects.proof import shipped_to
from litellm_ledger._objects.sending import Shipment
from litellm_ledger._objects.ship import ObjectShipper
from litellm_ledger._objects.store import Denied, ObjectStorageError, open_prefix
from litellm_ledger.testing import Killed

FIRST = f"segments/{WRITER}.0000000000000001-0000000000000005.jsonl"
VERSION = {"versions/1": b"1\n"}
ALL = Retention(keep=timedelta(days=1))


def ship(root: Path, store: Any, **how: Any) -> Shipment:
    tries = how.pop("tries", 8)
    return ObjectShipper(root, prefix(store, tries=tries), **how).run()


def compacted(root: Path) -> None:
    """Compact what was shipped just now, as if that were a day ago."""
    shutil.rmtree(root / "shipping", ignore_errors=True)
    compact(root, until=LATER)


def forget(root: Path) -> None:
    """Lose what the shipper remembers."""
    shutil.rmtree(root.parent / "caches", ignore_errors=True)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_every_sealed_file_is_there_under_its_name_and_the_next_run_sends_nothing(
    root: Path, where: str, tmp_path: Path
) -> None:
    url = "memory://it" if where == "memory" else f"file://{tmp_path / 'store' / 'of it'}"
    there = open_prefix(url, create=True)
    done = ObjectShipper(root, there).run()
    assert (done.files, done.segments, done.problems) == (6, 2, [])
    assert contents(there._store) == files(root) | VERSION
    forget(root)
    for _ in range(2):  # by what the objects say, then by what is remembered
        puts = there.requests["put"]
        again = ObjectShipper(root, there).run()
        assert not again.changed
        assert again.requests["put"] == puts
    gets = there.requests["get"]
    ObjectShipper(root, there).run()
    assert there.requests["get"] == gets, "asked again"


def test_a_segment_that_is_still_written_waits_and_a_dead_writer_is_finished_first(
    root: Path, store: FaultyStore
) -> None:
    living, dead = HandMade(root, OTHER_WRITER), HandMade(root, f"20250103T000000Z-{'c' * 16}")
    living.open(1, living.lines(1, 2))
    dead.open(1, dead.lines(1, 3))
    dead.live(accepted=3)
    with living.alive(accepted=2):
        done = ship(root, store)
    assert done.waiting == 1
    names = [name for name in contents(store) if name.startswith("segments/")]
    assert any(dead.writer in name for name in names)
    assert not any(living.writer in name for name in names)


def _steps(root: Path) -> int:
    store = FaultyStore()
    ship(root, store)
    forget(root)
    return len(store.asked)


def test_the_requests_are_those_that_the_guide_counts(root: Path, store: FaultyStore) -> None:
    shipper = ObjectShipper(root, prefix(store))

    def asked(run: Callable[[], object]) -> dict[str, int]:
        before = len(store.asked)
        run()
        verbs = [verb for verb, _ in store.asked[before:]]
        return {verb: verbs.count(verb) for verb in sorted(set(verbs))}

    def follow() -> Shipment:
        return shipper.run(listed=True)

    assert asked(follow) == {"list": 5, "put": 6}
    assert asked(follow) == {}
    HandMade(root, WRITER).sealed(10, 12)
    seal(root)
    assert asked(follow) == {"put": 2}
    assert asked(lambda: ship(root, store)) == {"list": 5}
    read = Ledger("memory://there").report
    assert asked(read) == {"get": 3, "list": 5}
    assert asked(read) == {"list": 5}


@pytest.mark.parametrize("lost", [False, True], ids=["not done", "answer lost"])
def test_a_request_that_fails_is_made_again_whichever_it_is(root: Path, lost: bool) -> None:
    for nth in range(1, _steps(root) + 1):
        store = FaultyStore()
        store.fail(nth, lost=lost)
        done = ship(root, store)
        assert (contents(store), done.problems) == (files(root) | VERSION, []), nth
        forget(root)


@pytest.mark.parametrize("lost", [False, True], ids=["before", "after"])
def test_a_shipper_that_is_killed_anywhere_is_finished_by_the_next(root: Path, lost: bool) -> None:
    expected = files(root) | VERSION
    for nth in range(1, _steps(root) + 1):
        store = FaultyStore()
        store.kill(nth, lost=lost)
        with pytest.raises(Killed):
            ship(root, store)
        store.heal()
        there = contents(store)
        assert there.items() <= expected.items(), nth
        for name in there:  # a reader finds no manifest without its segment
            if name.startswith("manifests/"):
                assert f"segments/{name[10:-5]}" in there, nth
        assert not ship(root, store).problems
        assert contents(store) == expected, nth
        forget(root)


def test_a_store_that_never_answers_is_given_up_and_the_next_run_sends_the_rest(
    root: Path, store: FaultyStore
) -> None:
    for nth in range(8, 30):
        store.fail(nth)
    with pytest.raises(ObjectStorageError, match="cannot write memory://there/") as raised:
        ship(root, store, tries=3)
    assert "hidden" not in str(raised.value)
    assert raised.value.__cause__ is None
    store.heal()
    assert not ship(root, store).problems
    assert contents(store) == files(root) | VERSION


def test_credentials_that_do_not_do_are_an_error_at_once(root: Path, store: FaultyStore) -> None:
    store.fail(7, error=PermissionError("no"))
    with pytest.raises(Denied):
        ship(root, store)


def test_two_shippers_that_race_create_each_object_once(root: Path) -> None:
    both = MemoryStore()
    stores = [FaultyStore(both), FaultyStore(both)]
    gate = Barrier(2)
    done: list[Shipment] = []
    for store in stores:
        store.on(6, lambda: gate.wait(60) and None)  # both have listed, and found nothing

    def run(store: FaultyStore) -> None:
        done.append(ObjectShipper(root, prefix(store), remember=False).run())

    threads = [Thread(target=run, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = files(root) | VERSION
    assert contents(both) == expected
    assert sum(one.files for one in done) == len(expected)
    assert [one.problems for one in done] == [[], []]


# -- what is there already ---------------------------------------------------------------------


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("data", [b"something else", None], ids=["other size", "same size"])
def test_an_object_with_another_content_is_named_and_left(
    root: Path, store: FaultyStore, remembered: bool, data: bytes | None
) -> None:
    ship(root, store)
    old = contents(store)[FIRST]
    data = data or old.replace(b'"m"', b'"n"')
    overwrite(store, FIRST, data)
    if not remembered:
        forget(root)
    (problem,) = ship(root, store).problems
    assert (problem.file, problem.what) == (FIRST, "altered")
    assert f"memory://there/{FIRST} has another content" in problem.detail
    assert contents(store)[FIRST] == data


def test_an_upload_that_was_cut_short_is_found(root: Path, store: FaultyStore) -> None:
    half = files(root)[FIRST][:100]
    store.on(7, lambda: store.below.put(FIRST, half))
    (problem,) = ship(root, store).problems
    assert problem.file == FIRST


def test_an_altered_segment_is_not_sent_and_what_is_there_stays(
    root: Path, store: FaultyStore
) -> None:
    path = root / FIRST
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"m"', b'"n"'))
    (problem,) = ship(root, store).problems
    assert "is not what its manifest says" in problem.detail
    assert FIRST not in contents(store)
    path.write_bytes(whole)
    ship(root, store)
    path.write_bytes(whole.replace(b'"m"', b'"n"'))
    assert ship(root, store).problems
    assert contents(store)[FIRST] == whole


def test_names_that_are_of_no_ledger_are_left_alone_and_a_newer_version_is_refused(
    root: Path, store: FaultyStore
) -> None:
    store.below.put("segments/notes.txt", b"mine")
    ship(root, store)
    assert contents(store)["segments/notes.txt"] == b"mine"
    store.below.put("versions/2", b"")
    before = contents(store)
    with pytest.raises(UnsupportedFormat, match="version 2 of the format of objects"):
        ship(root, store)
    assert contents(store) == before


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/p", "s3://b/p?X-Amz-Signature=secret"])
def test_a_secret_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(LedgerPathError) as raised:
        open_prefix(url)
    assert "secret" not in str(raised.value)


# -- compaction and retention ------------------------------------------------------------------


def test_of_compacted_segments_the_archive_is_sent_and_the_objects_go_when_asked(
    root: Path, store: FaultyStore
) -> None:
    ship(root, store)
    before = contents(store)
    compacted(root)
    done = ship(root, store)
    assert (done.files, done.removed) == (1, 0)
    assert before.items() <= contents(store).items()
    assert ship(root, store, remove_compacted=True).removed == 2
    assert contents(store) == files(root) | VERSION


def test_a_false_archive_removes_no_object(root: Path, store: FaultyStore) -> None:
    """An attacker on the machine wants the objects gone that he cannot reach."""
    ship(root, store)
    copy = shutil.copytree(root, root.parent / "copy")
    compacted(copy)
    (archive,) = (copy / "archive").iterdir()
    import duckdb
    from tests.object_stores import sha256

    from litellm_ledger._archive.archive import FORMAT_KEY, SOURCES_KEY
    from litellm_ledger._archive.footer import read_footer, value_of

    with archive.open("rb") as file:
        sources = value_of(read_footer(file) or b"", SOURCES_KEY)
    assert sources is not None
    forged = root.parent / "forged"
    duckdb.execute(
        f"COPY (FROM '{archive}' LIMIT 3) TO '{forged}' (FORMAT parquet, KV_METADATA "
        f"{{{FORMAT_KEY}: '1', {SOURCES_KEY}: '{sources.decode()}'}})"
    )
    data = forged.read_bytes()
    (root / "archive").mkdir()
    (root / "archive" / f"2025-01-01.{sha256(data)[:16]}.parquet").write_bytes(data)
    done = ship(root, store, remove_compacted=True)
    assert done.removed == 0
    assert len(done.problems) == 2
    assert FIRST in contents(store)


def test_what_is_pruned_here_stays_there(root: Path, store: FaultyStore) -> None:
    ship(root, store)
    before = contents(store)
    assert prune(root, ALL, who="x", why="old").unshipped == 2, "not for a day"
    assert prune(root, ALL, who="x", why="old", shipped=lambda _: 10**9).segments == 2
    for _ in range(2):
        assert not ship(root, store).problems
        assert contents(store) == before
        forget(root)


def test_what_was_pruned_before_is_explained_there_as_it_is_here(
    root: Path, store: FaultyStore
) -> None:
    prune(root, ALL, who="x", why="old")
    assert not ship(root, store).problems
    assert contents(store) == files(root) | VERSION


def test_prune_takes_only_what_is_there_for_certain(root: Path, store: FaultyStore) -> None:
    hand = HandMade(root, WRITER)

    def pruned() -> int:
        shipped = shipped_to(root, prefix(store))
        return prune(root, ALL, who="x", why="old", shipped=shipped).segments

    assert pruned() == 0
    ship(root, store)
    hand.sealed(10, 12)
    seal(root)
    overwrite(store, FIRST, contents(store)[FIRST].replace(b'"m"', b'"n"'), signed=True)
    assert pruned() == 0, "the first number there is another one"
    overwrite(store, FIRST, (root / FIRST).read_bytes())
    forget(root)
    gets = len(store.asked)
    assert pruned() == 2
    assert [verb for verb, _ in store.asked[gets:]].count("get") == 2
    assert pruned() == 0
    ship(root, store)
    assert pruned() == 1
    assert Ledger(root).verify().ok


# -- erasure -----------------------------------------------------------------------------------


def erased(root: Path) -> None:
    done = erase(root, Person([f"user={MARY}"]), who="x", why="asked")
    assert done.records


@pytest.mark.parametrize("early", [True, False], ids=["shipped before compaction", "after"])
def test_what_is_erased_here_is_erased_there_by_the_next_run(
    tmp_path: Path, store: FaultyStore, early: bool
) -> None:
    root = tmp_path / "usage"
    two_people(root, archive=not early)
    ship(root, store)
    if early:
        compacted(root)
        ship(root, store)
    assert traces(written(store, tmp_path / "before"))
    erased(root)
    done = ship(root, store)
    assert not done.problems
    assert done.replaced
    assert done.removed
    assert not traces(written(store, tmp_path / "after"))
    expected = files(root) | VERSION
    there = contents(store)
    assert {name: there.get(name) for name in expected} == expected
    assert not ship(root, store).changed


def test_an_erasure_is_carried_on_wherever_the_shipper_is_killed(tmp_path: Path) -> None:
    root = tmp_path / "usage"
    two_people(root)
    old = FaultyStore()
    ship(root, old)
    erased(root)
    forget(root)
    before, nth = contents(old), 5
    while True:
        nth += 2
        store = FaultyStore()
        for name, data in before.items():
            store.below.put(name, data)
        store.kill(nth)
        try:
            ship(root, store)
        except Killed:
            pass
        else:
            break
        store.heal()
        forget(root)
        assert not ship(root, store).problems, nth
        assert not traces(written(store, tmp_path / f"after{nth}")), nth
        forget(root)
    assert nth > 12


def test_a_copy_from_before_an_erasure_brings_nothing_back(
    tmp_path: Path, store: FaultyStore
) -> None:
    root = tmp_path / "usage"
    two_people(root)
    copy = shutil.copytree(root, tmp_path / "copy")
    ship(root, store)
    erased(root)
    ship(root, store)
    done = ship(copy, store)
    assert done.problems
    assert all("erase here as well" in problem.detail for problem in done.problems)
    assert not traces(written(store, tmp_path / "after"))


def test_a_forged_audit_of_an_erasure_has_nobody_remove_objects(
    tmp_path: Path, store: FaultyStore
) -> None:
    root = tmp_path / "usage"
    two_people(root, archive=True)
    ship(root, store)
    there = contents(store)
    copy = shutil.copytree(root, tmp_path / "copy")
    erased(copy)
    forged = files(copy)
    for name in forged.keys() - there.keys():  # who may only create, and has no records
        store.below.put(name, b"" if name.startswith("archive/") else forged[name])
    HandMade(root, OTHER_WRITER).sealed(1, 5)
    done = ship(root, store)
    assert done.removed == 0
    assert there.keys() <= contents(store).keys()


def test_an_object_that_is_larger_than_any_file_of_a_ledger_is_not_read_by_a_shipper(
    root: Path, tmp_path: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "segments/99991231T000000Z-00000000000000ff.0000000000000001-0000000000000002.jsonl"
    store.below.put(name, bytes(200_000))
    monkeypatch.setattr("litellm_ledger._objects.ship.LARGEST", 100_000)
    done = ship(root, store)
    assert ("get", name) not in store.asked
    assert [one.file for one in done.problems] == [name]
    assert done.files > 2


def test_a_person_is_erased_from_objects_that_no_machine_has_any_more(
    tmp_path: Path, store: FaultyStore
) -> None:
    root = tmp_path / "usage"
    two_people(root)
    ship(root, store)
    shutil.rmtree(root)
    there = prefix(store)
    person = Person([f"user={MARY}"])
    looked, _ = erase_objects(there, person)
    assert looked.records
    assert traces(written(store, tmp_path / "before"))
    done, sent = erase_objects(there, person, who="x", why="asked", keep=True)
    assert done.done
    assert sent.removed == 1
    after = written(store, tmp_path / "after")
    assert not traces(after)
    assert Ledger(after).verify(full=True).ok
    assert erase_objects(there, person)[0].nothing


def test_an_erasure_in_objects_is_ended_by_the_next_run_wherever_it_is_killed(
    tmp_path: Path,
) -> None:
    root = tmp_path / "usage"
    two_people(root, adjust=False)
    first = FaultyStore()
    ship(root, first)
    before = contents(first)
    person = Person([f"user={MARY}"])
    asked = len(first.asked)
    erase_objects(prefix(first), person, who="x", why="asked")
    writes = [
        at for at, (verb, _) in enumerate(first.asked[asked:], 1) if verb in ("put", "delete")
    ]
    assert len(writes) > 6
    for number in (len(writes) // 2, len(writes) - 1):
        store = FaultyStore()
        for name, data in before.items():
            store.below.put(name, data)
        store.kill(writes[number], lost=bool(number % 2))
        with pytest.raises(Killed):
            erase_objects(prefix(store), person, who="x", why="asked")
        store.heal()
        done, _ = erase_objects(prefix(store), person, who="x", why="asked")
        assert done.done, number
        after = written(store, tmp_path / f"after{number}")
        assert not traces(after), number
        assert Ledger(after).verify(full=True).ok, number


def test_what_comes_while_a_person_is_erased_is_said(root: Path, store: FaultyStore) -> None:
    ship(root, store)
    new = f"segments/{OTHER_WRITER}.0000000000000001-0000000000000001.jsonl"
    looks = len([one for one in store.asked if one[0] == "list"])
    assert looks == 5
    store.on(20, lambda: store.below.put(new, HandMade(root, OTHER_WRITER).line(1)))
    done, _ = erase_objects(prefix(store), Person(["user=nobody"]), who="x", why="asked")
    assert [problem.file for problem in done.left] == [new]


def test_a_directory_as_a_store_is_written_to_by_two_and_renamed_to_whole_files(
    root: Path, tmp_path: Path
) -> None:
    there = tmp_path / "store"
    there.mkdir()
    for _ in range(2):
        ObjectShipper(root, prefix(LocalStore(there)), remember=False).run()
    assert Ledger(there).verify(full=True).ok
