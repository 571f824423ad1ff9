"""The test server itself: what it answers, how it misbehaves on request, how it starts and ends."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.children import PATIENCE, complaints

import litellm_ledger.testing
from litellm_ledger.testing import Behaviour, OpenAIServer, ServedRequest

MESSAGES = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "three more words"}]},
]
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def server(running: OpenAIServer) -> OpenAIServer:
    running.clear()
    return running


@pytest.fixture(scope="module")
def http(running: OpenAIServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.base_url, timeout=5) as client:
        yield client


def chat(http: httpx.Client, behaviour: Behaviour | None = None, **body: Any) -> httpx.Response:
    headers = None if behaviour is None else behaviour.headers()
    return http.post("/chat/completions", json={**CHAT, **body}, headers=headers)


def streamed(http: httpx.Client, behaviour: Behaviour) -> AbstractContextManager[httpx.Response]:
    return http.stream("POST", "/chat/completions", json=STREAM, headers=behaviour.headers())


def events(response: httpx.Response) -> list[Any]:
    """Parse the JSON of every event but the last, which must be `[DONE]`."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def text_of(chunks: list[Any]) -> str:
    return "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"])


def only(server: OpenAIServer) -> ServedRequest:
    (request,) = server.requests
    return request


# --- Answers -------------------------------------------------------------------------------------


def test_usage_counts_words_in_and_words_out(server: OpenAIServer, http: httpx.Client) -> None:
    answer = chat(http).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "gpt-4o-mini"
    assert answer["choices"][0]["message"]["content"] == "word1 word2 word3 word4 word5"
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (5, 5, 10)
    request = only(server)
    assert request.finished
    assert (request.path, request.model) == ("/v1/chat/completions", "gpt-4o-mini")
    assert (request.status, request.stream, request.usage) == (200, False, usage)
    assert request.body == CHAT


def test_details_are_part_of_the_totals(http: httpx.Client) -> None:
    details = {"cached_tokens": 100, "audio_tokens": 10, "reasoning_tokens": 20}
    behaviour = Behaviour(chunks=2, words_per_chunk=3, audio_output_tokens=7, **details)
    usage = chat(http, behaviour).json()["usage"]
    assert usage["prompt_tokens"] == 5 + 100 + 10
    assert usage["completion_tokens"] == 6 + 20 + 7
    assert usage["prompt_tokens_details"] == {"cached_tokens": 100, "audio_tokens": 10}
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 20
    assert usage["completion_tokens_details"]["audio_tokens"] == 7


def test_token_counts_can_be_given(http: httpx.Client) -> None:
    behaviour = Behaviour(prompt_tokens=250_000, completion_tokens=9, cached_tokens=1000)
    usage = chat(http, behaviour).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (250_000, 9)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 1000


def test_usage_can_be_missing(server: OpenAIServer, http: httpx.Client) -> None:
    assert "usage" not in chat(http, Behaviour(no_usage=True)).json()
    assert only(server).usage is None


def test_the_same_request_gets_the_same_answer_but_for_its_id(http: httpx.Client) -> None:
    first, second = chat(http).json(), chat(http).json()
    assert first.pop("id") != second.pop("id")
    assert first == second


def test_the_answer_can_name_another_model(http: httpx.Client) -> None:
    answer = chat(http, Behaviour(response_model="gpt-4o-mini-2024-07-18")).json()
    assert answer["model"] == "gpt-4o-mini-2024-07-18"


@pytest.mark.parametrize(
    ("given", "texts", "tokens"),
    [("one two", 1, 2), (["one two", "three"], 2, 3), ([11, 12, 13], 1, 3), ([[1, 2], [3]], 2, 3)],
)
def test_embeddings(http: httpx.Client, given: object, texts: int, tokens: int) -> None:
    body = {"model": "text-embedding-3-small", "input": given, "dimensions": 3}
    answer = http.post("/embeddings", json=body).json()
    assert [item["index"] for item in answer["data"]] == list(range(texts))
    assert answer["data"][0]["embedding"] == [1.0, 1.0, 1.0]
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_models_and_health(server: OpenAIServer, http: httpx.Client) -> None:
    assert "gpt-4o-mini" in [model["id"] for model in http.get("/models").json()["data"]]
    health = httpx.get(server.base_url.removesuffix("/v1") + "/healthz")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert [request.path for request in server.requests] == ["/v1/models"]


# --- Streams -------------------------------------------------------------------------------------


def test_a_stream_without_include_usage_has_no_usage_anywhere(http: httpx.Client) -> None:
    chunks = events(chat(http, stream=True))
    assert len(chunks) == 1 + 5 + 1
    assert all("usage" not in chunk for chunk in chunks)
    assert text_of(chunks) == "word1 word2 word3 word4 word5"
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * 6 + ["stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_include_usage_adds_one_chunk_and_nulls(server: OpenAIServer, http: httpx.Client) -> None:
    *chunks, last = events(chat(http, Behaviour(chunks=20), **STREAM))
    assert len(chunks) == 1 + 20 + 1
    assert [chunk["usage"] for chunk in chunks] == [None] * 22
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (5, 20)
    request = only(server)
    assert request.finished
    assert (request.stream, request.chunks, request.usage) == (True, 20, last["usage"])


@pytest.mark.parametrize("option", ["ignore_include_usage", "no_usage"])
def test_a_provider_may_ignore_include_usage(
    server: OpenAIServer, http: httpx.Client, option: str
) -> None:
    chunks = events(chat(http, Behaviour.parse(option), **STREAM))
    assert len(chunks) == 7
    assert all("usage" not in chunk for chunk in chunks)
    assert only(server).usage is None


def test_a_provider_may_put_usage_on_the_finish_chunk(http: httpx.Client) -> None:
    chunks = events(chat(http, Behaviour(usage_on_finish=True), **STREAM))
    assert len(chunks) == 7
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] == 10


def test_a_chat_with_tools_is_answered_by_a_call_of_the_first_until_that_was_answered(
    server: OpenAIServer, http: httpx.Client
) -> None:
    once = Behaviour(tool_calls=1)
    tools = {"tools": [{"type": "function", "function": {"name": "look"}}]}
    answer = chat(http, once, **tools).json()
    (choice,) = answer["choices"]
    (called,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert called["function"] == {"name": "look", "arguments": "{}"}
    assert answer["usage"]["completion_tokens"] == 1
    role, delta, finish, usage = events(chat(http, once, **STREAM, **tools))
    assert [one["choices"][0]["finish_reason"] for one in (role, delta, finish)] == [
        *(None, None, "tool_calls"),
    ]
    (piece,) = delta["choices"][0]["delta"]["tool_calls"]
    assert (piece["index"], piece["function"]["name"]) == (0, "look")
    assert usage["usage"]["completion_tokens"] == 1
    told = [*CHAT["messages"], choice["message"], {"role": "tool", "content": "two words"}]
    answer = chat(http, once, messages=told, **tools).json()
    assert answer["choices"][0]["message"]["content"] == "word1 word2 word3 word4 word5"
    assert answer["usage"]["prompt_tokens"] == server.requests[0].usage["prompt_tokens"] + 2  # type: ignore[index]
    for without in (chat(http, once), chat(http, **tools)):
        assert without.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("after", [0, 2, 5])
def test_a_cut_stream_ends_without_done(
    server: OpenAIServer, http: httpx.Client, after: int
) -> None:
    pieces: list[str] = []
    with streamed(http, Behaviour(cut_after=after)) as response:
        with pytest.raises(httpx.RemoteProtocolError):
            pieces.extend(response.iter_text())
    seen = "".join(pieces)
    assert seen.count("word") == after
    assert "stop" not in seen
    assert "[DONE]" not in seen
    assert (only(server).ended, only(server).chunks) == ("cut", after)


def test_a_whole_answer_can_be_cut_in_its_body(server: OpenAIServer, http: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        chat(http, Behaviour(cut_after=0))
    assert only(server).ended == "cut"


def test_an_error_event_can_come_in_mid_stream(http: httpx.Client) -> None:
    text = chat(http, Behaviour(error_after=2), **STREAM).text
    *_, last = filter(None, text.splitlines())
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
    assert text.count("word") == 2


def test_a_client_that_leaves_a_hanging_stream_is_noticed(
    server: OpenAIServer, http: httpx.Client
) -> None:
    with streamed(http, Behaviour(hang_after=2)) as response:
        lines = response.iter_lines()
        while "word2" not in next(lines):
            pass
        assert only(server).ended is None
    (request,) = server.wait_for(lambda requests: requests[0].disconnected)
    assert (request.status, request.chunks, request.usage) == (200, 2, None)


def test_a_hanging_stream_goes_on_when_it_is_told_to(
    server: OpenAIServer, http: httpx.Client
) -> None:
    with streamed(http, Behaviour(chunks=4, hang_after=2)) as response:
        lines = response.iter_lines()
        while "word2" not in next(lines):
            pass
        assert (only(server).chunks, only(server).ended) == (2, None)
        server.release()
        assert "[DONE]" in "".join(lines)
    assert (only(server).chunks, only(server).ended) == (4, "finished")


def test_a_client_that_leaves_between_chunks_is_noticed(
    server: OpenAIServer, http: httpx.Client
) -> None:
    with streamed(http, Behaviour(chunks=1000, chunk_delay=0.01)) as response:
        next(response.iter_lines())
    (request,) = server.wait_for(lambda requests: requests[0].disconnected)
    assert request.chunks < 1000


def test_a_client_that_gives_up_waiting_is_noticed(
    server: OpenAIServer, http: httpx.Client
) -> None:
    headers = Behaviour(hang=True).headers()
    with pytest.raises(httpx.ReadTimeout):
        http.post("/chat/completions", json=CHAT, headers=headers, timeout=0.05)
    (request,) = server.wait_for(lambda requests: requests[0].disconnected)
    assert request.status is None


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "invalid_request_error", "invalid_api_key"),
        (429, "requests", "rate_limit_exceeded"),
        (500, "server_error", None),
        (502, "server_error", None),
    ],
)
def test_errors_look_like_the_providers(
    server: OpenAIServer, http: httpx.Client, status: int, kind: str, code: str | None
) -> None:
    answer = chat(http, Behaviour(status=status))
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, code)
    assert "retry-after" not in answer.headers
    assert (only(server).status, only(server).finished, only(server).usage) == (status, True, None)


@pytest.mark.parametrize(("seconds", "text"), [(1, "1"), (0.05, "0.05")])
def test_retry_after_is_sent_with_an_error(http: httpx.Client, seconds: float, text: str) -> None:
    answer = chat(http, Behaviour(status=429, retry_after=seconds), stream=True)
    assert answer.headers["retry-after"] == text


def test_the_first_requests_fail_and_the_later_succeed(
    server: OpenAIServer, http: httpx.Client
) -> None:
    behaviour, other = Behaviour(fail_first=2), Behaviour(fail_first=1, status=429, key="other")
    statuses = [chat(http, behaviour).status_code for _ in range(4)]
    assert statuses == [500, 500, 200, 200]
    assert [chat(http, other).status_code for _ in range(2)] == [429, 200]
    assert chat(http).status_code == 200
    server.clear()
    assert server.requests == []
    assert chat(http, behaviour).status_code == 500


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/chat/completions", b"{", 400),
        ("POST", "/chat/completions", b"[]", 400),
        ("POST", "/chat/completions", b'{"messages": []}', 400),
        ("POST", "/nothing", b"{}", 404),
        ("GET", "/chat/completions", None, 405),
    ],
)
def test_what_is_no_request_gets_an_error_body(
    http: httpx.Client, method: str, path: str, content: bytes | None, status: int
) -> None:
    answer = http.request(method, path, content=content)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


# --- The header ----------------------------------------------------------------------------------


def test_the_header_is_read_as_it_is_written() -> None:
    behaviour = Behaviour(
        slow=0.5, status=429, retry_after=1.5, chunks=20, cut_after=5, no_usage=True, key="a b"
    )
    assert Behaviour.parse(behaviour.header()) == behaviour
    assert Behaviour.parse(" slow = 0.5 ;hang; chunks=7;") == Behaviour(
        slow=0.5, hang=True, chunks=7
    )
    assert Behaviour().header() == ""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour=red", "unknown option 'colour'; known are audio_output_tokens,"),
        ("chunks=many", "chunks takes a whole number"),
        ("slow", "slow takes a number"),
        ("hang=perhaps", "hang is a flag"),
        ("status=302", "status must be 200 or 400 to 599"),
        ("slow=-1", "slow must not be negative"),
        ("slow=nan", "slow must not be negative or endless"),
        ("cut_after=6", "cut_after=6 is never reached with chunks=5"),
        ("prompt_tokens=1; cached_tokens=2", "prompt_tokens=1 is less than its own details, 2"),
    ],
)
def test_a_wrong_header_is_answered_with_what_is_wrong(
    http: httpx.Client, text: str, complaint: str
) -> None:
    answer = http.post("/chat/completions", json=CHAT, headers={"x-test-behaviour": text})
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]["message"]


def test_the_header_changes_only_what_it_names() -> None:
    with OpenAIServer(default=Behaviour(status=503, chunks=2, no_usage=True)) as server:
        url = f"{server.base_url}/chat/completions"
        assert httpx.post(url, json=CHAT).status_code == 503
        headers = {"x-test-behaviour": "status=200; no_usage=false"}
        answer = httpx.post(url, json=CHAT, headers=headers).json()
        assert answer["usage"]["completion_tokens"] == 2


# --- Start and end -------------------------------------------------------------------------------


def test_leaving_the_block_ends_what_hangs_and_leaves_no_thread() -> None:
    threads = threading.enumerate()
    with OpenAIServer() as server, httpx.Client(timeout=5) as client:
        for behaviour in (Behaviour(hang_after=1), Behaviour(hang=True)):
            request = client.build_request(
                "POST",
                f"{server.base_url}/chat/completions",
                json=STREAM,
                headers=behaviour.headers(),
            )
            if behaviour.hang:
                sender = threading.Thread(target=client.send, args=(request,))
                sender.start()
                server.wait_for(lambda requests: len(requests) == 2)
            else:
                client.send(request, stream=True)
        server.__exit__(None, None, None)
        sender.join(5)
    assert [request.ended for request in server.requests] == ["stopped", "stopped"]
    assert threading.enumerate() == threads


def test_a_server_can_be_started_again_on_its_port() -> None:
    server = OpenAIServer()
    with pytest.raises(RuntimeError, match="no port yet"):
        _ = server.base_url
    urls = []
    for _ in range(2):
        with server:
            urls.append(server.base_url)
            assert httpx.get(f"{server.base_url}/models").status_code == 200
            with pytest.raises(RuntimeError, match="running already"):
                server.__enter__()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.base_url}/models")
    assert urls[0] == urls[1]


def test_the_users_logging_and_signal_handlers_stay_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def state() -> list[object]:
        names = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")
        loggers = map(logging.getLogger, names)
        return [
            *((logger.level, [*logger.handlers], logger.propagate) for logger in loggers),
            *map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)),
        ]

    before = state()
    with OpenAIServer() as server:
        assert state() == before
        with httpx.Client(base_url=server.base_url) as http:
            with pytest.raises(httpx.RemoteProtocolError):
                chat(http, Behaviour(cut_after=1), **STREAM)
    assert state() == before
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_waiting_in_vain_says_what_was_seen(server: OpenAIServer, http: httpx.Client) -> None:
    chat(http)
    with pytest.raises(TimeoutError, match=r"ServedRequest\(number=\d+, path='/v1/chat"):
        server.wait_for(lambda requests: len(requests) == 2, timeout=0.01)


@contextmanager
def command(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", httpx.Client]]:
    with command("-m", "litellm_ledger.testing", *arguments) as process:
        assert process.stdout is not None
        with httpx.Client(base_url=process.stdout.readline().strip(), timeout=5) as http:
            yield process, http


def output(code: str) -> tuple[str, str]:
    with command("-c", code) as process:
        return process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_a_signal_and_exits_with_0(number: signal.Signals) -> None:
    with serving("--behaviour", "chunks=2") as (process, http):
        assert chat(http).json()["usage"]["completion_tokens"] == 2
        process.send_signal(number)
        rest, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, rest, complaints(errors)) == (0, "", "")


def test_the_command_leaves_its_request_log(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with serving("--log", str(log)) as (process, http):
        usage = chat(http).json()["usage"]
        chat(http, Behaviour(status=500))
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaints(errors)) == (0, "")
    answered, failed = (json.loads(line) for line in log.read_text().splitlines())
    assert (answered["status"], answered["usage"]) == (200, usage)
    assert (failed["number"], failed["status"], failed["usage"]) == (2, 500, None)


def test_the_command_explains_what_it_cannot_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, complaint in (
            (("--port", port), f"cannot serve on port {port}"),
            (("--behaviour", "hung"), "unknown option 'hung'"),
        ):
            with command("-m", "litellm_ledger.testing", *arguments) as process:
                _, errors = process.communicate(timeout=PATIENCE)
            assert process.returncode != 0
            assert complaint in errors
            assert "Traceback" not in errors


def test_importing_the_package_imports_no_server() -> None:
    code = (
        "import sys, litellm_ledger.testing as t; t.__all__; dir(t); "
        "print(sorted({'uvicorn', 'starlette', 'litellm', 'asyncio'} & sys.modules.keys()))"
    )
    assert output(code) == ("[]\n", "")


def test_a_missing_package_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "try: from litellm_ledger.testing import OpenAIServer\n"
        "except ImportError as exc: print(exc)"
    )
    said, errors = output(code)
    assert "uvicorn is not installed" in said
    assert "litellm-ledger[testing]" in said
    assert errors == ""


def test_the_public_names_are_sorted_and_exist() -> None:
    names = litellm_ledger.testing.__all__
    assert names == sorted(names)
    assert all(getattr(litellm_ledger.testing, name) for name in names)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = litellm_ledger.testing.Nothing
