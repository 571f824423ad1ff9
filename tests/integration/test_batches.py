"""Batches: billed once, when they are done, however often one asks about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.arguments import check, to
from tests.leaks import collected
from tests.ledgers import outcomes

from litellm_ledger import LiteLLMClient
from litellm_ledger._calls.pricing import Pricing
from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.connections import Strays
from litellm_ledger.testing import Behaviour, OpenAIServer

__all__ = ["collected"]  # a fixture

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # LiteLLM's logging reads the output of a batch that is done, with a client that it drops.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Its types for batches do not match what it puts there.
    pytest.mark.filterwarnings("ignore:(?s)Pydantic serializer warnings:UserWarning"),
]


@pytest_asyncio.fixture(loop_scope="module")
async def client(tmp_path: Path) -> AsyncIterator[LiteLLMClient]:
    async with LiteLLMClient(tmp_path / "usage", max_retries=0) as opened:
        yield opened


@pytest.mark.parametrize("no_usage", [False, True])
async def test_a_batch_is_billed_once_however_often_one_asks(
    server: OpenAIServer, client: LiteLLMClient, no_usage: bool
) -> None:
    batch = await client.acreate_batch(**to(server, "acreate_batch"))
    behaviour = Behaviour(no_usage=no_usage)  # then the output file is read
    given = to(server, "aretrieve_batch", behaviour) | {"batch_id": batch.id}
    for _ in range(4):
        await client.aretrieve_batch(**given)
    # Again, all at once, and by a client of its own: what is on the ledger counts.
    await asyncio.gather(*(client.aretrieve_batch(**given) for _ in range(3)))
    assert client.usage.directory is not None
    async with LiteLLMClient(client.usage.directory) as other:
        await other.aretrieve_batch(**given)
    found = [record for record in outcomes(client) if record.call == "aretrieve_batch"]
    assert len(found) == 8
    counted = [record for record in found if record.cost]
    assert len(counted) == 1
    assert counted[0].cost == Decimal("0.00000345")  # half the price of 6 in, 10 out
    check(counted[0], "aretrieve_batch", input_tokens=6, output_tokens=10, model="gpt-4o-mini")
    assert counted[0].meta is not None
    assert counted[0].meta["batch"] == {"status": "completed", "counted": True}
    assert counted[0].meta["price"]["batch"] is True
    assert sum(record.cost or 0 for record in found) == counted[0].cost


async def test_batches_finished_at_the_same_time_in_one_client_are_counted_once_each(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    made = [await client.acreate_batch(**to(server, "acreate_batch")) for _ in range(2)]
    given = to(server, "aretrieve_batch")
    for batch in made:
        await client.aretrieve_batch(**given | {"batch_id": batch.id})
    await asyncio.gather(
        *(client.aretrieve_batch(**given | {"batch_id": batch.id}) for batch in made * 5)
    )
    counted = [record.response_id for record in outcomes(client) if record.cost]
    assert sorted(filter(None, counted)) == sorted(batch.id for batch in made)


async def test_a_batch_whose_cost_cannot_be_had_is_tried_again(
    server: OpenAIServer, client: LiteLLMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litellm_ledger._calls import batches as _batches

    batch = await client.acreate_batch(**to(server, "acreate_batch"))
    given = to(server, "aretrieve_batch") | {"batch_id": batch.id}
    await client.aretrieve_batch(**given)
    with monkeypatch.context() as patch:
        patch.setattr(_batches, "batch_cost", lambda *args: None)
        patch.setattr(_batches.Pricing, "batch", lambda *args: None)
        await client.aretrieve_batch(**given)
    await client.aretrieve_batch(**given)
    await client.aretrieve_batch(**given)
    costs = [record.cost for record in outcomes(client)][1:]
    assert costs == [0, None, Decimal("0.00000345"), 0]


async def test_a_job_that_was_not_counted_is_counted_by_one_of_those_who_wait(
    client: LiteLLMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litellm_ledger._calls import batches as _batches

    readings: list[str] = []

    async def reading(*_: object) -> tuple[dict[str, int], Decimal, str] | None:
        readings.append("begun")
        first = len(readings) == 1
        await asyncio.sleep(0)
        return None if first else ({"prompt_tokens": 6, "completion_tokens": 10}, Decimal(1), "m")

    async def off_loop(work: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0)
        return work(*args)

    monkeypatch.setattr(_batches, "batch_output", reading)
    batches = _batches.Batches(client.usage, Pricing(), Strays(), off_loop)
    asked = Asked(CALLS["aretrieve_batch"], {})
    answer = {"id": "batch_1", "status": "completed", "output_file_id": "file_1", "created_at": 0}
    told: list[dict[str, Any]] = []

    async def ask(after: int) -> None:
        for _ in range(after):
            await asyncio.sleep(0)
        await batches.count(asked, answer, told.append)

    await asyncio.gather(*(ask(after) for after in range(40)))
    assert [fields["cost"] for fields in told if fields.get("cost")] == [Decimal(1)]
    assert not batches._locks


async def test_a_forked_child_does_not_wait_for_a_job_that_its_parent_was_counting(
    tmp_path: Path,
) -> None:
    core = LiteLLMClient(tmp_path)._core
    await core.batches._locks.setdefault("batch_1", asyncio.Lock()).acquire()
    core.forget_parent()
    assert not core.batches._locks
