"""Public helpers for users' own tests; owns only the names and where they live.

Nothing is imported until it is asked for: `import litellm_ledger.testing` loads neither a web
server nor LiteLLM. A helper whose package is missing says which extra brings it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from litellm_ledger._errors import MissingExtra

if TYPE_CHECKING:
    from litellm_ledger.testing._behaviour import Behaviour
    from litellm_ledger.testing._disk import FaultyFileSystem, Killed
    from litellm_ledger.testing._journal import ServedRequest
    from litellm_ledger.testing._server import OpenAIServer

__all__ = ["Behaviour", "FaultyFileSystem", "Killed", "OpenAIServer", "ServedRequest"]

_HOMES = {
    "Behaviour": "_behaviour",
    "FaultyFileSystem": "_disk",
    "Killed": "_disk",
    "OpenAIServer": "_server",
    "ServedRequest": "_journal",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{home}")
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package in {"", __name__.partition(".")[0]}:
            raise
        raise MissingExtra(package, "testing") from exc
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
