"""Ledgers whose records were priced by entries in their price book."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.ledger_by_hand import WRITER, HandMade

from litellm_ledger import ModelPrice
from litellm_ledger._prices.computed import compute
from litellm_ledger._prices.entry import Entry
from litellm_ledger._storage.filesystem import REAL
from litellm_ledger._storage.price_book import PriceBook

MAP = Entry(
    "gpt-4o-mini",
    {
        "input_cost_per_token": 1.5e-07,
        "output_cost_per_token": 6e-07,
        "cache_read_input_token_cost": 7.5e-08,
        "litellm_provider": "openai",
        "mode": "chat",
    },
)
OWN = ModelPrice(input="0.2", output="0.6", web_search="0.01")
CALL = ModelPrice(request="0.00123")


class PricedLedger(HandMade):
    """A writer whose lines are priced."""

    def __init__(self, root: Path, writer: str = WRITER) -> None:
        super().__init__(root, writer)
        book = PriceBook(REAL, root)
        book.add(MAP.version, MAP.text, "1.110.2")
        for own in (OWN, CALL):
            book.add(own.version, own.text)
        book.write()

    def priced(self, seq: int, by: Entry | ModelPrice, **fields: Any) -> bytes:
        source = "price_map" if isinstance(by, Entry) else "user"
        given = {"status": "ok", "usage_source": "provider", **fields}
        cost = compute(by, given).cost
        paid = (
            {"saved_cost": cost, "cost": Decimal(0)} if given.get("cache_hit") else {"cost": cost}
        )
        more = {"price_version": by.version, "cost_source": source, **paid}
        return self.line(seq, **{**more, **given})

    def mixed(self, count: int) -> Iterator[bytes]:
        """Records of all kinds, in turn: three of seven are priced by entries that are kept."""
        for seq in range(1, count + 1):
            tokens = {"input_tokens": seq * 37 % 5_000, "output_tokens": seq * 11 % 900}
            what = seq % 7
            if what < 2:
                yield self.priced(seq, MAP, model="gpt-4o-mini", **tokens)
            elif what == 2:
                meta = {"tools": {"web_searches": seq % 3}, "litellm": "1.110.2"}
                yield self.priced(seq, OWN, model="own", meta=meta, **tokens)
            elif what == 3:
                yield self.priced(
                    seq, MAP, cache_hit=True, model="gpt-4o-mini", cache_read_tokens=0, **tokens
                )
            elif what == 4:
                yield self.priced(seq, CALL, model="call", **tokens)
            elif what == 5:
                version = "litellm-1.106.2+3f2a9c1d"
                yield self.line(seq, cost=Decimal(1), cost_source="litellm", price_version=version)
            else:
                yield self.line(seq, status="error", error="RateLimitError")
