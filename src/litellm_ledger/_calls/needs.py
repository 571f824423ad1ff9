"""How much of a call's bound is held, by the budgets' mode: all, what is usual, or an estimate.

Owns the choice.  The strictest mode among the budgets that apply to a call decides for all of them,
so that one figure stands on its ``started`` record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from litellm_ledger._budgets.bound import Bound
from litellm_ledger._budgets.budget import Budget
from litellm_ledger._budgets.meter import Meter, with_margin
from litellm_ledger._budgets.usual import Kind, Usual
from litellm_ledger._litellm.calls import Asked
from litellm_ledger._litellm.counting import counter

from .bounds import Bounds

__all__ = ["Need", "Needs"]

_STRICT, _ADAPTIVE, _SOFT = "strict", "adaptive", "soft"


class Need(NamedTuple):
    """What is to be held for one call.

    Attributes:
        bound: its amounts are what is held.
        kind: under which its use is remembered; ``None``: it is not.
        whole: the bound that a part is held of.
        given, made: tokens of input and output that are held.
        pays: whether more is held while the answer streams, and the stream cut if need be.
        limited: whether ``whole.made`` is the most that the call may write.
    """

    bound: Bound
    kind: Kind | None = None
    whole: Bound | None = None
    given: int = 0
    made: int = 0
    pays: bool = False
    limited: bool = True

    def most(self) -> tuple[int | None, int | None]:
        """Picodollars and tokens that the call may use at most, where less is held; else ``None``.

        A stream that can be cut uses no more than is held.
        """
        if self.pays or self.whole is None:
            return None, None
        usd, tokens, held = self.whole.usd, self.whole.tokens, self.bound
        return (
            usd if (usd or 0) > (held.usd or 0) else None,
            tokens if (tokens or 0) > (held.tokens or 0) else None,
        )

    def meter(self) -> Meter:
        """How far the money of its stream reaches."""
        whole = self.whole or self.bound
        return Meter(whole, self.given, self.made, limited=self.limited)


class Needs:
    """What the calls of one client need.

    Args:
        bounds: the client's.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._usual = Usual()
        self._budgets: Sequence[Budget] = ()
        self._modes: frozenset[str] = _ONLY_STRICT

    def of(self, asked: Asked, tags: Mapping[str, str] | None, budgets: Sequence[Budget]) -> Need:
        """Return what is to be held for a call.  Never raises, and never waits."""
        return self._of(asked, tags, budgets, self._bounds.of(asked))

    def counted(
        self, asked: Asked, tags: Mapping[str, str] | None, budgets: Sequence[Budget]
    ) -> Need:
        """The same, with the tokens of the input counted: run it in a thread."""
        count = counter(self._bounds.provider(asked) or "")
        bound = self._bounds.counted(asked, lambda text: with_margin(count(text)))
        return self._of(asked, tags, budgets, bound)

    def _of(
        self,
        asked: Asked,
        tags: Mapping[str, str] | None,
        budgets: Sequence[Budget],
        bound: Bound,
    ) -> Need:
        if budgets is not self._budgets:
            self._budgets, self._modes = budgets, frozenset(one.mode for one in budgets)
        if self._modes == _ONLY_STRICT:
            return Need(bound)
        mode = self._mode(asked.model, tags)
        if mode == _STRICT:
            return self._remembered(asked, bound)
        return self._part(asked, bound, mode)

    def _mode(self, model: str | None, tags: Mapping[str, str] | None) -> str:
        """The strictest mode of the budgets that apply."""
        if len(self._modes) == 1:
            return next(iter(self._modes))
        found = {one.mode for one in self._budgets if one.scope_of(model, tags) is not None}
        return next((mode for mode in (_STRICT, _ADAPTIVE) if mode in found), _SOFT)

    def _remembered(self, asked: Asked, bound: Bound) -> Need:
        if bound.usd is None:
            return Need(bound)
        return Need(bound, kind=self._usual.kind(asked.call.name, asked.model, bound), whole=bound)

    def _part(self, asked: Asked, bound: Bound, mode: str) -> Need:
        kwargs = asked.kwargs
        stream = asked.call.streams or bool(kwargs.get("stream"))
        hidden = stream and mode == _ADAPTIVE and self._bounds.hides_thoughts(asked)
        limited = bound.usd is not None
        if not limited and stream and not hidden and mode == _ADAPTIVE:
            bound = self._bounds.without_limit(asked)
        if bound.usd is None or bound.tokens is None:
            return Need(bound)
        kind = self._usual.kind(asked.call.name, asked.model, bound)
        if hidden:  # what nobody sees cannot be counted while it comes
            return Need(bound, kind=kind, whole=bound)
        pays = stream and mode == _ADAPTIVE and asked.call.reader is not None
        if mode == _ADAPTIVE:
            given, made = self._usual.hold(kind, bound, pays=pays)
        else:
            given, made = self._usual.estimate(kind, bound)
        usd, tokens = bound.costs(given, made), given + made
        if not bound.given + bound.made:  # other units: there is no part of them
            usd, tokens = bound.usd, bound.tokens
        return Need(
            bound._replace(usd=usd, tokens=tokens),
            kind,
            bound,
            given,
            made,
            pays,
            limited,
        )

    def seen(self, need: Need, fields: Mapping[str, Any]) -> None:
        """Remember what a call used, if its provider counted."""
        if need.kind is None or need.whole is None or fields.get("usage_source") != "provider":
            return
        given, made = fields.get("input_tokens"), fields.get("output_tokens")
        if type(given) is int and type(made) is int and fields.get("status") in _WHOLE:
            self._usual.seen(need.kind, need.whole, given, made)


_WHOLE: Final = (None, "ok")
_ONLY_STRICT: Final = frozenset({_STRICT})
