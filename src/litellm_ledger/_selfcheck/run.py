"""The self-check of the seam, inside its child process.

Owns the making of the calls: each of ``_selfcheck.cases`` by each way that it can be made and can
end, and then one look at what is on record.  ``_litellm.self_check`` starts it and reads its
result.  It may change this process's LiteLLM as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import platform
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from litellm_ledger import LiteLLMClient
from litellm_ledger._calls.call import require_packages
from litellm_ledger._errors import MissingExtra
from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.hooks import end_logging_threads, flush_logging
from litellm_ledger._litellm.load import load, version
from litellm_ledger._litellm.self_check import CheckedCall, LiteLLMCheck, Mismatch
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._reports.ledger import Ledger
from litellm_ledger.testing import Behaviour, OpenAIServer

from .cases import FREE, KINDS, SOME, Kind, cost_of, mismatches

__all__ = ["main"]

_CALL: Final = 20.0
"""Seconds for one call."""
_SETTLE: Final = 5.0
"""Seconds in which LiteLLM must have told of everything, after the last call."""

_SERVERS: Final[dict[str, Behaviour | None]] = {
    "answer": None,
    "stream": None,
    "failure": Behaviour(status=400),
    "cancelled": Behaviour(hang=True),
    "stream left": Behaviour(hang_after=2),
    "stream cut": Behaviour(cut_after=2),
}
"""What the server does, by how the call ends.  Not all calls can send a header that asks for it."""

_TOLD: Final = ("answer", "stream", "failure")
"""Endings of which everybody tells."""

_LITELLMS_OWN: Final = frozenset({"afile_content"})
"""Calls that LiteLLM makes itself: it reads the output of a batch that has ended, to price it."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to make a kind of call, and what of it is checked.

    Attributes:
        ours: whether a client of ours makes the call.  Of calls that others make LiteLLM says less:
            ``docs/capture.md``.
        starts: how many ``started`` records belong to a call.
        given: further arguments.
    """

    via: str
    function: Callable[..., Any]
    ours: bool
    endings: Collection[str] = frozenset(_SERVERS)
    starts: int = 1
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Made:
    """One call that was made, and what belongs on record of it."""

    kind: Kind
    way: _Way
    ending: str
    id: str
    expected: Mapping[str, Any]
    wrong: list[Mismatch] = field(default_factory=list)
    install: str | None = None


class _Check:
    """The calls made so far, and the servers that they are made to."""

    def __init__(self, servers: Mapping[str, OpenAIServer], price_map: Mapping[str, Any]) -> None:
        self._servers = servers
        self._price_map = price_map
        self.made: list[_Made] = []

    def address(self, kind: Kind, ending: str) -> str:
        url = self._servers[ending].base_url
        return url.removesuffix("/v1") if kind.root else url

    async def make(self, kind: Kind, way: _Way) -> None:
        """Make a call for each ending, and note what belongs on its record."""
        for ending, expected in _endings(kind, self._price_map, ours=way.ours):
            if ending in way.endings:
                made = _Made(kind, way, ending, f"check-{len(self.made)}", expected)
                self.made.append(made)
                await self._make(made)

    async def _make(self, made: _Made) -> None:
        kind, ending = made.kind, made.ending
        given = {
            **kind.given,
            "api_base": self.address(kind, ending),
            "api_key": "none",
            "timeout": _CALL,
            "litellm_call_id": made.id,
            **made.way.given,
        }
        if ending.startswith("stream"):
            given["stream"] = True
            if CALLS[kind.name].asks_usage:
                given["stream_options"] = {"include_usage": True}
        if kind.name == "aget_responses":
            given["response_id"] = f"resp_{made.id}"
        if kind.name == "aretrieve_batch":
            given["batch_id"] = await asyncio.to_thread(_finished_batch, self._servers["answer"])
        try:
            await require_packages(Asked(CALLS[kind.name], given))
            async with asyncio.timeout(_CALL):
                await self._end(made, given)
        except MissingExtra as exc:
            made.install = exc.install
        except TimeoutError:
            made.wrong.append(_outcome(ending, f"nothing within {_CALL:.0f} s"))
        except Exception as exc:  # noqa: BLE001 - it is a finding
            made.wrong.append(_outcome(ending, f"{type(exc).__name__}: {_line(exc)}"))

    async def _end(self, made: _Made, given: Mapping[str, Any]) -> None:
        ending, function = made.ending, made.way.function
        if ending == "cancelled":
            server = self._servers[ending]
            server.clear()
            task = asyncio.ensure_future(function(**given))
            await asyncio.to_thread(server.wait_for, bool, _CALL)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
                made.wrong.append(_outcome(ending, "an answer"))
            return
        try:
            answer = await function(**given)
            async for chunk in _chunks(answer):
                if ending == "stream left" and "word2" in str(chunk):
                    break
        except Exception:
            if ending not in ("failure", "stream cut"):
                raise
            return
        # Not "stream cut": one of Anthropic's raises nothing then, in some versions of LiteLLM.
        if ending == "failure":
            made.wrong.append(_outcome(ending, "an answer"))
        if ending == "stream left" and made.way.via == "client":
            await answer.aclose()

    async def settled(self, ledger: Path, client: LiteLLMClient) -> None:
        """Wait until LiteLLM has told of every call, on its loop and on its threads."""
        waiting = {made.id for made in self.made if made.way.via != "client" and not made.install}
        deadline = time.monotonic() + _SETTLE
        await flush_logging()
        while time.monotonic() < deadline:
            gc.collect()  # what was cancelled or left is told of when it is collected
            await client.flush()
            seen = {record.call_id for record in Ledger(ledger).records()}
            if waiting <= seen and not client.statistics().in_flight:
                break
            await asyncio.sleep(0.02)
        await end_logging_threads()
        await client.flush()


async def _run(directory: Path) -> list[CheckedCall]:
    litellm = await _load()
    alone, captured = directory / "client", directory / "capture"
    options: dict[str, Any] = {"handle_signals": False, "max_retries": 0}
    with ExitStack() as stack:
        usual = stack.enter_context(OpenAIServer())
        servers = {
            ending: stack.enter_context(OpenAIServer(default=behaviour)) if behaviour else usual
            for ending, behaviour in _SERVERS.items()
        }
        check = _Check(servers, litellm.model_cost)
        async with LiteLLMClient(alone, **options) as client:
            for kind in KINDS:
                await check.make(kind, _Way("client", getattr(client, kind.name), ours=True))
        async with LiteLLMClient(captured, capture=True, **options) as client:
            for kind in KINDS:
                for way in _captured(kind, client, litellm):
                    await check.make(kind, way)
            await check.make(KINDS[0], _routed(check.address(KINDS[0], "answer"), litellm))
            await check.settled(captured, client)
    found = defaultdict(list)
    for ledger in (alone, captured):
        for record in Ledger(ledger).records(kinds=("started", "usage")):
            found[record.call_id].append(record)
    known = [_checked(made, found.pop(made.id, []), litellm.model_cost) for made in check.made]
    strange = [records for records in found.values() if records[0].call not in _LITELLMS_OWN]
    return known + [_stranger(records) for records in strange]


async def _load() -> Any:
    gc.disable()  # collecting is a quarter of the time that the import takes
    litellm: Any = await load()
    gc.freeze()
    gc.enable()
    litellm.suppress_debug_info = True
    return litellm


def _captured(kind: Kind, client: LiteLLMClient, litellm: Any) -> Iterator[_Way]:
    """While a client captures: LiteLLM's call, the client's own, LiteLLM's synchronous one."""
    once = {"max_retries": 0}
    yield _Way("capture", getattr(litellm, kind.name), ours=False, given=once)
    yield _Way("client, capture on", getattr(client, kind.name), ours=True, endings=_TOLD)
    if kind.synchronous:
        function = getattr(litellm, kind.synchronous)

        async def call(**given: Any) -> Any:
            answer = await asyncio.to_thread(function, **given)
            return await asyncio.to_thread(list, answer) if given.get("stream") else answer

        via = f"capture, litellm.{kind.synchronous}()"
        yield _Way(via, call, ours=False, endings=_TOLD, starts=0, given=once)


def _routed(address: str, litellm: Any) -> _Way:
    model = {"model": KINDS[0].given["model"], "api_base": address, "api_key": "none"}
    router = litellm.Router(
        model_list=[{"model_name": "checked", "litellm_params": model}], num_retries=0
    )
    return _Way(
        "capture, litellm.Router",
        router.acompletion,
        ours=False,
        endings=("answer", "stream"),
        given={"model": "checked"},
    )


# --- What belongs on record ------------------------------------------------------------------


_LOGGED_WHEN_LEFT: Final = frozenset({"anthropic_messages"})
"""Streams that LiteLLM logs as complete, with its own count, when they are left."""


def _endings(
    kind: Kind, price_map: Mapping[str, Any], *, ours: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each way that a call can end, with the fields of its record."""
    call = CALLS[kind.name]
    if call.job and not ours:
        answered: dict[str, Any] = {"cost": FREE}
    else:
        cost = cost_of(kind, price_map)
        answered = {**kind.counts, "cost": cost if kind.entry else FREE}
        if call.tokens:
            answered["usage_source"] = "provider"
    yield "answer", {"status": "ok", "stream": False, **answered}
    yield "failure", {"status": "error", "cost": FREE, "usage_source": "none"}
    guess = {"input_tokens": SOME} if call.tokens and ours else {}
    yield "cancelled", {"status": "cancelled", **guess}
    if kind.streams:
        yield "stream", {"status": "ok", "stream": True, **answered}
        guess = {"usage_source": "estimated", "output_tokens": SOME, "cost": SOME} if ours else {}
        left = {"status": "abandoned"} if ours or kind.name not in _LOGGED_WHEN_LEFT else {}
        yield "stream left", {"stream": True, **left, **guess}
        yield "stream cut", {"stream": True, "status": "error", **guess}


def _checked(made: _Made, records: list[UsageRecord], price_map: Mapping[str, Any]) -> CheckedCall:
    wrong = list(made.wrong)
    if not made.install:
        wrong += mismatches(made.expected, records, made.way.starts)
        if made.kind.entry and cost_of(made.kind, price_map) is None:
            prices = ", ".join(made.kind.prices)
            wrong.append(
                Mismatch(
                    what="price map", expected=f"{made.kind.entry}: {prices}", found="no such price"
                )
            )
    return CheckedCall(
        call=made.kind.name,
        via=made.way.via,
        ending=made.ending,
        mismatches=tuple(wrong),
        install=made.install,
    )


def _stranger(records: list[UsageRecord]) -> CheckedCall:
    first = records[0]
    extra = Mismatch(what="records", expected="0", found=str(len(records)))
    return CheckedCall(
        call=first.call or "",
        via="a call that nobody made",
        ending=first.status or first.kind,
        mismatches=(extra,),
    )


_EXPECTED: Final = {
    "answer": "an answer",
    "stream": "a stream",
    "failure": "an exception",
    "cancelled": "a cancellation",
    "stream left": "a stream",
    "stream cut": "a stream that breaks",
}


def _outcome(ending: str, found: str) -> Mismatch:
    return Mismatch(what="outcome of the call", expected=_EXPECTED[ending], found=found)


def _line(exc: BaseException) -> str:
    return str(exc).strip().partition("\n")[0][:200]


# --- Small things ----------------------------------------------------------------------------


async def _chunks(answer: Any) -> AsyncIterator[Any]:
    """The chunks of a stream; nothing of an answer that is none."""
    if hasattr(answer, "__anext__"):
        async for chunk in answer:
            yield chunk


def _finished_batch(server: OpenAIServer) -> str:
    """Have the server begin a batch and go on to where the next look finds it completed."""
    body = json.dumps({"endpoint": "/v1/chat/completions", "input_file_id": "file-1"}).encode()
    url = f"{server.base_url}/batches"
    kind = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, kind)) as answer:
        name = str(json.load(answer)["id"])
    with urllib.request.urlopen(f"{url}/{name}"):
        pass
    return name


def main() -> None:
    """Run the check; write ``result.json`` into the directory named by the first argument."""
    directory = Path(sys.argv[1])
    begun = time.monotonic()
    calls = asyncio.run(_run(directory))
    found = LiteLLMCheck(
        litellm=version(),
        python=platform.python_version(),
        seconds=round(time.monotonic() - begun, 1),
        calls=tuple(calls),
    )
    (directory / "result.json").write_bytes(msgspec.json.encode(found))
    gc.freeze()  # or the interpreter looks once more at all of LiteLLM before it ends: a second
