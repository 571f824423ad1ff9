"""The template of the route that a request took, such as ``/chats/{chat_id}``.

Owns where frameworks leave it.  A router writes it into the scope when it has chosen, so it is
looked for when a call begins and not before.  Never matches a path again to guess a route: what no
router has said is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .protocol import Scope

__all__ = ["route_template"]


def route_template(scope: Scope, app: Any, root_path: str) -> str | None:
    """Return the template of the route, or ``None`` where no router has chosen one yet.

    Args:
        scope: of the request.
        app: what the middleware wraps, or the application that it is in.
        root_path: of the scope when the middleware saw it first.
    """
    path = scope.get("path_template")  # Litestar
    if isinstance(path, str):
        return path
    path = _included(scope) or getattr(scope.get("route"), "path", None)
    routes = _routes(app)
    if not isinstance(path, str):  # a Starlette before 1.0 says only which endpoint
        path = _of_endpoint(routes, scope.get("endpoint"))
        return path
    mounted = str(scope.get("root_path") or "").removeprefix(root_path)
    return _mounts(routes, mounted) + path if mounted else path


def _included(scope: Scope) -> Any:
    """FastAPI's: its ``route`` lacks the prefixes of the routers that it was included by."""
    fastapi = scope.get("fastapi")
    chosen = fastapi.get("effective_route_context") if isinstance(fastapi, dict) else None
    if chosen is None or getattr(chosen, "original_route", None) is not scope.get("route"):
        return None  # of a router around it
    return getattr(chosen, "path", None) or None


def _routes(app: Any) -> Iterable[Any]:
    """The routes of an application, also through middleware around it."""
    for _ in range(32):
        routes = getattr(app, "routes", None)
        if routes is not None:
            return routes if isinstance(routes, list | tuple) else ()
        app = getattr(app, "app", None)
    return ()


def _mounts(routes: Iterable[Any], mounted: str) -> str:
    """The templates of the mounts that took ``mounted`` off the path; what is unknown as it is."""
    for route in routes:
        inner = getattr(route, "app", None)
        regex = getattr(route, "path_regex", None)
        if inner is None or regex is None or not hasattr(route, "routes"):
            continue
        # A mount's expression ends in "/{path}": its own part is what that leaves.
        found = regex.match(f"{mounted}/")
        if found is not None and "path" in found.groupdict():
            rest = found["path"].rstrip("/")
            return str(route.path) + (_mounts(_routes(inner), f"/{rest}") if rest else "")
    return mounted


def _of_endpoint(routes: Iterable[Any], endpoint: Any) -> str | None:
    """The template under which an endpoint stands, if that is one."""
    if endpoint is None:
        return None
    found = {path for path, at in _endpoints(routes, "") if at is endpoint}
    return found.pop() if len(found) == 1 else None


def _endpoints(routes: Iterable[Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for route in routes:
        path = prefix + str(getattr(route, "path", ""))
        if hasattr(route, "endpoint"):
            yield path, route.endpoint
        elif getattr(route, "app", None) is not None:
            yield from _endpoints(_routes(route.app), path)
