"""The command ``prune``: what is past its time goes.

Owns its words, and what it prints.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from litellm_ledger._aggregates.formatting import clean, counted, dollars
from litellm_ledger._records.money import usd
from litellm_ledger._reports.plain import plain_value, utc

from .audits import Who, user_name
from .flags import Output, complain, emit, paths_dict
from .parameters import option
from .progress import working
from .tables import tell, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from litellm_ledger._maintenance.prune import Pruning
    from litellm_ledger._maintenance.retention import Retention
    from litellm_ledger._reports.ledger import Ledger
    from litellm_ledger._storage.shipping_marks import Shipped
    from litellm_ledger._warehouse.retention import PruningThere

__all__ = ["prune"]

_FOR_EVER: Final = "forever"


def prune(
    output: Output,
    ledger: Ledger,
    keep: Annotated[
        str | None,
        option(metavar="TIME", help="Remove records older than this: 400d, 52w, 7y."),
    ] = None,
    max_size: Annotated[
        str | None,
        option(
            metavar="SIZE",
            help="Remove the oldest records while the ledger is larger than this: 500M, 10G.",
        ),
    ] = None,
    keep_aggregates: Annotated[
        str,
        option(
            metavar="TIME",
            help="How long reports still know the sums of removed records: 7y, forever.",
        ),
    ] = _FOR_EVER,
    shipped_to: Annotated[
        str | None,
        option(
            metavar="URL",
            help="Remove only what is in this object storage for certain: what litellm-ledger ship "
            "did not just send is read there and compared.",
        ),
    ] = None,
    wait: Annotated[
        int | None,
        option(
            metavar="SECONDS",
            help="A database: how long reports and shippers may be in the way of a month, before "
            "it stays for the next run. Default: 60.",
        ),
    ] = None,
    dry_run: Annotated[bool, option("--dry-run", help="Only say what would be removed.")] = False,
    yes: Annotated[bool, option("--yes", help="Do not ask; in a pipe it never does.")] = False,
    why: Annotated[
        str | None, option(help="The reason; it is kept in the ledger. Default: the rule.")
    ] = None,
    who: Who = None,
) -> int:
    """Remove records that are past their time; reports still have their sums."""
    import msgspec

    from litellm_ledger._budgets.needs import counted_since
    from litellm_ledger._maintenance.prune import prune as prune_ledger
    from litellm_ledger._maintenance.retention import Retention, age, size
    from litellm_ledger._records.record import cut

    if keep is None and max_size is None:
        raise ValueError("say what may go: --keep 400d, --max-size 10G or both")
    rule = Retention(
        keep=None if keep is None else age(keep),
        max_size=None if max_size is None else size(max_size),
        keep_aggregates=None if keep_aggregates == _FOR_EVER else age(keep_aggregates),
    )
    if not isinstance(ledger.places[0], Path):
        if shipped_to is not None:
            raise ValueError("--shipped-to is of a directory; a database keeps what it has itself")
        how: dict[str, Any] = {"who": cut(who or user_name()), "why": cut(why or str(rule))}
        if wait is not None:
            how["patience"] = float(wait)
        return _prune_there(output, ledger, rule, how, dry_run=dry_run, yes=yes)
    if wait is not None:
        raise ValueError("--wait is of a database; in a directory nobody is in the way")

    def run(dry_run: bool) -> Pruning:
        with working(f"pruning {ledger.path}"):
            return prune_ledger(
                ledger.path,
                rule,
                who=cut(who or user_name()),
                why=cut(why or str(rule)),
                dry_run=dry_run,
                counted_since=counted_since,
                shipped=None if shipped_to is None else _shipped_to(ledger.path, shipped_to),
            )

    if _asks(dry_run=dry_run, yes=yes):
        found = run(True)
        if (found.segments or found.manifests) and not _agreed(
            lambda: _print_pruning(ledger.path, found)
        ):
            return 1
    done = run(dry_run)
    return emit(
        output,
        lambda: _plain(ledger.path, done, msgspec.to_builtins(done)),
        lambda: _print_pruning(ledger.path, done),
        status=int(bool(done.left or done.over)),
        calm=not dry_run,
    )


def _asks(*, dry_run: bool, yes: bool) -> bool:
    """Whether somebody is asked first; in a pipe nobody is: the rule says all."""
    return not (dry_run or yes) and sys.stdin.isatty()


def _agreed(show: Callable[[], None]) -> bool:
    """Show what would go, and ask on the terminal."""
    with redirect_stdout(sys.stderr):
        show()
    sys.stderr.write("Removed records cannot be brought back. Remove them? Type yes: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() == "yes":
        return True
    complain("nothing was removed")
    return False


def _prune_there(
    output: Output,
    ledger: Ledger,
    rule: Retention,
    how: dict[str, Any],
    *,
    dry_run: bool,
    yes: bool,
) -> int:
    """Prune a database."""
    import msgspec

    from litellm_ledger._errors import LedgerPathError

    place: Any = ledger.places[0]
    if not hasattr(place, "prune"):
        raise LedgerPathError(f"{place} is not pruned: prune the ledger where it is written")

    def run(dry_run: bool) -> PruningThere:
        with working(f"pruning {place}"):
            done: PruningThere = place.prune(rule, dry_run=dry_run, **how)
        return done

    if _asks(dry_run=dry_run, yes=yes):
        found = run(True)
        if (found.months or found.aggregates) and not _agreed(
            lambda: _print_pruning_there(str(place), found)
        ):
            return 1
    done = run(dry_run)

    def plain() -> dict[str, Any]:
        found = msgspec.to_builtins(done)
        months = [
            {**one, "cost": dollars(usd(month.cost))}
            for one, month in zip(found["months"], done.months, strict=True)
        ]
        after = None if done.next is None else {"month": done.next[0], "at": utc(done.next[1])}
        left = [one._asdict() for one in done.left]
        return {**paths_dict(ledger), **found, "months": months, "next": after, "left": left}

    return emit(
        output,
        plain,
        lambda: _print_pruning_there(str(place), done),
        status=int(bool(done.left or done.over)),
        calm=not dry_run,
    )


def _print_pruning_there(place: str, done: PruningThere) -> None:
    if done.months:
        first, last = done.months[0].month, done.months[-1].month
        span = first if first == last else f"{first} to {last}"
        verb = "would be removed" if done.dry_run else "removed"
        tell(
            f"{counted(done.records, 'outcome')} of {counted(len(done.months), 'month')} ({span}) "
            f"{verb}: {done.bytes:,} of {done.size:,} bytes. "
            f"Reports {'would still' if done.dry_run else 'still'} have their sums."
        )
    if done.aggregates:
        verb = "would go" if done.dry_run else "went"
        tell(f"The sums of {counted(len(done.aggregates), 'month')} {verb} too.")
    if not (done.months or done.aggregates or done.left):
        write(f"Nothing to prune in {place}.")
    if done.next is not None:
        tell(
            f"{done.next[0]} is past its time in part, and stays whole until {utc(done.next[1])}: "
            "a database is pruned by months."
        )
    for month, reason in done.left:
        tell(f"kept: {month}: {clean(reason, 400)}")
    for count, what in (
        (done.in_flight, "a call in flight|calls in flight"),
        (done.untimed, "an outcome without a time|outcomes without a time"),
        (done.rejected, "a line that the database refuses|lines that the database refuses"),
    ):
        if count:
            one, many = what.split("|")
            tell(f"No rule removes {one if count == 1 else f'{count:,} {many}'}.")
    if done.over:
        tell(
            f"The months are {done.over:,} bytes larger than they may be: this month stays, and so "
            "does what is named above."
        )


def _shipped_to(root: Path, url: str) -> Shipped:
    from litellm_ledger._objects.proof import shipped_to
    from litellm_ledger._objects.store import open_prefix

    return shipped_to(root, open_prefix(url))


def _plain(path: Path, done: Pruning, members: dict[str, Any]) -> dict[str, Any]:
    times = {"earliest": plain_value(done.earliest), "latest": plain_value(done.latest)}
    return {"path": str(path), **members, **times}


def _print_pruning(path: Path, done: Pruning) -> None:
    if done.segments:
        span = ""
        if done.earliest is not None and done.latest is not None:
            span = f" from {utc(done.earliest)} to {utc(done.latest)}"
        files = f" and {counted(done.archive, 'file')} of the archive" if done.archive else ""
        verb = "would be removed" if done.dry_run else "removed"
        tell(
            f"{counted(done.records, 'record')}{span} {verb}: {counted(done.segments, 'segment')}"
            f"{files}, {done.bytes:,} of {done.size:,} bytes."
        )
    if done.manifests:
        verb = "would go" if done.dry_run else "went"
        tell(f"{counted(done.manifests, 'manifest')} {verb} too; reports lose these sums.")
    if done.counted:
        tell(f"{counted(done.counted, 'segment')} kept: budgets still count what is in there.")
    if done.unshipped:
        tell(
            f"{counted(done.unshipped, 'segment')} kept: not shipped yet, or not for a "
            "day; litellm-ledger doctor says where to."
        )
    if not (done.segments or done.manifests or done.left or done.counted or done.unshipped):
        write(f"Nothing to prune in {path}.")
    for problem in done.left:
        tell(f"kept: {clean(problem.file, 200)}: {clean(problem.detail, 400)}")
    if done.over:
        tell(
            f"The ledger {'would be' if done.dry_run else 'is'} {done.over:,} bytes larger than it "
            "may be: what is left is still being written, did not pass its checks, or is sums that "
            "are kept (--keep-aggregates says for how long)."
        )
