"""One call from the command line.

Owns the event loop of ``litellm-ledger ask`` and the words for a call that failed.  The only module
behind the command line that makes LiteLLM be imported.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from litellm_ledger._errors import LedgerError
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._storage.location import default_directory

__all__ = ["ask_once"]


def ask_once(
    question: str, *, model: str, ledger: Path | None, api_base: str | None
) -> tuple[str, UsageRecord]:
    """Ask; return the answer's text and the record of the call.

    Raises:
        LedgerError: the ledger cannot be used, or the call failed (its record is on the ledger).
    """
    from litellm_ledger import LiteLLMClient
    from litellm_ledger._litellm.load import load

    options: dict[str, Any] = {} if api_base is None else {"api_base": api_base}
    where = ledger or default_directory()

    async def run() -> Any:
        litellm: Any = await load()
        litellm.suppress_debug_info = True  # no banners beside our one line on an error
        async with LiteLLMClient(ledger=where) as client:
            return await client.acompletion(
                model=model, messages=[{"role": "user", "content": question}], **options
            )

    try:
        answer = asyncio.run(run())
    except LedgerError:
        raise
    except Exception as exc:  # whatever LiteLLM raises: its own classes are not ours to list
        text = str(exc).strip().partition("\n")[0]
        raise LedgerError(
            f"the call failed: {type(exc).__name__}: {text} "
            f"(on record: litellm-ledger records {where})"
        ) from exc
    return answer.choices[0].message.content or "", answer.usage_record
