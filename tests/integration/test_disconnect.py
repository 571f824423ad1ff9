"""A reader that goes away in the middle of a `StreamingResponse`, under a real uvicorn.

The application is `disconnect_server.py`; the reader disconnects, and the provider (an
`OpenAIServer`) tells what became of its own connection.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.integration.test_fastapi import Uvicorn

from litellm_ledger import Ledger
from litellm_ledger.testing import Behaviour, OpenAIServer

READERS = 5
LEFT_AT = 3
CHUNKS = 20
APP = "tests.integration.disconnect_server:app"


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.mark.parametrize(("how", "loop"), [("close", "uvloop"), ("drain", "asyncio")])
def test_readers_that_disconnect_in_mid_stream(
    provider: OpenAIServer, tmp_path: Path, how: str, loop: str
) -> None:
    server = Uvicorn(
        APP, "--loop", loop, LEDGER=str(tmp_path), UPSTREAM=provider.base_url, ABANDONED=how
    )
    try:
        for number in range(READERS):
            # One that is closed must not have come to its end by itself before that.
            hang = CHUNKS // 2 if how == "close" else None
            behaviour = Behaviour(chunks=CHUNKS, chunk_delay=0.02, hang_after=hang)
            params = {"user": f"reader-{number}", "behaviour": behaviour.header()}
            with httpx.Client(timeout=30, trust_env=False) as http:  # one connection a reader
                with http.stream("POST", f"{server.url}/stream", params=params) as response:
                    lines = response.iter_lines()
                    assert [next(lines) for _ in range(LEFT_AT)]
        served = provider.wait_for(
            lambda served: sum(request.ended is not None for request in served) == READERS, 20.0
        )
        server.send(signal.SIGTERM)
        assert server.status() == -signal.SIGTERM
    finally:
        server.close()
    records = list(Ledger(tmp_path).records())
    assert len(records) == READERS
    assert {record.status for record in records} <= {"abandoned", "cancelled"}
    assert all(record.cost and record.input_tokens for record in records)
    if how == "drain":
        assert all(request.finished for request in served)
        assert {record.usage_source for record in records} == {"provider"}
        assert {record.output_tokens for record in records} == {CHUNKS}
    else:
        assert all(request.disconnected for request in served)
        assert {record.usage_source for record in records} == {"estimated"}
        assert all(request.chunks < CHUNKS for request in served)
    assert all(writer.clean for writer in Ledger(tmp_path).verify().writers)
