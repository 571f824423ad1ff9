"""``doctor``: what about a ledger needs somebody's attention, and what to do about it.

Owns the list of things that are looked at, and their words.  Reads, and repairs nothing; whether
every record is there is ``verify``'s question, not this one's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import msgspec

from litellm_ledger._aggregates.formatting import counted, listed
from litellm_ledger._aggregates.groups import MISSING, Row
from litellm_ledger._reading.adjustments import read_additions
from litellm_ledger._reading.audits import by_audited_writer, split
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.listing import Snapshot, list_live, live_writers
from litellm_ledger._records.layout import (
    LIVE,
    MANIFESTS,
    RECOVERY,
    SEGMENTS,
    SHIPPING,
    SegmentName,
    entry_name,
    live_name,
    version_of_entry,
)
from litellm_ledger._records.money import FAR
from litellm_ledger._shipping.behind import behind as behind_places
from litellm_ledger._storage.live_file import read_live
from litellm_ledger._storage.location import file_system_of, is_network

from .ledger import Ledger

__all__ = ["Finding", "examine", "place", "shipping", "writers"]

LOOK_BACK: Final = timedelta(days=30)
"""What is older is history: it does not make ``doctor`` complain for ever."""

_LITTLE_SPACE: Final = 512 * 2**20
_FEW_FILES: Final = 1_000
_MANY_SEGMENTS: Final = 1_000
_UNSEALED: Final = 16 * 2**20
"""Bytes that are read in the time that a person notices."""
_CLOCK: Final = timedelta(seconds=60)
_PAUSE: Final = 0.3
"""Seconds between two looks at a backlog: a writer that gets on has written by then."""
_SHIPPED_LATE: Final = timedelta(minutes=10)
_NAMED: Final = 5
_BY_ENTRY: Final = ("user", "price_map")
"""Sources of a cost by an entry of the price book."""
_NEWEST: Final = 10_000
"""Calls whose prices are looked at one by one."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        check: its name, the same in every run.
        level: ``ok``; ``note`` (good to know); ``warning`` (something is to be done).
        text: a sentence, with what to do.
    """

    check: str
    level: Literal["ok", "note", "warning"]
    text: str


def examine(ledger: Ledger) -> list[Finding]:
    """Look at everything.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read.
        UnsupportedFormat: it was written by a newer version.
    """
    names = ledger.segments()
    owners = {name.writer for name in names}
    found = [*place(ledger.path), *writers(ledger.path), *shipping(ledger.path)]
    live = {*list_live(ledger.path)}
    orphans = sorted({name.writer for name in names if name.open and name.writer not in live})
    if orphans:
        found.append(
            _note(
                "orphans",
                f"{counted(len(orphans), 'writer')} left an open segment and no counters "
                f"({orphans[0]}): it is read like any other; later records may be missing",
            )
        )
    found.append(_clock(ledger.path, owners))
    found += _manifests(ledger.path, names)
    sealed = sum(path.suffix == ".jsonl" for path in _files(ledger.path / SEGMENTS))
    if sealed > _MANY_SEGMENTS:
        found.append(
            _note(
                "segments",
                f"{sealed:,} sealed segments: litellm-ledger compact joins those of past days, and "
                "reports take a fraction of the time",
            )
        )
    found += _calls(ledger)
    return found


def _manifests(path: Path, names: Sequence[SegmentName]) -> Iterator[Finding]:
    there = {file.name for file in _files(path / MANIFESTS)}
    missing = size = 0
    for name in names:
        if not name.open and name.manifest not in there:
            with contextlib.suppress(OSError):  # compacted
                size += (path / SEGMENTS / str(name)).stat().st_size
                missing += 1
    if size > _UNSEALED:
        yield _note(
            "manifests",
            f"{counted(missing, 'sealed segment')} of {size / 2**20:,.0f} MiB without a manifest: "
            "litellm-ledger seal writes them, and reports answer at once",
        )


def place(path: Path) -> Iterator[Finding]:
    """Look at where the ledger is: file system, rights, disk space."""
    kind = file_system_of(path)
    if is_network(path):
        yield _warning(
            "file system",
            f"on a network file system ({kind}): locks cannot be trusted there, and nothing is "
            "recovered automatically; use a local disk",
        )
    elif kind in ("overlay", "tmpfs", "ramfs"):
        gone = "the container" if kind == "overlay" else "the next start of the machine"
        yield _note("file system", f"on {kind}: the ledger is gone with {gone}; use a volume")
    else:
        yield _ok("file system", f"local ({kind or 'of unknown type'})")
    if not os.access(path / SEGMENTS if (path / SEGMENTS).is_dir() else path, os.W_OK):
        yield _note("writable", "not by you: the programs that record must run as its owner")
    if _open_to_all(path) and _open_to_all(path / SEGMENTS):
        yield _note(
            "readable",
            "by every user of this machine, with the prompts if any are stored; "
            f"chmod -R o= {path} removes that right",
        )
    free = shutil.disk_usage(path).free
    said = f"{free / 2**30:,.1f} GiB free"
    if free < _LITTLE_SPACE:
        yield _warning("disk space", f"{said}: when it is full, new calls wait; free some space")
    elif hasattr(os, "statvfs") and 0 < (left := os.statvfs(path).f_favail) < _FEW_FILES:
        yield _warning(
            "disk space",
            f"{said}, but only {counted(left, 'more file')} can be created; free some inodes",
        )
    else:
        yield _ok("disk space", said)


def _open_to_all(path: Path) -> bool:
    try:
        return os.name == "posix" and bool(path.stat().st_mode & 0o005)
    except OSError:
        return False


def writers(path: Path) -> Iterator[Finding]:
    """Look at those that run and those that died: unclean shutdowns, backlog, recovery."""
    alive: dict[str, tuple[int, int]] = {}
    dead = []
    for writer, locked, counters in live_writers(path):
        if locked:
            alive[writer] = counters.accepted, counters.written
        else:
            dead.append(writer)
    if dead:
        yield _warning(
            "unclean shutdowns",
            f"{counted(len(dead), 'process', 'processes')} died and "
            f"{'is' if len(dead) == 1 else 'are'} not recovered ({dead[0]}); the next client that "
            f"opens recovers {'it' if len(dead) == 1 else 'them'}, or run litellm-ledger recover",
        )
    else:
        yield _ok("unclean shutdowns", "all recovered")
    behind = {writer: pair for writer, pair in alive.items() if pair[0] > pair[1]}
    if behind:
        time.sleep(_PAUSE)
    stuck = [writer for writer, (_, written) in behind.items() if _written(path, writer) == written]
    unwritten = sum(accepted - written for accepted, written in behind.values())
    if stuck:
        yield _warning(
            "backlog",
            f"{counted(unwritten, 'record')} not written, and "
            f"{counted(len(stuck), 'process', 'processes')} made no progress for {_PAUSE} s "
            f"({stuck[0]}): is the disk full, slow or gone?",
        )
    else:
        what = f"{counted(unwritten, 'record')} queued" if unwritten else "nothing unwritten"
        yield _ok("backlog", f"{counted(len(alive), 'running writer')}, {what}")
    kept = len(_files(path / RECOVERY))
    if kept:
        yield _note(
            "recovery",
            f"{counted(kept, 'file')} in recovery/: torn or damaged bytes, kept for inspection",
        )


def _written(path: Path, writer: str) -> int:
    try:
        return read_live(path / LIVE / live_name(writer)).written
    except OSError:
        return -1  # closed meanwhile: it made progress


def shipping(path: Path) -> Iterator[Finding]:
    """Look at each place that the ledger is shipped to: backlog, and what went wrong last."""
    for one, missing in behind_places(path):
        ago = timedelta(seconds=max(0, round(time.time() - one.mark.at)))
        when = f"it answered {ago} ago" if one.mark.at else "it never answered"
        said = f"{counted(missing, 'record')} not shipped to {one.mark.to or one.path.name}; {when}"
        if one.mark.error:
            said += f"; {one.mark.error}"
        if missing and (one.mark.error or ago > _SHIPPED_LATE):
            yield _warning(
                "shipping",
                f"{said}. A client with sink=, or litellm-ledger ship, sends them; to stop "
                f"shipping there for good, remove {SHIPPING}/{one.path.name}",
            )
        else:
            yield _ok("shipping", said)


def _clock(path: Path, writers: set[str]) -> Finding:
    soon = datetime.now(UTC) + _CLOCK
    ahead = [writer for writer in writers if writer[:16] > soon.strftime("%Y%m%dT%H%M%SZ")]
    later = [
        file.name
        for file in _files(path / SEGMENTS)
        if datetime.fromtimestamp(_modified(file), UTC) > soon
    ]
    if ahead or later:
        return _warning(
            "clock",
            f"{(ahead or later)[0]} is from the future: this machine's clock is wrong now, or was "
            "wrong then. Reports use the recorded times",
        )
    return _ok("clock", "no writer and no file is from the future")


def _modified(file: Path) -> float:
    try:
        return file.lstat().st_mtime
    except OSError:  # sealed or compacted just now
        return 0.0


def _calls(ledger: Ledger) -> Iterator[Finding]:
    since = datetime.now(UTC) - LOOK_BACK
    report = ledger.report(["model", "cost_source"], since=since)
    span = f"in the last {LOOK_BACK.days} days"
    unpriced: Counter[str] = Counter()
    for row in report.rows:
        if row.unpriced:
            unpriced[_model(row)] += row.unpriced
    said = any(row.group["cost_source"] == "provider" for row in report.rows)
    far, lacking = _looked_at(ledger, since) if said or unpriced else (Counter(), Counter())
    if unpriced:
        yield _warning(
            "prices",
            f"{counted(unpriced.total(), 'call')} {span} could not be priced: {_listed(unpriced)}; "
            + (f"no price was given for {_listed(lacking)}; " if lacking else "")
            + "give LiteLLMClient(prices=…) or update LiteLLM for new calls, and run "
            "litellm-ledger reprice for these",
        )
    else:
        yield _ok("prices", f"every call that succeeded {span} has a cost")
    if far:
        yield _warning(
            "providers' costs",
            f"{counted(far.total(), 'call')} {span} with a provider's cost {FAR} times more or "
            f"less than by LiteLLM's price map: {_listed(far)}; compare with the bill and "
            "litellm-ledger calls --where cost_source=provider",
        )
    elif said:
        yield _ok("providers' costs", f"none {span} is far from LiteLLM's price map")
    if any(row.group["cost_source"] in _BY_ENTRY for row in report.rows):
        yield from _book(ledger, since, span)
    if report.total.unsettled or report.cut_off:
        count = report.total.unsettled + report.cut_off
        yield _warning(
            "unsettled",
            f"{counted(count, 'call')} {span} in flight when the process died; the provider "
            f"may bill {'it' if count == 1 else 'them'}; "
            + ("litellm-ledger recover records them, then " if report.cut_off else "")
            + "litellm-ledger calls --where status=unsettled",
        )
    else:
        yield _ok("unsettled", f"no call {span} was in flight when its process died")
    left, known = _split(ledger.path, report.problems)
    if left:
        yield _warning(
            "damage",
            f"{counted(len(left), 'place')} without a valid record; "
            "litellm-ledger verify lists them",
        )
    elif known:
        yield _note(
            "damage",
            f"{counted(len(known), 'place')} without a valid record, looked into; "
            "litellm-ledger verify lists them",
        )
    else:
        yield _ok("damage", "no damaged line was found")


def _book(ledger: Ledger, since: datetime, span: str) -> Iterator[Finding]:
    """Look whether the price book has what the newest calls were priced by."""
    from litellm_ledger._reading.price_entries import PriceEntries

    entries = PriceEntries(ledger.path)
    entries.check()
    missing: Counter[str] = Counter()
    other: Counter[str] = Counter()
    where = {"cost_source": list(_BY_ENTRY)}
    for call in ledger.calls(since=since, where=where, limit=_NEWEST).records:
        price = (call.meta or {}).get("price")
        if isinstance(price, dict) and "check" in price:
            other[call.model or "no model"] += 1
        version = call.price_version
        if version and version_of_entry(entry_name(version)) and not entries.get(version):
            missing[version] += 1
    if missing or entries.problems:
        damaged = [f"{problem.file} is {problem.what}" for problem in entries.problems]
        lost = f"no entry of the price of {counted(missing.total(), 'call')} {span}: "
        yield _warning(
            "price book",
            "; ".join([*([lost + _listed(missing)] if missing else []), *damaged[:_NAMED]])
            + "; these costs cannot be computed again. Restore prices/ from a backup",
        )
    else:
        yield _ok("price book", f"it has the prices of all calls {span} that were priced by one")
    if other:
        yield _warning(
            "LiteLLM's figures",
            f"{counted(other.total(), 'call')} {span} of which LiteLLM has another figure "
            f"(meta.price.check): {_listed(other)}; litellm-ledger show ID prints our terms",
        )


def _looked_at(ledger: Ledger, since: datetime) -> tuple[Counter[str], Counter[str]]:
    """Among the newest calls: the models whose provider's cost is far from the price map, and what
    had no price."""
    far: Counter[str] = Counter()
    lacking: Counter[str] = Counter()
    where = {"cost_source": ["provider", MISSING]}
    for call in ledger.calls(since=since, where=where, limit=_NEWEST).records:
        meta = call.meta or {}
        price, unpriced = meta.get("price"), meta.get("unpriced")
        if isinstance(price, dict) and "listed" in price:
            far[call.model or "no model"] += 1
        if isinstance(unpriced, list):
            lacking.update(f"{call.model or 'no model'}: {name}" for name in unpriced)
    return far, lacking


def _listed(counts: Counter[str]) -> str:
    return listed([f"{name} ({count:,})" for name, count in counts.most_common()], _NAMED)


def _model(row: Row) -> str:
    model = row.group["model"]
    return "no model" if model == MISSING else model


def _files(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _split(root: Path, problems: Sequence[Problem]) -> tuple[Sequence[Problem], list[Problem]]:
    """Return the problems that no audit covers, then those that one does."""
    names = Snapshot.take(root).adjustments if problems else ()
    if not names:
        return problems, []
    audits = by_audited_writer(read_additions(root, names, []))
    return split(root, problems, [audit for of in audits.values() for audit in of])


def _ok(check: str, text: str) -> Finding:
    return Finding(check=check, level="ok", text=text)


def _note(check: str, text: str) -> Finding:
    return Finding(check=check, level="note", text=text)


def _warning(check: str, text: str) -> Finding:
    return Finding(check=check, level="warning", text=text)
