"""The calls: one row each, and no other copy of what a call is.

Owns the table: what of a call's arguments the model reads, how its stream is read, which units it
is billed by, which optional packages LiteLLM needs for it.  ``_calls.call`` makes any of them from
its row; ``_client.client`` only gives them their types.  Never waits and never imports LiteLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from .anthropic_events import MessagesReader
from .content import captured
from .internals import MCP_CHAT, MCP_RESPONSES, MESSAGES_STREAM, Modules
from .members import member, text
from .price_options import price_options
from .stream_readers import ChatReader, LookReader, ResponsesReader, StreamReader, TextReader
from .units import UNITS, Units

__all__ = ["CALLS", "Asked", "Call"]

_Kwargs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Need:
    """Modules of LiteLLM that it imports while it makes a call, and what brings what they need.

    Imported before the request leaves: afterwards the provider would bill an answer that LiteLLM
    cannot return.

    Attributes:
        modules: each under the names that versions of LiteLLM give it, the newest name first.
        extra: the extra of ours that brings the packages they import.
    """

    modules: Modules
    extra: str


_MCP: Final = Need(MCP_CHAT, "responses")
_RESPONSES: Final = Need(MCP_RESPONSES, "responses")
_MESSAGES: Final = Need(MESSAGES_STREAM, "messages")


def _no_units(_kwargs: _Kwargs, _answer: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Call:
    """One of LiteLLM's async calls.

    Attributes:
        name: of LiteLLM's function and of the client's method.
        reads: the arguments that the model reads: what is counted when an answer has to be
            estimated, and stored with ``capture_content``.
        positional: LiteLLM's function whose signature names further positional arguments.
        reader: how a stream of it is read; ``None``: it has none.
        wrote: the part of an answer that ``capture_content`` stores.
        need: what LiteLLM imports for a call with these arguments.
        options: arguments that the price of this kind of call hangs on.
        tokens: billed by the tokens that the model reads and writes, so that an attempt which may
            be billed can be estimated.
        job: starts or asks about a job that is billed once, when it is done.
        keeps: whether a response cache may keep an answer; ``None``: it keeps none of this call.
        files: arguments that are files, compared by what they hold.
        plain: nearly every answer is one that ``plain_fields`` reads.
        strays: LiteLLM makes an HTTP client for each of them and leaves it to the collector.
        path: where LiteLLM has the function, if not at its top under ``name``.
        streams: every answer of it is a stream.
        named: the model, where no argument is called so.
        said: what of an answer is read, where that is the provider's own.
        wired: providers of whose plain answers LiteLLM drops what is billed; see ``wire``.
    """

    name: str
    reads: tuple[str, ...]
    positional: str
    reader: Callable[[Any], StreamReader] | None = None
    wrote: Callable[[Any], Any] = lambda _answer: None
    need: Callable[[_Kwargs], Need | None] = lambda _kwargs: None
    options: tuple[str, ...] = ()
    tokens: bool = False
    job: bool = False
    keeps: Callable[[Any], bool] | None = lambda _answer: True
    files: tuple[str, ...] = ()
    plain: bool = False
    strays: bool = False
    path: str = ""
    streams: bool = False
    named: Callable[[_Kwargs], Any] = lambda kwargs: kwargs.get("model")
    said: Callable[[Any], Any] = lambda answer: answer
    wired: frozenset[str] = frozenset()

    def function(self, litellm: Any) -> Any:
        """LiteLLM's function."""
        return attrgetter(self.path or self.name)(litellm)

    @property
    def units(self) -> Units:
        """What it used that is no token."""
        return UNITS.get(self.name, _no_units)

    @property
    def asks_usage(self) -> bool:
        """Whether the provider has to be asked for the usage of a stream."""
        return getattr(self.reader, "asks_usage", False)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for.  Holds the caller's arguments, keys and all: never put on record."""

    call: Call
    kwargs: _Kwargs
    capture: bool = False

    @property
    def model(self) -> str | None:
        model = self.call.named(self.kwargs)
        return model if isinstance(model, str) else None

    @property
    def provider(self) -> str | None:
        """The provider as far as the caller named it."""
        return text(self.kwargs.get("custom_llm_provider"))

    @property
    def named_provider(self) -> str | None:
        """The same, or by the prefix of the model."""
        return self.provider or (self.model or "").partition("/")[0]

    @property
    def prompt(self) -> Any:
        """What the model reads, in the shape that tokens are counted in."""
        parts = [self.kwargs.get(name) for name in self.call.reads]
        given = [part for part in parts if part]
        if len(given) < 2:
            return given[0] if given else None
        messages: list[Any] = []
        for part in given:
            if isinstance(part, list):
                messages += part
            else:
                messages.append({"role": "user", "content": part})
        return messages

    def price_options(self, provider: str | None) -> dict[str, Any]:
        """What this call's price hangs on beside the model and what was used."""
        return price_options(
            self.kwargs, model=self.model, provider=provider, names=self.call.options
        )

    def content(self, wrote: Any) -> dict[str, Any]:
        """Asked and answer, if they are to be stored."""
        if not self.capture:
            return {}
        asked = {name: self.kwargs[name] for name in self.call.reads if name in self.kwargs}
        return {"content": captured(asked, wrote)}


# --- What an answer says ---------------------------------------------------------------------


def _member(name: str) -> Callable[[Any], Any]:
    return lambda answer: member(answer, name)


def _of_choices(name: str) -> Callable[[Any], Any]:
    return lambda answer: [member(choice, name) for choice in member(answer, "choices") or ()]


def _images_wrote(answer: Any) -> Any:
    """Addresses and prompts, not the pixels."""
    return [
        {name: member(image, name) for name in ("url", "revised_prompt")}
        for image in member(answer, "data") or ()
    ]


def _is_done(answer: Any) -> bool:
    """A response may be one that is still queued."""
    return member(answer, "status") in (None, "completed", "incomplete")


def _has_no_address(answer: Any) -> bool:
    """The address of an image stops working after a while, sooner than a cache forgets it."""
    return all(member(image, "url") is None for image in member(answer, "data") or ())


def _any_reader(inner: Any) -> StreamReader:
    """For bytes of any provider; such calls are rare, and load what they need."""
    from .byte_streams import AnyReader

    return AnyReader(inner)


def _body(answer: Any) -> Any:
    from .byte_streams import body

    return body(answer)


# --- What stands for the model where a call names none ------------------------------------------


def _search_model(kwargs: _Kwargs) -> Any:
    """As LiteLLM's price map has it."""
    provider = kwargs.get("search_provider")
    return f"{provider}/search" if isinstance(provider, str) else None


def _of_provider(what: str) -> Callable[[_Kwargs], str]:
    return lambda kwargs: f"{text(kwargs.get('custom_llm_provider')) or 'openai'}/{what}"


# --- The table -------------------------------------------------------------------------------

CALLS: Final[dict[str, Call]] = {
    row.name: row
    for row in (
        Call(
            "acompletion",
            ("messages",),
            "completion",
            reader=ChatReader,
            tokens=True,
            plain=True,
            wired=frozenset({"cohere", "cohere_chat", "perplexity"}),
            wrote=_of_choices("message"),
            need=lambda kwargs: _MCP if kwargs.get("tools") else None,
        ),
        Call(
            "atext_completion",
            ("prompt",),
            "text_completion",
            reader=TextReader,
            tokens=True,
            wrote=_of_choices("text"),
            strays=True,
        ),
        Call(
            "aembedding",
            ("input",),
            "embedding",
            tokens=True,
            wired=frozenset({"openrouter"}),
        ),
        Call(
            "aresponses",
            ("input", "instructions"),
            "aresponses",
            reader=ResponsesReader,
            tokens=True,
            wrote=_member("output"),
            need=lambda _: _RESPONSES,
            keeps=_is_done,
        ),
        Call(
            "anthropic_messages",
            ("messages", "system"),
            "anthropic_messages",
            reader=MessagesReader,
            tokens=True,
            wrote=_member("content"),
            need=lambda kwargs: _MESSAGES if kwargs.get("stream") else None,
        ),
        Call(
            "aimage_generation",
            ("prompt",),
            "image_generation",
            wrote=_images_wrote,
            options=("size", "quality", "n"),
            keeps=_has_no_address,
        ),
        Call(
            "aimage_edit",
            ("prompt",),
            "aimage_edit",
            wrote=_images_wrote,
            options=("size", "quality", "n"),
            keeps=_has_no_address,
            files=("image", "mask"),
        ),
        Call(
            "atranscription",
            ("prompt",),
            "transcription",
            wrote=_member("text"),
            files=("file",),
        ),
        Call("aspeech", ("input",), "speech"),
        Call("amoderation", ("input",), "amoderation", wrote=_member("results")),
        Call(
            "arerank",
            ("query", "documents"),
            "arerank",
            wrote=_member("results"),
        ),
        Call("aocr", ("document",), "ocr", wrote=_member("pages")),
        Call("acreate_batch", (), "acreate_batch", job=True, keeps=None, strays=True),
        Call("aretrieve_batch", (), "aretrieve_batch", job=True, keeps=None, strays=True),
        Call("aget_responses", (), "aget_responses", reader=LookReader, job=True, keeps=None),
        Call(
            "acompact_responses",
            ("input", "instructions"),
            "acompact_responses",
            tokens=True,
            wrote=_member("output"),
            keeps=None,
        ),
        Call(
            "agenerate_content",
            ("contents",),
            "agenerate_content",
            tokens=True,
            wrote=_member("candidates"),
            keeps=None,
        ),
        Call(
            "agenerate_content_stream",
            ("contents",),
            "google_genai.agenerate_content_stream",
            path="google_genai.agenerate_content_stream",
            reader=_any_reader,
            streams=True,
            tokens=True,
            keeps=None,
        ),
        Call(
            "interactions.acreate",
            ("input", "system_instruction"),
            "interactions.create",
            path="interactions.acreate",
            reader=_any_reader,
            tokens=True,
            wrote=_member("outputs"),
            keeps=None,
        ),
        Call(
            "adecisions",
            ("input", "questions"),
            "decisions",
            wrote=_member("answers"),
            keeps=None,
        ),
        Call("aimage_variation", (), "image_variation", wrote=_images_wrote, keeps=None),
        *(
            Call(f"avideo_{name}", ("prompt",), f"video_{name}", keeps=None)
            for name in ("generation", "edit", "extension", "remix")
        ),
        Call("aextraction", (), "extraction", wrote=_member("fields"), keeps=None),
        Call("asearch", ("query",), "search", named=_search_model, keeps=None),
        Call(
            "vector_stores.asearch",
            ("query",),
            "vector_stores.search",
            path="vector_stores.asearch",
            named=_of_provider("search_api"),
            keeps=None,
        ),
        Call(
            "acreate_container",
            (),
            "create_container",
            named=_of_provider("container"),
            keeps=None,
        ),
        Call("acreate_fine_tuning_job", (), "create_fine_tuning_job", keeps=None, strays=True),
        Call(
            "allm_passthrough_route",
            (),
            "passthrough.llm_passthrough_route",
            reader=_any_reader,
            said=_body,
            keeps=None,
        ),
    )
}
