"""``Verification`` and ``WriterVerdict``: what verify found, and the words for it.

Owns the shapes and the sentences, above all those about what cannot be proved.  Pure: reads no
file.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from litellm_ledger._aggregates.formatting import counted
from litellm_ledger._records.audit import ERASE, PRUNE, Audit

from .anchor import AnchorCheck
from .erasures import Erasure
from .lines import Problem

__all__ = ["Compared", "Proof", "Prune", "State", "Verification", "WriterVerdict"]

State = Literal["alive", "closed", "recovered", "died", "orphaned", "shipping"]
Proof = Literal["exact", "at_least", "nothing"]


class WriterVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One writer: what it accepted, what is there.

    Attributes:
        state: ``alive``; ``closed`` (cleanly); ``recovered`` (it died, and ``recover`` has sealed
            its segments); ``died`` (not recovered yet); ``orphaned`` (open segments, no counters);
            ``shipping`` (in a database: not closed, as far as that was told).
        proves: ``exact``: ``lost`` is the number.  ``at_least``: it may be more.  ``nothing``.
        pid: of the process, while its counters are there.
        recoverer: pid of the process that is recovering it at this moment.
        accepted: numbers given out, as far as is known.
        written, synced: by its own counters; ``None`` when these are gone, as after a clean close.
        found: different numbers with a valid record.
        lost: numbers without a record that nobody gave up on purpose, recovered losses included.
        unacknowledged: how many of ``lost`` certainly belong to records that no caller had been
            told of; the promise does not cover these.
        undecided: how many of ``lost`` may have been acknowledged or not: the durability level of
            the writer is not on record.  They count as acknowledged.
        quarantined: numbers set aside by ``recover`` because their segment was damaged.
        removed: numbers erased or expired on purpose.
        unexplained: how many of ``removed`` expired, as gaps say, and no audit says so.
        unwritten: (alive) accepted and not on disk yet.
        unshipped: (in a database) accepted, as far as is known, and not there: if the machine is
            gone, this many numbers are lost.
        torn_bytes: the invalid end of an open segment; ``recover`` cuts it off and keeps a copy.
        unsettled: calls on record as unsettled: their process died.
        in_flight: calls started and without an outcome yet (of a dead writer: ``recover`` will
            record them as unsettled).
        problems: damaged places, misnamed and unreadable files.
        known: how many of ``lost`` somebody has looked into, as ``audits`` say.
        known_unacknowledged: how many of ``known`` are also ``unacknowledged``.
        known_quarantined: how many of ``quarantined`` somebody has looked into.
        known_problems: places that somebody has looked into; they are not among ``problems``.
        lost_numbers, quarantined_numbers: which numbers these are, as ranges, both ends included.
        audits: what was done about this writer, by time.
    """

    writer: str
    state: State
    proves: Proof
    pid: int | None = None
    recoverer: int | None = None
    accepted: int
    written: int | None = None
    synced: int | None = None
    found: int
    lost: int = 0
    unacknowledged: int = 0
    undecided: int = 0
    quarantined: int = 0
    removed: int = 0
    unexplained: int = 0
    unwritten: int = 0
    unshipped: int = 0
    torn_bytes: int = 0
    unsettled: int = 0
    in_flight: int = 0
    problems: list[Problem] = []
    known: int = 0
    known_unacknowledged: int = 0
    known_quarantined: int = 0
    known_problems: list[Problem] = []
    lost_numbers: list[tuple[int, int]] = []
    quarantined_numbers: list[tuple[int, int]] = []
    audits: list[Audit] = []

    @property
    def ok(self) -> bool:
        """Nothing that may have been acknowledged is lost, and nothing is damaged.

        Torn bytes and unsettled calls alone are no failure, nor is what somebody has looked into.
        """
        lost = self.lost - self.unacknowledged
        return (
            lost == self.known - self.known_unacknowledged
            and self.quarantined == self.known_quarantined
            and not self.problems
        )

    @property
    def complete(self) -> bool:
        """Whether nothing at all is lost or damaged, acknowledged or not; but what is known."""
        return self.ok and self.lost == self.known

    @property
    def clean(self) -> bool:
        """Whether it was closed cleanly."""
        return self.state == "closed"

    @property
    def unremarkable(self) -> bool:
        """Whether there is nothing to say of it; what was removed is said of the whole ledger."""
        said = all(audit.did in (ERASE, PRUNE) for audit in self.audits)
        return self.ok and self.clean and said and not self.unexplained

    def sentence(self, *, backup: bool = False) -> str:
        """Describe the state of this writer in a sentence, with what to do if necessary.

        In a ``backup`` there is nothing to do: one that was recovered is not brought up to date.
        """
        say = [_OPENINGS[self.state].format(pid=self.pid), self._balance()]
        if self.state == "alive" and self.unwritten:
            say.append(f"{self.unwritten:,} more accepted and not written yet")
        if self.unshipped:
            say.append(f"{self.unshipped:,} more accepted and not shipped yet")
        if self.quarantined:
            say.append(f"{self.quarantined:,} set aside in recovery/ as damaged")
        if self.removed:
            say.append(f"{self.removed:,} erased or expired on purpose")
        if self.unexplained:
            say.append(f"no audit says who removed {self.unexplained:,} of these, and why")
        if self.torn_bytes:
            say.append(f"{self.torn_bytes:,} torn bytes at its end")
        if self.problems:
            say.append(f"damage in {counted(len(self.problems), 'place')}")
        if looked_into := self.looked_into():
            say.append(f"looked into: {looked_into}")
        if what_to_do := self._what_to_do(backup=backup):
            say.append(what_to_do)
        return say[0] + ": " + "; ".join(say[1:])

    def _what_to_do(self, *, backup: bool) -> str:
        if self.recoverer is not None:
            return f"process {self.recoverer} is recovering it now"
        if self.state != "died":
            return ""
        if backup:
            return "in a backup nothing to do: run litellm-ledger recover after a restore"
        return "run litellm-ledger recover"

    def looked_into(self) -> str:
        """Say how much of what is wrong somebody has looked into; empty if nothing."""
        return _looked_into([self])

    def _balance(self) -> str:
        base = self.accepted - self.unwritten - self.unshipped
        if not self.lost:
            if self.proves == "nothing":
                return "no record and no counter, so nothing is known"
            if self.proves == "at_least":
                return f"{self.found:,} found, none known to be lost (cannot be proved)"
            return (
                f"all {base:,} found" if base == self.found else f"{self.found:,} found, none lost"
            )
        least = "at least " if self.proves != "exact" else ""
        say = f"{self.found:,} found of {base:,}, {least}{self.lost:,} "
        if self.lost == self.unacknowledged:
            return say + "lost, never acknowledged"
        say += "LOST"
        if self.unacknowledged:
            say += f", {self.unacknowledged:,} of these never acknowledged"
        if self.undecided:
            of_these = f"for {self.undecided:,} of these"
            say += f"; {of_these} the ledger does not say if they were acknowledged"
        return say


def _looked_into(writers: Sequence[WriterVerdict]) -> str:
    lost = sum(writer.known for writer in writers)
    quarantined = sum(writer.known_quarantined for writer in writers)
    places = sum(len(writer.known_problems) for writer in writers)
    parts = [
        f"{lost:,} lost" if lost else "",
        f"{quarantined:,} quarantined" if quarantined else "",
        counted(places, "damaged place") if places else "",
    ]
    return ", ".join(filter(None, parts))


_OPENINGS = {
    "alive": "alive (pid {pid})",
    "closed": "closed, or recovered",
    "recovered": "died, recovered since",
    "died": "died without closing",
    "orphaned": "not closed, and its counters are missing",
    "shipping": "not closed yet",
}


class Prune(msgspec.Struct, frozen=True, kw_only=True):
    """One run of ``prune``, as its audits say; of a database one month, as its deeds do.

    Attributes:
        at: when, UTC; ``who`` did it, and ``why``.
        writers, records: of how many writers how many records were removed.
        latest: the time of the last of these records.
        month: that went from a database, as ``2025-01``.
    """

    at: datetime
    who: str
    why: str
    writers: int
    records: int
    latest: datetime | None = None
    month: str | None = None


class Compared(msgspec.Struct, kw_only=True):
    """How a database compares with ledgers that are shipped to it.

    Attributes:
        batches: that were compared; ``same``: whose hash is that of the lines in the ledger.
        beyond: outcomes that the database has, and the ledger has no more: pruned or damaged where
            they were written.
        not_erased: outcomes that the database has, and that were erased where they were written.
        gone: outcomes in the ledger that retention has taken away in the database.
        only_erased: outcomes in the ledger that were erased in the database.
        unshipped: numbers that were accepted there and are not shipped.
    """

    batches: int = 0
    same: int = 0
    beyond: int = 0
    not_erased: int = 0
    gone: int = 0
    only_erased: int = 0
    unshipped: int = 0

    @property
    def ok(self) -> bool:
        """Whether everybody who was erased in one of both was in the other, too."""
        return not (self.not_erased or self.only_erased)


_NO_TRACE: Final = {
    "directory": "Files deleted by hand: the last segments of a closed writer, or all of its "
    "files, leave no trace.",
    "prefix": "Objects deleted by hand: the last segments of a closed writer, or all of its "
    "objects, leave no trace.",
    "database": "Rows changed by the owner of the database: all that it has of a writer or a batch "
    "can be taken out or written anew without a trace.",
}
"""Of each kind of place, what can be deleted without a trace."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The whole ledger.

    Attributes:
        path: the directory.
        writers: one verdict each, by start.
        recovery: files in ``recovery/``: torn tails and quarantined originals, for a person to see.
        archive: files in ``archive/`` that are not whole.
        adjustments: what is damaged among adjustments.
        anchors: those that were given, and whether they hold.
        erasures: what was erased, run by run.
        undone: files that are as they were before an erasure: it was killed, or they were restored.
        place: what it is: a directory, a prefix in object storage or a database.
        against: of object storage, the directories that it was compared with.
        months: of a database, what was pruned, month by month.
        compared: of a database, how it compares with the ledgers that were at hand.
    """

    path: str
    writers: list[WriterVerdict]
    recovery: list[str] = []
    archive: list[Problem] = []
    adjustments: list[Problem] = []
    anchors: list[AnchorCheck] = []
    erasures: list[Erasure] = []
    undone: list[str] = []
    place: Literal["directory", "prefix", "database"] = "directory"
    against: list[str] = []
    months: list[Prune] = []
    compared: Compared | None = None

    @property
    def ok(self) -> bool:
        """Nothing acknowledged is lost, nothing is damaged or altered, as far as can be known."""
        whole = all(writer.ok for writer in self.writers)
        whole = whole and not (self.archive or self.adjustments or self.undone)
        whole = whole and (self.compared is None or self.compared.ok)
        return whole and all(one.ok for one in self.anchors)

    @property
    def complete(self) -> bool:
        """Whether nothing at all is lost or damaged: what ``verify --strict`` asks for."""
        return self.ok and all(writer.complete for writer in self.writers)

    def total(self, field: str) -> int:
        """Sum a count over the writers: ``found``, ``lost``, ``torn_bytes``, …"""
        return sum(getattr(writer, field) or 0 for writer in self.writers)

    def looked_into(self) -> str:
        """Say how much of what is wrong somebody has looked into; empty if nothing."""
        return _looked_into(self.writers)

    def prunes(self) -> list[Prune]:
        """Return the runs of ``prune`` that removed records, by time."""
        runs: dict[tuple[datetime, str, str], list[tuple[str, Audit]]] = {}
        for writer in self.writers:
            for one in writer.audits:
                if one.did == PRUNE:
                    run = runs.setdefault((one.at, one.who, one.why), [])
                    run.append((writer.writer, one))
        found = []
        for (at, who, why), run in sorted(runs.items()):
            removed = [c.was for _, one in run for c in one.segments if one.records]
            latest = max((was.latest for was in removed if was.latest is not None), default=None)
            found.append(
                Prune(
                    at=at,
                    who=who,
                    why=why,
                    writers=len({writer for writer, one in run if one.records}),
                    records=sum(one.records for _, one in run),
                    latest=latest,
                )
            )
        return [*self.months, *(one for one in found if one.records)]

    def cannot_prove(self) -> list[str]:
        """Return what this verification cannot prove."""
        least = [writer for writer in self.writers if writer.proves == "at_least"]
        open_ends = []
        died = sum(1 for writer in least if writer.state in ("died", "alive"))
        if died:
            open_ends.append(
                f"{counted(died, 'writer')} whose counters are older than the last start of the "
                "machine, or unreadable: more records may have been accepted just before the end "
                "than they show."
            )
        shipping = sum(1 for writer in least if writer.state == "shipping")
        if shipping:
            open_ends.append(
                f"{counted(shipping, 'writer')} not closed: more records may have been accepted "
                "than their machines have told."
            )
        orphaned = len(least) - died - shipping
        if orphaned:
            open_ends.append(
                f"{counted(orphaned, 'writer')} without counters: records after the last one "
                "found cannot be ruled out."
            )
        if self.place == "prefix":
            open_ends.append(
                "That everything was sent: what is not sealed, or not sent, is on its machine only."
            )
        closed = any(writer.state in ("closed", "recovered") for writer in self.writers)
        if closed or (self.writers and self.place == "database"):
            open_ends.append(_NO_TRACE[self.place])
            if self.place == "database" and self.compared is None:
                open_ends[-1] += " --against PATH compares it with a ledger."
        return open_ends

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values (see docs/CLI.md)."""
        writers = []
        for writer in self.writers:
            plain: dict[str, Any] = msgspec.to_builtins(writer)
            more = {"ok": writer.ok, "complete": writer.complete, "clean": writer.clean}
            writers.append(plain | more)
        return {
            "ok": self.ok,
            "complete": self.complete,
            "path": self.path,
            "writers": writers,
            "recovery": self.recovery,
            "archive": msgspec.to_builtins(self.archive),
            "adjustments": msgspec.to_builtins(self.adjustments),
            "anchors": [
                {
                    "at": one.anchor.at,
                    "ok": one.ok,
                    "records": one.anchor.records,
                    "records_now": one.records,
                    **({"since": msgspec.to_builtins(one.since)} if one.since else {}),
                }
                for one in self.anchors
            ],
            "erased": msgspec.to_builtins(self.erasures),
            "undone": self.undone,
            "pruned": [msgspec.to_builtins(one) for one in self.prunes()],
            "cannot_prove": self.cannot_prove(),
            **({"compared": msgspec.to_builtins(self.compared)} if self.compared else {}),
        }
