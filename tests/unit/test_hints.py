"""A client used in a way that cannot work says what to write instead."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from litellm_ledger import AsyncUsageWriter, Ledger, LedgerClosed, LiteLLMClient, UsageTracker


@pytest.fixture
def client(tmp_path: Path) -> Any:
    return LiteLLMClient(tmp_path, handle_signals=False)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("completion", "it is asynchronous; write await client.acompletion(...)"),
        ("embedding", "it is asynchronous; write await client.aembedding(...)"),
        ("close", "it is asynchronous; write await client.aclose(...)"),
        ("record", "write client.usage.record(...)"),
        ("totals", "write client.usage.totals(...)"),
    ],
)
def test_a_name_that_is_not_there_comes_with_the_one_that_is(
    client: Any, name: str, advice: str
) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(client, name)
    assert str(caught.value).endswith(advice)
    assert (caught.value.name, caught.value.obj) == (name, client)


def test_any_other_name_is_an_attribute_error_as_ever(client: Any) -> None:
    with pytest.raises(AttributeError) as caught:
        client.nonsense  # noqa: B018
    assert str(caught.value) == "'LiteLLMClient' object has no attribute 'nonsense'"
    assert not hasattr(client, "__deepcopy__")
    assert copy.copy(client).usage is client.usage


@pytest.mark.parametrize("kind", [AsyncUsageWriter, LiteLLMClient, UsageTracker])
def test_a_plain_with_says_async_with(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=rf"write 'async with {kind.__name__}\(\.\.\.\)'"):
        with kind(tmp_path):
            pass


def test_tags_given_as_a_mapping_are_refused_with_the_way_to_give_them(client: Any) -> None:
    for taker in (client, client.usage):
        with pytest.raises(TypeError, match=r"tag\(user='alice'\), or tag\(\*\*mapping"):
            taker.tag({"user": "alice"})


def test_an_error_names_what_the_user_made(client: Any, tmp_path: Path) -> None:
    tracker, writer = UsageTracker(tmp_path), AsyncUsageWriter(tmp_path)
    for made, what in (
        (client.usage, "client"),
        (tracker, "tracker"),
        (writer, "writer"),
    ):
        with pytest.raises(LedgerClosed, match=f"^the {what} for {tmp_path} is not open"):
            made._writer.admission.check_open()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("deadline", "client.with_options(deadline=...)"),
        ("max_concurrency", "LiteLLMClient(max_concurrency=...)"),
        ("tag", "tags={...}"),
    ],
)
async def test_an_option_of_the_client_is_not_sent_to_the_provider(
    tmp_path: Path, option: str, hint: str
) -> None:
    async with LiteLLMClient(tmp_path, handle_signals=False) as client:
        with pytest.raises(TypeError, match=re.escape(hint)):
            await client.acompletion(model="m", messages=[], **{option: 1})
    assert not list(Ledger(tmp_path).records(kinds=("started", "usage")))
