"""``budgets``: what is spent and held, what they would have refused, and what may be released.

Owns their words, and what they print.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from litellm_ledger._aggregates.formatting import clean, counted, dollars, money, percent
from litellm_ledger._reports.plain import plain_value, utc

from .alerts import Webhook, sent_to
from .audits import Who, user_name
from .flags import Output, complain, emit, in_a_directory
from .parameters import option
from .progress import working
from .tables import Column, show, tell, write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from litellm_ledger._aggregates.question import Question
    from litellm_ledger._budgets.budget import Budget
    from litellm_ledger._budgets.past import Past
    from litellm_ledger._budgets.release import Stranded
    from litellm_ledger._budgets.simulate import Simulation
    from litellm_ledger._budgets.status import BudgetStatus
    from litellm_ledger._records.line import Line
    from litellm_ledger._reports.ledger import Ledger
    from litellm_ledger._warehouse.lent import SharedBudget

__all__ = ["budgets", "release", "simulate"]

_File = Annotated[
    Path | None,
    option(
        "--budgets",
        metavar="FILE",
        help="A budgets.toml. Default: what the clients of this ledger enforce.",
    ),
]


def budgets(
    output: Output,
    ledger: Ledger,
    file: _File = None,
    limit: Annotated[int, option("--limit", "-n", help="Rows of each budget; 0: all.")] = 20,
    webhook: Webhook = None,
) -> int:
    """Show what of each budget is spent, held and free; exit 1 if a threshold is reached."""
    from litellm_ledger._budgets.known import shared_at
    from litellm_ledger._budgets.status import standing, status_of

    now = datetime.now(UTC)
    if len(ledger.places) == 1 and hasattr(ledger.places[0], "shared_budgets"):
        return _shared(output, ledger.places[0], file, limit)
    in_a_directory(ledger, "run budgets on each machine: it counts where the calls are made")
    chosen = _budgets(ledger, file)
    with working(f"reading {ledger.path}"):
        found = standing(ledger.path, chosen, now)
    statuses = [status_of(one, now) for one in found]

    def send_new(url: str) -> int:
        from litellm_ledger._budgets.alerts import reached, send

        return send(ledger.path, reached(found, now), url)

    sent = sent_to(webhook, send_new)
    shared = [] if file is not None else shared_at(ledger.path)
    return emit(
        output,
        lambda: {
            "path": str(ledger.path),
            **({"shared_at": shared} if shared else {}),
            "ok": not any(_is_reached(one) for one in statuses),
            "budgets": [_plain(one) for one in statuses],
            "sent": sent,
        },
        lambda: _print_statuses(statuses, limit, sent, output, shared),
        status=int(any(_is_reached(one) for one in statuses)),
    )


def _shared(output: Output, place: Any, file: Path | None, limit: int) -> int:
    """Show what a database has lent; with a file of budgets also their limits."""
    from litellm_ledger._budgets.budgets_file import read_budgets
    from litellm_ledger._records.money import usd

    known = [] if file is None else read_budgets(file)
    limits = {
        one.counts: usd(one.limit_units) if one.unit == "usd" else one.limit_units for one in known
    }
    with working(f"reading {place}"):
        found: list[SharedBudget] = place.shared_budgets()
    spent = [one for one in found if one.counts in limits and one.used >= limits[one.counts]]

    def plain() -> dict[str, Any]:
        rows = [
            {
                **{name: plain_value(getattr(one, name)) for name in one.__struct_fields__},
                "limit": plain_value(limits.get(one.counts)),
            }
            for one in found
        ]
        return {"path": str(place), "ok": not spent, "budgets": rows}

    return emit(
        output,
        plain,
        lambda: _print_shared(found, limits, limit, output),
        status=int(bool(spent)),
    )


def _print_shared(
    found: Sequence[SharedBudget],
    limits: Mapping[str, Decimal | int],
    limit: int,
    output: Output,
) -> None:
    if not found:
        tell("No budget is lent here now; clients share budgets by budgets_at=.")
        return
    shown = found[: limit or None]
    bounds = [limits.get(one.counts) for one in shown]
    show(
        [
            Column("budget", [clean(one.budget) for one in shown], left=True, keep=9),
            Column("scope", [clean(one.scope) or "-" for one in shown], left=True, keep=9),
            *([Column("limit", [*map(_said, shown, bounds)], whole=True)] if limits else []),
            Column("used", [_said(one, one.used) for one in shown], whole=True),
            Column("lent", [_said(one, one.lent) for one in shown], whole=True),
            Column("processes", [f"{one.holders:,}" for one in shown], keep=3),
            Column("until", [utc(one.until) for one in shown], left=True, keep=5),
        ],
        color=output.color,
    )
    if len(shown) < len(found):
        write(f"{counted(len(found) - len(shown), 'row')} more; --limit 0 shows all.")
    if not output.quiet:
        tell(
            "Used is what all machines have spent or hold, as they said last; lent is that and "
            "what their processes may still spend without asking."
        )
        if not limits:
            tell("Limits are those of the programs: --budgets FILE shows them beside it.")


def simulate(
    question: Question,
    output: Output,
    ledger: Ledger,
    file: _File = None,
) -> int:
    """Show what these budgets would have refused of past calls."""
    from litellm_ledger._aggregates.calendar import calendar
    from litellm_ledger._aggregates.selection import Selection
    from litellm_ledger._budgets.past import past_calls
    from litellm_ledger._budgets.simulate import simulate as simulate_calls

    chosen = _budgets(ledger, file)
    selection = Selection(
        where=question.where,
        where_not=question.where_not,
        calendar=calendar(question.tz, question.week_start),
    )
    begin = question.since
    if begin is not None:  # what was spent before, in windows that reach into the period, counts
        begin = min((one.window_at(begin).start for one in chosen), default=begin)
    with working(f"reading {ledger.path}"):
        past = past_calls(ledger.path, begin, question.until, selection.fits)
        found = simulate_calls(past.calls, chosen, question.since)
    return emit(
        output,
        lambda: {
            "path": str(ledger.path),
            **question.to_dict(),
            "calls": found.calls,
            "refused": found.refused,
            "cost": dollars(found.cost),
            "not_spent": dollars(found.not_spent),
            "without_hold": found.without_hold,
            "refused_then": past.refused,
            "damaged": len(past.problems),
            "budgets": [one.to_dict() for one in found.budgets],
        },
        lambda: _print_simulation(found, past, output),
    )


def release(
    question: Question,
    output: Output,
    ledger: Ledger,
    why: Annotated[str, option(help="The reason; it is kept in the ledger.")],
    who: Who = None,
    file: _File = None,
    yes: Annotated[bool, option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Let go what calls of unknown cost hold; the ledger keeps who did it, and why."""
    from litellm_ledger._aggregates.calendar import calendar
    from litellm_ledger._aggregates.selection import Selection
    from litellm_ledger._budgets.release import cut_off, stranded
    from litellm_ledger._budgets.release import release as let_go
    from litellm_ledger._records.record import cut

    if not why.strip():
        raise ValueError('a reason is needed: --why "not on the provider\'s bill"')
    zone = calendar(question.tz, question.week_start)
    selection = Selection(**question.selection(), calendar=zone)
    with working(f"reading {ledger.path}"):
        found = stranded(ledger.path, _counted_by(ledger, file, selection.fits))
    died = cut_off(ledger.path)
    released = 0
    if found and (yes or _is_agreed(found)):
        ids = [one.released.record for one in found]
        audits = let_go(ledger.path, ids, who=cut(who or user_name()), why=cut(why))
        released = sum(len(audit.released) for audit in audits)
    return emit(
        output,
        lambda: {
            "path": str(ledger.path),
            **question.to_dict(),
            "stranded": len(found),
            "usd": dollars(_held(found)),
            "tokens": sum(one.released.tokens for one in found),
            "released": released,
            "not_recovered": died,
        },
        lambda: _print_released(found, released, died),
        status=int(bool(found) and not released),
    )


def _counted_by(
    ledger: Ledger, file: Path | None, fits: Callable[[Line], bool]
) -> Callable[[Line], bool]:
    """Return whether a line counts in a window of now, of the budgets of a file."""
    if file is None:
        return fits
    now = datetime.now(UTC)
    windows = [(one, one.window_at(now)) for one in _budgets(ledger, file)]

    def counts(line: Line) -> bool:
        ts = line.ts
        return (
            ts is not None
            and fits(line)
            and any(
                one.scope_of(line.model, line.tags) is not None
                and window.since <= one.window_at(ts).key <= window.key
                for one, window in windows
            )
        )

    return counts


def _held(found: Sequence[Stranded]) -> Decimal:
    from litellm_ledger._records.money import usd

    return usd(sum(one.released.picousd for one in found))


def _what(found: Sequence[Stranded]) -> str:
    tokens = sum(one.released.tokens for one in found)
    also = f" and {counted(tokens, 'token')}" if tokens else ""
    by_status: dict[str, int] = {}
    for one in found:
        by_status[one.status] = by_status.get(one.status, 0) + 1
    listed = ", ".join(f"{count:,} {status}" for status, count in sorted(by_status.items()))
    return f"{money(_held(found))}{also} of {counted(len(found), 'call')} ({listed})"


def _is_agreed(found: Sequence[Stranded]) -> bool:
    """Ask on the terminal.

    Raises:
        ValueError: there is none.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ValueError(f"{_what(found)} would be released; --yes does so without asking")
    sys.stderr.write(f"Release {_what(found)}? The provider may have billed them. [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print_released(found: Sequence[Stranded], released: int, died: Sequence[str]) -> None:
    if died:
        tell(
            f"{counted(len(died), 'writer')} died and {'is' if len(died) == 1 else 'are'} not "
            "recovered: run litellm-ledger recover, then this again."
        )
    if not found:
        tell("Nothing is stranded.")
    elif released:
        tell(f"Released: {_what(found)}. Clients stop counting it within seconds.")
    else:
        tell(f"Not released: {_what(found)}.")


def _budgets(ledger: Ledger, file: Path | None) -> Sequence[Budget]:
    if file is not None:
        from litellm_ledger._budgets.budgets_file import read_budgets

        return read_budgets(file)
    from litellm_ledger._budgets.known import known_budgets

    found, problems = known_budgets(ledger.path)
    for problem in problems:
        complain(problem)
    return found


def _is_reached(one: BudgetStatus) -> bool:
    return one.is_spent or bool(one.warned)


def _plain(one: BudgetStatus) -> dict[str, Any]:
    return {name: plain_value(value) for name, value in one.figures().items()}


def _print_statuses(
    statuses: Sequence[BudgetStatus],
    limit: int,
    sent: int | None,
    output: Output,
    shared: Sequence[str],
) -> None:
    shown: list[BudgetStatus] = []
    left: dict[str, int] = {}
    for one in statuses:
        if limit and sum(other.budget == one.budget for other in shown) >= limit:
            left[one.budget] = left.get(one.budget, 0) + 1
        else:
            shown.append(one)
    if not shown:
        tell("No budgets, or no calls that they count.")
        return
    show(
        [
            Column("budget", [clean(one.budget) for one in shown], left=True, keep=9),
            Column("scope", [clean(one.scope) or "-" for one in shown], left=True, keep=9),
            Column("mode", [one.mode for one in shown], left=True, keep=1),
            Column("limit", [_said(one, one.limit) for one in shown], whole=True),
            Column("settled", [_said(one, one.settled) for one in shown], whole=True),
            Column("held", [_said(one, one.held) for one in shown], whole=True, keep=6),
            Column("free", [_said(one, one.free) for one in shown], whole=True),
            Column("projected", [_said(one, _rounded(one.projected)) for one in shown], keep=3),
            *(
                [Column("refused", [f"{one.refused:,}" for one in shown], keep=2)]
                if any(one.refused for one in shown)
                else []
            ),
            Column("worst overspend", [_worst(one) for one in shown], keep=4),
            Column("resets", [_resets(one) for one in shown], left=True, keep=5),
        ],
        color=output.color,
    )
    for budget, count in left.items():
        write(f"{clean(budget)}: {counted(count, 'scope')} more; --limit 0 shows all.")
    for one in statuses:
        if _is_reached(one):
            of = f" of {clean(one.scope)}" if one.scope else ""
            spent = "spent" if one.is_spent else f"at {percent(one.warned[-1])}"
            tell(f"{clean(one.budget)}{of} is {spent}.")
    for place in shared if not output.quiet else ():
        tell(
            "These figures are of this ledger alone: other machines spend from the same limits. "
            f"All of them: litellm-ledger budgets {clean(place, 400)}"
        )
    if sent:
        tell(f"{counted(sent, 'alert')} sent.")


def _said(one: BudgetStatus | SharedBudget, amount: Decimal | int | None) -> str:
    if amount is None:
        return "-"
    if isinstance(amount, Decimal):
        return money(amount)
    return counted(amount, one.unit.removesuffix("s"))


def _rounded(amount: Decimal | int | None) -> Decimal | int | None:
    """What is projected is no exact sum; more than six decimals say nothing."""
    return round(amount, 6) if isinstance(amount, Decimal) else amount


def _worst(one: BudgetStatus) -> str:
    return "no bound" if one.worst_overspend is None else _said(one, one.worst_overspend)


def _resets(one: BudgetStatus) -> str:
    return "-" if one.resets_at is None else utc(one.resets_at)


def _print_simulation(found: Simulation, past: Past, output: Output) -> None:
    every = found.budgets
    show(
        [
            Column("budget", [clean(one.budget.label) for one in every], left=True),
            Column("limit", [_units(one.budget, one.budget.limit_units) for one in every]),
            Column("most at once", [_units(one.budget, one.most) for one in every], keep=4),
            Column("admitted", [f"{one.admitted:,}" for one in every]),
            Column("refused", [f"{one.refused:,}" for one in every]),
            Column("not spent", [_units(one.budget, one.not_spent) for one in every]),
            Column(
                "first refused",
                ["-" if one.first is None else utc(one.first) for one in every],
                left=True,
                keep=3,
            ),
        ],
        color=output.color,
    )
    tell(
        f"{counted(found.refused, 'attempt')} of {found.calls:,} would have been refused: "
        f"{money(found.not_spent)} of {money(found.cost)}."
    )
    for one in every:
        top = sorted(one.scopes.items(), key=lambda item: (-item[1], item[0]))[:5]
        if one.refused and one.budget.per is not None:
            names = ", ".join(f"{clean(scope)} {count:,}" for scope, count in top)
            tell(f"{clean(one.budget.label)}, most often: {names}.")
    if output.quiet:
        return
    write("Assumed: refused calls are not made again, and the others stay as they were.")
    if found.without_hold:
        write(
            f"{counted(found.without_hold, 'attempt')} without a recorded hold: the cost is taken "
            "as the hold. A strict budget holds more, and would have refused more."
        )
    if past.refused:
        write(f"{counted(past.refused, 'call')} refused at that time: not in these figures.")
    if past.problems:
        write(f"{counted(len(past.problems), 'place')} without a valid record; see verify.")


def _units(budget: Budget, units: int) -> str:
    from litellm_ledger._records.money import usd

    return (
        money(usd(units)) if budget.unit == "usd" else counted(units, budget.unit.removesuffix("s"))
    )
