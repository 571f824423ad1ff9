"""What LiteLLM leaves to the garbage collector, collected where nobody is blamed for it.

For some calls (embeddings, audio, moderation, batches) LiteLLM makes a client of its own and never
closes its connections.  pytest would report that as an error of whatever test runs when they go.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Set up before all else of a module, and so torn down after it, its event loop included."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            gc.collect()
