"""Alerts sent to a web address, each at most once for its window.

Owns what is sent, and what an alert is known by; that it was sent is noted in a file in the user's
directory of caches.  Never writes to the ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from litellm_ledger._errors import LedgerError, LedgerPathError
from litellm_ledger._runtime.webhook import check_webhook, deliver
from litellm_ledger._storage.checked_files import cache_file
from litellm_ledger._storage.claims import claim, give_back

from .alerts import Alert

__all__ = ["identity", "send"]

_KEPT: Final = timedelta(days=40)
"""How long an alert is known as sent; it is of a day or an hour."""


def identity(path: Path, alert: Alert) -> str:
    """Return what an alert is known by: the same for this ledger, condition and window."""
    parts = (os.path.realpath(path), alert.check, alert.about, alert.window)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def send(path: Path, alerts: Sequence[Alert], url: str) -> int:
    """Send the alerts that were not sent yet to ``url``, in one request; return how many.

    The body is JSON: ``path`` and ``alerts``, each with its ``id``; it is signed with the key in
    the environment (``_runtime.webhook``).  They are noted as sent before the request, and that is
    taken back if every try fails; a process that is killed in between has sent them or not, and
    nobody sends them again.

    Raises:
        ValueError: the address is not one of http or https, or there is no key.
        LedgerPathError: what was sent cannot be remembered, so nothing is.
        LedgerError: it could not be delivered; the next run tries again.
    """
    key = check_webhook(url)
    whose = hashlib.sha256(url.encode()).hexdigest()[:8]
    ids = {f"{identity(path, alert)}-{whose}": alert for alert in alerts}
    try:
        file = cache_file(path, "alerts")
        if file is None:
            raise OSError(2, "there is no home directory")
        new = claim(file, dict.fromkeys(ids, datetime.now(UTC) + _KEPT))
    except OSError as exc:
        raise LedgerPathError(
            exc.errno, f"nothing was sent, because that cannot be noted: {exc.strerror}"
        ) from exc
    if not new:
        return 0
    told = [{"id": name[:32], **msgspec.to_builtins(ids[name])} for name in new]
    try:
        deliver(url, msgspec.json.encode({"path": str(path), "alerts": told}), key)
    except LedgerError:
        with contextlib.suppress(OSError):
            give_back(file, new)
        raise
    return len(new)
