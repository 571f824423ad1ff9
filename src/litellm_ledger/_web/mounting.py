"""Where the dashboard is mounted, told the same way whichever framework has mounted it.

Starlette leaves the path whole and says in ``root_path`` how much of it is the mount.  Others cut
the path, some add a slash to its end and leave ``root_path`` as it was (Litestar): links would lead
out of the dashboard.  The path as it was asked for is in ``raw_path``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

__all__ = ["Mounted", "whole_path"]

_App = Callable[[Any, Any, Any], Awaitable[None]]


def whole_path(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return a scope as Starlette has it below a mount; the same one, if it is so already."""
    raw, path = scope.get("raw_path"), scope["path"]
    if not raw:
        return scope
    asked = unquote(raw.partition(b"?")[0].decode("latin-1"))
    if asked == path:
        return scope
    end, whole = path.rstrip("/"), asked.rstrip("/")
    if not whole.endswith(end):  # it was rewritten
        return scope
    return {**scope, "path": asked, "root_path": whole.removesuffix(end)}


class Mounted:
    """A pure ASGI middleware that does this to each request."""

    def __init__(self, app: _App) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(whole_path(scope) if scope["type"] == "http" else scope, receive, send)
