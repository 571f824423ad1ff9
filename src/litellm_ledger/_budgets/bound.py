"""A bound: the most that one call may use, and what it is found from.

Owns the shapes that the rules of ``token_calls`` and ``unit_calls`` work with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.own import ModelPrice

__all__ = ["Asked", "Bound", "Model", "Unbounded", "picousd"]

_PICO: Final = 1_000_000


class Model(NamedTuple):
    """What is known of the model of a call.

    Attributes:
        entries: of the price map: each may price the call, so all of them count.
        own: the user's price, which comes before any other.
        name: as it was asked for.
        provider: LiteLLM's name of it.
        most_in: tokens of input that it takes; ``None``: not known.
        most_out: tokens that it writes; ``None``: not known.
        reasons: whether it thinks before it writes.
    """

    entries: tuple[Entry, ...]
    own: ModelPrice | None
    name: str
    provider: str
    most_in: int | None = None
    most_out: int | None = None
    reasons: bool = False


class Bound(NamedTuple):
    """The most that one call may use; ``None``: without bound.

    Attributes:
        usd: picodollars.
        tokens: input and output.
        calls: 1.
        reason: why there is no bound of one of them, and what to do.
        given, made: tokens of input and output, that the two prices below are for.
        given_price, made_price: of one of them, in 10⁻¹⁸ US dollars.
        fixed: picodollars beside the tokens.
    """

    usd: int | None
    tokens: int | None
    calls: int = 1
    reason: str = ""
    given: int = 0
    made: int = 0
    given_price: int = 0
    made_price: int = 0
    fixed: int = 0

    def costs(self, given: int, made: int) -> int:
        """Return picodollars: of tokens of input and output, and what is fixed; rounded up."""
        return self.fixed + picousd(given * self.given_price + made * self.made_price)


class Unbounded(Exception):
    """A call has no bound; the text says what is missing and what to do."""


class Asked(NamedTuple):
    """A call as the rules see it: ``extra_body`` is among its arguments.

    ``tokens_of`` counts the tokens of a text, where its bytes are not to be taken for them.
    """

    call: str
    kwargs: Mapping[str, Any]
    model: Model
    options: Mapping[str, Any]
    tokens_of: Callable[[str], int] | None = None

    @property
    def entry(self) -> Entry:
        """The entry that prices it.

        Raises:
            Unbounded: there is none.
        """
        if not self.model.entries:
            raise Unbounded(
                f"{self.model.name or self.call} has no price; give it one by prices= of the client"
            )
        return self.model.entries[0]


def picousd(amount: int) -> int:
    """10⁻¹⁸ US dollars as picodollars, rounded up."""
    return -(-amount // _PICO)
