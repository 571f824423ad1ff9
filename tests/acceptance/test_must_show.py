"""The figures of `must_show`, some with fewer calls than the program shows."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Literal

import pytest
from tests.acceptance import must_show
from tests.forked import LITELLM, Forked


@pytest.fixture(scope="module", autouse=True)
def _programs_begin_with_litellm() -> Iterator[None]:
    """They are forked, where nothing is asked of LiteLLM's import or LiteLLM's own last words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(must_show, "START", partial(Forked, modules=LITELLM))
        yield


@pytest.mark.parametrize(
    ("runs", "calls", "how"), [(1, 1_000, "closed"), (1, 1_000, "left open"), (10, 50, "left open")]
)
def test_a_burst_is_on_the_ledger_when_the_loop_has_ended(
    tmp_path: Path, runs: int, calls: int, how: Literal["closed", "left open"]
) -> None:
    found = must_show.bursts(tmp_path, runs, calls, how)
    assert found.said["returned"] == runs * calls
    assert found.outcomes == {"ok": runs * calls}
    assert found.verified


def test_a_stream_is_recorded_once_and_with_tokens_however_it_ends(tmp_path: Path) -> None:
    found, with_tokens = must_show.streams(tmp_path, 40)
    assert found.said["held"] == 20
    assert with_tokens == {
        "read to the end": {"ok": 40},
        "break": {"abandoned": 40},
        "aclose": {"abandoned": 40},
        "cancelled": {"cancelled": 40},
        "never read": {"abandoned": 40},
    }
    assert found.total == 200
    assert found.verified


@pytest.fixture(scope="module")
def nursery() -> Iterator[Popen[str]]:
    with must_show.program("nursery") as process:
        yield process


def test_no_acked_record_is_lost_by_sigkill(nursery: Popen[str], tmp_path: Path) -> None:
    killed = must_show.kills(nursery, tmp_path, 30)
    assert (killed.kills, killed.lost, killed.open, killed.damaged) == (30, 0, 0, 0)
    assert killed.acked > 300


def test_the_count_of_lost_acks_finds_them_where_an_ack_promises_nothing(
    nursery: Popen[str], tmp_path: Path
) -> None:
    assert must_show.kills(nursery, tmp_path, 5, durability="queued").lost


@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_queued_records_are_written_before_the_process_dies_of_the_signal(
    tmp_path: Path, loop: str, number: str, status: int
) -> None:
    found = must_show.queued(tmp_path, 20_000, number, loop)
    assert found.said == {"queued": 20_000}
    assert found.total == 20_000
    assert found.verified
    assert found.status == status


def test_calls_in_flight_at_a_sigkill_are_on_record_as_unsettled(tmp_path: Path) -> None:
    found = must_show.in_flight(tmp_path, 7)
    assert found.status == 137
    assert found.outcomes == {"unsettled": 7}
    assert found.verified


def test_a_thousand_equal_calls_cost_one_and_the_report_shows_the_money_saved(
    tmp_path: Path,
) -> None:
    shared = must_show.equal_calls(tmp_path, 1_000)
    assert shared.found.said["returned"] == 1_000
    assert (shared.paid, shared.hits) == (1, 999)
    assert shared.different == shared.found.said["different"] == 6
    assert shared.requests == 1 + 6
    assert shared.found.outcomes == {"ok": 1_000 + 12}
    assert shared.found.verified
    one = shared.spent / 7
    assert (one, shared.saved) == (Decimal("0.0000039"), one * (999 + 6))
    assert "saved" in shared.table
    assert f"{shared.saved:f}" in shared.table
