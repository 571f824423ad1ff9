"""Where the examples send their calls: to the provider you name, else to a server of their own.

python examples/quickstart.py                          a local server, started here; no key
OPENAI_API_KEY=sk-… python examples/quickstart.py      OpenAI, a fraction of a cent
python examples/quickstart.py http://localhost:8000/v1 any server that speaks OpenAI's API
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def provider() -> Iterator[dict[str, Any]]:
    """Yield what every call needs besides its messages: ``model``, ``api_base``, ``api_key``."""
    base = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("OPENAI_API_BASE")
    key = os.environ.get("OPENAI_API_KEY")
    model = "openai/gpt-4o-mini"
    if base or key:
        yield {"model": model, "api_base": base, "api_key": key or "none"}
    else:
        try:
            from litellm_ledger.testing import OpenAIServer
        except ImportError as exc:
            sys.exit(
                f"{exc}\nor set OPENAI_API_KEY, or give the address of a server as an argument"
            )
        with OpenAIServer() as server:
            yield {"model": model, "api_base": server.base_url, "api_key": "none"}
