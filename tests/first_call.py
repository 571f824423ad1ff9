"""What LiteLLM imports and builds when the first call is made, and the first stream is read.

A process that forks programs imports it once (`forked.LITELLM`): a second of a core, which each of
them would take.
"""

import contextlib
import importlib

import litellm

from litellm_ledger._litellm.internals import FIRST_CALL

for module in FIRST_CALL:
    with contextlib.suppress(ImportError):  # another version of LiteLLM
        importlib.import_module(module)

# pydantic builds what checks a type when the first object of it is made.
litellm.ModelResponse()
litellm.ModelResponse(stream=True)

# What counts the tokens of a stream that was left.
litellm.token_counter(model="gpt-4o", text="one")
