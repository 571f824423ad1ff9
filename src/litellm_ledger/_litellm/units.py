"""What a call used that is no token, and what of it chose its price.

Owns the reading of units from a call's arguments and its answer: images, seconds, characters,
pages, searches, video.  The provider's count comes before what was asked for.  Pure; what cannot
be read is left out, and what is left out is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from math import ceil
from typing import Any, Final

from litellm_ledger._records.record import MAX_INT

from .internals import HIDDEN
from .members import count, member, note, noted, view

__all__ = ["UNITS", "Units", "add_units", "search_context"]

_Kwargs = Mapping[str, Any]
Units = Callable[[_Kwargs, Any], dict[str, Any]]
"""From arguments and answer to fields of a record; ``meta`` has ``units`` and ``price``."""

_MEGAPIXEL: Final = 1_048_576


def add_units(fields: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return an outcome with its units; what the answer said of its price counts."""
    fields = {**fields, **{name: value for name, value in found.items() if name != "meta"}}
    for name, told in found.get("meta", {}).items():
        known = noted(fields, name)
        both = isinstance(told, Mapping) and isinstance(known, Mapping)
        note(fields, {name: {**told, **known} if both else told})
    return fields


def _told(
    fields: dict[str, Any], *, units: Mapping[str, Any] | None = None, **price: Any
) -> dict[str, Any]:
    """Fields with their ``meta``: units above 0, and what chose the price, if it is known."""
    told = {name: value for name, value in (units or {}).items() if value}
    said = {name: value for name, value in price.items() if value is not None}
    meta = {name: part for name, part in (("units", told), ("price", said)) if part}
    return {**fields, "meta": meta} if meta else fields


def _images(kwargs: _Kwargs, answer: Any) -> dict[str, Any]:
    """How many images came back, of what size and quality; how many were given and are billed."""
    data = member(answer, "data")
    fields = {"images": len(data)} if isinstance(data, Sized) else {}
    given = count(member(member(answer, HIDDEN), "billable_input_image_count"))
    return _told(
        fields,
        units={"input_images": given, "megapixels": sum(_megapixels(data))},
        size=_word(member(answer, "size"), kwargs.get("size"), _asked_size(kwargs)),
        quality=_word(member(answer, "quality"), kwargs.get("quality")),
        resolution=_word(kwargs.get("resolution"), member(kwargs.get("extra_body"), "resolution")),
        steps=count(kwargs.get("steps")),
    )


def _megapixels(data: Any) -> Iterator[int]:
    """The pixels of each image in 2²⁰, rounded up, as fal.ai bills them and tells their sizes."""
    for image in data if isinstance(data, list) else ():
        told = member(image, "provider_specific_fields")
        width, height = count(member(told, "width")), count(member(told, "height"))
        if width and height:
            yield ceil(min(width * height, MAX_INT) / _MEGAPIXEL)


def _asked_size(kwargs: _Kwargs) -> str | None:
    """A size as fal.ai and Azure take it: a name, or width and height."""
    asked = kwargs.get("image_size")
    if isinstance(asked, str):
        return _FAL_SIZES.get(asked)
    holder = asked if isinstance(asked, Mapping) else kwargs
    width, height = count(holder.get("width")), count(holder.get("height"))
    return f"{width}x{height}" if width and height else None


_FAL_SIZES: Final = {
    "landscape_16_9": "1024x576",
    "landscape_4_3": "1024x768",
    "portrait_16_9": "576x1024",
    "portrait_4_3": "768x1024",
    "square": "512x512",
    "square_hd": "1024x1024",
}
"""https://docs.fal.ai: the names of sizes."""


def _word(*values: Any) -> str | None:
    """The first that is a short text, or a number (a resolution may be one)."""
    for value in values:
        if type(value) is int and 0 < value <= MAX_INT:
            return str(value)
        if isinstance(value, str) and value and value != "auto" and len(value) <= _LONGEST:
            return str(value)
    return None


_LONGEST: Final = 32


def _audio_seconds(_kwargs: _Kwargs, answer: Any) -> dict[str, Any]:
    """How long the audio was: as billed, as the transcript says, or as LiteLLM measured it."""
    usage = member(answer, "usage")
    hidden = member(answer, HIDDEN)
    for value in (
        member(usage, "seconds"),
        member(answer, "duration"),
        member(hidden, "audio_transcription_duration"),
    ):
        if seconds := _amount(value):
            return {"audio_seconds": seconds}
    return {}


def _amount(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 < value <= MAX_INT else None


def _speech_characters(kwargs: _Kwargs, answer: Any) -> dict[str, Any]:
    """How many characters were to be read aloud, blanks too: as billed, else as given."""
    billed = member(member(answer, HIDDEN), "billed_characters")
    if type(billed) is int:
        return _whole("characters", billed)
    given = kwargs.get("input")
    return {"characters": len(given)} if isinstance(given, str) else {}


def _pages(_kwargs: _Kwargs, answer: Any) -> dict[str, Any]:
    """How many pages were read, how many of them annotated, and for how many credits."""
    usage = member(answer, "usage_info")
    return _told(
        _whole("pages", member(usage, "pages_processed")),
        units={
            "annotated_pages": count(member(usage, "pages_processed_annotation")),
            "credits": _amount(member(usage, "credits")),
        },
    )


def _search_units(_kwargs: _Kwargs, answer: Any) -> dict[str, Any]:
    """How many searches the provider bills for a ranking, or how many tokens."""
    billed = member(member(answer, "meta"), "billed_units")
    tokens = _whole("input_tokens", member(billed, "total_tokens"))
    found = _whole("search_units", member(billed, "search_units"))
    return {**found, **tokens, "usage_source": "provider"} if tokens.get("input_tokens") else found


def _whole(name: str, value: Any) -> dict[str, Any]:
    if type(value) is float and value.is_integer():
        value = int(value)
    return {name: value} if type(value) is int and 0 <= value <= MAX_INT else {}


def _embedded(_kwargs: _Kwargs, answer: Any) -> dict[str, Any]:
    """Images, seconds, characters and queries of an embedding that are billed apart."""
    details = member(member(answer, "usage"), "prompt_tokens_details")
    if details is None:
        return {}
    get = view(details).get
    fields: dict[str, Any] = {}
    if seconds := _amount(get("audio_length_seconds")):
        fields["audio_seconds"] = seconds
    if characters := count(get("character_count")):
        fields["characters"] = characters
    return _told(
        fields,
        units={
            "input_images": count(get("image_count")),
            "input_video_seconds": _amount(get("video_length_seconds")),
            "queries": count(get("query_count")),
        },
    )


def _video(kwargs: _Kwargs, answer: Any) -> dict[str, Any]:
    """How many seconds of video were made, at which resolution, from how many images."""
    get = view(member(answer, "usage") or {}).get
    made = count(get("video_count")) or 1
    length = _amount(get("duration_seconds")) or _amount(_number(member(answer, "seconds")))
    return _told(
        {},
        units={
            "input_images": count(get("billable_input_image_count")),
            "video_seconds": length and length * made,
        },
        resolution=_word(get("video_resolution"), kwargs.get("resolution")),
        size=_word(member(answer, "size"), kwargs.get("size")),
    )


def _number(value: Any) -> Any:
    """OpenAI says the seconds of a video as text."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _searches(kwargs: _Kwargs, _answer: Any) -> dict[str, Any]:
    """How many queries were asked, of which kind, and for how many results."""
    provider, query = kwargs.get("search_provider"), kwargs.get("query")
    queries = len(query) if isinstance(query, list) else 1
    results = count(kwargs.get("max_results"))
    units = {"queries": queries}
    if provider == "parallel_ai":  # one request, whatever it asks; ten results are part of it
        units = {"queries": 1, "additional_results": max(0, (results or 0) - 10)}
    asked = kwargs.get(_KIND_OF_SEARCH.get(provider, "")) if isinstance(provider, str) else None
    return _told({}, units=units, mode=_word(asked), max_results=results)


_KIND_OF_SEARCH: Final = {"linkup": "depth", "parallel_ai": "mode", "tavily": "search_depth"}
"""The argument that chooses among a provider's prices of a search."""


def _container(_kwargs: _Kwargs, _answer: Any) -> dict[str, Any]:
    """One session, billed when it begins."""
    return {"meta": {"tools": {"containers": 1}}}


def _training(_kwargs: _Kwargs, _answer: Any) -> dict[str, Any]:
    """Billed when it is done, by tokens that nobody knows yet."""
    return {"meta": {"unpriced": ["training"]}}


UNITS: Final[dict[str, Units]] = {
    "acreate_container": _container,
    "acreate_fine_tuning_job": _training,
    "aembedding": _embedded,
    "aimage_edit": _images,
    "aimage_generation": _images,
    "aimage_variation": _images,
    "aocr": _pages,
    "arerank": _search_units,
    "asearch": _searches,
    "aspeech": _speech_characters,
    "atranscription": _audio_seconds,
    "avideo_edit": _video,
    "avideo_extension": _video,
    "avideo_generation": _video,
    "avideo_remix": _video,
    "vector_stores.asearch": lambda _kwargs, _answer: {"meta": {"units": {"queries": 1}}},
}
"""By the name of the call; the others have none."""


def search_context(kwargs: _Kwargs) -> str | None:
    """The size of the context that web searches were asked to bring."""
    found = [member(kwargs.get("web_search_options"), "search_context_size")]
    tools = kwargs.get("tools")
    if isinstance(tools, list):
        found += [member(tool, "search_context_size") for tool in tools]
    return next((size for size in found if size in ("low", "medium", "high")), None)
