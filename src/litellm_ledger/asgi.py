"""ASGI: tags and totals for requests, streams that end, health; no framework needed.

    app = UsageTagsMiddleware(app, tags=lambda scope: {"user": scope["user"].name})

Owns the names; ``_asgi`` does the work.  Never imports Starlette: ``litellm_ledger.fastapi`` has
these names as well, and what needs it.
"""

from __future__ import annotations

from litellm_ledger._asgi.health import UsageHealth
from litellm_ledger._asgi.middleware import UsageTagsMiddleware
from litellm_ledger._asgi.streaming import StreamedAnswer, event_of, text_of
from litellm_ledger._tracking.request import RequestUsage
from litellm_ledger._tracking.tags import detached

__all__ = [
    "RequestUsage",
    "StreamedAnswer",
    "UsageHealth",
    "UsageTagsMiddleware",
    "detached",
    "event_of",
    "text_of",
]
