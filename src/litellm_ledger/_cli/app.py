"""The ``litellm-ledger`` command: which commands there are, and what it does without one.

Owns the list.  What a command takes and prints is in the module that it is imported from; the flags
that they share are ``_cli.flags``'s.  Only ``ask`` imports LiteLLM, and
only when it runs.

Exit status: 0 fine, 1 something is lost, damaged or needs attention, 2 wrong usage or cannot be
read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from litellm_ledger import __version__

from .flags import FORMS, command, complain, home
from .health import ask, compact, doctor, path, recover, verify
from .records import calls, export, records, show, tail
from .reports import by_period, html, report, top
from .seals import anchor, seal
from .sql import sql

__all__ = ["app"]

_DEFAULT: Final = "daily"
_OURS: Final = ("--help", "--version")


class _Commands(TyperGroup):
    """The commands; without one, ``daily``, which also takes a directory or flags alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        named = first in _OURS or first in self.commands
        path = home(Path(first)) or Path()
        if not named and (not args or first.startswith("-") or path.is_dir()):
            args = [_DEFAULT, *args]
        elif not named and len(path.parts) + first.endswith("/") > 1:  # no command looks like that
            complain(f"there is no directory {first}; litellm-ledger --help lists the commands")
            raise typer.Exit(2)
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"litellm-ledger {__version__}\n")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Show what language-model calls used and cost, from the ledger.

    Without a command, daily runs.
    """


for _function, _forms in (
    (by_period("daily", "day", " (the default command)"), FORMS),
    (by_period("weekly", "week"), FORMS),
    (by_period("monthly", "month"), FORMS),
    (by_period("hourly", "hour"), FORMS),
    (report, FORMS),
    (top, FORMS),
    (html, ()),
    (calls, FORMS),
    (show, ("json",)),
    (tail, ("json",)),
    (records, ("json",)),
    (sql, FORMS),
    (export, ()),
    (doctor, ("json",)),
    (verify, ("json",)),
    (recover, ("json",)),
    (compact, ("json",)),
    (seal, ("json",)),
    (anchor, ("json",)),
    (path, ()),
    (ask, ("json",)),
):
    command(app, _function, _forms)
