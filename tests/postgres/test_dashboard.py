"""The dashboard of a database: the answers of the directory that is shipped to it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_web_api import PAGES, SECRET, answer, asked, fill, record
from tests.ledger_by_hand import HandMade
from tests.postgres.databases import run
from tests.postgres.shipped import load, roll, seal_all

from litellm_ledger._reading.elsewhere import Fetched, Wanted
from litellm_ledger._reports.places import place_of
from litellm_ledger._warehouse.reading import Database
from litellm_ledger._web import feed
from litellm_ledger._web.service import Asked, Service
from litellm_ledger._web.verifying import Verifier
from litellm_ledger._web.worker import Workers

LATER = "20991231T000000Z-00000000000000ff"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, module_database_url: str) -> tuple[Path, str]:
    """A ledger, and the database that it is shipped to; a half of it is in the sums."""
    root = tmp_path_factory.mktemp("dashboard") / "usage"
    fill(root)
    seal_all(root)
    load(module_database_url, root, lines=7)
    roll(module_database_url, most=10)
    return root, module_database_url


ASKED = (
    "/api/summary",
    "/api/summary?tz=Asia/Kathmandu&where=model=gpt-4o",
    "/api/report?last=60d",
    "/api/report?by=model&by=status&every=day&last=60d&tz=Australia/Lord_Howe",
    "/api/report?by=tag:user&by=tag:tenant&quantiles=1&limit=3",
    "/api/report?by=tag:user&where=tag:tenant=acme&where=model!=claude",
    "/api/calls?limit=200",
    "/api/calls?where=tag:user=u1&limit=2",
    "/api/calls?status=error",
    "/api/tags",
    "/api/live",
)


@pytest.mark.parametrize("who", ["operator", "acme", f"{SECRET}-tenant", "somebody else"])
def test_the_answers_are_those_of_the_directory(both: tuple[Path, str], who: str) -> None:
    for path, one, other in zip(
        ASKED, asked(both[0], *ASKED, who=who), asked(both[1], *ASKED, who=who), strict=True
    ):
        assert (one.status_code, other.status_code) == (200, 200), other.text
        told, found = one.json(), other.json()
        for answer_ in (told, found):
            answer_.pop("as_of")
            answer_.pop("processes", None)  # these are on their machine
        assert found == told, path


def test_calls_are_listed_page_by_page_each_once(both: tuple[Path, str]) -> None:
    every = [one["id"] for one in answer(both[1], "/api/calls?limit=200")["calls"]]
    found: list[str] = []
    path = "/api/calls?limit=4"
    while len(found) <= len(every):
        told = answer(both[1], path)
        found += [one["id"] for one in told["calls"]]
        if told["next"] is None:
            break
        path = f"/api/calls?limit=4&before={told['next']}"
    assert (len(every), found) == (29, every)
    own = calls_of(both[1], "acme")
    theirs = next(one for one in every if one not in own)
    (refused,) = asked(both[1], f"/api/calls?before={theirs}", who="acme")
    assert refused.status_code == 404


def calls_of(url: str, who: str) -> list[str]:
    return [one["id"] for one in answer(url, "/api/calls?limit=200", who)["calls"]]


def test_an_operation_is_told_to_those_who_may_see_it(both: tuple[Path, str]) -> None:
    keys, theirs = calls_of(both[0], "operator"), calls_of(both[1], "acme")
    paths = [f"/api/operations/{key}" for key in keys]
    here, there = asked(both[0], *paths), asked(both[1], *paths)
    assert [one.json()["attempts"] for one in there] == [one.json()["attempts"] for one in here]
    seen = [one.status_code for one in asked(both[1], *paths, who="acme")]
    assert seen == [200 if key in theirs else 404 for key in keys]


def test_every_page_is_shown_and_nothing_of_others(both: tuple[Path, str]) -> None:
    pages = (*PAGES, "/ledger")
    for who in ("operator", "acme"):
        for path, found in zip(pages, asked(both[1], *pages, who=who), strict=True):
            seen = 403 if path == "/ledger" and who != "operator" else 200
            assert found.status_code == seen, found.text
            assert who == "operator" or SECRET not in found.text
    (ledger,) = asked(both[1], "/ledger")
    assert "Not shipped yet" in ledger.text
    assert "Processes" not in ledger.text
    assert answer(both[1], "/health", who="nobody") == {"ok": True, "checks": {}}


def test_what_is_not_shipped_yet_is_said_to_operators(both: tuple[Path, str]) -> None:
    told = answer(both[1], "/api/ledger")
    assert (told["unshipped"], told["writers"], told["findings"]) == (None, 2, [])
    run(both[1], "UPDATE litellm_ledger.writers SET accepted = shipped + 5 WHERE writer_id = 1")
    assert answer(both[1], "/api/ledger")["unshipped"]["records"] == 5
    report = answer(both[1], "/api/report")
    assert report["is_floor"]
    assert "5 records" in " ".join(report["notes"])
    assert "5 records" not in " ".join(answer(both[1], "/api/report", "acme")["notes"])
    run(both[1], "UPDATE litellm_ledger.writers SET accepted = shipped WHERE writer_id = 1")


def test_calls_that_are_shipped_later_are_news(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    HandMade(tmp_path / "first").filled(record(2))
    load(database_url, tmp_path / "first")
    monkeypatch.setattr(feed, "_LOOK_THERE", 0.05)
    place, news = place_of(database_url), queue.Queue[feed.News]()
    looking = feed.Feed(place, news.put)
    looking.run(True)
    try:
        hello = news.get(timeout=60)
        more = HandMade(tmp_path / "more", LATER)
        more.filled(record(0, tags={"tenant": "acme"}), record(1, tags={"tenant": "other"}))
        load(database_url, tmp_path / "more")
        told = news.get(timeout=60)
    finally:
        looking.run(False)
    assert [tags for tags, _, _ in told.calls] == [{"tenant": "acme"}, {"tenant": "other"}]
    for scope, number in ((None, 2), ({"tenant": ["acme"]}, 1)):
        found = feed.missed(place, hello.at, scope)
        assert found is not None
        assert (len(found[0]), found[1], found[2]) == (number, told.at, False)
        assert feed.missed(place, told.at, scope) == ([], told.at, False)
    monkeypatch.setattr(feed, "_FETCHED", 1)
    assert feed.missed(place, hello.at, None) == ([], told.at, True)


def test_four_connections_serve_many_viewers(
    both: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(place_of(both[1]))
    turns: threading.BoundedSemaphore = service.answers._source._place._turns  # type: ignore[attr-defined]
    lock, inside, full = threading.Lock(), 0, threading.Event()
    free: list[bool] = []
    fetch = Database.fetch

    @contextmanager
    def counted(self: Database, wanted: Wanted) -> Iterator[Fetched]:
        nonlocal inside
        with lock:
            inside += 1
            if inside == 4:
                free.append(turns.acquire(blocking=False))
                full.set()
        assert full.wait(60)
        with fetch(self, wanted) as fetched:
            yield fetched

    monkeypatch.setattr(Database, "fetch", counted)
    given = [[("where", f"tag:user=u{number}")] for number in range(16)]
    asking = [Asked(kind="api", what="report", given=one, scope=None) for one in given]
    with ThreadPoolExecutor(len(asking)) as pool:
        assert {reply.status for reply in pool.map(service, asking)} == {200}
    assert free == [False]


def test_verify_says_what_it_cannot_prove(both: tuple[Path, str]) -> None:
    async def run() -> dict[str, Any]:
        return [one async for one in Verifier(both[1]).run()][-1]["result"]

    told = asyncio.run(run())
    assert (told["ok"], told["lost"]) == (True, 0)
    assert "owner of the database" in told["cannot_prove"][-1]


def test_a_password_is_in_no_list_of_processes_and_in_no_answer(tmp_path: Path) -> None:
    url = "postgresql://somebody:hunter2@127.0.0.1:1/nothing"

    async def run() -> Any:
        workers = Workers(url, process=True, hear=lambda _: None)
        try:
            asking = Asked(kind="api", what="summary", given=[], scope=None)
            reply = await workers.ask(asking)
            running: Any = workers._running
            return reply, [argument for one in running._each for argument in one._child.args]
        finally:
            await asyncio.to_thread(workers.close)

    reply, shown = asyncio.run(run())
    assert reply.status == 503
    assert b"127.0.0.1:1" in reply.body
    assert b"hunter2" not in reply.body
    assert "hunter2" not in " ".join(shown)
    (page,) = asked(url, "/", who="acme")
    assert (page.status_code, "127.0.0.1" in page.text) == (503, False)
    with pytest.raises(ValueError, match="no ledger is read from"):
        asked(f"ftp://{tmp_path}", "/")
