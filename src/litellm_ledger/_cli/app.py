"""The ``litellm-ledger`` command: which commands there are, and what it does without one.

Owns the list.  What a command takes and prints is in the module that is named beside it, which is
imported when the command is called; the flags that they share are ``_cli.flags``'s.  Only ``ask``
and ``doctor --litellm`` import LiteLLM, and only when they run.

Exit status: 0 fine, 1 something is lost, damaged or needs attention, 2 wrong usage or cannot be
read.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.exceptions import Exit

from litellm_ledger import __version__
from litellm_ledger._reports.places import is_url

from .flags import FORMS, HELP, command, complain, home

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click.shell_completion import CompletionItem

__all__ = ["app"]

_DEFAULT: Final = "daily"
_OURS: Final = ("-h", "--help", "--version")
_PLAIN_FLAGS: Final = ("-j", "--json", "-q", "--quiet", "--no-color", "--csv", "--md")
"""Flags of many commands that take no value."""
_COMMANDS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "daily": ("reports", FORMS),
    "weekly": ("reports", FORMS),
    "monthly": ("reports", FORMS),
    "hourly": ("reports", FORMS),
    "report": ("reports", FORMS),
    "top": ("reports", FORMS),
    "html": ("reports", ()),
    "serve": ("serving", ()),
    "statusline": ("now", ("json",)),
    "watch": ("now", ()),
    "calls": ("records", FORMS),
    "show": ("records", ("json",)),
    "tail": ("records", ("json",)),
    "records": ("records", ("json",)),
    "sql": ("sql", FORMS),
    "export": ("records", ()),
    "alerts": ("alerts", ("json",)),
    "metrics": ("metrics", ()),
    "budgets": ("budgets", ("json",)),
    "doctor": ("health", ("json",)),
    "verify": ("verify", ("json",)),
    "recover": ("health", ("json",)),
    "acknowledge": ("audits", ("json",)),
    "compact": ("health", ("json",)),
    "reprice": ("prices", ("json",)),
    "seal": ("seals", ("json",)),
    "anchor": ("seals", ("json",)),
    "erase": ("erasures", ("json",)),
    "backup": ("backups", ("json",)),
    "prune": ("prunes", ("json",)),
    "database": ("database", ("json",)),
    "ship": ("shipping", ("json",)),
    "path": ("health", ()),
    "ask": ("health", ("json",)),
    "completion": ("completion", ()),
}
"""Where a command's function is, which has its name, and the forms that it prints in."""
_MORE: Final[dict[str, dict[str, tuple[str, tuple[str, ...]]]]] = {
    "budgets": {"release": ("budgets", ("json",)), "simulate": ("budgets", ("json",))},
    "database": {
        "init": ("database", ("json",)),
        "migrate": ("database", ("json",)),
        "check": ("database", ("json",)),
        "rebuild": ("database", ("json",)),
    },
}
"""Commands that begin with the word of another: ``budgets simulate``."""


class _Commands(click.Group):
    """The commands; without one, ``daily``, which also takes a directory or flags alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - Click's
        """Return the names, in the order of the help."""
        return list(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - Click's
        cmd_name: str,
    ) -> click.Command | None:
        """Build the command, of a module that is imported now."""
        if cmd_name not in _COMMANDS:
            return None
        made = _made(cmd_name, *_COMMANDS[cmd_name])
        more = _MORE.get(cmd_name)
        return made if more is None else _Several(made, more)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command before a directory or flags."""
        first = args[0] if args else ""
        path = home(Path(first)) or Path()
        completing = ctx.resilient_parsing
        if first in _OURS or first in _COMMANDS or (completing and not args):
            pass
        elif not completing and (named := _behind_flags(args)) is not None:
            flags = " ".join(args[: args.index(named)])
            complain(f"flags follow the command: litellm-ledger {named} {flags}")
            raise Exit(2)
        elif not args or first.startswith("-") or is_url(first) or path.is_dir():
            args = [_DEFAULT, *args]
        elif not completing and len(path.parts) + first.endswith("/") > 1:  # looks like no command
            complain(f"there is no directory {first}; litellm-ledger --help lists the commands")
            raise Exit(2)
        elif not completing and (near := _near(first, _COMMANDS)) is not None:
            complain(f"there is no command {first}; did you mean {near}?")
            raise Exit(2)
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the first word: a command, or a flag, which the default command has too."""
        found = super().shell_complete(ctx, incomplete)
        default = self.get_command(ctx, _DEFAULT)
        if default is not None and incomplete.startswith("-"):
            theirs = default.shell_complete(click.Context(default, parent=ctx), incomplete)
            known = {item.value for item in found}
            found += [item for item in theirs if item.value not in known]
        return found


class _Several(click.Group):
    """A command, and others whose names begin with its name."""

    def __init__(self, first: click.Command, more: dict[str, tuple[str, tuple[str, ...]]]) -> None:
        super().__init__(
            first.name, help=first.help, short_help=first.short_help, context_settings=HELP
        )
        first.epilog = f"Also: {', '.join(f'{first.name} {name}' for name in more)}."
        self._first = first
        self._more = more

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - Click's
        """Return the second words."""
        return list(self._more)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - Click's
        cmd_name: str,
    ) -> click.Command | None:
        """Build the command of a second word."""
        return _made(cmd_name, *self._more[cmd_name]) if cmd_name in self._more else None

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Without a second word, it is the first command that runs."""
        first = args[0] if args else ""
        if first in self._more:
            return super().make_context(info_name, args, parent, **extra)
        near = None if first.startswith("-") or Path(first).exists() else _near(first, self._more)
        if near is not None and not extra.get("resilient_parsing"):
            complain(f"there is no command {self.name} {first}; did you mean {self.name} {near}?")
            raise Exit(2)
        return self._first.make_context(info_name, args, parent, **extra)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a second word, or what the first command takes."""
        return [
            *super().shell_complete(ctx, incomplete),
            *self._first.shell_complete(click.Context(self._first, parent=ctx), incomplete),
        ]


def _behind_flags(args: list[str]) -> str | None:
    """Return the command that comes after flags which take no value; a directory is none."""
    if not args or args[0] not in _PLAIN_FLAGS:
        return None
    name = next((one for one in args if one not in _PLAIN_FLAGS), "")
    return name if name in _COMMANDS and not Path(name).exists() else None


def _near(word: str, names: Iterable[str]) -> str | None:
    """Return the name that somebody may have meant."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, [*names], n=1)), None)


def _made(name: str, module: str, forms: tuple[str, ...]) -> click.Command:
    return command(name, getattr(import_module(f".{module}", __package__), name), forms)


def _version(_context: object, _parameter: object, asked: bool) -> None:
    if asked:
        sys.stdout.write(f"litellm-ledger {__version__}\n")
        raise Exit


app = _Commands(
    help="""Show what language-model calls used and cost, from the ledger.

    Without a command, daily runs.
    """,
    context_settings=HELP,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version and exit.",
        )
    ],
)
