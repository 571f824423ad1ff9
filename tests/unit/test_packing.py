"""Objects to bytes and back: equal and fresh, or refused."""

from __future__ import annotations

import enum
import pickle
from collections import OrderedDict
from datetime import UTC, date, datetime
from decimal import Decimal
from types import MappingProxyType, SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from litellm_ledger._cache import packing as _packing
from litellm_ledger._cache.entry import Entry, answer_from
from litellm_ledger._cache.key import Surroundings
from litellm_ledger._cache.packing import Unpackable, fingerprint, pack, unpack

plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
names = st.text(st.characters(exclude_categories=["Cs"])) | st.integers(0, 9)
values = st.recursive(
    plain | st.frozensets(st.integers(0, 9)).map(set),
    lambda inner: st.lists(inner) | st.dictionaries(names, inner) | st.lists(inner).map(tuple),
    max_leaves=30,
)


def exact(value: Any) -> Any:
    """A value with the types of all that is in it: 1, 1.0 and True are three values."""
    if isinstance(value, dict):
        return (dict, [(exact(name), exact(item)) for name, item in value.items()])
    if isinstance(value, list | tuple):
        return (type(value), [exact(item) for item in value])
    return (type(value), repr(value) if isinstance(value, float) else value)


@given(values)
def test_what_is_unpacked_equals_what_was_packed_and_is_fresh(value: Any) -> None:
    again = unpack(pack(value))
    assert exact(again) == exact(value)
    if isinstance(value, list | dict):
        assert again is not value


@given(values, values)
def test_fingerprints_are_equal_for_equal_values_only(one: Any, other: Any) -> None:
    assert fingerprint(one) == fingerprint(unpack(pack(one)))
    assert (fingerprint(one) == fingerprint(other)) == (exact(one) == exact(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ("1", 1),
        (b"1", "1"),
        ([1], (1,)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1: 1}, {"1": 1}),
        (None, "None"),
        ([["a"], "b"], [["a", "b"]]),
        (Decimal(1), "1"),
        (date(2026, 1, 1), "2026-01-01"),
        ({}, []),
        ({}, None),
        ({"a": None}, {}),
    ],
)
def test_what_is_nearly_equal_is_not(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_what_holds_the_same_compares_as_such() -> None:
    assert fingerprint(bytearray(b"a")) == fingerprint(b"a")
    assert fingerprint(OrderedDict(a=1)) == fingerprint(OrderedDict(a=1))
    assert fingerprint(MappingProxyType({"a": 1})) == fingerprint(MappingProxyType({"a": 1}))
    now = datetime.now(UTC)
    assert fingerprint(now) == fingerprint(datetime.fromisoformat(now.isoformat()))


def test_a_global_that_cannot_be_compared_is_refused_as_long_as_it_is_there() -> None:
    surroundings, litellm = Surroundings(), SimpleNamespace(api_key=None, headers=None)
    before = surroundings.fingerprint(litellm)
    litellm.api_key = object()
    for _ in range(2):
        with pytest.raises(Unpackable):
            surroundings.fingerprint(litellm)
    litellm.api_key = None
    assert surroundings.fingerprint(litellm) == before
    del litellm.headers
    litellm.organization = "o"
    assert surroundings.fingerprint(litellm) != before
    litellm.aclient_session = object()
    with pytest.raises(Unpackable):
        surroundings.fingerprint(litellm)


class Shape(BaseModel):
    side: int = 1


class Wide(BaseModel):
    side: int = 1
    width: int = 2


def test_classes_compare_by_their_schema_and_objects_by_their_state() -> None:
    assert fingerprint(Shape) == fingerprint(Shape)
    assert fingerprint(Shape) != fingerprint(Wide)
    assert fingerprint(Shape(side=2)) == fingerprint(Shape(side=2))
    assert fingerprint(Shape(side=2)) != fingerprint(Shape(side=3))
    assert fingerprint(Shape()) != fingerprint({"side": 1})


def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [object(), print, lambda: 0, 2**70, "\ud800", circle(), {(1,): 2}, iter([]), open],
    ids=range(9),
)
def test_what_cannot_be_compared_is_refused(value: Any) -> None:
    with pytest.raises(Unpackable):
        fingerprint({"a": [value]})
    with pytest.raises(Unpackable):
        pack({"a": [value]})


@pytest.mark.parametrize("value", [Decimal(1), Shape(), enum.Enum("Local", "A").A, date.today])
def test_only_what_can_be_made_again_is_packed(value: Any) -> None:
    with pytest.raises(Unpackable):
        pack(value)


# --- LiteLLM's own objects -----------------------------------------------------------------------


def answer() -> Any:
    litellm: Any = pytest.importorskip("litellm")
    usage = litellm.Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    made = litellm.ModelResponse(model="m", usage=usage, choices=[{"message": {"content": "a"}}])
    made._hidden_params = {
        "response_cost": 0.5,
        "model_id": object(),
        "headers": {"a": "b", "Set-Cookie": "s3cr3t", "x-api-key": "s3cr3t"},
        "optional_params": {"user": "s3cr3t"},
        "litellm_params": {"api_key": "s3cr3t"},
        "api_base": "https://host/?key=s3cr3t",
    }
    made._response_headers = {"a": "b", "authorization": "s3cr3t"}
    object.__setattr__(made, "usage_record", object())
    return made


def test_an_answer_of_litellms_comes_back_whole_but_for_what_cannot_be_kept() -> None:
    made = answer()
    again = unpack(pack(made))
    assert type(again) is type(made)
    assert again.model_dump() == made.model_dump()
    assert again.model_dump_json() == made.model_dump_json()
    assert repr(again) == repr(made)
    assert again.model_fields_set == made.model_fields_set
    assert again.usage.prompt_tokens == 1
    assert again._hidden_params == {"response_cost": 0.5, "headers": {"a": "b"}}
    assert again._response_headers == {"a": "b"}
    assert b"s3cr3t" not in pack(made)
    assert not hasattr(again, "usage_record")
    pickle.dumps(again)
    again.choices[0].message.content = "changed"
    assert made.choices[0].message.content == "a"


def test_the_hidden_part_of_an_answer_makes_no_other_argument() -> None:
    one, other = answer().choices[0].message, answer().choices[0].message
    assert fingerprint([one]) == fingerprint([other])
    other.content = "b"
    assert fingerprint([one]) != fingerprint([other])


def test_the_bytes_of_earlier_versions_are_read_and_found() -> None:
    value = {"a": [1, 2.5, None], "b": (True, b"x"), "c": {"d"}}
    body = "83a1619301cb4004000000000000c0a162c7050192c3c40178a163c7050291c402a164"
    entry = (
        f"9801a16bc2c423{body}ce4832baeca16fa4302e303284a870726f7669646572a170ac696e7075745f746f6b"
        "656e7303ac746f74616c5f746f6b656e7303ac75736167655f736f75726365a870726f7669646572"
    )
    assert pack(value) == bytes.fromhex(body)
    found = Entry.read("k", bytes.fromhex(entry), stream=False)
    assert (answer_from(found.body), found.saved) == (value, Decimal("0.02"))
    digest = "7e4e23a2e4895eb824cedb0d409c21ffeab620436f0047f1525d0ea399f4889f"
    assert fingerprint([value, Decimal(1)]).hex() == digest


def test_enums_of_openais_keep_their_class() -> None:
    litellm_types: Any = pytest.importorskip("litellm.types.llms.openai")
    kind = litellm_types.ResponsesAPIStreamEvents.RESPONSE_COMPLETED
    assert unpack(pack(kind)) is kind


# --- Bytes that are no object --------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_other_bytes_are_a_plain_value_or_refused(data: bytes) -> None:
    try:
        value = unpack(data)
    except Unpackable:
        return
    pack(value)


def model(name: str, *state: Any, code: int = _packing._MODEL) -> bytes:
    inner = msgspec.msgpack.encode([name, *state])
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, inner))


@pytest.mark.parametrize(
    "data",
    [
        model("os:system", {}, [], None, None),
        model("builtins:eval", {}, [], None, None),
        model("subprocess:Popen", {}, [], None, None),
        model("litellm.main:completion", {}, [], None, None),
        model("litellm.types.utils:Nothing", {}, [], None, None),
        model("litellm.nowhere:Nothing", {}, [], None, None),
        model("litellm.types.utils:BaseModel", {}, [], None, None),
        model("litellm.main:os.system", {}, [], None, None),
        model("litellm.types.utils:ModelResponse"),
        model("litellm.types.utils:ModelResponse", code=_packing._ENUM),
        model("litellm.types.utils:ModelResponse", 1, [], None, None),
        model("litellm.types.utils:ModelResponse", {}, [], None, None, code=99),
        model(
            "litellm.caching.in_memory_cache:InMemoryCache",
            200,
            [],
            b"",
            {"_": {}},
            code=_packing._BINARY,
        ),
        b"",
        b"\xc1",
    ],
    ids=range(15),
)
def test_bytes_run_no_code_of_their_choice(data: bytes) -> None:
    pytest.importorskip("litellm")
    with pytest.raises(Unpackable):
        unpack(data)
