"""The command ``verify``: what was accepted, beside what is found.

Owns its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from litellm_ledger._aggregates.formatting import clean, counted
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._records.layout import BALANCES, BUDGETS
from litellm_ledger._reports.plain import utc

from .audits import audit_line
from .erasures import erasure_line
from .flags import Output, emit, one_by_one, place
from .parameters import option
from .progress import working
from .tables import Column, show, tell, write

if TYPE_CHECKING:
    from litellm_ledger._reading.anchor import AnchorCheck
    from litellm_ledger._reading.lines import Problem
    from litellm_ledger._reading.verdict import Compared, Prune, Verification, WriterVerdict
    from litellm_ledger._reports.ledger import Ledger as Ledgers

__all__ = ["lost_records", "verify"]


def verify(
    output: Output,
    ledger: Ledgers,
    every: Annotated[
        bool,
        option("--all", help="Show a row for each writer, also for those without a problem."),
    ] = False,
    strict: Annotated[
        bool,
        option("--strict", help="Also exit 1 for lost records that were never acknowledged."),
    ] = False,
    full: Annotated[
        bool,
        option(
            "--full", help="Check every line, and compare the manifests with the lines. Slower."
        ),
    ] = False,
    anchors: Annotated[
        Path | None,
        option(
            "--anchor",
            metavar="FILE",
            help="Check that nothing changed since the lines in FILE were printed by anchor.",
        ),
    ] = None,
    prices: Annotated[
        bool,
        option(
            "--prices",
            help="Also compute every cost again from its price in the ledger; exit 1 if one "
            "differs.",
        ),
    ] = False,
    against: Annotated[
        list[str],
        option(
            "--against",
            metavar="PATH",
            help="Of a database or object storage: compare what is there with the ledger in this "
            "directory, which is shipped to it. Repeatable.",
        ),
    ] = [],  # noqa: B006 - read by flags.command, never changed
) -> int:
    """Check that no record is lost; exit 1 if acknowledged records are lost or files damaged."""
    if len(ledger.places) > 1:
        if anchors is not None:
            raise ValueError("--anchor is of one ledger; give one PATH")
        if against:
            raise ValueError("--against is of one database; give its URL alone")
        how: dict[str, Any] = {"every": every, "strict": strict, "full": full, "prices": prices}
        return one_by_one(ledger, output, lambda one: verify(output, one, **how))
    if prices and not isinstance(ledger.places[0], Path):
        raise ValueError("--prices is of a directory: verify the ledger where it is written")
    with working(f"verifying {place(ledger)}"):
        result = ledger.verify(full=full, anchors=anchors, against=against)
    balances = _balances(ledger.path) if isinstance(ledger.places[0], Path) else None
    sound = (result.complete if strict else result.ok) and not balances
    said = {} if balances is None else {"budgets": balances}

    def verification() -> None:
        _print_verification(result, every=every, strict=strict)
        if balances:
            _print_balances(balances)

    if not prices:
        return emit(
            output,
            lambda: {**result.to_dict(), **said},
            verification,
            status=int(not sound),
            calm=True,
        )
    from litellm_ledger._reading.price_check import check_prices

    from .prices import check_dict, print_check

    with working(f"computing the costs in {ledger.path}"):
        costs = check_prices(ledger.path)

    def table() -> None:
        verification()
        print_check(costs)

    return emit(
        output,
        lambda: {**result.to_dict(), **said, "prices": check_dict(costs)},
        table,
        status=int(not (sound and costs.ok)),
        calm=True,
    )


def _balances(root: Path) -> list[str] | None:
    """Return where balances of budgets are not those of the records; ``None``: there are none."""
    if not (root / BUDGETS / BALANCES).is_file():
        return None
    from litellm_ledger._budgets.check import differences
    from litellm_ledger._budgets.known import known_budgets

    try:
        budgets, _ = known_budgets(root)
    except LedgerPathError:  # no client has said which there are
        budgets = []
    return differences(root, budgets)


def _print_verification(found: Verification, *, every: bool = False, strict: bool = False) -> None:
    """Print how it stands with the writers, the damage by file and offset, what is not proved.

    Those that were closed or recovered with nothing missing are summed up in a line, unless
    ``every``. ``strict``: lost records are a failure even if they were never acknowledged.
    """
    from litellm_ledger._maintenance.backup import MARKER
    from litellm_ledger._records.audit import ERASE, PRUNE

    if not found.writers and not found.archive:
        write(f"No writer has used {found.path} yet.")
        return
    listed = [writer for writer in found.writers if every or not writer.unremarkable]
    if listed:
        backup = Path(found.path, MARKER).exists()
        show(_counts(listed, strict=strict))
        write()
        for writer in listed:
            tell(f"{writer.writer}: {writer.sentence(backup=backup)}.")
            for problem in writer.problems:
                tell(f"  {_problem(problem)}")
            for problem in writer.known_problems:
                tell(f"  looked into: {_problem(problem)}")
            for audit in writer.audits:
                if audit.did not in (ERASE, PRUNE):  # said of the whole ledger
                    tell(f"  {audit_line(audit)}")
    if len(listed) < len(found.writers):
        sound = [writer for writer in found.writers if writer.unremarkable]
        records = counted(sum(writer.found for writer in sound), "record")
        writers = counted(len(sound), "writer")
        tell(f"{writers} closed or recovered, nothing missing: {records} (--all shows each).")
    for explanation in _explanations(listed):
        tell(explanation)
    _print_rest(found)
    tell(_bottom_line(found, strict=strict))


def _print_balances(found: Sequence[str]) -> None:
    for sentence in found:
        tell(f"budgets: {clean(sentence)}")
    tell(
        "NOT OK: the balances of budgets are not those of the records. Remove budgets/balances, "
        "and they are made anew."
    )


def _print_rest(found: Verification) -> None:
    """Print what is not about a writer."""
    if found.recovery:
        write()
        tell(f"Kept in recovery/ for inspection: {', '.join(map(clean, found.recovery))}")
    for pruning in found.prunes()[-_PRUNES:]:
        tell(_pruned(pruning))
    for run in found.erasures:
        tell(erasure_line(run))
    for file in found.undone[:_UNDONE]:
        tell(f"{clean(file)}: is as it was before an erasure")
    if found.undone:
        tell(
            f"{counted(len(found.undone), 'file')} as before an erasure: it was cut short, or they "
            "were restored. litellm-ledger recover finishes what was cut short; else erase again."
        )
    for problem in found.adjustments:
        tell(f"adjustments: {_problem(problem)}")
    for problem in found.archive:
        tell(f"{problem.file}: {problem.detail}")
    write()
    _print_proofs(found)
    for sentence in found.cannot_prove():
        tell(f"Cannot prove: {sentence}")


def _print_proofs(found: Verification) -> None:
    """Print what it was compared with."""
    for one in found.anchors:
        tell(_anchored(one))
    if found.against:
        end = "see above" if found.archive else "all that is sealed there is here, as it is there"
        tell(f"Compared with {', '.join(clean(one, 4_096) for one in found.against)}: {end}.")
    if found.compared is not None:
        for line in _compared(found.compared).splitlines():
            tell(line)


def _compared(found: Compared) -> str:
    batches = counted(found.batches, "batch", "batches")
    said = f"Compared with the lines of the ledger: {found.same:,} of {batches} "
    said += f"{'has' if found.same == 1 else 'have'} the same hash"
    if not found.batches:
        said = "Compared with the lines of the ledger: nothing of it is here"
    if differ := found.batches - found.same:
        verb = "differs" if differ == 1 else "differ"
        said += f"; {differ:,} {verb}: erased, pruned or damaged since, or named above"
    if found.beyond:
        said += (
            f"; {counted(found.beyond, 'record')} here that the ledger has no more: pruned or "
            "damaged there since"
        )
    if found.gone:
        said += f"; {counted(found.gone, 'record')} there that retention has removed here"
    if found.unshipped:
        said += f"; {counted(found.unshipped, 'record')} there not shipped yet"
    said += "."
    if found.not_erased:
        said += (
            f"\nNOT ERASED: {counted(found.not_erased, 'record')} here of what was erased in the "
            "ledger; run litellm-ledger erase with the same --where on this URL."
        )
    if found.only_erased:
        said += (
            f"\nNOT ERASED: {counted(found.only_erased, 'record')} in the ledger of what was "
            "erased here; run litellm-ledger erase with the same --where there."
        )
    return said


def _pruned(run: Prune) -> str:
    last = f", the last of {utc(run.latest)}" if run.latest is not None else ""
    last += f", {run.month}" if run.month is not None else ""
    return (
        f"Pruned on {utc(run.at)} by {clean(run.who)}: {counted(run.records, 'record')} of "
        f"{counted(run.writers, 'writer')}{last}: {clean(run.why, 4_096)}"
    )


def _anchored(found: AnchorCheck) -> str:
    then = f"Anchor of {found.anchor.at}"
    records = counted(found.anchor.records, "record")
    if found.ok and found.since:
        said = "; ".join(
            f"{counted(run.files, 'file')} by erase on {utc(run.at)} by {clean(run.who)}"
            for run in found.since
        )
        return f"{then}: holds for its {records}; written anew since: {said}."
    if found.ok:
        return f"{then}: holds; the manifests of its {records} are unchanged."
    return (
        f"{then}: DOES NOT HOLD. It covers {records}; the manifests of that time cover "
        f"{found.records:,} now"
        + (", and they or adjustments differ" if found.records == found.anchor.records else "")
        + ". Compare with a backup."
    )


_UNDONE: Final = 10
"""Files that are listed."""

_PRUNES: Final = 20
"""Runs of ``prune`` that are listed; ``--json`` has all."""

_OF_UNACKNOWLEDGED: Final = (
    "Never acknowledged: the process died after it had numbered these records, and before they "
    "were as safe as its durability level requires. No caller had been told that they were "
    "recorded."
)

_OF_LOSS: Final = (
    "Lost when a process died: these records were in its memory and not yet written. At "
    'durability "queued" records are acknowledged before they are written. Where the durability '
    "level is not on record, all lost records count as acknowledged."
)

_OF_DAMAGE: Final = (
    "Every command skips damaged lines and leaves them unchanged. Restore the file from a backup "
    "if you have one."
)


def _explanations(listed: list[WriterVerdict]) -> list[str]:
    damaged = any(problem.what == "damaged" for writer in listed for problem in writer.problems)
    unacknowledged = any(writer.unacknowledged for writer in listed)
    died = any(
        not writer.ok and writer.state in ("died", "recovered") and writer.lost for writer in listed
    )
    kinds = ((damaged, _OF_DAMAGE), (unacknowledged, _OF_UNACKNOWLEDGED), (died, _OF_LOSS))
    return [explanation for there, explanation in kinds if there]


def _counts(writers: list[WriterVerdict], *, strict: bool) -> list[Column]:
    def count(title: str, field: str, keep: int) -> Column:
        values = [getattr(writer, field) for writer in writers]
        return Column(title, ["-" if value is None else f"{value:,}" for value in values], keep)

    verdicts = [writer.complete if strict else writer.ok for writer in writers]
    return [
        Column("writer", [writer.writer for writer in writers], left=True),
        Column("state", [writer.state for writer in writers], 8, left=True),
        count("accepted", "accepted", 6),
        count("written", "written", 4),
        count("synced", "synced", 3),
        count("found", "found", 7),
        count("lost", "lost", 9),
        count("never acked", "unacknowledged", 4),
        count("torn bytes", "torn_bytes", 5),
        Column(
            "damaged",
            [f"{len(writer.problems) + len(writer.known_problems):,}" for writer in writers],
            8,
        ),
        count("unsettled", "unsettled", 5),
        count("in flight", "in_flight", 2),
        Column("verdict", ["ok" if sound else "NOT OK" for sound in verdicts], left=True),
    ]


def _problem(problem: Problem) -> str:
    if problem.what != "damaged":
        return f"{problem.file}: {problem.what}: {clean(problem.detail)}"
    if not problem.length:
        return f"{problem.file}: lines missing before byte {problem.offset:,}"
    return (
        f"{problem.file}: {counted(problem.lines, 'damaged line')}, "
        f"{counted(problem.length, 'byte')} from byte {problem.offset:,}"
    )


def _bottom_line(found: Verification, *, strict: bool) -> str:
    never = found.total("unacknowledged")
    known = found.looked_into()
    if found.complete or (found.ok and not strict):
        torn = found.total("torn_bytes")
        say = f"OK: {counted(found.total('found'), 'record')} found, "
        nothing = "nothing"
        if known:
            say += f"looked into: {known}; "
            nothing = "nothing else"
        never -= found.total("known_unacknowledged")
        if never:
            say += f"{nothing} acknowledged is lost, {nothing} is damaged; "
            say += f"{counted(never, 'record')} lost that had never been acknowledged"
        else:
            say += f"{nothing} lost or damaged"
        return say + (
            f"; {counted(torn, 'torn byte')}, which litellm-ledger recover cuts off."
            if torn
            else "."
        )
    damage = sum(len(writer.problems) for writer in found.writers)
    adjustments = len(found.adjustments)
    missing, altered = (sum(p.what == w for p in found.archive) for w in ("missing", "altered"))
    unreadable = len(found.archive) - missing - altered
    wrong = sum(not one.ok for one in found.anchors)
    parts = [
        lost_records(found.total("lost"), never) if found.total("lost") else "",
        f"{found.total('quarantined'):,} quarantined" if found.total("quarantined") else "",
        counted(damage, "damaged place") if damage else "",
        counted(adjustments, "damaged place") + " among adjustments" if adjustments else "",
        f"{counted(unreadable, 'file')} in archive/ not readable" if unreadable else "",
        f"{counted(missing, 'file')} not shipped yet" if missing else "",
        f"{counted(altered, 'file')} not as in the directory" if altered else "",
        f"{counted(wrong, 'anchor')} not held" if wrong else "",
        f"{counted(len(found.undone), 'file')} not erased from" if found.undone else "",
        "not erased in both places" if found.compared and not found.compared.ok else "",
    ]
    looked_into = f" (looked into: {known})" if known else ""
    return f"NOT OK: {', '.join(filter(None, parts))}{looked_into}."


def lost_records(lost: int, never: int) -> str:
    if not never:
        return f"{lost:,} lost"
    return f"{lost:,} lost ({'all' if never == lost else f'{never:,}'} of these never acknowledged)"
