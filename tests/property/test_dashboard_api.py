"""The API of the dashboard against its own description, by Schemathesis.

Whatever is asked, the status is one that is described and the answer is as described; the server
never fails.  Nothing is served: requests go to the application in this process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from starlette.requests import Request
from tests.browsing import EVIL, SECRET, fill

from litellm_ledger._web.asks import ASKS
from litellm_ledger.web import Viewer, usage_app

schemathesis = pytest.importorskip("schemathesis")  # of the group `peers`

OPERATIONS = [f"/api/{what}" for what in ASKS if what != "operation"] + ["/api/operations/{id}"]
UNDERSTOOD = {
    "last": ["7d", "60d", "12mo", "month"],
    "since": ["2020-01-01", "0001-01-01"],
    "until": ["2020-01-01", "9999-12-31T23:59"],
    "tz": ["UTC", "Europe/Berlin", "Asia/Kathmandu"],
    "every": ["day", "month"],
    "by": [["model"], ["tag:user", "status"], ["error"], [f"tag:{EVIL}"], []],
    "where": [["tenant=acme"], ["user!=u1", "model=gpt-4o"], [f"user={EVIL}"], []],
    "model": ["gpt-4o"],
    "provider": ["openai"],
    "status": ["ok", "error"],
}
"""Values that lead somewhere: a description cannot say which names of zones there are."""


async def viewer(request: Request) -> Viewer:
    who = request.headers.get("who", "operator")
    return Viewer(operator=True) if who == "operator" else Viewer(tags={"tenant": who})


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("fuzzed") / "usage"
    hand = fill(root)
    return root, [hand.id(1), "none"]


def checks() -> list[Any]:
    from schemathesis import checks as known

    known.load_all_checks()
    names = ["not_a_server_error", "status_code_conformance", "content_type_conformance",
             "response_headers_conformance", "response_schema_conformance"]  # fmt: skip
    return known.CHECKS.get_by_names(names)


def ask(ledger: tuple[Path, list[str]], path: str, mode: str, examples: int) -> dict[int, int]:
    """Ask that many questions; return how often each status was answered."""
    from schemathesis import GenerationMode

    root, ids = ledger
    app = usage_app(root, viewer=viewer, process=False)
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    told: dict[int, int] = {}
    wanted = checks()

    @seed(17)
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(
        case=schema[path]["GET"].as_strategy(generation_mode=GenerationMode(mode)),
        data=st.data(),
        who=st.sampled_from(["operator", "acme"]),
    )
    def run(case: Any, data: Any, who: str) -> None:
        if mode == "positive":
            for name in list(case.query):
                if name in UNDERSTOOD and data.draw(st.integers(0, 3)):
                    case.query[name] = data.draw(st.sampled_from(UNDERSTOOD[name]))
            if {"last"} < case.query.keys() and data.draw(st.booleans()):
                for name in ("since", "until"):
                    case.query.pop(name, None)
            if "id" in case.path_parameters and data.draw(st.booleans()):
                case.path_parameters["id"] = data.draw(st.sampled_from(ids))
        case.headers["who"] = who
        answer = case.call_and_validate(checks=wanted)
        told[answer.status_code] = told.get(answer.status_code, 0) + 1
        if who == "acme" and SECRET in answer.text:
            assert SECRET in str(case.query) + str(case.path_parameters)

    run()
    return told


def test_every_operation_of_the_description_is_asked(ledger: tuple[Path, list[str]]) -> None:
    app = usage_app(ledger[0], viewer=viewer, process=False)
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    paths = {found.ok().path for found in schema.get_all_operations()}
    assert paths == {*OPERATIONS, "/api/events", "/api/verify"}  # which have no end


@pytest.mark.parametrize("path", OPERATIONS)
def test_answers_are_as_described(ledger: tuple[Path, list[str]], path: str) -> None:
    told = ask(ledger, path, "positive", 30)
    assert told.get(200), told


@pytest.mark.parametrize("path", sorted(set(OPERATIONS) - {"/api/tags", "/api/ledger"}))
def test_what_is_not_described_is_refused_as_described(
    ledger: tuple[Path, list[str]], path: str
) -> None:
    assert set(ask(ledger, path, "negative", 15)) <= {200, 403, 404, 422}


@pytest.mark.matrix
@pytest.mark.parametrize("path", OPERATIONS)
def test_answers_are_as_described_at_length(ledger: tuple[Path, list[str]], path: str) -> None:
    assert ask(ledger, path, "positive", 1_000).get(200)
