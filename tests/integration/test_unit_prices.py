"""What is no token costs what LiteLLM says, on the whole map, to the picodollar; or a rule of this
file says why not.

Every entry of the installed map that is no chat model is priced twice: by LiteLLM, from an answer
as its provider gives it, and by us, from the record of that answer and the entry's text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import litellm
import pytest
from litellm.types.llms.openai import HttpxBinaryResponseContent
from litellm.types.rerank import RerankResponse
from litellm.types.utils import ImageObject, ImageResponse, TranscriptionResponse

from litellm_ledger._litellm.entries import entry_of
from litellm_ledger._litellm.unit_entries import unit_entry
from litellm_ledger._prices.price import Priced, price
from litellm_ledger._prices.quantities import conditions, used
from litellm_ledger._prices.units import UNIT_CALLS
from litellm_ledger._records.money import from_litellm, picousd, usd

IMAGES, SECONDS, PAGES, NOTES, UNITS, TOKENS = 3, 97.5, 7, 2, 5, 1_009
TEXT = "Thirteen words are read aloud here, and the blanks between them are billed too."


class Case(NamedTuple):
    """One answer: as a record has it, and how LiteLLM prices it."""

    key: str
    name: str
    model: str
    provider: str
    entry: Mapping[str, Any]
    fields: dict[str, Any]
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.key}: {self.name}"


Answer = tuple[str, str, dict[str, Any], dict[str, Any]]
"""Name, model, the record's fields, and the arguments of LiteLLM's ``completion_cost``."""


@cache
def price_map() -> dict[str, dict[str, Any]]:
    path = Path(litellm.__file__).parent / "model_prices_and_context_window_backup.json"
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    del found["sample_spec"]
    return found


# -- answers --------------------------------------------------------------------------------------


def images(n: int = IMAGES, **more: Any) -> ImageResponse:
    return ImageResponse(data=[ImageObject(url="https://x")] * n, **more)


SIZED = re.compile(
    r"(?:(?P<first>[a-z_]+)/)?(?:(?P<quality>hd|high|low|medium|standard)/)?(?P<size>\d+-x-\d+)/"
    r"(?:(?P<steps>50|max)-steps/)?(?P<model>.+)"
)


def image_cases(key: str, entry: Mapping[str, Any], provider: str) -> Iterator[Answer]:
    call = "aimage_edit" if entry["mode"] == "image_edit" else "aimage_generation"
    model, said = key, {}
    if found := SIZED.fullmatch(key):
        said = {"size": found["size"].replace("-x-", "x")}
        model = found["model"]
        if found["quality"]:
            said["quality"] = found["quality"]
        if found["first"]:
            model = f"{found['first']}/{model}" if found["first"] == provider else key
    elif "cost_per_pixel" in "".join(entry):
        said = {"size": "1024x1536"}
    options: dict[str, Any] = dict(said)
    if provider == "fal_ai":  # there they are in the request
        options = {"optional_params": fal(said)}
    if provider == "bedrock":
        steps = {"steps": 60 if found and found["steps"] == "max" else 30}
        said = {**said, **steps}
        size = options.get("size", "1024x1024").replace("x", "-x-")
        options = {"size": size, "optional_params": steps}
    yield (
        "images",
        model,
        record(call, provider, images=IMAGES, price=said),
        {"completion_response": images(), "call_type": call, **options},
    )
    for name in entry:
        if name.startswith("output_cost_per_image_") and "token" not in name:
            resolution = name.removeprefix("output_cost_per_image_")
            resolution = resolution.lower() if provider == "xai" else resolution
            asked = {"resolution": resolution}
            yield (
                f"images at {resolution}",
                model,
                record(call, provider, images=IMAGES, price=asked),
                {"completion_response": images(), "call_type": call, "optional_params": asked},
            )
    if "token" in "".join(entry):
        usage = {
            "input_tokens": 1_009,
            "input_tokens_details": {"image_tokens": 907, "text_tokens": 102},
            "output_tokens": 4_001,
            "total_tokens": 5_010,
        }
        tokens = {"image_input": 907, "image_output": 4_001}
        yield (
            "image tokens",
            model,
            record(
                call,
                provider,
                images=IMAGES,
                input_tokens=1_009,
                output_tokens=4_001,
                tokens=tokens,
                price=said,
            ),
            {"completion_response": images(usage=usage), "call_type": call, **options},
        )


def fal(said: Mapping[str, Any]) -> dict[str, Any]:
    asked = {name: value for name, value in said.items() if name == "quality"}
    if "size" in said:
        width, height = map(int, said["size"].split("x"))
        asked["image_size"] = {"width": width, "height": height}
    return asked


def record(
    call: str,
    provider: str,
    *,
    tokens: Mapping[str, Any] | None = None,
    units: Mapping[str, Any] | None = None,
    price: Mapping[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    meta = {"tokens": dict(tokens or {}), "units": dict(units or {}), "price": dict(price or {})}
    return {"call": call, "provider": provider, "meta": meta, **fields}


def transcription_cases(key: str, entry: Mapping[str, Any], provider: str) -> Iterator[Answer]:
    answer = TranscriptionResponse(text="x")
    answer._hidden_params = {"audio_transcription_duration": SECONDS}
    yield (
        "seconds",
        key,
        record("atranscription", provider, audio_seconds=SECONDS),
        {"completion_response": answer, "call_type": "atranscription"},
    )
    if "token" in "".join(entry):
        usage = {
            "type": "tokens",
            "input_tokens": 1_009,
            "output_tokens": 211,
            "total_tokens": 1_220,
            "input_token_details": {"audio_tokens": 907, "text_tokens": 102},
        }
        answer = TranscriptionResponse(text="x")
        answer.usage = usage
        answer._hidden_params = {"audio_transcription_duration": SECONDS}
        yield (
            "tokens",
            key,
            record(
                "atranscription",
                provider,
                audio_seconds=SECONDS,
                input_tokens=1_009,
                output_tokens=211,
                tokens={"audio_input": 907},
            ),
            {"completion_response": answer, "call_type": "atranscription"},
        )


def speech_cases(key: str, entry: Mapping[str, Any], provider: str) -> Iterator[Answer]:
    characters = len(TEXT)
    answer = HttpxBinaryResponseContent(httpx.Response(200, content=b"x"))
    answer._hidden_params = {}
    yield (
        "characters",
        key,
        record("aspeech", provider, characters=characters),
        {"completion_response": answer, "prompt": TEXT, "call_type": "aspeech"},
    )
    if "input_cost_per_token" in entry:
        answer = HttpxBinaryResponseContent(httpx.Response(200, content=b"x"))
        answer._hidden_params = {}
        answer.usage = litellm.Usage(
            prompt_tokens=101,
            completion_tokens=907,
            total_tokens=1_008,
            completion_tokens_details={"audio_tokens": 907, "text_tokens": 0},
        )
        yield (
            "tokens",
            key,
            record(
                "aspeech",
                provider,
                characters=characters,
                input_tokens=101,
                output_tokens=907,
                tokens={"audio_output": 907},
            ),
            {"completion_response": answer, "prompt": TEXT, "call_type": "aspeech"},
        )


def video_cases(key: str, entry: Mapping[str, Any], provider: str) -> Iterator[Answer]:
    from litellm.types.videos.main import VideoObject

    resolutions = [
        name.removeprefix("output_cost_per_second_")
        for name in entry
        if name.startswith("output_cost_per_second_")
    ]
    for resolution in [None, "360p", *resolutions]:
        usage: dict[str, Any] = {"duration_seconds": 8.0}
        units: dict[str, Any] = {"video_seconds": 8.0}
        asked = {}
        if resolution:
            usage["video_resolution"] = asked["resolution"] = resolution
        if "input_cost_per_image" in entry and resolution:
            usage["billable_input_image_count"] = units["input_images"] = 2
        answer = VideoObject(id="v", object="video", status="completed", usage=usage)
        yield (
            f"video at {resolution}",
            key,
            record("avideo_generation", provider, units=units, price=asked),
            {"completion_response": answer, "call_type": "acreate_video"},
        )


def rerank_cases(key: str, entry: Mapping[str, Any], provider: str) -> Iterator[Answer]:
    for name, billed, fields in (
        ("search units", {"search_units": UNITS}, {"search_units": UNITS}),
        ("tokens", {"total_tokens": TOKENS}, {"input_tokens": TOKENS}),
    ):
        answer = RerankResponse(id="r", results=[], meta={"billed_units": billed})
        yield (
            name,
            key,
            record("arerank", provider, **fields),
            {"completion_response": answer, "call_type": "arerank"},
        )


def ocr_cases(key: str, entry: Mapping[str, Any], provider: str) -> Iterator[Answer]:
    from litellm.llms.base_llm.ocr.transformation import OCRResponse, OCRUsageInfo

    for name, info in (
        ("pages", {"pages_processed": PAGES}),
        ("annotated pages", {"pages_processed": PAGES, "pages_processed_annotation": NOTES}),
        ("credits", {"pages_processed": PAGES, "credits": 2.5}),
    ):
        units = {
            ours: info[theirs]
            for ours, theirs in (
                ("annotated_pages", "pages_processed_annotation"),
                ("credits",) * 2,
            )
            if theirs in info
        }
        answer = OCRResponse(pages=[], model=key, usage_info=OCRUsageInfo(**info))
        yield (
            name,
            key,
            record("aocr", provider, pages=PAGES, units=units),
            {"completion_response": answer, "call_type": "aocr"},
        )


COUNTED_BESIDE_PAGES = {"annotated_pages": "pages_processed_annotation", "credits": "credits"}


def search_cases(key: str, entry: Mapping[str, Any], provider: str) -> Iterator[Answer]:
    for queries, results in ((1, None), (3, None), (1, 26), (1, 1_000)):
        asked: dict[str, Any] = {"query": "q" if queries == 1 else ["q"] * queries}
        said = {}
        if results:
            asked["max_results"] = said["max_results"] = results
        mode = key.partition("/search-")[2]
        if mode and provider in MODES_OF_SEARCH:
            asked[MODES_OF_SEARCH[provider]] = said["mode"] = mode
        units = {"queries": 1 if provider == "parallel_ai" else queries}
        if provider == "parallel_ai" and results:
            units["additional_results"] = results - 10
        yield (
            f"{queries} queries, {results} results",
            key,
            record("asearch", provider, units=units, price=said),
            {"call_type": "asearch", "optional_params": asked},
        )


MODES_OF_SEARCH = {"tavily": "search_depth", "linkup": "depth", "parallel_ai": "mode"}


def query_cases(key: str, entry: Mapping[str, Any], provider: str) -> Iterator[Answer]:
    yield (
        "a query",
        key,
        record("avector_store_search", provider),
        {"call_type": "avector_store_search", "completion_response": {"data": []}},
    )


def token_cases(key: str, entry: Mapping[str, Any], provider: str) -> Iterator[Answer]:
    usage = litellm.Usage(prompt_tokens=TOKENS, completion_tokens=307, total_tokens=TOKENS + 307)
    call = "adecisions" if entry["mode"] in ("decisions", "evaluation") else "acompletion"
    yield (
        "tokens",
        key,
        record(
            "" if call == "adecisions" else call, provider, input_tokens=TOKENS, output_tokens=307
        ),
        {"completion_response": litellm.ModelResponse(model=key, usage=usage), "call_type": call},
    )


def embedding_cases(key: str, entry: Mapping[str, Any], provider: str) -> Iterator[Answer]:
    details: dict[str, Any] = {}
    units: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    if "input_cost_per_image" in entry:
        details["text_tokens"] = TOKENS
        details["image_count"] = units["input_images"] = 2
    if "input_cost_per_character" in entry:
        details["character_count"] = fields["characters"] = len(TEXT)
    usage = litellm.Usage(
        prompt_tokens=TOKENS, total_tokens=TOKENS, prompt_tokens_details=details or None
    )
    answer = litellm.EmbeddingResponse(model=key, usage=usage)
    yield (
        "tokens",
        key,
        record("aembedding", provider, input_tokens=TOKENS, units=units, **fields),
        {"completion_response": answer, "call_type": "aembedding"},
    )


CASES: dict[str, Callable[[str, Mapping[str, Any], str], Iterator[Answer]]] = {
    "audio_speech": speech_cases,
    "audio_transcription": transcription_cases,
    "decisions": token_cases,
    "embedding": embedding_cases,
    "evaluation": token_cases,
    "extraction": token_cases,
    "image_edit": image_cases,
    "image_generation": image_cases,
    "moderation": token_cases,
    "ocr": ocr_cases,
    "realtime": token_cases,
    "rerank": rerank_cases,
    "search": search_cases,
    "vector_store": query_cases,
    "video_generation": video_cases,
}
CHAT = {"chat", "completion", "responses"}
UNPRICED_MODES = {"guardrail"}
"""LiteLLM prices them in its proxy alone, without ``completion_cost``."""


def cases(mode: str) -> Iterator[Case]:
    for key, entry in price_map().items():
        provider = entry.get("litellm_provider") or ""
        if entry.get("mode") == mode and provider:
            if provider.startswith("vertex_ai"):
                provider = "vertex_ai"
            provider = provider.removesuffix("-embedding-models")
            for name, model, fields, options in CASES[mode](key, entry, provider):
                yield Case(key, name, model, provider, entry, fields, options)


# -- the two prices -------------------------------------------------------------------------------


def ours(case: Case) -> Priced:
    call, said = case.fields["call"], conditions(case.fields)
    if call in UNIT_CALLS:
        entry = unit_entry(call, case.model, case.provider, case.fields, said)
    else:
        entry = entry_of(case.model, case.provider)
    if entry is None:
        return Priced(None, (), ("entry",), Decimal(0))
    return price(used(case.fields), said, entry)


def theirs(case: Case) -> Decimal | None:
    try:
        cost = litellm.completion_cost(
            model=case.model, custom_llm_provider=case.provider, **case.options
        )
    except Exception:
        return None
    return from_litellm(cost)


# -- where they part ------------------------------------------------------------------------------

Rule = Callable[[Case, Priced, Decimal | None], bool]
RULES: dict[str, Rule] = {}
OLD_RULES: dict[str, Rule] = {}
VERSION = tuple(map(int, version("litellm").split(".")[:2]))


def rule(check: Rule) -> Rule:
    """A reason why LiteLLM's figure is another; the test fails where it explains nothing."""
    RULES[check.__name__] = check
    return check


def rule_before(*before: int) -> Callable[[Rule], Rule]:
    """A reason that holds for LiteLLM's older versions."""

    def kept(check: Rule) -> Rule:
        if before > VERSION:
            OLD_RULES[check.__name__] = check
        return check

    return kept


@rule
def uncounted(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """Nobody counted what is billed: unknown; LiteLLM says 0, or prices the prompt alone."""
    if mine.cost is not None or mine.floor:
        return False
    speech = case.entry["mode"] == "audio_speech" and case.name == "characters"
    return speech or (not other and _has_price(case.entry))


@rule
def unpriced(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """The entry has no price: unknown; LiteLLM says 0."""
    return mine.cost is None and not other and not _has_price(case.entry)


@rule
def text_unpriced(_case: Case, mine: Priced, other: Decimal | None) -> bool:
    """The entry has no price of text that was read: unknown; to LiteLLM the text is free."""
    return mine.missing == ("input_cost_per_token",) and other == mine.floor > 0


@rule
def blanks(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """LiteLLM does not count the blanks of a text that is read aloud; providers do."""
    if case.entry["mode"] != "audio_speech" or not mine.cost or not mine.lines:
        return False
    return other == usd(picousd(mine.lines[0].price * len(TEXT.replace(" ", ""))))


@rule
def image_by_size(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """Without a count of tokens LiteLLM says 0, where the map has a price by size and quality."""
    return other == 0 and bool(mine.cost) and "gpt-image" in case.model and case.name == "images"


@rule
def image_tokens_unpriced(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """With a count of tokens LiteLLM says 0, though the entry prices the image and no token."""
    return other == 0 and bool(mine.cost) and case.name == "image tokens"


@rule
def rank_tokens(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """LiteLLM prices the tokens of a ranking for two providers alone; for others it says 0."""
    return other == 0 and bool(mine.cost) and case.entry["mode"] == "rerank"


@rule
def not_taken(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """LiteLLM raises: it has no function for that provider's images, or looks up another name."""
    return other is None and bool(mine.cost) and case.provider in NOT_TAKEN


NOT_TAKEN = {"bedrock", "databricks", "fireworks_ai"}
if VERSION < (1, 106):
    NOT_TAKEN |= {"black_forest_labs", "stability"}


@rule_before(1, 110)
def speech_tokens(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """LiteLLM did not read the usage of speech: the text alone, by its own count of tokens."""
    return case.entry["mode"] == "audio_speech" and case.name == "tokens" and other < mine.cost


@rule_before(1, 110)
def seconds_beside_tokens(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """With a count of tokens LiteLLM said 0, though the entry prices the second and no token."""
    return other == 0 and bool(mine.cost) and case.entry["mode"] == "audio_transcription"


@rule_before(1, 110)
def images_of_a_video(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """LiteLLM did not price the images that were given to a model of videos."""
    given = [line.amount for line in mine.lines if line.unit == "input image"]
    return bool(given) and other == mine.cost - sum(given)


@rule_before(1, 106)
def characters_embedded(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """LiteLLM priced characters and the same text's tokens."""
    return "characters" in case.fields and case.entry["mode"] == "embedding" and other > mine.cost


@rule_before(1, 106)
def another_name(case: Case, mine: Priced, other: Decimal | None) -> bool:
    """LiteLLM priced Azure's image by OpenAI's entry of that size."""
    return case.key == "azure/standard/1024-x-1024/dall-e-2" and other is not None


def _has_price(entry: Mapping[str, Any]) -> bool:
    return any("cost" in name or name == "tiered_pricing" for name in entry)


@cache
def compared(mode: str) -> tuple[int, list[tuple[Case, Priced, Decimal | None, list[str]]]]:
    """How many cases there are, and those that differ, with the names of the rules that fit."""
    every = [(case, ours(case), theirs(case)) for case in cases(mode)]
    return len(every), [
        (
            case,
            mine,
            other,
            [name for name, check in (RULES | OLD_RULES).items() if check(case, mine, other)],
        )
        for case, mine, other in every
        if mine.cost != other
    ]


@pytest.mark.parametrize("mode", CASES)
def test_every_unit_of_the_map_costs_what_litellm_says_or_a_rule_says_why_not(mode: str) -> None:
    count, differing = compared(mode)
    unexplained = [
        f"{case}: ours {mine.cost} {mine.missing}, LiteLLM's {other}: {rules}"
        for case, mine, other, rules in differing
        if len(rules) != 1
    ]
    assert not unexplained
    assert count > len(differing) or count == 0


def test_every_rule_explains_something() -> None:
    explained = {name for mode in CASES for *_, names in compared(mode)[1] for name in names}
    assert explained == RULES.keys() or VERSION < (1, 110)


def test_every_mode_of_the_map_has_its_test() -> None:
    modes = {entry.get("mode") for entry in price_map().values() if entry.get("litellm_provider")}
    assert modes <= CASES.keys() | CHAT | UNPRICED_MODES | {None}
