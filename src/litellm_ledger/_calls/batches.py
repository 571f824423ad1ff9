"""Batches and background responses: jobs that are billed once, when they are done.

Owns the rule.  Creating a batch and asking about a job cost nothing, and are recorded so.  The
first time that a job is seen in its final state, its usage and cost go on the record of that call,
with ``meta.batch.counted`` or ``meta.background.counted``; every later one costs nothing again.
"First" means in this process and, for what earlier processes saw, on the ledger: the segments that
were written to since the job was created, and the archive, are searched for its id.  Two processes
that ask in the same moment may both count it, unless budgets hold for it.

The usage is the provider's own where it sends one with the batch; else the output file is read as
LiteLLM reads it.  Where neither can be had, the cost is unknown and the next call tries again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from litellm_ledger._archive.archive import batch_archived
from litellm_ledger._errors import LedgerError, MissingExtra
from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.connections import Strays
from litellm_ledger._litellm.costs import batch_cost, batch_output
from litellm_ledger._litellm.internals import HIDDEN
from litellm_ledger._litellm.load import price_version, version
from litellm_ledger._litellm.members import member, merged, note, note_price
from litellm_ledger._litellm.outcome import background, from_response, is_background, is_done
from litellm_ledger._prices.own import price_of
from litellm_ledger._records.layout import SEGMENTS
from litellm_ledger._records.line import checked
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._runtime.cancellation import outlive_cancellation
from litellm_ledger._storage.filesystem import open_file
from litellm_ledger._storage.live_file import unlock
from litellm_ledger._tracking.tracker import UsageTracker

from .pricing import Pricing

if TYPE_CHECKING:
    from litellm_ledger._tracking.calls_in_flight import CallsInFlight

    from .holding import Holding

__all__ = ["Batches"]

_log = logging.getLogger("litellm_ledger")

_FINAL: Final = frozenset({"completed", "complete", "failed", "cancelled", "expired", "ended"})
_SECONDS: Final = 60.0
"""Seconds for reading the output file of a batch that came without a usage."""

_CERTAIN: Final = ("provider", "none")

_DAY: Final = 86_400.0
"""How much the clocks of provider and ledger may differ."""


class Core(Protocol):
    """What this needs of the client."""

    ack_timeout: float
    calls: CallsInFlight
    holding: Holding | None

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it in a task that the client waits for."""


class Batches:
    """Which jobs of one client have been counted.

    Args:
        off_loop: runs what blocks in a thread of the client's.
        core: the client's; ``None``: no budgets hold for its jobs.
    """

    def __init__(
        self,
        tracker: UsageTracker,
        pricing: Pricing,
        strays: Strays,
        off_loop: Callable[..., Awaitable[Any]],
        core: Core | None = None,
    ) -> None:
        self._tracker = tracker
        self._pricing = pricing
        self._strays = strays
        self._off_loop = off_loop
        self._counted: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._core = core
        self._one = asyncio.Lock()

    async def count(
        self,
        asked: Asked,
        answer: Any,
        settle: Callable[[dict[str, Any]], UsageRecord | None],
    ) -> None:
        """Read a job and settle its call; a job that is being counted is waited for."""
        fields = from_response({"id": member(answer, "id")})
        said = member(member(answer, HIDDEN), "custom_llm_provider")
        fields["provider"] = asked.provider or (said if isinstance(said, str) else None) or "openai"
        status = str(member(answer, "status") or "")
        model = member(answer, "model")
        if asked.model is None and isinstance(model, str):
            fields["model"] = fields["response_model"] = model
        fields |= {"cost": Decimal(0), "cost_source": "unbilled", "usage_source": "none"}
        if asked.call.name == "aget_responses":
            kind, count = "background", self._count_response
            told = background(answer, counted=False)
            final = is_background(answer) and is_done(answer)
        else:
            kind, count = "batch", self._count_batch
            told = {"batch": {"status": status[:32]}}
            final = asked.call.name == "aretrieve_batch" and _is_final(answer, status)
        note(fields, {"litellm": version(), **told})
        name = fields.get("response_id")
        if name is None or not final:
            settle(fields)
            return
        lock = self._locks.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                uncounted = {**fields, "meta": dict(fields["meta"])}
                seen, line = await self._seen(name, answer)
                if not seen:
                    await count(fields, asked, answer)
                core = self._core
                if seen or line is None or core is None or not _is_counted(fields, kind):
                    settle(fields)
                else:  # else two processes may give the same money back
                    job = _Job(name, kind, answer, fields, uncounted, settle)
                    await outlive_cancellation(core.in_background(self._settle_alone(core, job)))
                if fields["meta"][kind].get("counted"):
                    self._counted.add(name)
        finally:
            if name in self._counted:  # else somebody may be about to take the lock
                self._locks.pop(name, None)

    async def _seen(self, name: str, answer: Any) -> tuple[bool, bytes | None]:
        """Whether a job was counted; and the line of the call that began it, if budgets hold."""
        directory = self._tracker.directory
        line = None
        if name not in self._counted and directory is not None:
            created = member(answer, "created_at")
            since = float(created) - _DAY if type(created) in (int, float) else 0.0
            counted, line = await self._off_loop(_search, directory, name, since)
            if counted:
                self._counted.add(name)
        return name in self._counted, line

    async def _settle_alone(self, core: Core, job: _Job) -> None:
        """Settle a call that counts a job whose hold then counts no more: once, in all processes.

        Where that cannot be made sure, the hold stays.
        """
        from litellm_ledger._budgets.jobs import SETTLES, still_holds
        from litellm_ledger._budgets.table import lock_budgets

        directory, fields = self._tracker.directory, job.fields
        assert directory is not None
        lock = -1
        async with self._one:
            try:
                lock = await self._off_loop(lock_budgets, directory)
                seen, line = await self._seen(job.name, job.answer)
                if seen:  # by another process, just now
                    fields = job.uncounted
                elif line is not None:
                    began = await self._off_loop(still_holds, directory, line, job.name)
                    if began is not None:
                        fields["meta"][job.kind][SETTLES] = began.record
                        if core.holding is not None:
                            core.holding.settles(began)
            except (OSError, LedgerError) as exc:
                _log.error("a job is counted on top of what was held for it: %s", exc)
            finally:
                try:
                    record = job.settle(fields)
                    if record is not None:
                        await core.calls.written(record, core.ack_timeout)
                finally:
                    if lock >= 0:
                        unlock(lock)

    async def _count_response(self, fields: dict[str, Any], asked: Asked, answer: Any) -> None:
        """Put usage and cost of a finished background response on its record."""
        del fields["cost"], fields["cost_source"]
        found = from_response(answer)
        if found.get("cost_source") != "provider":  # LiteLLM's figure may be that of a mere look
            found.pop("cost", None)
            found.pop("cost_source", None)
        fields |= merged(fields, found)
        made = Asked(CALLS["aresponses"], {**asked.kwargs, "model": fields.get("response_model")})
        self._pricing.complete(fields, answer, made)

    async def _count_batch(  # noqa: C901 - one source of usage and price after the other
        self, fields: dict[str, Any], asked: Asked, answer: Any
    ) -> None:
        """Put usage and cost of a finished batch on its record."""
        del fields["cost"], fields["cost_source"]
        provider = fields["provider"]
        model = fields.get("response_model") or asked.model
        counts = from_response({"usage": member(answer, "usage")})
        cost: Decimal | None = None
        mapped = None
        if counts.pop("usage_source") == "provider":
            fields |= counts | {"usage_source": "provider"}
            if model:
                options = asked.price_options(provider)
                mapped = self._pricing.batch(fields, model, provider, options)
                if mapped is None:
                    cost = await self._off_loop(batch_cost, answer, model, provider, options)
                else:
                    cost = mapped.cost
        elif member(answer, "output_file_id"):
            reading = batch_output(answer, provider, dict(asked.kwargs))
            found = await _in_time(self._strays.watch(reading))
            if found is not None:
                usage, cost, model = found
                fields |= from_response({"usage": usage})
                if model:
                    fields["response_model"] = model
                    fields.setdefault("model", model)
        else:
            cost = Decimal(0)  # nothing came of it
        own = self._pricing.own(f"batch/{model}", None)
        if own is not None:
            cost = price_of(own, fields)
        note(fields, {"batch": {**fields["meta"]["batch"], "counted": cost is not None}})
        if cost is None:
            return
        fields["cost"], fields["cost_source"] = cost, "unbilled"
        if own is not None:
            fields |= {"cost_source": "user", "price_version": self._pricing.version(own)}
        elif cost and mapped is not None:
            version = self._pricing.map_version(mapped)
            fields |= {"cost_source": "price_map", "price_version": version}
            note_price(fields, mapped.conditions)
        elif cost:
            fields |= {"cost_source": "litellm", "price_version": price_version()}
        note_price(fields, {"batch": True})


def _is_final(answer: Any, status: str) -> bool:
    """A batch may be completed a moment before its output can be had."""
    if status not in _FINAL:
        return False
    done = member(member(answer, "request_counts"), "completed")
    output = member(answer, "output_file_id")
    return bool(output) or status not in ("completed", "complete") or done == 0


async def _in_time(work: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(_SECONDS):
            return await work
    except Exception as exc:  # noqa: BLE001 - logged; the batch is counted later
        _log.error("the output of a batch could not be read: %s", type(exc).__name__)
        return None


class _Job(NamedTuple):
    """A job that is done, and the call that found it so."""

    name: str
    kind: str
    answer: Any
    fields: dict[str, Any]
    uncounted: dict[str, Any]
    settle: Callable[[dict[str, Any]], UsageRecord | None]


def _is_counted(fields: Mapping[str, Any], kind: str) -> bool:
    """Whether a call has the usage and the cost of its job, for certain."""
    counted = fields["meta"][kind].get("counted") is True
    return counted and fields.get("cost") is not None and fields.get("usage_source") in _CERTAIN


def on_ledger(directory: Path, name: str, since: float) -> bool:
    """Whether a line says that this job was counted; blocks.

    Looks into segments that were written to since the Unix time ``since``, and for records since
    then in the archive.
    """
    return _search(directory, name, since)[0]


def _search(directory: Path, name: str, since: float) -> tuple[bool, bytes | None]:
    """``on_ledger``, and the first line of this job for which budgets hold, in the segments."""
    holds: list[bytes] = []
    needle = b'"response_id":"%b"' % name.encode("utf-8", "replace")
    try:
        paths = [entry.path for entry in os.scandir(directory / SEGMENTS)]
    except OSError:
        return False, None
    for path in paths:
        try:
            if (
                ".jsonl" in path
                and os.lstat(path).st_mtime >= since
                and _holds(path, needle, holds)
            ):
                return True, None
        except FileNotFoundError:  # sealed meanwhile: the name is another one, the lines the same
            stem = Path(path).name.partition(".jsonl")[0]
            if any(
                _holds(p, needle, holds) for p in (directory / SEGMENTS).glob(f"{stem}-*.jsonl")
            ):
                return True, None
        except OSError as exc:
            _log.warning("a segment could not be searched for a job: %s", exc.strerror)
    try:
        return batch_archived(directory, name, since), min(holds, default=None)
    except MissingExtra as exc:
        _log.warning("the archive is not searched for jobs that were counted before: %s", exc)
    except LedgerError as exc:
        _log.error("the archive could not be searched for a job: %s", exc)
    return False, min(holds, default=None)


def _holds(path: str | Path, needle: bytes, holds: list[bytes]) -> bool:
    """Whether a segment has a line that counts the job; adds the lines that hold for it."""
    with open_file(Path(path)) as file:
        for line in file:
            if needle not in line:
                continue
            if b'"counted":true' in line and checked(line):
                return True
            if b'"hold_' in line and checked(line):
                holds.append(line)
    return False
