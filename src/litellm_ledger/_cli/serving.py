"""The command ``serve``: the dashboard on this machine.

Owns its words and flags.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from .flags import place
from .parameters import option
from .tables import write

if TYPE_CHECKING:
    from litellm_ledger._reports.ledger import Ledger

__all__ = ["serve"]


def serve(
    ledger: Ledger,
    host: Annotated[str, option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, option(help="Port to listen on; 0: any that is free.")] = 8321,
    viewer: Annotated[
        str | None,
        option(
            metavar="MODULE:NAME",
            help="The function that says who is asking (docs/dashboard.md). Without it, everybody "
            "with the printed address sees everything.",
        ),
    ] = None,
    no_token: Annotated[
        bool, option(help="Let every user of this machine in, without the token.")
    ] = False,
) -> int:
    """Serve the dashboard in a browser on this machine, until Ctrl-C."""
    from litellm_ledger._web.serving import address, is_loopback, listen, new_token, run

    if len(ledger.places) > 1:
        raise ValueError("serve one ledger at a time, each on a --port of its own")
    ledger.segments()
    if not is_loopback(host) and viewer is None:
        raise ValueError(
            f"--host {host} can be reached from other machines: give --viewer MODULE:NAME, the "
            "function that says who is asking"
        )
    see = None if viewer is None else _function(viewer)
    token = None if no_token or see is not None else new_token()
    with listen(host, port) as sock:
        where = address(host, sock.getsockname()[1], token)
        write(f"{place(ledger)} is served at {where}")
        write("Ctrl-C ends.")
        sys.stdout.flush()
        (shown,) = ledger.places
        path = str(shown) if isinstance(shown, Path) else shown.url
        run(path, sock, host=host, viewer=see, token=token)
    return 0


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"--viewer {name!r}: write MODULE:NAME, such as myapp.usage:viewer")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError as exc:
        raise ValueError(f"--viewer {name}: {exc}") from None
    if not callable(found):
        raise ValueError(f"--viewer {name}: there is no such function in {module}")
    return found
