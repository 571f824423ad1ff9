"""Flags that many commands share, and what happens around a command: errors, statuses, pipes.

Owns the words of ``--since``, ``--where``, ``--json`` and their like, so that they mean the same
everywhere.  A command says with three parameters what it takes: ``ledger``, ``question`` (which
part of it) and ``output`` (in which form); it never sees the flags themselves.  Its others are
annotated: ``Annotated[int, option(…)]``, ``Annotated[str, argument(…)]``.

A tag that is nowhere on the ledger is a mistake (status 2) unless ``--allow-missing``; a value that
is nowhere is an answer, and what there is instead is said.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, get_args

import click
from click.exceptions import Exit

from litellm_ledger._errors import LedgerError
from litellm_ledger._records.escaping import escaped, json_text
from litellm_ledger._reports.places import is_url

from .parameters import Command, argument, option, parameter
from .settings import foreign, forget, ledger_directory, settings

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from litellm_ledger._aggregates.question import Question
    from litellm_ledger._reports.ledger import Ledger

__all__ = [
    "FORMS",
    "HELP",
    "RAW",
    "Directories",
    "LongList",
    "Looks",
    "Output",
    "Wheres",
    "check_matched",
    "check_raw",
    "check_where",
    "command",
    "complain",
    "emit",
    "home",
    "in_a_directory",
    "one_by_one",
    "paths_dict",
    "place",
    "put_json",
    "refuse_misspelt",
    "said_begin",
    "scope",
    "zone_name",
]


def home(path: Path | None) -> Path | None:
    """Expand ``~``: a quoted one comes as it was written."""
    return path and Path(os.path.expanduser(path))  # noqa: PTH111 - `~nobody` stays as it is


def _ledger(given: str | None) -> str | Path | None:
    """Return the directory that is meant, or the URL."""
    return given if given is None or is_url(given) else home(Path(given))


def _directory(_context: object, _parameter: object, begun: str) -> list[CompletionItem]:
    """Have the shell complete a directory."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(begun, type="dir")]


_DEFAULT: Final = (
    "Default: $LITELLM_LEDGER_DIR, that of litellm-ledger.toml, or your user data directory."
)
_ALSO: Final = {
    **dict.fromkeys(
        ("erase", "metrics", "serve", "show", "statusline", "tail", "watch"),
        ", s3://… or postgresql://…",
    ),
    "anchor": " or s3://…",
    "budgets": " or postgresql://…",
    "prune": " or postgresql://…",
}
"""What commands of one ledger take beside a directory."""


def _path(name: str) -> Callable[..., click.Argument]:
    return argument(
        help=f"Ledger directory{_ALSO.get(name, '')}. {_DEFAULT}",
        callback=lambda _context, _parameter, path: _ledger(path),
        shell_complete=_directory,
    )


def _paths(what: str) -> Callable[..., click.Argument]:
    return argument(
        metavar="[PATH]...",
        help=f"{what} {_DEFAULT}",
        callback=lambda _context, _parameter, paths: tuple(map(_ledger, paths)),
        shell_complete=_directory,
    )


_EVERYWHERE: Final = _paths("Ledger directory, s3://… or postgresql://…, or several, read as one.")
_DIRECTORIES: Final = _paths("Ledger directory, or several.")

Wheres = Annotated[tuple[str, ...], _EVERYWHERE]
Directories = Annotated[tuple[str, ...], _DIRECTORIES]


@dataclass(frozen=True, slots=True)
class Output:
    """The form that was asked for: at most one of the three, else a table for people.

    ``raw`` goes with ``csv``: text that is a formula to a spreadsheet is left as it is.  ``quiet``:
    without the sentences below a table.
    """

    json: bool = False
    csv: bool = False
    md: bool = False
    raw: bool = False
    color: bool = True
    quiet: bool = False


class Looks(NamedTuple):
    """Which rows and columns of a report are shown.

    Attributes:
        limit: the number of rows (0: all), and what all others come to; ``None``: all.
        sort: another order, as it was written.
        breakdown: models or providers below each row.
        latency: quantiles.
        share: each row's share of the cost.
        columns: those of a table, comma-separated.
    """

    limit: int | None = None
    sort: str | None = None
    breakdown: bool = False
    latency: bool = False
    share: bool = False
    columns: str | None = None


_ITEMS: Final = 500
"""Items of a long list that are written at once."""

_MOST_TAGS: Final = 20
_GIVEN: Final = ("Ledger", "Ledgers", "Question", "Output")
_Text = str | None
_ASKING: Final[dict[str, tuple[Any, Any, str | None, str]]] = {
    "since": (
        _Text,
        None,
        "WHEN",
        "Only calls from this time on: 2025-03-30, 2025-03-30T14:00, today, 7d (ago) …",
    ),
    "until": (
        _Text,
        None,
        "WHEN",
        "Only calls before this time; a day or month is included as a whole.",
    ),
    "last": (
        _Text,
        None,
        "SPAN",
        (
            "Only the last 24h, 7d, 4w or 12mo, including the current hour, day, week or month; or "
            "the last whole day, week, month or year."
        ),
    ),
    "where": (
        list[str],
        [],
        "CONDITION",
        (
            "Only calls with KEY=VALUE, or without it (KEY!=VALUE): env=prod, status!=ok, "
            "model=gpt-*; or by a number: cost>0.01, tokens<=1000, latency>2000. Repeatable."
        ),
    ),
    "allow_missing": (
        bool,
        False,
        None,
        "Accept a tag that no call has; by default it is refused.",
    ),
    "tz": (
        _Text,
        None,
        "ZONE",
        (
            "Time zone of days and of times given without one: Europe/Berlin, local. Default: on a "
            "terminal that of this machine; in pipes and files UTC."
        ),
    ),
    "week_start": (str, "monday", "WEEKDAY", "First day of the week."),
}
_SHORT: Final = {
    "since": "-s",
    "until": "-u",
    "tz": "-z",
    "where": "-w",
    "json": "-j",
    "quiet": "-q",
}
"""Short flags; those that users of other tools type mean the same there."""
FORMS: Final = ("json", "csv", "md")
RAW: Final = "With --csv: put no apostrophe before text that a spreadsheet would run as a formula."
_FORMS: Final = {
    "json": "Print JSON; amounts are exact decimal text.",
    "csv": "Print CSV; amounts are exact.",
    "md": "Print a Markdown table.",
    "raw": RAW,
    "no_color": "Print without colour, as with $NO_COLOR.",
    "quiet": "Print no notes below a table, and nothing of what was done if all is well.",
}
_OUT: Final = "Write to this file, complete or not at all: .json, .csv and .md choose the form."
_FILES: Final = ("export", "html")
"""What writes files for others, whose days are not those of the terminal that they are made on."""
_PRIVATE: Final = ("calls", "sql")
"""What may print prompts: files of it are for their owner alone."""
_DATABASE: Final = re.compile(r"postgres(ql)?:", re.IGNORECASE)
HELP: Final = {"help_option_names": ["--help", "-h"]}


def command(name: str, function: Callable[..., int], forms: tuple[str, ...]) -> click.Command:
    """Make a function a command: its result is the exit status, its errors take one line.

    Args:
        forms: the forms that a command with ``output`` can print in.
    """
    given_here = {given: given for given in _GIVEN}  # the modules need not be loaded
    signature = inspect.signature(function, eval_str=True, locals=given_here)
    takes = {p.name for p in signature.parameters.values() if p.annotation in _GIVEN}

    filed = "output" in takes and "csv" in forms

    def run(**given: Any) -> None:
        _warn_of_password(given.values())
        out: Path | None = given.pop("out") if filed else None
        if out is not None:
            raise Exit(_guarded(lambda: _to_file(out, name, function, given, takes, forms)))
        local = sys.stdout.isatty() and name not in _FILES
        raise Exit(_guarded(lambda: function(**_taken(given, takes, forms, local=local))))

    text = function.__doc__ or ""
    return Command(
        name,
        callback=run,
        params=[*_own(name, signature), *_shared(takes, forms, filed=filed)],
        help=text,
        # click cuts a summary of its own making to 45 characters
        short_help=text.partition("\n")[0].rstrip("."),
        context_settings=HELP,
    )


def _warn_of_password(given: Iterable[Any]) -> None:
    """Warn, once, of a password in a URL of a database: others can see a command line."""
    words = [word for one in given for word in (one if isinstance(one, list | tuple) else [one])]
    urls = [word for word in words if isinstance(word, str) and _DATABASE.match(word)]
    if not urls:
        return
    from litellm_ledger._postgres.address import Address

    for url in urls:
        with suppress(LedgerError, ValueError, OSError):  # said by the command, which reads it too
            if Address.of(url).shown:
                complain(
                    "the password in the URL can be read in the list of processes and in the "
                    "shell's history; give it by PGPASSFILE or a service file"
                )
                return


def _own(name: str, signature: inspect.Signature) -> Iterator[click.Parameter]:
    """Yield the parameters that a command says itself."""
    for one in signature.parameters.values():
        if one.annotation == "Ledger":
            yield parameter("path", None, str | None, _path(name))
        elif one.annotation == "Ledgers":
            of = _DIRECTORIES if name == "ship" else _EVERYWHERE
            yield parameter("paths", (), tuple[str, ...], of)
        elif one.annotation not in _GIVEN:
            yield parameter(one.name, one.default, *get_args(one.annotation))


def _shared(
    takes: Collection[str], forms: tuple[str, ...], *, filed: bool
) -> Iterator[click.Parameter]:
    """Yield the parameters that ``question`` and ``output`` stand for."""
    if "question" in takes:
        for flag, (kind, default, metavar, words) in _ASKING.items():
            make = option(*_names(flag), metavar=metavar, help=words)
            yield parameter(flag, default, kind, make)
    if "output" in takes:
        also = ("no_color", "quiet", *(("raw",) if "csv" in forms else ()))
        for flag, words in _FORMS.items():
            if flag in forms + also:
                yield parameter(flag, False, bool, option(*_names(flag), help=words))
    if filed:
        yield parameter("out", None, Path | None, option("--out", "-o", help=_OUT))


def _to_file(
    out: Path,
    name: str,
    function: Callable[..., int],
    given: dict[str, Any],
    takes: set[str],
    forms: tuple[str, ...],
) -> int:
    """Run a command whose output goes to a file, in the form that its name asks for."""
    from .files import form_of, printed_to

    form = None if any(given[form] for form in forms) else form_of(out)
    if form is not None:
        given[form] = True
    taken = _taken(given, takes, forms)
    with printed_to(out, private=name in _PRIVATE):
        status = function(**taken)
        if status == 2:
            raise Exit(status)  # it has said why; no file is left
    return status


def _names(flag: str) -> list[str]:
    """The names of a flag: its long one, and its short one if it has any."""
    return [f"--{flag.replace('_', '-')}", *([_SHORT[flag]] if flag in _SHORT else [])]


def _taken(
    given: dict[str, Any], takes: set[str], forms: tuple[str, ...], *, local: bool = False
) -> dict[str, Any]:
    """Turn the flags of a command line into the parameters of the command's function."""
    if "ledger" in takes:
        from litellm_ledger._reports.ledger import Ledger

        paths = given.pop("paths") if "paths" in given else ()
        given["ledger"] = Ledger(paths or given.pop("path", None) or ledger_directory())
    if "question" in takes:
        given["question"] = _question({name: given.pop(name) for name in _ASKING}, local=local)
    if "output" in takes:
        chosen = {name: given.pop(name) for name in forms}
        asked = [f"--{name}" for name in forms if chosen[name]]
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)} cannot be combined; give one of them")
        raw = "csv" in forms and given.pop("raw")
        check_raw(raw=raw, csv=chosen.get("csv", False))
        color = not (given.pop("no_color") or os.environ.get("NO_COLOR"))
        given["output"] = Output(**chosen, raw=raw, color=color, quiet=given.pop("quiet"))
    return given


def check_raw(*, raw: bool, csv: bool) -> None:
    """Refuse ``--raw`` where it would do nothing."""
    if raw and not csv:
        raise ValueError("--raw needs --csv")


def zone_name(given: str | None, *, local: bool) -> str:
    """Return the zone that is meant: as given, else that of the settings, of this machine, or UTC.

    Args:
        local: whether the zone of this machine is meant where nothing says which.
    """
    return given or settings().zone or (_machine_zone() if local else "UTC")


def _machine_zone() -> str:
    """Return the name of the zone of this machine, or ``local`` if it cannot be told."""
    named = os.environ.get("TZ", "").removeprefix(":")
    link = named or os.path.realpath("/etc/localtime")
    name = link.rpartition("zoneinfo/")[2]
    if name in ("UTC", "Etc/UTC", "Universal", "Etc/Universal", "Zulu"):
        return "UTC"
    from litellm_ledger._aggregates.calendar import calendar

    now = datetime.now(UTC)
    try:
        known = calendar(name).local(now).utcoffset() == now.astimezone().utcoffset()
    except ValueError:
        known = False
    return name if known and name != "local" else "local"


def _question(flags: dict[str, Any], *, local: bool) -> Question:
    from litellm_ledger._aggregates.calendar import calendar
    from litellm_ledger._aggregates.question import question

    flags["tz"] = zone_name(flags["tz"], local=local)
    span, week_start = flags.pop("last"), flags.pop("week_start").lower()
    zone = calendar(flags["tz"], week_start).zone
    now = datetime.now(UTC)
    return question(**flags, last_=span, week_start=week_start, zone=zone, now=now)


_status: dict[str, int] = {}
"""The status of a command that knows it before it prints, for when nobody reads the print."""


def _guarded(function: Callable[[], int]) -> int:
    try:
        try:
            forget()
            for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character shows '?'
                if hasattr(stream, "reconfigure"):
                    stream.reconfigure(errors="replace")
            return function()
        finally:
            for one in foreign:
                complain(one)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader (`head`, a pager) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _status.get("status", 0)
    except KeyboardInterrupt:
        return 130
    except (LedgerError, ValueError, OSError) as exc:
        complain(exc)
        return 2


def complain(what: object, *, lines: bool = False) -> None:
    """Write one line to standard error; with ``lines`` those that there are, blank ones apart."""
    said = [escaped(line.rstrip(), "\t") for line in str(what).splitlines() if line.strip()]
    text = "\n".join(said) if lines else escaped(" ".join(str(what).split()))
    sys.stderr.write(f"litellm-ledger: {text}\n")


def emit(
    output: Output,
    plain: Callable[[], Any],
    table: Callable[[], None],
    *,
    csv: Callable[[], None] | None = None,
    status: int = 0,
    calm: bool = False,
) -> int:
    """Print in the form that was asked for; return the exit status of the command.

    The status is noted before: it holds also if the reader leaves early.

    Args:
        calm: of a command that checks or changes something: ``--quiet`` is silent if all is well.
    """
    _status["status"] = status
    if calm and output.quiet and not (output.json or status):
        return status
    if output.json:
        put_json(plain())
    elif output.csv and csv is not None:
        csv()
    else:
        table()
    return status


def said_begin(output: Output, paths: Iterable[Path], place: str) -> None:
    """Say, to standard error, that following begins: it may be long until there is news."""
    if not output.quiet:
        complain(f"shipping {', '.join(map(str, paths))} to {place}, until Ctrl-C or SIGTERM")


def place(ledger: Ledger) -> str:
    """Return where a ledger is, or several, in words."""
    return " and ".join(map(str, ledger.places))


def in_a_directory(ledger: Ledger, instead: str) -> None:
    """Refuse a ledger that is elsewhere, and say what there is for it instead.

    Raises:
        ValueError: one of them is no directory of this machine.
    """
    for one in ledger.places:
        if not isinstance(one, Path):
            raise ValueError(f"{one} is no directory of this machine: {instead}")


def paths_dict(ledger: Ledger) -> dict[str, Any]:
    """Return the members of JSON that say which ledger was read, or which."""
    paths = [str(place) for place in ledger.places]
    return {"path": paths[0], **({"paths": paths} if len(paths) > 1 else {})}


def scope(ledger: Ledger, question: Question) -> str:
    """Return which part of which ledger is asked for, in words."""
    narrowed = any(question.selection().values())
    return f"in {place(ledger)}" + (" that match what you asked for" if narrowed else "")


def one_by_one(ledger: Ledger, output: Output, run: Callable[[Ledger], int]) -> int:
    """Run a command on each of several ledgers; return the worst status.

    What each prints stands below its name; in JSON it is one of the list ``ledgers``.
    """
    from litellm_ledger._reading.listing import each
    from litellm_ledger._reports.ledger import Ledger as One

    status = 0
    found: list[Any] = []
    for at, path in enumerate(each(ledger.paths)):
        if output.json:
            import json
            from contextlib import redirect_stdout
            from io import StringIO

            with redirect_stdout(StringIO()) as printed:
                status = max(status, run(One(path)))
            found.append(json.loads(printed.getvalue()))
        else:
            sys.stdout.write("\n" * bool(at) + escaped(f"{path}:") + "\n")
            status = max(status, run(One(path)))
    if output.json:
        put_json({"ok": all(one["ok"] for one in found), "ledgers": found})
    return status


class LongList(NamedTuple):
    """A JSON object with a list that is written as its items come.

    Attributes:
        before, after: the members before the list and after it; there are some.
        name, items: of the list.
    """

    before: dict[str, Any]
    name: str
    items: Iterator[Any]
    after: dict[str, Any]


def put_json(value: Any, *, indent: bool = True) -> None:
    """Write a value as JSON: readable, or on one line."""
    if isinstance(value, LongList):
        _put_long(value)
    else:
        sys.stdout.write(json_text(value, indent=indent) + "\n")


def _put_long(value: LongList) -> None:
    to = sys.stdout
    before = json_text(value.before, indent=True).removesuffix("\n}")
    to.write(f'{before},\n  "{value.name}": [')
    comma = ""
    while part := list(islice(value.items, _ITEMS)):
        lines = json_text(part, indent=True)
        to.write(comma + lines[1:-2].replace("\n", "\n  "))
        comma = ","
    end = "\n  ]" if comma else "]"
    to.write(f"{end},{json_text(value.after, indent=True)[1:]}\n")


def refuse_misspelt(ledger: Ledger, tags: Iterable[str], question: Question) -> None:
    """Refuse tags that are on no call of the whole ledger; one without calls has no wrong tag.

    Raises:
        ValueError: such a tag; the text has the nearest that there is, or lists them.
    """
    asked = list(tags)
    if not asked or question.allow_missing:
        return
    known = ledger.tags()
    for tag in asked:
        if tag in known or not (known or ledger.calls(limit=1).matched):
            continue
        from difflib import get_close_matches

        from litellm_ledger._aggregates.formatting import listed

        near = get_close_matches(tag, known, n=1)
        if near:
            hint = f"did you mean {near[0]}?"
        elif known:
            hint = f"the tags are {listed(known, _MOST_TAGS)}."
        else:
            hint = "no call has any tag."
        raise ValueError(f"no call has the tag {tag}; {hint} --allow-missing accepts it")


def check_where(ledger: Ledger, question: Question, *, every: bool = False) -> None:
    """Refuse misspelt tags of ``--where`` that let calls pass, or (``every``) all of them.

    Raises:
        ValueError: as ``refuse_misspelt``.
    """
    from litellm_ledger._aggregates.selection import Selection

    tags = Selection(**question.selection()).tags(passing_without=not every)
    refuse_misspelt(ledger, sorted(tags), question)


def check_matched(ledger: Ledger, question: Question, matched: int) -> None:
    """Where nothing matched ``--where``, refuse a misspelt tag, or say what there is instead.

    Raises:
        ValueError: as ``refuse_misspelt``.
    """
    if matched or not (question.where or question.where_not):
        return
    check_where(ledger, question, every=True)
    for note in ledger.report([], **question.everything()).notes():
        complain(note)
