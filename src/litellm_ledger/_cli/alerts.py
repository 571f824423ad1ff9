"""``alerts``: for cron, with its status, as JSON, or to a webhook.

Owns its words, and what it prints.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated

from litellm_ledger._aggregates.formatting import counted
from litellm_ledger._errors import LedgerError

from .flags import Output, complain, emit, in_a_directory, zone_name
from .now import Zone
from .parameters import option
from .tables import on_terminal, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from litellm_ledger._reports.alerts import Alert
    from litellm_ledger._reports.ledger import Ledger

__all__ = ["Webhook", "alerts", "sent_to"]

Webhook = Annotated[
    str | None,
    option(
        metavar="URL",
        help="Also send new alerts there, signed with $LITELLM_LEDGER_WEBHOOK_KEY.",
    ),
]


def alerts(
    output: Output,
    ledger: Ledger,
    day_over: Annotated[
        str | None, option(metavar="USD", help="Alert if today costs more than this.")
    ] = None,
    hour_over: Annotated[
        str | None, option(metavar="USD", help="Alert if this hour or the last costs more.")
    ] = None,
    webhook: Webhook = None,
    tz: Zone = None,
) -> int:
    """Check spend, unusual hours, prices, unsettled calls, backlog and disk; exit 1 if any."""
    import msgspec

    from litellm_ledger._reports.alerts import find_alerts

    in_a_directory(
        ledger,
        "run alerts on each machine, where backlog and disk are. Sums over all machines are told "
        "by litellm-ledger metrics URL, for alerts of Prometheus, and daily URL --json",
    )
    tz = zone_name(tz, local=on_terminal())
    found = find_alerts(
        ledger,
        tz=tz,
        day_over=_amount("--day-over", day_over),
        hour_over=_amount("--hour-over", hour_over),
    )

    def send_new(url: str) -> int:
        from litellm_ledger._reports.webhook import send

        return send(ledger.path, found, url)

    sent = sent_to(webhook, send_new)
    return emit(
        output,
        lambda: {
            "path": str(ledger.path),
            "tz": tz,
            "ok": not found,
            "alerts": msgspec.to_builtins(found),
            "sent": sent,
        },
        lambda: _print_alerts(found, sent),
        status=int(bool(found)),
    )


def sent_to(webhook: str | None, send: Callable[[str], int]) -> int | None:
    """Send to an address; return how many were new, ``None`` without an address.

    A failure is said, and counts as none: what was found is printed all the same.
    """
    if webhook is None:
        return None
    try:
        return send(webhook)
    except LedgerError as exc:
        complain(exc)
        return 0


def _amount(flag: str, text: str | None) -> Decimal | None:
    """Read an amount of US dollars.

    Raises:
        ValueError: it is none.
    """
    if text is None:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{flag} {text}: give an amount in US dollars, such as 50 or 0.25")
    return amount


def _print_alerts(found: list[Alert], sent: int | None) -> None:
    for alert in found:
        tell(f"{alert.check}: {alert.text}.")
    if not found:
        tell("OK: nothing to alert.")
    if sent:
        tell(f"{counted(sent, 'alert')} sent.")
