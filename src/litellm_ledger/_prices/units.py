"""Units that are billed in place of tokens: images, seconds, characters, pages, searches, video.

Owns the rule that tells which calls those are, and their terms.  The kind of call decides; a
record without one goes by the entry's ``mode``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from .bill import Bill
from .entry import number
from .fees import default_fee, provider_of
from .image_names import dimensions, image_size

__all__ = ["UNIT_CALLS", "charge_units"]


def charge_units(bill: Bill) -> bool:
    """Add the terms of such units; tell whether they stand for the tokens of the call as well."""
    kind = _OF_CALL.get(bill.conditions.get("call") or "", "")
    if kind == "":
        mode = bill.entry.members.get("mode")
        kind = mode if isinstance(mode, str) else None
    rule = _RULES.get(kind) if kind else None
    return rule is not None and rule(bill)


def _prices_tokens(bill: Bill) -> bool:
    """Whether the entry has a price above 0 for a token, and tokens were counted."""
    used = bill.used
    if not (used.get("input_tokens") or used.get("output_tokens")):
        return False
    return _has_token_prices(bill.entry.members)


def _has_token_prices(members: Mapping[str, Any]) -> bool:
    return any("_token" in name and number(value) for name, value in members.items())


def _first(bill: Bill, *names: str) -> tuple[str, Decimal | None]:
    """The first of the names that the entry has a price under, one above 0 before one of 0."""
    prices = [(name, bill.entry.price(name)) for name in names]
    known = [(name, price) for name, price in prices if price is not None]
    return next(((name, price) for name, price in known if price), (known or prices)[0])


def _charge_first(bill: Bill, quantity: str, unit: str, *names: str) -> bool:
    """Charge a quantity by the first of the names; tell whether the entry has any of them.

    A quantity that is not on the record is missing, unless it is free.
    """
    name, price = _first(bill, *names)
    if price and quantity not in bill.used:
        bill.lack(quantity)
    elif price is not None:
        bill.charge(name, bill.used.get(quantity, 0), unit)
    return price is not None


def _lacks(bill: Bill, name: str) -> bool:
    """Put down what nothing prices; the entry of a model that is free has prices of 0."""
    priced = [
        number(value)
        for key, value in bill.entry.members.items()
        if "cost" in key and type(value) is not dict
    ]
    if any(priced) or not priced:
        bill.lack(name)
    return True


# --- Images ------------------------------------------------------------------------------------

_MEGAPIXEL: Final = 1_048_576


def _images(bill: Bill) -> bool:
    """Images: by their tokens where those are priced and known, else each, else by its pixels."""
    if _prices_tokens(bill):
        return False
    entry, used = bill.entry, bill.used
    name = _by_resolution(bill)
    if name is None and "megapixels" in used and entry.price("output_cost_per_pixel"):
        pixels = used["megapixels"] * _MEGAPIXEL
        bill.charge("output_cost_per_pixel", pixels, "pixel")
        return True
    if name is None and entry.price("output_cost_per_image") is not None:
        name = "output_cost_per_image"
    if name is not None:
        _charge_first(bill, "images", "image", name)
        bill.charge("input_cost_per_image", used.get("input_images", 0), "input image")
        return True
    # Where there is no price of an image that is made, the map has it under "input".
    return (
        _charge_first(bill, "images", "image", "input_cost_per_image")
        or _charge_pixels(bill)
        or _lacks(bill, "output_cost_per_image")
    )


def _charge_pixels(bill: Bill) -> bool:
    """The pixels of all images, by the size in the entry's name, else the one asked for."""
    name, price = _first(bill, "output_cost_per_pixel", "input_cost_per_pixel")
    if price is None:
        return False
    size = image_size(bill.entry.key) or dimensions(bill.conditions.get("size"))
    images = bill.used.get("images")
    if size is None or images is None:
        bill.lack("images" if size else "size")
    else:
        bill.charge(name, size[0] * size[1] * images, "pixel")
    return True


def _by_resolution(bill: Bill) -> str | None:
    """The name of the price of an image at the resolution that was asked for."""
    said, conditions = bill.conditions.get("resolution"), bill.conditions
    if provider_of(conditions, bill.entry.members) == "xai":
        # xAI's prices by resolution are those of low quality, which an edit has only if asked.
        quality = conditions.get("quality") or "auto"
        if quality != "low" and (quality != "auto" or conditions.get("call") == "aimage_edit"):
            return None
        said = said or "1k"
    if said is None:
        return None
    for text in (str(said), str(said).upper()):
        name = f"output_cost_per_image_{text}"
        if bill.entry.price(name) is not None:
            return name
    return None


# --- Audio and video ---------------------------------------------------------------------------


def _transcription(bill: Bill) -> bool:
    """Speech to text: by tokens where those are priced and known, else by the second.

    The map has the price of a second under ``output``, under ``input``, or the same under both.
    """
    if _prices_tokens(bill):
        return False
    names = ("output_cost_per_second", "input_cost_per_second")
    return _charge_first(bill, "audio_seconds", "second", *names) or _lacks(bill, names[1])


def _speech(bill: Bill) -> bool:
    """Text to speech: by the character, by the piece (music), else by tokens."""
    if _charge_first(bill, "characters", "character", "input_cost_per_character"):
        return True
    if bill.entry.price("output_cost_per_image"):
        bill.charge("output_cost_per_image", 1, "clip")
        return True
    return not _prices_tokens(bill) and _lacks(bill, "input_cost_per_character")


def _video(bill: Bill) -> bool:
    """Video: by the second, at its resolution if that has a price; images given to it apart."""
    said = bill.conditions.get("resolution")
    names = ["output_cost_per_video_per_second"]
    if isinstance(said, str):
        names.append("output_cost_per_second_" + said.strip().lower())
    names.append("output_cost_per_second")
    if not _charge_first(bill, "video_seconds", "second", *names):
        _lacks(bill, names[-1])
    bill.charge("input_cost_per_image", bill.used.get("input_images", 0), "input image")
    return True


def _realtime(bill: Bill) -> bool:
    """Sessions billed by the second of audio or by the message, where no token has a price."""
    if _has_token_prices(bill.entry.members):
        return False
    messages = bill.used.get("text_messages", 0)
    bill.charge("input_cost_per_text_message", messages, "message")
    if not messages or "audio_seconds" in bill.used:
        return _charge_first(bill, "audio_seconds", "second", "input_cost_per_second")
    return True


# --- Pages, searches and the rest --------------------------------------------------------------


def _rerank(bill: Bill) -> bool:
    """Ranking: by the search unit, else by tokens."""
    if _prices_tokens(bill):
        return False
    if bill.entry.price("input_cost_per_query"):
        return _charge_first(bill, "search_units", "search", "input_cost_per_query")
    return _lacks(bill, "input_tokens")


def _ocr(bill: Bill) -> bool:
    """Pages read: by the credit where the answer counts those, else by the page.

    A page that is annotated as well has a price of its own, by default that of a page.
    """
    used, entry = bill.used, bill.entry
    if "credits" in used and entry.price("ocr_cost_per_credit") is not None:
        bill.charge("ocr_cost_per_credit", used["credits"], "credit")
        return True
    batch = "_batches" if bill.conditions.get("batch") else ""
    page, note = f"ocr_cost_per_page{batch}", f"annotation_cost_per_page{batch}"
    if batch and entry.price(page) is None:
        page = "ocr_cost_per_page"
    annotated = used.get("annotated_pages", 0)
    if entry.price(note) is None:
        note = page
    if entry.price(page) is None:
        return _lacks(bill, "credits" if "ocr_cost_per_credit" in entry.members else page)
    if "pages" in used or not annotated:
        _charge_first(bill, "pages", "page", page)
    bill.charge(note, annotated, "annotated page")
    return True


_RESULTS: Final = 10
"""What a search brings where nobody said how many results."""


def _search(bill: Bill) -> bool:
    """Searches: each query, by the number of results that were asked for where that matters."""
    queries, wanted = bill.used.get("queries", 1), bill.conditions.get("max_results")
    wanted = wanted if type(wanted) is int else _RESULTS
    tiers = bill.entry.members.get("tiered_pricing")
    if type(tiers) is list and tiers:
        price = _tier(tiers, wanted)
        bill.charge("tiered_pricing.input_cost_per_query", queries, "query", price=price)
    else:
        bill.charge("input_cost_per_query", queries, "query")
    extra = bill.used.get("additional_results", 0)
    bill.charge("additional_result_cost", extra, "result", price=default_fee(bill, _EXTRA))
    return True


_EXTRA: Final = "additional_result_cost"


def _tier(tiers: list[Any], wanted: int) -> Decimal | None:
    """The price of the tier for this number of results; beyond all of them, of the last."""
    for tier in tiers:
        bounds = tier.get("max_results_range") if type(tier) is dict else None
        if type(bounds) is list and len(bounds) == 2:
            least, most = map(number, bounds)
            if least is not None and most is not None and least <= wanted <= most:
                return number(tier.get("input_cost_per_query"))
    return number(tiers[-1].get("input_cost_per_query")) if type(tiers[-1]) is dict else None


def _query(bill: Bill) -> bool:
    """One query of a vector store, or one decision, where that is what is billed."""
    if bill.entry.price("input_cost_per_query"):
        bill.charge("input_cost_per_query", bill.used.get("queries", 1), "query")
        return True
    return False


def _moderation(bill: Bill) -> bool:
    """Moderation: by tokens, or free; no answer counts tokens that are free."""
    return not _prices_tokens(bill) and _lacks(bill, "input_tokens")


def _guardrail(bill: Bill) -> bool:
    """Units of each policy that was applied."""
    prices = bill.entry.members.get("guardrail_cost_per_unit")
    prices = prices if type(prices) is dict else {}
    counted = [name for name in prices if name in bill.used]
    for name in counted:
        full = f"guardrail_cost_per_unit.{name}"
        bill.charge(full, bill.used[name], "unit", price=number(prices[name]))
    return bool(counted) or _lacks(bill, "guardrail_cost_per_unit")


def _embedding(bill: Bill) -> bool:
    """Images, seconds and queries that are billed each; characters stand for the text's tokens."""
    charged = [
        (name, unit, bill.used[quantity])
        for quantity, unit, name in _EMBEDDED
        if quantity in bill.used and bill.entry.price(name) is not None
    ]
    for name, unit, count in charged:
        bill.charge(name, count, unit)
    return any(unit == "character" for _, unit, _ in charged) or bool(
        charged and bill.entry.price("input_cost_per_token") is None
    )


_EMBEDDED: Final = (
    ("characters", "character", "input_cost_per_character"),
    ("input_images", "input image", "input_cost_per_image"),
    ("input_video_seconds", "second", "input_cost_per_video_per_second"),
    ("audio_seconds", "second", "input_cost_per_audio_per_second"),
    ("queries", "query", "input_cost_per_query"),
)

_RULES: Final[dict[str, Callable[[Bill], bool]]] = {
    "audio_speech": _speech,
    "audio_transcription": _transcription,
    "decisions": _query,
    "embedding": _embedding,
    "evaluation": _query,
    "guardrail": _guardrail,
    "image_edit": _images,
    "image_generation": _images,
    "moderation": _moderation,
    "ocr": _ocr,
    "realtime": _realtime,
    "rerank": _rerank,
    "search": _search,
    "vector_store": _query,
    "video_generation": _video,
}

_OF_CALL: Final[dict[str, str | None]] = {
    "acompletion": None,
    "aembedding": "embedding",
    "aimage_edit": "image_edit",
    "aimage_generation": "image_generation",
    "aimage_variation": "image_edit",
    "amoderation": "moderation",
    "anthropic_messages": None,
    "aocr": "ocr",
    "arerank": "rerank",
    "aresponses": None,
    "asearch": "search",
    "aspeech": "audio_speech",
    "atext_completion": None,
    "atranscription": "audio_transcription",
    "avideo_edit": "video_generation",
    "avideo_extension": "video_generation",
    "avideo_generation": "video_generation",
    "avideo_remix": "video_generation",
    "vector_stores.asearch": "vector_store",
}
"""The mode whose units a kind of call is billed by; ``None``: tokens alone."""

UNIT_CALLS: Final = frozenset(
    call for call, mode in _OF_CALL.items() if mode not in (None, "embedding")
)
"""Calls that are billed by such units, or by tokens and such units."""
