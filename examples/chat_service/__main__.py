"""python examples/chat_service [PORT]: two workers, and a provider of their own without a key."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import uvicorn


def main() -> None:
    with contextlib.ExitStack() as stack:
        if "OPENAI_API_KEY" not in os.environ:
            from litellm_ledger.testing import Behaviour, OpenAIServer

            speech = Behaviour(chunks=40, chunk_delay=0.05, tool_calls=1)
            server = stack.enter_context(OpenAIServer(default=speech))
            os.environ |= {"OPENAI_API_BASE": server.base_url, "OPENAI_API_KEY": "none"}
        port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
        uvicorn.run("app:app", app_dir=str(Path(__file__).parent), port=port, workers=2)


if __name__ == "__main__":
    main()
