"""Shared by all tests. It sets the environment before anything imports LiteLLM."""

import os
import signal

from hypothesis import settings

# Otherwise `import litellm` fetches its price map over the network and swaps it while tests run.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

# A time limit per example says more about the machine than about the code.
settings.register_profile("ledger", deadline=None)
settings.load_profile("ledger")

# A shell that starts us in the background has SIGINT ignored, and every child would inherit that:
# no Ctrl-C to test.  A handler of ours is none after exec, so children begin with the default.
signal.signal(signal.SIGINT, signal.default_int_handler)
