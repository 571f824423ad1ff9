"""``litellm-ledger ask`` as a user runs it, against a local server and with a key that is none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.forked import LITELLM, Forked

from litellm_ledger import Ledger
from litellm_ledger.testing import Behaviour, OpenAIServer

KEY = "sk-not-a-key-0123456789"
QUESTION = "What is a ledger?"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def ask(*arguments: str, fresh: bool = False, **env: str) -> subprocess.Popen[str]:
    """Start it with this environment and no other key, base or ledger in it."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL"))
        and name != "LITELLM_LEDGER_DIR"
    }
    return Forked(
        ["-m", "litellm_ledger", "ask", QUESTION, *arguments],
        modules=() if fresh else LITELLM,  # one of them imports LiteLLM itself
        env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), "NO_PROXY": "127.0.0.1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def options(server: OpenAIServer, ledger: Path) -> tuple[str, ...]:
    return ("--model", "gpt-4o-mini", "--ledger", str(ledger), "--api-base", server.base_url)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    with process:
        try:
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, output, errors


def test_it_prints_the_answer_and_the_record_of_one_call(
    server: OpenAIServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "usage"
    status, output, errors = ended(ask(*options(server, ledger), fresh=True, OPENAI_API_KEY=KEY))
    assert (status, errors) == (0, "")
    answer, _, shown = output.partition("\n\n")
    assert answer == "word1 word2 word3 word4 word5"
    (record,) = Ledger(ledger).records()
    assert (record.status, record.input_tokens, record.output_tokens) == ("ok", 4, 5)
    assert record.cost == Decimal("0.0000036")  # 4 × $0.15 and 5 × $0.60, per million
    assert record.id is not None
    assert record.id in shown
    assert "0.0000036 USD" in shown
    (request,) = server.requests
    assert request.body["messages"] == [{"role": "user", "content": QUESTION}]
    assert Ledger(ledger).verify().ok


def test_it_takes_base_and_ledger_from_the_environment_and_keeps_neither_key_nor_question(
    server: OpenAIServer, tmp_path: Path
) -> None:
    env = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_API_BASE": server.base_url,
        "LITELLM_LEDGER_DIR": str(tmp_path / "usage"),
    }
    status, output, errors = ended(ask("--model", "gpt-4o-mini", "--json", **env))
    assert (status, errors) == (0, "")
    said = json.loads(output)
    (record,) = Ledger(tmp_path / "usage").records()
    assert said["answer"] == "word1 word2 word3 word4 word5"
    assert said["record"]["id"] == record.id
    assert said["record"]["cost"] == "0.0000036"
    for path in (tmp_path / "usage").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert KEY.encode() not in content
        assert QUESTION.encode() not in content


def test_a_call_that_fails_takes_one_line_and_is_on_record(tmp_path: Path) -> None:
    ledger = tmp_path / "usage"
    with OpenAIServer(default=Behaviour(status=401)) as server:
        status, output, errors = ended(ask(*options(server, ledger), OPENAI_API_KEY=KEY))
    assert (status, output) == (2, "")
    assert errors.startswith("litellm-ledger: the call failed: AuthenticationError: ")
    assert errors.count("\n") == 1
    assert KEY not in errors
    (record,) = Ledger(ledger).records()
    assert (record.status, record.error, record.cost) == ("error", "AuthenticationError", None)


def test_without_a_key_no_request_leaves_and_the_line_names_the_variable(
    server: OpenAIServer, tmp_path: Path
) -> None:
    status, output, errors = ended(ask(*options(server, tmp_path)))
    assert (status, output) == (2, "")
    assert "OPENAI_API_KEY" in errors
    assert errors.count("\n") == 1
    assert server.requests == []


def test_ctrl_c_while_it_waits_leaves_the_call_on_record_as_cancelled(tmp_path: Path) -> None:
    ledger = tmp_path / "usage"
    with OpenAIServer(default=Behaviour(hang=True)) as server:
        process = ask(*options(server, ledger), OPENAI_API_KEY=KEY)
        server.wait_for(lambda requests: requests, timeout=60)
        process.send_signal(signal.SIGINT)
        status, output, errors = ended(process)
    assert (status, output, errors) == (130, "", "")
    (record,) = Ledger(ledger).records()
    assert record.status == "cancelled"
    assert [writer.state for writer in Ledger(ledger).verify().writers] == ["closed"]
