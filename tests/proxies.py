"""LiteLLM's own proxy as a process: a server that nobody here wrote.

Its models answer by LiteLLM's `mock_response`; it needs no key, no network and no database. It
keeps a log of its own (`proxy_log.py`), one line for each attempt.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
from tests.ports import free_port

PROXY_PYTHON = Path(__file__).parents[1] / ".venv-proxy" / "bin" / "python"
"""Of `make proxy`: the proxy pins another LiteLLM than the one under test."""
KEY = "sk-of-the-tests"
START = 100.0
"""Seconds that it may take: it imports for 5 to 20 s."""
LOG = 30.0
"""Seconds that its log may lag behind its answers."""


def _model(name: str, model: str, answer: Any) -> dict[str, Any]:
    params = {"model": model, "api_key": "none", "mock_response": answer}
    return {"model_name": name, "litellm_params": params}


CONFIG = {
    "model_list": [
        _model("gpt-4o-mini", "openai/gpt-4o-mini", "an answer that nobody had to think of"),
        _model("claude-sonnet-4-5", "anthropic/claude-sonnet-4-5", "another answer"),
        _model("text-embedding-3-small", "openai/text-embedding-3-small", [0.25, 0.5]),
        _model("busy", "openai/gpt-4o-mini", "litellm.RateLimitError"),
        _model("down", "openai/gpt-4o-mini", "litellm.InternalServerError"),
    ],
    "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    "litellm_settings": {"callbacks": "proxy_log.log", "num_retries": 0},
    "general_settings": {"master_key": KEY},
}


class Proxy:
    """`litellm --config ...` on a free port of the loopback; `close()` ends it."""

    def __init__(self, directory: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = directory / "attempts.jsonl"
        self._output = directory / "output.txt"
        config = directory / "config.yaml"
        config.write_text(json.dumps(CONFIG))  # JSON is YAML
        shutil.copy(Path(__file__).with_name("proxy_log.py"), directory)
        environment = {
            **os.environ,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "PROXY_LOG": str(self._log),
            "NO_PROXY": "127.0.0.1",
        }
        environment.pop("DATABASE_URL", None)
        port = self.url.rpartition(":")[2]
        start = "import sys; from litellm import run_server; sys.exit(run_server())"
        options = ["--config", str(config), "--host", "127.0.0.1", "--port", port]
        # A pooled connection must not close under a call that comes back to it later.
        options += ["--keepalive_timeout", "3600", "--telemetry", "False"]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [PROXY_PYTHON, "-c", start, *options],
                cwd=directory,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + START
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            while time.monotonic() < end and self._process.poll() is None:
                try:
                    if http.get(f"{self.url}/health/readiness").is_success:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
        raise RuntimeError("the proxy did not start:\n" + self._output.read_text()[-4_000:])

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def attempts(self, ids: set[str]) -> list[dict[str, Any]]:
        """The lines of its log with these call ids; waits until each has one."""
        end = time.monotonic() + LOG
        while True:
            lines = self._log.read_text().splitlines() if self._log.exists() else []
            found = [line for line in map(json.loads, lines) if line["id"] in ids]
            if {line["id"] for line in found} == ids or time.monotonic() > end:
                return found
            time.sleep(0.1)
