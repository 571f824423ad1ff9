"""The most that calls may cost which are billed by other units: images, seconds, pages, searches.

Owns what the arguments of such a call say of its units.  What only the answer tells, such as the
length of a recording, has no bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from math import ceil
from typing import Any, Final

from litellm_ledger._prices.entry import Entry, number
from litellm_ledger._prices.image_names import dimensions, image_size

from .bound import Asked, Bound, Unbounded, picousd
from .ceiling import atto, fee, highest
from .token_calls import given_tokens, made_tokens, priced_tokens
from .weight import Weight

__all__ = [
    "batch",
    "container",
    "decisions",
    "embedding",
    "extraction",
    "images",
    "input_alone",
    "nothing",
    "one_query",
    "pages",
    "ranking",
    "searches",
    "session",
    "speech",
    "training",
    "transcription",
    "unread",
    "video",
]


def nothing(_asked: Asked) -> Bound:
    """Asks about a job; its cost goes on record when it is done, and was held when it began."""
    return Bound(0, 0)


def _refuse(text: str) -> Callable[[Asked], Bound]:
    def refuse(_asked: Asked) -> Bound:
        raise Unbounded(text)

    return refuse


batch: Final = _refuse("what is in the file of a batch is not known here")
training: Final = _refuse("a training is billed by tokens that nobody knows before it ends")
session: Final = _refuse("a session has no end that is known when it begins")
unread: Final = _refuse("a request that is passed through is not read")


def _money(amount: int, tokens: int = 0) -> Bound:
    """A bound of 10⁻¹⁸ dollars."""
    fixed = picousd(amount)
    return Bound(fixed, tokens, fixed=fixed)


def _request(asked: Asked) -> int:
    entry = asked.entry.price("input_cost_per_request") if asked.model.own is None else None
    return atto(entry) if entry else 0


def _own(asked: Asked, name: str, count: Decimal | int, per: int = 1) -> Bound | None:
    """By the user's price of a unit, where there is one.

    Raises:
        Unbounded: the user's price has other units.
    """
    price = asked.model.own
    if price is None:
        return None
    unit, request = getattr(price, name), price.request
    if unit is None and (request is None or price.input is not None or price.output is not None):
        raise Unbounded(f"the price of {asked.model.name} in prices= has no {name}; give it one")
    amount = Decimal(0) if unit is None else Decimal(unit) * count / per
    return _money(atto(amount + Decimal(request or 0)))


def _largest(*bounds: Bound | None) -> Bound:
    """The largest of several ways to be billed."""
    known = [each for each in bounds if each is not None]
    for each in known:
        if each.usd is None:
            raise Unbounded(each.reason)
    return max(known, key=lambda each: (each.usd or 0, each.tokens or 0))


def _price(asked: Asked, *starts: str) -> int | None:
    return highest(asked.model.entries, *starts)


def _has_token_prices(entry: Entry) -> bool:
    return any("_token" in name and number(value) for name, value in entry.members.items())


def _count(asked: Asked, *names: str) -> int:
    """A whole number among the arguments, 1 where there is none."""
    most = 1
    for name in names:
        value = asked.kwargs.get(name)
        if value is None:
            continue
        if type(value) is not int or value < 0:
            raise Unbounded(f"{name}={value!r} is no whole number")
        most = max(most, value)
    return most


def _given_pieces(asked: Asked, *names: str) -> int:
    """How many files, images or texts an argument holds."""
    found = 0
    for name in names:
        value = asked.kwargs.get(name)
        if value is not None:
            found += len(value) if isinstance(value, (list, tuple)) else 1
    return found


# --- Tokens of input, with nothing written ------------------------------------------------------


def input_alone(asked: Asked) -> Bound:
    """Moderation and its like: no token is written."""
    given, kinds, fixed = given_tokens(asked)
    return priced_tokens(asked, given, 0, kinds, fixed)


def extraction(asked: Asked) -> Bound:
    """Extraction: the input, and what the model may write."""
    given, kinds, fixed = given_tokens(asked)
    made = asked.model.most_out
    if made is None and not _free_output(asked):
        made = made_tokens(asked)
    return priced_tokens(asked, given, made or 0, kinds, fixed)


def _free_output(asked: Asked) -> bool:
    """Whether what is written costs nothing: then it needs no limit for money."""
    own = asked.model.own
    if own is not None:
        return own.output is None
    return not any(
        "output" in name and number(value) for name, value in asked.entry.members.items()
    )


def decisions(asked: Asked) -> Bound:
    """Decisions: by the query, else by tokens."""
    if asked.model.own is None and (price := _price(asked, "input_cost_per_query")):
        return _money(price + _request(asked))
    return extraction(asked)


def embedding(asked: Asked) -> Bound:
    """Texts by tokens or characters; images each; what has a length is not known."""
    given, kinds, fixed = given_tokens(asked)
    weight = Weight()
    weight.read(asked.kwargs.get("input"))
    if asked.model.own is not None:
        return priced_tokens(asked, given, 0, kinds, fixed)
    entry, extra = asked.entry, 0
    timed = [name for name in entry.members if "per_second" in name]
    pieces = max(weight.items, weight.images)
    if not _is_text(asked.kwargs.get("input")):
        if timed:
            raise Unbounded(f"the length of what is given to {asked.model.name} is not known")
        extra = pieces * (_price(asked, "input_cost_per_image") or 0)
    queries = pieces * (_price(asked, "input_cost_per_query") or 0)
    characters = weight.characters * (_price(asked, "input_cost_per_character") or 0)
    amount = characters + extra + queries + fixed + _request(asked)
    by_token = entry.price("input_cost_per_token") is not None
    if by_token:
        return priced_tokens(asked, given, 0, kinds, amount)
    if not amount and not any(number(value) == 0 for value in entry.members.values()):
        raise Unbounded(f"{asked.model.name} has no price for its input")
    return _money(amount, given)


def _is_text(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return all(
        type(text) is int
        or (isinstance(text, list) and all(type(each) is int for each in text))
        or (
            isinstance(text, str)
            and not text.startswith(("data:", "gs://", "http://", "https://", "s3://"))
            and not (len(text) > _LONGEST_WORD and " " not in text)
        )
        for text in texts
    )


_LONGEST_WORD: Final = 2_000
"""Longer texts without a blank may be an image in base64."""


def ranking(asked: Asked) -> Bound:
    """Rankings: by the search of at most 100 documents of 500 tokens, or by tokens."""
    documents = asked.kwargs.get("documents")
    pieces = len(documents) if isinstance(documents, (list, tuple)) else 1
    query, each = Weight(), Weight()
    query.add_plain(asked.kwargs.get("query"))
    each.add_plain(documents)
    if each.images or each.unknown:
        raise Unbounded(each.unknown or "the size of an image is not known")
    chunks = pieces + each.tokens // _CHUNK
    units = ceil(chunks / 100) + 1
    tokens = each.tokens + (pieces + 1) * query.tokens
    if (own := asked.model.own) is not None:
        if own.search_unit is not None:
            return _largest(_own(asked, "search_unit", units))
        return priced_tokens(asked, tokens, 0, frozenset())
    query_price = _price(asked, "input_cost_per_query")
    by_search = None if query_price is None else _money(units * query_price + _request(asked))
    by_token = None
    if asked.entry.price("input_cost_per_token") is not None:
        by_token = priced_tokens(asked, tokens, 0, frozenset())
    if by_search is None and by_token is None:
        raise Unbounded(f"{asked.model.name} has no price for a search or a token")
    found = _largest(by_search, by_token)
    return found._replace(tokens=tokens)


_CHUNK: Final = 250
"""Bytes of a document that count as one at least: Cohere's has 500 tokens with the query's
(https://docs.cohere.com/docs/rerank-overview)."""


# --- Images -------------------------------------------------------------------------------------

_IMAGE_TOKENS: Final = {"gpt-image-1": 6_240, "gpt-image-1-mini": 6_240}
"""Tokens of one image of the highest quality
(https://platform.openai.com/docs/guides/image-generation)."""
_PARTIAL: Final = 100
_GIVEN: Final = 7_000
"""Tokens of an image that is edited with high fidelity: 6,240, and 129 for each of its tiles."""
_MEGAPIXEL: Final = 1_048_576


def images(asked: Asked) -> Bound:
    """Images: each, by its pixels or by its tokens: the highest that may be."""
    count = _count(asked, "n", "num_images", "number_of_images", "samples", "sampleCount")
    pieces = _given_pieces(asked, "image", "images", "mask", "image_url")
    if asked.model.own is not None:
        own = asked.model.own
        if own.image is not None:
            return _largest(_own(asked, "image", count))
        if own.input is None and own.output is None:
            return _largest(_own(asked, "image", count))
        return _image_tokens(asked, count, pieces)
    entry = asked.entry
    each = _price(asked, "output_cost_per_image")
    if each is None:
        each = _price(asked, "input_cost_per_image")
    entering = pieces * (_price(asked, "input_cost_per_image") or 0)
    found = [] if each is None else [_money(each * count + entering + _request(asked))]
    pixels = [
        price
        for every in asked.model.entries
        for name in ("output_cost_per_pixel", "input_cost_per_pixel")
        if (price := every.price(name)) is not None
    ]
    if pixels:
        found.append(_money(atto(max(pixels)) * _pixels(asked) * count + _request(asked)))
    if _has_token_prices(entry):
        found.append(_image_tokens(asked, count, pieces))
    if not found:
        raise Unbounded(f"{asked.model.name} has no price for an image")
    return _largest(*found)


def _image_tokens(asked: Asked, count: int, pieces: int) -> Bound:
    name = asked.model.name.rpartition("/")[2]
    each = _IMAGE_TOKENS.get(name, asked.model.most_out)
    if each is None:
        raise Unbounded(f"how many tokens an image of {asked.model.name} has is not known")
    partial = _PARTIAL * _count(asked, "partial_images")
    weight = Weight()
    weight.read(asked.kwargs.get("prompt"))
    given = weight.tokens
    if pieces:
        if name not in _IMAGE_TOKENS and asked.model.most_in is None:
            raise Unbounded("how many tokens an image that is given has is not known")
        given += pieces * _GIVEN if name in _IMAGE_TOKENS else asked.model.most_in or 0
    return priced_tokens(asked, given, (each + partial) * count, frozenset({"image"}))


def _pixels(asked: Asked) -> int:
    """The pixels of an image at most, in whole 2²⁰, as fal.ai bills them."""
    told = asked.kwargs.get("image_size")
    holder = told if isinstance(told, Mapping) else asked.kwargs
    width, height = holder.get("width"), holder.get("height")
    sides = [
        *(size for entry in asked.model.entries if (size := image_size(entry.key))),
        *(size for text in (asked.kwargs.get("size"), told) if (size := dimensions(text))),
    ]
    if type(width) is int and type(height) is int:
        sides.append((width, height))
    if not sides:
        raise Unbounded("an image is billed by its pixels; give the call a size")
    return max(ceil(wide * high / _MEGAPIXEL) for wide, high in sides) * _MEGAPIXEL


# --- Audio and video ----------------------------------------------------------------------------


def speech(asked: Asked) -> Bound:
    """Text that is read aloud: by the character, by the clip, or by tokens."""
    text = asked.kwargs.get("input")
    if not isinstance(text, str):
        raise Unbounded("input is no text")
    count = len(text.encode("utf-8", "surrogatepass"))
    own = asked.model.own
    if own is not None and (own.character is not None or own.input is None):
        return _largest(_own(asked, "character", count, own.per))
    if own is None:
        found = []
        if price := _price(asked, "input_cost_per_character"):
            found.append(_money(price * count + _request(asked)))
        if price := _price(asked, "output_cost_per_image"):
            found.append(_money(price + _request(asked)))
        if found:
            return _largest(*found)
        if not _has_token_prices(asked.entry) and any(
            "cost" in name and number(value) for name, value in asked.entry.members.items()
        ):
            raise Unbounded(f"the length of what {asked.model.name} says is not known")
    given, kinds, fixed = given_tokens(asked)
    if asked.model.most_out is None and not _free_output(asked):
        raise Unbounded(f"the length of what {asked.model.name} says is not known")
    return priced_tokens(asked, given, asked.model.most_out or 0, kinds, fixed)


def transcription(asked: Asked) -> Bound:
    """Speech to text: how long the recording is only the provider knows."""
    own = asked.model.own
    if own is not None and own.audio_second is None and own.input is None and own.output is None:
        return _largest(_own(asked, "audio_second", 0))
    if own is None and not any(
        number(value) for name, value in asked.entry.members.items() if "cost" in name
    ):
        return Bound(0, None)
    raise Unbounded("the length of a recording is not known before it was heard")


_SECONDS: Final = ("seconds", "duration", "duration_seconds", "durationSeconds")


def video(asked: Asked) -> Bound:
    """Video: by the second at the highest resolution."""
    if asked.model.own is not None:
        return _largest(_own(asked, "audio_second", 0))
    price = _price(asked, "output_cost_per_second", "output_cost_per_video_per_second")
    if price is None:
        raise Unbounded(f"{asked.model.name} has no price for a second of video")
    lengths = [
        length
        for name in _SECONDS
        if (value := asked.kwargs.get(name)) is not None
        if (length := number(str(value) if isinstance(value, float) else value)) is not None
    ]
    if not lengths:
        raise Unbounded("a video is billed by the second; give the call seconds")
    count = _count(asked, "n", "sampleCount", "sample_count", "number_of_videos")
    pieces = _given_pieces(asked, "input_reference", "image", "images", "reference_images")
    amount = int(price * max(lengths)) + 1
    entering = pieces * (_price(asked, "input_cost_per_image") or 0)
    return _money(amount * count + entering + _request(asked))


# --- Pages, searches and the rest ---------------------------------------------------------------


def pages(asked: Asked) -> Bound:
    """Pages that are read: those that the call names, or the one of an image."""
    named, document = asked.kwargs.get("pages"), asked.kwargs.get("document")
    if isinstance(named, (list, tuple)):
        count = len(named)
    elif isinstance(document, Mapping) and document.get("type") == "image_url":
        count = 1
    else:
        raise Unbounded("how many pages a document has is not known; give the call pages")
    if asked.model.own is not None:
        return _largest(_own(asked, "page", count))
    if "ocr_cost_per_credit" in asked.entry.members:
        raise Unbounded(f"how many credits a page of {asked.model.name} takes is not known")
    page, note = _price(asked, "ocr_cost_per_page"), _price(asked, "annotation_cost_per_page")
    if page is None:
        raise Unbounded(f"{asked.model.name} has no price for a page")
    return _money(count * (page + (page if note is None else note)) + _request(asked))


def searches(asked: Asked) -> Bound:
    """Searches: each query at the price of as many results as may be."""
    query = asked.kwargs.get("query")
    count = len(query) if isinstance(query, list) else 1
    if asked.model.own is not None:
        return _largest(_own(asked, "search_unit", count))
    prices = [
        price
        for entry in asked.model.entries
        for price in (entry.price("input_cost_per_query"), *_tiers(entry))
        if price is not None
    ]
    if not prices:
        raise Unbounded(f"{asked.entry.key} has no price for a query")
    results = asked.kwargs.get("max_results")
    extra = max(0, results - 10) if type(results) is int else 0
    more = max((fee(entry, "additional_result_cost") or 0) for entry in asked.model.entries)
    return _money(atto(max(prices)) * count + extra * more + _request(asked))


def _tiers(entry: Entry) -> list[Decimal | None]:
    tiers = entry.members.get("tiered_pricing")
    found = tiers if isinstance(tiers, list) else []
    return [number(tier.get("input_cost_per_query")) for tier in found if isinstance(tier, dict)]


def one_query(asked: Asked) -> Bound:
    """One query of a vector store."""
    if asked.model.own is not None:
        return _largest(_own(asked, "search_unit", 1))
    price = _price(asked, "input_cost_per_query")
    if price is None:
        raise Unbounded(f"{asked.entry.key} has no price for a query")
    return _money(price + _request(asked))


def container(asked: Asked) -> Bound:
    """One session of a code interpreter."""
    if asked.model.own is not None:
        return _largest(_own(asked, "container", 1))
    price = fee(asked.entry, "code_interpreter_cost_per_session")
    if price is None:
        raise Unbounded(f"{asked.entry.key} has no price for a container")
    return _money(price + _request(asked))
