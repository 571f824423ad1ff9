"""`OpenAIServer`: the test server as a context manager, on a thread of its own.

Owns the socket, the thread and uvicorn. It installs no signal handlers, changes no logging
configuration, and decides nothing about an answer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from litellm_ledger.testing._app import App
from litellm_ledger.testing._behaviour import Behaviour
from litellm_ledger.testing._journal import Journal, ServedRequest

_STOP_TIMEOUT = 10.0


class OpenAIServer:
    """A local server that speaks OpenAI's HTTP API, for tests.

        with OpenAIServer() as server:
            await litellm.acompletion(
                model="openai/gpt-4o-mini",
                api_base=server.base_url,
                api_key="any",
                messages=[{"role": "user", "content": "three words here"}],
                extra_headers=Behaviour(status=429, retry_after=1).headers(),
            )
            assert server.requests[0].status == 429

    It answers `GET /v1/models`, `GET /healthz` and, by `POST`, `/v1/` + `chat/completions`,
    `completions`, `responses`, Anthropic's `messages` (these also as a stream), `embeddings`,
    `images/generations`, `images/edits`, `audio/transcriptions`, `audio/speech`, `moderations`,
    Cohere's `rerank`, Mistral's `ocr`, `files` and `batches`. A batch goes one step further each
    time that it is retrieved: in progress, then completed. Every model name is served and no API
    key is checked.
    `prompt_tokens` is the number of whitespace-separated words in the messages and
    `completion_tokens` the number of words in the answer, 5 by default; see `Behaviour` for what
    is added to them. `max_tokens` and `n` have no effect, and `tools` only with
    `Behaviour.tool_calls`. The same request gets the same
    answer each time, except for its id, which counts up.

    Leaving the `with` block cuts what is still being answered.

    Args:
        default: The behaviour of requests that do not carry the header `x-test-behaviour`, and of
            the options that the header leaves out.
        port: The port on 127.0.0.1; 0 takes a free one.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, *, default: Behaviour | None = None, port: int = 0) -> None:
        self._journal = Journal()
        self._default = Behaviour() if default is None else default
        self._port = port
        self._socket: socket.socket | None = None
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("the server is running already")
        listener = _listen(self._port)
        self._port = listener.getsockname()[1]
        self._running = _Running(App(self._journal, self._default), listener)
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            running.stop()

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`, for `api_base=`."""
        if not self._port:
            raise RuntimeError("the server has no port yet: use it in a with block")
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def requests(self) -> list[ServedRequest]:
        """The requests to `/v1/...` so far, in order of arrival, as they stand now."""
        return self._journal.requests()

    def clear(self) -> None:
        """Forget the requests so far and the counts of `fail_first`. Numbers go on."""
        self._journal.clear()
        if self._running is not None:
            self._running.app.clear()

    def release(self) -> None:
        """Let the requests under way that `hang`, or will, go on as if they did not."""
        if self._running is not None:
            self._running.release()

    def wait_for(
        self, condition: Callable[[list[ServedRequest]], object], timeout: float = 5.0
    ) -> list[ServedRequest]:
        """Block until `condition(server.requests)` is true; return the requests.

        For what happens a moment later, such as noticing that a client went away. It blocks the
        thread: on an event loop use `await asyncio.to_thread(server.wait_for, ...)`.

        Args:
            condition: Called with the list of requests, at each change; it must not block.
            timeout: Seconds.

        Raises:
            TimeoutError: The condition did not come true; the message lists the requests.
        """
        return self._journal.wait_for(condition, timeout)


class _Running:
    """uvicorn on its thread, from construction to `stop`."""

    def __init__(self, app: App, listener: socket.socket) -> None:
        self.app = app
        self._listener = listener
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                proxy_headers=False,
                # A pooled connection must not close under a test that comes back to it later.
                timeout_keep_alive=3600,
            )
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="openai-test-server", daemon=True)
        self._thread.start()

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self.app.release)

    def stop(self) -> None:
        self._server.should_exit = True
        self._loop.call_soon_threadsafe(self.app.stop)
        self._thread.join(_STOP_TIMEOUT)
        if self._thread.is_alive():
            raise RuntimeError(f"the test server did not stop within {_STOP_TIMEOUT} s")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve(sockets=[self._listener]))


class _Protocol(H11Protocol):
    """uvicorn's HTTP protocol, made quiet here and not in `Config`, which would change loggers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _logger
        self.access_log = False


def _listen(port: int) -> socket.socket:
    """Listen from now on: a request that comes before uvicorn is ready waits its turn."""
    # asyncio turns Nagle's delay off (40 ms an answer) only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_unexpected(record: logging.LogRecord) -> bool:
    # uvicorn calls an answer without an end an error; here, cuts and hangs are asked for.
    return not str(record.msg).startswith("ASGI callable returned without")


_logger = logging.getLogger("litellm_ledger.testing")
_logger.addFilter(_is_unexpected)
