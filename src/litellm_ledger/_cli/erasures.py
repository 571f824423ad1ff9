"""The command ``erase``, and how erasures are printed.

Owns those words.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from litellm_ledger._aggregates.formatting import clean, counted, dollars, money
from litellm_ledger._reports.plain import utc

from .audits import Who, user_name
from .flags import Output, emit, paths_dict, refuse_misspelt
from .parameters import option
from .progress import working
from .tables import tell

if TYPE_CHECKING:
    from litellm_ledger._maintenance.erase import Erased
    from litellm_ledger._maintenance.person import Person
    from litellm_ledger._reading.erasures import Erasure
    from litellm_ledger._reports.ledger import Ledger

__all__ = ["erase", "erasure_line"]

_MOST = 20
"""Files with bytes like a mark that are listed; ``--json`` has all."""


def erase(
    output: Output,
    ledger: Ledger,
    where: Annotated[
        list[str],
        option(
            "--where",
            "-w",
            metavar="KEY=VALUE",
            help="Whose records: a tag (user=u1), call_id, response_id, operation; and any key of "
            "reports. Repeatable: of one key, any value may match; all keys must match. A person "
            "with marks under several keys takes a run for each.",
        ),
    ],
    keep_amounts: Annotated[
        bool,
        option(
            help="Keep time, model, provider, status, tokens and cost of each record, and nothing "
            "that names anybody, so that totals stay."
        ),
    ] = False,
    why: Annotated[
        str, option(help="The reason; it is kept in the ledger, and must not name the person.")
    ] = "asked for",
    who: Who = None,
    to: Annotated[
        list[str],
        option(
            "--to",
            metavar="URL",
            help="Also erase from this object storage (s3://…), which the ledger is shipped to. "
            "Repeatable.",
        ),
    ] = [],  # noqa: B006 - only read
    dry_run: Annotated[bool, option(help="Only show what there is of the person.")] = False,
    allow_missing: Annotated[
        bool,
        option(help="Accept a tag that no call has; by default it is refused if nothing is found."),
    ] = False,
    yes: Annotated[bool, option("--yes", help="Do not ask.")] = False,
) -> int:
    """Take a person's records out of the ledger; exit 1 if some have to wait."""
    from datetime import UTC, datetime

    from litellm_ledger._budgets.needs import kept_back
    from litellm_ledger._maintenance.erase import erase as erase_from
    from litellm_ledger._maintenance.person import Person, tags_in
    from litellm_ledger._records.record import cut

    how: dict[str, Any] = {"keep": keep_amounts, "dry_run": dry_run, "yes": yes}
    person = Person(where)
    if not isinstance(ledger.places[0], Path):
        how["tags"] = () if allow_missing else sorted(tags_in(where))
        return _erase_there(output, ledger, person, cut(who or user_name()), cut(why), **how)
    counts = kept_back(ledger.path, datetime.now(UTC), keep=keep_amounts)
    by = None if dry_run else cut(who or user_name())
    if not (dry_run or yes):
        if not sys.stdin.isatty():
            raise ValueError("erase asks before it does anything; in a pipe, give --yes")
        with working(f"searching {ledger.path}"):
            found = erase_from(ledger.path, person, keep=keep_amounts, has_to_stay=counts)
        if not found.records and not found.adjustments:
            _check(ledger, where, found, allow_missing=allow_missing)
            return _end(output, ledger, person, found, dry_run=True)
        if not _agreed(found, keep=keep_amounts):
            tell("Nothing was erased.")
            return 1
    with working(f"{'searching' if dry_run else 'erasing from'} {ledger.path}"):
        done = erase_from(
            ledger.path, person, who=by, why=cut(why), keep=keep_amounts, has_to_stay=counts
        )
    there = {} if dry_run else _erase_shipped(ledger, to, person, by or "", cut(why), keep_amounts)
    if not there:
        _check(ledger, where, done, allow_missing=allow_missing)
    return max(
        _end(output, ledger, person, done, dry_run=dry_run, there=there),
        int(not all(one.done for one in there.values())),
    )


def _erase_there(
    output: Output,
    ledger: Ledger,
    person: Person,
    who: str,
    why: str,
    *,
    keep: bool,
    dry_run: bool,
    yes: bool,
    tags: Sequence[str],
) -> int:
    """Erase from a ledger that is in object storage or in a database.

    Args:
        tags: refused if no call in a database has them, unless somebody was erased from it before.
    """
    from litellm_ledger._aggregates.question import Question
    from litellm_ledger._errors import LedgerPathError

    place: Any = ledger.places[0]
    if not hasattr(place, "erase"):
        raise LedgerPathError(f"{place}: erase from it where the ledger is written")
    if tags and hasattr(place, "has_erased") and not place.has_erased():
        refuse_misspelt(ledger, tags, Question())
    if not (dry_run or yes):
        if not sys.stdin.isatty():
            raise ValueError("erase asks before it does anything; in a pipe, give --yes")
        with working(f"searching {place}"):
            found: Erased = place.erase(person)
        if found.nothing:
            return _end(output, ledger, person, found, dry_run=True)
        if not _agreed(found, keep=keep):
            tell("Nothing was erased.")
            return 1
    with working(f"{'searching' if dry_run else 'erasing from'} {place}"):
        done: Erased = place.erase(person, who=None if dry_run else who, why=why, keep=keep)
    return _end(output, ledger, person, done, dry_run=dry_run)


def _erase_shipped(
    ledger: Ledger, urls: Sequence[str], person: Person, who: str, why: str, keep: bool
) -> dict[str, Erased]:
    """Erase from where the ledger is shipped to: what it has as well, then what is only there."""
    from litellm_ledger._objects.erase import erase_objects
    from litellm_ledger._objects.ship import ObjectShipper
    from litellm_ledger._objects.store import open_prefix

    done = {}
    for url in urls:
        prefix = open_prefix(url)
        with working(f"erasing from {url}"):
            ObjectShipper(ledger.path, prefix).run()
            done[url], _ = erase_objects(prefix, person, who=who, why=why, keep=keep)
    return done


def _check(ledger: Ledger, where: list[str], found: Erased, *, allow_missing: bool) -> None:
    """Where there is nothing of a person, refuse a misspelt tag.

    After an erasure the last call with the tag may have gone with it: then it is none.

    Raises:
        ValueError: no call has ever had it, as far as can be told.
    """
    from litellm_ledger._aggregates.question import Question
    from litellm_ledger._maintenance.person import tags_in
    from litellm_ledger._reading.adjustments import read_additions
    from litellm_ledger._reading.erasures import Erasures
    from litellm_ledger._reading.listing import list_additions

    if not found.nothing or allow_missing:
        return
    if Erasures(read_additions(ledger.path, list_additions(ledger.path), [])).changed:
        return
    refuse_misspelt(ledger, sorted(tags_in(where)), Question())


def _agreed(found: Erased, *, keep: bool) -> bool:
    """Ask on the terminal."""
    how = "their amounts stay, nothing else does" if keep else "nothing of them stays"
    sys.stderr.write(f"{_amount(found)} of this person in {_places(found)}: {how}.\n")
    sys.stderr.write("They cannot be brought back. Erase them? Type yes: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() == "yes"


def _end(
    output: Output,
    ledger: Ledger,
    person: Person,
    done: Erased,
    *,
    dry_run: bool,
    there: Mapping[str, Erased] = MappingProxyType({}),
) -> int:
    import msgspec

    def plain() -> dict[str, Any]:
        found = msgspec.to_builtins(done)
        elsewhere = {
            "there": {
                url: {**msgspec.to_builtins(one), "cost": dollars(_dollars(one))}
                for url, one in there.items()
            }
        }
        return {
            **paths_dict(ledger),
            "dry_run": dry_run,
            **found,
            "cost": dollars(_dollars(done)),
            **(elsewhere if there else {}),
        }

    def table() -> None:
        _print(done, person, dry_run=dry_run)
        for url, one in there.items():
            tell(f"{url}:")
            _print(one, person, dry_run=dry_run)

    return emit(
        output,
        plain,
        table,
        status=int(not dry_run and not done.done),
        calm=not dry_run,
    )


def _dollars(done: Erased) -> Any:
    from litellm_ledger._records.money import usd

    return usd(done.cost)


def _amount(done: Erased) -> str:
    calls = counted(done.calls, "call")
    return f"{counted(done.records, 'record')} ({calls}, {money(_dollars(done))})"


def _places(done: Erased) -> str:
    if done.tables:
        return counted(len(done.tables), "table")
    return counted(done.files, "file")


def _what(done: Erased, *, dry_run: bool) -> str:
    if done.nothing:
        return "Nothing of this person is there."
    if not _changed(done):  # all of it has to wait
        return "Nothing would be erased yet." if dry_run else "Nothing was erased yet."
    adjustments = f", {counted(done.adjustments, 'adjustment')}" if done.adjustments else ""
    if dry_run:
        return f"{_amount(done)}{adjustments} would be erased from {_places(done)}."
    how = f"from {_places(done)}" if done.tables else f"; {_places(done)} written anew"
    what = f"{_amount(done)}{adjustments} erased{how if how[0] == ';' else ' ' + how}."
    return f"{what} verify says so from now on."


def _changed(done: Erased) -> bool:
    return bool(done.records or done.adjustments or done.files or done.tables)


def _print(done: Erased, person: Person, *, dry_run: bool) -> None:
    from litellm_ledger._maintenance.person import SHORT

    tell(_what(done, dry_run=dry_run))
    if done.tables:
        _print_there(done, dry_run=dry_run)
        return
    if done.recovered:
        tell(f"{counted(done.recovered, 'record')} in recovery/ written over.")
    if done.hidden:
        tell(f"{counted(done.hidden, 'damaged place')} with a mark written over.")
    if done.counted:
        tell(
            f"{counted(done.counted, 'record')} not erased yet: budgets count what they cost. Run "
            "this again when the window has ended, or with --keep-amounts."
        )
    waiting = done.waiting - done.counted
    if waiting > 0:
        tell(
            f"{counted(waiting, 'record')} not erased yet: a process is still writing their "
            "segment, or their call has no outcome. Run this again after the segment is sealed: at "
            "64 MiB, at the change of the UTC day, or when the process closes its ledger."
        )
    for problem in done.left:
        tell(f"{clean(problem.file)}: {problem.what}: {clean(problem.detail, 4_096)}")
    if done.marks:
        _print_marks(done)
    if not dry_run and any(len(mark) < SHORT for mark in person.marks):
        tell(f"A mark of fewer than {SHORT} characters was looked for as a whole word only.")
    if not dry_run and _changed(done):
        tell("Backups and copies that were made before still hold the person.")


def _print_there(done: Erased, *, dry_run: bool) -> None:
    """Print what is peculiar to a database."""
    if done.counted:
        tell(
            f"{counted(done.counted, 'window')} of budgets of this person not erased yet: they "
            "still count. Run this again when they have ended."
        )
    waiting = done.waiting - done.counted
    if waiting > 0:
        tell(
            f"{counted(waiting, 'call')} in flight not erased yet: the outcome may still be "
            "shipped. Run this again when it is, or when the writer has been silent for a day."
        )
    if done.marks:
        _print_marks(done)
    if not dry_run:
        tables = ", ".join(done.tables)
        tell(
            "The bytes stay in the server's files until they are written over: VACUUM (FULL, "
            f"ANALYZE) {clean(tables, 4_096)}; and, by an administrator, VACUUM FULL "
            "pg_catalog.pg_statistic. Its archived WAL, replicas that lag and backups "
            "that were made before still hold the person."
        )


def _print_marks(done: Erased) -> None:
    times = sum(one.times for one in done.marks)
    tell(
        f"Bytes like a mark are still in the ledger, {counted(times, 'time')}: in records of "
        "others, in those that were not erased yet, or in names of files. Whether they mean this "
        "person is for you to decide:"
    )
    for one in done.marks[:_MOST]:
        where = "in its name" if one.in_name else counted(one.times, "time")
        tell(f"  {clean(one.file, 4_096)}: {where}")
    if len(done.marks) > _MOST:
        tell(f"  and in {counted(len(done.marks) - _MOST, 'more file')} (--json lists all)")


def erasure_line(run: Erasure) -> str:
    """Say what was erased, when, by whom and why."""
    who, why = clean(run.who), clean(run.why, 4_096)
    kept = ", their amounts kept" if run.kept else ""
    files = f"; {counted(run.files, 'file')} written anew" if run.files else ""
    return f"Erased on {utc(run.at)} by {who}: {counted(run.records, 'record')}{kept}{files}: {why}"
