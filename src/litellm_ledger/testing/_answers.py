"""The bodies that OpenAI would send: answers, stream chunks, embeddings, errors, and their usage.

Pure: a function of the request's JSON, the behaviour and the request's number. It never waits,
sends or looks at a clock, so the same request gets the same answer on every run.

How tokens are counted: `prompt_tokens` is the number of whitespace-separated words in the texts
of the messages (or of `input`) and `completion_tokens` the number of words in the answer. Cached,
audio and reasoning tokens that a behaviour asks for are added to that, for they are always a part
of the totals. `Behaviour.prompt_tokens` and `completion_tokens` replace the sum.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from litellm_ledger.testing._behaviour import Behaviour

Json = dict[str, Any]

CREATED = 1_700_000_000  # a moment in 2023: answers do not change with the clock
EMBEDDING_DIMENSIONS = 8
MODELS = ("gpt-4o", "gpt-4o-mini", "o3-mini", "text-embedding-3-small")

_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is not valid, as the behaviour asks."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Not supported here."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
}
_SERVER_ERROR = ("server_error", None, "The server had an error while processing your request.")


def count_words(value: object) -> int:
    """Count the whitespace-separated words of a text, of messages, of parts or of an `input`.

    A list of numbers is an `input` that is tokenised already: each counts one.
    """
    match value:
        case str():
            return len(value.split())
        case int():
            return 1
        case list():
            return sum(map(count_words, value))
        case {"content": content}:
            return count_words(content)
        case {"type": "text", "text": text}:
            return count_words(text)
    return 0


def error(status: int, message: str | None = None, param: str | None = None) -> Json:
    """Return the body of an error, with OpenAI's type and code for the status."""
    fallback = _SERVER_ERROR if status >= 500 else _ERRORS[400]
    kind, code, text = _ERRORS.get(status, fallback)
    if message is not None:
        code, text = None, message
    return {"error": {"message": text, "type": kind, "param": param, "code": code}}


def tokens(words_in: int, behaviour: Behaviour) -> tuple[int, int]:
    """Return the input and the output tokens; the module's docstring says how they are counted."""
    read, written = behaviour.prompt_tokens, behaviour.completion_tokens
    if read is None:
        read = words_in + behaviour.cached_tokens + behaviour.audio_tokens
    if written is None:
        words = behaviour.chunks * behaviour.words_per_chunk
        written = words + behaviour.reasoning_tokens + behaviour.audio_output_tokens
    return read, written


def usage(read: int, written: int) -> Json:
    """Return the three sums of a `usage`."""
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def reports_usage(request: Mapping[str, Any], behaviour: Behaviour) -> bool:
    """Return whether a stream of chats or completions ends with its usage."""
    asked = bool((request.get("stream_options") or {}).get("include_usage"))
    return asked and not behaviour.ignore_include_usage and not behaviour.no_usage


def tool_asked_for(request: Mapping[str, Any], behaviour: Behaviour) -> str | None:
    """Return the name of the tool that this chat is answered by a call of, if it is."""
    tools, messages = request.get("tools"), request.get("messages") or ()
    done = sum(isinstance(one, Mapping) and one.get("role") == "tool" for one in messages)
    if not tools or done >= behaviour.tool_calls:
        return None
    return str((tools[0].get("function") or {}).get("name"))


def _tool_call(name: str, number: int) -> Json:
    function = {"name": name, "arguments": "{}"}
    return {"id": f"call_{number:08d}", "type": "function", "function": function}


def _chat_usage(request: Mapping[str, Any], behaviour: Behaviour) -> Json:
    if tool_asked_for(request, behaviour) is not None:
        behaviour = replace(behaviour, chunks=1, words_per_chunk=1)
    cost = {} if behaviour.cost is None else {"cost": behaviour.cost}
    return {
        **cost,
        **usage(*tokens(count_words(request.get("messages")), behaviour)),
        "prompt_tokens_details": {
            "cached_tokens": behaviour.cached_tokens,
            "audio_tokens": behaviour.audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": behaviour.reasoning_tokens,
            "audio_tokens": behaviour.audio_output_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def pieces(behaviour: Behaviour) -> Iterator[str]:
    """Yield the text of each chunk; joined they read `word1 word2 word3 ...`."""
    size = behaviour.words_per_chunk
    for chunk in range(behaviour.chunks):
        words = (f"word{n}" for n in range(chunk * size + 1, (chunk + 1) * size + 1))
        yield " " * (chunk > 0 and size > 0) + " ".join(words)


def chat(request: Mapping[str, Any], behaviour: Behaviour, number: int) -> Json:
    """Return a `chat.completion`."""
    message: Json = {
        "role": "assistant",
        "content": "".join(pieces(behaviour)),
        "refusal": None,
        "annotations": [],
    }
    reason, name = "stop", tool_asked_for(request, behaviour)
    if name is not None:
        reason = "tool_calls"
        message |= {"content": None, "tool_calls": [_tool_call(name, number)]}
    answer = _chat(request, behaviour, number, "chat.completion", reason, message=message)
    if not behaviour.no_usage:
        answer["usage"] = _chat_usage(request, behaviour)
    return answer


def chat_chunks(
    request: Mapping[str, Any], behaviour: Behaviour, number: int
) -> Iterator[tuple[Json, bool]]:
    """Yield each `chat.completion.chunk` of a stream and whether it is one with content.

    With `stream_options.include_usage` every chunk has a `usage` of null, and one more chunk
    with no choices and the real usage comes last. Without it no chunk has the member at all.
    """
    reports = reports_usage(request, behaviour)

    def chunk(delta: Json, reason: str | None = None) -> Json:
        body = _chat(request, behaviour, number, "chat.completion.chunk", reason, delta=delta)
        return {**body, "usage": None} if reports else body

    yield chunk({"role": "assistant", "content": "", "refusal": None}), False
    name = tool_asked_for(request, behaviour)
    if name is not None:
        yield chunk({"tool_calls": [{"index": 0, **_tool_call(name, number)}]}), True
    else:
        for piece in pieces(behaviour):
            yield chunk({"content": piece}), True
    last = chunk({}, "stop" if name is None else "tool_calls")
    if reports and behaviour.usage_on_finish:
        yield {**last, "usage": _chat_usage(request, behaviour)}, False
        return
    yield last, False
    if reports:
        yield {**last, "choices": [], "usage": _chat_usage(request, behaviour)}, False


def embeddings(request: Mapping[str, Any], behaviour: Behaviour, _: int) -> Json:
    """Return the embeddings of `input`: one for each text, equal numbers in each."""
    given = request.get("input")
    several = isinstance(given, list) and not (given and isinstance(given[0], int))
    inputs = given if several and given is not None else [given]
    vector = [1.0] * int(request.get("dimensions") or EMBEDDING_DIMENSIONS)
    packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    embedding = packed if request.get("encoding_format") == "base64" else vector
    answer: Json = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": embedding}
            for index in range(len(inputs))
        ],
        "model": behaviour.response_model or request.get("model"),
    }
    if not behaviour.no_usage:
        read = behaviour.prompt_tokens
        read = count_words(given) if read is None else read
        answer["usage"] = {"prompt_tokens": read, "total_tokens": read}
    return answer


def models() -> Json:
    """Return the list of models. Any other name is served just the same."""
    model = {"object": "model", "created": CREATED, "owned_by": "test"}
    return {"object": "list", "data": [{"id": name, **model} for name in MODELS]}


def _chat(
    request: Mapping[str, Any],
    behaviour: Behaviour,
    number: int,
    kind: str,
    reason: str | None,
    **said: Json,
) -> Json:
    return {
        "id": f"chatcmpl-{number:08d}",
        "object": kind,
        "created": CREATED,
        "model": behaviour.response_model or request.get("model"),
        "service_tier": behaviour.service_tier,
        "system_fingerprint": "fp_test",
        "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": reason}],
    }
