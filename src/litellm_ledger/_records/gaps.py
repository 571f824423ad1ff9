"""Numbers of a writer that have no record, and what its gap lines say of them.  Pure."""

from __future__ import annotations

from typing import Final, NamedTuple, get_args

from .record import Reason, UsageRecord
from .scan import Head

__all__ = ["Gap", "GapLine"]

_REASONS: Final[dict[str, Reason]] = {str(reason): reason for reason in get_args(Reason)}


class Gap(NamedTuple):
    """Numbers without a record: why, and (``None``: not on record) up to where acknowledged."""

    first: int
    last: int
    reason: Reason
    acked_until: int | None = None

    @classmethod
    def of(cls, head: Head) -> Gap:
        """Read a gap line."""
        return cls.of_reason(head.seq, head.last, head.reason or "", head.acked_until)

    @classmethod
    def of_reason(cls, first: int, last: int, reason: str, acked_until: int | None) -> Gap:
        """Make one; a reason that this version does not know counts as a loss."""
        return cls(first, last, _REASONS.get(reason, "lost"), acked_until)

    @property
    def unacknowledged(self) -> int:
        """How many of the numbers certainly belong to records that no caller had been told of."""
        if self.acked_until is None:
            return 0
        return max(0, self.last - max(self.first - 1, self.acked_until))


class GapLine(UsageRecord, frozen=True, kw_only=True):
    """A gap with what only recovery and ``verify`` ask for."""

    acked_until: int | None = None
