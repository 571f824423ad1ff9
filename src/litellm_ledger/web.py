"""The dashboard: what calls used and cost, in a browser.

    app.mount("/usage", usage_app("usage/", viewer=who_is_asking))

    async def who_is_asking(request: Request) -> Viewer | None: ...

Owns only the names; the rest is in ``_web``.  Without an application: ``litellm-ledger serve``.
"""

from __future__ import annotations

from litellm_ledger._web.app import usage_app
from litellm_ledger._web.viewer import Viewer

__all__ = ["Viewer", "usage_app"]
