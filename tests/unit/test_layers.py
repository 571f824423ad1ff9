"""What `ls` shows is the architecture: rooms in one order, imports that point one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import litellm_ledger

PACKAGE = Path(litellm_ledger.__file__).parent

# From the ground up: a room imports from itself and from those before it.
ORDER = [
    "_errors",
    "_records",
    "_prices",
    "_aggregates",
    "_runtime",
    "_storage",
    "_archive",
    "_reading",
    "_maintenance",
    "_postgres",
    "_budgets",
    "_shipping",
    "_warehouse",
    "_objects",
    "_reports",
    "_writing",
    "_tracking",
    "_litellm",
    "_calls",
    "_cache",
    "_client",
    "_telemetry",
    "testing",
    "_selfcheck",
    "_asgi",
    "asgi",
    "fastapi",
    "otel",
    "_page",
    "_web",
    "web",
    "_cli",
    "__init__",
    "__main__",
]
RANK = {room: rank for rank, room in enumerate(ORDER)}

# Bytes, numbers and tables; no I/O, no clock, no loop.  Four rooms are pure, and these modules.
PURE_ROOMS = {"_errors", "_records", "_prices", "_aggregates"}
PURE = {
    "_archive.columns",
    "_budgets.budget",
    "_budgets.definitions",
    "_budgets.windows",
    "_budgets.bound",
    "_budgets.ceiling",
    "_budgets.hold",
    "_budgets.token_calls",
    "_budgets.unit_calls",
    "_budgets.weight",
    "_asgi.identity",
    "_asgi.protocol",
    "_asgi.routes",
    "_cache.packing",
    "_calls.options",
    "_litellm.anthropic_events",
    "_litellm.bill",
    "_litellm.content",
    "_litellm.failures",
    "_litellm.members",
    "_litellm.outcome",
    "_litellm.stream_readers",
    "_litellm.units",
    "_litellm.usage",
    "_maintenance.salvage",
    "_page.drawing",
    "_page.time_axis",
    "_reports.dataframes",
    "_runtime.misuse",
    "_web.asks",
    "_web.openapi",
    "_web.viewer",
    "_telemetry.capped",
    "_telemetry.conventions",
    "_telemetry.instruments",
    "_telemetry.spans",
    "_writing.state",
}
IMPURE = {"aiofiles", "anyio", "asyncio", "io", "litellm", "os", "pathlib", "threading", "time"}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module by its dotted name; a package is ``_room.__init__``."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_bytes())
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def room(name: str) -> str:
    return name.partition(".")[0]


def imports(name: str, tree: ast.AST) -> Iterator[str]:
    """Every module imported at any depth, for types as well; ours without the package's name."""
    parent = name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_ours(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f".{parent}".rstrip(".") if node.level else _ours(node.module or "")
            if node.level and node.module:
                yield f"{base}.{node.module}"
            elif node.level or base == ".":
                yield from (f"{base.rstrip('.')}.{alias.name}" for alias in node.names)
            elif f"{base[1:]}.__init__" in modules():  # from litellm_ledger._room import module
                yield from (f"{base}.{alias.name}" for alias in node.names)
            else:
                yield base
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield str(getattr(node.args[0], "value", ""))


def _without_types(tree: ast.Module) -> ast.Module:
    """The module without what only a type checker reads."""
    kept = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return ast.Module(kept, [])


def _ours(name: str) -> str:
    """A module of ours with a dot in front: ``.`` is the front door."""
    if name == "litellm_ledger":
        return "."
    return name.removeprefix("litellm_ledger") if name.startswith("litellm_ledger.") else name


def ours(name: str, tree: ast.AST) -> set[str]:
    """What a module imports of ours, by dotted name."""
    found = set()
    for full in imports(name, tree):
        if full.startswith("."):
            used = full[1:]
            known = next((n for n in (used, f"{used}.__init__") if n in modules()), None)
            found.add(known or (used if room(used) in RANK and "." in used else "__init__"))
    return found


def complaints(trees: dict[str, ast.Module]) -> list[str]:
    found = []
    for name, tree in trees.items():
        mine = room(name)
        for used in sorted(ours(name, tree)):
            if used == "__init__":
                if RANK[mine] < RANK["testing"]:
                    found.append(f"{name} imports through the front door")
            elif RANK[room(used)] > RANK[mine]:
                found.append(f"{name} imports {used}, which is further up")
        at_run_time = imports(name, _without_types(tree))
        outside = {full.partition(".")[0] for full in at_run_time if not full.startswith(".")}
        if mine in PURE_ROOMS or name in PURE:
            found += [f"{name} is pure and imports {impure}" for impure in sorted(outside & IMPURE)]
        if "litellm" in outside and mine != "_litellm":
            found.append(f"{name} imports litellm")
    return found


def test_every_room_has_its_place() -> None:
    assert sorted({room(name) for name in modules()}) == sorted(RANK)
    assert set(modules()) >= PURE


def test_imports_point_one_way() -> None:
    assert complaints(modules()) == []


def test_no_two_modules_import_each_other_even_indirectly() -> None:
    graph = {name: ours(name, tree) - {"__init__"} for name, tree in modules().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(f"a circle of imports: {' -> '.join(exc.args[1])}")


@pytest.mark.parametrize(
    ("module", "code", "complaint"),
    [
        (
            "_storage.segment",
            "from litellm_ledger._writing.writer import X",
            "_storage.segment imports _writing.writer, which is further up",
        ),
        (
            "_tracking.tracker",
            "def f():\n from litellm_ledger._cli import app",
            "_tracking.tracker imports _cli.app, which is further up",
        ),
        (
            "_storage.segment",
            "if TYPE_CHECKING:\n from litellm_ledger._cli.app import app",
            "_storage.segment imports _cli.app, which is further up",
        ),
        ("_records.record", "import asyncio", "_records.record is pure and imports asyncio"),
        ("_records.money", "def f():\n import time", "_records.money is pure and imports time"),
        ("_litellm.outcome", "from os import path", "_litellm.outcome is pure and imports os"),
        ("_client.client", "def f():\n import litellm", "_client.client imports litellm"),
        ("_calls.stream", "import_module('litellm.types')", "_calls.stream imports litellm"),
        (
            "_writing.writer",
            "from litellm_ledger import UsageTracker",
            "_writing.writer imports through the front door",
        ),
    ],
)
def test_a_step_back_is_seen(module: str, code: str, complaint: str) -> None:
    assert complaints({module: ast.parse(code)}) == [complaint]


def test_types_of_litellm_come_from_where_mypy_follows_them() -> None:
    """It skips the rest of LiteLLM (pyproject.toml), whose names would come into ours as Any."""
    statements = [node for tree in modules().values() for node in ast.walk(tree)]
    named = {node.module or "" for node in statements if isinstance(node, ast.ImportFrom)}
    named |= {
        alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names
    }
    of_litellm = {tuple(name.split(".")[:2]) for name in named if name.split(".")[0] == "litellm"}
    assert of_litellm == {("litellm", "types")}


def test_every_room_says_what_it_owns_and_what_it_never_does() -> None:
    for name, tree in modules().items():
        if name.endswith(".__init__") and name != "testing.__init__":
            said = ast.get_docstring(tree) or ""
            assert "Owns " in said, name
            assert "Never " in said, name


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
