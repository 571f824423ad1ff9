"""``alerts``: each condition, its neighbours that are none, and the webhook that hears once."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import HandMade
from tests.terminal import run, told
from tests.webhooks import Hook

from litellm_ledger import Ledger, LedgerError
from litellm_ledger._reports import doctor as _doctor
from litellm_ledger._reports import webhook as _webhook
from litellm_ledger._reports.alerts import Alert, find_alerts
from litellm_ledger._runtime import webhook as _sending
from litellm_ledger._storage import claims as _claims

NOW = datetime(2025, 3, 31, 10, 40, tzinfo=UTC)
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path / "usage")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(_sending.KEY, "secret")
    monkeypatch.setattr(_sending.time, "sleep", lambda _: None)


def checks(hand: HandMade, **how: Any) -> list[str]:
    return [alert.check for alert in find_alerts(Ledger(hand.root), now=NOW, **how)]


def test_a_budget_is_over_when_more_was_spent(hand: HandMade) -> None:
    hand.filled(
        {"ts": NOW, "cost": Decimal(2)},
        {"ts": NOW - HOUR, "cost": Decimal(3)},
        {"ts": NOW - DAY, "cost": Decimal(90)},
    )
    assert checks(hand) == []
    assert checks(hand, day_over=Decimal(5), hour_over=Decimal(3)) == []
    assert checks(hand, day_over=Decimal("4.99")) == ["day over"]
    assert checks(hand, hour_over=Decimal("1.99")) == ["hour over", "hour over"]
    (alert,) = find_alerts(Ledger(hand.root), now=NOW, hour_over=Decimal("2.5"))
    assert alert.window == "2025-03-31T09:00+00:00"
    assert alert.text == "$3.00 spent in the hour of 2025-03-31T09:00+00:00, more than $2.50"


@pytest.mark.parametrize(
    ("weeks", "now", "unusual"),
    [
        ([10, 11, 9, 10, 12, 10, 9, 11], 40, True),
        ([10, 11, 9, 10, 12, 10, 9, 11], 29, False),
        ([10, 10, 10, 10, 10, 10, 10, 500], 40, True),  # one expensive week moves nothing
        ([10, 30, 50, 70, 20, 40, 60, 80], 180, False),  # it varies that much
        ([0, 0, 0, 0, 0], 2, True),
        ([0, 0, 0, 0, 0], 1, False),
        ([10, 10, 10], 900, False),  # too little is known
    ],
)
def test_an_hour_is_unusual_against_the_same_hour_of_other_weeks(
    hand: HandMade, weeks: list[int], now: int, unusual: bool
) -> None:
    lines = [{"ts": NOW - WEEK * back, "cost": Decimal(cost)} for back, cost in enumerate(weeks, 1)]
    others = [{"ts": NOW - WEEK * back - 5 * HOUR, "cost": Decimal(1000)} for back in range(1, 4)]
    if not weeks[0]:
        others.append({"ts": NOW - WEEK * 6, "cost": Decimal(0)})
    hand.filled(*lines, *others, {"ts": NOW, "cost": Decimal(now)})
    assert checks(hand) == (["unusual hour"] if unusual else [])


def test_a_model_without_a_price_is_new_once(hand: HandMade) -> None:
    hand.filled(
        {"ts": NOW - 2 * DAY, "model": "old", "status": "ok"},
        {"ts": NOW, "model": "old", "status": "ok"},
        {"ts": NOW, "model": "n\x1bew", "status": "ok"},
        {"ts": NOW, "model": "priced", "status": "ok", "cost": Decimal(1)},
    )
    (alert,) = find_alerts(Ledger(hand.root), now=NOW)
    assert (alert.check, alert.about, alert.window) == ("prices", "n\x1bew", "2025-03-31")
    assert "n\\x1bew" in alert.text


def test_unsettled_calls_and_what_doctor_warns_of_are_alerts(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.filled({"ts": NOW, "status": "unsettled"})
    assert checks(hand) == ["unsettled"]
    monkeypatch.setattr(_doctor, "_LITTLE_SPACE", 2**62)
    assert checks(hand) == ["unsettled", "disk space"]


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


ONE = Alert(check="day over", window="2025-03-31", text="one")
TWO = Alert(check="prices", about="m", window="2025-03-31", text="two")


def test_each_alert_is_sent_once_for_its_window_and_signed(hook: Hook, tmp_path: Path) -> None:
    assert _webhook.send(tmp_path, [ONE], hook.url) == 1
    assert _webhook.send(tmp_path, [ONE], hook.url) == 0
    assert _webhook.send(tmp_path, [ONE, TWO], hook.url) == 1
    later = Alert(check="day over", window="2025-04-01", text="one")
    assert _webhook.send(tmp_path, [later], hook.url) == 1
    assert _webhook.send(tmp_path / "other", [ONE], hook.url) == 1
    assert _webhook.send(tmp_path, [ONE], hook.url + "2") == 1
    assert _webhook.send(tmp_path, [], hook.url) == 0
    texts = [[one["text"] for one in json.loads(body)["alerts"]] for _, body in hook.got]
    assert texts == [["one"], ["two"], ["one"], ["one"], ["one"]]
    headers, body = hook.got[0]
    signed = headers["X-Ledger-Timestamp"].encode() + b"." + body
    expected = "sha256=" + hmac.new(b"secret", signed, "sha256").hexdigest()
    assert headers["X-Ledger-Signature"] == expected
    assert len({json.loads(body)["alerts"][0]["id"] for _, body in hook.got}) == 4


def test_it_is_tried_three_times_and_again_by_the_next_run(hook: Hook, tmp_path: Path) -> None:
    hook.statuses = [503, 429]
    assert _webhook.send(tmp_path, [ONE], hook.url) == 1
    assert len(hook.got) == 3
    hook.statuses = [500, 500, 500]
    with pytest.raises(LedgerError, match=r"127\.0\.0\.1 was not reached: status 500") as failed:
        _webhook.send(tmp_path, [TWO], hook.url)
    assert "secret" not in str(failed.value)
    hook.statuses = [404]
    with pytest.raises(LedgerError, match="status 404"):
        _webhook.send(tmp_path, [TWO], hook.url)
    hook.statuses = [302]
    with pytest.raises(LedgerError, match="status 302"):
        _webhook.send(tmp_path, [TWO], hook.url)
    assert len(hook.got) == 8, "what will not change is not tried again, no redirect is followed"
    assert _webhook.send(tmp_path, [TWO], hook.url) == 1


def test_nothing_is_sent_that_cannot_be_signed_or_remembered(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("file:///etc/passwd", "ftp://h/x", "nonsense", "https://"):
        with pytest.raises(ValueError, match="https://"):
            _webhook.send(tmp_path, [ONE], url)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(LedgerError, match="nothing was sent"):
        _webhook.send(tmp_path, [ONE], hook.url)
    monkeypatch.delenv(_sending.KEY)
    with pytest.raises(ValueError, match=r"\$LITELLM_LEDGER_WEBHOOK_KEY"):
        _webhook.send(tmp_path, [ONE], hook.url)
    assert hook.got == []


def test_several_runs_at_once_send_it_once(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = threading.Event()  # never set: each run takes a while between reading and writing
    monkeypatch.setattr(_claims.os, "fsync", lambda _: slow.wait(0.05))
    counts: list[int] = []
    runs = [
        threading.Thread(target=lambda: counts.append(_webhook.send(tmp_path, [ONE], hook.url)))
        for _ in range(8)
    ]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert sum(counts) == 1
    assert len(hook.got) == 1


def test_the_command_has_a_status_and_prints_what_it_sent(hook: Hook, hand: HandMade) -> None:
    hand.filled({"ts": datetime.now(UTC), "cost": Decimal(2)})
    assert told("alerts", hand.root) == "OK: nothing to alert.\n"
    done = run("alerts", hand.root, "--day-over", "1.5", "--webhook", hook.url)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0].startswith("day over: $2.00 spent on ")
    assert done.stdout.splitlines()[-1] == "1 alert sent."
    plain = json.loads(run("alerts", hand.root, "--day-over", "1.5", "--json").stdout)
    assert (plain["ok"], plain["sent"], len(plain["alerts"])) == (False, None, 1)
    hook.statuses = [404]
    done = run("alerts", hand.root, "--hour-over", "1", "--webhook", hook.url)
    assert done.exit_code == 1
    assert "was not reached" in done.stderr
    assert "hour over" in done.stdout
    for wrong in ("much", "-1", "nan", "inf"):
        done = run("alerts", hand.root, f"--day-over={wrong}")
        assert (done.exit_code, done.stdout) == (2, "")
