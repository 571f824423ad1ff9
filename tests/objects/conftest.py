"""Ledgers and stores for tests of object storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ledger_by_hand import WRITER, HandMade
from tests.object_stores import FaultyStore

from litellm_ledger._maintenance.seal import seal
from litellm_ledger._objects import store as objects_store


@pytest.fixture(autouse=True)
def caches_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    yield
    objects_store.memory.clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two segments with manifests, and a price."""
    hand = HandMade(tmp_path / "usage", WRITER)
    hand.sealed(1, 5)
    hand.sealed(6, 9)
    seal(hand.root)
    (hand.root / "prices").mkdir(exist_ok=True)
    (hand.root / "prices" / f"user-{'0' * 24}.json").write_bytes(b"{}")
    return hand.root


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()
