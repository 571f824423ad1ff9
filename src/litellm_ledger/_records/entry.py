"""``Line``: the members of a line as they are on disk, and what makes a line a record.

Owns the one answer to the question whether a line with a true checksum holds a record.  Every
reader takes it from here, so that none counts what another calls damage.  Pure.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec

from litellm_ledger._errors import InvalidRecord

from .line import decode
from .money import MAX_PICOUSD, usd
from .record import MAX_CONTENT, MAX_INT, Kind, Reason, Status, UsageSource

__all__ = ["Line", "line_of"]

Number = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_INT)]
Picousd = Annotated[int, msgspec.Meta(ge=-MAX_PICOUSD, le=MAX_PICOUSD)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Line(msgspec.Struct, frozen=True, gc=False, tag_field="v", tag=1):
    """A line as it is on disk.  Its types refuse what ``UsageRecord`` refuses, in a tenth of the
    time that making one takes.
    """

    id: str
    seq: Number
    kind: Kind
    ts: Moment | None = None
    operation: str | None = None
    attempt: Count | None = None
    call: str | None = None
    model: str | None = None
    response_model: str | None = None
    provider: str | None = None
    status: Status | None = None
    error: str | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    total_tokens: Count | None = None
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    images: Count | None = None
    audio_seconds: Seconds | None = None
    characters: Count | None = None
    pages: Count | None = None
    search_units: Count | None = None
    usage_source: UsageSource | None = None
    cost_picousd: Picousd | None = None
    cost_source: str | None = None
    price_version: str | None = None
    cache_hit: bool | None = None
    saved_cost_picousd: Picousd | None = None
    latency_ms: float | None = None
    ttft_ms: float | None = None
    stream: bool | None = None
    tags: dict[str, str] | None = None
    call_id: str | None = None
    response_id: str | None = None
    meta: dict[str, Any] | None = None
    content: dict[str, Any] | None = None
    gap_until: Number | None = None
    reason: Reason | None = None

    @property
    def saved_cost(self) -> Decimal | None:
        """What the answer from a cache did not cost, in US dollars."""
        return None if self.saved_cost_picousd is None else usd(self.saved_cost_picousd)


_decode: Final = msgspec.json.Decoder(Line).decode


def line_of(raw: bytes) -> Line | None:
    """Return the line of bytes whose checksum is true; ``None`` if they hold no record.

    ``decode`` makes a ``UsageRecord`` of every line that this returns.
    """
    try:
        line = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if line.kind != "gap" and (line.gap_until is not None or line.reason is not None):
        return None
    # What no type says, and hardly ever happens: an answer that is too long, a time that is in no
    # year of UTC.
    odd = len(raw) > MAX_CONTENT and line.content is not None
    if odd or (line.ts is not None and line.ts.year in (1, 9999)):
        try:
            decode(raw)
        except InvalidRecord:
            return None
    return line
