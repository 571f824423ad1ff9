"""Alerts sent to a web address, each at most once for its window.

Owns the signature, the tries, and the memory of what was sent, which is a file in the user's
directory of caches.  Never writes to the ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import msgspec

from litellm_ledger._errors import LedgerError, LedgerPathError
from litellm_ledger._storage.checked_files import cache_file

from .alerts import Alert

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
_LOCKS = fcntl is not None

__all__ = ["KEY", "identity", "send"]

KEY: Final = "LITELLM_LEDGER_WEBHOOK_KEY"
"""The environment variable with the key of the signature."""
_PAUSES: Final = (1.0, 4.0)
"""Seconds before the second try and the third."""
_TIMEOUT: Final = 10.0
_KEPT: Final = timedelta(days=40)


class _NoRedirect(HTTPRedirectHandler):
    """A redirect is an error: what is signed for one address is not sent to another."""

    def redirect_request(self, *_: object) -> None:
        return None


def identity(path: Path, alert: Alert) -> str:
    """Return what an alert is known by: the same for this ledger, condition and window."""
    parts = (os.path.realpath(path), alert.check, alert.about, alert.window)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def send(path: Path, alerts: Sequence[Alert], url: str) -> int:
    """Send the alerts that were not sent yet to ``url``, in one request; return how many.

    The body is JSON: ``path`` and ``alerts``, each with its ``id``.  ``X-Ledger-Timestamp`` is the
    time in seconds since 1970, ``X-Ledger-Signature`` is ``sha256=`` and the HMAC-SHA256, in
    hexadecimal, of the timestamp, a dot and the body, by the key in the environment.  They are
    noted as sent before the request, and that is taken back if every try fails; a process that is
    killed in between has sent them or not, and nobody sends them again.

    Raises:
        ValueError: the address is not one of http or https, or there is no key.
        LedgerPathError: what was sent cannot be remembered, so nothing is.
        LedgerError: it could not be delivered; the next run tries again.
    """
    parts, key = urlsplit(url), os.environ.get(KEY, "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("--webhook takes an address that begins with https:// or http://")
    if not key:
        raise ValueError(f"--webhook needs a key to sign with: set ${KEY}")
    whose = hashlib.sha256(url.encode()).hexdigest()[:8]
    ids = {f"{identity(path, alert)}-{whose}": alert for alert in alerts}
    try:
        new = _claim(path, list(ids))
    except OSError as exc:
        raise LedgerPathError(
            exc.errno, f"nothing was sent, because that cannot be noted: {exc.strerror}"
        ) from exc
    if not new:
        return 0
    told = [{"id": name[:32], **msgspec.to_builtins(ids[name])} for name in new]
    body = msgspec.json.encode({"path": str(path), "alerts": told})
    why = _deliver(url, body, key.encode())
    if why is not None:
        with contextlib.suppress(OSError):
            _take_back(path, new)
        # Not the address: its path may be a secret.
        raise LedgerError(f"the webhook at {parts.hostname} was not reached: {why}")
    return len(new)


def _deliver(url: str, body: bytes, key: bytes) -> str | None:
    """Try several times; return why it failed, or ``None``."""
    why = ""
    opener = build_opener(_NoRedirect)
    for pause in (0.0, *_PAUSES):
        time.sleep(pause)
        moment = str(int(time.time()))
        signature = hmac.new(key, moment.encode() + b"." + body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "litellm-ledger",
            "X-Ledger-Timestamp": moment,
            "X-Ledger-Signature": f"sha256={signature}",
        }
        try:
            with opener.open(Request(url, body, headers), timeout=_TIMEOUT):
                return None
        except HTTPError as exc:
            exc.close()
            why = f"status {exc.code}"
            lasting = exc.code < HTTPStatus.INTERNAL_SERVER_ERROR
            if lasting and exc.code != HTTPStatus.TOO_MANY_REQUESTS:
                break
        except (OSError, HTTPException) as exc:
            why = str(getattr(exc, "reason", exc))
    return why


# -- what was sent -----------------------------------------------------------------------------


def _claim(path: Path, ids: Sequence[str]) -> list[str]:
    with _remembered(path) as sent:
        new = [name for name in ids if name not in sent]
        now = datetime.now(UTC)
        oldest = (now - _KEPT).isoformat()
        for name in [name for name, at in sent.items() if at < oldest]:
            del sent[name]
        sent.update(dict.fromkeys(new, now.isoformat()))
        return new


def _take_back(path: Path, ids: Sequence[str]) -> None:
    with _remembered(path) as sent:
        for name in ids:
            sent.pop(name, None)


@contextlib.contextmanager
def _remembered(path: Path) -> Iterator[dict[str, str]]:
    """Give what was sent, by its id; what it is at the end of the ``with`` is kept.

    One process at a time.
    """
    file = cache_file(path, "alerts")
    if file is None:
        raise OSError(2, "there is no home directory")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    lock = os.open(file.with_suffix(".lock"), flags, 0o600)
    try:
        if _LOCKS:
            fcntl.flock(lock, fcntl.LOCK_EX)
        sent: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            sent = msgspec.json.decode(file.read_bytes(), type=dict[str, str])
        before = dict(sent)
        yield sent
        if sent != before:
            temporary = file.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as to:  # follows no link that others have put there
                to.write(msgspec.json.encode(sent))
                to.flush()
                os.fsync(to.fileno())
            temporary.replace(file)
    finally:
        os.close(lock)  # and with it the lock is given back
