"""The command ``reprice``, and what is printed about prices: terms of a cost, costs computed again.

Owns those words.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from litellm_ledger._aggregates.formatting import amounts, clean, counted, dollars
from litellm_ledger._reports.plain import adjustment_dict, exact

from .audits import Who, user_name
from .flags import Output, check_where, emit
from .parameters import option
from .progress import working
from .tables import Column, show, tell, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litellm_ledger._aggregates.question import Question
    from litellm_ledger._maintenance.reprice import Repriced
    from litellm_ledger._prices.price import Priced
    from litellm_ledger._prices.price_list import PriceList
    from litellm_ledger._reading.price_check import PriceCheck
    from litellm_ledger._records.adjustment import Adjustment
    from litellm_ledger._reports.ledger import Ledger

__all__ = [
    "check_dict",
    "print_adjustments",
    "print_check",
    "print_terms",
    "reprice",
]


def reprice(
    question: Question,
    output: Output,
    ledger: Ledger,
    prices: Annotated[
        str,
        option(
            "--with",
            metavar="FILE",
            help="Prices: a JSON file (a price map in LiteLLM's format, or your own prices by "
            "model); newest: the map of the installed LiteLLM; recorded: back to the cost as "
            "recorded.",
        ),
    ],
    adjust: Annotated[
        bool, option("--write", help="Add the adjustments to the ledger. Needs --why.")
    ] = False,
    dry_run: Annotated[bool, option(help="Only show the difference (default).")] = False,
    why: Annotated[str | None, option(help="The reason; it is kept in the ledger.")] = None,
    who: Who = None,
) -> int:
    """Show what records cost by other prices; with --write, reports use the new costs."""
    from litellm_ledger._aggregates.calendar import calendar
    from litellm_ledger._aggregates.selection import Selection
    from litellm_ledger._maintenance.reprice import reprice as reprice_directory
    from litellm_ledger._records.record import cut

    if adjust and dry_run:
        raise ValueError("give --write or --dry-run, not both")
    if adjust and not (why or "").strip():
        raise ValueError('--write needs a reason: --why "the prices of July were wrong"')
    found, litellm = _price_list(prices)
    check_where(ledger, question, every=True)
    zone = calendar(question.tz, question.week_start)
    selection = Selection(**question.selection(), calendar=zone)
    with working(f"repricing {ledger.path}"):
        result = reprice_directory(
            ledger.path,
            selection,
            found,
            litellm=litellm,
            who=cut(who or user_name()) if adjust else None,
            why=cut(why or ""),
        )
    return emit(
        output,
        lambda: {"path": str(ledger.path), **question.to_dict(), **_repriced_dict(result)},
        lambda: _print_repriced(result, written=adjust, output=output),
    )


def _price_list(text: str) -> tuple[PriceList | None, str | None]:
    """Read the prices that were asked for; also LiteLLM's version, where they are of its map."""
    if text == "recorded":
        return None, None
    from litellm_ledger._prices.price_list import PriceList

    litellm = None
    path = Path(text)
    if text == "newest":
        from importlib.metadata import version
        from importlib.util import find_spec

        spec = find_spec("litellm")  # finds it, and imports nothing
        if spec is None or spec.origin is None:
            raise ValueError("--with newest: LiteLLM is not installed; give a file")
        path = Path(spec.origin).parent / "model_prices_and_context_window_backup.json"
        litellm = version("litellm")
    try:
        return PriceList(path.read_bytes()), litellm
    except FileNotFoundError:
        raise ValueError(f"no file {path}; --with takes a file, newest or recorded") from None
    except ValueError as exc:
        raise ValueError(f"{path} holds no prices: {exc}") from None


def _repriced_dict(found: Repriced) -> dict[str, Any]:
    import msgspec

    from litellm_ledger._records.money import usd

    return {
        "rows": [
            {
                "day": row.day and row.day.isoformat(),
                "model": row.model,
                "records": row.records,
                "old_cost": None if row.old is None else dollars(usd(row.old)),
                "new_cost": None if row.new is None else dollars(usd(row.new)),
                "difference": dollars(usd((row.new or 0) - (row.old or 0))),
            }
            for row in found.rows
        ],
        "looked_at": found.looked_at,
        "changed": found.changed,
        "unpriced": found.unpriced,
        "segments": found.segments,
        "problems": msgspec.to_builtins(found.problems),
    }


def _print_repriced(found: Repriced, *, written: bool, output: Output) -> None:
    from litellm_ledger._records.money import usd

    rows = found.rows
    if rows:
        old = [None if row.old is None else usd(row.old) for row in rows]
        new = [None if row.new is None else usd(row.new) for row in rows]
        more = [usd((row.new or 0) - (row.old or 0)) for row in rows]
        sums = [sum(filter(None, column), Decimal(0)) for column in (old, new, more)]
        show(
            [
                Column("day", [*(str(row.day or "-") for row in rows), "total"], left=True),
                Column("model", [*(clean(row.model) for row in rows), ""], left=True),
                Column("records", [*(f"{row.records:,}" for row in rows), f"{found.changed:,}"]),
                Column("old cost", amounts([*old, sums[0]]), whole=True),
                Column("new cost", amounts([*new, sums[1]]), whole=True),
                Column("difference", amounts([*more, sums[2]]), whole=True),
            ],
            color=output.color,
        )
        write()
    if found.unpriced:
        which = counted(found.unpriced, "record")
        tell(f"{which} unchanged: these prices do not cover all that was used.")
    if found.problems:
        tell(f"Damage: {counted(len(found.problems), 'place')} skipped; run litellm-ledger verify.")
    records = counted(found.changed, "record")
    if not found.changed:
        tell(f"Nothing changes: {counted(found.looked_at, 'record')} checked.")
    elif written:
        tell(f"{records} adjusted. Reports use the new costs; --as-recorded shows the old ones.")
    else:
        tell(f"{records} would change. Nothing was written; --write adds the adjustments.")


def print_terms(priced: Priced) -> None:
    """Print the terms of a price: what was used, for how much, and what that comes to."""
    write("price, by the entry in the price book:")
    lines = priced.lines
    show(
        [
            Column("term", [clean(term.name) for term in lines], left=True),
            Column("quantity", [f"{term.quantity:,}" for term in lines]),
            Column("unit", [clean(term.unit) for term in lines], left=True),
            Column("USD per unit", [exact(term.price) for term in lines]),
            Column("USD", [exact(term.amount) for term in lines]),
        ]
    )
    for name in priced.missing:
        write(f"no price for {clean(name)}")


def print_adjustments(made: Sequence[Adjustment]) -> None:
    """Print how a record was priced again, one line each."""
    for one in made:
        told = adjustment_dict(one)
        old, new = (told[name] or "unknown" for name in ("old_cost", "new_cost"))
        who, why = clean(one.who), clean(one.why, 4_096)
        write(f"{'adjusted':<18} {told['at']}: {old} -> {new} USD, by {who}: {why}")


def check_dict(found: PriceCheck) -> dict[str, Any]:
    """Return what was found as plain JSON values; amounts are exact decimal text."""
    import msgspec

    return {
        "ok": found.ok,
        "computed": found.computed,
        "different": found.different,
        "differences": [
            {
                "id": one.id,
                "recorded": dollars(one.recorded),
                "computed": None if one.computed is None else dollars(one.computed),
                "price_version": one.price_version,
            }
            for one in found.differences
        ],
        "missing": found.missing,
        "others": found.others,
        "unknown": found.unknown,
        "entries": msgspec.to_builtins(found.entries),
        "adjusted": found.adjusted,
        "wrong": [{"id": key, "why": why} for key, why in found.wrong],
    }


def print_check(found: PriceCheck) -> None:
    """Print which costs differ, which could not be computed, and how it stands."""
    write()
    for problem in found.entries:
        tell(f"{problem.file}: {problem.what}: {clean(problem.detail, 4_096)}")
    if found.differences:
        listed = found.differences
        unknown = "no price"
        show(
            [
                Column("id", [clean(one.id) for one in listed], left=True, whole=True),
                Column("recorded", [dollars(one.recorded) for one in listed], whole=True),
                Column(
                    "computed",
                    [unknown if one.computed is None else dollars(one.computed) for one in listed],
                    whole=True,
                ),
                Column("price version", [clean(one.price_version) for one in listed], left=True),
            ]
        )
        if found.different > len(listed):
            tell(f"These are the first {len(listed):,} of {found.different:,}.")
    for key, why in found.wrong:
        tell(f"adjustment {clean(key)}: {clean(why, 4_096)}")
    if found.missing:
        tell(
            f"{counted(found.missing, 'cost')} could not be checked: the entry in prices/ is "
            "missing or damaged."
        )
    if found.others:
        tell(
            f"{counted(found.others, 'cost')} without an entry to check by: a figure of the "
            "provider, of LiteLLM or of the caller, or recorded by an older version."
        )
    if found.adjusted:
        tell(f"{counted(found.adjusted, 'adjustment')} checked: {len(found.wrong):,} wrong.")
    if found.different:
        tell(f"{found.different:,} of {counted(found.computed, 'cost')} DIFFER from their price.")
    else:
        tell(f"{counted(found.computed, 'cost')} computed again: none differs from its price.")
    if not found.ok:
        parts = [
            counted(len(found.entries), "damaged price") if found.entries else "",
            f"{counted(found.different, 'cost')} not what the price gives"
            if found.different
            else "",
            f"{counted(len(found.wrong), 'adjustment')} wrong" if found.wrong else "",
        ]
        tell(f"Prices NOT OK: {', '.join(filter(None, parts))}.")
