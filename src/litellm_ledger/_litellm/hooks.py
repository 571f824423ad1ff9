"""LiteLLM's callbacks: how calls that other code makes become visible.

Owns what is put into LiteLLM's global lists, and that nothing of it is left there.  A ``Listener``
hears of a call where LiteLLM waits for it: before the request leaves, when the answer is there, and
when the call has failed.  Of a synchronous call it hears when the request leaves.  What comes later
(the end of a stream, of a synchronous call, an answer from LiteLLM's cache) comes through LiteLLM's
logging, and for that each call gets a callback of its own (``follow``): it arrives although the
listener may be gone from the global lists by then.

Nothing in here raises into somebody else's call, and nothing changes one.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from types import FrameType
from typing import Any, Final, Protocol

from .internals import (
    BOUND_LOOP,
    CALLBACK_LISTS,
    COST_CALCULATORS,
    LOGGING_TASKS,
    PRE_CALL,
    internal,
)
from .load import load_sync, loaded

__all__ = [
    "Follower",
    "Listener",
    "answer_cost",
    "asked_for_usage",
    "end_logging_threads",
    "flush_logging",
    "flush_logging_threads",
    "follow",
    "is_async",
    "is_sync",
    "register",
]

_log = logging.getLogger("litellm_ledger")


class Listener(Protocol):
    """Who hears of the calls that other code makes."""

    async def on_start(self, logging_obj: Any, request: Mapping[str, Any], call: str) -> None:
        """The request is about to leave; ``logging_obj`` lives as long as the call."""

    async def on_answer(self, logging_obj: Any, answer: Any) -> None:
        """The answer is there; its caller gets it when this returns."""

    async def on_failure(self, logging_obj: Any, exc: BaseException) -> None:
        """The call has failed; its caller hears of it when this returns."""

    def on_request(self, logging_obj: Any, details: dict[str, Any], call: str) -> None:
        """A request leaves that ``on_start`` is not told of; in the context of its caller."""

    def on_sync(self, details: dict[str, Any], answer: Any, times: tuple[Any, Any]) -> None:
        """A call has ended, synchronous or not.  On a thread of LiteLLM's, with its ``times``."""


class Follower(Protocol):
    """Who hears of one call through LiteLLM's logging."""

    def on_sync(self, details: dict[str, Any], answer: Any, times: tuple[Any, Any]) -> None:
        """The call, a synchronous one, has ended.  On a thread of LiteLLM's, with its ``times``."""

    async def on_logged(self, details: dict[str, Any], answer: Any) -> None:
        """The call has ended; ``details`` is a copy, and holds the ``exception`` if it failed."""


# --- The two callbacks -----------------------------------------------------------------------

_lock: Final = threading.Lock()
_classes: tuple[Any, Any] | None = None
_numbers: Final = count(1)


def _callbacks() -> tuple[Any, Any]:
    """Make the classes, once LiteLLM is there to derive them from."""
    global _classes
    if _classes is None:
        load_sync()
        base = internal("CustomLogger")
        _classes = (
            type("LedgerCapture", (base,), dict(_GLOBAL)),
            type("LedgerCall", (base,), dict(_OF_ONE_CALL)),
        )
    return _classes


class _StandIn:
    """In place of LiteLLM's object of a call that it does not show before the request leaves.

    So it is with calls that LiteLLM makes in Rust (OCR).  Kept until the task that makes the call
    ends: a call that is told of no more by then was cancelled.
    """

    def __init__(self) -> None:
        self.real: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["real"], name)


_stand_ins: Final[dict[tuple[int, str], _StandIn]] = {}
"""By the number of the callback and the id of the call."""


def _not_shown(callback: Any, call_id: Any) -> Any:
    """Find LiteLLM's object of a call where the arguments of the hook do not hold it."""
    frame = sys._getframe(1)  # noqa: SLF001 - LiteLLM before 1.103 made it and has it in a variable
    for _ in range(5):
        if frame.f_back is None:
            break
        frame = frame.f_back
        if frame.f_code.co_name == "wrapper_async":
            return frame.f_locals.get("logging_obj")
    task = asyncio.current_task()
    if task is None or not isinstance(call_id, str):
        return None
    key = callback.number, call_id
    found = _stand_ins[key] = _StandIn()
    task.add_done_callback(lambda _: _stand_ins.pop(key, None))
    return found


def _of_call(callback: Any, request: Mapping[str, Any]) -> Any:
    """LiteLLM's object of a call that has ended, as ``_before`` had it."""
    logging_obj = request.get("litellm_logging_obj")
    known = _stand_ins.pop((callback.number, str(request.get("litellm_call_id"))), None)
    if known is None:
        return logging_obj
    known.real = logging_obj
    return known


def _hook(failed: str) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Any]]:
    """Let nothing out of a hook: it is not our call."""

    def guard(tell: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
        async def hook(*args: Any, **named: Any) -> None:
            try:
                await tell(*args, **named)
            except Exception:
                _log.exception(failed)

        return hook

    return guard


@_hook("a call could not be captured")
async def _before(self: Any, kwargs: Any, call_type: Any) -> None:
    listener, logging_obj = self._listener(), kwargs.get("litellm_logging_obj")
    if listener is not None and logging_obj is None:
        logging_obj = _not_shown(self, kwargs.get("litellm_call_id"))
    if listener is not None and logging_obj is not None:
        name = getattr(call_type, "value", call_type) or getattr(logging_obj, "call_type", None)
        await listener.on_start(logging_obj, kwargs, str(name))


@_hook("the answer of a captured call could not be recorded")
async def _success(self: Any, request_data: Any, response: Any, *_: Any, **__: Any) -> None:
    listener, logging_obj = self._listener(), _of_call(self, request_data)
    if listener is not None and logging_obj is not None:
        await listener.on_answer(logging_obj, response)


@_hook("the failure of a captured call could not be recorded")
async def _failure(self: Any, request_data: Any, exception: Any, *_: Any, **__: Any) -> None:
    listener, logging_obj = self._listener(), _of_call(self, request_data)
    if listener is not None and logging_obj is not None:
        await listener.on_failure(logging_obj, exception)


def _request(self: Any, *_: Any, kwargs: Any, **__: Any) -> None:
    """Hear of a request when it leaves, in the context of its caller.

    Frameworks put another list in the place of LiteLLM's callbacks (CrewAI does whenever it makes a
    model).  A call copies those to other lists, which stay: through them this one comes back.
    """
    listener = self._listener()
    if listener is None:
        return
    try:
        logging_obj = _caller(PRE_CALL)
        call = str(getattr(logging_obj, "call_type", None))
        if logging_obj is not None and (_put_back(self) or is_sync(call)):
            listener.on_request(logging_obj, dict(kwargs), call)
    except Exception:
        _log.exception("a request could not be captured")


def _caller(method: str) -> Any:
    """Return the object whose ``method`` has called the hook that asks."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - LiteLLM passes its object to no such hook
    for _ in range(3):
        if frame is None:
            break
        if frame.f_code.co_name == method:
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None


def _put_back(callback: Any) -> bool:
    """Put ``callback`` where LiteLLM looks first; tell whether it was gone from there."""
    with _lock:
        callbacks = load_sync().callbacks
        if not callback.on or any(one is callback for one in callbacks):
            return False
        callbacks.append(callback)
        return True


def _sync(self: Any, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
    listener = self._listener()
    if listener is not None:
        try:
            listener.on_sync(dict(kwargs), response_obj, (start_time, end_time))
        except Exception:
            _log.exception("a synchronous call could not be recorded")


@_hook("a captured call could not be recorded")
async def _logged(self: Any, kwargs: Any, response_obj: Any, *_: Any, **__: Any) -> None:
    await self._listener().on_logged(dict(kwargs), response_obj)  # LiteLLM goes on changing it


_GLOBAL: Final = {
    "log_pre_api_call": _request,
    "async_pre_call_deployment_hook": _before,
    "async_post_call_success_deployment_hook": _success,
    "async_post_call_failure_deployment_hook": _failure,
    "log_success_event": _sync,
    "log_failure_event": _sync,
}
_OF_ONE_CALL: Final = {
    "async_log_success_event": _logged,
    "async_log_failure_event": _logged,
    "log_success_event": _sync,
    "log_failure_event": _sync,
}


# --- Coming and going ------------------------------------------------------------------------


def register(listener: Listener) -> weakref.finalize[..., Any]:
    """Let ``listener``, which is held weakly, hear of all calls that begin from now on.

    Imports LiteLLM if nobody has.  Call what is returned to take it away again, from every list
    that LiteLLM has copied it to; it goes by itself when the listener does.
    """
    callback = _callbacks()[0]()
    callback._listener = weakref.ref(listener)  # noqa: SLF001 - this module's own class
    # LiteLLM takes callbacks of one class for the same unless a public attribute tells them apart.
    callback.number = next(_numbers)
    callback.on = True
    with _lock:
        litellm = load_sync()
        litellm.callbacks.append(callback)
        litellm.input_callback.append(callback)  # the first call would copy it there
    ending = weakref.finalize(listener, _remove, callback)
    ending.atexit = False
    return ending


def _remove(callback: Any) -> None:
    litellm = loaded()
    with _lock:
        callback.on = False
        lists = [getattr(litellm, name, None) for name in CALLBACK_LISTS]
        # Filled once from the others, when they are first seen not to be empty.
        lists.append(getattr(getattr(litellm, "utils", None), "callback_list", None))
        for callbacks in lists:
            if isinstance(callbacks, list):
                # One by one: another thread may be adding one of its own.
                for index in range(len(callbacks) - 1, -1, -1):
                    if callbacks[index] is callback:
                        del callbacks[index]


def follow(logging_obj: Any, follower: Follower, *, sync: bool = False) -> None:
    """Let ``follower`` hear of the end of one call through LiteLLM's logging."""
    callback = _callbacks()[1]()
    callback._listener = lambda: follower  # noqa: SLF001 - this module's own class
    way = "dynamic" if sync else "dynamic_async"
    for name in (f"{way}_success_callbacks", f"{way}_failure_callbacks"):
        setattr(logging_obj, name, [*(getattr(logging_obj, name, None) or ()), callback])


@functools.cache
def is_async(call: str) -> bool:
    """Whether LiteLLM's function of this name is a coroutine function, as ``acompletion`` is."""
    return inspect.iscoroutinefunction(getattr(loaded(), call, None))


@functools.cache
def is_sync(call: str) -> bool:
    """Whether LiteLLM's function of this name is there and is none that is awaited."""
    return inspect.isfunction(getattr(loaded(), call, None)) and not is_async(call)


# --- What else LiteLLM knows -----------------------------------------------------------------


def answer_cost(logging_obj: Any, answer: Any, model: str | None, deployment: Any) -> Any:
    """Compute what LiteLLM will put into the answer's hidden parameters right after this.

    ``None`` if it does not know.  ``deployment`` is the Router's id, under which it keeps prices.
    """
    for name in COST_CALCULATORS:
        compute = getattr(logging_obj, name, None)
        if compute is not None:
            try:
                return compute(result=answer, litellm_model_name=model, router_model_id=deployment)
            except Exception:
                return None
    return None


def asked_for_usage(details: Mapping[str, Any]) -> bool:
    """Whether the usage at the end of a stream can be the provider's own.

    OpenAI's API reports none unless the request asks for it.  LiteLLM then counts by itself, and
    since 1.110 puts that where the provider's count would be.
    """
    provider = details.get("custom_llm_provider")
    compatible = getattr(loaded(), "openai_compatible_providers", ())
    if provider not in ("openai", "azure", "text-completion-openai", *compatible):
        return True
    options = (details.get("optional_params") or {}).get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def _name_of(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", "")


async def flush_logging() -> None:
    """Wait until LiteLLM has logged what has ended on this loop.  May take long: others log, too.

    The end of a stream is logged by a task that nobody holds: it is known by its coroutine's name.
    """
    try:
        worker = internal("GLOBAL_LOGGING_WORKER")
        for _ in range(2):
            for _ in range(5):
                await asyncio.sleep(0)
            tasks = [task for task in asyncio.all_tasks() if _name_of(task) in LOGGING_TASKS]
            if tasks:
                await asyncio.wait(tasks)
            # On another loop it would take that loop's work away from it.
            if getattr(worker, BOUND_LOOP, None) is asyncio.get_running_loop():
                await worker.flush()
    except Exception:
        _log.debug("LiteLLM's log could not be flushed", exc_info=True)


async def flush_logging_threads() -> None:
    """Wait until LiteLLM's threads have begun to log whatever has ended by now."""
    try:
        await asyncio.wrap_future(internal("executor").submit(int))  # first in, first out
    except Exception:  # another version keeps it elsewhere
        _log.debug("LiteLLM's threads could not be waited for", exc_info=True)


async def end_logging_threads() -> None:
    """Wait until LiteLLM's threads have run every callback, and end them for good.

    For a process that makes no call afterwards.
    """
    try:
        await asyncio.to_thread(internal("executor").shutdown, wait=True)
    except Exception:  # another version keeps it elsewhere
        _log.debug("LiteLLM's threads could not be waited for", exc_info=True)
