"""``litellm-ledger.toml``: what flags are without being given.

Owns where the file is looked for, whose it may be, and what stands in it: it chooses a ledger, a
zone and columns, and runs nothing.  A file of another user is left out, as git does with its own:
the directory may be one that everybody can write to.  Imports no parser where there is no file.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from litellm_ledger._storage.location import ENVIRONMENT, default_directory
from litellm_ledger._storage.named_file import cannot_read, text_of

__all__ = ["CONFIG", "FILE", "Settings", "foreign", "forget", "ledger_directory", "settings"]

FILE: Final = "litellm-ledger.toml"
CONFIG: Final = "LITELLM_LEDGER_CONFIG"
"""Names the file; empty: none is read."""

_PROJECT: Final = "pyproject.toml"
_TABLE: Final = "[tool.litellm-ledger]"
_LARGEST: Final = 2**20
_LINUX: Final = sys.platform.startswith("linux")
_KEYS: Final = ("ledger", "zone", "columns")
_EXAMPLES: Final = {"ledger": "usage", "zone": "Europe/Berlin"}


class Settings(NamedTuple):
    """What a file says.

    Attributes:
        file: where it is; ``None``: there is none.
        ledger: a directory; a relative one is taken from where the file is.
        zone: of days and of times.
        columns: of tables of sums.
    """

    file: Path | None = None
    ledger: Path | None = None
    zone: str | None = None
    columns: tuple[str, ...] | None = None

    @property
    def given(self) -> list[str]:
        """What it sets."""
        return [key for key in _KEYS if getattr(self, key) is not None]


def settings() -> Settings:
    """Return what the file in force says.

    That is the one that ``$LITELLM_LEDGER_CONFIG`` names, or the first of the current directory and
    its parents up to the root of the repository or the home directory, or the user's own.

    Raises:
        ValueError: it cannot be understood; the text says in which line and why.
        OSError: it cannot be read.
    """
    return _settings()


def forget() -> None:
    """Look for it anew."""
    _settings.cache_clear()
    foreign.clear()


foreign: Final[list[str]] = []
"""The files that were left out, each with the reason."""


@lru_cache(maxsize=1)
def _settings() -> Settings:
    named = os.environ.get(CONFIG)
    if named is not None:
        path = os.path.expanduser(named)  # noqa: PTH111 - `~nobody` stays as it is
        return _read(path, trusted=True) or Settings() if named else Settings()
    for path in _places():
        found = _read(path)
        if found is not None:
            return found
    return Settings()


def _places() -> list[str]:
    """Where the file may be, the nearest first."""
    try:
        here = os.getcwd()  # noqa: PTH109 - each of these is done for every command
    except OSError:  # it was removed
        here = ""
    home = os.path.expanduser("~")  # noqa: PTH111
    places = []
    while here:
        places += [f"{here.rstrip('/')}/{FILE}", f"{here.rstrip('/')}/{_PROJECT}"]
        above = os.path.dirname(here)  # noqa: PTH120
        if above == here or here == home or os.path.exists(f"{here}/.git"):  # noqa: PTH110
            break
        here = above
    return [*places, f"{_own_directory(home)}/{FILE}"]


def _own_directory(home: str) -> str:
    """Return the directory of the user's configuration."""
    if _LINUX:  # what platformdirs says there, whose import takes milliseconds
        given = os.environ.get("XDG_CONFIG_HOME", "").strip()
        return f"{given or f'{home}/.config'}/litellm-ledger"
    from platformdirs import user_config_dir

    return user_config_dir("litellm-ledger", appauthor=False)


def _read(path: str, *, trusted: bool = False) -> Settings | None:
    """Read a file; ``None`` if there is none, it does not concern us, or is not to be trusted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as exc:
        if trusted:
            do = f"name another in {CONFIG}, or unset that"
            raise cannot_read(exc, path, "file of settings", do) from None
        if path.endswith(FILE) and os.path.lexists(path):
            foreign.append(f"{path} is left out, because it cannot be read: {exc.strerror}")
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            if trusted or path.endswith(FILE):
                raise ValueError(
                    f"{path} is no file of settings: not regular, or beyond 1 MiB; remove it, or "
                    f"name another in {CONFIG}"
                )
            return None
        text = os.read(descriptor, _LARGEST)
    finally:
        os.close(descriptor)
    project = path.endswith(_PROJECT)
    if project and _TABLE.encode() not in text:
        return None
    if not trusted and (why := _whose(found)):
        foreign.append(f"{path} is left out, because {why}; {CONFIG}={path} has it read")
        return None
    return _parsed(path, text, project=project)


def _whose(found: os.stat_result) -> str | None:
    """Say why a file is not to be trusted."""
    if not hasattr(os, "geteuid"):
        return None
    if found.st_uid not in (os.geteuid(), 0):
        return f"it belongs to another user (uid {found.st_uid})"
    return "everybody can write to it" if found.st_mode & stat.S_IWOTH else None


def _parsed(path: str, text: bytes, *, project: bool) -> Settings:
    import tomllib

    try:
        decoded = text_of(text)
        values: Any = tomllib.loads(decoded)
    except ValueError as exc:  # of TOML it says the line
        raise ValueError(f"{path}: {exc}") from None
    if project:
        values = values.get("tool", {}).get("litellm-ledger", {})  # it may stand in a comment
    start = decoded.find(_TABLE) + len(_TABLE) if project else 0
    found: dict[str, Any] = {}
    for key, value in values.items():
        try:
            found[key] = _value(key, value)
        except ValueError as exc:
            raise ValueError(f"{path}, line {_line(decoded, start, key)}: {exc}") from None
    file = Path(path).absolute()
    if "ledger" in found:
        found["ledger"] = file.parent / Path(found["ledger"]).expanduser()
    return Settings(file=file, **found)


def _line(text: str, start: int, key: str) -> int:
    """Return the line of a key: of its value, or of a table of its name."""
    name = re.escape(key)
    form = rf"^[ \t]*([\"']?{name}[\"']?[ \t]*[.=]|\[[^\n]*{name}\])"
    at = re.compile(form, re.MULTILINE).search(text, start)
    return text.count("\n", 0, at.start() if at else start) + 1


def _value(key: str, value: Any) -> Any:
    """Return what a key is set to.

    Raises:
        ValueError: there is no such key, or it cannot be that.
    """
    if key not in _KEYS:
        from difflib import get_close_matches

        near = get_close_matches(key, _KEYS, n=1)
        hint = f" did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown key {key!r};{hint} there are {', '.join(_KEYS)}")
    if key == "columns":
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ValueError('columns is a list of names, such as ["calls", "cost"]')
        from .sums import columns_of

        return columns_of(value)
    if not isinstance(value, str) or not value:
        raise ValueError(f'{key} is text in quotes, such as {key} = "{_EXAMPLES[key]}"')
    if key == "zone":
        from litellm_ledger._aggregates.calendar import calendar

        calendar(value)
    return value


def ledger_directory(path: Path | None = None) -> Path:
    """Return the ledger that is meant: ``path``, else the environment's, the file's, the default.

    Raises:
        ValueError, OSError: as ``settings``.
    """
    if path is not None:
        return path
    if os.environ.get(ENVIRONMENT):
        return default_directory()
    return settings().ledger or default_directory()
