"""Everything that is no token has its exact price, or is named as missing: never a silent 0."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.fees import FEES, with_fees
from litellm_ledger._prices.image_names import image_names, nearest_image
from litellm_ledger._prices.price import Priced, price

D = Decimal
SIZES = {
    "search_context_size_low": 0.006,
    "search_context_size_medium": 0.01,
    "search_context_size_high": 0.014,
}
GPT = {
    "input_cost_per_token": 2.5e-06,
    "litellm_provider": "openai",
    "mode": "chat",
    "output_cost_per_token": 1e-05,
    "search_context_cost_per_query": dict.fromkeys(SIZES, 0.01),
}
GEMINI = {"litellm_provider": "gemini", "mode": "chat", "search_context_cost_per_query": SIZES}
SONAR = {"litellm_provider": "perplexity", "mode": "chat", "search_context_cost_per_query": SIZES}


def priced(members: Mapping[str, Any], used: Mapping[str, Any], **conditions: Any) -> Priced:
    entry = Entry("model", with_fees(members, conditions.get("provider")))
    return price({name: value for name, value in used.items() if value}, conditions, entry)


# -- tools ----------------------------------------------------------------------------------------

TOOLS: dict[str, tuple[Mapping[str, Any], dict[str, Any], dict[str, Any], str]] = {
    # 2 × $2.50 / 1,000
    "openai: each file search": (GPT, {"file_searches": 2}, {}, "0.005"),
    # 1 × $0.01 + 2 × $0.0025: neither hides the other
    "openai: a web search beside two file searches": (
        GPT,
        {"web_searches": 1, "file_searches": 2},
        {},
        "0.015",
    ),
    "openai: each container": (GPT, {"containers": 2}, {}, "0.06"),
    "azure: its own fee of a container": (
        {**GPT, "litellm_provider": "azure"},
        {"containers": 1},
        {},
        "0.033",
    ),
    "the entry's own fee comes before the list's": (
        {**GPT, "file_search_cost_per_1k_calls": 4},
        {"file_searches": 1},
        {},
        "0.004",
    ),
    "by the size of the context": (
        {**GPT, "search_context_cost_per_query": SIZES},
        {"web_searches": 3},
        {"search_context": "high"},
        "0.042",
    ),
    "without a size, the ordinary one": (
        {**GPT, "search_context_cost_per_query": SIZES},
        {"web_searches": 3},
        {},
        "0.03",
    ),
    "anthropic: each request": (
        {**GPT, "litellm_provider": "anthropic"},
        {"web_searches": 7},
        {},
        "0.07",
    ),
    "gemini 2: a prompt, however many searches": (GEMINI, {"web_searches": 4}, {}, "0.01"),
    "gemini 3: each query": (
        {**GEMINI, "web_search_billing_unit": "per_query"},
        {"web_searches": 4},
        {},
        "0.04",
    ),
    "gemini: without a price of its own, the list's": (
        {"litellm_provider": "gemini", "mode": "chat"},
        {"web_searches": 4},
        {},
        "0.035",
    ),
    "claude on vertex: each search, as anthropic's": (
        {**GPT, "litellm_provider": "vertex_ai-anthropic_models"},
        {"web_searches": 4},
        {"provider": "vertex_ai"},
        "0.04",
    ),
    "gemini 2: maps, a prompt": (GEMINI, {"maps_groundings": 3}, {}, "0.025"),
    "gemini 3: maps, each query": (
        {**GEMINI, "web_search_billing_unit": "per_query"},
        {"maps_groundings": 3},
        {},
        "0.042",
    ),
    "gemini: maps, at the entry's price": (
        {**GEMINI, "google_maps_grounding_cost_per_query": 0.03},
        {"maps_groundings": 3},
        {},
        "0.03",
    ),
    "xai: without a price of its own, the list's": (
        {"litellm_provider": "xai", "mode": "chat"},
        {"web_searches": 2},
        {},
        "0.01",
    ),
    "groq: pages that its browser opened": (
        {**GPT, "litellm_provider": "groq"},
        {"browser_opens": 2},
        {},
        "0.002",
    ),
    "perplexity: a request, by its size": (SONAR, {}, {"search_context": "high"}, "0.014"),
    "perplexity: its ordinary size is low": (SONAR, {"web_searches": 5}, {}, "0.006"),
    # 18 × $0.01 + 20,016 × $2/M
    "perplexity: deep research by the search, and citations": (
        {**SONAR, "citation_cost_per_token": 2e-06},
        {"web_searches": 18, "citation": 20_016},
        {},
        "0.220032",
    ),
    "perplexity: the other models bill no citations": (SONAR, {"citation": 9}, {}, "0.006"),
    "a fee for each request": (
        {"litellm_provider": "x", "mode": "chat", "input_cost_per_request": 0.005},
        {},
        {},
        "0.005",
    ),
}


@pytest.mark.parametrize("case", TOOLS)
def test_a_tool_costs_what_its_provider_bills(case: str) -> None:
    members, used, conditions, cost = TOOLS[case]
    found = priced(members, used, **conditions)

    assert found.cost == D(cost), found
    assert sum(term.amount for term in found.lines) == D(cost)


@pytest.mark.parametrize("tool", ["web_searches", "file_searches", "containers", "browser_opens"])
def test_a_tool_without_a_fee_leaves_the_cost_unknown_and_a_floor(tool: str) -> None:
    members = {"litellm_provider": "x", "mode": "chat", "input_cost_per_token": 1e-06}
    found = priced(members, {"input_tokens": 10, tool: 1})

    assert found.cost is None
    assert len(found.missing) == 1
    assert found.floor == D("0.00001")


def test_the_fees_of_the_list_are_part_of_the_entry_and_of_its_version() -> None:
    whole = Entry("gpt", with_fees(GPT))
    assert whole.members["default_fees"]["file_search_cost_per_1k_calls"] == D("2.5")
    assert whole.members["default_fees"]["day"]
    assert whole.version != Entry("gpt", GPT).version
    # From the book: its text alone, whatever the list says by then.
    again = Entry("gpt", with_fees(json.loads(whole.text)["entry"]))
    assert (again.text, again.version) == (whole.text, whole.version)


def test_the_maps_own_fee_of_a_provider_comes_before_the_list() -> None:
    members = with_fees(GPT, "openai", {"code_interpreter_cost_per_session": 0.05, "mode": "chat"})
    found = price({"containers": 1}, {}, Entry("gpt", members))

    assert found.cost == D("0.05")
    assert found.lines[0].name == "default_fees.code_interpreter_cost_per_session"


def test_every_fee_of_the_list_has_its_source() -> None:
    assert all(
        url.startswith("https://") and value > 0
        for fees in FEES.values()
        for value, url in fees.values()
    )


# -- units ----------------------------------------------------------------------------------------

IMAGE = {"mode": "image_generation", "litellm_provider": "x"}
UNITS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str | None]] = {
    "an image": ({**IMAGE, "output_cost_per_image": 0.04}, {"images": 3}, {}, "0.12"),
    "an image, its price under input": (
        {**IMAGE, "input_cost_per_image": 0.04},
        {"images": 3},
        {},
        "0.12",
    ),
    "an image by its pixels": (
        {**IMAGE, "input_cost_per_pixel": 2e-08, "output_cost_per_pixel": 0.0},
        {"images": 1},
        {"size": "1024x1024"},
        "0.02097152",
    ),
    "an image by its pixels, of unknown size": (
        {**IMAGE, "input_cost_per_pixel": 2e-08},
        {"images": 1},
        {},
        None,
    ),
    "an image by its resolution": (
        {**IMAGE, "output_cost_per_image": 0.08, "output_cost_per_image_4K": 0.16},
        {"images": 2},
        {"resolution": "4k"},
        "0.32",
    ),
    "an image in megapixels, rounded up": (
        {**IMAGE, "output_cost_per_image": 0.025, "output_cost_per_pixel": 2.384185791015625e-08},
        {"images": 1, "megapixels": 2},
        {},
        "0.05",
    ),
    "images made and given": (
        {**IMAGE, "output_cost_per_image": 0.035, "input_cost_per_image": 0.003},
        {"images": 1, "input_images": 2},
        {},
        "0.041",
    ),
    "an image by tokens that nobody counted": (
        {**IMAGE, "output_cost_per_image_token": 4e-05},
        {"images": 1},
        {},
        None,
    ),
    "audio by the second": (
        {
            "mode": "audio_transcription",
            "input_cost_per_second": 0.0001,
            "output_cost_per_second": 0,
        },
        {"audio_seconds": D("12.5")},
        {},
        "0.00125",
    ),
    "audio, one price under both names": (
        {
            "mode": "audio_transcription",
            "input_cost_per_second": 0.0001,
            "output_cost_per_second": 0.0001,
        },
        {"audio_seconds": 60},
        {},
        "0.006",
    ),
    "audio of unknown length": (
        {"mode": "audio_transcription", "input_cost_per_second": 0.0001},
        {},
        {},
        None,
    ),
    "speech by the character": (
        {"mode": "audio_speech", "input_cost_per_character": 1.5e-05},
        {"characters": 100},
        {},
        "0.0015",
    ),
    "music by the piece": (
        {"mode": "audio_speech", "output_cost_per_image": 0.06},
        {"characters": 100},
        {},
        "0.06",
    ),
    "speech by tokens that nobody counted": (
        {"mode": "audio_speech", "input_cost_per_token": 6e-07, "output_cost_per_token": 1e-05},
        {"characters": 100},
        {},
        None,
    ),
    "video by the second": (
        {
            "mode": "video_generation",
            "output_cost_per_second": 0.4,
            "output_cost_per_second_4k": 0.6,
        },
        {"video_seconds": 8},
        {},
        "3.2",
    ),
    "video by its resolution": (
        {
            "mode": "video_generation",
            "output_cost_per_second": 0.4,
            "output_cost_per_second_4k": 0.6,
        },
        {"video_seconds": 8},
        {"resolution": "4K"},
        "4.8",
    ),
    "video and the images given to it": (
        {
            "mode": "video_generation",
            "output_cost_per_video_per_second": 0.1,
            "input_cost_per_image": 0.01,
        },
        {"video_seconds": 8, "input_images": 1},
        {},
        "0.81",
    ),
    "video of unknown length": (
        {"mode": "video_generation", "output_cost_per_second": 1},
        {},
        {},
        None,
    ),
    "search units": (
        {"mode": "rerank", "input_cost_per_query": 0.002, "input_cost_per_token": 0},
        {"search_units": 2},
        {},
        "0.004",
    ),
    "a ranking of unknown size": ({"mode": "rerank", "input_cost_per_query": 0.002}, {}, {}, None),
    "a ranking that is free": ({"mode": "rerank", "input_cost_per_query": 0}, {}, {}, "0"),
    "a ranking by tokens that nobody counted": (
        {"mode": "rerank", "input_cost_per_token": 5e-08},
        {"search_units": 1},
        {},
        None,
    ),
    "pages": ({"mode": "ocr", "ocr_cost_per_page": 0.004}, {"pages": 3}, {}, "0.012"),
    "pages, and those annotated": (
        {"mode": "ocr", "ocr_cost_per_page": 0.004, "annotation_cost_per_page": 0.005},
        {"pages": 3, "annotated_pages": 2},
        {},
        "0.022",
    ),
    "pages annotated at the price of a page": (
        {"mode": "ocr", "ocr_cost_per_page": 0.004},
        {"pages": 3, "annotated_pages": 2},
        {},
        "0.02",
    ),
    "pages of a batch": (
        {"mode": "ocr", "ocr_cost_per_page": 0.004, "ocr_cost_per_page_batches": 0.002},
        {"pages": 3},
        {"batch": True},
        "0.006",
    ),
    "credits": (
        {"mode": "ocr", "ocr_cost_per_credit": 0.015},
        {"pages": 3, "credits": 5},
        {},
        "0.075",
    ),
    "credits that nobody counted": (
        {"mode": "ocr", "ocr_cost_per_credit": 0.015},
        {"pages": 3},
        {},
        None,
    ),
    "queries": ({"mode": "search", "input_cost_per_query": 0.005}, {"queries": 3}, {}, "0.015"),
    "one query": ({"mode": "search", "input_cost_per_query": 0.005}, {}, {}, "0.005"),
    "a free search": ({"mode": "search", "input_cost_per_query": 0}, {}, {}, "0"),
    "a search by its results": (
        {
            "mode": "search",
            "tiered_pricing": [
                {"input_cost_per_query": 0.005, "max_results_range": [0, 25]},
                {"input_cost_per_query": 0.025, "max_results_range": [26, 100]},
            ],
        },
        {},
        {"max_results": 26},
        "0.025",
    ),
    "more results than a search includes": (
        {"mode": "search", "litellm_provider": "parallel_ai", "input_cost_per_query": 0.005},
        {"queries": 1, "additional_results": 5},
        {},
        "0.01",
    ),
    "a query of a vector store": (
        {"mode": "vector_store", "input_cost_per_query": 0.0015},
        {},
        {},
        "0.0015",
    ),
    "moderation, free": ({"mode": "moderation", "input_cost_per_token": 0.0}, {}, {}, "0"),
    "moderation by tokens that nobody counted": (
        {"mode": "moderation", "input_cost_per_token": 1e-06},
        {},
        {},
        None,
    ),
    "policies": (
        {
            "mode": "guardrail",
            "guardrail_cost_per_unit": {"topicPolicyUnits": 0.00015, "wordPolicyUnits": 0},
        },
        {"topicPolicyUnits": 2, "wordPolicyUnits": 2},
        {},
        "0.0003",
    ),
    "an embedded image": (
        {"mode": "embedding", "input_cost_per_image": 6e-05, "input_cost_per_token": 8e-07},
        {"input_images": 1, "input_tokens": 10},
        {},
        "0.000068",
    ),
    "an entry without a price": (IMAGE, {"images": 1}, {}, None),
    "a spoken session": (
        {"mode": "realtime", "input_cost_per_second": 0.0005, "input_cost_per_text_message": 0.004},
        {"audio_seconds": 10, "text_messages": 2},
        {},
        "0.013",
    ),
}


@pytest.mark.parametrize("case", UNITS)
def test_a_unit_costs_what_the_entry_says_or_the_cost_is_unknown(case: str) -> None:
    members, used, conditions, cost = UNITS[case]
    found = priced(members, used, **conditions)

    assert found.cost == (None if cost is None else D(cost)), found
    assert bool(found.missing) == (cost is None)


def test_low_quality_alone_has_xais_price_by_resolution() -> None:
    members = {
        **IMAGE,
        "input_cost_per_image": 0.06,
        "litellm_provider": "xai",
        "output_cost_per_image_1K": 0.04,
    }
    for quality, call, cost in (
        (None, "aimage_generation", "0.04"),
        (None, "aimage_edit", "0.06"),
        ("low", "aimage_edit", "0.04"),
        ("high", "aimage_generation", "0.06"),
    ):
        found = priced(members, {"images": 1}, quality=quality, call=call, provider="xai")
        assert found.cost == D(cost), (quality, call)


def test_the_kind_of_call_decides_before_the_mode_of_the_entry() -> None:
    members = {"mode": "chat", "input_cost_per_character": 1e-05, "input_cost_per_token": 1}
    assert priced(members, {"characters": 3}, call="aspeech").cost == D("0.00003")
    members = {
        "mode": "image_generation",
        "output_cost_per_image": 1,
        "input_cost_per_token": 1e-06,
    }
    assert priced(members, {"input_tokens": 3}, call="acompletion").cost == D("0.000003")


def test_the_names_of_an_image_are_those_of_the_map_the_nearest_first() -> None:
    asked = {"size": "1024x1792", "quality": "hd"}
    assert list(image_names("azure/dall-e-3", "azure", asked))[:3] == [
        "hd/azure/1024-x-1792/dall-e-3",
        "azure/hd/1024-x-1792/dall-e-3",
        "azure/1024-x-1792/dall-e-3",
    ]
    stability = image_names("stability.stable-diffusion-xl-v1", "bedrock", {"steps": 60})
    assert next(stability) == "1024-x-1024/max-steps/stability.stable-diffusion-xl-v1"
    assert "1024-x-1024/dall-e-2" in image_names("dall-e-2", "openai", {"size": "auto"})


def test_the_nearest_size_of_an_image_is_the_one_with_the_nearest_number_of_pixels() -> None:
    names = dict.fromkeys(
        ("fal_ai/low/1024-x-768/m", "fal_ai/low/512-x-512/m", "fal_ai/high/512-x-512/m", "other/m")
    )
    low = {"quality": "low", "size": "640x512"}
    assert nearest_image(names, "fal_ai/m", "fal_ai", low) == "fal_ai/low/512-x-512/m"
    assert nearest_image(names, "m", "fal_ai", {"quality": "low"}) == "fal_ai/low/1024-x-768/m"
    assert (
        nearest_image(names, "m", "fal_ai", {"size": "9" * 40 + "x1"}) == "fal_ai/high/512-x-512/m"
    )
    assert nearest_image(names, "n", "fal_ai", {}) is None
