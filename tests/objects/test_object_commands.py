"""The commands that send a ledger to object storage, verify it there, and take records out."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.test_web_api import asked
from tests.ledger_by_hand import WRITER, HandMade
from tests.object_stores import FaultyStore, contents, files, overwrite, prefix, written
from tests.people import MARY, traces, two_people
from tests.terminal import as_json, run, told

from litellm_ledger import Ledger
from litellm_ledger._cli import shipping
from litellm_ledger._maintenance.seal import seal

URL = "memory://there"
FIRST = f"segments/{WRITER}.0000000000000001-0000000000000005.jsonl"


def test_the_command_ships_and_says_what_it_did(root: Path, store: FaultyStore) -> None:
    prefix(store)
    done = as_json("ship", root, "--to", URL)
    assert (done["ok"], done["to"], done["ledgers"][0]["files"]) == (True, URL, 6)
    assert "nothing new to send; memory://there has 2 segments of it" in told(
        "ship", root, "--to", URL
    )
    overwrite(store, FIRST, b"other")
    found = run("ship", root, "--to", URL)
    assert (found.exit_code, FIRST in found.stdout) == (1, True)
    assert run("ship", root, "--to", "ftp://x").exit_code == 2
    assert run("ship", root, "--to", "s3://a:hidden@b").exit_code == 2


def test_following_sends_what_comes_and_an_error_holds_it_up_only_while_it_lasts(
    root: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix(store)
    rounds = 0

    class Told:
        """Ends after some rounds, in which more comes and the store fails."""

        def wait(self, _: float) -> bool:
            nonlocal rounds
            rounds += 1
            if rounds == 1:
                hand = HandMade(root, WRITER)
                hand.sealed(10, 12)
                seal(root)
                store.fail(1, error=PermissionError("denied"))
            return rounds >= 3

    from contextlib import nullcontext

    monkeypatch.setattr(shipping, "_until_told", lambda: nullcontext(Told()))
    found = run("ship", root, "--to", URL, "--follow")
    assert found.exit_code == 0
    assert found.stdout.count("sent") == 2
    assert found.stderr.count("denied") == 1
    assert contents(store) == files(root) | {"versions/1": b"1\n"}
    asked = len(store.asked)
    run("ship", root, "--to", URL, "--follow")
    assert {verb for verb, _ in store.asked[asked:]} == {"list"}


def test_a_follower_ends_cleanly_when_it_is_told(root: Path, tmp_path: Path) -> None:
    there = tmp_path / "store"
    words = ["-m", "litellm_ledger", "ship", str(root), "--to", f"file://{there}", "--follow"]
    with subprocess.Popen(
        [sys.executable, *words, "--every", "600"], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert "6 files" in child.stdout.readline()
        child.send_signal(signal.SIGTERM)
    assert child.returncode == 0
    assert Ledger(there).verify(full=True).ok


def test_verify_and_anchor_take_the_url(root: Path, store: FaultyStore, tmp_path: Path) -> None:
    prefix(store)
    told("ship", root, "--to", URL)
    said = told("verify", URL)
    assert "OK: 9 records found, nothing lost or damaged." in said
    assert "Cannot prove: That everything was sent: " in said
    same = f"Compared with {root}: all that is sealed there is here"
    assert same in " ".join(told("verify", URL, "--against", root).split())
    line = told("anchor", URL)
    assert line == told("anchor", root)
    (tmp_path / "anchors").write_text(line)
    assert "holds" in told("verify", URL, "--anchor", tmp_path / "anchors")
    store.below.delete(FIRST)
    store.below.delete(f"manifests/{FIRST.removeprefix('segments/')}.json")
    found = run("verify", URL, "--anchor", tmp_path / "anchors")
    assert (found.exit_code, "DOES NOT HOLD" in found.stdout) == (1, True)
    assert f"{WRITER}: 5 of 9 records lost" in found.stdout or "5 lost" in found.stdout
    assert run("verify", URL, "--prices").exit_code == 2


def test_the_dashboard_shows_a_prefix_as_it_shows_the_directory(root: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    told("ship", root, "--to", url)
    paths = "/api/report?by=model&every=day&since=2025-01-01", "/api/calls?limit=9", "/api/tags"
    here, there = asked(root, *paths), asked(url, *paths)
    for one, other in zip(here, there, strict=True):
        assert one.json() | {"as_of": ""} == other.json() | {"as_of": ""}
    assert [one.status_code for one in asked(url, "/", "/live", "/ledger")] == [200] * 3


def test_prune_removes_what_is_proved_to_be_there(root: Path, store: FaultyStore) -> None:
    prefix(store)
    told("ship", root, "--to", URL)
    assert "not shipped yet, or not for a day" in told("prune", root, "--keep", "1d")
    overwrite(store, FIRST, contents(store)[FIRST].replace(b'"m"', b'"n"'), signed=True)
    assert "2 segments kept" in told("prune", root, "--keep", "1d", "--shipped-to", URL)
    overwrite(store, FIRST, (root / FIRST).read_bytes())
    assert "9 records" in told("prune", root, "--keep", "1d", "--shipped-to", URL)


@pytest.mark.parametrize("where", ["here and there", "there"])
def test_erase_takes_the_url(tmp_path: Path, store: FaultyStore, where: str) -> None:
    root = tmp_path / "usage"
    two_people(root)
    prefix(store)
    told("ship", root, "--to", URL)
    who = ("--where", f"user={MARY}")
    if where == "there":
        shutil.rmtree(root)
        assert "would be erased" in told("erase", URL, *who, "--dry-run")
        assert traces(written(store, tmp_path / "before"))
        assert run("erase", URL, *who).exit_code == 2, "it asks"
        assert "erased; " in told("erase", URL, *who, "--yes")
    else:
        said = told("erase", root, *who, "--yes", "--to", URL)
        assert f"{URL}:" in said
        assert Ledger(root).verify().ok
    assert not traces(written(store, tmp_path / "after"))
    assert Ledger(URL).verify(full=True).ok
