"""What is worth another attempt, when it may start, and the loop that makes it; no server."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from litellm_ledger import LedgerFailed, MissingExtra
from litellm_ledger._calls import operation as _operation
from litellm_ledger._calls.operation import BACKOFF_MAX, BACKOFF_MIN, PATIENCE, Operation
from litellm_ledger._errors import FlushTimeout
from litellm_ledger._litellm.failures import asked_to_wait, may_be_billed, worth_retrying

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def error(
    status: Any = None, headers: Any = None, *, cause: BaseException | None = None, **more: Any
) -> Exception:
    """An exception as LiteLLM makes them, whatever its class."""
    kind = type(more.pop("name", "APIError"), (Exception,), {"__module__": "litellm.exceptions"})
    exc: Any = kind("text")
    exc.status_code = status
    exc.litellm_response_headers = headers
    exc.__cause__ = cause
    for name, value in more.items():
        setattr(exc, name, value)
    made: Exception = exc
    return made


def below(*names: str) -> BaseException:
    """A chain of causes with these class names, the first on top."""
    exc: BaseException | None = None
    for name in reversed(names):
        link = type(name, (Exception,), {"__module__": "httpx"})()
        link.__cause__ = exc
        exc = link
    assert exc is not None
    return exc


# --- Worth another attempt -------------------------------------------------------------------


@pytest.mark.parametrize(
    "exc",
    [
        *(error(status) for status in (408, 409, 429, 500, 502, 503, 504, 529)),
        ConnectionResetError(),
        TimeoutError(),
    ],
)
def test_worth_another_attempt(exc: Exception) -> None:
    assert worth_retrying(exc)


@pytest.mark.parametrize(
    "exc",
    [
        *(error(status) for status in (400, 401, 402, 403, 404, 410, 413, 422, "500", True)),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        GeneratorExit(),
        ImportError(),
        ValueError(),
        LedgerFailed(),
        FlushTimeout("late", unwritten=1),
    ],
)
def test_not_worth_another_attempt(exc: BaseException) -> None:
    assert not worth_retrying(exc)


def test_nobody_pays_between_two_attempts() -> None:
    cause = error(429, code="insufficient_quota")
    assert worth_retrying(error(429, cause=error(429, code="rate_limit_exceeded")))
    assert not worth_retrying(error(429, cause=cause))
    # Not the quota of the call whose error the caller is handling just now.
    assert worth_retrying(error(429, cause=cause), outside=cause)


def test_a_missing_key_is_not_found_by_waiting() -> None:
    def cause(name: str, module: str) -> BaseException:
        return type(name, (Exception,), {"__module__": module})()  # type: ignore[no-any-return]

    missing = cause("OpenAIError", "openai")
    assert not worth_retrying(error(500, cause=missing))
    assert worth_retrying(error(500, cause=missing), outside=missing)
    assert worth_retrying(error(500, cause=cause("InternalServerError", "openai")))
    assert worth_retrying(
        error(500, cause=cause("OpenAIError", "litellm.llms.openai.common_utils"))
    )


@pytest.mark.parametrize(
    ("status", "said", "worth"),
    [(500, "false", False), (400, "true", True), (500, "perhaps", True), (400, "perhaps", False)],
)
def test_the_server_has_the_last_word(status: int, said: str, worth: bool) -> None:
    assert worth_retrying(error(status, {"X-Should-Retry": said})) is worth


# --- How long to wait ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"Retry-After": " 0.5 "}, 0.5),
        ({"llm_provider-retry-after": "3"}, 3),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90),
        ({"retry-after": "Fri, 02 Jan 2026 03:04:15 -0000"}, 10),
        ({"retry-after": "Friday, 02-Jan-26 03:04:15 GMT"}, 10),
        ({"retry-after": format_datetime(NOW - timedelta(days=1), usegmt=True)}, 0),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": 5}, None),
        ({"date": "5"}, None),
        ({}, None),
        (None, None),
        ("retry-after: 5", None),
    ],
)
def test_retry_after(headers: Any, seconds: float | None) -> None:
    assert asked_to_wait(error(429, headers), NOW) == seconds


# --- What it may have cost -------------------------------------------------------------------

BILLED = {
    "read time-out": (error(408, cause=below("APITimeoutError", "ReadTimeout")), True),
    "cut body": (error(500, cause=below("APIConnectionError", "ReadError")), True),
    "no cause known": (error(408, name="Timeout"), True),
    "cancelled": (asyncio.CancelledError(), True),
    "refused": (error(500, cause=below("APIConnectionError", "ConnectError")), False),
    "no connection in time": (error(408, cause=below("APITimeoutError", "ConnectTimeout")), False),
    "no connection free": (error(408, name="Timeout", cause=below("PoolTimeout")), False),
    "408 from the server": (error(408, name="Timeout", cause=below("APIStatusError")), False),
    "error status": (error(500, cause=below("HTTPStatusError", "ReadError")), False),
    "something else": (error(500, cause=KeyError()), False),
}


@pytest.mark.parametrize("case", BILLED)
def test_what_may_be_billed(case: str) -> None:
    exc, billed = BILLED[case]
    assert may_be_billed(exc) is billed


def test_what_the_caller_was_handling_is_not_ours() -> None:
    outside = below("ReadTimeout")
    assert may_be_billed(error(400, cause=outside))
    assert not may_be_billed(error(400, cause=outside), outside)


def test_a_circle_of_causes_ends() -> None:
    one, two = error(500), error(500)
    one.__cause__, two.__cause__ = two, one
    assert not may_be_billed(one)


# --- The loop --------------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(_operation, "sleep", sleep)
    return naps


def failing(*errors: BaseException) -> Callable[[], Any]:
    """An attempt that fails with each of ``errors`` and then answers with its number."""
    left: Iterator[BaseException | None] = itertools.chain(errors, itertools.repeat(None))
    number = itertools.count(1)

    async def attempt() -> int:
        await asyncio.sleep(0)
        mine = next(number)
        exc = next(left)
        if exc is not None:
            raise exc
        return mine

    return attempt


@pytest.mark.asyncio
async def test_tries_until_it_works(slept: list[float]) -> None:
    assert await Operation(retries=3).run(failing(error(500), error(429), error(408))) == 4
    assert len(slept) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("options", "errors", "naps"),
    [
        ({"retries": 2}, [error(500), error(500), error(500)], 2),
        ({"retries": 5}, [error(500), error(400)], 1),
        ({"retries": 3}, [asyncio.CancelledError()], 0),
        # No attempt is begun that the deadline would not let start.
        (
            {"retries": 3, "seconds": 5, "timed_out": RuntimeError},
            [error(429, {"retry-after": "6"})],
            0,
        ),
    ],
)
async def test_the_error_that_ends_it_comes_out_as_it_is(
    slept: list[float], options: dict[str, Any], errors: list[BaseException], naps: int
) -> None:
    with pytest.raises(type(errors[-1])) as caught:
        await Operation(**options).run(failing(*errors))
    assert caught.value is errors[-1]
    assert len(slept) == naps


@pytest.mark.asyncio
async def test_waits_grow_and_are_drawn_by_lot(slept: list[float]) -> None:
    seen: list[tuple[float, ...]] = []
    for _ in range(50):
        slept.clear()
        await Operation(retries=8).run(failing(*[error(500) for _ in range(8)]))
        seen.append(tuple(slept))
    assert len(set(seen)) == 50
    for number, waits in enumerate(zip(*seen, strict=True)):
        most = min(2.0**number, BACKOFF_MAX)
        assert min(waits) >= BACKOFF_MIN
        assert most / 2 < max(waits) <= most


@pytest.mark.asyncio
@pytest.mark.parametrize(("asked", "most"), [(0, 0.25), (2, 2.25), (40, 41)])
async def test_never_sooner_than_asked(slept: list[float], asked: int, most: float) -> None:
    errors = [error(429, {"retry-after": str(asked)}) for _ in range(40)]
    assert await Operation(retries=40).run(failing(*errors)) == 41
    assert asked <= min(slept) <= max(slept) <= most
    assert len(set(slept)) > 30


@pytest.mark.asyncio
async def test_asked_to_wait_too_long_it_says_so_at_once(slept: list[float]) -> None:
    errors = [error(429, {"retry-after": str(PATIENCE + 1)})]
    with pytest.raises(Exception, match="text"):
        await Operation(retries=3).run(failing(*errors))
    # A deadline is the caller's own word on it.
    operation = Operation(retries=3, seconds=3600, timed_out=RuntimeError)
    assert await operation.run(failing(*errors)) == 2
    assert len(slept) == 1


@pytest.mark.asyncio
async def test_the_deadline_is_one_for_all_attempts(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_operation, "BACKOFF_MIN", 0.0)
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        operation.attempts = attempts
        operation.phase = f"in attempt {attempts}"
        await asyncio.sleep(0.3)
        raise error(500, {"retry-after": "0"})

    operation = Operation(retries=1000, seconds=1.0, timed_out=RuntimeError)
    with pytest.raises(RuntimeError, match=r"deadline of 1 s passed in attempt \d"):
        await operation.run(attempt)
    assert 2 <= attempts <= 4


@pytest.mark.asyncio
async def test_cancelled_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(_operation, "sleep", sleep)
    attempt = failing(error(500))
    task = asyncio.create_task(
        Operation(retries=3, seconds=60, timed_out=RuntimeError).run(attempt)
    )
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await attempt() == 2


@pytest.mark.asyncio
async def test_one_attempt_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tenacity", None)
    assert await Operation().run(failing()) == 1
    with pytest.raises(MissingExtra, match=r"litellm-ledger\[retry\]"):
        await Operation(retries=1).run(failing())


@pytest.mark.asyncio
async def test_it_knows_what_the_caller_was_handling() -> None:
    async def begin() -> Operation:
        return Operation()

    assert (await begin()).outside is None
    handled = KeyError()
    try:
        raise handled
    except KeyError:
        found = await begin()
    assert found.outside is handled
