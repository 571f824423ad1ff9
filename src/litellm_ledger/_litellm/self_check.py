"""The self-check of the seam: does recording work with the LiteLLM that is installed?

Owns the result and the child process that finds it (``_selfcheck.run``).  The check runs in a
process of its own, against a server on 127.0.0.1 and a temporary ledger: it never touches the
caller's LiteLLM, its globals or its ledger, and needs no key and no network.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from litellm_ledger._errors import LedgerError, MissingExtra

__all__ = ["CheckedCall", "LiteLLMCheck", "Mismatch", "check_litellm"]

_SECONDS: Final = 300.0
"""The check takes 5 to 20 s.  A LiteLLM that hangs must not hang a CI job."""
_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy"})


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """What is not as it should be.

    Attributes:
        what: a field of the record; or ``records``, ``started records``, ``outcome of the call``.
        expected: what belongs there, as text.
        found: what was there, as text.
    """

    what: str
    expected: str
    found: str


class CheckedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One way to make one kind of call.

    Attributes:
        call: LiteLLM's name of the call, ``acompletion``.
        via: who made it: ``client`` (ours), ``capture`` (LiteLLM itself, while a client captures)
            or ``client, capture on``.
        ending: ``answer``, ``stream``, ``failure``, ``cancelled``, ``stream left``, ``stream cut``.
        mismatches: what is wrong with its record; empty: nothing.
        install: what to give to ``pip install`` for a package that LiteLLM needs for this call and
            that is missing.  Then the call was not checked.
    """

    call: str
    via: str
    ending: str
    mismatches: tuple[Mismatch, ...] = ()
    install: str | None = None

    @property
    def state(self) -> str:
        """``ok``, ``wrong`` or ``not checked``."""
        return "not checked" if self.install else "wrong" if self.mismatches else "ok"


class LiteLLMCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What the self-check found.

    Attributes:
        litellm: the version that was checked.
        python: the version of Python.
        seconds: how long it took, the import of LiteLLM included.
        calls: every call that was made, or could not be made.
    """

    litellm: str
    python: str
    seconds: float
    calls: tuple[CheckedCall, ...]

    @property
    def ok(self) -> bool:
        """Whether every call that could be made is on record once, with the right figures."""
        return not self.wrong and any(call.state == "ok" for call in self.calls)

    @property
    def wrong(self) -> tuple[CheckedCall, ...]:
        """The calls whose record is missing, doubled or has wrong figures."""
        return tuple(call for call in self.calls if call.state == "wrong")

    @property
    def not_checked(self) -> tuple[CheckedCall, ...]:
        """The calls that LiteLLM cannot make here, because a package is missing."""
        return tuple(call for call in self.calls if call.state == "not checked")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, with ``ok`` and the ``state`` of each call."""
        calls = [{**msgspec.to_builtins(call), "state": call.state} for call in self.calls]
        return {"ok": self.ok, **msgspec.to_builtins(self), "calls": calls}


async def check_litellm() -> LiteLLMCheck:
    """Check the installed LiteLLM in a child process; see ``LiteLLMClient.check_litellm``.

    Raises:
        MissingExtra: uvicorn is not installed.
        LedgerError: the child process failed or took longer than 300 s.
    """
    if find_spec("uvicorn") is None:
        raise MissingExtra("uvicorn", "testing")
    with tempfile.TemporaryDirectory(prefix="litellm-ledger-check-") as directory:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from litellm_ledger._selfcheck.run import main; main()",
            directory,
            env=_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(child.communicate(), _SECONDS)
        except TimeoutError:
            raise LedgerError(
                f"the check of LiteLLM did not end within {_SECONDS:.0f} s: a call hangs, or this "
                "machine is very busy"
            ) from None
        finally:
            if child.returncode is None:  # it was cancelled, or takes too long
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        try:
            content = (Path(directory) / "result.json").read_bytes()
        except OSError:
            *_, said = ["no output", *output.decode("utf-8", "replace").strip().splitlines()]
            raise LedgerError(
                f"the check of LiteLLM failed (exit status {child.returncode}): {said}"
            ) from None
        return msgspec.json.decode(content, type=LiteLLMCheck)


def _environment() -> dict[str, str]:
    """The caller's environment and import path, without what would lead off this machine."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}
    kept["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    kept["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    return kept
