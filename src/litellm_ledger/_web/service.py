"""``Service``: from a request to the bytes of its answer, without a server around it.

Owns statuses, forms (JSON, CSV, pages), compression, and that equal questions at the same time are
answered once.  Knows no event loop: it runs on threads, as a rule of a process of its own.
"""

from __future__ import annotations

import gzip
import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from litellm_ledger._errors import LedgerError
from litellm_ledger._reading.elsewhere import Place
from litellm_ledger._reports.csv_lines import CsvLines

from .answers import Answers, NotFound
from .asks import ASKS, Invalid, read_ask
from .feed import missed
from .viewer import Scope

__all__ = ["Asked", "Reply", "Service", "complaint"]

_log = logging.getLogger("litellm_ledger")

_FRESH: Final = 1.0
"""Seconds for which an answer is handed out again, at least."""
_STALE: Final = 5.0
"""And at most."""
_TIMES: Final = 30
"""That many times as long as it took, so that one process does for many viewers."""
_KEPT: Final = 64 * 2**20
"""Bytes of answers that are held for that."""
_WORTH_PACKING: Final = 1_000

JSON: Final = "application/json"
CSV: Final = "text/csv; charset=utf-8"


class Asked(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A request, cut to what matters.

    Attributes:
        kind: ``api``, ``page``, or ``missed``: calls since an event.
        what: which of them.
        given: the parameters, in order.
        scope: what the viewer may see.
        up: from the page to the root of the dashboard: ``../`` for each level.
        gzip: whether the reader unpacks it.
    """

    kind: str
    what: str
    given: list[tuple[str, str]]
    scope: Scope
    up: str = ""
    gzip: bool = False


class Reply(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The answer to one.

    Attributes:
        headers: besides those of every answer.
    """

    status: int
    type: str
    body: bytes
    headers: list[tuple[str, str]] = []


def complaint(status: int, code: str, text: str, parameter: str | None = None) -> Reply:
    """Return an error as the API says it."""
    error: dict[str, Any] = {"code": code, "message": text}
    if parameter is not None:
        error["parameter"] = parameter
    return Reply(status=status, type=JSON, body=msgspec.json.encode({"error": error}))


class Service:
    """Answers requests about one ledger; safe for several threads.

    Args:
        place: the ledger.
        process: whether this is a process of its own, which may start others.
    """

    def __init__(self, place: Place, *, process: bool = False) -> None:
        self.answers = Answers(place, process=process)
        self._kinds = {"api": self._api, "page": self._page, "missed": self._missed}
        self._place = place
        self._lock = threading.Lock()
        self._held: OrderedDict[bytes, tuple[float, Future[Reply]]] = OrderedDict()
        """Until when an answer is handed out."""
        self._forgot = 0.0

    def __call__(self, asked: Asked) -> Reply:
        """Answer a request; one that is asked already waits for the same answer."""
        key = msgspec.json.encode(asked)
        now = time.monotonic()
        with self._lock:
            held = self._held.get(key)
            if held is not None and (not held[1].done() or now < held[0]):
                future, mine = held[1], False
            else:
                future, mine = Future(), True
                self._held[key] = now, future
                self._held.move_to_end(key)
        if not mine:
            return future.result()
        try:
            reply = self._answer(asked)
        except BaseException as exc:
            future.set_exception(exc)
            raise
        with self._lock:
            end = time.monotonic()
            self._held[key] = end + min(_STALE, max(_FRESH, _TIMES * (end - now))), future
            self._forget()
        future.set_result(reply)
        return reply

    def _forget(self) -> None:
        """Let go of what is not handed out any more, now and then."""
        now = time.monotonic()
        if now < self._forgot + _FRESH / 4:
            return
        self._forgot = now
        size = 0
        for key, (until, future) in reversed([*self._held.items()]):
            if future.done():
                size += len(key) + (len(future.result().body) if not future.exception() else 0)
                if until < now or size > _KEPT:
                    del self._held[key]

    def _answer(self, asked: Asked) -> Reply:
        try:
            reply = self._kinds[asked.kind](asked)
        except Invalid as exc:
            text = f"{exc.name}: {exc}"
            reply = self._wrong(asked, complaint(422, "invalid_parameter", text, exc.name))
        except NotFound as exc:
            reply = self._wrong(asked, complaint(404, "not_found", str(exc)))
        except LedgerError as exc:
            _log.warning("the dashboard cannot read the ledger: %s", exc)
            said = str(exc) if asked.scope is None else "the ledger cannot be read now"
            reply = self._wrong(asked, complaint(503, "ledger_unreadable", said))
        except Exception:  # noqa: BLE001 - logged; somebody waits for an answer
            _log.exception("the dashboard could not answer %s %s", asked.kind, asked.what)
            reply = self._wrong(asked, complaint(500, "failed", "no answer; the log says why"))
        if asked.gzip and len(reply.body) > _WORTH_PACKING:
            body = gzip.compress(reply.body, 5, mtime=0)
            headers = [*reply.headers, ("content-encoding", "gzip")]
            reply = msgspec.structs.replace(reply, body=body, headers=headers)
        return reply

    def _api(self, asked: Asked) -> Reply:
        ask = read_ask(asked.what, asked.given, scope=asked.scope, now=datetime.now(UTC))
        found = self.answers(asked.what, ask)
        if ask.form == "csv":
            return self._csv(asked.what, found)
        return Reply(status=200, type=JSON, body=msgspec.json.encode(found))

    def _missed(self, asked: Asked) -> Reply:
        found = missed(self._place, dict(asked.given)["id"], asked.scope)
        if found is None:
            return complaint(422, "invalid_parameter", "Last-Event-ID is no id of an event")
        calls, at, more = found
        told = {"calls": calls, "at": at, "more": more}
        return Reply(status=200, type=JSON, body=msgspec.json.encode(told))

    def _csv(self, what: str, found: dict[str, Any]) -> Reply:
        lines = CsvLines()
        if what == "report":
            by = found["by"]
            columns = [name for name in found["total"] if name not in ("group", *_MEASURED)]
            rows = [[*(row["group"][key] for key in by), *(row[c] for c in columns)]
                    for row in found["rows"]]  # fmt: skip
            text = lines.line([*by, *columns]) + "".join(map(lines.line, rows))
        else:
            columns = list(_CALL)
            text = lines.line(columns) + "".join(
                lines.line([call.get(name) for name in columns]) for call in found["calls"]
            )
        name = f'attachment; filename="{what}.csv"'
        headers = [("content-disposition", name)]
        return Reply(status=200, type=CSV, body=text.encode(), headers=headers)

    def _page(self, asked: Asked) -> Reply:
        from .pages import page

        def api(what: str, **given: Any) -> dict[str, Any]:
            """Ask the API, as everybody else does."""
            pairs = [
                (name, one)
                for name, value in given.items()
                for one in ([value] if isinstance(value, str) else value or [])
            ]
            now = datetime.now(UTC)
            return self.answers(what, read_ask(what, pairs, scope=asked.scope, now=now))

        html = page(asked.what, asked.given, api, operator=asked.scope is None, up=asked.up)
        return Reply(status=200, type="text/html; charset=utf-8", body=html.encode())

    def _wrong(self, asked: Asked, reply: Reply) -> Reply:
        """Return an error as a page, where a page was asked for."""
        if asked.kind != "page":
            return reply
        from .pages import wrong

        said = msgspec.json.decode(reply.body)["error"]["message"]
        html = wrong(reply.status, said, operator=asked.scope is None, up=asked.up)
        return Reply(status=reply.status, type="text/html; charset=utf-8", body=html.encode())


_MEASURED: Final = ("latency_ms", "ttft_ms")
_CALL: Final = (
    "id",
    "ts",
    "operation",
    "attempt",
    "call",
    "model",
    "provider",
    "status",
    "error",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "usage_source",
    "cost",
    "cost_source",
    "latency_ms",
    "ttft_ms",
    "tags",
)
assert set(ASKS) >= {"report", "calls"}
