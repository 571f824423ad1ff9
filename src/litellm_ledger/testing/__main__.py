"""`python -m litellm_ledger.testing`: owns the command; the server itself is `OpenAIServer`.

The first line on stdout is the base URL. SIGTERM or SIGINT stops the server with exit status 0;
with `--log` it then writes its request log, to be compared with a ledger.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from litellm_ledger.testing._behaviour import HEADER, Behaviour


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m litellm_ledger.testing",
        description="A local OpenAI-compatible server for tests. The first line printed is the "
        f"base URL. A request chooses its behaviour with the header {HEADER}.",
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default: any free port")
    parser.add_argument(
        "--behaviour",
        default="",
        metavar="OPTIONS",
        help="what the header does not say, e.g. 'slow=0.5; chunks=20'",
    )
    parser.add_argument(
        "--log",
        type=_file,
        metavar="FILE",
        help="where to write, on stopping, each request as one line of JSON (a `ServedRequest`)",
    )
    options = parser.parse_args(arguments)
    try:
        from litellm_ledger.testing import OpenAIServer

        default = Behaviour.parse(options.behaviour)
    except (ImportError, ValueError) as exc:
        parser.error(str(exc))
    # Blocked before the server's thread begins, so that every thread leaves them to sigwait.
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        with OpenAIServer(default=default, port=options.port) as server:
            sys.stdout.write(f"{server.base_url}\n")
            sys.stdout.flush()
            signal.sigwait(stops)
    except OSError as exc:
        parser.exit(1, f"{parser.prog}: cannot serve on port {options.port}: {exc}\n")
    if options.log is not None:
        with options.log:
            for request in server.requests:
                options.log.write(json.dumps(dataclasses.asdict(request)) + "\n")
    return 0


def _file(path: str) -> TextIO:
    try:
        return Path(path).open("w", encoding="utf-8")
    except OSError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


if __name__ == "__main__":
    sys.exit(main())
