"""LiteLLM's internals: which of those that are used here does the installed version lack?"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import litellm_ledger
from litellm_ledger._litellm import internals
from litellm_ledger._litellm.internals import NAMES, internal

HERE = Path(litellm_ledger.__file__).parent / "_litellm"

# Attributes are looked up on objects that LiteLLM makes: that its source spells them is what can be
# seen without one.
SPELLED = {
    "litellm": internals.CALLBACK_LISTS,
    "litellm.litellm_core_utils.litellm_logging": (
        internals.COST_CALCULATORS[-1],
        *(name.rpartition(".")[2] for name in internals.LOGGING_TASKS if "." in name),
    ),
    "litellm.litellm_core_utils.logging_worker": (internals.BOUND_LOOP,),
    "litellm.llms.custom_httpx.aiohttp_handler": (internals.OWNS_SESSION,),
    "litellm.llms.custom_httpx.aiohttp_transport": (internals.OWNS_SESSION,),
    "litellm.llms.custom_httpx.http_handler": (internals.OWNS_CLIENT,),
    "litellm.types.utils": (internals.HIDDEN,),
    "litellm.utils": ("_client_async_logging_helper", "wrapper_async"),
}


@pytest.mark.parametrize("name", NAMES)
def test_litellm_has_it(name: str) -> None:
    assert internal(name) is not None


@pytest.mark.parametrize("module", SPELLED)
def test_litellm_spells_them(module: str) -> None:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    words = set(re.findall(r"\w+", Path(spec.origin).read_text()))
    assert [name for name in SPELLED[module] if name not in words] == []


@pytest.mark.parametrize(
    "names",
    [
        *((name,) for name in internals.FIRST_CALL),
        *internals.MCP_CHAT,
        *internals.MCP_RESPONSES,
        *internals.MESSAGES_STREAM,
    ],
)
def test_litellm_has_the_module_under_one_of_its_names(names: tuple[str, ...]) -> None:
    assert any(_is_there(name) for name in names)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor the package around it
        return False


def test_no_other_module_spells_an_internal() -> None:
    names = {path.name: set(_names(path)) for path in HERE.glob("*.py")}
    known = names.pop("internals.py") - set(NAMES)
    assert "litellm.utils" in known
    assert internals.HIDDEN in known
    for name, others in names.items():
        modules = {other for other in others if other.startswith("litellm.")}
        assert not (modules | others & known), name


def _names(path: Path) -> Iterator[str]:
    """Texts that are a module of LiteLLM's, or a name with an underscore in front."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and re.fullmatch(r"litellm(\.\w+)+|_\w+", text):
            yield text
