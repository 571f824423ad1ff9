"""The seam to LiteLLM: the one module that imports it, and not before somebody asks.

Owns the import (off the event loop, without the fetch of the price map over the network), the
warm-up, the name of the price list in use and the warning when that list was fetched.  It never
sets one of LiteLLM's globals, registers no callback and makes no model call.  ``_litellm.costs``
and ``_litellm.connections`` work on the module it hands out.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib
import json
import logging
import os
import sys
import threading
from types import ModuleType
from typing import Any, Final

import msgspec

from .internals import FIRST_CALL, internal

__all__ = [
    "expect_fetched_prices",
    "load",
    "load_sync",
    "loaded",
    "price_version",
    "version",
    "warm_up",
]

_log = logging.getLogger("litellm_ledger")

_LOCAL_PRICES: Final = "LITELLM_LOCAL_MODEL_COST_MAP"

_import_lock: Final = threading.Lock()
_ready: ModuleType | None = None


# --- Import ----------------------------------------------------------------------------------


def loaded() -> ModuleType | None:
    """LiteLLM if anybody has imported it to the end, else ``None``; never imports."""
    module = sys.modules.get("litellm")
    if module is None or getattr(module.__spec__, "_initializing", False):
        return None
    return module


def load_sync(*, fetch_prices: bool = False) -> ModuleType:
    """Import LiteLLM, once in this process: 2 to 5 seconds the first time, then under 1 µs.

    A LiteLLM that was imported before is used as it is.  With ``fetch_prices`` it may fetch its
    price map over the network meanwhile (up to 5 s more).  Otherwise the map in its package is
    used, unless ``LITELLM_LOCAL_MODEL_COST_MAP`` is in the environment: then its value decides.
    """
    global _ready
    if _ready is not None:
        return _ready
    with _import_lock:
        if _ready is None:
            ours = not fetch_prices and loaded() is None and _LOCAL_PRICES not in os.environ
            if ours:
                os.environ[_LOCAL_PRICES] = "True"
            try:
                module = importlib.import_module("litellm")
            finally:
                if ours:
                    os.environ.pop(_LOCAL_PRICES, None)
            if fetch_prices:
                expect_fetched_prices()
            _price_version(module)  # 10 ms that no call shall pay
            _ready = module
    return _ready


async def load(*, fetch_prices: bool = False) -> ModuleType:
    """``load_sync`` off the loop, for any number of tasks, loops and threads at once.

    Cancelling stops the waiting, not the import: Python cannot abandon one half-way.
    """
    if _ready is not None:
        return _ready
    return await asyncio.to_thread(load_sync, fetch_prices=fetch_prices)


async def warm_up(*, fetch_prices: bool = False) -> None:
    """Do in a thread what would make the first call stall the loop.  Changes nothing but time."""
    await asyncio.to_thread(_warm_up, fetch_prices)


def _warm_up(fetch_prices: bool) -> None:
    litellm: Any = load_sync(fetch_prices=fetch_prices)
    for name in FIRST_CALL:
        try:
            importlib.import_module(name)
        except Exception:  # another version keeps it elsewhere: then the first call pays
            pass
    try:
        litellm.token_counter(model="gpt-4o-mini", messages=[{"role": "user", "content": "a"}])
        usage = litellm.Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
        answer = litellm.ModelResponse(model="gpt-4o-mini", usage=usage)
        litellm.completion_cost(completion_response=answer, model="gpt-4o-mini")
        internal("get_ssl_configuration")()
    except Exception:
        pass


# --- The price list in use -------------------------------------------------------------------

_version_lock: Final = threading.Lock()
_version: tuple[Any, int, str] | None = None


def price_version() -> str:
    """LiteLLM's version and a hash of its price map, as ``litellm-1.106.2+3f2a9c1d``.

    Computed when LiteLLM is loaded (10 ms) and again when ``litellm.model_cost`` is another object
    or another size, as after a fetch or ``register_model``.  A price changed in place is not seen.
    """
    return _price_version(load_sync())


def _price_version(litellm: Any) -> str:
    global _version
    prices = litellm.model_cost
    known = _version
    if known is not None and known[0] is prices and known[1] == len(prices):
        return known[2]
    with _version_lock:
        size = len(prices)
        try:
            content = msgspec.json.encode(prices, order="deterministic")
        except Exception:  # something registered that JSON lacks, or changed while we read
            content = json.dumps(list(prices.items()), default=repr).encode()
        digest = hashlib.sha256(content).hexdigest()[:8]
        text = f"litellm-{version()}+{digest}"
        _version = (prices, size, text)
    _tell_of_fetched_prices()
    return text


_fetch_expected = False


def expect_fetched_prices() -> None:
    """Log no warning about prices that LiteLLM fetches: this process asks for them."""
    global _fetch_expected
    _fetch_expected = True


def _tell_of_fetched_prices() -> None:
    """Log one warning if LiteLLM fetched its price map: the prices may change with every start.

    A log record and not a ``LedgerWarning``: it may come from a thread in the middle of a call, and
    where warnings are errors it would fail that call.
    """
    global _fetch_expected
    if _fetch_expected:
        return
    try:
        source = internal("get_model_cost_map_source_info")()
    except Exception:  # another version keeps it elsewhere
        return
    if source.get("source") == "remote":
        _fetch_expected = True
        _log.warning(
            "LiteLLM has fetched its price map from %s: prices may change with every start. To use "
            "the map of the installed LiteLLM, set LITELLM_LOCAL_MODEL_COST_MAP=True before the "
            "first `import litellm`; if the fetched prices are wanted, LiteLLMClient("
            "fetch_prices=True) silences this",
            source.get("url"),
        )


@functools.cache
def version() -> str:
    """LiteLLM's version, or ``unknown``."""
    try:
        return str(internal("version"))
    except Exception:
        return "unknown"
