"""The command ``acknowledge``, and how audits are printed.

Owns those words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from litellm_ledger._aggregates.formatting import clean, counted
from litellm_ledger._reports.plain import utc

from .flags import Output, emit
from .parameters import argument, option
from .progress import working
from .tables import tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litellm_ledger._maintenance.acknowledge import Acknowledged
    from litellm_ledger._records.audit import Audit, Span
    from litellm_ledger._reports.ledger import Ledger

__all__ = ["Who", "acknowledge", "audit_line", "user_name"]


Who = Annotated[
    str | None, option(help="Your name; it is kept in the ledger. Default: your user name.")
]


def acknowledge(
    output: Output,
    writer: Annotated[str, argument(help="The writer, as verify shows it.")],
    ledger: Ledger,
    why: Annotated[str, option(help="What was found out; it is kept in the ledger.")],
    who: Who = None,
) -> int:
    """Write that a writer's losses were looked into; verify reports them, and is OK again."""
    from litellm_ledger._maintenance.acknowledge import acknowledge as acknowledge_loss
    from litellm_ledger._records.record import cut

    if not why.strip():
        raise ValueError('a reason is needed: --why "the disk was full; replaced"')
    with working(f"verifying {ledger.path}"):
        done = acknowledge_loss(ledger.path, writer, who=cut(who or user_name()), why=cut(why))
    return emit(
        output,
        lambda: {
            "path": str(ledger.path),
            "audit": done.audit and _plain(done.audit),
            "left": done.left,
        },
        lambda: _print_acknowledged(writer, done),
        status=int(bool(done.left)),
    )


def user_name() -> str:
    """Return who runs this program."""
    from getpass import getuser

    try:
        return getuser()
    except (KeyError, OSError):  # a container's user without a name
        import os

        return f"uid {os.getuid()}"


def _plain(audit: Audit) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(audit)
    return plain | {"at": utc(audit.at)}


def _print_acknowledged(writer: str, done: Acknowledged) -> None:
    if done.audit is not None:
        tell(f"{clean(writer)}: {_covered(done.audit)}: acknowledged. verify reports it from now.")
    elif not done.left:
        tell(f"{clean(writer)}: nothing to acknowledge.")
    for file in done.left:
        tell(f"not acknowledged: {clean(file)} cannot be read, so nobody can say what it holds")


def audit_line(audit: Audit) -> str:
    """Say what an audit covers, when it was made, by whom and why."""
    who, why = clean(audit.who), clean(audit.why, 4_096)
    done = _DONE.get(audit.did, audit.did)
    return f"{done} on {utc(audit.at)} by {who}: {_covered(audit)}: {why}"


_DONE: Final = {
    "acknowledge": "looked into",
    "prune": "pruned",
    "erase": "erased",
    "release": "released",
}


def _covered(audit: Audit) -> str:
    def numbers(ranges: Sequence[Span], word: str) -> str:
        count = sum(last - first + 1 for first, last in ranges)
        return f"{count:,} {word}" if count else ""

    parts = [
        numbers(audit.lost, "lost"),
        numbers(audit.quarantined, "quarantined"),
        counted(len(audit.damage), "damaged place") if audit.damage else "",
        counted(audit.records, "record") if audit.records else "",
        f"holds of {counted(len(audit.released), 'call')}" if audit.released else "",
    ]
    return ", ".join(filter(None, parts)) or "nothing"
