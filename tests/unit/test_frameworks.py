"""The table of frameworks in the page is what `make frameworks` has seen last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.frameworks.asking import FRAMEWORKS
from tests.frameworks.table import CASES, cell, faults, table, with_table

ROOT = Path(__file__).parents[2]
SEEN = json.loads((ROOT / "tests" / "frameworks" / "seen.json").read_text())
RECORD = {
    "status": "ok",
    "usage_source": "provider",
    "input_tokens": 4,
    "output_tokens": 5,
    "cost": "0.0000036",
    "cost_source": "price_map",
    "tags": True,
}


def case(*records: dict[str, Any], sent: Any = ((4, 5),)) -> dict[str, Any]:
    told = [{**RECORD, **record} for record in records]
    return {"sent": [tokens and list(tokens) for tokens in sent], "records": told}


def test_the_page_shows_what_was_seen_last() -> None:
    page = (ROOT / "docs" / "capture.md").read_text()
    assert table(SEEN) in page
    assert with_table(page, SEEN) == page, "run make frameworks"


def test_every_framework_was_tried_and_none_has_a_fault() -> None:
    assert set(SEEN) == set(FRAMEWORKS)
    assert faults(SEEN) == []
    for framework in SEEN.values():
        assert set(framework["cases"]) <= set(CASES)
        assert "call" in framework["cases"] or "sync call" in framework["cases"]


def test_the_makefile_and_the_requirements_name_every_framework() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"\nFRAMEWORKS := {' '.join(sorted(FRAMEWORKS))}\n" in makefile
    for name, framework in FRAMEWORKS.items():
        version = SEEN[name]["versions"][framework.package]
        pins = (ROOT / "requirements" / "frameworks" / f"{name}.txt").read_text().splitlines()
        assert f"{framework.package}=={version}" in [pin.partition(" ;")[0] for pin in pins]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (case({}), "all"),
        (case({}, {}, sent=((4, 5), (4, 5))), "all"),
        (case(), "**nothing**"),
        (case({}, sent=((4, 5), (4, 5))), "**1 of 2 requests**, **other tokens**"),
        (case({}, {}), "**2 of 1 requests**, **other tokens**"),
        (case({"input_tokens": 5}), "**other tokens**"),
        (case({"usage_source": "estimated", "input_tokens": 9}, sent=(None,)), "estimated"),
        (case({"cost": None}), "**no cost**"),
        (case({"tags": False}), "**no tags**"),
        (case({"status": "cancelled", "cost": None}, sent=(None,)), "`cancelled`"),
        (case({"status": "abandoned", "tags": False}, sent=(None,)), "`abandoned`, **no tags**"),
    ],
)
def test_a_cell_says_what_is_missing(told: dict[str, Any], words: str) -> None:
    assert cell(told) == words
