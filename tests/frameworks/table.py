"""The table of frameworks in docs/capture.md: what capture has recorded of each.

Owns its words. Pure: it reads what `tests.frameworks.trial` has told, kept in `seen.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.frameworks.asking import FRAMEWORKS

__all__ = ["cell", "faults", "table", "with_table"]

CASES = {
    "call": "call",
    "call, cancelled": "cancelled",
    "stream": "stream",
    "stream, cancelled": "cancelled",
    "sync call": "synchronous call",
    "sync stream": "synchronous stream",
    "sync stream, left": "left",
}
_MARKED = re.compile(r"(?<=<!-- frameworks -->\n).*?(?=<!-- end -->)", re.DOTALL)


def cell(case: Mapping[str, Any]) -> str:
    """What is on record of one case, in words."""
    sent, records = case["sent"], case["records"]
    if not records:
        return "**nothing**"
    said = [] if len(records) == len(sent) else [f"**{len(records)} of {len(sent)} requests**"]
    said += [f"`{status}`" for status in sorted({one["status"] for one in records} - {"ok"})]
    ended = [record for record in records if record["status"] == "ok"]
    counted = [tokens for tokens in sent if tokens is not None]
    if any(record["usage_source"] == "estimated" for record in ended):
        said.append("estimated")
    elif ended and [[one["input_tokens"], one["output_tokens"]] for one in ended] != counted:
        said.append("**other tokens**")
    if any(record["cost"] is None for record in ended):
        said.append("**no cost**")
    if not all(record["tags"] for record in records):
        said.append("**no tags**")
    return ", ".join(said) or "all"


def faults(found: Mapping[str, Any]) -> list[str]:
    """What no framework may have: calls without a record, without tags, without a cost."""
    return [
        f"{name}: {case}: {cell(told)}"
        for name, framework in found.items()
        for case, told in framework["cases"].items()
        if "**" in cell(told)
    ]


def table(found: Mapping[str, Any]) -> str:
    """The table as it stands in the page."""
    heads = ["framework", "versions", *CASES.values()]
    lines = [heads, ["---"] * len(heads)]
    for name, told in found.items():
        framework = FRAMEWORKS[name]
        versions = told["versions"]
        at = f"{versions[framework.package]} on LiteLLM {versions['litellm']}"
        cases = told["cases"]
        cells = [cell(cases[case]) if case in cases else "–" for case in CASES]
        lines.append([framework.name, at, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_table(page: str, found: Mapping[str, Any]) -> str:
    """The page with the table as it should be."""
    return _MARKED.sub(lambda _: table(found), page, count=1)
