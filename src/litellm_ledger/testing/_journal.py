"""What the test server was asked and how each request ended, readable from any thread.

Owns the list of requests and the waiting for it. It never decides an answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Ended = Literal["finished", "cut", "disconnected", "stopped"]


@dataclass(frozen=True, slots=True)
class ServedRequest:
    """One request, as it stood when it was looked at.

    Attributes:
        number: Counts from 1, in order of arrival.
        path: As in `/v1/chat/completions`.
        model: The model name in the request; None if there was none.
        stream: Whether a stream was asked for.
        body: The JSON of the request.
        status: The status sent, None before that.
        chunks: Chunks with content sent so far.
        usage: The usage sent, None when none was.
        ended: None while it runs. `finished`: all was sent. `disconnected`: the client went away
            first. `cut`: the server closed the connection on purpose. `stopped`: the server was
            closed first.
    """

    number: int
    path: str
    model: str | None
    stream: bool
    body: Mapping[str, Any] = field(repr=False)
    status: int | None = None
    chunks: int = 0
    usage: Mapping[str, Any] | None = None
    ended: Ended | None = None

    @property
    def finished(self) -> bool:
        """Whether the whole answer was sent."""
        return self.ended == "finished"

    @property
    def disconnected(self) -> bool:
        """Whether the client closed the connection before the answer was complete."""
        return self.ended == "disconnected"


class Journal:
    """The requests so far. One thread writes, any thread reads and waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: dict[int, ServedRequest] = {}
        self._count = 0

    def open(self, path: str, body: Mapping[str, Any]) -> int:
        """Add a request and return its number."""
        model = body.get("model")
        with self._changed:
            self._count += 1
            self._requests[self._count] = ServedRequest(
                number=self._count,
                path=path,
                model=model if isinstance(model, str) else None,
                stream=body.get("stream") is True,
                body=body,
            )
            self._changed.notify_all()
            return self._count

    def update(self, number: int, **changes: Any) -> None:
        """Replace fields of a request, unless `clear` has forgotten it."""
        with self._changed:
            if number in self._requests:
                self._requests[number] = replace(self._requests[number], **changes)
                self._changed.notify_all()

    def requests(self) -> list[ServedRequest]:
        """Return the requests in order of arrival."""
        with self._changed:
            return [*self._requests.values()]

    def clear(self) -> None:
        """Forget all requests; the numbers go on."""
        with self._changed:
            self._requests.clear()

    def wait_for(
        self, condition: Callable[[list[ServedRequest]], object], timeout: float
    ) -> list[ServedRequest]:
        """Block until `condition(requests)` is true."""
        with self._changed:
            if self._changed.wait_for(lambda: condition([*self._requests.values()]), timeout):
                return [*self._requests.values()]
            seen = "\n".join(map(repr, self._requests.values())) or "none"
        raise TimeoutError(f"not so within {timeout} s; the requests were:\n{seen}")
