"""Whether the database says what the provider saw, call by call."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from machines import Machine

from litellm_ledger import Ledger, UsageRecord

PRICES = {  # US dollars per million tokens: input, cached input, output; typed in by hand
    "gpt-4o-mini": (Decimal("0.15"), Decimal("0.075"), Decimal("0.60")),
    "gpt-4o": (Decimal("2.50"), Decimal("1.25"), Decimal("10.00")),
}
ERRORS = {429: "RateLimitError", 500: "InternalServerError"}  # as LiteLLM calls them
PICO = 10**12  # picodollars in a dollar
SHOWN = 12  # names in one sentence


@dataclass
class Proof:
    """What holds, and what does not."""

    failed: list[str] = field(default_factory=list)

    def check(self, holds: object, claim: str) -> None:
        mark = "   yes  " if holds else "   NO   "
        lines = textwrap.fill(claim, 100, initial_indent=mark, subsequent_indent=" " * 8)
        print(lines, flush=True)
        if not holds:
            self.failed.append(claim)


def price(request: Mapping[str, Any]) -> int:
    """The cost of what the provider says that it has delivered, in picodollars."""
    usage, (fresh, cached, output) = request["usage"], PRICES[request["model"]]
    read = usage["prompt_tokens_details"]["cached_tokens"]
    return int(
        (usage["prompt_tokens"] - read) * fresh * 10**6
        + read * cached * 10**6
        + usage["completion_tokens"] * output * 10**6
    )


def named(names: Iterable[str]) -> str:
    """Some of the names, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more or "none"


def same(record: UsageRecord, request: Mapping[str, Any]) -> bool:
    """Whether a record says of a call what the provider says."""
    usage = request["usage"]
    if request["status"] != 200:
        return record.status == "error" and record.error == ERRORS[request["status"]]
    if usage is None:  # the machine left before the end: nobody said what it has used
        left = request["ended"] == "disconnected" and record.status == "abandoned"
        return left and record.usage_source == "estimated"
    return (
        record.status == "ok"
        and record.usage_source == "provider"
        and record.input_tokens == usage["prompt_tokens"]
        and record.output_tokens == usage["completion_tokens"]
        and record.cost is not None
        and int(record.cost * PICO) == price(request)
    )


class Comparison:
    """What the database has, what the provider has noted, and what the applications have seen."""

    def __init__(
        self, database: str, requests: Sequence[Mapping[str, Any]], machines: Sequence[Machine]
    ) -> None:
        self.proof = Proof()
        self._machines = machines
        self._ledgers = [machine.ledger for machine in machines]
        self._database = database
        self._found = list(Ledger(database).records())
        self._records = {one.tags["call"]: one for one in self._found}
        self._requests = {request["body"]["user"]: request for request in requests}
        self._many = len(requests)
        self._unsettled = {n for n, one in self._records.items() if one.status == "unsettled"}

    def calls(self) -> None:
        """Each request has one record, and each record a request or a reason to have none."""
        refused = {name for machine in self._machines for name in machine.refused}
        unsent = self._records.keys() - self._requests.keys()
        twice = [
            n for n, count in Counter(r.tags["call"] for r in self._found).items() if count > 1
        ]
        self.proof.check(
            self._many == len(self._requests)
            and not twice
            and self._requests.keys() <= self._records.keys()
            and unsent <= refused | self._unsettled
            and all(self._records[name].status == "refused" for name in refused),
            f"{self._many} requests at the provider, {len(self._found)} calls in the database: "
            f"each once, none missing; refused by the budget: {len(refused)}; begun and never "
            f"sent: {len(unsent - refused)}",
        )

    def amounts(self) -> None:
        """Status, tokens and cost of every call that has an outcome."""
        settled = {n: r for n, r in self._requests.items() if n not in self._unsettled}
        wrong = [n for n, r in settled.items() if not same(self._records[n], r)]
        billed = [request for request in settled.values() if request["usage"]]
        records = [one for one in self._found if one.usage_source == "provider"]
        tokens = sum(r["usage"]["total_tokens"] for r in billed)
        ours = sum((one.input_tokens or 0) + (one.output_tokens or 0) for one in records)
        total = sum(map(price, billed))
        cost = sum(int((one.cost or 0) * PICO) for one in records)
        left = sum(one.status == "abandoned" for one in self._found)
        self.proof.check(
            not wrong and (tokens, total) == (ours, cost),
            f"the provider answered {len(billed)} of them with {tokens:,} tokens, {total:,} "
            f"picodollars by a price list typed by hand; the database has {ours:,} tokens and "
            f"{cost:,} picodollars, the same call by call (differing: {named(wrong)}). {left} "
            "streams were left early, and their tokens are marked as estimated",
        )

    def unsettled(self, killed: Iterable[str]) -> None:
        """What was in flight when a process was killed is named, and nothing else is."""
        billed = [
            name
            for name in self._unsettled
            if self._requests.get(name, {}).get("usage") is not None
        ]
        unknown = sum(price(self._requests[name]) for name in billed)
        self.proof.check(
            self._unsettled and self._unsettled <= set(killed),
            f"in flight when a process was killed, and unsettled in the database: "
            f"{len(self._unsettled)} ({named(self._unsettled)}); the provider had answered "
            f"{len(billed)} of them, for {unknown:,} picodollars",
        )

    def seen(self) -> None:
        """No answer that an application has seen is missing."""
        seen = {name: answer for one in self._machines for name, answer in one.answers.items()}
        lost = [
            name
            for name, answer in seen.items()
            if name not in self._records
            or (answer != "none" and self._records[name].response_id != answer)
        ]
        self.proof.check(
            not lost, f"{len(seen)} outcomes had been seen by applications; lost: {named(lost)}"
        )

    def budget(self, limit: Decimal, feature: str) -> None:
        """The machines together have spent no more than their budget."""
        night = {n: one for n, one in self._records.items() if one.tags["feature"] == feature}
        sent = [self._requests[name] for name in night if name in self._requests]
        spent = sum(price(request) for request in sent if request["usage"])
        machines = Counter(one.tags["machine"] for one in night.values() if one.status == "ok")
        shares = ", ".join(f"{name} {count}" for name, count in sorted(machines.items()))
        self.proof.check(
            0 < spent <= int(limit * PICO)
            and any(one.status == "refused" for one in night.values()),
            f"the {feature} of all machines was billed ${Decimal(spent) / PICO:f} of the ${limit} "
            f"that its budget allows (calls: {shares})",
        )

    def answers(self) -> None:
        """The same question, put to the directories and to the database."""
        keys = ["machine", "model", "status", "user"]
        one = Ledger(self._ledgers).report(keys)
        other = Ledger(self._database).report(keys)
        rows = [report.to_dict()["rows"] for report in (one, other)]
        self.proof.check(
            rows[0] == rows[1],
            f"a report of {len(rows[0])} rows is the same from the three directories and from the "
            "database",
        )
