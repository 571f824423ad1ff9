"""The dashboard mounted in Litestar, which cuts the path in a way of its own."""

from __future__ import annotations

import asyncio
import logging
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from starlette.requests import Request
from tests.browsing import SECRET, fill

from litellm_ledger._web.asks import ASKS
from litellm_ledger.web import Viewer, usage_app

litestar = pytest.importorskip("litestar")  # of the group `peers`

START = "http://t/a/usage/"


async def viewer(request: Request) -> Viewer | None:
    who = request.headers.get("who")
    if who is None:
        return None
    return Viewer(operator=True) if who == "operator" else Viewer(tags={"tenant": who})


def links(page: httpx.Response) -> set[str]:
    """Return the addresses that a page leads to, without what is after the question mark."""
    found = re.findall(r'(?:href|src|action)="([^"#]*)"', page.text)
    return {urljoin(str(page.url), unescape(link)).partition("?")[0] for link in found}


@pytest.mark.parametrize("copied", [True, False])
def test_every_page_and_answer_is_there_and_links_stay_below_the_mount(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, copied: bool
) -> None:
    caplog.set_level(logging.WARNING)
    root = tmp_path / "usage"
    hand = fill(root)
    mounted: Any = litestar.asgi("/a/usage", is_mount=True, copy_scope=copied)
    dashboard = usage_app(root, viewer=viewer, process=False)
    app = litestar.Litestar([mounted(dashboard)], openapi_config=None)

    async def run() -> None:
        transport = httpx.ASGITransport(app=app)
        who = {"who": "operator"}
        async with httpx.AsyncClient(transport=transport, headers=who) as client:
            bare = await client.get(START.rstrip("/"))
            assert (bare.status_code, bare.headers["location"]) == (307, START)
            seen: set[str] = set()
            left = {START, f"{START}operations/{hand.id(1)}"}
            while left:
                link = left.pop()
                seen.add(link)
                page = await client.get(link)
                assert page.status_code == 200, (link, page.text)
                if "html" in page.headers["content-type"]:
                    left |= links(page) - seen
            assert all(link.startswith(START) for link in seen)
            below = {urlsplit(link).path.removeprefix("/a/usage/") for link in seen}
            assert {"", "explore", "live", "ledger", "verify", "api/report"} <= below
            for what in set(ASKS) - {"operation"}:
                answer = await client.get(f"{START}api/{what}")
                assert answer.status_code == 200, answer.text
                assert "as_of" in answer.json()
            call = await client.get(f"{START}api/operations/{hand.id(1)}")
            assert len(call.json()["attempts"]) == 2
            mine = await client.get(f"{START}api/calls?limit=100", headers={"who": "acme"})
            assert len(mine.json()["calls"]) > 50
            assert SECRET not in mine.text
            stranger = await client.get(f"{START}api/calls", headers={"who": ""})
            assert stranger.json()["calls"] == []

    asyncio.run(run())
