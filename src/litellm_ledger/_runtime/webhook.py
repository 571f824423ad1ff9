"""One message to a web address: signed, and tried several times.

Owns the signature, the tries and the pauses between them.  Blocks: for a thread, or a program that
does nothing else.  Remembers nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from http import HTTPStatus
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from litellm_ledger._errors import LedgerError

__all__ = ["KEY", "check_webhook", "deliver"]

KEY: Final = "LITELLM_LEDGER_WEBHOOK_KEY"
"""The environment variable with the key of the signature."""
_PAUSES: Final = (1.0, 4.0)
"""Seconds before the second try and the third."""
_TIMEOUT: Final = 10.0


class _NoRedirect(HTTPRedirectHandler):
    """A redirect is an error: what is signed for one address is not sent to another."""

    def redirect_request(self, *_: object) -> None:
        return None


def check_webhook(url: str, flag: str = "--webhook") -> bytes:
    """Return the key that messages to an address are signed with.

    Raises:
        ValueError: the address is not one of http or https, or there is no key.
    """
    parts, key = urlsplit(url), os.environ.get(KEY, "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{flag} takes an address that begins with https:// or http://")
    if not key:
        raise ValueError(f"{flag} needs a key to sign with: set ${KEY}")
    return key.encode()


def deliver(url: str, body: bytes, key: bytes) -> None:
    """Send JSON, and try again where that may help: at most three times, within 40 seconds.

    ``X-Ledger-Timestamp`` is the time in seconds since 1970, ``X-Ledger-Signature`` is ``sha256=``
    and the HMAC-SHA256, in hexadecimal, of the timestamp, a dot and the body.

    Raises:
        LedgerError: it was not delivered.
    """
    why = _tried(url, body, key)
    if why is not None:  # not the address: its path may be a secret
        raise LedgerError(f"the webhook at {urlsplit(url).hostname} was not reached: {why}")


def _tried(url: str, body: bytes, key: bytes) -> str | None:
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
