"""Running the core against a real directory, and looking at what it left there, byte by byte."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import threading
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from litellm_ledger import Ledger, UsageRecord, UsageTracker
from litellm_ledger._records.layout import LIVE, SEGMENTS, SegmentName
from litellm_ledger._records.scan import scan
from litellm_ledger._tracking.calls_in_flight import CallsInFlight
from litellm_ledger._tracking.tracker import serve_client
from litellm_ledger._writing.admission import Admission

LITELLM = tuple(int(part) for part in importlib.metadata.version("litellm").split(".")[:2])
"""The version under test: some of what LiteLLM does depends on it."""


PRICE = Decimal("0.02")
WAIT = 20.0
"""Seconds after which something that should have happened has not."""


def usage(key: object = None, **fields: Any) -> UsageRecord:
    """One outcome: 150 tokens, two cents; ``key`` tells it from others."""
    given = {"model": "m", "input_tokens": 100, "output_tokens": 50, "cost": PRICE, **fields}
    return UsageRecord(call_id=None if key is None else str(key), **given)


def calls_of(tracker: UsageTracker) -> CallsInFlight:
    """What a client would record its calls through."""
    return serve_client(tracker, tracker.aclose)


def keys(root: Path) -> list[str | None]:
    """The keys on the ledger, in its order."""
    return [record.call_id for record in Ledger(root).records()]


def kinds(root: Path) -> list[str]:
    """``started`` or the status of each line, in order."""
    found = Ledger(root).records(kinds=("started", "usage", "gap"))
    return [record.status or record.kind for record in found]


def lines(root: Path) -> list[tuple[str, int]]:
    """Every valid line in every file, as (writer, number); fails on anything else in the files."""
    found: list[tuple[str, int]] = []
    for path in sorted((root / SEGMENTS).iterdir()):
        name = SegmentName.parse(path.name)
        assert name is not None, f"left over: {path.name}"
        content = scan(path.read_bytes(), name.writer, name.first)
        assert not content.damaged, f"damaged: {path.name}"
        assert not content.torn, f"torn: {path.name}"
        numbers = [head.seq for head, _ in content.lines]
        assert numbers == list(range(name.first, name.first + len(numbers))), f"order: {path.name}"
        if not name.open:
            assert numbers[-1] == name.last, f"misnamed: {path.name}"
        found += [(name.writer, number) for number in numbers]
    return found


def assert_once(root: Path, expected: Iterable[object] | None = None) -> None:
    """Every number of every writer is there once, in order; and so are the expected keys."""
    found = lines(root)
    for writer in {name for name, _ in found}:
        numbers = [number for name, number in found if name == writer]
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), "a hole, or a number twice"
    if expected is not None:
        assert keys(root) == [str(key) for key in expected]


def assert_verified(root: Path, *, strictly: bool = False, about: object = "") -> None:
    """``verify`` finds nothing amiss; if it does, the failure says all that it has found.

    Args:
        strictly: nothing is lost either that nobody had been told of.
        about: what the failure says first.
    """
    found = Ledger(root).verify()
    if not (found.complete if strictly else found.ok):
        said = found.to_dict()
        whole = [writer for writer in said["writers"] if writer["complete"]]
        said["writers"] = [writer for writer in said["writers"] if not writer["complete"]]
        said["complete"] = [writer["writer"] for writer in whole]
        pytest.fail(f"{about}\n{json.dumps(said, indent=1, default=str)}")


def assert_closed(root: Path) -> None:
    """The marks of a clean close: all sealed, no live file, nothing for recovery."""
    names = [path.name for path in (root / SEGMENTS).iterdir()]
    assert not [name for name in names if not name.endswith(".jsonl")]
    assert not list((root / LIVE).iterdir())
    assert_verified(root)


def at_once(work: Callable[[], object], count: int) -> None:
    """Run it in a number of threads, to their end."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ack_before_the_write(patch: pytest.MonkeyPatch) -> None:
    """Sabotage: the code that waits for an acknowledgement has it at once."""

    async def ack(self: object, record: object, timeout: float | None = None) -> bool:
        return True

    patch.setattr(Admission, "ack", ack)


def assert_whole(root: Path, expected: Iterable[object] | None = None) -> None:
    """All of it is there once, and the ledger is closed."""
    assert_once(root, expected)
    assert_closed(root)


async def turns(count: int = 6) -> None:
    """Let everything that can run, run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Any) -> None:
    """Let the loop turn until something is so."""
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110 - the disk thread sets no asyncio.Event
            await asyncio.sleep(0.001)


async def stuck(hang: Any) -> None:
    """Wait until somebody hangs in the disk."""
    assert await asyncio.to_thread(hang.entered.wait, WAIT)
