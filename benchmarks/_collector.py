"""A collector on this machine that takes what Langfuse's SDK sends, and can be down.

Owns the socket and the thread.  Keeps the bodies; they are read when somebody asks what came.
"""

from __future__ import annotations

import gzip
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

__all__ = ["Collector"]


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that was killed: that is what we do to clients."""


class Collector:
    """Answers 200 to every POST.  ``up=False``: connections are refused until ``rise()``."""

    def __init__(self, *, up: bool = True) -> None:
        self.bodies: list[bytes] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server: ThreadingHTTPServer | None = None
        if up:
            self.rise()

    def rise(self) -> None:
        """Begin to listen, on the port that was refused so far."""
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                bodies.append(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = _Server(self._socket.getsockname(), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = self._socket
        server.daemon_threads = True
        server.server_activate()
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def numbers(self) -> list[int]:
        """Return the numbers of the records that came, doubles included."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        return [
            int(attribute.value.string_value.strip('"'))  # the SDK sends JSON
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            for attribute in span.attributes
            if attribute.key == "langfuse.observation.metadata.call_id"
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
        self._socket.close()
