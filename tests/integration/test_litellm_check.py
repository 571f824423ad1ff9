"""The self-check of the seam: right on the LiteLLM that is here, and it sees what is off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from tests import forked

from litellm_ledger import (
    CheckedCall,
    LedgerError,
    LiteLLMCheck,
    LiteLLMClient,
    Mismatch,
    MissingExtra,
)
from litellm_ledger._cli.app import app
from litellm_ledger._litellm import self_check as _seam_check
from litellm_ledger._litellm.calls import CALLS
from litellm_ledger._selfcheck.cases import UNCHECKED

# Thousands of imports and a hundred calls in a child, beside the tests of the other cores.
pytestmark = pytest.mark.timeout(400)


def in_child(directory: Path, sabotage: str) -> LiteLLMCheck:
    """What the check finds of chats when something is broken on purpose."""
    code = (
        "import litellm_ledger._selfcheck.run as run, litellm_ledger._calls.capture as capture\n"
        "run.KINDS = run.KINDS[:1]\n"
        f"{sabotage}\n"
        "run.main()"
    )
    forked.run(["-c", code, str(directory)], modules=forked.LITELLM, check=True, timeout=300)
    return msgspec.json.decode((directory / "result.json").read_bytes(), type=LiteLLMCheck)


def wrong(found: LiteLLMCheck) -> dict[tuple[str, str], list[tuple[str, str, str]]]:
    return {
        (call.via, call.ending): [(m.what, m.expected, m.found) for m in call.mismatches]
        for call in found.wrong
    }


@pytest.mark.asyncio
async def test_the_installed_litellm_passes(tmp_path: Path) -> None:
    found = await LiteLLMClient(tmp_path / "usage").check_litellm()
    assert found.wrong == ()
    assert found.ok
    assert {call.call for call in found.calls} == CALLS.keys() - UNCHECKED
    ways = {(call.via, call.ending) for call in found.calls}
    endings = {"answer", "failure", "cancelled", "stream", "stream left", "stream cut"}
    assert {ending for via, ending in ways if via == "client"} == endings
    assert {ending for via, ending in ways if via == "capture"} == endings
    assert ("capture, litellm.completion()", "answer") in ways
    assert ("capture, litellm.Router", "stream") in ways
    assert {call.call for call in found.not_checked} <= {"aresponses", "anthropic_messages"}
    assert not (tmp_path / "usage").exists()  # the client's own ledger is left alone


@pytest.mark.alike
def test_doubled_records_are_named(tmp_path: Path) -> None:
    # As it was: LiteLLM from 1.109 on told of each answer twice.
    found = in_child(
        tmp_path,
        "real = capture.Capture.on_answer\n"
        "async def twice(self, logging_obj, answer):\n"
        "    details = logging_obj.model_call_details\n"
        "    self.on_sync({**details, 'call_type': 'completion'}, answer, (None, None))\n"
        "    await real(self, logging_obj, answer)\n"
        "capture.Capture.on_answer = twice",
    )
    assert not found.ok
    doubled = wrong(found)
    assert doubled[("capture", "answer")] == [("records", "1", "2")]
    assert doubled[("capture, litellm.Router", "answer")] == [("records", "1", "2")]
    assert not [way for way in doubled if way[0] == "client"]


@pytest.mark.alike
def test_records_that_are_missing_are_named(tmp_path: Path) -> None:
    found = in_child(
        tmp_path,
        "async def silent(self, *given): pass\n"
        "capture.Capture.on_start = silent\n"
        "capture.Capture.on_request = capture.Capture.on_sync = lambda self, *given: None\n"
        "run._SETTLE = 0.5",
    )
    missing = wrong(found)
    assert missing[("capture", "answer")][0] == ("records", "1", "0")
    assert missing[("capture, litellm.completion()", "stream")] == [("records", "1", "0")]
    assert not [way for way in missing if way[0].startswith("client")]


@pytest.mark.alike
def test_a_wrong_price_is_named(tmp_path: Path) -> None:
    found = in_child(
        tmp_path,
        "import litellm_ledger._litellm.map_price as pricing\n"
        "real = pricing.plain_picousd\n"
        "def doubled(*given):\n"
        "    pico, entry = real(*given)\n"
        "    return 2 * pico, entry\n"
        "pricing.plain_picousd = doubled",
    )
    assert wrong(found)[("client", "answer")] == [("cost", "0.00000345", "0.0000069")]


@pytest.mark.asyncio
async def test_without_the_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_seam_check, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="uvicorn is not installed") as caught:
        await _seam_check.check_litellm()
    assert caught.value.install == "litellm-ledger[testing]"


class Started(list[Any]):
    """Processes that were started; ``one`` is set by the first."""

    def __init__(self) -> None:
        self.one = asyncio.Event()


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """The processes that a check starts."""
    real, started = asyncio.create_subprocess_exec, Started()

    async def start(*args: Any, **kwargs: Any) -> Any:
        started.append(await real(*args, **kwargs))
        started.one.set()
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    yield started
    assert [child.returncode for child in started if child.returncode is None] == []


@pytest.mark.alike
@pytest.mark.asyncio
async def test_a_check_that_fails_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, children: list[Any]
) -> None:
    (tmp_path / "litellm.py").write_text("raise RuntimeError('no such luck')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LedgerError, match="no such luck"):
        await _seam_check.check_litellm()
    assert len(children) == 1


@pytest.mark.alike
@pytest.mark.asyncio
async def test_a_check_that_hangs_is_ended(
    monkeypatch: pytest.MonkeyPatch, children: list[Any]
) -> None:
    monkeypatch.setattr(_seam_check, "_SECONDS", 0.0)
    with pytest.raises(LedgerError, match="did not end within"):
        await _seam_check.check_litellm()
    assert children[0].returncode == -9


@pytest.mark.alike
@pytest.mark.asyncio
async def test_a_check_that_is_cancelled_leaves_no_process(children: Started) -> None:
    task = asyncio.create_task(_seam_check.check_litellm())
    await children.one.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children[0].returncode == -9


def test_no_proxy_comes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1")
    monkeypatch.setenv("http_proxy", "http://192.0.2.1")
    environment = _seam_check._environment()
    assert not {name.lower() for name in environment} & {"http_proxy", "https_proxy"}
    assert environment["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"


# --- On the command line ---------------------------------------------------------------------

GOOD = CheckedCall(call="aembedding", via="client", ending="answer")
DOUBLED = CheckedCall(
    call="acompletion",
    via="capture",
    ending="answer",
    mismatches=(Mismatch(what="records", expected="1", found="2"),),
)
UNABLE = CheckedCall(
    call="aresponses", via="client", ending="stream", install="litellm-ledger[responses]"
)


def doctor(monkeypatch: pytest.MonkeyPatch, calls: tuple[CheckedCall, ...], *more: str) -> Any:
    async def check() -> LiteLLMCheck:
        return LiteLLMCheck(litellm="1.110.2", python="3.12.1", seconds=6.2, calls=calls)

    monkeypatch.setattr(_seam_check, "check_litellm", check)
    return CliRunner().invoke(app, ["doctor", "--litellm", *more])


def test_the_doctor_names_what_is_off_and_what_was_not_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = doctor(monkeypatch, (GOOD, DOUBLED, UNABLE))
    assert said.exit_code == 1
    assert "acompletion, answer (capture)" in said.stdout
    assert "records: expected 1, found 2" in said.stdout
    assert "pip install 'litellm-ledger[responses]'" in said.stdout
    assert "NOT OK: 1 of 2 calls wrong (LiteLLM 1.110.2 on Python 3.12.1, 6 s)." in said.stdout


def test_a_call_that_cannot_be_checked_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    said = doctor(monkeypatch, (GOOD, UNABLE))
    assert said.exit_code == 0
    assert "OK: 1 call checked; each is on record once" in said.stdout


def test_a_check_of_nothing_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor(monkeypatch, (UNABLE,)).exit_code == 1


@pytest.mark.parametrize(("calls", "status"), [((GOOD, UNABLE), 0), ((GOOD, DOUBLED), 1)])
def test_the_check_as_json(
    monkeypatch: pytest.MonkeyPatch, calls: tuple[CheckedCall, ...], status: int
) -> None:
    said = doctor(monkeypatch, calls, "--json")
    assert said.exit_code == status
    found = msgspec.json.decode(said.stdout)
    assert (found["ok"], found["litellm"]) == (not status, "1.110.2")
    assert [call["state"] for call in found["calls"]] == [call.state for call in calls]
    wrong = [call["mismatches"] for call in found["calls"] if call["state"] == "wrong"]
    assert wrong == [[{"what": "records", "expected": "1", "found": "2"}]] * status


def test_a_ledger_and_litellm_are_not_checked_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = doctor(monkeypatch, (GOOD,), str(tmp_path))
    assert said.exit_code == 2
    assert "leave PATH and --prices out" in said.stderr
