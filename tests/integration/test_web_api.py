"""The API of the dashboard: the figures of the report, strict parameters, no data of others."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from tests.ledger_by_hand import OTHER_WRITER, HandMade

from litellm_ledger import Budget, Ledger
from litellm_ledger._budgets.known import remember
from litellm_ledger._maintenance.prune import prune
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._web.asks import ASKS
from litellm_ledger.web import Viewer, usage_app

NOW = datetime.now(UTC)
EVIL = "<script>alert(1)</script>\"'&\x1b[31m\u202e\0" + "x" * 200
SECRET = "zq9-secret"
"""In every text of the records of the other tenant."""
PAGES = ("/", "/explore", "/explore?view=calls", "/explore?by=tag:user&every=day", "/live")


def record(number: int, **more: Any) -> dict[str, Any]:
    return {
        "ts": NOW - timedelta(hours=7 * number, minutes=1),
        "model": ("gpt-4o", "claude")[number % 2],
        "provider": "openai",
        "status": "ok",
        "input_tokens": 10 + number,
        "output_tokens": 3,
        "cost": Decimal("0.25") + number,
        "latency_ms": 100.0 + number,
        "ttft_ms": 9.0,
        **more,
    }


def fill(root: Path, *, sealed: bool = True) -> None:
    """Two tenants, calls of nobody, failed calls, hostile tags; a sealed segment, an open one."""
    mine = [record(n, tags={"tenant": "acme", "user": f"u{n % 3}"}) for n in range(12)]
    odd = [
        record(1, tags={"tenant": "acme", "user": EVIL, EVIL: EVIL}, model=EVIL),
        record(2, tags={"tenant": "acme"}, status="error", error="RateLimitError", cost=None),
    ]
    theirs = [
        record(
            n,
            tags={"tenant": f"{SECRET}-tenant", "user": f"{SECRET}-user", f"{SECRET}-tag": "1"},
            model=f"{SECRET}-model",
            provider=f"{SECRET}-provider",
            call_id=f"{SECRET}-call",
            error=f"{SECRET}Error" if n == 3 else None,
            status="error" if n == 3 else "ok",
            cost=Decimal(f"777.{n}"),
            meta={"note": SECRET},
        )
        for n in range(9)
    ]
    nobody = [record(n, model=f"{SECRET}-untagged") for n in range(3)]
    HandMade(root).filled(*mine, *odd, *theirs, *nobody)
    if sealed:
        seal(root)
    other = HandMade(root, OTHER_WRITER)
    remember(root, other.writer, BUDGETS)
    other.open(1, [other.line(1, **mine[0]), other.line(2, **theirs[0]), other.line(3, **mine[1])])


BUDGETS = [
    Budget("777.9", window="total", name=f"{SECRET}-all"),
    Budget("700.5", window="total", per="tag:tenant"),
    Budget(701, unit="calls", window="total", per="tag:user"),
    Budget(702, unit="calls", window="total", per=["tenant", "user"]),
    Budget("777.3", window="total", where={"tenant": f"{SECRET}-tenant"}),
    Budget("777.2", window="total", per="tenant", where={"tenant": ["acme", f"{SECRET}-tenant"]}),
    Budget(703, unit="calls", window="total", per="tenant", where={"user": [f"{SECRET}-u", "u1"]}),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dashboard") / "usage"
    fill(root)
    return root


async def by_header(request: Request) -> Viewer | None:
    who = request.headers.get("who")
    if who is None:
        return None
    return Viewer(operator=True) if who == "operator" else Viewer(tags={"tenant": who})


Ask = Callable[..., Awaitable[httpx.Response]]


def asked(
    root: Path, *paths: str, who: str | None = "operator", **more: Any
) -> list[httpx.Response]:
    """Ask the dashboard in this process."""

    async def run() -> list[httpx.Response]:
        app = usage_app(root, viewer=by_header, process=False)
        transport = httpx.ASGITransport(app=app)
        headers = {} if who is None else {"who": who}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://t", headers=headers
        ) as c:
            found = [await c.get(path, **more) for path in paths]
        async with app.router.lifespan_context(app):
            pass
        return found

    return asyncio.run(run())


def answer(root: Path, path: str, who: str = "operator", **more: Any) -> Any:
    (found,) = asked(root, path, who=who, **more)
    assert found.status_code == 200, found.text
    return found.json()


# -- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tz", ["UTC", "Europe/Berlin", "Asia/Kathmandu"])
@pytest.mark.parametrize(
    "by", [[], ["model"], ["tag:user"], ["tag:tenant", "tag:user"], ["status"]]
)
@pytest.mark.parametrize(
    "where", [{}, {"tag:tenant": "acme"}, {"model": "gpt-4o", "tag:user": "u1"}]
)
def test_the_sums_are_those_of_the_report(
    root: Path, by: list[str], tz: str, where: dict[str, str]
) -> None:
    params = {
        "by": by,
        "where": [f"{k}={v}" for k, v in where.items()],
        "tz": tz,
        "every": "day",
        "quantiles": "1",
        "last": "60d",
    }
    found = answer(root, "/api/report", params=params)
    since = datetime.fromisoformat(found["since"])
    told = Ledger(root).report(
        by, every="day", where=where, tz=tz, since=since, quantiles=True
    ).to_dict()  # fmt: skip
    newest = sorted(told["rows"], key=lambda row: row["group"]["day"], reverse=True)
    assert found["rows"] == newest  # in a day as the report has them: the highest cost first
    assert found["total"] == told["total"]
    found = answer(root, "/api/report", params={**params, "order": "asc"})
    assert found["rows"] == told["rows"]


def test_rows_of_periods_are_in_the_order_that_is_asked_for(root: Path) -> None:
    def days(**asked: str) -> list[tuple[str, str]]:
        given = {"by": "model", "every": "day", "last": "60d", "limit": "10000", **asked}
        rows = answer(root, "/api/report", params=given)["rows"]
        return [(row["group"]["day"], row["group"]["model"]) for row in rows]

    every = sorted(days())
    assert len(every) > 4
    assert [day for day, _ in days()] == [day for day, _ in reversed(every)]
    assert days(sort="group") == every
    assert days(sort="group", order="desc") == every[::-1]
    assert days(limit="3") == days()[:3]
    by_cost = answer(root, "/api/report?by=model&every=day&last=60d&sort=cost")["rows"]
    costs = [Decimal(row["cost"] or 0) for row in by_cost]
    assert costs == sorted(costs, reverse=True)


def test_what_is_written_meanwhile_is_in_the_next_answer(tmp_path: Path) -> None:
    root = tmp_path / "usage"
    fill(root)
    hand = HandMade(root, OTHER_WRITER)
    path = next(root.glob("segments/*.open"))

    async def run() -> list[int]:
        app = usage_app(root, viewer=by_header, process=False)
        transport = httpx.ASGITransport(app=app)
        seen = []
        async with httpx.AsyncClient(
            transport=transport, base_url="http://t", headers={"who": "acme"}
        ) as client:
            for number in range(4, 7):
                found = await client.get(f"/api/report?limit={number}")  # another question each
                seen.append(found.json()["total"]["calls"])
                with path.open("ab") as file:
                    file.write(hand.line(number, **record(1, tags={"tenant": "acme"})))
        return seen

    first, second, third = asyncio.run(run())
    assert (second, third) == (first + 1, first + 2)


def test_what_was_pruned_is_in_the_sums_and_tenants_hear_no_number_of_others(
    tmp_path: Path,
) -> None:
    hand = HandMade(tmp_path)
    for first, days in ((1, 20), (4, 0)):
        ts = NOW - timedelta(days=days, hours=1)
        lines = [
            hand.line(
                first + n,
                **record(n, ts=ts, tags={"tenant": ("acme", "other")[n % 2], "user": "u"}),
            )
            for n in range(3)
        ]
        hand.sealed(first, first + 2, lines)
    seal(tmp_path)
    rule = Retention(keep=timedelta(days=10))
    assert prune(tmp_path, rule, who="x", why="y").records == 3
    for who, calls, pruned in (("operator", 6, 3), ("acme", 4, 2)):
        found = answer(tmp_path, "/api/report?last=12mo", who)
        assert (found["total"]["calls"], found["is_floor"]) == (calls, False)
        assert f"of {pruned} calls in these sums only aggregates are kept" in str(found["notes"])
    by = "/api/report?last=12mo&by=tag:user&by=tag:tenant"
    for who, calls, said in (
        ("operator", 3, "3 records not included"),
        ("acme", 2, "may be missing"),
    ):
        found = answer(tmp_path, by, who)
        assert (found["total"]["calls"], found["is_floor"]) == (calls, True)
        (note,) = (note for note in found["notes"] if note.startswith("Pruned"))
        assert said in note
        assert who == "operator" or not re.search(r"\d", note)


def test_the_summary_has_today_the_month_and_where_it_leads(root: Path) -> None:
    found = answer(root, "/api/summary?tz=Europe/Berlin")
    assert found["today"]["calls"] <= found["this_month"]["calls"]
    ahead = found["projection"]
    low, expected, high = (Decimal(ahead[name]) for name in ("low", "expected", "high"))
    assert low <= expected <= high
    assert Decimal(found["this_month"]["cost"]) <= low + Decimal("0.01")


def test_calls_are_listed_page_by_page_each_once(root: Path) -> None:
    path, seen = "/api/calls?limit=7&last=60d", []
    while path:
        found = answer(root, path, who="acme")
        seen += [call["id"] for call in found["calls"]]
        path = found["next"] and f"/api/calls?limit=7&last=60d&before={found['next']}"
    assert len(seen) == len(set(seen)) == 16


def test_an_operation_has_its_attempts(root: Path) -> None:
    (call,) = answer(root, "/api/calls?limit=1", who="acme")["calls"]
    found = answer(root, f"/api/operations/{call['id']}", who="acme")
    assert [a["outcome"]["id"] for a in found["attempts"]] == [call["id"]]


def test_csv_is_safe_for_spreadsheets_and_names_its_columns(root: Path) -> None:
    (found,) = asked(root, "/api/report?by=tag:user&format=csv")
    assert found.headers["content-type"].startswith("text/csv")
    assert found.text.startswith("tag:user,calls,")


# -- parameters ------------------------------------------------------------------------------------

TEXT = st.text(max_size=40) | st.sampled_from(
    ["", "0", "-1", "1e9", "٣", "NaN", "9999-12-31", "0001-01-01", "tag:", "tag:a=b", "a!=b",
     "cost>1", "a=*", "\0", "../../etc", "Europe/Berlin", "day", EVIL, "x" * 9000]
)  # fmt: skip


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    what=st.sampled_from(sorted(set(ASKS) - {"operation"})),
    params=st.lists(
        st.tuples(st.sampled_from(sorted({n for p in ASKS.values() for n in p})) | TEXT, TEXT),
        max_size=4,
    ),
)
@example(what="report", params=[("since", "0001-01-01"), ("tz", "Asia/Tokyo"), ("every", "day")])
@example(what="report", params=[("until", "9999-12-31T23:59"), ("tz", "Asia/Tokyo")])
@example(what="calls", params=[("before", "20250101T000000Z-00000000000000aa-9999999999999999")])
@example(what="report", params=[("by", "tag:\0"), ("where", "tag:\0=\0")])
def test_no_parameters_are_an_error_of_the_server(
    root: Path, what: str, params: list[tuple[str, str]]
) -> None:
    path = httpx.URL(f"/api/{what}", params=params)
    page = httpx.URL("/explore", params=params)
    for found in asked(root, str(path), str(page)):
        assert found.status_code in (200, 404, 422), found.text
        if found.status_code != 200 and found.url.path != "/explore":
            assert set(found.json()) == {"error"}


@pytest.mark.parametrize(
    ("query", "parameter", "words"),
    [
        ("foo=1", "foo", "there are: last"),
        ("tz=Mars", "tz", "unknown time zone"),
        ("last=7d&since=2025", "last", "not both"),
        ("limit=0", "limit", "from 1 to 10,000"),
        ("limit=5&limit=6", "limit", "twice"),
        ("by=model&by=status&by=call", "by", "two keys"),
        ("by=modle", "by", "did you mean model"),
        ("where=cost>1", "where", "KEY=VALUE"),
        ("where=tenant=a*", "where", "KEY=VALUE"),
        ("status=fine", "status", "none of ok"),
    ],
)
def test_what_is_wrong_is_named(root: Path, query: str, parameter: str, words: str) -> None:
    (found,) = asked(root, f"/api/report?{query}")
    assert found.status_code == 422
    error = found.json()["error"]
    assert error["parameter"] == parameter
    assert words in error["message"]


def test_the_description_names_every_route_and_parameter(root: Path) -> None:
    told = answer(root, "/api/openapi.json")
    assert told["openapi"].startswith("3.1")
    for what, parameters in ASKS.items():
        if what != "operation":
            listed = told["paths"][f"/api/{what}"]["get"]["parameters"]
            assert [one["name"] for one in listed] == list(parameters)
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(told)):
        assert reference in told["components"]["schemas"]


# -- who sees what ---------------------------------------------------------------------------------


def test_without_a_viewer_nothing_is_told(root: Path) -> None:
    paths = [*(f"/api/{what}" for what in ASKS if what != "operation"), *PAGES, "/ledger",
             "/api/openapi.json", "/api/events", "/api/verify", "/verify", "/operations/x",
             "/api/operations/x"]  # fmt: skip
    for found in asked(root, *paths, who=None):
        assert found.status_code == 401
        assert SECRET not in found.text


def test_a_probe_needs_no_viewer(root: Path) -> None:
    health = answer(root, "/health", "nobody")
    assert health["ok"]
    assert str(root) not in json.dumps(health)


def test_a_tenant_sees_nothing_of_the_ledger_itself(root: Path) -> None:
    for found in asked(root, "/ledger", "/api/ledger", "/api/verify", "/verify", who="acme"):
        assert found.status_code == 403


WHERES = [
    f"tenant={SECRET}-tenant",
    "tenant!=acme",
    "tenant=(none)",
    f"tenant=={SECRET}-tenant",
    f"user={SECRET}-user",
    f"{SECRET}-tag=1",
    "model!=gpt-4o",
    "status!=nothing",
]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    query=st.fixed_dictionaries(
        {},
        optional={
            "where": st.lists(st.sampled_from(WHERES), max_size=2),
            "by": st.lists(
                st.sampled_from(["model", "provider", "error", "tag:tenant", "tag:user", "status"]),
                max_size=2,
            ),
            "last": st.sampled_from(["60d", "7d", "1d"]),
            "status": st.sampled_from(["ok", "error"]),
            "every": st.sampled_from(["day", "month"]),
            "quantiles": st.just("1"),
            "format": st.just("csv"),
        },
    ),
    who=st.sampled_from(["acme", "nobody-has-this"]),
)
@example(query={"where": ["tenant=(none)"], "by": ["model"]}, who="acme")
def test_nothing_of_another_tenant_is_in_any_answer(
    root: Path, query: dict[str, Any], who: str
) -> None:
    paths = []
    for what in ("report", "calls", "summary", "tags", "live", "budgets"):
        own = {key: value for key, value in query.items() if key in ASKS[what]}
        paths.append(str(httpx.URL(f"/api/{what}", params=own)))
    paths += [str(httpx.URL(page, params=query)) if "?" not in page else page for page in PAGES]
    given_words = "".join(str(value) for value in query.values())
    for found in asked(root, *paths, who=who):
        assert found.status_code in (200, 422), found.text
        text = found.text
        for word in re.findall(rf"{SECRET}[-\w]*", text):
            assert word in given_words, (found.url, word)  # what they have typed themselves
        assert "777." not in text


def test_a_tenant_sees_its_own_budgets(root: Path) -> None:
    mine = answer(root, "/api/budgets", who="acme")
    assert mine["ready"]
    assert {one["scope"].partition(" ")[0] for one in mine["budgets"]} == {"tenant=acme"}
    assert {one["budget"] for one in mine["budgets"]} == {"usd total", "calls total"}
    assert {one["limit"] for one in mine["budgets"]} == {"700.5", 702, 703}
    assert answer(root, "/api/budgets", who="nobody-has-this")["budgets"] == []
    every = answer(root, "/api/budgets")
    assert {one["budget"] for one in every["budgets"]} == {one.label for one in BUDGETS}
    (page,) = asked(root, "/live", who="acme")
    assert "$700.50" in page.text
    (page,) = asked(root, "/live", who="nobody-has-this")
    assert "Budgets" not in page.text


def test_the_operations_of_others_are_not_there(root: Path) -> None:
    ids = [r.id for r in Ledger(root).records() if r.tags.get("tenant") != "acme"]
    assert len(ids) == 13
    for found in asked(root, *(f"/api/operations/{key}" for key in ids), who="acme"):
        assert found.status_code == 404
        assert SECRET not in found.text
    for found in asked(root, *(f"/api/calls?before={key}" for key in ids[:2]), who="acme"):
        assert found.status_code == 404


@pytest.mark.parametrize(
    ("tags", "operator"),
    [({}, False), ({"a": "b"}, True), ({"a": "(none)"}, False), ({"a": "x" * 5000}, False),
     ({"": "b"}, False), ({"a": ["b", "(none)"]}, False)],
)  # fmt: skip
def test_a_viewer_who_would_see_more_or_nothing_is_refused(
    tags: dict[str, Any], operator: bool
) -> None:
    with pytest.raises(ValueError, match=r"tag|operator"):
        Viewer(tags=tags, operator=operator)


def test_several_values_are_all_seen(root: Path) -> None:
    async def both(_: Request) -> Viewer:
        return Viewer(tags={"tenant": ["acme", f"{SECRET}-tenant"]})

    async def run() -> int:
        transport = httpx.ASGITransport(app=usage_app(root, viewer=both, process=False))
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return int((await client.get("/api/report")).json()["total"]["calls"])

    assert asyncio.run(run()) == 26


# -- headers and mounting --------------------------------------------------------------------------


def test_every_answer_has_its_policy_and_assets_stay_for_good(root: Path) -> None:
    (page,) = asked(root, "/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r"<[^>]* (style|on\w+)=", page.text)
    assert not re.search(r"<script(?![^>]*src=)|<style", page.text)
    names = re.findall(r'(?:href|src)="\./(assets/[^"]+)"', page.text)
    assert len(names) == 3
    for found in asked(root, *(f"/{name}" for name in names), who=None):
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]


def test_hostile_text_is_only_text(root: Path) -> None:
    for found in asked(root, *PAGES, who="acme"):
        assert found.status_code == 200
        assert "<script>alert" not in found.text
        assert not {"\x1b", "\u202e", "\0"} & set(found.text)


def test_it_is_mounted_in_another_application(root: Path) -> None:
    inner = usage_app(root, viewer=by_header, process=False)
    app = Starlette(routes=[Mount("/usage", inner)])

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://t", headers={"who": "operator"}
        ) as client:
            paths = ("/usage/", "/usage/explore", "/usage/api/summary", "/usage/operations/none")
            return [await client.get(path) for path in paths]

    overview, explore, summary, none = asyncio.run(run())
    assert [r.status_code for r in (overview, explore, summary, none)] == [200, 200, 200, 404]
    assert 'href="./assets/' in overview.text
    assert 'href="../assets/' in none.text


def test_the_process_answers_as_threads_do(root: Path) -> None:
    async def run() -> tuple[Any, Any]:
        app = usage_app(root, viewer=by_header)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://t", headers={"who": "acme"}
            ) as client:
                same = [client.get("/api/report?by=model&last=60d") for _ in range(20)]
                first, *others = await asyncio.gather(*same)
                assert {r.content for r in others} == {first.content}
                page = await client.get("/")
                assert page.status_code == 200
                return first.json()["rows"], first.status_code

    rows, status = asyncio.run(run())
    assert status == 200
    assert rows == answer(root, "/api/report?by=model&last=60d", who="acme")["rows"]
