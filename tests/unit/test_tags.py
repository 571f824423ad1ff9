"""Tags: whose win, how far they reach, and that they never leak."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from enum import Enum
from uuid import UUID

import pytest

from litellm_ledger._errors import InvalidRecord
from litellm_ledger._records.record import clean_tags
from litellm_ledger._tracking.tags import Tags


def test_no_tags_at_all_are_none_and_own_tags_alone_pass_untouched() -> None:
    own = {"user": "alice"}
    assert Tags(None).merged(None) is None
    assert Tags(None).merged(own) is own


def test_later_ones_win_and_the_call_has_the_last_word() -> None:
    tags = Tags({"env": "prod", "user": "nobody", "a": "client"})
    with tags.scope({"user": "alice", "a": "scope", "b": "scope"}):
        merged = tags.merged({"b": "call"})
    assert merged == {"env": "prod", "user": "alice", "a": "scope", "b": "call"}


def test_inner_scopes_add_to_outer_ones_and_end() -> None:
    tags = Tags(None)
    with tags.scope({"user": "alice", "feature": "chat"}):
        with tags.scope({"feature": "search"}):
            assert tags.merged(None) == {"user": "alice", "feature": "search"}
        assert tags.merged(None) == {"user": "alice", "feature": "chat"}
    assert tags.merged(None) is None


def test_a_scope_ends_when_its_body_fails() -> None:
    tags = Tags(None)
    with pytest.raises(ZeroDivisionError):
        with tags.scope({"user": "alice"}):
            _ = 1 / 0
    assert tags.merged(None) is None


def test_clients_do_not_see_the_tags_of_each_other() -> None:
    one, two = Tags(None), Tags({"env": "test"})
    with one.scope({"user": "alice"}), two.scope({"user": "bob"}):
        assert one.merged(None) == {"user": "alice"}
        assert two.merged(None) == {"env": "test", "user": "bob"}


def test_tags_are_cleaned_where_they_are_given() -> None:
    tags = Tags({"tenant": 7})
    with tags.scope({"beta": True, "nothing": None}):
        assert tags.merged(None) == {"tenant": "7", "beta": "true"}
    with pytest.raises(InvalidRecord, match="'who'"):
        with tags.scope({"who": object()}):
            pass
    with pytest.raises(InvalidRecord, match="mapping"):
        Tags("user=alice")  # type: ignore[arg-type]


class Tier(Enum):
    GOLD = "gold"
    FIRST = 1
    NESTED = UUID(int=7)


class Level(int, Enum):
    HIGH = 3


def test_uuids_and_enum_members_are_taken_as_their_text() -> None:
    given = {
        "request": UUID("12345678-1234-5678-1234-567812345678"),
        "tier": Tier.GOLD,
        "rank": Tier.FIRST,
        "nested": Tier.NESTED,
        "level": Level.HIGH,
    }
    assert clean_tags(given) == {
        "request": "12345678-1234-5678-1234-567812345678",
        "tier": "gold",
        "rank": "1",
        "nested": "00000000-0000-0000-0000-000000000007",
        "level": "3",
    }


def test_changing_the_given_mapping_later_changes_nothing() -> None:
    given = {"env": "prod"}
    tags = Tags(given)
    given["env"] = "changed"
    assert tags.merged(None) == {"env": "prod"}


@pytest.mark.asyncio
async def test_tags_follow_into_tasks_and_threads_that_are_started_inside() -> None:
    tags = Tags(None)

    async def child() -> object:
        await asyncio.sleep(0)
        return tags.merged(None)

    with tags.scope({"user": "alice"}):
        task = asyncio.create_task(child())
        assert await asyncio.to_thread(tags.merged, None) == {"user": "alice"}
    assert await task == {"user": "alice"}
    assert tags.merged(None) is None


@pytest.mark.asyncio
async def test_tags_of_a_task_do_not_leak_into_its_parent_or_sibling() -> None:
    tags = Tags(None)
    inside, seen = asyncio.Event(), asyncio.Event()

    async def tagged() -> None:
        with tags.scope({"user": "alice"}):
            inside.set()
            await seen.wait()

    async def sibling() -> object:
        await inside.wait()
        return tags.merged(None)

    task = asyncio.create_task(tagged())
    assert await sibling() is None
    assert tags.merged(None) is None
    seen.set()
    await task


@pytest.mark.asyncio
async def test_leaving_a_scope_in_another_context_is_quiet() -> None:
    tags = Tags(None)

    async def numbers() -> AsyncIterator[int]:
        with tags.scope({"user": "alice"}):
            yield 1

    iterator = numbers()
    await contextvars.copy_context().run(asyncio.ensure_future, anext(iterator))  # type: ignore[arg-type]
    await asyncio.create_task(iterator.aclose())  # type: ignore[attr-defined]
    assert tags.merged(None) is None
