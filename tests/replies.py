"""A provider on loopback that answers with what a test says, word for word."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Replies", "replies", "sse"]


def sse(*events: Mapping[str, Any]) -> bytes:
    """A stream of these events, as bytes."""
    lines = []
    for event in events:
        name = f"event: {event['type']}\n" if "type" in event else ""
        lines.append(f"{name}data: {json.dumps(event)}\n\n")
    return "".join(lines).encode()


class Replies:
    """The server.

    Attributes:
        url: where it is.
        answer: a mapping for JSON, or the bytes of a stream of events; may be changed at any time.
        headers: further ones of every answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answer: Mapping[str, Any] | bytes = {}
        self.headers: Mapping[str, str] = {}


@contextmanager
def replies() -> Iterator[Replies]:
    """Serve literal answers, whatever is asked for."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            streamed = isinstance(found.answer, bytes)
            body = found.answer if isinstance(found.answer, bytes) else json.dumps(found.answer)
            content = body if isinstance(body, bytes) else body.encode()
            self.send_response(200)
            self.send_header(
                "content-type", "text/event-stream" if streamed else "application/json"
            )
            self.send_header("content-length", str(len(content)))
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """Nothing: the test says what it asked."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Replies(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="replies")
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
