"""The most that calls may cost which are billed by tokens: chats and their like.

Owns the counting of their input, the limit of their output, and the fees of the tools that they
allow.  Where the provider adds input of its own, the whole context of the model counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.own import ModelPrice

from .bound import Asked, Bound, Model, Unbounded, picousd
from .ceiling import ALL_KINDS, Ceiling, atto, band, ceiling, fee, multiplier, tiers
from .weight import Weight

__all__ = ["by_text", "by_tokens", "given_tokens", "made_tokens", "priced_tokens"]

_NONE: Final = frozenset[str]()


_SILENT: Final = frozenset(
    {
        "api_base",
        "api_key",
        "api_version",
        "background",
        "base_url",
        "cache",
        "caching",
        "client",
        "custom_llm_provider",
        "drop_params",
        "extra_headers",
        "frequency_penalty",
        "headers",
        "include",
        "litellm_call_id",
        "litellm_metadata",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_output_tokens",
        "max_retries",
        "max_tokens",
        "max_tool_calls",
        "metadata",
        "mock_response",
        "model",
        "n",
        "num_retries",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "safety_identifier",
        "seed",
        "service_tier",
        "speed",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "thinking",
        "timeout",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "extra_body",
    }
)
"""Arguments that a model does not read; whatever else there is counts as text."""
_READS: Final = frozenset(
    {"contents", "input", "instructions", "messages", "prompt", "suffix", "system"}
    | {"system_instruction", "systemInstruction"}
)
_TOOLS: Final = frozenset({"functions", "tools"})
_ELSEWHERE: Final = {
    "context_window_fallback_dict": "it may go to another model",
    "fallbacks": "it may go to another model",
    "context_management": "the provider may add requests of its own",
    "conversation": "the conversation is the provider's, and its length is not known",
    "mcp_servers": "the provider calls tools, and reads what they answer",
    "plugins": "the provider adds searches",
    "previous_response_id": "the conversation is the provider's, and its length is not known",
    "prompt_id": "the prompt is kept elsewhere, and its length is not known",
    "search_parameters": "the provider adds searches",
}

_OWN_TOOLS: Final = frozenset(
    {"apply_patch", "computer", "computer_use_preview", "custom", "function", "local_shell"}
)
"""Tools that the caller runs: each of their answers comes with a call of its own."""
_OWN_STARTS: Final = ("bash_", "computer_", "memory_", "text_editor_")
_CAPPED: Final = frozenset(
    {"anthropic", "azure", "bedrock", "deepseek", "gemini", "groq", "openai", "vertex_ai"}
)
"""Providers whose limit of the output counts what is thought, as their documentation says."""

_IMAGE_TOKENS: Final = {"anthropic": 8_000, "azure": 12_000, "openai": 12_000}
"""Tokens of one image at most, by the rules that the providers publish: 10,000 patches at OpenAI,
4,784 tokens at Anthropic."""
_MINI: Final = 48_169
"""gpt-4o-mini: 2,833 and 5,667 for each of at most 8 tiles
(https://platform.openai.com/docs/guides/images-vision)."""


def by_tokens(asked: Asked) -> Bound:
    """Chats and their like."""
    given, kinds, fixed = given_tokens(asked)
    made = made_tokens(asked)
    return priced_tokens(asked, given, made, kinds, fixed)


class _Given:
    """What the arguments of one call give the model to read."""

    __slots__ = ("_asked", "fees", "rounds", "unknown", "weight")

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self.weight = Weight(asked.tokens_of)
        self.rounds = 1  # how often the provider may read all of it
        self.fees = 0
        self.unknown = ""

    def take(self, name: str, value: Any) -> None:
        """Add an argument."""
        if name in _READS:
            if name == "prompt" and isinstance(value, dict):
                self.unknown = "a prompt that the provider keeps"
            self.weight.read(value)
        elif name in _TOOLS:
            self.weight.add_tools(value)
            self._serve(value)
        elif name in _ELSEWHERE:
            if value:
                raise Unbounded(f"{name}: {_ELSEWHERE[name]}; leave it out")
        elif name == "web_search_options":
            self.fees += _searched(self._asked)
        else:
            if name == "config":  # Google's, with the tools in it
                self._serve(value.get("tools") if isinstance(value, Mapping) else None)
            self.weight.add_plain(value)

    def _serve(self, tools: Any) -> None:
        if tools:
            self.rounds, fees = _served(self._asked, tools)
            self.fees += fees

    def tokens(self) -> tuple[int, frozenset[str]]:
        """The most tokens, and what is among them beside text."""
        weight, model = self.weight, self._asked.model
        tokens, unknown = weight.tokens, self.unknown or weight.unknown
        if not (weight.images or weight.sounds or unknown) and self.rounds == 1:
            return tokens, _NONE
        kinds = set[str]()
        if weight.images:
            kinds.add("image")
            each = _image_tokens(model)
            tokens += weight.images * (each or 0)
            unknown = unknown or ("" if each else "an image")
        if weight.sounds:
            kinds.add("audio")
            tokens += weight.sounds
        if not unknown and self.rounds == 1:
            return tokens, frozenset(kinds)
        if model.most_in is None:
            what = unknown or "a tool that the provider runs"
            raise Unbounded(
                f"{what} can only be bounded by the context of {model.name}, and the price map has "
                "no max_input_tokens of it"
            )
        if unknown:  # the text is known, and what is not is no longer than the context
            tokens += model.most_in
            kinds |= ALL_KINDS
        return max(tokens, model.most_in) * self.rounds, frozenset(kinds)


def given_tokens(asked: Asked) -> tuple[int, frozenset[str], int]:
    """The most tokens of input, what is among them beside text, and 10⁻¹⁸ dollars of fees."""
    given = _Given(asked)
    for name, value in asked.kwargs.items():
        if value is not None and name not in _SILENT:
            given.take(name, value)
    tokens, kinds = given.tokens()
    return tokens, kinds, given.fees + _always(asked)


def _is_called(model: Model, part: str) -> bool:
    """Whether a part of a name is in the model's, or in that of the model behind a deployment."""
    return part in model.name or any(part in entry.key for entry in model.entries)


def _image_tokens(model: Model) -> int | None:
    if _is_called(model, "4o-mini"):
        return _MINI
    return _IMAGE_TOKENS.get(model.provider)


def _always(asked: Asked) -> int:
    """Fees of a call that asks for no tool."""
    model = asked.model
    name = model.name
    if model.own is not None:
        return 0
    if model.provider == "perplexity":
        if "citation_cost_per_token" in asked.entry.members:
            raise Unbounded(f"{name} searches as often as it likes")
        return fee(asked.entry, _SEARCH) or 0
    if model.provider == "groq" and _is_called(model, "compound"):
        raise Unbounded(f"{name} uses tools as often as it likes")
    if name.endswith(":online"):
        raise Unbounded(f"{name} searches as often as it likes")
    if _is_called(model, "search"):  # one search a request, with the model
        return fee(asked.entry, _SEARCH, "web_search_cost_per_request") or 0
    return 0


_SEARCH: Final = "search_context_cost_per_query"


def _searched(asked: Asked) -> int:
    """The fee of ``web_search_options``: one search of a model that searches once."""
    if asked.model.provider in ("openai", "azure") and _is_called(asked.model, "search"):
        return 0  # counted by ``_always``
    if asked.model.provider == "perplexity":
        return 0
    raise Unbounded("web_search_options: the provider searches as often as it likes")


def _served(asked: Asked, tools: Any) -> tuple[int, int]:
    """How often the provider may read the input again for tools that it runs, and their fees."""
    uses = 0
    fixed = 0
    for tool in tools if isinstance(tools, (list, tuple)) else (tools,):
        name = _run_by_provider(tool)
        if not name:
            continue
        most = _whole(tool.get("max_uses")) if isinstance(tool, Mapping) else None
        total = _whole(asked.kwargs.get("max_tool_calls"))
        counted = [count for count in (most, total) if count is not None]
        if not counted:
            raise Unbounded(
                f"the tool {name} is run by the provider as often as the model likes: give it "
                f"max_uses, or the call max_tool_calls"
            )
        price = _tool_fee(asked, name)
        uses += min(counted)
        fixed += price * min(counted)
    return uses + 1, fixed


def _run_by_provider(tool: Any) -> str:
    """The name of a tool that the provider runs; ``""``: the caller runs it."""
    if not isinstance(tool, Mapping):
        return ""
    kind = tool.get("type")
    if isinstance(kind, str):
        own = kind in _OWN_TOOLS or kind.startswith(_OWN_STARTS)
        return "" if own else kind
    if "function" in tool or "input_schema" in tool or "name" in tool:
        return ""
    declared = {"functionDeclarations", "function_declarations"}
    return next((str(name) for name in tool if name not in declared), "")


_FEES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("web_search", (_SEARCH, "web_search_cost_per_request")),
    ("code_execution", ("code_interpreter_cost_per_session",)),
    ("code_interpreter", ("code_interpreter_cost_per_session",)),
    ("file_search", ("file_search_cost_per_1k_calls",)),
    ("web_fetch", ()),
    ("mcp", ()),
    ("tool_search", ()),
)


def _tool_fee(asked: Asked, tool: str) -> int:
    """10⁻¹⁸ dollars of one use, at most."""
    own = asked.model.own
    for start, names in _FEES:
        if tool.startswith(start):
            if own is not None:
                return _own_fee(own, start)
            found = fee(asked.entry, *names) if names else 0
            if found is None and start == "code_execution":
                return 0
            if found is None:
                break
            return -(-found // 1_000) if "1k" in names[0] else found
    raise Unbounded(f"the tool {tool} of {asked.model.name} has no price")


_OWN_FEES: Final = {
    "code_execution": "container",
    "code_interpreter": "container",
    "file_search": "file_search",
    "web_search": "web_search",
}


def _own_fee(price: ModelPrice, tool: str) -> int:
    name = _OWN_FEES.get(tool)
    amount = getattr(price, name) if name else Decimal(0)
    if amount is None:
        if price.request is not None and price.input is None:
            return 0
        raise Unbounded(f"prices= has no {name}: give one")
    return atto(amount)


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


_CAPS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens")
_OTHER_CAPS: Final = frozenset(
    {
        "maxTokens",
        "max_gen_len",
        "max_length",
        "max_new_tokens",
        "max_tokens_to_sample",
        "num_predict",
        "num_tokens",
    }
)
"""Names that some providers have for it: a limit there may be above the others, and proves none."""
_HOLDERS: Final = frozenset({"config", "generation_config", "generationConfig"})


def made_tokens(asked: Asked) -> int:
    """The most tokens of output."""
    model, held = asked.model, _holders(asked.kwargs)
    caps = [told[name] for told in held for name in _CAPS if told.get(name) is not None]
    known = [cap for cap in caps if type(cap) is int and cap >= 0]
    capped = bool(caps) and len(known) == len(caps)
    if not capped or (model.reasons and model.provider not in _CAPPED):
        if model.most_out is None:
            raise Unbounded(
                f"the limit of the output does not count what {model.name} thinks, and the price "
                "map has no max_output_tokens of it"
                if capped
                else "the output has no limit; give the call max_tokens"
            )
        known.append(model.most_out)
    for told in held:
        known += [_other_cap(name, told[name]) for name in _OTHER_CAPS & told.keys()]
    made = max(known) * _answers(held)
    foreseen = asked.kwargs.get("prediction")
    if foreseen is not None:  # what was foreseen and is not there is billed as output
        weight = Weight()
        weight.add_plain(foreseen)
        made += weight.tokens
    return made


def _other_cap(name: str, value: Any) -> int:
    if value is not None and type(value) is not int:
        raise Unbounded(f"{name}={value!r} is no whole number")
    return value or 0


def _holders(kwargs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where limits may stand: among the arguments, and in Google's configuration."""
    if _HOLDERS.isdisjoint(kwargs):
        return [kwargs]
    told = [kwargs.get(name) for name in _HOLDERS]
    return [
        kwargs,
        *(
            each if isinstance(each, Mapping) else getattr(each, "__dict__", {})
            for each in told
            if each is not None
        ),
    ]


def _answers(held: list[Mapping[str, Any]]) -> int:
    """How many answers there are at most."""
    count = 1
    for told in held:
        for name in ("n", "best_of", "candidate_count", "candidateCount"):
            value = told.get(name)
            if value is not None:
                if type(value) is not int or value < 0:
                    raise Unbounded(f"{name}={value!r} is no whole number")
                count = max(count, value)
    return count


def priced_tokens(
    asked: Asked, given: int, made: int, kinds: frozenset[str], fixed: int = 0
) -> Bound:
    """Return the bound of a number of tokens; without a price it has none in money."""
    try:
        return _priced(asked, given, made, kinds, fixed)
    except Unbounded as exc:
        return Bound(None, given + made, 1, str(exc), given, made)


def _priced(asked: Asked, given: int, made: int, kinds: frozenset[str], fixed: int) -> Bound:
    model = asked.model
    if model.own is not None:
        return _by_own(model.own, given, made, fixed)
    prices = _ceiling(asked, given, kinds, _output_kinds(asked))
    if prices.given is None or (made and prices.made is None):
        side = "output" if prices.given is not None else "input"
        raise Unbounded(
            f"{model.name} has no price for its {side}; give it one by prices= of the client"
        )
    fees = picousd(fixed + prices.request)
    found = Bound(0, given + made, 1, "", given, made, prices.given, prices.made or 0, fees)
    return found._replace(usd=found.costs(given, made))


def _ceiling(asked: Asked, given: int, kinds: frozenset[str], out: frozenset[str]) -> Ceiling:
    """The highest of all entries, with what a region or a speed puts on top."""
    options = asked.options
    allowed = tiers(asked.kwargs.get("service_tier"), asked.call)
    ins, outs, requests = list[int](), list[int](), 0
    for entry in (asked.entry, *asked.model.entries[1:]):
        found = ceiling(entry, allowed, band(entry, given), kinds, out)
        uplift = _uplift(entry, options)
        for prices, price in ((ins, found.given), (outs, found.made)):
            if price is not None:
                prices.append(price if uplift is None else int(uplift * price) + 1)
        requests = max(requests, found.request)
    return Ceiling(max(ins, default=None), max(outs, default=None), requests)


def _uplift(entry: Entry, options: Mapping[str, Any]) -> Decimal | None:
    """``None``: 1."""
    if not options and "provider_specific_entry" not in entry.members:
        return None
    found = multiplier(entry, options)
    if found is None:
        raise Unbounded(f"{entry.key} has no price for speed=fast; leave it out")
    return None if found == 1 else found


def _output_kinds(asked: Asked) -> frozenset[str]:
    """What the model may write beside text: what was asked for, else all that it can."""
    kinds = asked.kwargs.get("modalities")
    if isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds):
        return frozenset(kind.lower() for kind in kinds) & ALL_KINDS
    return ALL_KINDS


def _by_own(price: ModelPrice, given: int, made: int, fixed: int) -> Bound:
    """By the user's price, of which what is not given costs nothing or is unknown."""
    per = Decimal(price.per)
    ins = [price.input, price.cache_read, price.cache_write]
    outs = [price.output, price.reasoning]
    by_tokens = price.input is not None or price.output is not None
    if by_tokens and price.input is None:
        raise Unbounded("prices= has no input: give one")
    if by_tokens and made and price.output is None:
        raise Unbounded("prices= has no output: give one")
    if not by_tokens and price.request is None:
        raise Unbounded("prices= has no price for a call of this kind: give one")
    into = max((atto(Decimal(each) / per) for each in ins if each is not None), default=0)
    out = max((atto(Decimal(each) / per) for each in outs if each is not None), default=0)
    fees = picousd(fixed + (atto(Decimal(price.request)) if price.request else 0))
    found = Bound(0, given + made, 1, "", given, made, into, out, fees)
    return found._replace(usd=found.costs(given, made))


def by_text(asked: Asked) -> Bound:
    """Text completions: each of several prompts is answered."""
    prompt = asked.kwargs.get("prompt")
    count = 1
    if isinstance(prompt, list) and prompt and type(prompt[0]) is not int:
        count = len(prompt)
    given, kinds, fixed = given_tokens(asked)
    made = made_tokens(asked) * count
    if asked.kwargs.get("echo"):
        made += given
    return priced_tokens(asked, given, made, kinds, fixed)
