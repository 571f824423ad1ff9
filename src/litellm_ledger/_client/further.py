"""LiteLLM's further calls that are billed, and those that are not.

Owns their signatures.  The billed ones are rows of ``_litellm.calls`` like all others; what costs
nothing (files, lists, deletions) is handed to LiteLLM as it is and put on no record.
"""

# ruff: noqa: A002 - ``input`` is LiteLLM's own name
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from litellm_ledger._calls.stream import CompletionStream

from .methods import CallTags

__all__ = ["FurtherCalls", "Interactions", "VectorStores"]

_Way = Callable[..., Coroutine[Any, Any, Any]]


class FurtherCalls:
    """Calls that take LiteLLM's arguments and ``tags``, as ``LiteLLMCalls`` says."""

    _call: _Way

    _session: _Way

    async def arealtime(
        self, websocket: Any, model: str, *, tags: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Relay a realtime session between the user's websocket and the provider.

        Each answer of the provider's is a record of its own, written before the event that ends it
        is sent on.  LiteLLM needs the package ``websockets`` for this.

        Args:
            websocket: accepted already, as FastAPI and Starlette have them.
            model: for example ``openai/gpt-realtime``.
            kwargs: LiteLLM's, for example ``api_key`` and ``query_params``.
        """
        given = {"model": model, **kwargs}
        return await self._session("arealtime", websocket, given, tags)

    async def aresponses_websocket(
        self, websocket: Any, model: str, *, tags: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """The same for the Responses API over a websocket."""
        given = {"model": model, **kwargs}
        return await self._session("aresponses_websocket", websocket, given, tags)

    @property
    def interactions(self) -> Interactions:
        """``litellm.interactions``."""
        return Interactions(self._call)

    @property
    def vector_stores(self) -> VectorStores:
        """``litellm.vector_stores``."""
        return VectorStores(self._call)

    async def avideo_generation(
        self, prompt: str, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> Any:
        """``litellm.avideo_generation``: a video.  Recorded with its seconds."""
        given = {"prompt": prompt}
        return await self._call("avideo_generation", given, args, kwargs, tags)

    async def avideo_edit(
        self, video_id: str, prompt: str, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> Any:
        """``litellm.avideo_edit``: a video, changed.  Recorded with its seconds."""
        given = {"video_id": video_id, "prompt": prompt}
        return await self._call("avideo_edit", given, args, kwargs, tags)

    async def avideo_extension(
        self,
        video_id: str,
        prompt: str,
        seconds: str,
        *args: Any,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> Any:
        """``litellm.avideo_extension``: a longer video.  Recorded with the seconds that came."""
        given = {"video_id": video_id, "prompt": prompt, "seconds": seconds}
        return await self._call("avideo_extension", given, args, kwargs, tags)

    async def avideo_remix(
        self, video_id: str, prompt: str, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> Any:
        """``litellm.avideo_remix``: a video made anew from another.  Recorded with its seconds."""
        given = {"video_id": video_id, "prompt": prompt}
        return await self._call("avideo_remix", given, args, kwargs, tags)

    async def aimage_variation(
        self, image: Any, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> Any:
        """``litellm.aimage_variation``: variations of an image.  Recorded with ``images``."""
        given = {"image": image}
        return await self._call("aimage_variation", given, args, kwargs, tags)

    async def asearch(
        self,
        query: str | list[str],
        search_provider: str,
        *args: Any,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> Any:
        """``litellm.asearch``: a search of the web.

        Recorded with its queries; ``model`` is ``<search_provider>/search``.
        """
        given = {"query": query, "search_provider": search_provider}
        return await self._call("asearch", given, args, kwargs, tags)

    async def aextraction(
        self, model: str, fields: Any, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> Any:
        """``litellm.aextraction``: fields read from a text or from images."""
        given = {"model": model, "fields": fields}
        return await self._call("aextraction", given, args, kwargs, tags)

    async def adecisions(self, model: str, *args: Any, tags: CallTags = None, **kwargs: Any) -> Any:
        """``litellm.adecisions``: answers to questions of yes and no."""
        given = {"model": model}
        return await self._call("adecisions", given, args, kwargs, tags)

    async def acompact_responses(
        self, input: Any, model: str, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> Any:
        """``litellm.acompact_responses``: a conversation, made shorter."""
        given = {"input": input, "model": model}
        return await self._call("acompact_responses", given, args, kwargs, tags)

    async def agenerate_content(
        self, model: str, contents: Any, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> Any:
        """``litellm.agenerate_content``: Google's ``generateContent``."""
        given = {"model": model, "contents": contents}
        return await self._call("agenerate_content", given, args, kwargs, tags)

    async def agenerate_content_stream(
        self, model: str, contents: Any, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> CompletionStream:
        """``litellm.agenerate_content_stream``: the same as a stream of the provider's bytes."""
        given = {"model": model, "contents": contents}
        return await self._call("agenerate_content_stream", given, args, kwargs, tags)

    async def acreate_container(
        self, name: str, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> Any:
        """``litellm.acreate_container``: a container for code.

        Recorded as one session; answers whose code runs in it do not bill it again.
        """
        given = {"name": name}
        return await self._call("acreate_container", given, args, kwargs, tags)

    async def acreate_fine_tuning_job(
        self, model: str, training_file: str, *args: Any, tags: CallTags = None, **kwargs: Any
    ) -> Any:
        """``litellm.acreate_fine_tuning_job``: a training.

        Recorded without a cost, which nobody knows before it is done: ``meta.unpriced``
        says ``training``.
        """
        given = {"model": model, "training_file": training_file}
        return await self._call("acreate_fine_tuning_job", given, args, kwargs, tags)

    async def allm_passthrough_route(
        self,
        method: str,
        endpoint: str,
        model: str,
        *args: Any,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> Any:
        """``litellm.allm_passthrough_route``: a request to the provider as it is.

        The usage is read from the provider's own answer or events.
        """
        given = {"method": method, "endpoint": endpoint, "model": model}
        return await self._call("allm_passthrough_route", given, args, kwargs, tags)


class Interactions:
    """``client.interactions``."""

    def __init__(self, call: _Way) -> None:
        self._call = call

    async def acreate(self, *, tags: CallTags = None, **kwargs: Any) -> Any:
        """``litellm.interactions.acreate``: Google's interactions; also as a stream."""
        return await self._call("interactions.acreate", {}, (), kwargs, tags)


class VectorStores:
    """``client.vector_stores``."""

    def __init__(self, call: _Way) -> None:
        self._call = call

    async def asearch(
        self,
        vector_store_id: str,
        query: str | list[str],
        *args: Any,
        tags: CallTags = None,
        **kwargs: Any,
    ) -> Any:
        """``litellm.vector_stores.asearch``: a search in stored documents."""
        given = {"vector_store_id": vector_store_id, "query": query}
        return await self._call("vector_stores.asearch", given, args, kwargs, tags)
