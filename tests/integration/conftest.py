"""Servers that are started once for all of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.proxies import Proxy


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """LiteLLM's own proxy, or skip where it is not installed."""
    pytest.importorskip("litellm_proxy_extras", reason="needs litellm[proxy]")
    running = Proxy(tmp_path_factory.mktemp("proxy"))
    yield running
    running.close()
