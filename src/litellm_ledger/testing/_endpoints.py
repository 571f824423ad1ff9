"""The bodies of the endpoints besides chat and embeddings, for OpenAI, Anthropic and Cohere.

Pure, as `_answers`, and it counts as `_answers` does: words in, words out, what a behaviour asks
for added. An image is 100 tokens, a second of audio is 16,000 bytes, a search is one search unit.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from litellm_ledger.testing._answers import (
    CREATED,
    Json,
    chat,
    count_words,
    error,
    pieces,
    reports_usage,
    tokens,
    usage,
)
from litellm_ledger.testing._behaviour import Behaviour

IMAGE_TOKENS = 100
BYTES_PER_SECOND = 16_000
SPEECH = b"ID3" + bytes(61)

Events = Iterator[tuple[Json, bool]]


def form(kind: str, body: bytes) -> Json:
    """Return the fields of a `multipart/form-data` body; of a file its name and size."""
    head = b"Content-Type: " + kind.encode("latin-1") + b"\r\n\r\n"
    found: Json = {}
    for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
        name = str(part.get_param("name", header="content-disposition")).removesuffix("[]")
        payload = part.get_payload(decode=True)
        content = payload if isinstance(payload, bytes) else b""
        filename = part.get_filename()
        if filename is None:
            found[name] = content.decode().removesuffix("\r\n")
        else:
            found[name] = {"filename": filename, "bytes": len(content)}
    return found


def failed(path: str, status: int, text: str | None) -> Json:
    """Return an error as the provider of this endpoint words it."""
    return _message_error(status, text) if path == "/v1/messages" else error(status, text)


def failed_midway(path: str, text: str | None) -> Json:
    """Return the event of a stream that fails half-way."""
    if path == "/v1/responses":
        text = text or "The server had an error while processing your request."
        return {"type": "error", "code": "server_error", "message": text, "param": None}
    return failed(path, 529 if path == "/v1/messages" else 500, text)


# --- /v1/completions -------------------------------------------------------------------------


def completion(request: Mapping[str, Any], behaviour: Behaviour, number: int) -> Json:
    """Return a `text_completion`."""
    answer = _text(request, behaviour, number, "".join(pieces(behaviour)), "stop")
    if not behaviour.no_usage:
        answer["usage"] = _text_usage(request, behaviour)
    return answer


def completion_chunks(request: Mapping[str, Any], behaviour: Behaviour, number: int) -> Events:
    """Yield the chunks of a streamed `text_completion`, as `_answers.chat_chunks` does."""
    for piece in pieces(behaviour):
        yield _text(request, behaviour, number, piece, None), True
    yield _text(request, behaviour, number, "", "stop"), False
    if reports_usage(request, behaviour):
        last = _text(request, behaviour, number, "", None)
        yield {**last, "choices": [], "usage": _text_usage(request, behaviour)}, False


def _text(
    request: Mapping[str, Any], behaviour: Behaviour, number: int, text: str, reason: str | None
) -> Json:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
    return {
        "id": f"cmpl-{number:08d}",
        "object": "text_completion",
        "created": CREATED,
        "model": behaviour.response_model or request.get("model"),
        "choices": [choice],
    }


def _text_usage(request: Mapping[str, Any], behaviour: Behaviour) -> Json:
    return usage(*tokens(count_words(request.get("prompt")), behaviour))


# --- /v1/responses ---------------------------------------------------------------------------


def response(request: Mapping[str, Any], behaviour: Behaviour, number: int) -> Json:
    """Return a completed `response`."""
    text = {"type": "output_text", "text": "".join(pieces(behaviour)), "annotations": []}
    said = {"type": "message", "id": f"msg_{number:08d}", "status": "completed"}
    answer = _begun_response(request, behaviour, number)
    answer |= {"status": "completed", "output": [{**said, "role": "assistant", "content": [text]}]}
    if not behaviour.no_usage:
        answer["usage"] = _response_usage(count_words(request.get("input")), behaviour)
    return answer


def response_events(request: Mapping[str, Any], behaviour: Behaviour, number: int) -> Events:
    """Yield the events of a streamed `response`; the last one carries the usage."""
    item = {"item_id": f"msg_{number:08d}", "output_index": 0, "content_index": 0}
    begun = _begun_response(request, behaviour, number)
    yield {"type": "response.created", "sequence_number": 0, "response": begun}, False
    for index, piece in enumerate(pieces(behaviour)):
        delta = {"type": "response.output_text.delta", "delta": piece, "logprobs": [], **item}
        yield {**delta, "sequence_number": index + 1}, True
    whole = response(request, behaviour, number)
    last = {"type": "response.completed", "sequence_number": behaviour.chunks + 1}
    yield {**last, "response": whole}, False


def background_response(name: str, behaviour: Behaviour) -> Json:
    """Return a `response` of three words that was made in the background and is completed."""
    request = {"model": "gpt-4o-mini", "input": "three words here"}
    return {**response(request, behaviour, 0), "id": name, "background": True}


def _begun_response(request: Mapping[str, Any], behaviour: Behaviour, number: int) -> Json:
    return {
        "id": f"resp_{number:08d}",
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": request.get("instructions"),
        "max_output_tokens": None,
        "model": behaviour.response_model or request.get("model"),
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
    }


def _response_usage(words_in: int, behaviour: Behaviour, answers: int = 1) -> Json:
    read, written = tokens(words_in, behaviour)
    return {
        "input_tokens": read * answers,
        "input_tokens_details": {"cached_tokens": behaviour.cached_tokens * answers},
        "output_tokens": written * answers,
        "output_tokens_details": {"reasoning_tokens": behaviour.reasoning_tokens * answers},
        "total_tokens": (read + written) * answers,
    }


# --- /v1/messages (Anthropic) ----------------------------------------------------------------


def message(request: Mapping[str, Any], behaviour: Behaviour, number: int) -> Json:
    """Return Anthropic's `message`.  Cached tokens stand beside `input_tokens`, not in it."""
    text = {"type": "text", "text": "".join(pieces(behaviour))}
    answer = _message(request, behaviour, number)
    answer |= {"content": [text], "stop_reason": "end_turn"}
    if behaviour.no_usage:
        del answer["usage"]
    else:
        answer["usage"]["output_tokens"] = tokens(0, behaviour)[1]
    return answer


def message_events(request: Mapping[str, Any], behaviour: Behaviour, number: int) -> Events:
    """Yield the events of Anthropic's stream: input counted at the start, output at the end."""
    begun = _message(request, behaviour, number)
    reason = {"stop_reason": "end_turn", "stop_sequence": None}
    end: Json = {"type": "message_delta", "delta": reason}
    if behaviour.no_usage:
        del begun["usage"]
    else:
        end["usage"] = {"output_tokens": tokens(0, behaviour)[1]}
    yield {"type": "message_start", "message": begun}, False
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}, False
    for piece in pieces(behaviour):
        delta = {"type": "text_delta", "text": piece}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}, True
    yield {"type": "content_block_stop", "index": 0}, False
    yield end, False
    yield {"type": "message_stop"}, False


def _message_error(status: int, text: str | None) -> Json:
    """Return an error as Anthropic words it, as a body and as an event of a stream."""
    kind = {
        400: "invalid_request_error",
        401: "authentication_error",
        429: "rate_limit_error",
        529: "overloaded_error",
    }.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": text or "It failed, as asked for."}}


def _message(request: Mapping[str, Any], behaviour: Behaviour, number: int) -> Json:
    words = count_words(request.get("messages")) + count_words(request.get("system"))
    read = behaviour.prompt_tokens
    fresh = words if read is None else read - behaviour.cached_tokens
    return {
        "id": f"msg_{number:08d}",
        "type": "message",
        "role": "assistant",
        "model": behaviour.response_model or request.get("model"),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": fresh,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": behaviour.cached_tokens,
            "output_tokens": 1,
            "service_tier": "standard",
        },
    }


# --- Images, audio, moderation, rerank -------------------------------------------------------


def images(request: Mapping[str, Any], behaviour: Behaviour, _: int) -> Json:
    """Return `n` images.  `gpt-image` models are billed by the token and report a usage."""
    count = int(request.get("n") or 1)
    pixel = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    answer: Json = {"created": CREATED, "data": [{"b64_json": pixel} for _ in range(count)]}
    if "gpt-image" in str(request.get("model")) and not behaviour.no_usage:
        text = count_words(request.get("prompt"))
        given = IMAGE_TOKENS * ("image" in request)
        read, written = behaviour.prompt_tokens, behaviour.completion_tokens
        read = text + given if read is None else read
        written = IMAGE_TOKENS * count if written is None else written
        answer["usage"] = {
            "input_tokens": read,
            "input_tokens_details": {"text_tokens": read - given, "image_tokens": given},
            "output_tokens": written,
            "total_tokens": read + written,
        }
    return answer


def transcription(request: Mapping[str, Any], behaviour: Behaviour, _: int) -> Json:
    """Return a transcript.  Whisper is billed by the second, other models by the token."""
    size = request["file"]["bytes"] if isinstance(request.get("file"), dict) else 0
    seconds = max(1, size // BYTES_PER_SECOND)
    answer: Json = {"text": "".join(pieces(behaviour))}
    if behaviour.no_usage:
        return answer
    if "whisper" in str(request.get("model")):
        answer["usage"] = {"type": "duration", "seconds": seconds}
        if request.get("response_format") == "verbose_json":
            answer |= {"task": "transcribe", "language": "english", "duration": float(seconds)}
        return answer
    read, written = tokens(10 * seconds, behaviour)
    answer["usage"] = {
        "type": "tokens",
        "input_tokens": read,
        "input_token_details": {"text_tokens": 0, "audio_tokens": read},
        "output_tokens": written,
        "total_tokens": read + written,
    }
    return answer


def moderation(request: Mapping[str, Any], _: Behaviour, number: int) -> Json:
    """Return a moderation that flags nothing."""
    given = request.get("input")
    count = len(given) if isinstance(given, list) else 1
    scores = {"harassment": 0.0, "violence": 0.0}
    result = {
        "flagged": False,
        "categories": dict.fromkeys(scores, False),
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in scores},
    }
    model = request.get("model") or "omni-moderation-latest"
    return {"id": f"modr-{number:08d}", "model": model, "results": [result] * count}


def rerank(request: Mapping[str, Any], behaviour: Behaviour, number: int) -> Json:
    """Return the documents in the order they came in, as Cohere does."""
    documents = request.get("documents") or []
    count = min(len(documents), int(request.get("top_n") or len(documents)))
    results = [{"index": n, "relevance_score": round(1 - n / 100, 2)} for n in range(count)]
    meta: Json = {"api_version": {"version": "2"}}
    if not behaviour.no_usage:
        meta["billed_units"] = {"search_units": max(1, -(-len(documents) // 100))}
    return {"id": f"rerank-{number:08d}", "results": results, "meta": meta}


def ocr(request: Mapping[str, Any], behaviour: Behaviour, _: int) -> Json:
    """Return one page of text, as Mistral does."""
    page = {"index": 0, "markdown": "".join(pieces(behaviour)), "images": [], "dimensions": None}
    answer: Json = {"pages": [page], "model": behaviour.response_model or request.get("model")}
    if not behaviour.no_usage:
        answer["usage_info"] = {"pages_processed": 1, "doc_size_bytes": None}
    return answer


# --- Files and batches -----------------------------------------------------------------------


def file(request: Mapping[str, Any], _: Behaviour, number: int) -> Json:
    """Return an uploaded file."""
    given = request.get("file")
    uploaded = given if isinstance(given, dict) else {"bytes": 0, "filename": "input.jsonl"}
    return {
        "id": f"file-{number:08d}",
        "object": "file",
        **uploaded,
        "created_at": CREATED,
        "purpose": request.get("purpose", "batch"),
        "status": "processed",
    }


BATCH_LINES = 2
"""Requests in every batch; each is answered with the words that a chat would be."""


def batch(number: int, request: Mapping[str, Any], behaviour: Behaviour, step: int) -> Json:
    """Return a batch: just created (0), in progress (1), completed (2 and later)."""
    status = ("validating", "in_progress", "completed")[min(step, 2)]
    done = status == "completed"
    answer: Json = {
        "id": f"batch_{number:08d}",
        "object": "batch",
        "endpoint": request.get("endpoint", "/v1/chat/completions"),
        "errors": None,
        "input_file_id": request.get("input_file_id", "file-00000001"),
        "completion_window": request.get("completion_window", "24h"),
        "status": status,
        "output_file_id": f"file-output-{number:08d}" if done else None,
        "error_file_id": None,
        "created_at": CREATED,
        "completed_at": CREATED + 60 if done else None,
        "request_counts": {"total": BATCH_LINES, "completed": BATCH_LINES * done, "failed": 0},
        "metadata": request.get("metadata"),
    }
    if done and not behaviour.no_usage:
        answer["model"] = behaviour.response_model or "gpt-4o-mini"
        answer["usage"] = _response_usage(3, behaviour, BATCH_LINES)
    return answer


def batch_output(number: int, behaviour: Behaviour) -> bytes:
    """Return the output file of a batch: one line of JSON for each request."""
    lines = []
    for line in range(BATCH_LINES):
        request = {"model": "gpt-4o-mini", "messages": "three words here"}
        body = chat(request, behaviour, number)
        body["id"] += f"-{line}"
        answer = {"status_code": 200, "request_id": f"req-{line}", "body": body}
        lines.append({"id": f"line-{line}", "custom_id": f"{line}", "response": answer})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
