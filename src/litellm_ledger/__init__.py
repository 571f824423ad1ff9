"""litellm-ledger: what every language-model call of an async Python program used and cost.

    from litellm_ledger import LiteLLMClient

    async with LiteLLMClient(ledger="usage/") as client:
        answer = await client.acompletion(model="gpt-4o-mini", messages=[...])
        answer.usage_record.cost

Names in ``__all__`` are public; nothing else is.  Importing this package imports neither LiteLLM
nor asyncio: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ._budgets.alerts import BudgetAlert
    from ._budgets.budget import Budget
    from ._budgets.status import BudgetStatus
    from ._cache.response_cache import ResponseCache
    from ._cache.store import CacheStore
    from ._calls.stream import CompletionStream
    from ._client.client import LiteLLMClient
    from ._errors import (
        BudgetExceeded,
        BudgetUnbounded,
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
    from ._litellm.self_check import CheckedCall, LiteLLMCheck, Mismatch
    from ._maintenance.retention import Retention
    from ._prices.own import ModelPrice
    from ._records.record import UsageRecord
    from ._records.statistics import CacheStatistics, SinkStatistics, Statistics
    from ._reports.ledger import Ledger
    from ._tracking.tracker import UsageTracker
    from ._writing.public import AsyncUsageWriter

__all__ = [
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

_HOMES = {
    "AsyncUsageWriter": "_writing.public",
    "Budget": "_budgets.budget",
    "BudgetAlert": "_budgets.alerts",
    "BudgetStatus": "_budgets.status",
    "CacheStatistics": "_records.statistics",
    "CacheStore": "_cache.store",
    "CheckedCall": "_litellm.self_check",
    "CompletionStream": "_calls.stream",
    "Ledger": "_reports.ledger",
    "LiteLLMCheck": "_litellm.self_check",
    "LiteLLMClient": "_client.client",
    "Mismatch": "_litellm.self_check",
    "ModelPrice": "_prices.own",
    "ResponseCache": "_cache.response_cache",
    "Retention": "_maintenance.retention",
    "SinkStatistics": "_records.statistics",
    "Statistics": "_records.statistics",
    "UsageRecord": "_records.record",
    "UsageTracker": "_tracking.tracker",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES.get(name, '_errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
