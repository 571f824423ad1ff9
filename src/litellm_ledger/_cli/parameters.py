"""Parameters of a command: from a function's, with its annotation and default, to Click's.

Owns which type of Click's stands for which of Python's, and how arguments are explained in the
help.  Knows no command and no flag.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args

import click

__all__ = ["Command", "argument", "option", "parameter"]

_TYPES: Final = {
    str: click.STRING,
    int: click.IntRange(min=0),
    Path: click.Path(path_type=Path),
}


def option(*names: str, **given: Any) -> Callable[..., click.Option]:
    """Describe an option in an annotation; without names it is called as the parameter."""

    def make(name: str, **found: Any) -> click.Option:
        declared = names or (f"--{name.replace('_', '-')}",)
        shown = bool(found.get("default"))
        return click.Option([name, *declared], show_default=shown, **given, **found)

    return make


def argument(**given: Any) -> Callable[..., click.Argument]:
    """Describe an argument in an annotation."""
    return lambda name, **found: _Argument([name], **given, **found)


def parameter(
    name: str, default: Any, kind: Any, make: Callable[..., click.Parameter]
) -> click.Parameter:
    """Build an option or an argument from what a function says of a parameter.

    One without a default is required; ``T | None`` is a ``T``.
    """
    required = default is inspect.Parameter.empty
    settings: dict[str, Any] = {"required": required}
    if kind is bool:
        settings["is_flag"] = True
    elif kind == list[str]:
        settings["multiple"] = True
    elif kind == tuple[str, ...]:
        settings |= {"nargs": -1, "type": click.STRING}
        default = ()
    else:
        settings["type"] = next(_TYPES[one] for one in get_args(kind) or (kind,) if one in _TYPES)
    if not required:
        settings["default"] = default
    return make(name, **settings)


class _Argument(click.Argument):
    """An argument that the help explains; Click itself does so from 8.5 on."""

    def __init__(self, names: list[str], **settings: Any) -> None:
        words = settings.pop("help")
        super().__init__(names, **settings)
        self.help = words

    def explained(self) -> tuple[str, str]:
        """Return its name and its help."""
        text = self.help or ""
        if self.required:
            text += "  [required]"
        elif isinstance(self.default, str):
            text += f"  [default: {self.default}]"
        return self.human_readable_name, text


class Command(click.Command):
    """A command whose help lists its arguments before its options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        arguments = [one.explained() for one in self.params if isinstance(one, _Argument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        super().format_options(ctx, formatter)

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing: ``format_options`` has, which every Click calls."""
