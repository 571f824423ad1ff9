"""The dashboard in Chromium: every page, by pointer and by keyboard, as a screen reader hears it.

One server and one browser for all.  Each tab notes what the browser complains of; a test ends with
none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from benchmarks._year import make_year
from tests.browsing import (
    BUDGETS,
    EVIL,
    LONG,
    SECRET,
    Axe,
    Server,
    Window,
    answered,
    append,
    fill,
    served,
)
from tests.browsing import browser as started_browser
from tests.ledger_by_hand import HandMade

from litellm_ledger import Ledger
from litellm_ledger._budgets.status import standing
from litellm_ledger._records.money import usd

PAGES = {
    "overview": "",
    "groups": "explore?by=model&by=tag:tenant&every=day&last=7d&limit=12",
    "calls": "explore?view=calls&where=tenant=acme&last=24h",
    "hostile": "explore?by=model&by=tag:user&where=tenant=evil",
    "hostile calls": "explore?view=calls&where=tenant=evil",
    "live": "live",
    "ledger": "ledger",
    "verify": "verify",
    "operation": "operations/{operation}",
    "not found": "operations/none",
    "not understood": "explore?tz=Mars",
}
WHOLE = ("overview", "groups", "calls", "live", "ledger", "operation")
EXPECTED = {"not found": "404", "not understood": "422"}
"""What the browser logs of every page of this status."""
OF_LOOKS = ("color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size")
"""Rules of axe whose findings depend on colours and on the width."""
DESK = {"width": 1280, "height": 900}
LOOKS = [("light", 1280), ("dark", 360), ("light", 360), ("dark", 1280)]


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return fill(tmp_path_factory.mktemp("browser") / "usage")


@pytest.fixture(scope="module")
def server(hand: HandMade, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(hand.root, tmp_path_factory.mktemp("viewer")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def tabs(browser: Any) -> Iterator[dict[str, Window]]:
    """Those that are open, by what they were asked for with: a new one costs a process."""
    opened: dict[str, Window] = {}
    yield opened
    for one in opened.values():
        one.close()


@pytest.fixture
def window(
    browser: Any, server: Server, tabs: dict[str, Window]
) -> Iterator[Callable[..., Window]]:
    """Hands out tabs, and fails if the browser has complained of anything in one of them."""

    def open_one(*, who: str = "operator", timezone: str = "", **more: Any) -> Window:
        key = repr(more)
        if key not in tabs:
            tabs[key] = Window(browser, server.url, **more)
        return tabs[key].become(who=who, timezone=timezone)

    yield open_one
    complaints = []
    for one in tabs.values():
        one.page.unroute_all()
        one.page.goto("about:blank")
        complaints += one.complaints
        one.complaints.clear()
        if one.page.viewport_size != DESK:
            one.page.set_viewport_size(DESK)
            one.page.emulate_media(color_scheme="light")
    assert complaints == []


def path_of(name: str, hand: HandMade) -> str:
    return PAGES[name].format(operation=hand.id(1))


def wide(page: Any) -> list[int]:
    found: list[int] = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return found


# -- every page ------------------------------------------------------------------------------------


def inspect(one: Window, path: str, *looks: tuple[str, int]) -> None:
    page = one.go(path)
    assert page.title().endswith("litellm-ledger")
    axe = Axe(one)
    backs = set()
    for number, (scheme, width) in enumerate(looks):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        backs.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        found, passed = axe.look(*(OF_LOOKS if number else ()))  # the rest is the same
        assert found == [], (scheme, width)
        assert passed
        across, room = wide(page)
        assert across <= room, f"it must be scrolled sideways at {width} ({scheme})"
    assert len(backs) == 2, "dark looks as light does"


def excuse(one: Window, status: str | None) -> None:
    """The browser logs every page of such a status."""
    if status is not None:
        (said,) = one.complaints
        assert status in said
        one.complaints.clear()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_light_on_a_desk_and_dark_on_a_phone(
    window: Callable[..., Window], hand: HandMade, name: str
) -> None:
    one = window()
    inspect(one, path_of(name, hand), *LOOKS[:2])
    excuse(one, EXPECTED.get(name))


@pytest.mark.matrix
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_light_on_a_phone_and_dark_on_a_desk(
    window: Callable[..., Window], hand: HandMade, name: str
) -> None:
    one = window()
    inspect(one, path_of(name, hand), *LOOKS[2:])
    excuse(one, EXPECTED.get(name))


SPOILED = """
document.querySelector("main").insertAdjacentHTML("beforeend",
  "<img src=data:,><input><p class=quiet>x</p>");
document.querySelector("nav a").textContent = "";
"""


def test_axe_finds_what_is_spoiled(window: Callable[..., Window]) -> None:
    one = window()
    page = one.go("live")
    page.evaluate(SPOILED)
    found, _ = Axe(one).look("image-alt", "label", "link-name")
    assert {line.split()[1] for line in found} == {"image-alt:", "label:", "link-name:"}
    assert any("policy: img-src" in said for said in one.complaints)
    one.complaints.clear()


# -- a screen reader -------------------------------------------------------------------------------

NAMED = frozenset(
    {"link", "button", "textbox", "combobox", "image", "table", "region", "figure", "navigation",
     "form", "heading", "columnheader", "rowheader"}
)  # fmt: skip


def heard(one: Window) -> list[tuple[str, str]]:
    """Role and name of everything that a screen reader is told of."""
    told = one.context.new_cdp_session(one.page).send("Accessibility.getFullAXTree")
    return [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in told["nodes"]
        if not node.get("ignored")
    ]


@pytest.mark.parametrize("name", WHOLE)
def test_a_screen_reader_has_a_name_for_everything(
    window: Callable[..., Window], hand: HandMade, name: str
) -> None:
    one = window()
    page = one.go(path_of(name, hand))
    for details in page.locator("summary").all():
        details.click()
    found = heard(one)
    roles = [role for role, _ in found]
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert roles.count(landmark) == 1, landmark
    names = {"img": "image", "searchbox": "textbox"}
    assert [pair for pair in found if names.get(pair[0], pair[0]) in NAMED and not pair[1]] == []
    levels = [int(level) for level in page.eval_on_selector_all(
        "h1, h2, h3, h4", "all => all.map((one) => one.tagName[1])")]  # fmt: skip
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before < 2 for before, after in pairwise(levels))
    assert (
        page.eval_on_selector_all("table", "all => all.filter((one) => !one.caption).length") == 0
    )


def test_every_chart_has_its_figures_in_a_table(window: Callable[..., Window]) -> None:
    one = window()
    page = one.go("?last=7d")
    charts = page.locator("figure").all()
    assert len(charts) >= 4
    for chart in charts:
        title = chart.get_by_role("heading").inner_text()
        assert chart.get_by_role("img").get_attribute("aria-label").startswith(title)
        assert not chart.locator("table").is_visible()
        chart.locator("summary").click()
        table = chart.get_by_role("table", name=title)
        assert table.is_visible()
        assert len(table.locator("tbody tr").all()) >= 7
    (spend,) = [table for table in page.locator("figure table").all()
                if table.locator("caption").inner_text() == "Cost by day"]  # fmt: skip
    assert "gpt-4o" in spend.inner_text()
    assert re.search(r"\$0\.2\d", spend.inner_text())


# -- a keyboard ------------------------------------------------------------------------------------

FOCUS = """() => {
  const on = document.activeElement, look = getComputedStyle(on), box = on.getBoundingClientRect();
  return {
    what: on.name || on.innerText || on.getAttribute("aria-label") || on.tagName,
    seen: look.outlineStyle !== "none" && parseFloat(look.outlineWidth) >= 2
      && box.width > 0 && box.right > 0 && box.bottom > 0 && box.left < innerWidth,
    at: [...document.querySelectorAll("*")].indexOf(on),
  };
}"""
NOTE = f"window.stops = []; addEventListener('focusin', () => stops.push(({FOCUS})()));"
STOPS = """[...document.querySelectorAll("a[href], button, summary, select, [tabindex='0'], "
  + "input:not([type=hidden])")].filter((one) => one.checkVisibility()).length"""


@pytest.mark.parametrize("path", ["", "explore?by=model&every=day&last=7d", "ledger"])
def test_the_tab_key_reaches_everything_in_order_and_is_seen(
    window: Callable[..., Window], path: str
) -> None:
    page = window().go(path)
    page.evaluate(NOTE)
    expected = page.evaluate(STOPS)
    for _ in range(expected):
        page.keyboard.press("Tab")
    stops = page.evaluate("stops")
    assert len(stops) == expected
    ways = [stop["at"] for stop in stops]
    assert ways == sorted(set(ways)), "the focus goes back, or round in circles"
    assert [stop["what"] for stop in stops if not stop["seen"]] == []
    assert stops[0]["what"] == "Skip to the content"


def test_the_keyboard_alone_finds_a_call(window: Callable[..., Window], hand: HandMade) -> None:
    page = window().go("")
    press = page.keyboard.press

    def tab_to(what: str) -> None:
        for _ in range(60):
            press("Tab")
            if page.evaluate(FOCUS)["what"] == what:
                return
        pytest.fail(f"no {what} among sixty stops")

    press("Tab")
    press("Enter")  # skips to the content
    assert page.evaluate("document.activeElement.id") == "content"
    page.reload()
    tab_to("Explore")
    with page.expect_navigation():
        press("Enter")
    tab_to("status")
    page.keyboard.type("abandoned")
    tab_to("Show")
    with page.expect_navigation():
        press("Enter")
    assert "status=abandoned" in page.url
    tab_to("Calls")
    with page.expect_navigation():
        press("Enter")
    (row,) = page.locator("table.calls tbody tr").all()
    tab_to(row.get_by_role("link").inner_text())
    with page.expect_navigation():
        press("Enter")
    assert page.get_by_role("heading", level=1).inner_text() == "One call"
    assert "abandoned" in page.get_by_role("heading", level=2).inner_text()


# -- explore ---------------------------------------------------------------------------------------


def column(page: Any, number: int) -> list[str]:
    found: list[str] = page.locator(f"tbody tr > :nth-child({number})").all_inner_texts()
    return found


def test_filters_groups_and_sorting_are_in_the_address(
    window: Callable[..., Window], hand: HandMade
) -> None:
    page = window().go("explore")
    page.get_by_label("Where").last.fill("tenant=acme")
    page.get_by_label("Ended as").select_option("ok")
    page.get_by_label("Group by", exact=True).fill("tag:user")
    page.get_by_label("and by", exact=True).fill("model")
    page.get_by_role("button", name="Show").click()
    for part in ("where=tenant%3Dacme", "status=ok", "by=tag%3Auser", "by=model"):
        assert part in page.url
    report = Ledger(hand.root).report(
        ["tag:user", "model"], where={"tag:tenant": "acme", "status": "ok"}
    )
    told = {(row.group["tag:user"], row.group["model"]): f"{row.calls:,}" for row in report.rows}
    shown = zip(column(page, 1), column(page, 2), column(page, 3), strict=True)
    assert {(user, model): calls for user, model, calls in shown} == told
    page.get_by_role("link", name="calls", exact=True).click()
    head = page.get_by_role("columnheader", name="calls")
    assert head.get_attribute("aria-sort") == "descending"
    calls = [int(text) for text in column(page, 3)]
    assert calls == sorted(calls, reverse=True)
    users, link = column(page, 1), page.url
    page.goto("about:blank")
    page.goto(link)
    assert column(page, 1) == users
    with page.expect_download() as saved:
        page.get_by_role("link", name="CSV").click()
    lines = Path(saved.value.path()).read_text("utf-8").splitlines()
    assert lines[0].startswith("tag:user,model,calls")
    assert len(lines) >= len(calls) + 1


def test_a_group_leads_to_its_calls_and_a_call_to_its_attempts_and_back(
    window: Callable[..., Window], hand: HandMade
) -> None:
    page = window().go("explore?by=tag:user&where=tenant=acme&status=error")
    seen = [page.url]
    page.get_by_role("link", name="u0", exact=True).click()
    seen.append(page.url)
    assert page.get_by_role("table", name="Calls").is_visible()
    page.locator("table.calls tbody a").first.click()
    heads = page.get_by_role("heading", level=2).all_inner_texts()
    assert heads == ["Attempt 1: error", "Attempt 2: ok"]
    assert "RateLimitError" in page.inner_text("main")
    assert page.locator(".whole-id").inner_text() == hand.id(1)
    page.go_back()
    assert page.url == seen[1]
    page.go_back()
    assert page.url == seen[0]
    assert column(page, 1)
    page.go_forward()
    assert page.url == seen[1]


def test_days_are_those_of_the_browser_and_stay_so(window: Callable[..., Window]) -> None:
    page = window(timezone="Australia/Eucla").go("")
    page.wait_for_url(re.compile("tz=Australia%2FEucla"))
    page.get_by_role("link", name="Explore").click()
    assert page.get_by_label("Time zone").input_value() == "Australia/Eucla"
    assert "days in Australia/Eucla" in page.inner_text("footer")


def test_a_zone_that_the_server_does_not_know_leads_nowhere(window: Callable[..., Window]) -> None:
    one = window(timezone="Asia/Kathmandu")  # which Chromium calls Katmandu, as tzdata did once
    asked: list[str] = []

    def refuse(route: Any) -> None:
        asked.append(route.request.method)
        route.fulfill(status=422, body="")

    one.page.route(re.compile("tz="), refuse)
    with one.page.expect_response(re.compile("tz=")):
        page = one.go("")
    page.wait_for_load_state()
    assert asked == ["HEAD"]
    assert "days in UTC" in page.inner_text("footer")
    (said,) = one.complaints
    assert "422" in said
    one.complaints.clear()


# -- hostile ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["?stack=tag:user&top=tag:user&last=7d", "explore?by=model&by=tag:user&every=day&last=7d",
     "explore?by=error", "explore?view=calls&where=tenant=evil", "live"],
)  # fmt: skip
def test_hostile_text_is_shown_as_text(window: Callable[..., Window], path: str) -> None:
    one = window()
    one.page.set_viewport_size({"width": 360, "height": 800})
    page = one.go(path)
    said = page.locator("body").text_content()
    assert "<img src=x onerror=window.evil=1>" in said
    assert not set(said) & {"\u202e", "\u2066", "\x1b"}
    assert page.locator("img, main script, iframe, object, embed").count() == 0
    assert page.evaluate("window.evil") is None
    across, room = wide(page)
    assert across <= room


def test_hostile_addresses_are_shown_as_text(window: Callable[..., Window]) -> None:
    one = window()
    page = one.go("explore")
    page.get_by_label("Where").last.fill(f"user={EVIL}")
    page.get_by_label("Model").fill('"><img src=x onerror=window.evil=1>')
    page.get_by_role("button", name="Show").click()
    assert page.locator("main img").count() == 0
    assert page.evaluate("window.evil") is None
    page.go_back()
    page.get_by_label("Time zone").fill(EVIL)
    page.get_by_role("button", name="Show").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Not understood"
    assert "<img src=x onerror=window.evil=1>" in page.inner_text("main")
    assert page.locator("main img").count() == 0
    (said,) = one.complaints
    assert "422" in said
    one.complaints.clear()


# -- who sees what ---------------------------------------------------------------------------------


def test_the_page_of_a_tenant_shows_nothing_of_another(
    window: Callable[..., Window], hand: HandMade
) -> None:
    one = window(who="acme")
    bodies: list[str] = []
    for path in ("", "?stack=tag:tenant&top=tag:user", "explore?by=model&by=tag:tenant&last=60d",
                 "explore?view=calls&last=60d", "explore?where=tenant!=acme", "live"):  # fmt: skip
        page = one.go(path)
        bodies.append(page.content())
        assert page.get_by_role("link", name="Ledger").count() == 0
    assert "u1" in "".join(bodies)
    for body in bodies:
        assert SECRET not in body
        assert LONG not in body
    page.wait_for_selector("text=Connected")
    secret = {"model": f"{SECRET}-live", "tags": {"tenant": f"{SECRET}-tenant"}}
    append(hand, hand.line(900, **answered(0, **secret)))
    append(hand, hand.line(901, **answered(0, model="mine-now", ts=datetime.now(UTC))))
    page.wait_for_selector("text=mine-now")
    assert SECRET not in page.content()
    operator = window().go("live")
    assert f"{SECRET}-live" in operator.content()  # it was there to be seen


# -- live ------------------------------------------------------------------------------------------


def test_a_call_that_ends_appears_and_again_after_the_server_was_away(
    window: Callable[..., Window], hand: HandMade, server: Server
) -> None:
    one = window()
    asked: list[Any] = []

    def note(request: Any) -> None:
        asked.append(request)

    one.page.on("request", note)
    page = one.go("live")
    page.wait_for_selector("text=Connected: calls appear as they end.")
    append(hand, hand.line(910, **answered(0, model="while-open", ts=datetime.now(UTC))))
    page.wait_for_selector("td:has-text('while-open')")
    assert one.complaints == []
    server.stop()
    page.wait_for_selector("text=Not connected")
    append(hand, hand.line(911, **answered(0, model="while-away", ts=datetime.now(UTC))))
    server.start()
    page.wait_for_selector("text=Connected: calls appear as they end.")
    page.wait_for_selector("td:has-text('while-away')")
    append(hand, hand.line(912, **answered(0, model="after-that", ts=datetime.now(UTC))))
    page.wait_for_selector("td:has-text('after-that')")
    last = [request for request in asked if request.url.endswith("api/events")][-1]
    assert last.all_headers()["last-event-id"], "it did not say where it had stopped"
    assert all("ERR_" in said for said in one.complaints)  # the server was away
    one.complaints.clear()


def test_budgets_are_shown_with_what_is_left_and_move(
    window: Callable[..., Window], hand: HandMade
) -> None:
    page = window().go("live")
    rows = page.get_by_role("table", name="Budgets").locator("tbody tr")
    shown = {row[0] + row[1]: row for row in (one.split("\t") for one in rows.all_inner_texts())}
    told = standing(hand.root, BUDGETS, datetime.now(UTC))
    assert len(shown) == len(told) > 3
    page.wait_for_selector("text=Connected")
    (spent,) = (usd(one.settled) for one in told if one.budget.name == "everything")
    assert shown["everythingall calls"][3] == f"${spent:,.2f}"
    append(hand, hand.line(905, **answered(0, ts=datetime.now(UTC), cost=Decimal(7))))
    page.wait_for_selector(f"text=${spent + 7:,.2f}")
    other = window(who="acme").go("live")
    (row,) = other.get_by_role("table", name="Budgets").locator("tbody tr").all()
    assert row.inner_text().split("\t")[:2] == ["usd 30d", "tenant=acme"]


def test_verify_tells_its_result_where_a_screen_reader_hears_it(
    window: Callable[..., Window],
) -> None:
    page = window().go("ledger")
    page.get_by_role("link", name="Verify now").click()
    status = page.locator("#verifying")
    status.get_by_text(re.compile(r"Sound|Not sound")).wait_for()
    assert status.get_attribute("role") == "status"
    assert "records of" in status.inner_text()


# -- without JavaScript ----------------------------------------------------------------------------


def test_without_javascript_everything_but_moving_works(
    window: Callable[..., Window], hand: HandMade
) -> None:
    one = window(java_script_enabled=False)
    page = one.go("")
    page.get_by_label("Stack by").select_option("tag:tenant")
    page.get_by_role("button", name="Show").click()
    assert "stack=tag%3Atenant" in page.url
    page.locator("summary").first.click()
    assert page.locator("figure table").first.is_visible()
    page.get_by_role("link", name="Explore").click()
    page.get_by_label("Ended as").select_option("abandoned")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name="Calls", exact=True).click()
    page.locator("table.calls tbody a").first.click()
    assert "abandoned" in page.get_by_role("heading", level=2).inner_text()
    page.get_by_role("link", name="Live").click()
    assert page.locator("table.calls tbody tr").count() > 5
    page.get_by_role("link", name="Ledger").click()
    page.get_by_role("link", name="Verify now").click()
    page.get_by_text(re.compile(r"Sound|Not sound")).wait_for()
    assert "records of" in page.inner_text("main")
    page.get_by_role("link", name="Back to the ledger").click()
    assert page.get_by_role("heading", level=1).inner_text() == "The ledger"


# -- weight ----------------------------------------------------------------------------------------


def test_the_first_page_is_light_and_the_next_fetches_itself_alone(
    window: Callable[..., Window],
) -> None:
    one = window(locale="en-GB")  # a tab of its own, which has fetched nothing yet
    fetched = one.weigh()
    one.go("").wait_for_load_state("networkidle")
    assert len(fetched) <= 4, fetched  # the page, its style sheet, its script, its icon
    assert sum(size for _, size in fetched) < 40_000, fetched
    fetched.clear()
    page = one.page
    page.get_by_role("link", name="Explore").click()
    page.wait_for_load_state("networkidle")
    assert [name for name, _ in fetched] == [page.url]


QUESTIONS = ("", "explore?by=model&by=tag:feature&every=week&last=12mo", "api/summary",
             "api/report?by=model&last=12mo", "api/report?by=tag:user&every=month&last=12mo",
             "api/calls?limit=50", "api/live", "api/ledger")  # fmt: skip


@pytest.mark.matrix
def test_a_million_records_are_shown(
    browser: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Figures that it prints (``-s``) are in docs/dashboard.md; none is asserted."""
    root = tmp_path / "million"
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    make_year(root, 1_000_000, 320, midnight - timedelta(days=320))
    with served(root, tmp_path) as server:
        one = Window(browser, server.url)
        one.context.set_default_timeout(300_000)
        fetched = one.weigh()
        page = one.go("?last=12mo")
        assert page.locator("figure svg path").count() > 8
        assert "1,000,000 for 1,000,000 calls" in page.inner_text("main")
        told: dict[str, object] = {
            "requests": len(fetched),
            "bytes": sum(size for _, size in fetched),
        }
        page = one.go(QUESTIONS[1])
        assert "1,000,000" in page.locator("tfoot").inner_text()
        page.locator("tbody a").first.click()
        page.locator("table.calls tbody a").first.click()
        assert page.get_by_role("heading", level=1).inner_text() == "One call"
        assert one.complaints == []
        one.close()
        with httpx.Client(base_url=server.url, timeout=300) as client:
            for question in QUESTIONS:
                spent = []
                for _ in range(41):
                    began = time.perf_counter()
                    assert client.get(question).status_code == 200
                    spent.append(1000 * (time.perf_counter() - began))
                told[f"p95 of {question or 'overview'}"] = round(sorted(spent[1:])[37], 1)
    for name, value in told.items():
        record_property(name, value)
    print(told)
