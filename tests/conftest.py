"""Shared by all tests. It sets the environment before anything imports LiteLLM."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests import tally as tallies
from tests.ledger_by_hand import HandMade
from tests.ledgers import directory

from litellm_ledger._runtime import process
from litellm_ledger._writing.writer import Writer

# Otherwise `import litellm` fetches its price map over the network and swaps it while tests run.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

# A time limit per example says more about the machine than about the code.
settings.register_profile("ledger", deadline=None)
settings.load_profile("ledger")

# A shell that starts us in the background has SIGINT ignored, and every child would inherit that:
# no Ctrl-C to test.  A handler of ours is none after exec, so children begin with the default.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup's doing
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is remembered outside a ledger: not in the home of the person who runs the tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("configuration"))


LONG = (
    "test_engine.py",
    "test_benchmarks.py",
    "test_must_show.py",
    "test_examples.py",
    "test_proxy.py",
    "test_litellm_seam.py",
    "test_attempts.py",
    "test_manifests.py",
    "test_litellm_check.py",
    "test_compaction_kills.py",
    "test_token_prices.py",
    "test_connections.py",
    "test_lifecycles.py",
    "test_fastapi.py",
    "test_power.py",
    "test_archive.py",
    "test_sql.py",
    "test_exits.py",
    "test_reprice.py",
    "test_ask.py",
    "test_many_groups.py",
    "test_further_calls.py",
    "test_signals.py",
    "test_prices.py",
    "test_disconnect.py",
    "test_cache.py",
    "test_abandoned_streams.py",
    "test_writer.py",
    "test_capture.py",
    "test_guarantees.py",
    "test_wire.py",
    "test_calls.py",
)
"""Files that take the longest, longest first: no process shall begin one when the others end."""


@pytest.hookimpl(trylast=True)  # after pytest-randomly, whose order the other files keep
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(autouse=True)
def no_writer_outlives_its_test() -> Iterator[None]:
    """A writer stays open after its close while a call is in flight, until the process ends.  Here
    that is the end of the test: when the interpreter ends, its directory is gone."""
    before = set(process.writers())
    yield
    for writer in set(process.writers()) - before:
        process.leave(writer)
        if isinstance(writer, Writer):
            writer.forget_parent()  # as a child does, which has no part in it


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    """One writer's files, to be made by hand."""
    return HandMade(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty ledger."""
    return directory(tmp_path / "usage")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> tallies.Tally:
    """Note what a test tried and what it found lost."""

    def note(method: str, *, tried: int, promised: int, lost: int = 0) -> None:
        request.node.user_properties.append(("tally", [method, tried, promised, lost]))

    return note


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-matrix", action="store_true", help="write what was tried to docs/MATRIX.md"
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    reports = {
        outcome: [r for r in terminalreporter.getreports(outcome) if r.when == "call"]
        for outcome in ("passed", "failed")
    }
    total = tallies.add_up(p for kind in reports.values() for r in kind for p in r.user_properties)
    if config.getoption("--write-matrix") and not hasattr(config, "workerinput"):
        outcome = ", ".join(f"{len(kind):,} tests {name}" for name, kind in reports.items())
        if config.getoption("keyword"):
            outcome += f" (a part of the matrix: -k '{config.getoption('keyword')}')"
        page = tallies.page(total, outcome, time.monotonic() - tallies.BEGAN)
        tallies.PAGE.write_text(page, "utf-8")
    for method, (tried, promised, lost) in total.items():
        terminalreporter.write_line(
            f"{method}: {tried:,} faults tried, {promised:,} records promised, {lost:,} lost"
        )
