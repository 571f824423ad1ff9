"""The dashboard on a server of its own, on this machine: ``litellm-ledger serve``.

Owns who may come in there: who has the address with its token, under a name of this machine.
Without a token every user of the machine, and a page of any site whose name leads here (DNS
rebinding), could read the ledger.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from litellm_ledger._errors import MissingExtra

from .app import See, usage_app
from .viewer import Viewer

try:
    import uvicorn
    from starlette.requests import Request
except ModuleNotFoundError as exc:
    raise MissingExtra(exc.name or "uvicorn", "web") from exc

__all__ = ["address", "guarded", "is_loopback", "listen", "new_token", "run"]

_App = Callable[[Any, Any, Any], Awaitable[None]]

_GRACE: Final = 5
"""Seconds that requests get at the end."""
_COOKIE: Final = "litellm_ledger"


def is_loopback(host: str) -> bool:
    """Whether an address is that of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there.

    Raises:
        ValueError: it cannot; the text says why.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as exc:
        raise ValueError(
            f"cannot listen on {host}, port {port}: {exc.strerror or exc}; give another --port"
        ) from None


def address(host: str, port: int, token: str | None) -> str:
    """Return the address to open in a browser."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def guarded(app: _App, hosts: Iterable[str], token: str | None, port: int) -> _App:
    """Let requests through that name this machine, and that have the token.

    Args:
        app: the dashboard.
        hosts: names that a request may have in ``Host``, without a port.
        token: the secret; ``None``: none is asked for.
        port: of the server; it is part of the name of the cookie.
    """
    known = frozenset(hosts)
    cookie = f"{_COOKIE}_{port}"

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = {k.lower(): v.decode("latin-1") for k, v in scope["headers"]}
        host = headers.get(b"host", "")
        if _without_port(host) not in known:
            await _say(send, 421, "this server does not answer under that name")
            return
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if token is not None and given:
            if not _same(given[0], token):
                await _say(send, 401, "that token is not the one of this server")
                return
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            there = f"/{quote(scope['path'].lstrip('/'))}" + (f"?{rest}" if rest else "")
            kept = f"{cookie}={token}; HttpOnly; SameSite=Lax; Path=/"
            more = [(b"location", there.encode())]
            await _say(send, 303, "", [*more, (b"set-cookie", kept.encode())])
            return
        if token is not None and not _same(_cookie(headers.get(b"cookie", ""), cookie), token):
            await _say(send, 401, "open the address that litellm-ledger serve has printed")
            return
        await app(scope, receive, send)

    return serve


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0][1:]
    return host.partition(":")[0].lower()


def _cookie(header: str, name: str) -> str:
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


async def _say(send: Any, status: int, text: str, more: Iterable[tuple[bytes, bytes]] = ()) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    start = {"type": "http.response.start", "status": status, "headers": [*headers, *more]}
    await send(start)
    await send({"type": "http.response.body", "body": text.encode()})


async def _operator(_: Request) -> Viewer:
    return Viewer(operator=True)


def run(
    ledger: str,
    sock: socket.socket,
    *,
    host: str,
    viewer: See | None,
    token: str | None,
) -> None:
    """Serve a ledger until SIGINT or SIGTERM.

    Args:
        ledger: its directory or URL.
        sock: as ``listen`` returns it.
        host: the address that it is on.
        viewer: who is asking; ``None``: every visitor is an operator.
        token: as for ``guarded``.
    """
    port = sock.getsockname()[1]
    app: _App = usage_app(ledger, viewer=viewer or _operator)
    if is_loopback(host):
        app = guarded(app, {host, "localhost", "127.0.0.1", "::1"}, token, port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    uvicorn.Server(config).run(sockets=[sock])


def new_token() -> str:
    """Return a secret."""
    return secrets.token_urlsafe(24)
