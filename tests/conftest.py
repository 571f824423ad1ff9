"""Shared by all tests. It sets the environment before anything imports LiteLLM."""

import os

# Otherwise `import litellm` fetches its price map over the network and swaps it while tests run.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
