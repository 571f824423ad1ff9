"""What LiteLLM leaves to the garbage collector, collected where nobody is blamed for it.

The clients of calls that do not go through us stay in its cache after their loop has gone. Its
logging reads the output of every batch that is done with a client that it never closes. pytest
would report that as an error of whatever test runs when their connections go.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

from litellm_ledger._litellm.load import load_sync


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Set up before all else of a module, and so torn down after it, its event loop included."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_sync().in_memory_llm_clients_cache.flush_cache()
        for _ in range(3):
            gc.collect()
