"""The life of a writer: which steps are in the table, and what is said where work is refused."""

from __future__ import annotations

import itertools

import pytest

from litellm_ledger._writing.state import State, advance, refusal

ALLOWED = {
    (State.UNOPENED, State.OPEN),
    (State.UNOPENED, State.CLOSED),
    (State.OPEN, State.DRAINING),
    (State.OPEN, State.CLOSED),
    (State.OPEN, State.FAILED),
    (State.DRAINING, State.CLOSED),
    (State.DRAINING, State.FAILED),
    (State.FAILED, State.CLOSED),
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(State, State)))
def test_only_the_steps_in_the_table_are_taken(old: State, new: State) -> None:
    if (old, new) in ALLOWED:
        assert advance(old, new) is new
    else:
        with pytest.raises(RuntimeError, match=f"{old.name} -> {new.name}"):
            advance(old, new)


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        (State.UNOPENED, "async with"),
        (State.OPEN, "is open"),
        (State.DRAINING, "finish calls before aclose"),
        (State.CLOSED, "create a new one"),
        (State.FAILED, "see the error's cause"),
    ],
)
def test_a_refusal_names_what_refuses_and_says_what_to_do(state: State, advice: str) -> None:
    text = refusal(state, "the ledger client for /tmp/usage")
    assert text.startswith("the ledger client for /tmp/usage ")
    assert "State" not in text
    assert advice in text
