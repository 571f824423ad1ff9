"""Imports point down the line and never back; pure modules touch no clock, no loop, no file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import litellm_ledger

PACKAGE = Path(litellm_ledger.__file__).parent

# From the ground up.  A module imports from its own layer or from one below.
LINE = {
    "pure": {
        "_background",
        "_checks",
        "_columns",
        "_content",
        "_errors",
        "_escaping",
        "_frame",
        "_gaps",
        "_groups",
        "_hints",
        "_iterations",
        "_layout",
        "_line",
        "_members",
        "_money",
        "_nesting",
        "_options",
        "_outcome",
        "_outcome_bill",
        "_outcome_sse",
        "_outcome_units",
        "_packing",
        "_page_time",
        "_periods",
        "_plurals",
        "_prices",
        "_question",
        "_record",
        "_retry",
        "_salvage",
        "_scan",
        "_selection",
        "_sparks",
        "_spans",
        "_spread",
        "_state",
        "_statistics",
        "_tabular",
        "_tag_values",
        "_totals",
    },
    "disk": {"_duck", "_fs", "_live", "_mount", "_paths", "_segment", "_version"},
    "ledger": {
        "_archive",
        "_compacting",
        "_dead_writer",
        "_directory",
        "_doctor",
        "_follow",
        "_history",
        "_in_flight",
        "_keeping",
        "_last_written",
        "_ledger",
        "_listing",
        "_querying",
        "_reading",
        "_recovery",
        "_relation",
        "_report",
        "_reporting",
        "_short_ids",
        "_sql",
        "_staging",
        "_survey",
        "_surveyors",
        "_verdict",
        "_verify",
    },
    "loop": {
        "_cache",
        "_cache_store",
        "_caching",
        "_closing",
        "_executor",
        "_flights",
        "_limits",
        "_process",
        "_waiters",
    },
    "writer": {"_backlog", "_intake", "_late", "_queue", "_writer", "_writing"},
    "tracker": {"_signals", "_tags", "_tracker"},
    "litellm": {
        "_litellm",
        "_litellm_batches",
        "_litellm_cost",
        "_litellm_globals",
        "_litellm_hooks",
        "_litellm_http",
        "_litellm_needs",
        "_litellm_options",
        "_litellm_strays",
    },
    "client": {
        "_asker",
        "_attempt",
        "_batches",
        "_cache_entry",
        "_cache_key",
        "_cached",
        "_cached_stream",
        "_calling",
        "_calls",
        "_capture",
        "_client",
        "_client_calls",
        "_client_jobs",
        "_core",
        "_draining",
        "_handing",
        "_operation",
        "_ours",
        "_pricing",
        "_recorded",
        "_replay",
        "_seam_check",
        "_stream",
        "_stream_readers",
    },
    "doors": {
        "__init__",
        "__main__",
        "_asking",
        "_checking",
        "_cli",
        "_cli_health",
        "_cli_records",
        "_cli_reports",
        "_csv_by_database",
        "_csv_lines",
        "_exporting",
        "_flags",
        "_page",
        "_page_data",
        "_printing",
        "_printing_health",
        "_printing_report",
        "_printing_sql",
        "_progress",
        "_seam_cases",
        "_seam_run",
        "_tables",
        "fastapi",
        "testing.__init__",
        "testing.__main__",
        "testing._answers",
        "testing._app",
        "testing._behaviour",
        "testing._disk",
        "testing._endpoints",
        "testing._journal",
        "testing._server",
    },
}
RANK = {name: rank for rank, names in enumerate(LINE.values()) for name in names}
IMPURE = {"aiofiles", "anyio", "asyncio", "io", "litellm", "os", "pathlib", "threading", "time"}


@cache
def modules() -> dict[str, ast.Module]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_bytes())
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module imported at run time, at any depth; ours begin with a dot."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(ast.Module(node.orelse, []))
        elif isinstance(node, ast.Import):
            yield from (_ours(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.module or node.module == "litellm_ledger":  # from . import _process
                yield from (f".{alias.name}" for alias in node.names)
            else:
                yield _ours("." * node.level + (node.module or ""))
        else:
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                name = node.args[0]
                if isinstance(name, ast.Constant):
                    yield str(name.value)
            yield from imports(node)


def _ours(name: str) -> str:
    return name.removeprefix("litellm_ledger") if name.startswith("litellm_ledger.") else name


def ours(tree: ast.Module) -> set[str]:
    found = {name[1:] for name in imports(tree) if name.startswith(".")}
    known = {name if name in RANK else f"{name}.__init__" for name in found}
    return {name if name in RANK else "__init__" for name in known}  # a public name: the front door


def complaints(trees: dict[str, ast.Module]) -> list[str]:
    found = []
    for name, tree in trees.items():
        for used in sorted(ours(tree)):
            if used == "__init__":
                if RANK[name] < RANK["__init__"]:
                    found.append(f"{name} imports through the front door")
            elif RANK[used] > RANK[name]:
                found.append(f"{name} imports {used}, which is further up")
        outside = {full.partition(".")[0] for full in imports(tree) if not full.startswith(".")}
        if name in LINE["pure"]:
            found += [f"{name} is pure and imports {impure}" for impure in sorted(outside & IMPURE)]
        if "litellm" in outside and not name.startswith("_litellm"):
            found.append(f"{name} imports litellm")
    return found


def test_every_module_has_its_place_in_the_line() -> None:
    assert sorted(modules()) == sorted(RANK)


def test_imports_point_down_the_line() -> None:
    assert complaints(modules()) == []


def test_no_two_modules_import_each_other_even_indirectly() -> None:
    graph = {name: ours(tree) - {"__init__"} for name, tree in modules().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(f"a circle of imports: {' -> '.join(exc.args[1])}")


@pytest.mark.parametrize(
    ("module", "code", "complaint"),
    [
        ("_segment", "from ._writer import X", "_segment imports _writer, which is further up"),
        ("_tracker", "def f():\n from . import _cli", "_tracker imports _cli, which is further up"),
        ("_record", "import asyncio", "_record is pure and imports asyncio"),
        ("_money", "def f():\n import time", "_money is pure and imports time"),
        ("_scan", "from os import path", "_scan is pure and imports os"),
        ("_client", "def f():\n import litellm", "_client imports litellm"),
        ("_stream", "import_module('litellm.types')", "_stream imports litellm"),
        ("_writer", "from . import UsageTracker", "_writer imports through the front door"),
    ],
)  # fmt: skip
def test_a_step_back_is_seen(module: str, code: str, complaint: str) -> None:
    assert complaints({module: ast.parse(code)}) == [complaint]


def test_what_only_types_need_is_no_import() -> None:
    code = "if TYPE_CHECKING:\n import litellm\n from ._cli import app\nelse:\n import json"
    assert complaints({"_segment": ast.parse(code)}) == []


def test_every_module_says_in_its_first_paragraph_what_it_owns() -> None:
    silent = [name for name, tree in modules().items() if not ast.get_docstring(tree)]
    assert [name for name in silent if not name.endswith("__")] == []


def test_every_all_is_sorted() -> None:
    for name, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                exported = ast.literal_eval(node.value)
                assert list(exported) == sorted(exported, key=_isort_style), name


def _isort_style(name: str) -> tuple[int, str]:
    """As ruff sorts ``__all__``: constants, then classes, then the rest."""
    kind = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return kind, name
