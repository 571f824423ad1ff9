"""The page: right figures, nothing fetched, nothing in a record can run; shown by Chromium."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.chromium import chromium_path
from tests.ledger_by_hand import NOON, HandMade, spoil
from tests.terminal import run

from litellm_ledger import Ledger
from litellm_ledger._aggregates.formatting import money
from litellm_ledger._aggregates.question import Question
from litellm_ledger._page.drawing import Drawing, draw
from litellm_ledger._page.figures import Chart, Page, Series, gather
from litellm_ledger._page.page import render

EVIL = "<script>alert(1)</script>\"'&\x1b[31m"
DAY = timedelta(days=1)
CUT = {"status": "abandoned", "usage_source": "estimated"}


def fill(hand: HandMade, days: int = 10) -> None:
    answer = {"input_tokens": 100, "cache_read_tokens": 40, "output_tokens": 30,
              "reasoning_tokens": 10, "ttft_ms": 10.0}  # fmt: skip
    outcomes: list[dict[str, Any]] = []
    for day in range(days):
        answered = {**answer, "latency_ms": 100.0 * (day + 1), "tags": {"user": f"u{day % 3}"}}
        said: list[dict[str, Any]] = [
            {"model": "small", "cost": Decimal("0.0000045"), **answered},
            {"model": "big", "cost": Decimal("1.25"), **answered},
            {"model": EVIL, **answered},
            {"status": "error", "error": "RateLimitError"},
            {"cost": Decimal("0.5"), "input_tokens": 7, **CUT},
        ]
        outcomes += [{"ts": NOON + day * DAY, **fields} for fields in said]
    hand.filled(*outcomes)


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    hand = HandMade(tmp_path / "usage")
    fill(hand)
    return hand


def page_of(hand: HandMade, **asked: Any) -> Page:
    question = asked.pop("question", Question())
    return gather(Ledger(hand.root), question, made=datetime(2025, 2, 1, tzinfo=UTC), **asked)


class Tags(HTMLParser):
    """Notes what a page refers to, and checks that it closes what it opens."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.refers: list[str] = []
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.refers.append(str(value))
            if name == "id":
                self.ids.add(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.said.append(data)


# -- figures ---------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_report(hand: HandMade) -> None:
    page = page_of(hand)
    report = Ledger(hand.root).report(every="day")
    assert (page.every, page.first, page.last) == ("day", "2025-01-01", "2025-01-10")
    assert page.total == report.total
    charts = {chart.id: chart for chart in page.charts}
    assert list(charts) == ["spend", "tokens", "speed", "failures"]
    spend = charts["spend"]
    assert [series.name for series in spend.series][:2] == ["big", "m"]
    assert spend.totals == ["$1.7500045"] * 10
    assert spend.series[0].texts[0] == "$1.25"
    tokens = charts["tokens"]
    assert {series.name: series.values[0] for series in tokens.series} == {
        "input, fresh": 187.0,
        "input, read from cache": 120.0,
        "output": 60.0,
        "output, reasoning": 30.0,
    }
    assert tokens.totals[0] == "397"
    assert charts["failures"].totals == ["2"] * 10
    speed = {series.name: series for series in charts["speed"].series}
    assert speed["whole answer, p50"].values[-1] == 1000.0
    assert speed["whole answer, p50"].texts[-1] == "1,000 ms"
    assert [top.key for top in page.tops] == ["tag:user", "model"]
    assert page.errors[0][0] == "RateLimitError"


def test_a_cost_that_rests_on_an_estimate_is_marked(tmp_path: Path) -> None:
    hand = HandMade(tmp_path).filled(
        {"model": "whole", "cost": Decimal("0.25"), "input_tokens": 1},
        {"model": "cut", "cost": Decimal("0.5"), "input_tokens": 7, **CUT},
    )
    text = render(page_of(hand))
    assert "exactly $0.75+" in text
    assert ">$0.50+</td>" in text
    assert ">$0.25</td>" in text


def test_what_could_not_be_priced_is_no_zero_in_the_figures(tmp_path: Path) -> None:
    days = [datetime(2025, 1, day, 12, tzinfo=UTC) for day in (1, 2)]
    hand = HandMade(tmp_path).filled(
        {"ts": days[0], "model": "priced", "status": "ok", "cost": Decimal(1), "input_tokens": 1},
        {"ts": days[0], "model": "odd", "status": "ok", "input_tokens": 1},
        {"ts": days[1], "model": "priced", "status": "ok", "cost": Decimal(1), "input_tokens": 1},
    )
    spend = next(chart for chart in page_of(hand, every="day").charts if chart.id == "spend")
    texts = {series.name: series.texts for series in spend.series}
    assert texts == {"priced": ["$1.00", "$1.00"], "odd (no price)": ["unknown", "–"]}


def test_many_groups_are_the_most_expensive_apart_and_the_others_together(tmp_path: Path) -> None:
    named = [{"model": f"m{n:02}", "cost": Decimal(n), "tags": {"user": f"u{n}"}}
             for n in range(1, 21)]  # fmt: skip
    page = page_of(HandMade(tmp_path).filled(*named))
    spend = page.charts[0]
    assert [series.name for series in spend.series] == [
        "m20", "m19", "m18", "m17", "m16", "m15", "m14", "all others (13)",
    ]  # fmt: skip
    assert spend.series[-1].texts[0] == "$91.00"
    assert spend.totals[0] == "$210.00"
    (top,) = [top for top in page.tops if top.key == "model"]
    assert len(top.rows) == 10
    assert top.others is not None
    assert (top.others[0], top.others[1].cost) == (10, Decimal(55))


@pytest.mark.parametrize(
    ("days", "every", "labels"),
    [(0, "hour", 1), (2, "hour", 49), (10, "day", 11), (200, "week", 29), (900, "month", 30)],
)
def test_time_is_cut_as_it_fits_and_has_no_holes(
    tmp_path: Path, days: int, every: str, labels: int
) -> None:
    hand = HandMade(tmp_path).filled({"ts": NOON}, {"ts": NOON + days * DAY})
    page = page_of(hand)
    assert page.every == every
    assert len(page.charts[0].labels) == labels
    assert page_of(hand, every="month").every == "month"


@pytest.mark.parametrize("every", ["hour", "day", "week", "month"])
def test_a_call_without_a_time_has_a_place_at_the_end(tmp_path: Path, every: str) -> None:
    page = page_of(HandMade(tmp_path).filled({"ts": NOON}, {"ts": None}), every=every)
    assert (page.charts[0].labels[-1], page.charts[0].short[-1]) == ("(none)", "(none)")
    assert len(page.charts[0].labels) == 2
    assert render(page)


@pytest.mark.parametrize("by", ["status", "tag:user", "error", "provider"])
def test_another_key_may_be_stacked(hand: HandMade, by: str) -> None:
    page = page_of(hand, by=[by])
    assert page.charts[0].totals == ["$1.7500045"] * 10
    assert by in [top.key for top in page.tops]
    for row in [row for top in page.tops if top.key == by for _, row in top.rows]:
        assert row.calls


def tagged(root: Path, calls: int = 300) -> HandMade:
    """Calls with a request id each, and tags of few values; ``user`` is on every other one."""
    outcomes: list[dict[str, Any]] = []
    for n in range(1, calls + 1):
        tags = {
            "rid": f"r{n}", "attempt_id": f"a{n}", "env": f"e{n % 2}", "job": "nightly",
            "tenant": f"t{n % 8}", "team": f"m{n % 3}", "zone": f"z{n % 40}",
        }  # fmt: skip
        if n % 2:
            tags["user"] = f"u{n % 50}"
        outcomes.append({"cost": Decimal(1), "model": f"m{n % 2}", "tags": tags})
    return HandMade(root).filled(*outcomes)


def test_the_tags_that_are_listed_are_those_that_summarise(tmp_path: Path) -> None:
    page = page_of(tagged(tmp_path))
    assert [top.key for top in page.tops] == ["tag:user", "model", "tag:tenant", "tag:team"]
    assert [name for name, _ in page.left_out] == ["attempt_id", "env", "job", "rid", "zone"]
    assert dict(page.left_out)["rid"].values == 300
    said = " ".join(Tags(render(page)).said)
    assert "Other tags" in said
    assert re.search(r"rid\s+300\s+300", said)


def test_a_request_id_is_left_out_though_there_is_nothing_else(tmp_path: Path) -> None:
    tags = [{"rid": f"r{n}", "user": f"u{n}"} for n in range(1, 121)]
    hand = HandMade(tmp_path).filled(*({"tags": one} for one in tags))
    page = page_of(hand)
    assert [top.key for top in page.tops] == ["model"]
    assert [name for name, _ in page.left_out] == ["rid", "user"]
    assert "Other tags" not in render(page_of(hand, question=Question(where={"model": ["x"]})))


def test_every_key_that_is_asked_for_is_listed(tmp_path: Path) -> None:
    hand = tagged(tmp_path)
    out = tmp_path / "page.html"
    args = ["--by", "zone,rid", "--by", "tag:job", "--by", "env", "--by", "user"]
    done = run("html", out, hand.root, *args)
    assert (done.exit_code, done.stderr.count("\n")) == (0, 1)
    said = " ".join(Tags(out.read_text(encoding="utf-8")).said)
    assert re.findall(r"By (\w+)", said) == ["zone", "rid", "job", "env", "user"]
    assert "stacked by zone" in said
    page = page_of(hand, by=["tag:zone", "tag:env"])
    keys = [top.key for top in page.tops]
    assert keys == ["tag:zone", "tag:env", "tag:user", "model"]
    assert "zone" not in dict(page.left_out)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status": "error", "cost": Decimal("0.5")}, "(1); they cost $0.50"),
        ({"status": "error"}, "(1); they cost $0.00"),
        ({"status": "cancelled"}, "(1); their cost is unknown"),
        ({"cost": Decimal("0.5"), **CUT}, "(1); they cost $0.50+"),
        ({"status": "ok"}, "(0); they cost $0.00"),
    ],
)  # fmt: skip
def test_the_cost_of_failed_calls_is_marked_where_it_is_a_floor(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    hand = HandMade(tmp_path).filled({}, fields)
    (tile,) = [text for text in Tags(render(page_of(hand))).said if text.startswith("failed or ")]
    assert tile == f"failed or abandoned {words}"


def test_calls_that_a_death_cut_off_make_the_cost_of_failed_calls_a_floor(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    lines = [hand.line(1), hand.line(2, status="error", cost=Decimal("0.5")), hand.started(3)]
    hand.open(1, lines)
    hand.live(3, oldest=3)
    assert "failed or abandoned (1); they cost $0.50+" in render(page_of(hand))


def test_weeks_begin_as_asked_where_days_are_joined(tmp_path: Path) -> None:
    days = ({"ts": NOON + day * DAY, "cost": Decimal(day)} for day in range(120))
    hand = HandMade(tmp_path).filled(*days)
    for start in ("monday", "friday"):
        page = page_of(hand, question=Question(week_start=start))
        rows = Ledger(tmp_path).report([], every="week", week_start=start).rows
        assert page.charts[0].labels == [row.group["week"] for row in rows]
        assert page.charts[0].totals == [money(row.cost) for row in rows]


def test_the_hours_of_a_day_of_25_are_25(tmp_path: Path) -> None:
    first = datetime(2025, 10, 25, 22, tzinfo=UTC)
    hand = HandMade(tmp_path).filled({"ts": first}, {"ts": first + timedelta(hours=24)})
    page = page_of(hand, question=Question(tz="Europe/Berlin"))
    labels = page.charts[0].labels
    assert len(labels) == len(set(labels)) == 25
    assert {label[:10] for label in labels} == {"2025-10-26"}


@pytest.mark.parametrize(
    ("cost", "text"),
    [("0", "$0.00"), ("1.5", "$1.50"), ("0.0000045", "$0.0000045"), ("1234567", "$1,234,567.00")],
)
def test_amounts_are_exact(cost: str, text: str) -> None:
    assert money(Decimal(cost)) == text


# -- the file --------------------------------------------------------------------------------------


def test_the_page_refers_to_nothing_and_nothing_in_a_record_can_run(hand: HandMade) -> None:
    text = render(page_of(hand))
    assert "default-src 'none'" in text
    tags = Tags(text)
    assert (tags.refers, tags.open) == ([], [])
    assert not re.search(r"@import|url\(|sourceMappingURL|//cdn", text)
    assert "<script>alert" not in text
    assert "\x1b" not in text
    assert "<script>alert(1)</script>" in "".join(tags.said)  # as words
    assert "<script" not in text
    assert not re.search(r" on\w+=|javascript:", text)


def test_every_figure_of_a_chart_is_in_a_table_too(hand: HandMade) -> None:
    page = page_of(hand)
    text = render(page)
    tags, cells = Tags(text), set(re.findall(r"<td>([^<]*)", text))
    said = "\n".join(tags.said)
    for chart in page.charts:
        assert f"chart-{chart.id}" in tags.ids
        for series in chart.series:
            assert cells.issuperset(series.texts)
    for note in page.notes:
        assert note in said
    assert "$17.500045+" in said


@pytest.mark.parametrize("kind", ["empty", "live", "damaged"])
def test_the_command_writes_one_whole_file_on_any_ledger(tmp_path: Path, kind: str) -> None:
    hand = HandMade(tmp_path / "usage")
    if kind == "live":
        hand.open(1, [hand.started(1), hand.line(2, cost=Decimal(1))], tail=b'{"half')
    if kind == "damaged":
        fill(hand)
        spoil(next((hand.root / "segments").iterdir()), line=3)
    out = tmp_path / "report.html"
    done = run("html", out, hand.root)
    size = f"{out.stat().st_size / 1_000:,.0f} kB"
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"wrote {out}, {size}\n")
    text = out.read_text(encoding="utf-8")
    assert Tags(text).open == []
    assert ("Damage: 1 place in 1 file" in text) is (kind == "damaged")
    assert ("no call on record" in text) is (kind == "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "usage"]
    assert run("html", "-", hand.root).stdout.startswith("<!doctype html>")


def test_what_cannot_be_is_one_line(hand: HandMade, tmp_path: Path) -> None:
    page = tmp_path / "x.html"
    for args, words in (
        ([hand.root], "the page comes first"),
        ([page, hand.root, "--every", "year"], "unknown period 'year'"),
        ([page, hand.root, "--by", "day"], "the charts are over time; give --every day"),
        ([page, hand.root, "--by", "usr"], "no call has the tag usr; did you mean user"),
        ([page, hand.root, "--by", "model,usr"], "did you mean user?"),
        ([page, tmp_path / "nowhere"], "no ledger at"),
        ([tmp_path / "no" / "x.html", hand.root], f"there is no directory {tmp_path / 'no'}"),
    ):
        done = run("html", *args)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert words in done.stderr
    assert not page.exists()


def points(drawing: Drawing) -> list[list[tuple[float, float]]]:
    """Where the paths of a drawing begin: the upper left corners of its bars."""
    found = [re.findall(r"M([\d.]+) ([\d.]+)", path) for path in drawing.paths]
    return [[(float(x), float(y)) for x, y in path] for path in found]


def chart(*series: list[float | None], **fields: Any) -> Chart:
    labels = [f"2025-01-{at:02}" for at in range(1, len(series[0]) + 1)]
    named = [
        Series(name=str(at), color=at, values=values, texts=list(map(str, values)))
        for at, values in enumerate(series)
    ]
    given: dict[str, Any] = {"kind": "stack", "unit": "usd", **fields}
    return Chart(id="x", title="", about="", labels=labels, short=labels, series=named, **given)


def test_bars_stand_on_each_other_to_the_height_of_their_sum() -> None:
    drawing = draw(chart([1.0, 0.0], [3.0, 2.0]), wide=True)
    assert [word for _, word in drawing.ticks] == ["$0", "$1", "$2", "$3", "$4"]
    assert [place for place, _ in drawing.ticks] == [0, 25, 50, 75, 100]
    below, above = points(drawing)
    assert below == [(230.0, 750.0)]
    assert above == [(230.0, 0.0), (730.0, 500.0)]
    assert drawing.tips == [[1, 0], [1]]
    assert points(draw(chart([-1.0], [4.0]), wide=True)) == [[], [(480.0, 0.0)]]


def test_a_line_joins_what_is_known() -> None:
    drawing = draw(
        chart([None, 500.0, None, 1000.0], [None, 2000.0, None, None], kind="line", unit="ms"),
        wide=True,
    )
    assert [word for _, word in drawing.ticks] == ["0", "500 ms", "1 s", "1.5 s", "2 s"]
    assert drawing.paths == ["M375.0 750.0L875.0 500.0", "M375.0 0.0m-20.0 0h40"]
    assert drawing.tips == [[], [0, 1], [], [0]]


@pytest.mark.parametrize(
    ("most", "unit", "last"),
    [(0, "usd", "$1"), (0.0000123, "usd", "$0.0000125"), (0.9, "calls", "1"), (45, "calls", "50"),
     (1_230_000, "tokens", "1.5 M"), (7_300, "usd", "$8,000"), (2_410_000, "usd", "$2.5 M")],
)  # fmt: skip
def test_an_axis_ends_at_a_round_number(most: float, unit: str, last: str) -> None:
    assert draw(chart([most], unit=unit), wide=False).ticks[-1][1] == last


def test_a_long_chart_has_few_words_and_no_tips() -> None:
    drawing = draw(chart([1.0] * 700), wide=True)
    assert (len(drawing.words), drawing.tips) == (14, [])


# -- in a browser ----------------------------------------------------------------------------------

FIRST = """<script>
window.problems = [];
addEventListener("error", (event) => window.problems.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => window.problems.push(event.blockedURI));
</script>"""
LAST = """<script>
const root = document.documentElement;
const drawn = [...document.querySelectorAll(".chart")].map((chart) => {
  const shapes = [...chart.querySelectorAll("path:not(.grid)")].filter((path) => {
    const box = path.getBoundingClientRect();
    return box.width > 9 && (box.height > 1 || chart.matches(".line"));
  });
  const of = chart.matches(".line") ? "stroke" : "fill";
  return new Set(shapes.map((path) => getComputedStyle(path)[of])).size;
});
const tip = document.querySelector(".at > div");
tip.style.display = "grid";
const place = tip.getBoundingClientRect();
root.dataset.found = JSON.stringify({
  drawn, tip: [place.left, place.right, tip.textContent], problems: window.problems,
  width: innerWidth, wide: root.scrollWidth,
  columns: [...document.querySelectorAll(".card:not(.wide)")]
    .map((card) => Math.round(card.getBoundingClientRect().left)),
  fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
  back: getComputedStyle(document.body).backgroundColor,
});
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    return chromium_path()


@pytest.fixture
def shown(hand: HandMade, tmp_path: Path) -> Path:
    """The page, with a look at it from inside."""
    text = render(page_of(hand)).replace("style-src", "script-src 'unsafe-inline'; style-src")
    file = tmp_path / "page.html"
    file.write_text(
        text.replace("<title>", f"{FIRST}<title>").replace("</body>", f"{LAST}</body>"), "utf-8"
    )
    return file


@pytest.mark.parametrize(("width", "columns"), [(1280, 2), (390, 1)])
@pytest.mark.parametrize("dark", [False, True])
def test_chromium_draws_every_chart_and_fetches_nothing(
    chromium: str, shown: Path, tmp_path: Path, width: int, columns: int, dark: bool
) -> None:
    done = subprocess.run(
        [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--window-size={width},1600", "--dump-dom", shown.as_uri(),
        ],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    match = re.search(r'data-found="([^"]*)"', done.stdout)
    assert match, done.stdout[:300]
    found = json.loads(match[1].replace("&quot;", '"'))
    assert (found["problems"], found["fetched"]) == ([], [])
    assert found["drawn"] == [2, 4, 4, 2], "a series is not seen"
    left, right, words = found["tip"]
    assert 0 <= left < right <= found["width"]
    assert "$1.25" in words
    assert found["wide"] <= found["width"], "it must be scrolled sideways"
    assert len(set(found["columns"])) == columns
    assert found["back"] == ("rgb(14, 18, 23)" if dark else "rgb(244, 245, 247)")


def test_the_pictures_of_the_guides_can_be_made_anew() -> None:
    root = Path(__file__).resolve().parents[2]
    source = (root / "docs" / "make_images.py").read_text(encoding="utf-8")
    for path in (root / "docs" / "images").iterdir():
        assert path.stem in source
    assert "sample.py" in source


@pytest.mark.parametrize("every", ["hour", "day", "week", "month"])
def test_a_call_dated_centuries_away_does_not_make_the_page_endless(
    hand: HandMade, every: str
) -> None:
    moments = [NOON, NOON + DAY, datetime(9998, 12, 31, 23, tzinfo=UTC)]
    hand.filled(*({"ts": ts, "cost": Decimal(1)} for ts in moments))
    done = run("html", "-", hand.root, "--every", every)
    assert done.exit_code == 0
    assert "9998-12" in done.stdout
    assert len(done.stdout) < 100_000
