"""A shipper that has read ahead, and what is erased from its ledger before that is sent."""

from __future__ import annotations

import asyncio
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import WRITER, HandMade
from tests.postgres.databases import texts
from tests.shipped import assert_exactly_once

from litellm_ledger import Ledger
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.erase import erase
from litellm_ledger._maintenance.person import Person
from litellm_ledger._postgres import database
from litellm_ledger._records.layout import LIVE, SegmentName, live_name
from litellm_ledger._shipping.road import Road
from litellm_ledger._shipping.shipper import Shipper

WHO = "user-31337"


def filled(root: Path, *, archived: bool) -> None:
    hand = HandMade(root)
    lines = [hand.line(seq, tags={"user": WHO if seq > 15 else "u2"}) for seq in range(1, 61)]
    hand.sealed(1, 60, lines)
    if archived:
        assert compact(root, until=date(2030, 1, 1)).segments == 1


def erased(root: Path) -> int:
    return erase(root, Person([f"user={WHO}"]), who="ops", why="asked for").records


async def all_of_it(shipper: Shipper) -> None:
    while await shipper.step(all_now=True):
        pass
    assert shipper.failing is None
    await shipper.close()


async def assert_nobody_is_there(url: str, root: Path) -> None:
    assert WHO.encode() not in await asyncio.to_thread(texts, url)
    found = await asyncio.to_thread(Ledger(url).verify, against=[str(root)])
    assert found.ok, found
    await assert_exactly_once(url, [root])


@pytest.mark.asyncio
@pytest.mark.parametrize("archived", [False, True])
async def test_what_was_read_ahead_and_then_erased_is_not_sent(
    tmp_path: Path, database_url: str, archived: bool
) -> None:
    filled(tmp_path, archived=archived)
    shipper = Shipper(database_url, [Road(tmp_path, "test", lines=10)])
    assert await shipper.step(all_now=True)
    assert shipper._ready is not None
    assert WHO.encode() in b"".join(shipper._ready.stretch.lines)
    assert await asyncio.to_thread(erased, tmp_path) == 45
    await all_of_it(shipper)
    await assert_nobody_is_there(database_url, tmp_path)


@pytest.mark.asyncio
async def test_what_is_erased_while_it_is_sent_is_not_committed(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, archived=False)
    real = database.copy

    async def slow(*args: Any, **how: Any) -> None:
        await real(*args, **how)
        monkeypatch.setattr(database, "copy", real)
        await asyncio.to_thread(erased, tmp_path)

    monkeypatch.setattr(database, "copy", slow)
    await all_of_it(Shipper(database_url, [Road(tmp_path, "test", lines=20)]))
    await assert_nobody_is_there(database_url, tmp_path)


@pytest.mark.asyncio
async def test_what_was_read_ahead_is_shipped_although_it_is_sealed_or_compacted_meanwhile(
    tmp_path: Path, database_url: str
) -> None:
    hand = HandMade(tmp_path)
    path = hand.open(1, hand.lines(1, 40))
    shipper = Shipper(database_url, [Road(tmp_path, "test", lines=10)])
    with hand.alive(40, 40):
        assert await shipper.step(all_now=True)
        assert shipper._ready is not None
    (tmp_path / LIVE / live_name(WRITER)).unlink()
    path.rename(path.with_name(str(SegmentName(WRITER, 1, 40))))
    assert await shipper.step(all_now=True)
    assert shipper._ready is not None
    until = date(2030, 1, 1)
    assert (await asyncio.to_thread(compact, tmp_path, until=until)).segments == 0, "not shipped"
    shutil.rmtree(tmp_path / "shipping")
    assert (await asyncio.to_thread(compact, tmp_path, until=until)).segments == 1
    await all_of_it(shipper)
    assert await assert_exactly_once(database_url, [tmp_path]) == 40
