"""LiteLLM's calls about jobs, which are billed when they are done: batches, background responses.

Owns their signatures and docstrings, as ``_client.methods`` does those of the other calls; the rule
for what a look at a job costs stands in ``_calls.batches``.
"""

# mypy: disable-error-code="no-any-return"
# (one way in answers for all of them; what LiteLLM answers is what the signature says)

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from litellm_ledger._calls.stream import CompletionStream

from .methods import LiteLLMCalls

if TYPE_CHECKING:
    from litellm_ledger._calls.answers import LiteLLMBatch, ResponsesAPIResponse

__all__ = ["LiteLLMJobs"]


class LiteLLMJobs(LiteLLMCalls):
    """LiteLLM's async calls, those about jobs among them; see ``LiteLLMCalls``."""

    async def acreate_batch(
        self,
        completion_window: Literal["24h"],
        endpoint: str,
        input_file_id: str,
        *args: Any,
        tags: Mapping[str, Any] | list[str] | None = None,
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
        self,
        batch_id: str,
        *args: Any,
        tags: Mapping[str, Any] | list[str] | None = None,
        **kwargs: Any,
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
        tags: Mapping[str, Any] | list[str] | None = ...,
        **kwargs: Any,
    ) -> CompletionStream: ...

    @overload
    async def aget_responses(
        self,
        response_id: str,
        *args: Any,
        stream: Literal[False] | None = ...,
        tags: Mapping[str, Any] | list[str] | None = ...,
        **kwargs: Any,
    ) -> ResponsesAPIResponse: ...

    @overload
    async def aget_responses(
        self,
        response_id: str,
        *args: Any,
        stream: bool | None,
        tags: Mapping[str, Any] | list[str] | None = ...,
        **kwargs: Any,
    ) -> ResponsesAPIResponse | CompletionStream: ...

    async def aget_responses(
        self,
        response_id: str,
        *args: Any,
        stream: bool | None = None,
        tags: Mapping[str, Any] | list[str] | None = None,
        **kwargs: Any,
    ) -> ResponsesAPIResponse | CompletionStream:
        """``litellm.aget_responses``: a response that was made before.

        The first call that sees a background response finished is recorded with its usage and
        cost; all others cost nothing, as do those that read any other response, or a stream of
        one.  ``docs/calls.md`` says what "first" means.
        """
        given = {"response_id": response_id, "stream": stream}
        return await self._call("aget_responses", given, args, kwargs, tags)
