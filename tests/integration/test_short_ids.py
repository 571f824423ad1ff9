"""At 80 columns a call can be told from others, and looked at by what is shown of its id."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from tests.ledger_by_hand import NOON, HandMade
from tests.terminal import in_a_pipe, on_a_terminal

from litellm_ledger._maintenance.compact import compact
from litellm_ledger._reports.short_ids import alike, shortened

ONE, TWO = "20250101T000000Z-00000000000000aa", "20250102T000000Z-00000000000100aa"
MODELS = ["openai/gpt-4o-mini", "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0"]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    for writer, model in zip((ONE, TWO), MODELS, strict=True):
        hand = HandMade(tmp_path, writer)
        outcome = hand.outcome(
            2, of=1, model=model, ts=NOON, cost=Decimal("0.0012345678"), input_tokens=1_000,
            output_tokens=20, latency_ms=1_234.0, tags={"user": "alice", "tenant": "acme"},
            call_id=f"call-{writer[-3:]}", response_id=f"resp-{writer[-3:]}", status="error",
            error="RateLimitError",
        )  # fmt: skip
        hand.sealed(1, 3, [hand.started(1), outcome, hand.line(3, model="m")])
    return tmp_path


@pytest.mark.parametrize("command", ["calls", "records"])
def test_at_80_columns_a_call_keeps_time_model_status_cost_and_an_id_for_show(
    ledger: Path, command: str
) -> None:
    shown = on_a_terminal(command, str(ledger), "--where", "status=error", columns=80)
    assert max(map(len, shown.splitlines())) <= 80
    (title,) = (line for line in shown.splitlines() if line.startswith("time (UTC)"))
    assert [word for word in title.split() if word != "(UTC)"] == [
        "time", "model", "status", "cost", "id"
    ]  # fmt: skip
    rows = [
        line for line in shown.splitlines() if "error " in line and "2025-01-01 12:00:00" in line
    ]
    assert len(rows) == 2
    assert all("$0.0012345678" in row for row in rows)
    ids = {row.split()[-1] for row in rows}
    assert ids == {"000aa-2", "100aa-2"}, "too short to tell them apart"
    for short in ids:
        found = json.loads(in_a_pipe("show", short, str(ledger), "--json"))
        assert found["attempts"][0]["outcome"]["id"].endswith("-0000000000000002")
        assert found["id"][-22:-17] == short[:5]


def test_a_wide_terminal_and_a_pipe_show_the_whole_id(ledger: Path) -> None:
    for shown in (
        on_a_terminal("calls", str(ledger), columns=300),
        in_a_pipe("calls", str(ledger)),
    ):
        assert f"{ONE}-0000000000000002" in shown


@pytest.mark.parametrize("archive", [False, True])
def test_what_the_only_id_begins_or_ends_with_is_enough(ledger: Path, archive: bool) -> None:
    if archive:
        assert compact(ledger).segments == 2
    first, other = f"{ONE}-0000000000000001", f"{TWO}-0000000000000001"
    for text, meant in (
        ("100aa-2", [other]),
        ("000aa-1", [first]),
        (ONE, [first, f"{ONE}-0000000000000003"]),
        ("20250102", [other, f"{TWO}-0000000000000003"]),
        ("0000aa-0000000000000002", [first]),
        ("call-", [first, other]),
        ("resp-", [first, other]),
        ("esp-", []),
        ("aa-2", [first, other]),
        ("-2", []),
        ("nothing", []),
    ):
        assert sorted(alike(ledger, text, 10)) == meant, text
    assert len(alike(ledger, "2025", 3)) == 3


def test_what_may_mean_several_is_listed(ledger: Path) -> None:
    said = in_a_pipe("show", "aa-2", str(ledger))
    assert f"{ONE}-0000000000000001, {TWO}-0000000000000001" in said
    assert "give more of the id" in said
    assert "no record with id" in in_a_pipe("show", "", str(ledger))
    exact = in_a_pipe("show", f"{ONE}-0000000000000003", str(ledger))
    assert exact.startswith(f"operation {ONE}-0000000000000003")


def test_ids_that_are_none_of_ours_stay_as_they_are() -> None:
    assert shortened(["mine", None, f"{ONE}-0000000000000007"]) == ["mine", "-", "00aa-7"]
