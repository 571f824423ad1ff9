"""LiteLLM's async calls under their own names: the typed surface, and nothing behind it.

Owns the signatures and the docstrings.  Each method names its arguments and hands them to one way
in; what a call is stands in ``_litellm.calls``, and how it is made in ``_calls.call``.
"""

# ruff: noqa: A002 - ``input`` is LiteLLM's own name
# mypy: disable-error-code="no-any-return"
# (one way in answers for all of them; what LiteLLM answers is what the signature says)

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from litellm_ledger._calls.answers import RecordedDict
from litellm_ledger._calls.stream import CompletionStream

if TYPE_CHECKING:
    from litellm_ledger._calls.answers import (
        EmbeddingResponse,
        HttpxBinaryResponseContent,
        ImageResponse,
        LiteLLMBatch,
        ModelResponse,
        OpenAIModerationResponse,
        RerankResponse,
        ResponsesAPIResponse,
        TextCompletionResponse,
        TranscriptionResponse,
    )

__all__ = ["CallTags", "LiteLLMCalls"]

CallTags = Mapping[str, Any] | list[str] | None
"""Tags of one call: a mapping goes on the record; a list is LiteLLM's own and is forwarded."""


class LiteLLMCalls:
    """LiteLLM's async calls, each recorded on the ledger.

    They take LiteLLM's arguments, return LiteLLM's answer with ``usage_record`` on it, and raise
    LiteLLM's exceptions.  This library adds one argument, ``tags``: a mapping goes on the record; a
    list is LiteLLM's own and is forwarded.

    Raises:
        LedgerClosed: the client is closed or closing.
        LedgerFailed: the ledger's writer has died, so the call could not be recorded.
        MissingExtra: LiteLLM needs a package that is not installed.  Nothing was sent.

    A call that is cancelled before its request has left costs nothing.  One that is cancelled later
    is recorded as ``cancelled``.
    """

    _call: Callable[..., Coroutine[Any, Any, Any]]
    """One way in for all of them: ``LiteLLMClient`` has it."""

    @overload
    async def acompletion(
        self,
        model: str,
        messages: Sequence[Any] = ...,
        *args: Any,
        stream: Literal[True],
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> CompletionStream: ...

    @overload
    async def acompletion(
        self,
        model: str,
        messages: Sequence[Any] = ...,
        *args: Any,
        stream: Literal[False] | None = ...,
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> ModelResponse: ...

    @overload
    async def acompletion(
        self,
        model: str,
        messages: Sequence[Any] = ...,
        *args: Any,
        stream: bool | None,
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> ModelResponse | CompletionStream: ...

    async def acompletion(
        self,
        model: str,
        messages: Sequence[Any] = (),
        *args: Any,
        stream: bool | None = None,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> ModelResponse | CompletionStream:
        """``litellm.acompletion``: a chat.

        Returns:
            LiteLLM's ``ModelResponse``, or an async iterator of its chunks with ``stream=True``.
            ``.usage_record`` of either is the record of this call (of a stream once it has ended).
        """
        given = {"model": model, "messages": list(messages), "stream": stream}
        return await self._call("acompletion", given, args, kwargs, tags)

    @overload
    async def atext_completion(
        self,
        prompt: str | list[Any],
        model: str | None = ...,
        *args: Any,
        stream: Literal[True],
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> CompletionStream: ...

    @overload
    async def atext_completion(
        self,
        prompt: str | list[Any],
        model: str | None = ...,
        *args: Any,
        stream: Literal[False] | None = ...,
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> TextCompletionResponse: ...

    @overload
    async def atext_completion(
        self,
        prompt: str | list[Any],
        model: str | None = ...,
        *args: Any,
        stream: bool | None,
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> TextCompletionResponse | CompletionStream: ...

    async def atext_completion(
        self,
        prompt: str | list[Any],
        model: str | None = None,
        *args: Any,
        stream: bool | None = None,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> TextCompletionResponse | CompletionStream:
        """``litellm.atext_completion``: text completion; also as a stream."""
        given = {"prompt": prompt, "model": model, "stream": stream}
        return await self._call("atext_completion", given, args, kwargs, tags)

    async def aembedding(
        self,
        model: str,
        input: str | list[Any] | None = None,
        *args: Any,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> EmbeddingResponse:
        """``litellm.aembedding``: vectors of texts.  All its tokens are input."""
        return await self._call("aembedding", {"model": model, "input": input}, args, kwargs, tags)

    @overload
    async def aresponses(
        self,
        input: str | list[Any],
        model: str,
        *args: Any,
        stream: Literal[True],
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> CompletionStream: ...

    @overload
    async def aresponses(
        self,
        input: str | list[Any],
        model: str,
        *args: Any,
        stream: Literal[False] | None = ...,
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> ResponsesAPIResponse: ...

    @overload
    async def aresponses(
        self,
        input: str | list[Any],
        model: str,
        *args: Any,
        stream: bool | None,
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> ResponsesAPIResponse | CompletionStream: ...

    async def aresponses(
        self,
        input: str | list[Any],
        model: str,
        *args: Any,
        stream: bool | None = None,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> ResponsesAPIResponse | CompletionStream:
        """``litellm.aresponses``: OpenAI's Responses; also as a stream of events.

        LiteLLM needs the package ``mcp`` for it.  The cost of a response with ``background=True``
        is unknown until ``aget_responses`` sees it finished.
        """
        given = {"input": input, "model": model, "stream": stream}
        return await self._call("aresponses", given, args, kwargs, tags)

    @overload
    async def anthropic_messages(
        self,
        max_tokens: int,
        messages: list[Any],
        model: str,
        *args: Any,
        stream: Literal[True],
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> CompletionStream: ...

    @overload
    async def anthropic_messages(
        self,
        max_tokens: int,
        messages: list[Any],
        model: str,
        *args: Any,
        stream: Literal[False] | None = ...,
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> RecordedDict: ...

    @overload
    async def anthropic_messages(
        self,
        max_tokens: int,
        messages: list[Any],
        model: str,
        *args: Any,
        stream: bool | None,
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> RecordedDict | CompletionStream: ...

    async def anthropic_messages(
        self,
        max_tokens: int,
        messages: list[Any],
        model: str,
        *args: Any,
        stream: bool | None = None,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> RecordedDict | CompletionStream:
        """``litellm.anthropic_messages``: Anthropic's Messages.

        Returns:
            LiteLLM's plain ``dict``, as a subclass that has ``usage_record``; with ``stream=True``
            an async iterator of Anthropic's events as bytes, which needs the extra ``messages``.
            An ``error`` event raises nothing in LiteLLM; it is on record as an error.
        """
        given = {"max_tokens": max_tokens, "messages": messages, "model": model, "stream": stream}
        return await self._call("anthropic_messages", given, args, kwargs, tags)

    async def aimage_generation(
        self,
        prompt: str,
        model: str | None = None,
        *args: Any,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> ImageResponse:
        """``litellm.aimage_generation``: images.  Recorded with ``images``."""
        given = {"prompt": prompt, "model": model}
        return await self._call("aimage_generation", given, args, kwargs, tags)

    async def aimage_edit(
        self, image: Any, model: str, prompt: str, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> ImageResponse:
        """``litellm.aimage_edit``: images from images.  Recorded with ``images``."""
        given = {"image": image, "model": model, "prompt": prompt}
        return await self._call("aimage_edit", given, args, kwargs, tags)

    async def atranscription(
        self, model: str, file: Any, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> TranscriptionResponse:
        """``litellm.atranscription``: text from audio.  Recorded with ``audio_seconds``."""
        given = {"model": model, "file": file}
        return await self._call("atranscription", given, args, kwargs, tags)

    async def aspeech(
        self,
        model: str,
        input: str,
        voice: str | dict[str, Any] | None = None,
        *args: Any,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> HttpxBinaryResponseContent:
        """``litellm.aspeech``: audio from text.  Recorded with ``characters``."""
        given = {"model": model, "input": input, "voice": voice}
        return await self._call("aspeech", given, args, kwargs, tags)

    async def amoderation(
        self, input: Any, model: str | None = None, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> OpenAIModerationResponse:
        """``litellm.amoderation``: is a text harmful?  Free of charge at OpenAI."""
        return await self._call("amoderation", {"input": input, "model": model}, args, kwargs, tags)

    async def arerank(
        self,
        model: str,
        query: str,
        documents: list[Any],
        *args: Any,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> RerankResponse:
        """``litellm.arerank``: documents by relevance.  Recorded with ``search_units``."""
        given = {"model": model, "query": query, "documents": documents}
        return await self._call("arerank", given, args, kwargs, tags)

    async def aocr(
        self,
        model: str,
        document: Mapping[str, Any],
        *args: Any,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> Any:
        """``litellm.aocr``: text from pages.  Recorded with ``pages``."""
        return await self._call("aocr", {"model": model, "document": document}, args, kwargs, tags)

    # -- jobs, billed when they are done; ``_calls.batches`` says what a look at one costs ---------

    async def acreate_batch(
        self,
        completion_window: Literal["24h"],
        endpoint: str,
        input_file_id: str,
        *args: Any,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> LiteLLMBatch:
        """``litellm.acreate_batch``: a batch, billed when it is done.  Recorded at no cost.

        Keep asking with ``aretrieve_batch``: the batch's cost is recorded when that sees its end.
        """
        given = {
            "completion_window": completion_window,
            "endpoint": endpoint,
            "input_file_id": input_file_id,
        }
        return await self._call("acreate_batch", given, args, kwargs, tags)

    async def aretrieve_batch(
        self, batch_id: str, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> LiteLLMBatch:
        """``litellm.aretrieve_batch``: how a batch is doing.

        The first call that sees it finished is recorded with the usage and the cost of the whole
        batch; all others cost nothing.  ``docs/calls.md`` says what "first" means.
        """
        return await self._call("aretrieve_batch", {"batch_id": batch_id}, args, kwargs, tags)

    @overload
    async def aget_responses(
        self,
        response_id: str,
        *args: Any,
        stream: Literal[True],
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> CompletionStream: ...

    @overload
    async def aget_responses(
        self,
        response_id: str,
        *args: Any,
        stream: Literal[False] | None = ...,
        tags: CallTags = ...,
        **kwargs: Any,
    ) -> ResponsesAPIResponse: ...

    @overload
    async def aget_responses(
        self, response_id: str, *args: Any, stream: bool | None, tags: CallTags = ..., **kwargs: Any
    ) -> ResponsesAPIResponse | CompletionStream: ...

    async def aget_responses(
        self,
        response_id: str,
        *args: Any,
        stream: bool | None = None,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> ResponsesAPIResponse | CompletionStream:
        """``litellm.aget_responses``: a response that was made before.

        The first call that sees a background response finished is recorded with its usage and
        cost; all others cost nothing, as do those that read any other response, or a stream of
        one.  ``docs/calls.md`` says what "first" means.
        """
        given = {"response_id": response_id, "stream": stream}
        return await self._call("aget_responses", given, args, kwargs, tags)
