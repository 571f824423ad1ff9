"""Anthropic's ``usage.iterations``: one answer that took several requests.

Owns the rule that the tokens of such an answer are those of all its iterations.  With compaction or
the advisor tool, the counts beside ``iterations`` are those of the last request, or of one model;
the bill is for all.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["parts", "summed"]

_COUNTS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)
_ONCE: Final = "server_tool_use"
"""Counted for the whole answer, not for each iteration."""


def parts(usage: Any) -> list[dict[str, Any]]:
    """Return the usage of each iteration, or nothing if there are none.

    Each has what the usage says of all of them (tier, region), its own counts, and ``model`` where
    another model wrote it.  The last one has the tools that were used.  LiteLLM's own type, which
    has ``prompt_tokens``, holds the sum already and has no parts.
    """
    if not isinstance(usage, Mapping) or "prompt_tokens" in usage:
        return []
    found = usage.get("iterations")
    if not isinstance(found, list) or not found:
        return []
    if not all(isinstance(iteration, Mapping) for iteration in found):
        return []
    left_out = {"iterations", "cache_creation", _ONCE, *_COUNTS}
    shared = {name: value for name, value in usage.items() if name not in left_out}
    split = [{**shared, **dict.fromkeys(_COUNTS, 0), **_known(iteration)} for iteration in found]
    if usage.get(_ONCE) is not None:
        split[-1][_ONCE] = usage[_ONCE]
    return split


def summed(usage: Any) -> Any:
    """Return the usage with the counts of all its iterations; any other usage as it is."""
    split = parts(usage)
    if not split:
        return usage
    total = {name: value for name, value in usage.items() if name != "iterations"}
    for name in _COUNTS:
        counts = [part[name] for part in split]
        # What is no count makes the sum unknown: a part of it would look like all of it.
        total[name] = (
            sum(counts) if all(type(count) is int and count >= 0 for count in counts) else None
        )
    written = [part["cache_creation"] for part in split if part.get("cache_creation")]
    if written and all(isinstance(creation, Mapping) for creation in written):
        total["cache_creation"] = {
            name: sum(count for creation in written if type(count := creation.get(name)) is int)
            for name in {name for creation in written for name in creation}
        }
    return total


def _known(iteration: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in iteration.items() if value is not None}
