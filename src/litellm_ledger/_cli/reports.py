"""The commands that add up: by day, by group, the most expensive first, and as a page.

Owns their words and flags.  The sums are ``Ledger.report``'s, the looks ``_cli.print_reports``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from .flags import Looks, Output, Wheres, place, refuse_misspelt
from .parameters import argument, option
from .progress import progress
from .settings import ledger_directory

if TYPE_CHECKING:
    from litellm_ledger._aggregates.question import Question
    from litellm_ledger._reports.ledger import Ledger

    Ledgers = Ledger  # of one directory, or several

__all__ = ["daily", "hourly", "html", "monthly", "report", "top", "weekly"]

By = Annotated[
    list[str],
    option(
        metavar="KEYS",
        help="Group keys, comma-separated: model, provider, call, status, error, hour, day, week, "
        "month …; any other word is a tag.",
    ),
]
ByToo = Annotated[
    list[str],
    option(
        "--by",
        metavar="KEYS",
        help="Further group keys, comma-separated: model, provider, status …, or a tag.",
    ),
]
Limit = Annotated[
    int | None,
    option(
        "--limit", "-n", help="Number of rows; the others are added up in one more. Default: all."
    ),
]
Sort = Annotated[
    str | None,
    option(
        "--sort",
        metavar="COLUMN",
        help="Sort the rows by a group key or a figure: calls, cost:asc, day:desc …",
    ),
]
Columns = Annotated[
    str | None,
    option(
        metavar="NAMES",
        help="Columns of the table, comma-separated: calls,input,output,cost. Default: those with "
        "something in them.",
    ),
]
Breakdown = Annotated[
    bool,
    option(
        "--breakdown", "-b", help="Below each row, list its models (below models, the providers)."
    ),
]
Latency = Annotated[bool, option("--latency", help="Also show latency and time to first token.")]
AsRecorded = Annotated[
    bool, option("--as-recorded", help="Costs as recorded, without what was priced again since.")
]
AsOf = Annotated[
    str | None,
    option(
        "--as-of",
        metavar="WHEN",
        help="Costs as they were at this time; a day means its start: 2025-03-30 …",
    ),
]
_TOPS: Final = {"users": "tag:user", "models": "model", "providers": "provider"}


def _by_period(period: str, remark: str = "") -> Callable[..., int]:
    """Return the command that reports by a period."""

    def run(
        question: Question,
        output: Output,
        ledger: Ledgers,
        by: ByToo = [],  # noqa: B006 - read by flags.command, never changed
        limit: Limit = None,
        sort: Sort = None,
        columns: Columns = None,
        breakdown: Breakdown = False,
        latency: Latency = False,
        as_recorded: AsRecorded = False,
        as_of: AsOf = None,
    ) -> int:
        question = _costs(question, as_recorded=as_recorded, as_of=as_of)
        looks = Looks(limit=limit, sort=sort, breakdown=breakdown, latency=latency, columns=columns)
        return _print(ledger, _keys([period, *by]), question, output, looks)

    run.__doc__ = f"Calls, tokens and cost by {period}{remark}."
    return run


daily = _by_period("day", " (the default command)")
weekly = _by_period("week")
monthly = _by_period("month")
hourly = _by_period("hour")


def report(
    question: Question,
    output: Output,
    ledger: Ledgers,
    by: By = ["model"],  # noqa: B006 - read by flags.command, never changed
    limit: Limit = None,
    sort: Sort = None,
    columns: Columns = None,
    breakdown: Breakdown = False,
    latency: Latency = False,
    as_recorded: AsRecorded = False,
    as_of: AsOf = None,
) -> int:
    """Calls, tokens and cost by group, with notes on data quality."""
    question = _costs(question, as_recorded=as_recorded, as_of=as_of)
    looks = Looks(limit=limit, sort=sort, breakdown=breakdown, latency=latency, columns=columns)
    return _print(ledger, _keys(by), question, output, looks)


def _costs(question: Question, *, as_recorded: bool, as_of: str | None) -> Question:
    """Have costs added up as they were recorded, or were at a time."""
    if not as_recorded and as_of is None:
        return question
    if as_recorded and as_of is not None:
        raise ValueError("give --as-recorded or --as-of, not both")
    import msgspec

    from litellm_ledger._aggregates.calendar import calendar
    from litellm_ledger._aggregates.question import moment

    zone = calendar(question.tz).zone
    when = None if as_of is None else moment(as_of, zone, datetime.now(UTC), flag="--as-of")
    return msgspec.structs.replace(question, as_recorded=as_recorded, as_of=when)


def _keys(by: Sequence[str]) -> list[str]:
    from litellm_ledger._aggregates.groups import named

    words = [word.strip() for part in by for word in part.split(",")]
    return list(dict.fromkeys(named(word) for word in words if word))


def _print(
    ledger: Ledger, keys: Sequence[str], question: Question, output: Output, looks: Looks
) -> int:
    from .print_reports import ask, print_report

    if looks.breakdown and looks.latency:
        raise ValueError("give --breakdown or --latency, not both")
    with ask(ledger, keys, question, output, looks) as asked:
        return print_report(asked, output, looks)


def top(
    question: Question,
    output: Output,
    what: Annotated[
        str | None,
        argument(help="users, models, providers, tags, or any group key. Default: models."),
    ] = None,
    paths: Wheres = (),
    by: Annotated[
        list[str],
        option("--by", metavar="KEYS", help="Group keys, comma-separated, in place of WHAT."),
    ] = [],  # noqa: B006 - read by flags.command, never changed
    limit: Annotated[int, option("--limit", "-n", help="Number of rows; 0: all.")] = 10,
    sort: Sort = None,
    columns: Columns = None,
    breakdown: Breakdown = False,
    as_recorded: AsRecorded = False,
    as_of: AsOf = None,
) -> int:
    """The most expensive users, models or tags, and their share of the cost."""
    from litellm_ledger._aggregates.groups import named
    from litellm_ledger._reports.ledger import Ledger
    from litellm_ledger._reports.places import is_url

    from .print_reports import ask_tags, print_report

    if what is not None and what not in _TOPS and (is_url(what) or Path(what).is_dir()):
        paths, what = (what, *paths), None  # `top usage/`
    if what is not None and by:
        raise ValueError(f"give {what} or --by, not both")
    ledger = Ledger(paths or ledger_directory())
    question = _costs(question, as_recorded=as_recorded, as_of=as_of)
    looks = Looks(limit=limit, sort=sort, breakdown=breakdown, share=True, columns=columns)
    if what == "tags":
        return print_report(ask_tags(ledger, question, looks), output, looks)
    what = what or "models"
    return _print(ledger, _keys(by) or [_TOPS.get(what) or named(what)], question, output, looks)


def html(
    out: Annotated[
        Path,
        argument(metavar="FILE", help="HTML file to write; - writes to standard output."),
    ],
    question: Question,
    output: Output,  # noqa: ARG001 - adds --no-color, which every command has
    ledger: Ledgers,
    by: Annotated[
        list[str],
        option(
            metavar="KEYS",
            help="Group keys to list, comma-separated; the cost chart is stacked by the first.",
        ),
    ] = ["model"],  # noqa: B006 - read by flags.command, never changed
    every: Annotated[
        str | None,
        option(help="Period of the charts: hour, day, week or month. Default: by length of time."),
    ] = None,
    as_recorded: AsRecorded = False,
    as_of: AsOf = None,
) -> int:
    """Write a report with charts as one HTML file, to mail or keep."""
    from litellm_ledger._aggregates.calendar import PERIODS
    from litellm_ledger._page.figures import READINGS, gather
    from litellm_ledger._page.page import render

    from .files import target, tell_written

    if out.is_dir():
        raise ValueError(f"{out} is a directory; the page comes first: html report.html {out}")
    if every is not None and every not in PERIODS:
        raise ValueError(f"unknown period {every!r}; use {', '.join(PERIODS)}")
    keys = _keys(by) or ["model"]
    question = _costs(question, as_recorded=as_recorded, as_of=as_of)
    for key in keys:
        if key in PERIODS:
            raise ValueError(f"--by {key}: the charts are over time; give --every {key}")
    with target(out) as to:  # first: what cannot be written need not be read
        with progress(f"reading {place(ledger)}", READINGS) as advance:
            now = datetime.now(UTC)
            page = gather(ledger, question, by=keys, every=every, made=now, advance=advance)
            refuse_misspelt(ledger, page.missing_tags, question)
        to.write(render(page))
    tell_written(out)
    return 0
