"""What one answer of the test server looks like, and the header that asks for it.

Owns the options, their limits and their text form. Pure: it never waits, counts or sends.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

HEADER = "x-test-behaviour"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the server answers a request. Every option is off by default.

    A request carries its options in the header `x-test-behaviour`, as in
    `slow=0.5; chunks=20; cut_after=5`. An option that is a flag is written by its name alone.
    `headers()` builds that header. Options not named keep the server's default. "Chunk" means a
    chunk with content, each `words_per_chunk` words long; the role, finish and usage chunks of a
    stream are not counted.

    Attributes:
        slow: Seconds before the answer begins.
        status: HTTP status, 200 or an error 400 to 599 with OpenAI's JSON error body.
        retry_after: Seconds in the `Retry-After` header of an error; None sends no header.
        fail_first: The first N requests with the same header text fail with `status` (500 where
            `status` is 200), the later ones succeed.
        key: Any text; requests with different keys count their `fail_first` apart.
        hang: Never answer, not even a status line, or not before the server's `release()`.
        chunks: Chunks of a stream; `chunks * words_per_chunk` is the length of every answer.
        words_per_chunk: Words in one chunk.
        chunk_delay: Seconds before each chunk.
        hang_after: Send N chunks of the stream, then stay silent, for ever or until the server's
            `release()`.
        cut_after: Send N chunks of the stream, then close the connection, without `[DONE]`. An
            answer that is no stream is cut in the middle of its body, whatever N is.
        error_after: Send N chunks of the stream, then an error event, and end.
        ignore_include_usage: Take no notice of `stream_options.include_usage`.
        usage_on_finish: Asked for usage, put it on the chunk that has the finish reason, as some
            providers do, and send no chunk of its own for it.
        no_usage: Never report usage, in no answer.
        prompt_tokens: Report this many, instead of counting words.
        completion_tokens: Report this many, instead of counting words.
        cached_tokens: Cached tokens, a part of the prompt.
        audio_tokens: Audio tokens, a part of the prompt.
        reasoning_tokens: Reasoning tokens, a part of the completion.
        audio_output_tokens: Audio tokens, a part of the completion.
        tool_calls: Rounds in which a chat that has `tools` is answered by a call of the first one,
            without arguments, in place of text: until the messages hold that many answers of a
            tool. It counts as one word and one chunk.
        response_model: The model name in the answer; None repeats the one asked for.
        service_tier: What the answer says that it was served with.
        cost: US dollars in `usage.cost`, as OpenRouter reports them; None reports none.
        message: The text of an error; None takes the usual one.

    Raises:
        ValueError: An option is out of its range, or two contradict each other.
    """

    slow: float = 0.0
    status: int = 200
    retry_after: float | None = None
    fail_first: int = 0
    key: str | None = None
    hang: bool = False
    chunks: int = 5
    words_per_chunk: int = 1
    chunk_delay: float = 0.0
    hang_after: int | None = None
    cut_after: int | None = None
    error_after: int | None = None
    ignore_include_usage: bool = False
    usage_on_finish: bool = False
    no_usage: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    tool_calls: int = 0
    cached_tokens: int = 0
    audio_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    response_model: str | None = None
    service_tier: str = "default"
    cost: float | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise ValueError(f"{field.name} must not be negative or endless, got {value}")
            if isinstance(value, str) and (";" in value or not value.isprintable()):
                raise ValueError(f"{field.name} cannot hold ';' or control characters: {value!r}")
        if self.status != 200 and not 400 <= self.status <= 599:
            raise ValueError(f"status must be 200 or 400 to 599, got {self.status}")
        for name in ("hang_after", "cut_after", "error_after"):
            value = getattr(self, name)
            if value is not None and value > self.chunks:
                raise ValueError(f"{name}={value} is never reached with chunks={self.chunks}")
        for total, parts in (
            ("prompt_tokens", self.cached_tokens + self.audio_tokens),
            ("completion_tokens", self.reasoning_tokens + self.audio_output_tokens),
        ):
            value = getattr(self, total)
            if value is not None and value < parts:
                raise ValueError(f"{total}={value} is less than its own details, {parts}")

    @classmethod
    def parse(cls, text: str, default: Behaviour | None = None) -> Behaviour:
        """Read the header's text; options not named come from `default`.

        Raises:
            ValueError: An option is unknown, has no or a wrong value, or is out of its range.
        """
        base = cls() if default is None else default
        changes: dict[str, object] = {}
        for option in filter(None, map(str.strip, text.split(";"))):
            name, has_value, value = (part.strip() for part in option.partition("="))
            kind = _KINDS.get(name)
            if kind is None:
                raise ValueError(f"unknown option {name!r}; known are {', '.join(sorted(_KINDS))}")
            if kind is bool:
                if has_value and value not in _TRUTH:
                    raise ValueError(f"{name} is a flag: write {name}, or {name}=true or =false")
                changes[name] = _TRUTH[value] if has_value else True
                continue
            try:
                if not has_value:
                    raise ValueError(f"{name} has no value")
                changes[name] = kind(value)
            except ValueError as exc:
                raise ValueError(f"{option!r}: {name} takes {_ARTICLES[kind]}") from exc
        return replace(base, **changes)  # type: ignore[arg-type]  # checked against _KINDS above

    def header(self) -> str:
        """Return the header's text: the options that differ from the class's defaults."""
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(field.name if value is True else f"{field.name}={value}")
        return "; ".join(parts)

    def headers(self) -> dict[str, str]:
        """Return the header as a mapping, for `extra_headers=`."""
        return {HEADER: self.header()}


_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_ARTICLES = {int: "a whole number", float: "a number", str: "a text"}
_KINDS: dict[str, type[bool | int | float | str]] = {
    field.name: {"bool": bool, "int": int, "float": float, "str": str}[
        str(field.type).partition(" ")[0]
    ]
    for field in fields(Behaviour)
}
