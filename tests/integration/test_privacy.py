"""No prompt, answer, header, address or key reaches the ledger or our log, whatever is called."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litellm_ledger import Ledger, LiteLLMClient, MissingExtra
from litellm_ledger._litellm.calls import CALLS as TABLE
from litellm_ledger._litellm.load import load_sync
from litellm_ledger._litellm.packages import require
from litellm_ledger.testing import Behaviour, OpenAIServer, ServedRequest

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore:(?s)Pydantic serializer warnings:UserWarning"),
]

SECRET = "s3cr3t-marker"
CHAT = [
    {"role": "system", "content": f"{SECRET}-system"},
    {"role": "user", "name": f"{SECRET}-name", "content": f"{SECRET}-prompt"},
]
EVERYWHERE: dict[str, Any] = {
    "api_key": f"sk-{SECRET}",
    "user": f"{SECRET}-user",
    "metadata": {"note": f"{SECRET}-metadata"},
    "extra_body": {"note": f"{SECRET}-body"},
}
CALLS: dict[str, dict[str, Any]] = {
    "acompletion": {"model": "openai/gpt-4o-mini", "messages": CHAT, "stop": [f"{SECRET}-stop"]},
    "atext_completion": {"model": "openai/gpt-4o-mini", "prompt": f"{SECRET}-prompt"},
    "aembedding": {"model": "openai/text-embedding-3-small", "input": [f"{SECRET}-input"]},
    "aresponses": {
        "model": "openai/gpt-4o-mini",
        "input": f"{SECRET}-input",
        "instructions": f"{SECRET}-instructions",
    },
    "anthropic_messages": {
        "model": "anthropic/claude-haiku-4-5",
        "max_tokens": 9,
        "messages": CHAT[1:],
        "system": f"{SECRET}-system",
        "metadata": {"user_id": f"{SECRET}-user"},
    },
    "aimage_generation": {"model": "openai/gpt-image-1", "prompt": f"{SECRET}-prompt"},
    "aimage_edit": {
        "model": "openai/gpt-image-1",
        "prompt": f"{SECRET}-prompt",
        "image": SECRET.encode(),
    },
    "atranscription": {
        "model": "openai/whisper-1",
        "file": (f"{SECRET}.wav", SECRET.encode() * 10),
        "prompt": f"{SECRET}-prompt",
    },
    "aspeech": {"model": "openai/tts-1", "input": f"{SECRET}-input", "voice": "alloy"},
    "amoderation": {"model": "omni-moderation-latest", "input": f"{SECRET}-input"},
    "arerank": {
        "model": "cohere/rerank-v3.5",
        "query": f"{SECRET}-query",
        "documents": [f"{SECRET}-document"],
    },
    "acreate_batch": {
        "completion_window": "24h",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "metadata": {"note": f"{SECRET}-metadata"},
    },
    "aretrieve_batch": {"batch_id": "batch_unknown"},
}
STREAMS = ("acompletion", "atext_completion", "aresponses", "anthropic_messages")
ENDINGS = {
    "answer": Behaviour(),
    "error": Behaviour(status=400, message=f"{SECRET}-error"),
    "hang": Behaviour(hang=True),
}
STREAM_ENDINGS = {
    "answer": Behaviour(),
    "error": Behaviour(error_after=1, message=f"{SECRET}-error"),
    "cut": Behaviour(cut_after=1),
    "left": Behaviour(hang_after=3),
}


@pytest.fixture(scope="module")
def litellm() -> Any:
    module: Any = load_sync()
    module.suppress_debug_info = True
    return module


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """All that our own loggers say."""
    said: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(self.format(record))

    logger = logging.getLogger("litellm_ledger")
    handler, level = Handler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def end(
    client: LiteLLMClient, name: str, given: dict[str, Any], ending: str, stream: bool
) -> bool:
    """Make the call and end it, whatever comes of it; tell whether it was made."""
    try:
        async with asyncio.timeout(30):
            answer = await getattr(client, name)(**given, **({"stream": True} if stream else {}))
            if stream:
                async for _ in answer:
                    if ending == "left":
                        break
                await answer.aclose()
    except MissingExtra:
        return False
    except (Exception, asyncio.CancelledError):
        pass
    return True


def everything(root: Path) -> bytes:
    """Every byte of every file, and every name, below a directory."""
    return b"\n".join(
        path.name.encode() + b"\n" + (path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
    )


async def make_all(root: Path, **options: Any) -> tuple[int, list[str]]:
    """Make every call, with every ending; return how many, and what was logged."""
    with listening() as said, OpenAIServer() as running:
        async with LiteLLMClient(root, max_retries=0, **options) as client:
            await client.warm_up()
            for row in TABLE.values():  # seconds, which are none of the time a call has here
                need = row.need({"stream": True})
                if need is not None:
                    with contextlib.suppress(MissingExtra):
                        await require(need.modules, need.extra, row.name)
            work: dict[str, list[asyncio.Task[bool]]] = {}
            for ending, behaviour in [*ENDINGS.items(), *STREAM_ENDINGS.items()]:
                names = CALLS if ENDINGS.get(ending) is behaviour else STREAMS
                for name in names:
                    base = running.base_url
                    if name in ("anthropic_messages", "arerank"):
                        base = base.removesuffix("/v1")
                    headers = behaviour.headers() | {"x-note": f"{SECRET}-header"}
                    given = {
                        **EVERYWHERE,
                        "api_base": base,
                        "extra_headers": headers,
                        **CALLS[name],
                    }
                    call = end(client, name, given, ending, names is STREAMS)
                    work.setdefault(ending, []).append(asyncio.create_task(call))
            hanging = work.pop("hang")
            made = sum(await asyncio.gather(*itertools.chain(*work.values())))

            def all_hang(requests: list[ServedRequest]) -> bool:
                waiting = sum(request.ended is None for request in requests)
                return waiting >= sum(not task.done() for task in hanging)

            await asyncio.to_thread(running.wait_for, all_hang, 20.0)
            for task in hanging:
                task.cancel()
            made += sum(await asyncio.gather(*hanging))
    return made, said


async def test_no_secret_reaches_the_ledger_or_our_log(litellm: Any, tmp_path: Path) -> None:
    made, said = await make_all(tmp_path)
    records = list(Ledger(tmp_path).records())
    assert len(records) == made >= 50
    assert {record.status for record in records} == {"ok", "error", "cancelled", "abandoned"}
    assert len({record.call for record in records}) == len(CALLS)
    assert SECRET.encode() not in everything(tmp_path)
    assert not [line for line in said if SECRET in line]


async def test_the_test_would_see_a_secret(litellm: Any, tmp_path: Path) -> None:
    await make_all(tmp_path, capture_content=True)
    found = everything(tmp_path)
    for part in ("prompt", "input", "system", "query", "document", "instructions"):
        assert f"{SECRET}-{part}".encode() in found, part
    # Content is what the model read and wrote: asked for or not, nothing else of a request.
    for part in ("header", "metadata", "body", "user", "stop", "error"):
        assert f"{SECRET}-{part}".encode() not in found, part
    assert f"sk-{SECRET}".encode() not in found


async def test_content_is_request_and_answer(litellm: Any, tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hello"}]
    with OpenAIServer() as server:
        where = {"api_base": server.base_url, "api_key": "any"}
        async with LiteLLMClient(tmp_path) as client:
            ask = client.with_options(capture_content=True)
            await ask.acompletion("openai/gpt-4o-mini", chat, **where)
            async for _ in await ask.acompletion("openai/gpt-4o-mini", chat, stream=True, **where):
                pass
            await ask.aembedding("openai/text-embedding-3-small", ["hello"], **where)
            long = [{"role": "user", "content": "x" * 10**6}]
            await ask.acompletion("openai/gpt-4o-mini", long, **where)
            await client.acompletion("openai/gpt-4o-mini", chat, **where)
    whole, streamed, embedded, cut, plain = Ledger(tmp_path).records()
    words = "word1 word2 word3 word4 word5"
    assert whole.content is not None
    assert whole.content["request"] == {"messages": chat}
    assert whole.content["answer"][0]["content"] == words
    assert streamed.content == {"request": {"messages": chat}, "answer": words}
    assert embedded.content == {"request": {"input": ["hello"]}}
    assert cut.content is not None
    text = cut.content["request"]["messages"][0]["content"]
    assert len(text) < 20_000
    assert text.endswith("…[cut]")
    assert plain.content is None


async def test_an_error_of_a_missing_package_holds_no_secret(
    litellm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litellm_ledger._litellm import packages as needs

    def missing(module: str) -> Any:
        raise ModuleNotFoundError(name="mcp")

    monkeypatch.setattr(needs, "_found", set())
    monkeypatch.setattr(needs.importlib, "import_module", missing)
    async with LiteLLMClient(tmp_path) as client:
        with pytest.raises(MissingExtra) as caught:
            await client.aresponses(**CALLS["aresponses"], api_key=f"sk-{SECRET}")
    assert SECRET not in str(caught.value)
