"""``Address``: where a database is, by whose words, and what may be said of it.

Owns how a URL, a service file and the environment make one answer, as libpq's documentation has it
(https://www.postgresql.org/docs/current/libpq-connect.html), and the rule for TLS: ``verify-full``
unless every host is this machine or somebody said otherwise.  A text made here has no password and
no part of what was given, however badly it was written.  Reads files; connects to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["Address"]

_SCHEMES: Final = ("postgresql", "postgres")
_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_ENVIRONMENT: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "dbname": "PGDATABASE",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "application_name": "PGAPPNAME",
    "options": "PGOPTIONS",
}
_ALSO: Final = frozenset({*_ENVIRONMENT, "sslpassword", "krbsrvname", "gsslib", "service"})
"""What a URL or a service may say."""
_NO_MATTER: Final = frozenset(
    {
        "fallback_application_name",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "tcp_user_timeout",
    }
)
"""What libpq takes and makes no difference here."""
_EXAMPLE: Final = "postgresql://user@db.example.com:5432/ledger"


@dataclass(frozen=True, slots=True)
class Address:
    """A database, with all that connecting to it takes.

    Attributes:
        hosts: names, addresses or directories of sockets, each with its port; empty: this machine,
            where its sockets usually are.
        said: the other words, by libpq's names.
        password: ``None``: the password file is asked.
        shown: whether the URL itself has a password.
        place: where it is, in words: without the user, the password and what else was given.
        local: whether every host is this machine.
        sslmode: what was said, or what the rule is.
    """

    hosts: tuple[tuple[str, int], ...]
    said: Mapping[str, str] = field(repr=False)
    password: str | None = field(repr=False)
    shown: bool = False

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL, and what a service file and the environment add to it.

        Raises:
            ValueError: one of them makes no sense; the text says which, and quotes no value.
        """
        given = _from_url(url)
        service = given.pop("service", None) or os.environ.get("PGSERVICE")
        found = {
            name: value for name, env in _ENVIRONMENT.items() if (value := os.environ.get(env))
        }
        if service:
            found |= _of_service(service)
        shown = bool(given.get("password") or given.get("sslpassword"))
        found |= given
        password = found.pop("password", None)
        if "\0" in "".join([password or "", *found.values()]):
            raise ValueError("the address of a database has no U+0000 in it")
        name = found.get("dbname", "")
        if "://" in name or ("password" in name and "=" in name):
            raise ValueError("the name of a database is a name, no URL or list of settings")
        hosts = _hosts(found.pop("host", ""), found.pop("port", ""))
        mode = found.get("sslmode")
        if mode is not None and mode not in _MODES:
            raise ValueError(f"sslmode is one of {', '.join(_MODES)}")
        return cls(hosts, found, password, shown)

    @property
    def local(self) -> bool:
        """Whether every host is this machine."""
        return all(_is_local(host) for host, _ in self.hosts)

    @property
    def sslmode(self) -> str:
        """``verify-full`` unless every host is this machine or somebody said otherwise."""
        return self.said.get("sslmode") or ("prefer" if self.local else "verify-full")

    @property
    def place(self) -> str:
        """Where it is, without the user, the password and what else was given."""
        name = self.said.get("dbname", "")
        if not self.hosts:
            return f"postgresql:///{name}"
        if self.hosts[0][0].startswith("/"):
            return f"postgresql:///{name}?host={self.hosts[0][0]}"
        hosts = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.hosts)
        return f"postgresql://{hosts}/{name}"

    def __str__(self) -> str:
        return self.place


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_local(host: str) -> bool:
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _from_url(url: str) -> dict[str, str]:
    """Return what a URL says, by libpq's names."""
    try:
        parts = urlsplit(url)
        asked = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(f"this is no URL of a database; one is {_EXAMPLE}") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"a URL of a database begins with postgresql://, as {_EXAMPLE}")
    if parts.fragment:
        raise ValueError("a # in the URL of a database must be written as %23")
    who, at, where = parts.netloc.rpartition("@")
    if "@" in who or "@" in parts.path or (not at and "@" in parts.query):
        # Behind an unescaped slash or question mark of a password it would be taken for a name.
        raise ValueError(
            "in a name or password of a URL, write %40 for @, %2F for / and %3F for a question mark"
        )
    user, colon, password = who.partition(":")
    given: dict[str, str] = {}
    if at:
        given |= {"user": unquote(user)} if user else {}
        given |= {"password": unquote(password)} if colon else {}
    if where:
        given["host"], given["port"] = _split(where)
    if name := unquote(parts.path.removeprefix("/")):
        given["dbname"] = name
    for name, value in asked:
        _take(given, name, value, "the URL")
    return {name: value for name, value in given.items() if value or name == "password"}


def _take(given: dict[str, str], name: str, value: str, where: str) -> None:
    name = {"database": "dbname", "ssl": "sslmode"}.get(name, name)
    if name == "sslmode" and value == "true":
        value = "require"
    if name == "channel_binding" and value == "require":
        raise ValueError(
            f"{where} asks for channel_binding=require, which is not supported: leave it out, and "
            "let sslmode=verify-full tell that the server is the right one"
        )
    if name in _NO_MATTER or name == "channel_binding":
        return
    if name not in _ALSO:
        known = "a parameter" if not name.isidentifier() else f"the parameter {name}"
        raise ValueError(f"{where} has {known}, which is not known")
    given[name] = value


def _split(where: str) -> tuple[str, str]:
    """Return the hosts and the ports of ``a:1,[::1]:2``, each joined by commas."""
    hosts, ports = [], []
    for one in where.split(","):
        if one.startswith("["):
            host, closed, rest = one[1:].partition("]")
            if not closed or (rest and not rest.startswith(":")):
                raise ValueError("an IPv6 address in a URL is written in brackets: [::1]:5432")
            port = rest[1:]
        else:
            host, _, port = one.partition(":")
        hosts.append(unquote(host))
        ports.append(port)
    return ",".join(hosts), ",".join(ports) if any(ports) else ""


def _hosts(hosts: str, ports: str) -> tuple[tuple[str, int], ...]:
    names = hosts.split(",") if hosts else []
    if any("@" in name[1:] for name in names):
        raise ValueError("the host of a database is a name, an address or a directory: no @ in it")
    numbers = ports.split(",") if ports else [""]
    if len(numbers) == 1:
        numbers *= max(len(names), 1)
    if names and len(numbers) != len(names):
        raise ValueError("a database has as many ports as hosts, or one port for all")
    found = []
    for number in numbers:
        if number and not (number.isascii() and number.isdigit() and 0 < int(number) < 65_536):
            raise ValueError(
                "the port of a database is a number from 1 to 65535; a colon or slash in a name or "
                "password must be written as %3A or %2F"
            )
        found.append(int(number or 5432))
    if not names and ports:  # the sockets of this machine, on another port
        return (("localhost", found[0]),)
    return tuple(zip((name or "localhost" for name in names), found, strict=False))


def _of_service(name: str) -> dict[str, str]:
    """Return what a service file says of a service, read as libpq reads it.

    That is: by lines, white space around them does not matter, and of two values the first counts.
    """
    named = os.environ.get("PGSERVICEFILE")
    directory = os.environ.get("PGSYSCONFDIR")
    places = [Path(named) if named else Path("~/.pg_service.conf").expanduser()]
    places += [Path(directory) / "pg_service.conf"] if directory else []
    for place in places:
        try:
            lines = place.read_text("utf-8").splitlines()
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise ValueError(f"{place} cannot be read: {exc.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{place} is no service file: it is not UTF-8") from None
        found = _section(lines, name, place)
        if found is not None:
            return found
    raise ValueError(f"no service of that name in {' or '.join(map(str, places))}")


def _section(lines: list[str], name: str, place: Path) -> dict[str, str] | None:
    given: dict[str, str] | None = None
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if given is not None:
                break
            given = {} if line == f"[{name}]" else None
        elif given is not None:
            key, is_one, value = line.partition("=")
            if not is_one:
                raise ValueError(f"{place}, line {number}, is not KEY=VALUE")
            said: dict[str, str] = {}
            _take(said, key.strip(), value.strip(), f"the service in {place}")
            given = said | given
    return given
