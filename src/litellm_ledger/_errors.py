"""Every error and warning this library raises, in one place.

This file owns the exception tree and the wording rule: an error says *what* happened, *where*, and
*what to do*.  It never performs I/O and never decides when to raise.

    Exception
    └── LedgerError                     anything this library raises itself
        ├── LedgerClosed                you closed it (or never opened it); the state is in the text
        ├── LedgerFailed                the writer died and cannot write
        ├── QueueFull                   ``record_nowait`` found no room
        ├── BudgetExceeded              a call was refused: a budget has no room for it
        ├── BudgetUnbounded             a call was refused: nobody can say what it costs at most
        ├── LedgerTimeout               (also a TimeoutError)
        │   ├── FlushTimeout            not everything was on disk in time; nothing is lost
        │   └── DrainTimeout            ``aclose`` ran out of time; carries the counts
        ├── WrongLoop                   a client belongs to one event loop (and one process)
        ├── InvalidRecord               (also a ValueError) a field that cannot be right
        ├── LedgerPathError             (also an OSError) the directory or database cannot be used
        ├── UnsupportedFormat           a ledger of a newer format version: refused, untouched
        ├── UnsupportedPlatform         opening to write where the guarantees cannot be kept
        └── MissingExtra                (also an ImportError) an optional package is not installed
    Warning
    └── LedgerWarning                   an answer was handed out without its acknowledgement

LiteLLM's own exceptions are re-raised unchanged and are not part of this tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

__all__ = [
    "BudgetExceeded",
    "BudgetUnbounded",
    "DrainTimeout",
    "FlushTimeout",
    "InvalidRecord",
    "LedgerClosed",
    "LedgerError",
    "LedgerFailed",
    "LedgerPathError",
    "LedgerTimeout",
    "LedgerWarning",
    "MissingExtra",
    "QueueFull",
    "UnsupportedFormat",
    "UnsupportedPlatform",
    "WrongLoop",
]


class LedgerError(Exception):
    """Base class of every error that this library raises itself."""


class LedgerClosed(LedgerError):
    """The client, tracker or writer is not open: never opened, draining or closed."""


class LedgerFailed(LedgerError):
    """The writer task has died and cannot write any more; its cause is ``__cause__``."""


class QueueFull(LedgerError):
    """``record_nowait`` was called while ``queue_size`` records were waiting to be written."""


class BudgetExceeded(LedgerError):
    """A budget has no room for a call: nothing was sent.

    Amounts are US dollars (``Decimal``) or whole numbers of tokens or calls, by ``unit``.

    Attributes:
        budget: the name of the budget.
        unit: ``usd``, ``tokens`` or ``calls``.
        scope: whose money it is, for example ``user=alice``; empty: one limit for all.
        limit: what may be spent in the window.
        settled: what is spent.
        held: what calls in flight may still cost.
        lent: where the limit is one of many machines, what other processes were lent and have not
            spent; else 0.
        needed: what this call may cost.
        resets_at: when the window ends, UTC; ``None``: never.
        because: where the limit is one of many machines, why no more could be asked for.
    """

    def __init__(
        self,
        *,
        budget: str,
        unit: str,
        scope: str,
        limit: Decimal | int,
        settled: Decimal | int,
        held: Decimal | int,
        needed: Decimal | int,
        resets_at: datetime | None,
        because: str | None = None,
        lent: Decimal | int = 0,
    ) -> None:
        self.budget = budget
        self.unit = unit
        self.scope = scope
        self.limit = limit
        self.settled = settled
        self.held = held
        self.needed = needed
        self.resets_at = resets_at
        self.because = because
        self.lent = lent
        resets = "it never resets" if resets_at is None else f"it resets at {resets_at.isoformat()}"
        of = f" of {scope}" if scope else ""
        away = f"lent to other processes {self._said(lent)}, " if lent else ""
        super().__init__(
            f"the budget {budget}{of} has no room for this call: limit {self._said(limit)}, "
            f"settled {self._said(settled)}, held by calls in flight {self._said(held)}, {away}"
            f"needed {self._said(needed)}; {resets}{f'; {because}' if because else ''}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _exceeded, (dict(vars(self)),)

    def _said(self, amount: Decimal | int) -> str:
        return f"${amount:f}" if self.unit == "usd" else f"{amount} {self.unit}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values; dollars are decimal text."""
        names = ("limit", "settled", "held", *(("lent",) if self.lent else ()), "needed")
        amounts = {name: getattr(self, name) for name in names}
        return {
            "budget": self.budget,
            "unit": self.unit,
            "scope": self.scope,
            **{
                name: f"{value:f}" if self.unit == "usd" else value
                for name, value in amounts.items()
            },
            "resets_at": None if self.resets_at is None else self.resets_at.isoformat(),
            **({"because": self.because} if self.because else {}),
        }

    @property
    def passes(self) -> bool:
        """Whether only calls in flight, and leases, are in the way: their money may come back."""
        return self.settled + self.needed <= self.limit


def _exceeded(fields: dict[str, Any]) -> BudgetExceeded:
    return BudgetExceeded(**fields)


class BudgetUnbounded(LedgerError):
    """Nobody can say what a call costs at most, and its budget refuses such calls.

    Attributes:
        budget: the name of the budget.
        model: what was asked for.
        reason: why there is no bound.
    """

    def __init__(self, *, budget: str, model: str | None, reason: str) -> None:
        super().__init__(
            f"the budget {budget} refuses a call of {model}: what it may cost has no bound "
            f"({reason}); give the call a limit or the model a price, or the budget "
            'unbounded="allow"'
        )
        self.budget = budget
        self.model = model
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return _unbounded, (self.budget, self.model, self.reason)


def _unbounded(budget: str, model: str | None, reason: str) -> BudgetUnbounded:
    return BudgetUnbounded(budget=budget, model=model, reason=reason)


class LedgerTimeout(LedgerError, TimeoutError):
    """An operation did not finish within its timeout."""


class FlushTimeout(LedgerTimeout):
    """``flush`` ran out of time.  Nothing is lost: the records stay queued and will be written.

    Attributes:
        unwritten: records accepted before the call that were not on disk yet.
    """

    def __init__(self, message: str, *, unwritten: int) -> None:
        super().__init__(message)
        self.unwritten = unwritten


class DrainTimeout(LedgerTimeout):
    """``aclose`` passed its deadline with records still unwritten.

    Attributes:
        unwritten: records that were not on disk at the deadline.
        saved: how many of those the synchronous last resort then wrote.
        lost: ``unwritten - saved``; these exist nowhere but in this process.
    """

    def __init__(self, message: str, *, unwritten: int, saved: int) -> None:
        super().__init__(message)
        self.unwritten = unwritten
        self.saved = saved
        self.lost = unwritten - saved


class WrongLoop(LedgerError, RuntimeError):
    """A client was used from another event loop, or another process, than the one it belongs to."""


class InvalidRecord(LedgerError, ValueError):
    """A field of a record is invalid (negative tokens, a float as money, ...)."""


class LedgerPathError(LedgerError, OSError):
    """The ledger, a directory or a database, cannot be used; the text says which and what to do."""


class UnsupportedFormat(LedgerError):
    """The ledger was written by a newer version of this library; it was left untouched."""


class UnsupportedPlatform(LedgerError):
    """This platform can read a ledger but not write one with the promised guarantees."""


class MissingExtra(LedgerError, ImportError):
    """An optional package is missing; the text gives the ``pip install`` line.

    Attributes:
        extra: the extra of this library that installs it; empty if none does.
        install: the argument for ``pip install``.

    Args:
        package: the missing module.
        extra: the extra of this library that installs it.
        install: the argument for ``pip install``, where no extra installs it.
        what: the call that needs it.
    """

    def __init__(self, package: str, extra: str = "", *, install: str = "", what: str = "") -> None:
        needs = f": LiteLLM needs it for {what}" if what else ""
        self.install = install or f"litellm-ledger[{extra}]"
        how = f"pip install '{self.install}'"
        if extra:
            how += f" (in a checkout: pip install '.[{extra}]')"
        super().__init__(
            f"{package} is not installed{needs}; install it with: {how}",
            name=package,
        )
        self.extra = extra


class LedgerWarning(UserWarning):
    """An answer was handed out although the ledger had not acknowledged its record in time."""
