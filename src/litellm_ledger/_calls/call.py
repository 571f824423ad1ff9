"""One call, from the caller's arguments to the caller's answer, with its records in between.

    slot -> started (acknowledged) -> LiteLLM -> outcome (acknowledged) -> answer

Owns that order, and nothing else of the client; ``_calls.operation`` goes through it again where
that was asked for.  Arguments, answers and exceptions are LiteLLM's, passed through unchanged.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.failures import may_be_billed
from litellm_ledger._litellm.members import merged
from litellm_ledger._litellm.outcome import from_exception, from_response, hear
from litellm_ledger._litellm.own_calls import ours
from litellm_ledger._litellm.plain import plain_fields
from litellm_ledger._litellm.stream_readers import StreamReader
from litellm_ledger._litellm.units import add_units
from litellm_ledger._runtime.cancellation import outlive_cancellation

from .answers import hand_out, label
from .attempt import Attempt
from .core import ClientCore
from .operation import Operation
from .options import CallOptions, refuse_ours, without_inner_retries
from .stream import CompletionStream, Upstream

if TYPE_CHECKING:
    from litellm_ledger._litellm.wire import Wire
    from litellm_ledger._records.record import UsageRecord
    from litellm_ledger._runtime.limits import Slot

    from .holding import Held, Holding

__all__ = ["call", "call_unbilled", "name_positional", "new_id", "prepare", "require_packages"]


async def call(
    core: ClientCore,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tags: Mapping[str, Any] | None,
    *,
    options: CallOptions,
) -> Any:
    """Make one call of LiteLLM's function ``name`` and record it; ``kwargs`` are handed over."""
    await core.ready()
    litellm: Any = await core.litellm()
    row = CALLS[name]
    if args:
        name_positional(attrgetter(row.positional)(litellm), args, kwargs)
    asked = Asked(row, kwargs, options.capture_content)
    if row.need(kwargs) is not None:
        await require_packages(asked)
    kwargs.setdefault("litellm_call_id", new_id())
    made = prepare(core, litellm, asked, options, options.tagged(tags))
    operation = made.operation
    try:
        return await operation.run(made.attempt)
    except BaseException as exc:  # also the deadline's, which takes the place of a cancellation
        label(exc, operation.record)
        raise


def prepare(
    core: ClientCore,
    litellm: Any,
    asked: Asked,
    options: CallOptions,
    tags: Mapping[str, str] | None,
) -> Prepared:
    """Say what is sent and how; the arguments are changed where they have to be."""
    row = asked.call
    kwargs: Any = asked.kwargs
    stream = row.streams or bool(kwargs.get("stream"))
    retries = options.retries(kwargs)
    if retries is not None:
        without_inner_retries(kwargs)
    timed_out = partial(litellm.Timeout, model=asked.model or "", llm_provider="")
    operation = Operation(retries=retries or 0, seconds=options.deadline, timed_out=timed_out)
    return Prepared(
        core=core,
        operation=operation,
        asked=asked,
        function=row.function(litellm),
        tags=tags,
        stream=stream,
        drain=options.on_abandoned_stream == "drain",
        usage_asked=not stream or not row.asks_usage or _ask_for_usage(kwargs),
        waits=options.wait_for_budget,
        wire=None if stream or not row.wired else _wire(asked),
    )


def _wire(asked: Asked) -> Wire | None:
    """What hears a plain answer of which LiteLLM drops what is billed."""
    if asked.named_provider not in asked.call.wired:
        return None
    from litellm_ledger._litellm.wire import Wire

    return Wire()


async def call_unbilled(core: ClientCore, name: str, *args: Any, **kwargs: Any) -> Any:
    """Hand a call that costs nothing to LiteLLM; nothing of it is on record, here or captured."""
    await core.ready()
    litellm: Any = await core.litellm()
    refuse_ours(name, kwargs)
    try:
        with ours():
            sent = getattr(litellm, name)(*args, **kwargs)
            return await core.strays.watch(sent, given=kwargs.get("client"))
    finally:
        core.close_strays()


@dataclass(slots=True, kw_only=True)
class Prepared:
    """What is sent, once for every attempt, and how it is written down."""

    core: ClientCore
    operation: Operation
    asked: Asked
    function: Any
    tags: Mapping[str, str] | None
    stream: bool
    drain: bool
    usage_asked: bool
    waits: bool
    wire: Wire | None

    async def attempt(self) -> Any:
        """Send the request once and record it."""
        core, operation, asked = self.core, self.operation, self.asked
        tags = core.calls.merged_tags(self.tags)  # may refuse the call: before it has a slot
        hold = None if core.holding is None else await self._hold(core.holding, tags)
        try:
            operation.phase = "while waiting for one of the max_concurrency slots"
            slot = await core.limit.enter()
        except BaseException:
            if hold is not None:
                hold.drop()
            raise
        if core.holding is not None and hold is not None and hold.is_over():
            hold = await self._again(core.holding, hold, tags, slot)
        operation.begins()
        core.repeated += operation.attempts > 1
        attempt = Attempt(
            core.calls,
            call=asked.call.name,
            model=asked.model,
            stream=self.stream,
            tags=tags,
            call_id=asked.kwargs["litellm_call_id"],
            number=operation.attempts,
            operation=operation.id,
            slot=slot,
            hold=hold,
        )
        await attempt.begin(write=core.track_in_flight, ack_timeout=core.ack_timeout)
        try:
            with ours():
                sent = self.function(**asked.kwargs)
                if self.wire is not None:
                    sent = self.wire.heard(sent)
                answer = await (self._watched(sent) if asked.call.strays else sent)
        except BaseException as exc:
            await self.failed(attempt, exc)
            raise
        return await self.answered(attempt, answer)

    async def _hold(self, holding: Holding, tags: Mapping[str, str] | None) -> Held:
        """Hold what the next attempt may cost."""
        operation = self.operation
        operation.phase = "while waiting for money of a budget"

        def refused(record: UsageRecord) -> None:
            operation.record = record

        return await holding.take(
            self.asked,
            tags,
            wait=self.waits,
            refused=refused,
            stream=self.stream,
            call_id=str(self.asked.kwargs["litellm_call_id"]),
            operation=operation.id,
            attempt=operation.attempts + 1,
        )

    async def _again(
        self, holding: Holding, hold: Held, tags: Mapping[str, str] | None, slot: Slot
    ) -> Held:
        """A window ended while the call waited for its slot: hold money of the next one."""
        try:
            hold.drop()
            return await self._hold(holding, tags)
        except BaseException:
            slot.release()
            raise

    async def answered(self, attempt: Attempt, answer: Any) -> Any:
        """Settle an attempt by what came back, and return what the caller gets."""
        core, operation = self.core, self.operation
        operation.answered()
        if self.stream and hasattr(answer, "__anext__"):
            upstream = self._upstream(attempt, answer)
            if attempt.hold is not None:
                attempt.hold.pay_for(upstream)
            core.begin(upstream)
            return CompletionStream(upstream)
        await self._settle(attempt, answer)
        record = attempt.record
        if record is None:
            return answer
        operation.record = record  # should the caller be cancelled while it waits for the ack
        if not core.calls.acknowledged(record):
            await core.acknowledge(record)
        return hand_out(answer, record)

    async def _watched(self, sent: Any) -> Any:
        """Wait for a call that leaves HTTP clients behind; see ``Strays``."""
        try:
            return await self.core.strays.watch(sent, given=self.asked.kwargs.get("client"))
        finally:
            self.core.close_strays()

    async def _settle(self, attempt: Attempt, answer: Any) -> None:
        """Settle an attempt by its answer."""
        asked = self.asked
        attempt.ended()
        if asked.call.job:
            try:
                await self.core.batches.count(asked, answer, attempt.settle)
            except BaseException as exc:  # cancelled while it looked up what the job has cost
                attempt.settle(from_exception(exc))
                raise
            return
        wire = self.wire
        said = None if wire is None else wire.usage
        direct = asked.call.plain and said is None and not asked.capture
        if direct and attempt.started is not None:
            plain = plain_fields(answer)
            if plain is not None and self.core.pricing.complete_plain(
                plain, asked.model, asked.kwargs, attempt.ts
            ):
                attempt.settle({"status": "ok", **plain}, plain=True)
                return
        priced = asked.call.said(answer)
        fields = add_units(from_response(priced), asked.call.units(asked.kwargs, priced))
        if wire is not None and hear(fields, said):
            priced = {"usage": wire.billed}
        fields |= asked.content(asked.call.wrote(answer) if asked.capture else None)
        attempt.settle(self.core.pricing.complete(fields, priced, asked, attempt.ts))

    async def failed(self, attempt: Attempt, exc: BaseException) -> None:
        """Record an attempt that ended without an answer; by an estimate if it may be billed."""
        core, operation, asked = self.core, self.operation, self.asked
        attempt.ended()
        fields = operation.deadline_fields() or from_exception(exc)
        if isinstance(exc, GeneratorExit):  # closed or collected: nothing can be awaited any more
            attempt.settle_anywhere(fields)
            return
        attempt.billed = may_be_billed(exc, operation.outside)
        if asked.call.tokens and asked.prompt and attempt.billed:
            # The input is counted off the loop, in a task that outlives a cancelled caller.
            upstream = self._upstream(attempt, None)
            upstream.how = fields
            core.begin(upstream)
            await outlive_cancellation(core.in_background(upstream.leave()))
        else:
            attempt.settle(merged(fields, asked.content(None)))
        operation.id, operation.record = attempt.operation, attempt.record
        if attempt.record is not None and fields["status"] != "cancelled":
            await core.acknowledge(attempt.record)

    def _upstream(self, attempt: Attempt, answer: Any) -> Upstream:
        """What came back, or ``None`` for nothing, as something that can be counted and settled."""
        asked = self.asked
        reader = (asked.call.reader or StreamReader)(answer)
        reader.listen(asked.named_provider)
        upstream = Upstream(
            answer,
            attempt,
            self.core,
            asked=asked,
            reader=reader,
            usage_asked=self.usage_asked,
            drain=self.drain,
            deadline=self.operation.deadline,
        )
        if asked.call.strays:  # some are asked for at the first read
            upstream.watch = partial(self.core.strays.watch, given=asked.kwargs.get("client"))
        return upstream


def new_id() -> str:
    """``str(uuid.uuid4())`` in a third of the time."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def name_positional(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Give positional arguments their names; LiteLLM reads some of them by name only."""
    names = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in kwargs and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(args) > len(names):
        raise TypeError(f"{len(args) - len(names)} too many positional arguments")
    kwargs.update(zip(names, args, strict=False))


async def require_packages(asked: Asked) -> None:
    """Raise before the request leaves if LiteLLM cannot finish this call."""
    need = asked.call.need(asked.kwargs)
    if need is None or asked.kwargs.get("mock_response") is not None:
        return
    from litellm_ledger._litellm.packages import needs_messages_stream, require

    if asked.call.name == "anthropic_messages" and not needs_messages_stream(
        asked.model, asked.provider
    ):
        return
    await require(need.modules, need.extra, asked.call.name)


def _ask_for_usage(kwargs: dict[str, Any]) -> bool:
    """Have the provider send the usage of a stream; tell whether the caller wanted it anyway.

    A stream without ``include_usage`` ends with zeros that look like the provider's.
    """
    options = kwargs.get("stream_options")
    if isinstance(options, Mapping) and "include_usage" in options:
        return True
    kwargs["stream_options"] = {**(options or {}), "include_usage": True}
    return False
