"""Alerts of budgets: once a window and threshold, for all processes, whatever the way to tell."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import HandMade
from tests.terminal import run
from tests.webhooks import Hook

from litellm_ledger import Budget, LedgerError
from litellm_ledger._budgets.alerts import BudgetAlert, BudgetAlerts, reached, send
from litellm_ledger._budgets.status import Standing
from litellm_ledger._runtime import webhook as _sending

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
BUDGET = Budget(10, unit="calls", window="day", warn=[0.5, 0.8], per="user")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "segments").mkdir()
    (tmp_path / "budgets").mkdir()
    return tmp_path


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


@pytest.fixture(autouse=True)
def _signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_sending.KEY, "secret")
    monkeypatch.setattr(_sending.time, "sleep", lambda _: None)


def at(settled: int, now: datetime = NOW, budget: Budget = BUDGET, scope: str = "") -> Standing:
    return Standing(budget, scope, budget.window_at(now), settled, 1, 0)


def parts(alerts: BudgetAlerts, settled: int, now: datetime = NOW, **of: Any) -> list[str]:
    """What is told where this much is settled."""
    found = alerts.new([at(settled, now, **of)], now)
    return [str(alert.part) for alert in alerts.tell(found)] if found else []


def test_each_threshold_is_told_once_a_window_and_scope(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[BudgetAlert] = []
    alerts = BudgetAlerts(root, callback=got.append)
    with caplog.at_level(logging.WARNING, "litellm_ledger"):
        assert parts(alerts, 4) == []
        assert parts(alerts, 5) == ["0.5"]
        assert parts(alerts, 6) == []
        assert parts(alerts, 9) == ["0.8"]
        assert parts(alerts, 5, scope="user=b") == ["0.5"]
        assert parts(alerts, 5, NOW + DAY) == ["0.5"]
    assert [alert.part for alert in got] == [Decimal(p) for p in ("0.5", "0.8", "0.5", "0.5")]
    assert caplog.messages[1] == (
        "80 % of the budget calls day per tag:user is spent: 9 calls of 10 calls"
    )
    assert got[0].resets_at == BUDGET.window_at(NOW).end
    assert (got[0].settled, got[0].held, got[0].limit) == (5, 1, 10)


def test_another_process_and_a_restart_tell_nothing_again(root: Path) -> None:
    assert parts(BudgetAlerts(root), 9) == ["0.8"]
    assert parts(BudgetAlerts(root), 9) == []
    assert parts(BudgetAlerts(root), 5) == [], "the lower threshold went with the higher"
    assert parts(BudgetAlerts(root), 9, scope="user=b") == ["0.8"]


def test_a_rolling_window_tells_once_in_its_length(root: Path) -> None:
    budget = Budget(10, unit="calls", window="24h", warn=0.5)
    alerts = BudgetAlerts(root)
    assert parts(alerts, 5, budget=budget) == ["0.5"]
    assert parts(alerts, 5, NOW + DAY / 2, budget=budget) == []
    (again,) = alerts.new([at(5, NOW + DAY, budget)], NOW + DAY)
    assert again.alert.resets_at is None


def test_a_budget_of_dollars_is_told_in_dollars(root: Path) -> None:
    budget = Budget("0.000001", window="total", warn=0.95)
    (found,) = reached([at(10**6, budget=budget)], NOW)
    assert found.alert.text == "95 % of the budget usd total is spent: $0.000001 of $0.000001"
    assert found.alert.resets_at is None
    assert reached([at(10**6, budget=Budget(1))], NOW) == []


def test_a_webhook_gets_each_once_and_what_it_missed_again(
    root: Path, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    alerts = BudgetAlerts(root, webhook=hook.url)
    total = Budget(10, unit="calls", window="total", warn=[0.5, 0.8], per="user")
    hook.statuses = [500, 500, 500]
    with caplog.at_level(logging.WARNING, "litellm_ledger"):
        assert parts(alerts, 5, budget=total) == ["0.5"]
    assert "was not reached: status 500" in caplog.messages[-1]
    assert "secret-path" not in caplog.text
    assert parts(alerts, 5, budget=total) == [], "not at once"
    soon = datetime.now(UTC) + timedelta(minutes=2)  # NOW may be minutes ago
    assert parts(alerts, 5, soon, budget=total) == [], "the log has it"
    assert len(hook.got) == 4
    body = json.loads(hook.got[-1][1])
    assert body["path"] == str(root)
    (one,) = body["budgets"]
    assert (one["part"], one["settled"], one["text"][:4]) == ("0.5", 5, "50 %")
    assert parts(BudgetAlerts(root, webhook=hook.url), 5, budget=total) == []
    assert len(hook.got) == 4


def test_a_callback_that_fails_and_a_disk_that_refuses_stop_nothing(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: BudgetAlert) -> None:
        raise RuntimeError("no")

    assert parts(BudgetAlerts(root, callback=fails), 5) == ["0.5"]
    assert "the callback for alerts of budgets failed" in caplog.text
    (root / "budgets" / "alerts.json").unlink()
    (root / "budgets" / "alerts.json").mkdir()
    assert parts(BudgetAlerts(root), 5) == ["0.5"]
    assert "may be repeated" in caplog.text
    with pytest.raises(LedgerError, match="nothing was sent"):
        send(root, reached([at(5)], NOW), "http://127.0.0.1:1/")


def test_an_address_that_is_none_is_refused_when_it_is_given(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="budget_webhook takes an address"):
        BudgetAlerts(root, webhook="file:///etc/passwd")
    monkeypatch.delenv(_sending.KEY)
    with pytest.raises(ValueError, match="needs a key"):
        BudgetAlerts(root, webhook="https://example.org/")


def test_the_command_sends_new_alerts_once(tmp_path: Path, hook: Hook) -> None:
    hand = HandMade(tmp_path / "usage").filled({"ts": NOW, "cost": Decimal("0.6")})
    (hand.root / "segments").chmod(0o2770)
    file = tmp_path / "budgets.toml"
    file.write_text('[[budget]]\nlimit = 1\nwindow = "total"\nwarn = [0.5]\n')
    arguments = ("budgets", hand.root, "--budgets", file, "--webhook", hook.url)
    done = run(*arguments)
    assert (done.exit_code, "1 alert sent." in done.stdout) == (1, True), done.stderr
    assert (hand.root / "budgets").stat().st_mode & 0o770 == 0o770, "the group may write there too"
    done = run(*arguments)
    assert (done.exit_code, "sent" in done.stdout) == (1, False)
    assert len(hook.got) == 1
    hook.statuses = [404]
    file.write_text(file.read_text().replace("0.5", "0.6"))
    done = run(*arguments)
    assert done.exit_code == 1
    assert "status 404" in done.stderr
    assert "is at 60 %" in done.stdout
