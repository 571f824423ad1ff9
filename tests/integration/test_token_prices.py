"""Tokens cost what LiteLLM says, for every model of the installed map, to the picodollar; or a rule
of this file says why not.

Each model that is billed by tokens is priced twice for each usage that its entry has a price for:
by LiteLLM, and by us, from the usage as the ledger reads it and the entry that the ledger finds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import litellm
from litellm.cost_calculator import batch_cost_calculator
from tests.price_map import models

from litellm_ledger._litellm.entries import entry_of
from litellm_ledger._litellm.usage import usage_fields
from litellm_ledger._prices.price import Priced, price
from litellm_ledger._prices.quantities import conditions, used
from litellm_ledger._records.money import from_litellm

MODES: Final = {"chat", "completion", "embedding", "realtime", "responses"}
VERSION: Final = tuple(map(int, version("litellm").split(".")[:2]))
TIERS: Final = ("flex", "priority", "balanced", "ultrafast")
GIVEN, MADE, CACHED, WRITTEN, HOUR, OTHER, THOUGHT = 1_009, 503, 401, 307, 207, 53, 303


class Case(NamedTuple):
    """One usage of one model, and what chooses its price."""

    key: str
    provider: str
    entry: Mapping[str, Any]
    name: str
    usage: Any
    chose: dict[str, Any]


def usage(given: int = GIVEN, made: int = MADE, **more: Any) -> Any:
    details = {
        f"{side}_tokens_details": {
            name.removeprefix(f"{side}_"): value
            for name, value in more.items()
            if name.startswith(f"{side}_")
        }
        for side in ("prompt", "completion")
    }
    rest = {name: more[name] for name in ("inference_geo", "speed") if name in more}
    return litellm.Usage(
        prompt_tokens=given,
        completion_tokens=made,
        total_tokens=given + made,
        **{name: value for name, value in details.items() if value},
        **rest,
    )


def usages(entry: Mapping[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """What a model of that entry may have used, with what chose the price."""
    made = 0 if entry.get("mode") == "embedding" else MADE
    names = " ".join(entry)
    yield "plain", usage(made=made), {}
    yield "batch", usage(made=made, prompt_cached_tokens=CACHED), {"batch": True}
    if not made:
        return
    yield "cached", usage(prompt_cached_tokens=CACHED), {}
    yield "reasoning", usage(completion_reasoning_tokens=THOUGHT), {}
    if "cache_creation" in names:
        yield "written", usage(prompt_cache_creation_tokens=WRITTEN), {}
        lasting = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": HOUR}
        hour = {"prompt_cache_creation_token_details": lasting}
        yield "hour", usage(prompt_cache_creation_tokens=WRITTEN, **hour), {}
        yield "batch written", usage(prompt_cache_creation_tokens=WRITTEN), {"batch": True}
    for kind in ("audio", "image"):
        if kind in names:
            both = {f"prompt_{kind}_tokens": OTHER, f"completion_{kind}_tokens": OTHER}
            yield kind, usage(**both), {}
    cached = {"prompt_cached_tokens": CACHED}
    tiers = [tier for tier in TIERS if f"_{tier}" in names]
    for tier in tiers:
        yield tier, usage(**cached, completion_reasoning_tokens=THOUGHT), {"service_tier": tier}
    for above in sorted({int(n) * 1_000 for n in re.findall(r"_above_(\d+)k_tokens", names)}):
        yield f"at {above}", usage(above, **cached), {}
        yield f"above {above}", usage(above + 1, **cached), {}
        for tier in tiers:
            yield f"above {above}, {tier}", usage(above + 1, **cached), {"service_tier": tier}
        yield f"above {above}, batch", usage(above + 1, **cached), {"batch": True}
    for within in entry.get("tiered_pricing") or ():
        yield f"from {within['range'][0]}", usage(int(within["range"][0]) + 1), {}
    for region in ("eu", "us"):
        if f"regional_processing_uplift_multiplier_{region}" in entry:
            yield region, usage(**cached), {"data_residency": region}
    if "fedramp_uplift_multiplier" in entry:
        yield "fedramp", usage(), {"data_residency": "fedramp"}
    if "regional_endpoint_uplift_multiplier" in entry:
        yield "region", usage(), {"vertex_location": "us-east5"}
    specific = entry.get("provider_specific_entry") or {}
    if "us" in specific and "bedrock" not in entry["litellm_provider"]:
        yield "geo", usage(inference_geo="us"), {"inference_geo": "us"}
    if "fast" in specific:
        yield "fast", usage(speed="fast"), {"speed": "fast"}


def cases() -> Iterator[Case]:
    for key, provider, entry in models(*MODES):
        for name, used_, chose in usages(entry):
            yield Case(key, provider, entry, name, used_, chose)


def theirs(case: Case) -> Decimal | None:
    try:
        if case.chose.get("batch"):
            both = batch_cost_calculator(
                usage=case.usage, model=case.key, custom_llm_provider=case.provider
            )
            return from_litellm(float(sum(Decimal(repr(float(part))) for part in both)))
        names = ("data_residency", "service_tier", "vertex_location")
        return from_litellm(
            litellm.completion_cost(
                completion_response=litellm.ModelResponse(model=case.key, usage=case.usage),
                model=case.key,
                custom_llm_provider=case.provider,
                **{name: case.chose[name] for name in names if name in case.chose},
            )
        )
    except Exception:  # no price
        return None


def ours(case: Case) -> Priced | None:
    entry = entry_of(case.key, case.provider)
    if entry is None:
        return None
    fields = usage_fields(case.usage)
    fields |= {
        "provider": case.provider,
        "call": "aembedding" if case.entry["mode"] == "embedding" else "acompletion",
        "ts": datetime.now(UTC),
        "meta": {**fields.get("meta", {}), "price": case.chose},
    }
    return price(used(fields), conditions(fields), entry)


# --- Why ours is another -----------------------------------------------------------------------

Rule = Callable[[Case, Priced, Decimal | None], bool]


def _missing(pattern: str) -> Rule:
    return lambda case, mine, other: any(re.search(pattern, name) for name in mine.missing)


def _no_price_above_a_threshold(case: Case, mine: Priced, other: Decimal | None) -> bool:
    return any("k_tokens" in name for name in mine.missing)


def _batch(case: Case) -> bool:
    return case.chose.get("batch") is True


RULES: Final[dict[str, Rule]] = {
    # Anthropic bills 2 times the input for an hour and 1.25 times for five minutes.  LiteLLM takes
    # the five minutes' price for both, where the hour's is not listed.
    "a cache write for an hour has no price of five minutes": _missing("_above_1hr"),
    # gpt-5.5 lists priority, and contexts above 272,000 tokens, and not both at once: LiteLLM takes
    # the price of the context without priority.
    "a tier and a length that are listed apart give no price for both": _no_price_above_a_threshold,
    # azure/gpt-5.5 lists input at flex and no output at flex: LiteLLM takes the standard output.
    "a tier that is listed for the input alone gives no price for the rest": _missing(
        r"_(flex|priority|batches)$"
    ),
    # together-ai-4.1b-8b: (1,009 + 503) x 2e-07 / 2 = 0.0001512.  LiteLLM bills the 401 cached
    # tokens of a batch with nothing: (608 + 503) x 2e-07 / 2 = 0.0001111.
    "cached tokens of a batch are input where no other price is listed": lambda case, mine, other: (
        _batch(case) and "cache_read_input_token_cost" not in case.entry
    ),
    # anthropic.claude-haiku-4-5: (702 x 1e-06 + 307 x 1.25e-06 + 503 x 5e-06) / 2.  LiteLLM bills
    # the 307 as input, where the entry has prices for batches and none of this.
    "cache writes of a batch are half the cache write": lambda case, mine, other: (
        case.name == "batch written"
    ),
    "LiteLLM takes no range for a batch": lambda case, mine, other: (
        _batch(case) and "tiered_pricing" in case.entry
    ),
    "LiteLLM halves no price above a threshold": lambda case, mine, other: (
        _batch(case) and case.name.startswith("above")
    ),
    "LiteLLM finds no price for a batch": lambda case, mine, other: _batch(case) and not other,
    # sonar: 1,009 x 1e-06 + 503 x 1e-06 = 0.001512, and 0.005 for the request
    # (https://docs.perplexity.ai/getting-started/pricing).
    "LiteLLM leaves out Perplexity's fee for a request": lambda case, mine, other: (
        case.provider == "perplexity" and any(term.unit != "token" for term in mine.lines)
    ),
    "LiteLLM takes no threshold and no cache write of Perplexity": lambda case, mine, other: (
        case.provider == "perplexity" and case.name.startswith(("above", "written"))
    ),
    # The entry of a size of models: LiteLLM takes 21b in the name for the number of parameters.
    "LiteLLM prices Together's models by the number in the name": lambda case, mine, other: (
        case.key.startswith("together-ai-")
    ),
    "what is billed by time or other units has no price by the token": lambda case, mine, other: (
        "input_cost_per_token" not in case.entry and mine.cost is None
    ),
}


# Faults of some versions of LiteLLM; 1.101.0, 1.106.2 and 1.110.2 were compared.
OF_SOME_VERSIONS: Final[dict[str, Rule]] = {
    # j2-light, cached: (1,009 + 503) x 3e-06 = 0.004536; LiteLLM: (608 + 503) x 3e-06.
    "LiteLLM before 1.106 bills nothing for cached, written or spoken tokens without a price": (
        lambda case, mine, other: bool(
            VERSION < (1, 106) and mine.cost and other and other < mine.cost
        )
    ),
    # gpt-4.1 in a batch: 608 x 1e-06 + 401 x 5e-07 + 503 x 4e-06; LiteLLM had 401 x 1e-06.
    "LiteLLM before 1.110 takes no cached price of a batch, nor of Perplexity": (
        lambda case, mine, other: bool(
            VERSION < (1, 110)
            and (_batch(case) or case.provider == "perplexity")
            and mine.cost
            and other
            and other > mine.cost
        )
    ),
    "LiteLLM before 1.106 bills cached tokens of Fireworks as input": lambda case, mine, other: (
        VERSION < (1, 106) and case.provider == "fireworks_ai"
    ),
    # deepseek-v4-pro-0813: 0.003515105 is 1.25 times LiteLLM's 0.002812084, the standard.
    "LiteLLM takes no tier of Fireworks": lambda case, mine, other: (
        case.provider == "fireworks_ai" and "service_tier" in case.chose
    ),
    # morph/morph-dsv4flash, cached: the sum ends in half a picodollar, which a float is just above.
    "a binary float misses a half": lambda case, mine, other: (
        mine.cost is not None and other is not None and abs(mine.cost - other) == Decimal("1e-12")
    ),
}
"""These need not explain anything."""


@cache
def compared() -> tuple[int, list[tuple[Case, Priced, Decimal | None, list[str]]]]:
    """How many cases there are, and those that differ, each with the rules that explain it."""
    count, found = 0, []
    for case in cases():
        mine = ours(case)
        if mine is None:  # no entry with a price: LiteLLM's figure is recorded
            continue
        count += 1
        other = theirs(case)
        if mine.cost != other:
            all_rules = {**RULES, **OF_SOME_VERSIONS}
            rules = [name for name, rule in all_rules.items() if rule(case, mine, other)]
            found.append((case, mine, other, rules))
    return count, found


def test_every_model_costs_what_litellm_says_or_a_rule_says_why_not() -> None:
    count, different = compared()
    unexplained = [
        f"{case.key}, {case.name}: {mine.cost} {mine.missing}, LiteLLM {other}"
        for case, mine, other, rules in different
        if not rules
    ]
    assert unexplained == []
    assert count > 14_000


def test_every_rule_explains_something() -> None:
    said = {name for _, _, _, rules in compared()[1] for name in rules}
    assert RULES.keys() - said == set()


def test_every_entry_with_prices_is_found_by_its_own_name() -> None:
    lost = []
    for key, entry in litellm.model_cost.items():
        provider = entry.get("litellm_provider")
        if entry.get("mode") in MODES and provider in litellm.provider_list and "router" not in key:
            found = entry_of(key, provider)
            if found is None and any("cost" in name for name in entry):
                lost.append(key)
    assert lost == []
