"""Options of calls, and views of a client that have others."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from litellm_ledger import InvalidRecord, LedgerClosed, LiteLLMClient, MissingExtra
from litellm_ledger._calls.options import CallOptions, Keep, without_inner_retries

# --- Options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_retries", -1),
        ("max_retries", 1.0),
        ("max_retries", True),
        ("deadline", 0),
        ("deadline", -1),
        ("deadline", float("nan")),
        ("deadline", float("inf")),
        ("deadline", "5"),
        ("deadline", True),
        ("on_abandoned_stream", "ignore"),
    ],
)
def test_out_of_range_is_said_at_once(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        CallOptions(**{name: value})


def test_tags_are_text_to_text() -> None:
    with pytest.raises(InvalidRecord):
        CallOptions(tags={"user": object()})
    assert CallOptions(tags={"n": 1, "b": True, "gone": None}).tags == {"n": "1", "b": "true"}


def test_what_is_not_given_stays() -> None:
    options = CallOptions(max_retries=2, deadline=5, tags={"a": "1", "b": "1"})
    changed = options.changed(deadline=None, max_retries=Keep.KEEP, tags={"b": "2"})
    assert (changed.max_retries, changed.deadline) == (2, None)
    assert changed.tags == {"a": "1", "b": "2"}
    assert options.tags == {"a": "1", "b": "1"}
    assert options.changed(tags=None).tags is None
    assert options.changed() == options


def test_the_calls_own_tags_win() -> None:
    assert CallOptions().tagged(None) is None
    assert CallOptions().tagged({"a": 1}) == {"a": "1"}
    assert CallOptions(tags={"a": "1", "b": "1"}).tagged({"b": 2}) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("options", "kwargs", "ours"),
    [
        ({}, {}, None),
        ({"max_retries": 0}, {}, 0),
        ({"max_retries": 3}, {"timeout": 5, "model": "m"}, 3),
        ({"deadline": 5}, {}, 0),
        ({"max_retries": 3}, {"max_retries": 1}, None),
        ({"max_retries": 3}, {"max_retries": 0}, None),
        ({"max_retries": 3}, {"max_retries": None}, 3),
        ({"max_retries": 3}, {"num_retries": 1}, None),
        ({"max_retries": 3}, {"fallbacks": ["m"]}, None),
        ({"max_retries": 3}, {"retry_policy": {"TimeoutErrorRetries": 1}}, None),
        ({"deadline": 3}, {"context_window_fallback_dict": {"a": "b"}}, None),
    ],
)
def test_one_of_us_retries_and_never_both(options: Any, kwargs: Any, ours: int | None) -> None:
    assert CallOptions(**options).retries(kwargs) == ours


def test_a_zero_that_no_default_takes_the_place_of() -> None:
    kwargs: dict[str, Any] = {}
    without_inner_retries(kwargs)
    retries = kwargs["max_retries"]
    assert (retries or 2) == 0
    assert isinstance(retries, int)
    assert list(range(retries + 1)) == [0]
    assert str(retries) == "0"
    assert not kwargs["num_retries"]  # LiteLLM asks `if num_retries`


# --- Views -----------------------------------------------------------------------------------


def test_a_view_is_the_client_with_other_options(tmp_path: Path) -> None:
    class Mine(LiteLLMClient):
        pass

    client = Mine(tmp_path, deadline=9, tags={"env": "prod"})
    view = client.with_options(max_retries=2)
    assert type(view) is Mine
    assert view.usage is client.usage
    assert view._core is client._core
    assert (view._options.max_retries, view._options.deadline) == (2, 9)
    assert client._options.max_retries is None
    further = view.with_options(deadline=None, tags={"user": "alice"})
    assert (further._options.max_retries, further._options.deadline) == (2, None)
    assert further.with_options(tags={"team": "x"})._options.tags == {"user": "alice", "team": "x"}


@pytest.mark.asyncio
async def test_the_life_of_a_view_is_its_clients(tmp_path: Path) -> None:
    client = LiteLLMClient(tmp_path, handle_signals=False)
    view = client.with_options(deadline=1)
    with pytest.raises(TypeError, match="a view shares the life of its client"):
        async with view:
            pass
    async with client:
        assert view.statistics().state == "open"
    assert view.statistics().state == "closed"
    with pytest.raises(LedgerClosed):
        await view.acompletion("m", [])
    other = LiteLLMClient(tmp_path, handle_signals=False)
    async with other:
        await other.with_options(deadline=1).aclose()
        assert other.statistics().state == "closed"


def test_refused_where_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = LiteLLMClient(tmp_path)
    for make in (client.with_options, LiteLLMClient):
        with pytest.raises(ValueError, match="max_retries must be"):
            make(max_retries=-1)
        with pytest.raises(ValueError, match="deadline must be"):
            make(deadline=0)
    with pytest.raises(ValueError, match="max_concurrency must be"):
        LiteLLMClient(tmp_path, max_concurrency=0)
    with pytest.raises(TypeError):
        client.with_options(max_concurrency=3)  # type: ignore[call-arg]  # one for all views
    monkeypatch.setitem(sys.modules, "tenacity", None)
    for make in (client.with_options, LiteLLMClient):
        with pytest.raises(MissingExtra, match=r"pip install 'litellm-ledger\[retry\]'"):
            make(max_retries=1)
        make(max_retries=0, deadline=5)


def test_a_call_takes_no_argument_of_ours_but_tags() -> None:
    ours = set(inspect.signature(LiteLLMClient.with_options).parameters)
    taken = set(inspect.signature(LiteLLMClient.acompletion).parameters)
    assert ours & taken == {"self", "tags"}


@pytest.mark.asyncio
async def test_a_forked_child_has_all_its_slots(tmp_path: Path) -> None:
    client = LiteLLMClient(tmp_path, max_concurrency=1)
    await client._core.limit.enter()
    assert client.statistics().active == 1
    client._core.forget_parent()
    assert (client.statistics().active, client.statistics().max_concurrency) == (0, 1)


def test_statistics_say_how_many_are_under_way(tmp_path: Path) -> None:
    found = LiteLLMClient(tmp_path, max_concurrency=7).statistics()
    assert (found.active, found.waiting_for_slot, found.max_concurrency) == (0, 0, 7)
    assert found.repeated == 0
