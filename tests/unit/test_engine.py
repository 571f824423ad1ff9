"""Two ways to a report, one truth: line by line, by the database, and reckoned in plain Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.generated import Reckoning, as_sums, make_ledger
from tests.ledger_by_hand import (
    NOON,
    OTHER_WRITER,
    WRITER,
    HandMade,
    altered,
    flip,
    newer,
    spoil,
)

from litellm_ledger import Ledger, MissingExtra, UsageRecord
from litellm_ledger._aggregates.calendar import calendar
from litellm_ledger._aggregates.groups import Row
from litellm_ledger._aggregates.order import read_order
from litellm_ledger._aggregates.question import Question
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._cli.export import export_records
from litellm_ledger._errors import LedgerPathError, UnsupportedFormat
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.follow import Follower
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._reports import engine as _reporting
from litellm_ledger._reports import relation as _relation
from litellm_ledger._reports.relation import Relation, ask
from litellm_ledger._reports.report import added
from litellm_ledger._reports.survey import Surveyed, survey

CASES: list[tuple[list[str], str]] = [
    ([], "UTC"),
    (["model"], "UTC"),
    (["provider", "status", "error"], "UTC"),
    (["day", "tag:user"], "Europe/Berlin"),
    (["hour"], "Europe/Berlin"),
    (["hour", "model"], "America/New_York"),
    (["week", "tag:team é'\""], "America/New_York"),
    (["month", "usage_source"], "Australia/Brisbane"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Reckoning]]:
    root = tmp_path_factory.mktemp("glob[1]*") / "us'age?"
    make_ledger(root, 7_000, segment=245_000)
    asked = [*CASES, (["model", "tag:user"], "UTC")]
    yield root, Reckoning(root, [(tuple(by), zone) for by, zone in asked])
    shutil.rmtree(root)


@pytest.fixture(autouse=True)
def copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have segments of that ledger copied where a line is damaged; elsewhere they are larger."""
    monkeypatch.setattr(_relation, "_WORTH_A_COPY", 64 * 1024)


Both = Callable[[Callable[[], Any]], list[Any]]


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Both:
    """Ask by the database, then line by line."""

    def ask(question: Callable[[], Any]) -> list[Any]:
        found = []
        for large in (0, 2**60):
            monkeypatch.setattr(_reporting, "_LARGE", large)
            found.append(question())
        return found

    return ask


@pytest.fixture(params=["database", "database without copies", "line by line"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reporting, "_LARGE", 2**60 if request.param == "line by line" else 0)
    if request.param == "database without copies":
        monkeypatch.setattr(_relation, "_COPIES", 0)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(("by", "zone"), CASES)
def test_a_report_is_what_plain_python_reckons(
    made: tuple[Path, Reckoning], by: list[str], zone: str
) -> None:
    root, truth = made
    report = Ledger(root).report(by, tz=zone, week_start="sunday")
    rows = report.rows if by else [report.total]
    found = {tuple(row.group.values()): as_sums(row) for row in rows}
    assert found == truth.sums(by, zone)
    assert as_sums(report.total) == truth.sums()[()]
    assert sum(problem.lines for problem in report.problems) == truth.damaged
    assert truth.damaged


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("by", [["tag:user"], ["model", "tag:user"], ["status"], ["day"], []])
def test_a_limit_leaves_the_first_rows_and_the_sum_of_the_others(
    made: tuple[Path, Reckoning], by: list[str]
) -> None:
    ledger = Ledger(made[0])
    whole = ledger.report(by)
    for limit in (1, 3, 10_000):
        part = ledger.report(by, limit=limit)
        beyond = whole.rows[limit:]
        assert (part.rows, part.total) == (whole.rows[:limit], whole.total)
        assert (part.others, part.others_count) == (added(beyond) if beyond else None, len(beyond))
        assert part.missing_tags == whole.missing_tags


@pytest.mark.parametrize(
    ("by", "nested"),
    [(["model", "tag:user"], False), (["model", "status"], True), (["day", "hour"], True),
     (["day", "hour"], False)],
)  # fmt: skip
def test_rows_are_sorted_alike_by_both(
    made: tuple[Path, Reckoning], both: Both, by: list[str], nested: bool
) -> None:
    dates = calendar("America/New_York")
    outer = by[:-1] if nested else by
    for text in ("input:asc", "wasted", f"{outer[-1]}:desc"):

        def rows(text: str = text) -> list[Row]:
            order = read_order(text, outer)
            selection = Selection(calendar=dates)
            with _reporting.open_report(
                made[0], by, selection, nested=nested, order=order
            ) as answer:
                assert answer.count == len({tuple(map(row.group.get, outer)) for row in
                                            answer.rows(None)})  # fmt: skip
                return [*answer.rows(None)]

        one, other = both(rows)
        assert one == other, text
        order = read_order(text, outer)
        if not nested:
            values = [order.value(row) for row in one]
            assert values == sorted(values, reverse=order.down), text


def test_a_report_can_be_sorted_and_cut(made: tuple[Path, Reckoning], both: Both) -> None:
    ledger = Ledger(made[0])
    users = sorted((row.group["tag:user"] for row in ledger.report(["user"]).rows), reverse=True)
    for found in both(lambda: ledger.report(["tag:user"], sort="user:desc", limit=2)):
        assert [row.group["tag:user"] for row in found.rows] == users[:2]
        assert added(found.rows, found.others) == added([found.total])
    with pytest.raises(ValueError, match=r"sort= 'costs': .* one of model, calls, ok, error, "):
        ledger.report(sort="costs")


def test_the_database_reads_most_of_it_by_itself(made: tuple[Path, Reckoning]) -> None:
    with Relation(made[0]) as relation:
        ((odd,),) = relation.rows("SELECT count(*) FROM line_by_line")
        ((all_,),) = relation.rows("SELECT count(*) FROM records")
    assert 0 < odd < all_ / 20


@pytest.mark.usefixtures("engine")
def test_quantiles_are_those_of_plain_python(made: tuple[Path, Reckoning]) -> None:
    root, truth = made
    total = Ledger(root).report([], quantiles=True).total
    for name in ("latency_ms", "ttft_ms"):
        spread = getattr(total, name)
        count, *quantiles, most = truth.spread(name)
        assert (spread.count, spread.max) == (count, most)
        assert (spread.p50, spread.p90, spread.p99) == pytest.approx(quantiles, rel=1 / 128)


SELECTIONS: list[dict[str, Any]] = [
    {"since": datetime(2025, 3, 30, tzinfo=UTC), "until": datetime(2025, 10, 26, tzinfo=UTC)},
    {"where": {"tag:user": ["user-1", "user-2", "(none)"], "status": "ok"}},
    {"where": {"day": "2025-10-26", "model": "o3 \"preview\" 'x'"}, "tz": "Europe/Berlin"},
    {"where": {"hour": "2025-10-26T02:00+01:00"}, "tz": "Europe/Berlin"},
    {"where": {"month": ["2025-03", "no month", "(none)"], "tag:team é'\"": ""}},
    {"where": {"week": "2025-03-24"}, "every": "day"},
    {"where": {"model": ["claude-sonnet-4", "openai/gpt-4o-mini"]}},
    {"where_not": {"model": "gpt-4o-mini", "user": ["user-1", "(none)"]}},
    {"where_not": {"month": ["2025-03", "(none)"], "status": "ok"}, "tz": "Europe/Berlin"},
    {"where_not": {"team é'\"": "", "error": "(none)"}, "where": {"user": "user-3"}},
]


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_selection_means_the_same_to_both(
    made: tuple[Path, Reckoning], selection: dict[str, Any], both: Both
) -> None:
    ledger = Ledger(made[0])
    one, other = both(lambda: ledger.report(["model", "tag:user"], quantiles=True, **selection))
    assert one.total.calls
    assert one.rows == other.rows
    assert one.total == other.total


CONDITIONS: dict[str, Callable[[UsageRecord], bool]] = {
    "cost>0.0005": lambda r: r.cost is not None and r.cost > Decimal("0.0005"),
    "cost<=.0005": lambda r: r.cost is not None and r.cost <= Decimal("0.0005"),
    "cost=(none)": lambda r: r.cost is None,
    "tokens!=1000": lambda r: r.total_tokens != 1000,
    "input_tokens>=500": lambda r: r.input_tokens is not None and r.input_tokens >= 500,
    "latency<250.5": lambda r: r.latency_ms is not None and r.latency_ms < 250.5,
    "user=user-1*": lambda r: r.tags.get("user", "").startswith("user-1"),
    "user!=user-1*": lambda r: not r.tags.get("user", "").startswith("user-1"),
    "user=*": lambda r: "user" in r.tags,
    "model=gpt*": lambda r: "gpt" in [(r.model or "")[:3], (r.model or "").partition("/")[2][:3]],
    "user==user-1*": lambda r: r.tags.get("user") == "user-1*",
}


def test_conditions_mean_the_same_to_both_and_to_plain_python(
    made: tuple[Path, Reckoning], both: Both
) -> None:
    ledger = Ledger(made[0])
    every = list(ledger.records())
    one, other = {}, {}
    for text, holds in CONDITIONS.items():
        one[text], other[text] = both(partial(ledger.report, ["status", "user"], where=text))
        wanted = [record for record in every if holds(record)]
        assert one[text].total.calls == other[text].total.calls == len(wanted), text
        cost = sum((record.cost or Decimal(0) for record in wanted), Decimal(0))
        assert one[text].total.cost == other[text].total.cost == cost, text
        assert one[text].rows == other[text].rows, text
    assert sum(0 < found.total.calls < len(every) for found in one.values()) >= 9
    texts = ["user=user-1", "user=user-2*", "cost>0.0001", "cost<0.1"]
    for found in both(partial(ledger.report, [], where=texts, where_not={"status": "error"})):
        assert found.total.calls == sum(
            r.status != "error" and Decimal("0.0001") < (r.cost or Decimal(0)) < Decimal("0.1")
            and (r.tags.get("user") == "user-1" or r.tags.get("user", "")[:6] == "user-2")
            for r in every
        )  # fmt: skip


def test_manifests_answer_beginnings_and_leave_comparisons_to_the_lines(
    tmp_path: Path, both: Both
) -> None:
    hand = HandMade(tmp_path)
    lines = []
    for n in range(1, 7):
        model = "openai/gpt-4o" if n % 2 else "o1"
        lines.append(hand.line(n, model=model, cost=Decimal(n), tags={"user": f"u{n}"}))
    hand.sealed(1, 6, lines)
    ledger = Ledger(tmp_path)
    asked = (["model=gpt*"], ["user=u*", "user!=u1*"], ["cost>=2", "cost<5"], ["cost=3", "user=u*"])
    before = [ledger.report(["model"], where=texts) for texts in asked]
    assert [report.total.calls for report in before] == [3, 5, 3, 1]
    assert len(seal(tmp_path).manifests) == 1
    for found in both(lambda: [ledger.report(["model"], where=texts) for texts in asked]):
        assert found == before


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("gpt-4o", [1, 2, 3, 5]),
        ("openai/gpt-4o", [1, 2, 5]),
        ("azure/gpt-4o", [3]),
        ("m/gpt-4o", [4]),
        ("openrouter/m/gpt-4o", [4]),
        ("gpt-4", [6]),
        ("", [7]),
        ("(none)", [8, 9]),
        ("openai/", [7]),
        ("o", []),
    ],
)
def test_a_model_is_found_with_and_without_its_provider(
    tmp_path: Path, asked: str, found: list[int]
) -> None:
    hand = HandMade(tmp_path)
    models = [
        ("openai/gpt-4o", "openai"),
        ("gpt-4o", "openai"),
        ("azure/gpt-4o", "azure"),
        ("openrouter/m/gpt-4o", "openrouter"),
        ("openai/gpt-4o", None),
        ("gpt-4", ""),
        ("openai/", "openai"),
        ("", "openai"),
        (None, "openai"),
    ]
    hand.sealed(1, 9, [hand.line(n, model=m, provider=p) for n, (m, p) in enumerate(models, 1)])
    ledger = Ledger(tmp_path)
    for conditions in ({"where": {"model": asked}}, {"where_not": {"model": asked}}):
        wanted = found if "where" in conditions else sorted({*range(1, 10)} - {*found})
        listed = ledger.calls(limit=None, **conditions)  # type: ignore[arg-type]
        assert sorted(record.seq or 0 for record in listed.records) == wanted
        assert ledger.report([], **conditions).total.calls == len(wanted)  # type: ignore[arg-type]


@pytest.mark.usefixtures("engine")
def test_a_call_without_a_time_is_not_of_a_day_that_is_not_wanted(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 2, [hand.line(1), hand.line(2, ts=None)])
    listed = Ledger(tmp_path).calls(where_not={"day": "2025-01-01"})
    assert [record.seq for record in listed.records] == [2]


@pytest.mark.usefixtures("engine")
def test_the_name_of_a_tag_may_have_any_characters(tmp_path: Path) -> None:
    names = ["a\nb", "a'\n--", "{sums}", "\0", "\u2028"]
    hand = HandMade(tmp_path)
    hand.sealed(1, 1, [hand.line(1, tags=dict.fromkeys(names, "1"))])
    for name in names:
        (row,) = Ledger(tmp_path).report([f"tag:{name}"], where={f"tag:{name}": "1"}).rows
        assert (row.group, row.calls) == ({f"tag:{name}": "1"}, 1)


def test_tags_are_counted_alike_by_both(made: tuple[Path, Reckoning], both: Both) -> None:
    one, other = both(lambda: _reporting.count_tags(made[0], Selection(where={"status": "ok"})))
    assert one == other
    user = one["user"]
    assert user.values == 100
    assert user.calls > user.largest > user.calls / 20


def test_the_newest_calls_are_the_same_to_both(made: tuple[Path, Reckoning], both: Both) -> None:
    ledger = Ledger(made[0])
    assert both(lambda: ledger.tags(where={"status": "ok"})) == [["team é'\"", "user"]] * 2
    one, other = both(lambda: ledger.calls(limit=50))
    assert one.records == other.records
    assert one.matched == other.matched == made[1].calls
    one, other = both(lambda: ledger.calls(where={"status": "error"}, limit=None))
    assert one.records == other.records
    assert len(one) == one.matched > 100


def test_calls_in_flight_are_found_without_reading_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 3, [hand.started(1), hand.outcome(2, of=1), hand.started(3)])
    hand.open(4, [hand.outcome(4, of=3), hand.started(5), hand.started(6), hand.outcome(7, of=6)])
    monkeypatch.setattr(_reporting, "_LARGE", 0)
    hand.live(7, oldest=5)
    report = Ledger(tmp_path).report()
    assert (report.total.calls, report.in_flight, report.cut_off) == (3, 0, 1)
    with hand.alive(7):
        assert Ledger(tmp_path).report().in_flight == 0  # none, it says, up to what is written
    assert Ledger(tmp_path).report(where={"model": "other"}).cut_off == 0


# -- segments that are not whole ---------------------------------------------------------------


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize(
    ("change", "sound"),
    [
        (lambda hand, lines: [*lines[:3], flip(lines[3]), flip(lines[4]), *lines[5:]], True),
        (lambda hand, lines: [flip(lines[0]), *lines[1:]], True),
        (lambda hand, lines: [*lines[:-1], flip(lines[-1])], True),
        (lambda hand, lines: [*lines[:3], b"\n\nnothing\n", *lines[4:]], True),
        (lambda hand, lines: [*lines[:3], *lines[5:]], True),
        (lambda hand, lines: [*lines[:3], lines[3][:-1] + lines[4], *lines[5:]], True),
        (lambda hand, lines: [*lines, lines[0][:50]], True),
        (lambda hand, lines: [flip(line) for line in lines], True),
        (lambda hand, lines: [*lines[:3], lines[2], *lines[3:]], False),
        (lambda hand, lines: [lines[1], lines[0], *lines[2:]], False),
        (lambda hand, lines: [*lines[:5], hand.gap(6, 8), *lines[8:]], False),
        (lambda hand, lines: [*lines[:-1], hand.outcome(10, of=9, status="unsettled")], False),
        (lambda hand, lines: [HandMade(hand.root, OTHER_WRITER).line(1), *lines[1:]], False),
    ],
)
def test_what_is_not_whole_says_the_same_to_both(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    both: Both,
    change: Callable[[HandMade, list[bytes]], list[bytes]],
    sound: bool,
    is_open: bool,
) -> None:
    hand = HandMade(tmp_path)
    lines = change(hand, [hand.line(n, cost=Decimal(n), model=f"m{n}") for n in range(1, 11)])
    path = hand.open(1, lines) if is_open else hand.sealed(1, 10, lines)
    monkeypatch.setattr(_relation, "_WORTH_A_COPY", 0)

    def ask() -> Any:
        report = Ledger(tmp_path).report(["model"])
        listed = Ledger(tmp_path).calls(limit=None)
        return report.rows, report.total, report.problems, listed.records

    one, other = both(ask)
    assert one == other
    name = SegmentName.parse(path.name)
    assert name is not None
    assert survey(tmp_path, name).sound == sound
    with Relation(tmp_path) as relation:
        ((by_line,),) = relation.rows("SELECT count(*) FROM line_by_line")
    assert (by_line == 0) == sound


def test_what_is_written_after_the_look_is_left_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = HandMade(tmp_path)
    path = hand.open(1, hand.lines(1, 3))
    monkeypatch.setattr(_relation, "_WORTH_A_COPY", 0)

    def and_then(root: Path, name: SegmentName) -> Surveyed:
        found = survey(root, name)
        path.write_bytes(path.read_bytes() + hand.gap(4, 9))
        return found

    monkeypatch.setattr(_relation, "survey", and_then)
    with Relation(tmp_path) as relation:
        assert relation.rows("SELECT count(*), max(seq) FROM records") == [(3, 3)]


# -- SQL ---------------------------------------------------------------------------------------


def test_sql_sees_the_calls_that_count_with_exact_money(made: tuple[Path, Reckoning]) -> None:
    root, truth = made
    table = Ledger(root).sql(
        "SELECT tags['user'] AS who, count(*) AS n, sum(cost) AS usd, sum(cost_picousd) AS pico "
        "FROM calls WHERE model = $model GROUP BY who ORDER BY who",
        {"model": "gpt-4o-mini"},
    )
    assert table.columns == ["who", "n", "usd", "pico"]
    expected = truth.sums(["model", "tag:user"])
    assert len(table) == 101
    for row in table.to_dicts():
        sums = expected["gpt-4o-mini", row["who"] or "(none)"]
        assert (row["n"], row["pico"]) == (sums["calls"], sums["cost"])
        assert row["usd"] == Decimal(sums["cost"]).scaleb(-12)
    assert sum(problem.lines for problem in table.problems) == truth.damaged
    ((kinds,),) = Ledger(root).sql("SELECT list(DISTINCT kind ORDER BY kind) FROM records")
    assert kinds == ["gap", "started", "usage"]
    zoned = Ledger(root).sql("SELECT ts AT TIME ZONE 'UTC' FROM calls LIMIT 1")
    assert zoned.types == ["TIMESTAMP WITH TIME ZONE"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT nothing FROM calls", "nothing"),
        ("SELEC 1", "syntax"),
        ("", "one statement that only reads"),
        ("SELECT 1; SELECT 2", "one statement that only reads"),
        ("COPY calls TO 'x.csv'", "one statement that only reads"),
        ("INSTALL httpfs", "one statement that only reads"),
        ("EXPLAIN ANALYZE COPY calls TO 'x.csv'", "leave ANALYZE out"),
        ("explain/**/analyse--\n create table t as select 1", "leave ANALYZE out"),
        ('EXPLAIN (FORMAT json, "ANALYZE") DELETE FROM line_by_line', "leave ANALYZE out"),
        ("DROP VIEW calls", "one statement that only reads"),
        ("SELECT CAST(model AS INTEGER) FROM calls", "m"),
    ],
)
def test_a_query_that_cannot_be_is_refused_in_words(tmp_path: Path, query: str, says: str) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 2)
    with pytest.raises(ValueError, match=says):
        Ledger(tmp_path).sql(query)


@pytest.mark.parametrize(
    ("says", "becomes"), [("Query interrupted", KeyboardInterrupt), ("other", RuntimeError)]
)
def test_ctrl_c_ends_a_query_as_it_ends_everything(
    tmp_path: Path, says: str, becomes: type[BaseException]
) -> None:
    """In the words of the database, whose long steps do not end at once."""
    HandMade(tmp_path).sealed(1, 2)

    def query(relation: Relation) -> None:
        raise RuntimeError(says)

    with pytest.raises(becomes):
        ask(tmp_path, query)


@pytest.mark.parametrize(
    ("database", "bar"), [("duckdb", True), ("litellm_ledger._archive.database", False)]
)
def test_the_database_draws_no_progress_bar_at_a_prompt(database: str, bar: bool) -> None:
    code = f"""from {database} import connect
print(connect().execute("SELECT current_setting('enable_progress_bar')").fetchone()[0])"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == f"{bar}\n"


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_times_mean_the_same_on_every_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        HandMade(tmp_path).sealed(1, 2)
        ledger = Ledger(tmp_path)
        query = "SELECT count(*) FILTER (ts >= $1), count(*) FILTER (ts <= $1) FROM calls"
        assert ledger.sql(query, [NOON]).rows == [(2, 2)]
        assert ledger.sql("SELECT current_setting('TimeZone')").rows == [("UTC",)]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_without_the_extra_reports_go_on_and_sql_says_what_to_install(
    made: tuple[Path, Reckoning], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reporting, "_LARGE", 0)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    root, truth = made
    assert Ledger(root).report([]).total.calls == truth.calls
    with pytest.raises(MissingExtra, match=r"litellm-ledger\[report\]"):
        Ledger(root).sql("SELECT 1")


# -- what others write, and what changes meanwhile ---------------------------------------------


@pytest.fixture
def by_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reporting, "_LARGE", 0)
    monkeypatch.setattr(_relation, "_SMALL", 0)
    monkeypatch.setattr(_relation, "_WORTH_A_COPY", 0)


@pytest.mark.usefixtures("by_database")
def test_what_the_database_cannot_take_is_read_by_us(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    strange = '"status":"ok","model":"n","tags":{"a":"1","a":"2"},"cost_picousd":5'
    hand.sealed(1, 3, [hand.line(1), hand.foreign(2, strange), hand.line(3, cost=Decimal(1))])
    rows = Ledger(tmp_path).report(["model"]).rows
    assert [(row.group["model"], row.calls, row.cost) for row in rows] == [
        ("m", 2, Decimal(1)),
        ("n", 1, Decimal(5).scaleb(-12)),
    ]


@pytest.mark.parametrize("raw", [False, True])
def test_csv_is_the_same_bytes_from_both(
    made: tuple[Path, Reckoning],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    both: Both,
    raw: bool,
) -> None:
    hand = HandMade(tmp_path)
    plain = '"status":"ok","cost_picousd":0,"tags":{"b":"1","a":"=2"}'
    texts = [
        "=1",
        "+1",
        "-1",
        "@a",
        "\t",
        "\r=1",
        "a\rb",
        "\n",
        "＝1",
        'q"q',
        "a,b",
        "é😀\x00\x1b",
        "",
    ]
    lines = [hand.line(n, model=text, tags={text: text}) for n, text in enumerate(texts, 1)]
    more: list[dict[str, Any]] = [
        {"cost": Decimal("-0.25"), "saved_cost": Decimal(100), "latency_ms": 1e16, "ttft_ms": 1e-7},
        {"cost": Decimal("9223372.036854775807"), "audio_seconds": 2.0, "stream": True},
        {"ts": datetime(1999, 1, 1, tzinfo=UTC), "latency_ms": 123.456, "cache_hit": False},
        {
            "ts": None,
            "model": None,
            "meta": {"n": 1e22, "i": 2**53, "t": "\x1f\u2028é", "l": [[], None]},
        },
        {"content": {"messages": [{"role": "user", "content": 'hi\n,"'}]}, "response_id": "=x"},
    ]
    lines += [hand.line(n, **fields) for n, fields in enumerate(more, len(lines) + 1)]
    strange = [
        plain,
        '"model":"' + "y" * 5_000 + '"',
        '"input_tokens":3',
        '"output_tokens":3,"latency_ms":-1.0',
        '"tags":{},"meta":{}',
    ]
    lines += [hand.foreign(n, fields) for n, fields in enumerate(strange, len(lines) + 1)]
    hand.sealed(1, len(lines), lines)
    other = HandMade(tmp_path, OTHER_WRITER)
    other.open(1, other.lines(1, 3))
    monkeypatch.setattr(_relation, "_SMALL", 0)
    out = tmp_path / "out.csv"

    def export(root: Path, question: Question) -> tuple[bytes, list[str]]:
        problems = export_records(Ledger(root), question, ("usage",), "csv", out, raw=raw)
        return out.read_bytes(), sorted(map(str, problems))

    for root in (tmp_path, made[0]):
        for question in (Question(), Question(where={"status": ["ok"]}, since=NOON)):
            one, other = both(partial(export, root, question))
            assert one[1] == other[1]
            assert one[0].splitlines() == other[0].splitlines()
            assert one[0].count(b"\n") > 10


NO_RECORDS = {
    "a count of text": '"images":"three"',
    "a negative count": '"input_tokens":-5',
    "a count beyond what JSON holds": '"output_tokens":9007199254740992',
    "a fraction of a token": '"input_tokens":1.5',
    "a model that is a number": '"model":7',
    "a status there is none of": '"status":"weird"',
    "a source there is none of": '"usage_source":"guess"',
    "a cost that is a fraction": '"cost_picousd":0.5',
    "a cost beyond a column": '"cost_picousd":9223372036854775808',
    "a saved cost of text": '"saved_cost_picousd":"1"',
    "a time without a zone": '"ts":"2025-01-01T12:00:00"',
    "a time that is in no year of UTC": '"ts":"0001-01-01T00:00:00+10:00"',
    "a flag that is a number": '"stream":1',
    "tags that are a list": '"tags":["a"]',
    "a tag that is a number": '"tags":{"a":1}',
    "meta that is a list": '"meta":[]',
    "a number out of range": '"meta":{"a":1e999}',
    "content that is text": '"content":"hi"',
    "content that is too long": '"content":{"a":"' + "x" * 262_144 + '"}',
    "seconds below zero": '"audio_seconds":-1.0',
    "a gap that is none": '"gap_until":9',
    "a reason without a gap": '"reason":"lost"',
    "an id of the provider's that is a list": '"response_id":[]',
}


@pytest.mark.parametrize("large", [0, 2**60], ids=["by the database", "line by line"])
@pytest.mark.parametrize("is_open", [False, True], ids=["sealed", "open"])
def test_a_line_whose_fields_do_not_decode_is_damage_to_every_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_open: bool, large: int
) -> None:
    """Each of ``NO_RECORDS`` is at a writer of its own, between two lines that are records."""
    monkeypatch.setattr(_reporting, "_LARGE", large)
    monkeypatch.setattr(_relation, "_SMALL", 0)
    monkeypatch.setattr(_relation, "_WORTH_A_COPY", 0)
    hands = [HandMade(tmp_path, f"{WRITER[:-2]}{n:02x}") for n in range(len(NO_RECORDS))]
    ledger = Ledger(tmp_path)
    follower = Follower(tmp_path)
    wrong: dict[str, tuple[object, ...]] = {}
    good: list[str] = []
    paths = []
    for hand, (why, members) in zip(hands, NO_RECORDS.items(), strict=True):
        lines = [hand.line(1), hand.foreign(2, members), hand.line(3)]
        path = hand.open(1, lines) if is_open else hand.sealed(1, 3, lines)
        wrong[why] = f"segments/{path.name}", "damaged", len(lines[0]), len(lines[1]), 1
        good += [hand.id(1), hand.id(3)]
        paths.append(path)

    def named(problems: Sequence[Problem]) -> dict[str, tuple[object, ...]]:
        found = [(p.file, p.what, p.offset, p.length, p.lines) for p in problems]
        by_file = {file: why for why, (file, *_) in wrong.items()}
        assert len(found) == len({file for file, *_ in found})
        return {by_file[place[0]]: place for place in found}

    report, calls, records = ledger.report(["model"]), ledger.calls(limit=None), ledger.records()
    assert sorted(str(record.id) for record in records) == good
    assert sorted(str(record.id) for record in calls) == good
    assert (report.total.calls, calls.matched) == (len(good), len(good))
    for problems in (report.problems, calls.problems, records.problems):
        assert named(problems) == wrong
    for verdict in ledger.verify().writers:
        assert (verdict.found, verdict.lost, verdict.ok) == (2, 1, False)
    assert named([p for writer in ledger.verify().writers for p in writer.problems]) == wrong
    assert sorted(str(record.id) for record in follower.look()) == good
    assert [name for (name,) in ledger.sql("SELECT id FROM calls ORDER BY id")] == good
    out = tmp_path / "out.csv"
    for form in ("csv", "jsonl", "parquet"):
        assert named(export_records(ledger, Question(), ("usage",), form, out)) == wrong
        if form != "parquet":
            assert len(out.read_text().splitlines()) == len(good) + (form == "csv")
    if not is_open:
        done = compact(tmp_path)
        assert (done.segments, len(done.left)) == (0, len(NO_RECORDS))
        assert all(path.exists() for path in paths)


def test_every_line_is_read_by_us_if_need_be(made: tuple[Path, Reckoning]) -> None:
    with Relation(made[0], trusting=False) as relation:
        total = relation.rows("SELECT count(*), sum(cost_picousd) FROM calls")
        rest = relation.rows(
            "SELECT count(*) FROM records EXCEPT SELECT count(*) FROM line_by_line"
        )
    assert total == [(made[1].calls, made[1].sums()[()]["cost"])]
    assert rest == []


@pytest.mark.usefixtures("by_database")
def test_a_file_that_goes_while_it_is_read_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = HandMade(tmp_path)
    one = hand.sealed(1, 2)
    two = hand.sealed(3, 4)
    seen = []

    def count(relation: Relation) -> int:
        seen.append(relation)
        two.unlink(missing_ok=True)
        ((found,),) = relation.rows("SELECT count(*) FROM calls")
        return int(found)

    assert ask(tmp_path, count) == 2
    assert len(seen) == 2
    monkeypatch.setattr(_relation, "survey", lambda root, name: _relation.Surveyed(True, 2, 99))
    one.rename(one.with_name("elsewhere"))
    gone = Snapshot(tmp_path, [SegmentName(hand.writer, 1, 2)], {}, [])
    monkeypatch.setattr(Snapshot, "take", lambda root: gone)
    with pytest.raises(LedgerPathError, match="cannot read the ledger"):
        ask(tmp_path, count)


@pytest.mark.usefixtures("by_database")
def test_a_sealed_segment_that_was_damaged_since_is_not_believed(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    path = hand.sealed(1, 3, [hand.line(n, cost=Decimal(n)) for n in (1, 2, 3)])
    ledger = Ledger(tmp_path)
    assert ledger.report([]).total.cost == Decimal(6)
    spoil(path, line=1)
    report = ledger.report([])
    assert report.total.cost == Decimal(4)
    assert [(p.what, p.lines) for p in report.problems] == [("damaged", 1)]
    spoil(path, line=3, at=-3)  # in the frame around the checksum of the last line
    assert ledger.report([]).total.cost == Decimal(1)


@pytest.mark.usefixtures("by_database")
def test_an_empty_ledger_is_no_error_and_a_missing_one_is(tmp_path: Path) -> None:
    HandMade(tmp_path / "empty")
    assert Ledger(tmp_path / "empty").report(quantiles=True).total.calls == 0
    assert Ledger(tmp_path / "empty").sql("FROM calls").rows == []
    with pytest.raises(LedgerPathError, match="no ledger"):
        Ledger(tmp_path / "nowhere").sql("FROM calls")


@pytest.mark.usefixtures("by_database")
def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 1, [newer(hand.line(1))])
    for ask_ in (lambda: Ledger(tmp_path).report(), lambda: Ledger(tmp_path).sql("FROM calls")):
        with pytest.raises(UnsupportedFormat):
            ask_()


# -- where a ledger is, and what there is room for ---------------------------------------------


def agreed(both: Both, root: Path) -> Any:
    """What a report says, if it is the same both ways."""

    def ask() -> Any:
        report = Ledger(root).report(["model", "status"])
        return report.rows, report.total, sorted(map(str, report.problems))

    by_database, by_us = both(ask)
    assert by_us == by_database
    return by_us


def half_damaged(root: Path) -> HandMade:
    hand = HandMade(root)
    for first, last in ((1, 3), (4, 5)):
        lines = [hand.line(n, cost=Decimal(n), model=f"m{n}") for n in range(first, last + 1)]
        hand.sealed(first, last, lines)
    hand.open(6, [hand.line(6), flip(hand.line(7)), hand.line(8)])
    return hand


@pytest.mark.usefixtures("by_database")
@pytest.mark.parametrize(
    "name", ["model=x/status=ok", "~", "~root", "file:", "a\\[b", "new\nline", "\udcff"]
)
def test_the_name_of_a_directory_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("litellm_ledger._reports.surveyors._WORTH_IT", 1)
    half_damaged(Path(name))
    assert len(agreed(both, Path(name))[0]) == 6


@pytest.mark.usefixtures("by_database")
def test_without_room_for_a_copy_lines_are_read_by_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both
) -> None:
    half_damaged(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    said = agreed(both, tmp_path)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", list)  # there is no place at all
    assert agreed(both, tmp_path) == said

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.undo()
    monkeypatch.setattr(_relation, "_WORTH_A_COPY", 0)
    monkeypatch.setattr(_relation, "_copy", full)
    assert agreed(both, tmp_path) == said


@pytest.mark.usefixtures("by_database")
def test_a_segment_that_is_recovered_after_the_look_is_read_by_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = HandMade(tmp_path)
    lines = hand.lines(1, 9)
    # what was damaged is as long as the lines that stand there afterwards
    path = hand.open(1, [lines[0], b"x" * (2 * len(lines[0]) - 1) + b"\n", *lines[1:]])

    def and_then(root: Path, name: SegmentName) -> Surveyed:
        found = survey(root, name)
        if path.exists():
            path.unlink()
            hand.sealed(1, 9, lines)
        return found

    monkeypatch.setattr(_relation, "survey", and_then)
    with Relation(tmp_path) as relation:
        assert relation.rows("SELECT count(*) FROM records") == [(9,)]


@pytest.mark.usefixtures("by_database")
def test_operations_that_users_name_are_settled_alike(tmp_path: Path, both: Both) -> None:
    one, two = HandMade(tmp_path), HandMade(tmp_path, OTHER_WRITER)
    for name in ("op", 'a "b"', one.id(7), two.id(1)):
        for hand in (one, two):
            first = 1 + 10 * len(list((tmp_path / "segments").iterdir()))
            about = {"operation": name, "attempt": 0}
            lines = hand.lines(first, first + 9)
            lines[3] = hand.line(first + 3, status="unsettled", model=f"{name} {hand.writer}")
            lines[5] = hand.line(first + 5, status="unsettled", **about)
            hand.sealed(first, first + 9, lines)
            if hand is one:
                hand.open(first + 10, [hand.line(first + 10, status="error", **about)])
    assert agreed(both, tmp_path)[1].unsettled == 8 + 4


@pytest.mark.usefixtures("by_database")
def test_what_a_line_of_another_program_leaves_out_stays_out(tmp_path: Path, both: Both) -> None:
    hand = HandMade(tmp_path)
    line = hand.foreign(1, '"input_tokens":3')
    hand.sealed(1, 1, [altered(line, b'{"v":1', b'{"v": 1')])
    total = agreed(both, tmp_path)[1]
    assert (total.input_tokens, total.total_tokens, total.ok) == (3, 0, 0)
