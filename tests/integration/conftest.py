"""Servers that are started once for many of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.proxies import PROXY_PYTHON, Proxy

from litellm_ledger._litellm.load import load_sync
from litellm_ledger.testing import OpenAIServer


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    """A server that speaks OpenAI's API, for all tests of a module."""
    load_sync().suppress_debug_info = True  # type: ignore[attr-defined]
    with OpenAIServer() as running:
        yield running


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """LiteLLM's own proxy, or skip where it is not installed."""
    if not PROXY_PYTHON.exists():
        pytest.skip(f"needs LiteLLM's proxy in an environment of its own ({PROXY_PYTHON})")
    running = Proxy(tmp_path_factory.mktemp("proxy"))
    yield running
    running.close()
