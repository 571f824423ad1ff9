"""A dashboard that is served, and a browser that complains: for tests of the pages.

The ledger is built by hand, the server is ``litellm-ledger serve``, the browser Debian's Chromium.
Playwright and axe-core are of the group ``peers``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from tests.chromium import chromium_path
from tests.ledger_by_hand import OTHER_WRITER, HandMade
from tests.ports import free_port

from litellm_ledger import Budget
from litellm_ledger._budgets.known import remember
from litellm_ledger._maintenance.seal import seal

NOW = datetime.now(UTC)
EVIL = "<img src=x onerror=window.evil=1><script>window.evil=1</script>\"'&\u202eelif\u2066\x1b[31m"
LONG = "W" * 300
SECRET = "zq9-secret"
"""In every text of the records of the other tenant."""

BUDGETS = [
    Budget("20.00", window="total", name="everything", warn=[0.8]),
    Budget("40.00", window="30d", per="tag:tenant"),
    Budget(500, unit="calls", window="total", where={"tenant": f"{SECRET}-tenant"}),
]

VIEWER = """
from litellm_ledger.web import Viewer

async def viewer(request):
    who = request.headers.get("who", "operator")
    return Viewer(operator=True) if who == "operator" else Viewer(tags={"tenant": who})
"""

_COMPLAIN = """
addEventListener("securitypolicyviolation", (event) =>
  complain(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


# -- a ledger --------------------------------------------------------------------------------------


def answered(number: int, **more: Any) -> dict[str, Any]:
    """A call that was answered, of the tenant acme, some hours ago."""
    return {
        "ts": NOW - timedelta(hours=5 * number, minutes=2),
        "model": ("gpt-4o", "claude-sonnet", "gemini-flash")[number % 3],
        "provider": "openai",
        "status": "ok",
        "input_tokens": 100 + number,
        "cache_read_tokens": 40,
        "output_tokens": 30,
        "reasoning_tokens": 10,
        "cost": Decimal("0.25") + Decimal(number) / 1000,
        "latency_ms": 400.0 + 10 * number,
        "ttft_ms": 90.0 + number,
        "tags": {"tenant": "acme", "user": f"u{number % 4}"},
        **more,
    }


def fill(root: Path) -> HandMade:
    """Sealed: calls of two tenants, failures, an operation of two attempts.  Open: the same again.

    Budgets: of everything, of each tenant, and one of the other tenant alone.

    Returns what the open segment is of; ``append`` continues it.
    """
    sealed = HandMade(root)
    odd = {"tenant": "evil"}
    lines = [sealed.line(n, **answered(n)) for n in range(1, 61)]
    lines += [
        sealed.line(61, **answered(1, status="error", error="RateLimitError", cost=None)),
        sealed.line(62, **answered(2, status="abandoned", usage_source="estimated")),
        sealed.line(63, **answered(3, cost=None, model="our-own-tune")),
        sealed.line(64, **answered(4, model=EVIL, tags=odd | {"user": EVIL, EVIL: "1"})),
        sealed.line(65, **answered(5, model=LONG, tags=odd | {"user": LONG, LONG: LONG})),
        sealed.line(66, **answered(6, error=EVIL, status="error", tags=odd)),
    ]  # fmt: skip
    for number in range(67, 75):
        theirs = {"tenant": f"{SECRET}-tenant", "user": f"{SECRET}-user", f"{SECRET}-tag": "1"}
        told = {"model": f"{SECRET}-model", "provider": f"{SECRET}-provider", "tags": theirs}
        lines.append(sealed.line(number, **answered(number - 60, **told)))
    sealed.sealed(1, len(lines), lines)
    seal(root)
    hand = HandMade(root, OTHER_WRITER)
    first = answered(0, status="error", error="RateLimitError", cost=None, output_tokens=0)
    second = answered(0, model="gpt-4o", ts=NOW - timedelta(minutes=1))
    first_line = hand.line(1, operation=hand.id(1), attempt=1, **first)
    hand.open(1, [first_line, hand.line(2, operation=hand.id(1), attempt=2, **second)])
    remember(root, hand.writer, BUDGETS)
    return hand


def append(hand: HandMade, *lines: bytes) -> None:
    """Write lines to the open segment, as a process would whose calls end now."""
    (path,) = hand.root.glob(f"segments/{hand.writer}*.open")
    with path.open("ab") as file:
        file.write(b"".join(lines))


# -- a server --------------------------------------------------------------------------------------


class Server:
    """``litellm-ledger serve`` of a ledger on a port that stays; a header says who is asking."""

    def __init__(self, root: Path, where: Path) -> None:
        self.root = root
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._where = where
        self._child: subprocess.Popen[str] | None = None
        (where / "who_is_asking.py").write_text(VIEWER, "utf-8")

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._child = subprocess.Popen(
            [sys.executable, "-m", "litellm_ledger", "serve", str(self.root), "--port",
             str(self.port), "--viewer", "who_is_asking:viewer"],
            cwd=self._where, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._child.stdout is not None
        assert "http://" in self._child.stdout.readline()

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        child, self._child = self._child, None
        if child is None:
            return
        child.send_signal(signal.SIGINT)
        try:
            assert child.wait(60) in (0, -signal.SIGINT, 130)
        finally:
            child.kill()
            child.communicate()


@contextmanager
def served(root: Path, where: Path) -> Iterator[Server]:
    """A server that runs meanwhile."""
    server = Server(root, where)
    server.start()
    try:
        yield server
    finally:
        server.stop()


# -- a browser -------------------------------------------------------------------------------------


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright."""
    path = chromium_path()
    sync_api = pytest.importorskip("playwright.sync_api")  # of the group `peers`
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_api.sync_playwright() as driver:
        env: dict[str, str | float | bool] = {**os.environ, "TZ": "UTC"}
        opened = driver.chromium.launch(executable_path=path, args=flags, env=env)
        try:
            yield opened
        finally:
            opened.close()


class Window:
    """A tab in a profile of its own, which notes every complaint of the browser.

    Complaints: console messages, errors of scripts, reports of the content security policy, and
    requests to somewhere else than the server.
    """

    def __init__(self, opened: Any, url: str, *, who: str = "operator", **more: Any) -> None:
        self.complaints: list[str] = []
        self.url = url
        options = {"viewport": {"width": 1280, "height": 900}, **more}
        self.context = opened.new_context(extra_http_headers={"who": who}, **options)
        self._is = who, ""
        self.context.set_default_timeout(60_000)
        self.context.expose_function("complain", self._complain)
        self.context.add_init_script(_COMPLAIN)
        self.page = self.context.new_page()
        self._clock = self.context.new_cdp_session(self.page)
        self.page.on("console", lambda said: self._complain(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: self._complain(f"error: {error}"))
        self.page.on("request", self._requested)

    def _complain(self, text: str) -> None:
        self.complaints.append(text)

    def _requested(self, request: Any) -> None:
        if not request.url.startswith(self.url):
            self._complain(f"request: {request.url}")

    def become(self, *, who: str = "operator", timezone: str = "") -> Window:
        """Be the browser of somebody else: who is asking, and the zone of their clock (else UTC).

        A new profile would cost two seconds of a core.
        """
        if self._is != (who, timezone):
            self._is = who, timezone
            self.context.set_extra_http_headers({"who": who})
            self._clock.send("Emulation.setTimezoneOverride", {"timezoneId": timezone})
        return self

    def weigh(self) -> list[tuple[str, int]]:
        """Note from now on what is fetched: address, and bytes over the wire with their head."""
        session = self.context.new_cdp_session(self.page)
        session.send("Network.enable")
        found: list[tuple[str, int]] = []
        names: dict[str, str] = {}
        cached: set[str] = set()

        def answered(event: Any) -> None:
            if event["requestId"] not in cached and not event["response"].get("fromDiskCache"):
                names[event["requestId"]] = event["response"]["url"]

        def was_here(event: Any) -> None:
            cached.add(event["requestId"])

        def ended(event: Any) -> None:
            name = names.pop(event["requestId"], None)
            if name is not None:
                found.append((name, int(event["encodedDataLength"])))

        session.on("Network.requestServedFromCache", was_here)
        session.on("Network.responseReceived", answered)
        session.on("Network.loadingFinished", ended)
        return found

    def go(self, path: str = "") -> Any:
        """Open a page of the dashboard, and return it."""
        self.page.goto(f"{self.url}{path}")
        late = self.page.locator("h1", has_text="Reading the ledger")
        late.wait_for(state="detached")  # it asks again by itself
        return self.page

    def close(self) -> None:
        """Close the tab and its profile."""
        self.context.close()


class Axe:
    """axe-core in a page.  It comes in through the debugger: the policy lets no script in."""

    def __init__(self, window: Window) -> None:
        self._page = window.page
        self._session = window.context.new_cdp_session(window.page)
        package = pytest.importorskip("axe_playwright_python")  # of the group `peers`
        self._source = files(package).joinpath("axe.min.js").read_text("utf-8")

    def _evaluate(self, expression: str, *, wait: bool = False) -> Any:
        told = self._session.send(
            "Runtime.evaluate",
            {"expression": expression, "awaitPromise": wait, "returnByValue": wait},
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def look(self, *only: str) -> tuple[list[str], int]:
        """Return serious and critical findings of the page, a line each, and how many rules passed.

        Args:
            only: the rules to look for; none: all of them.
        """
        if not self._page.evaluate("'axe' in window"):
            self._evaluate(self._source)
        options: dict[str, Any] = {"resultTypes": ["violations"], "elementRef": False}
        if only:
            options["runOnly"] = {"type": "rule", "values": [*only]}
        run = f"axe.run(document, {json.dumps(options)}).then(JSON.stringify)"
        told = json.loads(self._evaluate(run, wait=True))
        found = [
            f"{one['impact']} {one['id']}: {one['help']}: {node['html'][:200]}"
            for one in told["violations"]
            for node in one["nodes"]
            if one["impact"] in ("serious", "critical")
        ]
        return found, len(told["passes"])
