"""Python programs that begin as a fork of a process which has imported what they import.

An interpreter that imports LiteLLM needs three seconds of a core before its first line runs.  A
`Forked` is a `subprocess.Popen` of such a program without them: a server, one for each set of
options and modules, does the imports once and forks.  In the child nothing of the server's goes on:
the code runs as ``__main__`` at the top of the interpreter's own main program and returns to it, so
that the end (exit status, ``atexit``, threads, the signal of a Ctrl-C) is the interpreter's.

What is about the beginning or the end of an interpreter, or about an import, takes a fresh one:
``subprocess``.  ``LITELLM_LEDGER_TESTS_FRESH=1`` makes every program fresh.  So does the absence of
a pidfd (only Linux has it), and the measuring of coverage, which begins with an interpreter.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

FORKS = hasattr(os, "pidfd_open") and not any(
    os.environ.get(name)
    for name in ("LITELLM_LEDGER_TESTS_FRESH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
)
SERVER = Path(__file__).with_name("fork_server.py")
LEDGER = ("asyncio", "litellm_ledger._tracking.tracker", "litellm_ledger._client.client")
"""What every program that has a ledger imports."""
COMMAND = ("litellm_ledger._cli.app", "litellm_ledger._reports.ledger")
"""What ``litellm-ledger`` imports."""
LITELLM = (
    *(*LEDGER, *COMMAND, "litellm", "fastapi", "uvicorn", "litellm_ledger.testing"),
    "first_call",  # of tests/, where the server is
)
"""What a program that makes calls imports, or a server: three seconds to six, if it is fresh."""


class Server:
    """A process that has imported ``modules`` and forks."""

    def __init__(self, options: tuple[str, ...], modules: tuple[str, ...]) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # A child inherits the limits and the signals that this process has now.
            self._process = subprocess.Popen(
                [sys.executable, *options, str(SERVER), str(theirs.fileno()), *modules],
                # Pipes, as a program has: Python notes at its start that none of them can seek.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            )

    def close(self) -> str:
        """End it, and what it has forked with it; return what it said."""
        self.control.close()
        return self._process.communicate()[1].decode()


_servers: dict[tuple[tuple[str, ...], tuple[str, ...]], Server] = {}


@atexit.register
def close_servers() -> None:
    while _servers:
        _servers.popitem()[1].close()


class Forked(subprocess.Popen[Any]):
    """A ``subprocess.Popen`` of ``python ARGUMENTS...``: ``-c``, ``-m`` or a file, and arguments.

    Args:
        options: of the interpreter, each with its value: ``-X dev``, ``-W error``.
        modules: what it has imported already; a program without any is a fresh interpreter.
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        options: tuple[str, ...] = (),
        modules: tuple[str, ...] = LEDGER,
        **popen: Any,
    ) -> None:
        pairs = list(zip(options[::2], options[1::2], strict=True))
        self._warnings = [value for name, value in pairs if name == "-W"]
        of_server = tuple(part for pair in pairs if pair[0] != "-W" for part in pair)
        self._key = of_server, modules
        self._forks = FORKS and bool(modules)
        self._arguments = arguments
        self._status: socket.socket | None = None
        super().__init__([sys.executable, *options, *arguments], **popen)

    def _execute_child(self, *args: Any) -> None:
        """Have it forked; called by ``Popen`` with the descriptors it has prepared."""
        if not self._forks:
            super()._execute_child(*args)  # type: ignore[misc]
            return
        preexec, pass_fds, cwd, env = args[2], args[4], args[5], args[6]
        assert not preexec
        assert not pass_fds
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = args[10:16]
        env = dict(os.environ if env is None else env)
        for name, value in env.items():  # what an interpreter reads when it begins
            if name.startswith("PYTHON") and name != "PYTHONPATH":
                assert value == os.environ.get(name), f"make {name} one of the options"
        request = {
            "arguments": self._arguments,
            "orig_argv": self.args,
            "cwd": str(cwd or Path.cwd()),
            "env": env,
            "new_session": args[21],
            "warnings": self._warnings,
        }
        server = _servers.get(self._key)
        if server is None:
            server = _servers[self._key] = Server(*self._key)
        self._status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stdin, stdout, stderr = (
            number if given == -1 else given
            for number, given in enumerate((p2cread, c2pwrite, errwrite))
        )
        with theirs, os.fdopen(os.memfd_create("request"), "w+") as file:
            json.dump(request, file)
            file.flush()
            fds = [stdin, stdout, stderr, theirs.fileno(), file.fileno()]
            socket.send_fds(server.control, [b"fork"], fds)
        said = self._status.recv(64)
        if not said:
            raise RuntimeError(f"the server has ended:\n{_servers.pop(self._key).close()}")
        self.pid = int(said)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    def _ended(self, timeout: float | None) -> bool:
        """Wait for its status so long; note it."""
        assert self._status is not None
        if self.returncode is None:
            self._status.settimeout(None if timeout is None else max(timeout, 0))
            try:
                self.returncode = int(self._status.recv(64) or b"-9")  # nothing: the server is gone
            except (TimeoutError, BlockingIOError):
                return False
            self._status.close()
        return True

    def _internal_poll(self, *args: Any, **options: Any) -> int | None:
        if not self._forks:
            return super()._internal_poll(*args, **options)  # type: ignore[misc, no-any-return]
        if self._status is not None:
            self._ended(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if not self._forks:
            return super()._wait(timeout)  # type: ignore[misc, no-any-return]
        if not self._ended(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode


def run(
    arguments: list[str], *, check: bool = False, timeout: float = 120, **options: Any
) -> subprocess.CompletedProcess[str]:
    """As ``subprocess.run`` of ``python ARGUMENTS...``, with its output captured as text."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    with Forked(arguments, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
    if check:
        done.check_returncode()
    return done
