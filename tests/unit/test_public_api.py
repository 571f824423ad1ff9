"""What a user may rely on: the names, and what importing them costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import litellm_ledger
from litellm_ledger import _errors

# Changing this list is changing the public API: say so in CHANGELOG.md.
PUBLIC = [
    "AsyncUsageWriter",
    "Budget",
    "BudgetAlert",
    "BudgetExceeded",
    "BudgetStatus",
    "BudgetUnbounded",
    "CacheStatistics",
    "CacheStore",
    "CheckedCall",
    "CompletionStream",
    "DrainTimeout",
    "FlushTimeout",
    "InvalidRecord",
    "Ledger",
    "LedgerClosed",
    "LedgerError",
    "LedgerFailed",
    "LedgerPathError",
    "LedgerTimeout",
    "LedgerWarning",
    "LiteLLMCheck",
    "LiteLLMClient",
    "Mismatch",
    "MissingExtra",
    "ModelPrice",
    "QueueFull",
    "ResponseCache",
    "Retention",
    "SinkStatistics",
    "Statistics",
    "UnsupportedFormat",
    "UnsupportedPlatform",
    "UsageRecord",
    "UsageTracker",
    "WrongLoop",
    "__version__",
]


def loaded_by(code: str, at: str = "sys.modules") -> set[str]:
    """The modules that a fresh interpreter has loaded after running ``code``."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({at})))"
    # No limit but the suite's: LiteLLM alone takes more than a minute on a busy machine.
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


METHODS = {
    "AsyncUsageWriter": "accept accept_nowait ack aclose directory flush open state statistics",
    "CompletionStream": "aclose usage_record",
    "Ledger": "calls operation path paths places pruned records report segments sql tags unshipped"
    " verify",
    "LiteLLMClient": "aclose acompact_responses acompletion acreate_batch acreate_container "
    "acreate_fine_tuning_job adecisions aembedding aextraction agenerate_content "
    "agenerate_content_stream aget_responses aimage_edit aimage_generation "
    "aimage_variation allm_passthrough_route amoderation anthropic_messages aocr "
    "arealtime arerank aresponses aresponses_websocket aretrieve_batch asearch "
    "aspeech atext_completion atranscription avideo_edit avideo_extension "
    "avideo_generation avideo_remix budgets capture check_litellm flush interactions "
    "statistics tag usage vector_stores warm_up with_options",
    "ResponseCache": "statistics",
    "UsageTracker": "aclose directory flush open record record_nowait record_threadsafe report "
    "state statistics summary tag totals",
}
"""What a user sees of the classes that do something; the others are data and errors."""

USE = """
import asyncio, os, sys, tempfile
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
async def tracker():
    from litellm_ledger import UsageRecord, UsageTracker
    async with UsageTracker(tempfile.mkdtemp()) as tracker:
        await tracker.record(UsageRecord(model="m"))
        in_use.update(sys.modules)
async def client():
    from litellm_ledger import LiteLLMClient
    async with LiteLLMClient(tempfile.mkdtemp()) as client:
        await client.acompletion("gpt-4o", [], mock_response="hello")
        in_use.update(sys.modules)
in_use = set()
"""


def test_all_is_sorted_and_complete() -> None:
    assert litellm_ledger.__all__ == PUBLIC
    assert sorted(PUBLIC) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(litellm_ledger, name) is not None
    assert name in dir(litellm_ledger)


def test_every_error_is_public() -> None:
    assert set(_errors.__all__) <= set(PUBLIC)


def test_type_checkers_see_the_same_names_as_the_interpreter() -> None:
    tree = ast.parse(Path(litellm_ledger.__file__).read_bytes())
    seen = {
        alias.asname or alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted([*seen, "__version__"]) == PUBLIC
    for name, home in seen.items():
        home_module = import_module(f"litellm_ledger.{home}")
        assert getattr(home_module, name) is getattr(litellm_ledger, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'UsageTraker'"):
        litellm_ledger.UsageTraker  # noqa: B018


def test_importing_the_package_imports_neither_litellm_nor_asyncio() -> None:
    extra = loaded_by("import litellm_ledger") - loaded_by("pass")
    heavy = {"litellm", "asyncio", "pydantic", "httpx", "openai", "msgspec", "aiofiles", "anyio"}
    assert not extra & heavy
    assert len(extra) < 40, sorted(extra)


def test_the_tracker_works_without_litellm() -> None:
    code = (
        "import asyncio, tempfile\n"
        "from litellm_ledger import UsageRecord, UsageTracker\n"
        "async def main():\n"
        "    with tempfile.TemporaryDirectory() as directory:\n"
        "        async with UsageTracker(directory) as tracker:\n"
        "            await tracker.record(UsageRecord(model='m'))\n"
        "asyncio.run(main())"
    )
    assert not {"litellm", "openai", "httpx", "pydantic"} & loaded_by(code)


@pytest.mark.parametrize(
    "code",
    [
        "from litellm_ledger import LiteLLMClient; LiteLLMClient('usage')",
        "from litellm_ledger import Ledger; Ledger('usage')",
        "import litellm_ledger.testing",
        "import litellm_ledger.__main__",
    ],
)
def test_litellm_is_not_imported_before_the_first_call(code: str) -> None:
    assert "litellm" not in loaded_by(code)


def test_reading_a_ledger_needs_no_event_loop() -> None:
    assert "asyncio" not in loaded_by("from litellm_ledger import Ledger, UsageRecord")


def test_errors_can_be_caught_as_what_they_are_in_python_too() -> None:
    assert issubclass(litellm_ledger.LedgerTimeout, TimeoutError)
    assert issubclass(litellm_ledger.InvalidRecord, ValueError)
    assert issubclass(litellm_ledger.LedgerPathError, OSError)
    assert issubclass(litellm_ledger.WrongLoop, RuntimeError)
    assert issubclass(litellm_ledger.MissingExtra, ImportError)
    for name in _errors.__all__:
        error = getattr(litellm_ledger, name)
        if error is not litellm_ledger.LedgerWarning:
            assert issubclass(error, litellm_ledger.LedgerError)


@pytest.mark.parametrize("name", METHODS)
def test_a_class_shows_only_what_is_public(name: str, tmp_path: Path) -> None:
    kind = getattr(litellm_ledger, name)
    seen = {attribute for attribute in dir(kind) if not attribute.startswith("_")}
    if name != "CompletionStream":  # which no user makes
        made = kind() if name == "ResponseCache" else kind(tmp_path)
        seen |= {attribute for attribute in vars(made) if not attribute.startswith("_")}
    assert seen == set(METHODS[name].split())


@pytest.mark.parametrize(("use", "most"), [("tracker", 40), ("client", 90)])
def test_what_nobody_asked_for_is_not_loaded(use: str, most: int) -> None:
    loaded = loaded_by(f"{USE}\nasyncio.run({use}())", at="in_use")  # a close makes a manifest
    ours = {name for name in loaded if name.split(".")[0] == "litellm_ledger"}
    assert len(ours) <= most, sorted(ours)  # a call of the client's is priced
    for room in ("_archive", "_cache", "_cli", "_maintenance", "_page", "_reading", "_reports"):
        assert f"litellm_ledger.{room}" not in ours
