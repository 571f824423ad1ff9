"""litellm-ledger: what every language-model call of an async Python program used and cost.

    from litellm_ledger import LiteLLMClient

    async with LiteLLMClient(ledger="usage/") as client:
        answer = await client.acompletion(model="gpt-4o-mini", messages=[...])
        answer.usage_record.cost

Names in ``__all__`` are public; nothing else is.  Importing this package imports neither LiteLLM
nor
asyncio: each name is fetched when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ._cache import ResponseCache
    from ._cache_store import CacheStore
    from ._client import LiteLLMClient
    from ._errors import (
        DrainTimeout,
        FlushTimeout,
        InvalidRecord,
        LedgerClosed,
        LedgerError,
        LedgerFailed,
        LedgerPathError,
        LedgerTimeout,
        LedgerWarning,
        MissingExtra,
        QueueFull,
        UnsupportedFormat,
        UnsupportedPlatform,
        WrongLoop,
    )
    from ._ledger import Ledger
    from ._prices import ModelPrice
    from ._record import UsageRecord
    from ._seam_check import CheckedCall, LiteLLMCheck, Mismatch
    from ._statistics import CacheStatistics, Statistics
    from ._stream import CompletionStream
    from ._tracker import UsageTracker
    from ._writer import AsyncUsageWriter

__all__ = [
    "AsyncUsageWriter",
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
    "Statistics",
    "UnsupportedFormat",
    "UnsupportedPlatform",
    "UsageRecord",
    "UsageTracker",
    "WrongLoop",
    "__version__",
]

_HOMES = {
    "AsyncUsageWriter": "_writer",
    "CacheStatistics": "_statistics",
    "CacheStore": "_cache_store",
    "CheckedCall": "_seam_check",
    "CompletionStream": "_stream",
    "Ledger": "_ledger",
    "LiteLLMCheck": "_seam_check",
    "LiteLLMClient": "_client",
    "Mismatch": "_seam_check",
    "ModelPrice": "_prices",
    "ResponseCache": "_cache",
    "Statistics": "_statistics",
    "UsageRecord": "_record",
    "UsageTracker": "_tracker",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES.get(name, '_errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
