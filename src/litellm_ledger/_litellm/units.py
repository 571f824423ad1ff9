"""What a call used that is not counted in tokens.

Owns the reading of images, seconds, characters, pages and search units from arguments and answers.
Pure; what cannot be read is left out, and what is left out is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

from litellm_ledger._records.record import MAX_INT

from .outcome import member

__all__ = ["audio_seconds", "images", "pages", "search_units", "speech_characters"]


def images(_kwargs: Mapping[str, Any], answer: Any) -> dict[str, Any]:
    """How many images came back."""
    data = member(answer, "data")
    return {"images": len(data)} if isinstance(data, Sized) else {}


def audio_seconds(_kwargs: Mapping[str, Any], answer: Any) -> dict[str, Any]:
    """How long the audio was: as billed, as the transcript says, or as LiteLLM measured it."""
    usage = member(answer, "usage")
    hidden = member(answer, "_hidden_params")
    for value in (
        member(usage, "seconds"),
        member(answer, "duration"),
        member(hidden, "audio_transcription_duration"),
    ):
        if type(value) in (int, float) and 0 < value <= MAX_INT:
            return {"audio_seconds": float(value)}
    return {}


def speech_characters(kwargs: Mapping[str, Any], answer: Any) -> dict[str, Any]:
    """How many characters were to be read aloud, blanks too: as billed, else as given."""
    billed = member(member(answer, "_hidden_params"), "billed_characters")
    if type(billed) is int:
        return _whole("characters", billed)
    text = kwargs.get("input")
    return {"characters": len(text)} if isinstance(text, str) else {}


def pages(_kwargs: Mapping[str, Any], answer: Any) -> dict[str, Any]:
    """How many pages were read."""
    return _whole("pages", member(member(answer, "usage_info"), "pages_processed"))


def search_units(_kwargs: Mapping[str, Any], answer: Any) -> dict[str, Any]:
    """How many searches the provider bills."""
    billed = member(member(answer, "meta"), "billed_units")
    return _whole("search_units", member(billed, "search_units"))


def _whole(name: str, value: Any) -> dict[str, Any]:
    if type(value) is float and value.is_integer():
        value = int(value)
    return {name: value} if type(value) is int and 0 <= value <= MAX_INT else {}
