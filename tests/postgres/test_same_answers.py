"""Every question that a directory answers, put to it and to the database that it is shipped to."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.generated import make_ledger
from tests.ledger_by_hand import NOON, OTHER_WRITER, HandMade
from tests.postgres.databases import command
from tests.postgres.shipped import ZONES, load, roll, seal_all

from litellm_ledger import Ledger, LedgerPathError
from litellm_ledger._records.record import UsageRecord

FIXTURES = Path(__file__).parents[1] / "fixtures"
SPRING = datetime(2025, 3, 30, 0, 59, 59, 999_999, tzinfo=UTC)
AUTUMN = datetime(2025, 10, 26, 1, 30, tzinfo=UTC)
TEAM = "team é'\""


def generated(root: Path) -> None:
    make_ledger(root, 1_200, seed=11, segment=100_000)
    seal_all(root)


def odd(root: Path) -> None:
    """What is rare: no time, times at the ends, texts PostgreSQL cannot have, other spelling."""
    hand = HandMade(root)
    lines = [
        hand.line(1, ts=None, status="ok", cost=Decimal(1), tags={"": "", "a": "(none)"}),
        hand.line(2, tags={"n\0ul": "v\0alue"}, model="m\0", cost=Decimal("0.5")),
        hand.line(3, model="openai/gpt", provider="openai", tags={"a": "x"}, latency_ms=1e-7),
        hand.line(4, model="gpt", provider="openai", tags={"a": "☃\U0001f600\\\"'"}, stream=True),
        hand.line(5, meta={"n": 10**30, "t": "tab\tfeed\n"}, content={"a": ["ü\0", None, 1e300]}),
        hand.line(6, ts=datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), model=None),
        hand.line(7, ts=datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC), error="E", status="error"),
        hand.foreign(8, '"ts":"2025-01-01T12:00:00+02:00","model":"f","tags":{ "b" : "c" },"x":1'),
        hand.line(9, operation="named by somebody", attempt=2, call_id="c-9", response_id="r-9"),
        hand.line(10, operation=hand.id(3), attempt=3, status="unsettled", cache_hit=False),
        hand.line(11, operation=hand.id(3), attempt=3, audio_seconds=0.1, images=2, pages=3),
        hand.line(12, operation=hand.id(3), attempt=3, status="unsettled"),
        hand.line(13, operation=hand.id(12), attempt=1, status="unsettled", hold_picousd=5),
        hand.gap(14, 16, "erased"),
        hand.gap(17, 20, "expired"),
        hand.gap(21, 21, "lost", 20),
        hand.line(22, saved_cost=Decimal("0.001"), cache_hit=True, ttft_ms=0.0, cost=Decimal(0)),
    ]
    hand.sealed(1, 22, lines)
    other = HandMade(root, OTHER_WRITER)
    other.sealed(1, 3, [other.started(1), other.outcome(2, 1), other.started(3)])


LEDGERS: dict[str, Callable[[Path], None]] = {"generated": generated, "odd": odd}


def fixture(name: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        shutil.copytree(FIXTURES / name, root)
        shutil.rmtree(root / "live", ignore_errors=True)  # as if it had been closed
        shutil.rmtree(root / "manifests", ignore_errors=True)
        seal_all(root)

    return make


LEDGERS |= {path.name: fixture(path.name) for path in sorted(FIXTURES.iterdir())}


@pytest.fixture(scope="module", params=sorted(LEDGERS))
def both(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Any,
    _template: str,
) -> Iterator[tuple[Path, str]]:
    """A ledger, and the database that it is shipped to."""
    from tests.postgres.conftest import made

    root = tmp_path_factory.mktemp("ledger") / "usage"
    LEDGERS[request.param](root)
    with contextlib.contextmanager(made)(postgres, _template) as url:
        load(url, root, lines=100)
        yield root, url


# -- what is asked -----------------------------------------------------------------------------

REPORTS: list[dict[str, Any]] = [
    {"by": []},
    {"by": ["model"]},
    {"by": ["model", "provider", "call", "status", "response_model", "error", "usage_source"]},
    {"by": ["cost_source", "tag:user"]},
    {"by": [f"tag:{TEAM}"]},
    {"by": ["tag:a", "tag:b"]},
    {"by": ["user", "model"], "limit": 3},
    {"by": ["model"], "quantiles": True},
    {"by": ["day"], "quantiles": True, "tz": "Europe/Berlin"},
    {"by": ["model"], "as_recorded": True},
    {"by": ["model"], "as_of": datetime(2026, 11, 29, 12, 4, 17, 110_000, tzinfo=UTC)},
    {"by": ["model"], "where": {"model": ["gpt", "openai/gpt", "gpt-4o-mini"]}},
    {"by": ["model"], "where": {"model": "(none)"}},
    {"by": ["model"], "where_not": {"model": "openai/gpt", "status": "error"}},
    {"by": ["status"], "where": {"tag:a": ["x", "(none)"]}},
    {"by": ["status"], "where": {"tag:a": ["x", "☃\U0001f600\\\"'"]}},
    {"by": ["status"], "where": {"tag:n\0ul": ["v\0alue"]}},
    {"by": ["status"], "where": ["user=user-1*", "model!=o3*"]},
    {"by": ["status"], "where": [f"{TEAM}=ä", "user!=user-1*"]},
    {"by": ["status"], "where": ["cost>0.005", "tokens<=30000"]},
    {"by": ["status"], "where": {"month": "2025-03"}},
    {"by": ["tag:nowhere"], "where": {"model": "gpt-4o-mini"}},
    {"by": ["model"], "where": {"model": "nothing"}},
    *({"by": [every, "status"], "tz": zone} for zone in ZONES for every in ("hour", "day")),
    {"by": ["week", "model"], "tz": "America/New_York", "week_start": "sunday"},
    {"by": ["month"], "tz": "Pacific/Chatham"},
]
TIMES: list[dict[str, datetime]] = [
    {},
    {"since": SPRING},
    {"until": AUTUMN},
    {"since": SPRING, "until": AUTUMN + timedelta(microseconds=1)},
    {"since": SPRING, "until": SPRING + timedelta(minutes=3)},
    {},
    {"until": datetime(1970, 1, 1, tzinfo=UTC)},
]


def reports(ledger: Ledger, each: int = 1) -> dict[str, Any]:
    """Ask for all reports, or for some of them."""
    found = {}
    for at, asked in enumerate(REPORTS[::each]):
        time = TIMES[at % len(TIMES)]
        report = ledger.report(**asked, **time)
        told = report.to_dict()
        told |= {"problems": len(report.problems), "instead": report.instead}
        told["notes"] = [re.sub(r" in \d+ files?", "", note) for note in told["notes"]]
        found[repr((asked, time))] = told
    return found


SQL = (
    "SELECT model, status, count(*), sum(cost), max(ts) FROM calls GROUP BY ALL ORDER BY ALL",
    "SELECT id, meta, content, tags['a'] FROM records WHERE kind = 'usage' ORDER BY id",
    "SELECT id, gap_until, reason FROM records WHERE kind = 'gap' ORDER BY id",
)


def others(ledger: Ledger) -> dict[str, Any]:
    """All other questions of the library."""
    found: dict[str, Any] = {
        "usage": sorted(ledger.records(), key=_id),
        "gaps": list(ledger.records(kinds=["gap"])),
        "since": sorted(ledger.records(since=SPRING, where={"status": "ok"}), key=_id),
        "newest": ledger.calls(),
        "all": ledger.calls(limit=None),
        "some": ledger.calls(limit=3, where=["cost>0.001"], until=AUTUMN),
        "named": ledger.calls(limit=3, where={"user": ["user-1", "user-2"]}),
        "tags": ledger.tags(),
        "some tags": ledger.tags(since=SPRING, until=AUTUMN, where={"status": "ok"}),
        "pruned": ledger.pruned(),
        "behind": ledger.unshipped(),
    }
    for name in ("newest", "all", "some", "named"):
        found[name] = found[name].records, found[name].matched, len(found[name].problems)
    ids = [record.id for record in found["usage"][:6]] + ["named by somebody", "c-9", "r-9", "x"]
    for key in ids:
        operation = ledger.operation(str(key))
        found[f"operation {key}"] = operation and [
            (attempt.number, attempt.outcome)
            for attempt in operation.attempts
            if attempt.outcome is not None
        ]
    return found


def _id(record: UsageRecord) -> str:
    return str(record.id)


COMMANDS = (
    ["daily", "--json", "--tz", "Asia/Kathmandu"],
    ["report", "--by", "model", "--csv", "--latency"],
    ["report", "--by", "day", "--breakdown", "--md"],
    ["top", "tags", "--json"],
    ["weekly", "--by", "user", "--limit", "2"],
    ["calls", "--csv"],
    ["records", "--json"],
    ["records"],
    ["sql", SQL[0], "--csv"],
    ["export", "--csv"],
    ["export", "--jsonl", "--where", "status=ok"],
    ["html", "-"],
    ["statusline"],
    ["metrics"],
    ["calls", "--where", "nowhere=x"],
)


_LOCAL = re.compile(
    r"Damage: |places? holds?|_(writers|queue_depth|unsynced|disk_free_bytes|unshipped)\b"
)
"""Lines about the place itself: its damage is told by file, or by writer."""
_MADE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
_UNORDERED = ("export", "records")
_TAGS = re.compile(r'\{.*?\}(?=[",]|$)')


def _parsed(line: str) -> str:
    """The line with tags in one order: that of jsonb is not the one in which they were given."""
    return _TAGS.sub(lambda match: "".join(sorted(match[0])), line)


def printed(place: str) -> dict[str, Any]:
    """What the commands print, without what is of the place alone."""
    said = str(Ledger(place).places[0])
    found: dict[str, Any] = {}
    for args in COMMANDS:
        status, text = command(*args, place)
        if args[0] in ("daily", "top") and text.startswith("{"):
            text = json.dumps({**json.loads(text), "problems": None, "notes": None}, indent=1)
        lines = _MADE.sub("", text.replace(said, "HERE")).split("\n")
        lines = [_parsed(line) for line in lines if not _LOCAL.search(line)]
        found[" ".join(args)] = status, sorted(lines) if args[0] in _UNORDERED else lines
    return found


# -- and answered ------------------------------------------------------------------------------


def test_all_of_it(both: tuple[Path, str], request: pytest.FixtureRequest) -> None:
    root, url = both
    here, there = Ledger(root), Ledger(url)
    large = "generated" in request.node.name
    each = 1 if large or "odd" in request.node.name else 5
    expected = reports(here, each)
    _same(expected, reports(there, each))
    _same(others(here), others(there))
    if each == 1:
        for query in SQL:
            assert there.sql(query).rows == here.sql(query).rows
        _same(printed(str(root)), printed(url))
    roll(url, most=100 if large else None)  # of the large one a part
    _same(expected, reports(there, each))
    if large:
        roll(url)
        _same(expected, reports(there, each))
    assert there.calls(limit=7).records == here.calls(limit=7).records
    assert there.calls(limit=7).matched == here.calls(limit=7).matched


def _same(expected: dict[str, Any], found: dict[str, Any]) -> None:
    for question, answer in expected.items():
        assert found[question] == answer, question


def test_nothing_is_left_behind(
    both: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ledger = Ledger(both[1])
    ledger.report(["model"], quantiles=True)
    records = ledger.records()
    next(records, None)
    records.close()
    list(ledger.records())
    ledger.records()  # and is not read at all
    ledger.sql("SELECT count(*) FROM calls")
    assert not any(tmp_path.iterdir())


def test_a_directory_beside_a_database(both: tuple[Path, str], tmp_path: Path) -> None:
    root, url = both
    other = HandMade(tmp_path / "other", "20250103T000000Z-00000000000000cc")
    other.sealed(1, 2, other.lines(1, 2, cost=Decimal(3), ts=NOON))
    here, mixed = Ledger([root, other.root]), Ledger([other.root, url])
    for by in (["model"], ["day", "status"]):
        assert mixed.report(by).total == here.report(by).total
        assert mixed.report(by).rows == here.report(by).rows
    assert mixed.calls(limit=5).records == here.calls(limit=5).records
    assert sorted(mixed.records(), key=_id) == sorted(here.records(), key=_id)
    with pytest.raises(LedgerPathError, match="count twice"):
        Ledger([root, url]).report(["model"])
