"""How long the dashboard hands an answer out again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.ledger_by_hand import HandMade

from litellm_ledger._web import service as module
from litellm_ledger._web.service import Asked, Reply, Service


@pytest.mark.parametrize(
    ("took", "kept"), [(0.0, 1.0), (0.03, 1.0), (0.1, 3.0), (0.2, 5.0), (60.0, 5.0)]
)
def test_an_answer_that_took_long_is_handed_out_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took: float, kept: float
) -> None:
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(module, "time", clock)
    service = Service(HandMade(tmp_path / "usage").filled({}).root)
    answered: list[Asked] = []

    def answer(asked: Asked) -> Reply:
        answered.append(asked)
        clock.now += took
        return Reply(status=200, type="text/plain", body=b"x" * len(answered))

    service._kinds = {"api": answer}
    asked = Asked(kind="api", what="report", given=[], scope=None)
    other = Asked(kind="api", what="report", given=[], scope={"tenant": ["acme"]})
    assert len(service(asked).body) == 1
    clock.now += kept - 0.001
    assert len(service(asked).body) == 1
    assert len(service(other).body) == 2
    clock.now += 0.002
    assert len(service(asked).body) == 3
