"""How many tokens the arguments of a call come to at most, before anybody has counted them.

Owns the counting by bytes: a token of a byte-level vocabulary is at least one byte of the text, so
the bytes of a text are never fewer than its tokens; what providers put around messages, members and
tools is a constant each.  Pure; nothing raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["Weight", "plain_tokens"]

_REQUEST: Final = 256
"""Tokens that a provider puts around a conversation; the longest known (gpt-oss) is about 80."""
_ITEM: Final = 8
"""Bytes around a member or an item, as JSON has them, indented too."""
_MESSAGE: Final = 16
_TOOL: Final = 64
_TOOLS: Final = 1_024
"""What tools of any kind add: Anthropic's instructions for them are 804 tokens at most
(https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview)."""
_DEEPEST: Final = 100
_PASS: Final = "surrogatepass"

_IMAGES: Final = frozenset({"image", "image_url", "input_image"})
_SOUNDS: Final = frozenset({"audio", "audio_url", "input_audio"})
_FILES: Final = frozenset(
    {
        "container_upload",
        "document",
        "document_url",
        "file",
        "fileData",
        "file_data",
        "file_id",
        "file_uri",
        "file_url",
        "image_file",
        "inlineData",
        "inline_data",
        "input_file",
        "item_reference",
        "video",
        "video_url",
    }
)
_MEDIA: Final = _IMAGES | _SOUNDS | _FILES
_NONE: Final = frozenset[str]()
_ARGUMENTS: Final = frozenset({"args", "arguments", "input", "output", "response"})
"""Members of a call of a function: whatever they are called, they are text."""
_CALLS: Final = frozenset(
    {"function_call", "function_call_output", "server_tool_use", "tool_use", "functionCall"}
)


class Weight:
    """What arguments come to.

    Attributes:
        tokens: of text, at most; without what the other attributes stand for.
        images: how many there are.
        sounds: bytes of audio that is given inline, as base64.
        unknown: what has a size that nobody knows: a file, a conversation that the provider has.
        characters: bytes of the text alone.
        items: how many texts or messages there are.

    Args:
        count: counts the tokens of a text, where its bytes are not to be taken for them.
    """

    __slots__ = ("_count", "characters", "images", "items", "sounds", "tokens", "unknown")

    def __init__(self, count: Callable[[str], int] | None = None) -> None:
        self._count = count
        self.tokens = _REQUEST
        self.images = 0
        self.sounds = 0
        self.unknown = ""
        self.characters = 0
        self.items = 0

    def read(self, value: Any) -> None:
        """Add what a model reads: texts, messages, parts of messages."""
        if type(value) is list:
            first = value[0] if value else None
            if type(first) is int:  # numbers of tokens
                self.tokens += len(value) + _MESSAGE
                self.items += 1
                return
            for item in value:
                self.tokens += _MESSAGE
                self.items += 1
                self._part(item, 0)
        else:
            self.items += 1
            self.tokens += _MESSAGE
            self._part(value, 0)

    def add_plain(self, value: Any) -> None:
        """Add what goes along as text, whatever its members are called: formats, choices."""
        self._plain(value, 0)

    def add_tools(self, tools: Any) -> None:
        """Add the definitions of tools."""
        self.tokens += _TOOLS
        for tool in tools if isinstance(tools, (list, tuple)) else (tools,):
            self.tokens += _TOOL
            self._plain(tool, 0)

    def _text(self, text: str) -> None:
        size = len(text) if text.isascii() else len(text.encode("utf-8", _PASS))
        self.characters += size
        self.tokens += size if self._count is None else min(size, self._count(text))

    def _part(self, value: Any, depth: int) -> None:
        kind = type(value)
        if kind is str:
            self._text(value)
        elif kind is dict:
            self._members(value, depth)
        elif kind is list or kind is tuple:
            if value and type(value[0]) is int:
                self.tokens += len(value)
                return
            if depth > _DEEPEST:
                self._unknown("input that is nested too deep")
                return
            for item in value:
                self.tokens += _ITEM
                self._part(item, depth + 1)
        elif value is None or kind is bool:
            self.tokens += 1
        elif kind is int or kind is float:
            self.tokens += _number(value)
        elif isinstance(value, str):
            self._text(str(value))
        else:
            self._other(value, depth)

    def _members(self, value: Mapping[Any, Any], depth: int) -> None:
        kind = value.get("type")
        if not isinstance(kind, str):
            kind = ""
        if depth > _DEEPEST:
            self._unknown("input that is nested too deep")
        elif kind in _IMAGES:
            self._image(value)
        elif kind in _FILES:
            self._file(value, kind)
        else:
            plain = _ARGUMENTS if kind in _CALLS else _NONE
            for name, part in value.items():
                name = str(name)
                self.tokens += _ITEM + (len(name) if name.isascii() else 4 * len(name))
                if part is None:
                    continue
                if name in _MEDIA and name not in plain:
                    self._media(name, part)
                elif name in plain:
                    self._plain(part, depth + 1)
                else:
                    self._part(part, depth + 1)

    def _media(self, name: str, value: Any) -> None:
        if name in _IMAGES:
            self._image(value)
        elif name in _SOUNDS:
            self._sound(value)
        else:
            self._unknown(f"input of the kind {name}")

    def _image(self, value: Any) -> None:
        self.images += 1
        told = value.get("text") if isinstance(value, dict) else None
        if isinstance(told, str):
            self._text(told)

    def _file(self, value: Mapping[str, Any], kind: str) -> None:
        source = value.get("source")
        if kind == "document" and isinstance(source, dict) and source.get("type") == "text":
            self._plain(value, 0)  # Anthropic's plain text
            return
        self._unknown(f"input of the kind {kind}")

    def _sound(self, value: Any) -> None:
        data = value.get("data") if isinstance(value, dict) else None
        if isinstance(data, (str, bytes)):
            self.sounds += len(data)
        else:
            self._unknown("audio that is not given inline")

    def _unknown(self, what: str) -> None:
        self.unknown = self.unknown or what

    def _other(self, value: Any, depth: int) -> None:
        dump = getattr(value, "model_dump", None)
        if isinstance(value, Mapping):
            self._members(dict(value), depth)
        elif callable(dump):
            try:
                self._part(dict(dump(exclude_none=True)), depth + 1)
            except Exception:  # noqa: BLE001 - a foreign object: what it is has no size that is known
                self._unknown(f"input of the type {type(value).__name__}")
        else:
            self._unknown(f"input of the type {type(value).__name__}")

    def _plain(self, value: Any, depth: int) -> None:
        kind = type(value)
        if kind is str:
            self._text(value)
        elif kind is dict and depth <= _DEEPEST:
            for name, part in value.items():
                self.tokens += _ITEM
                self._plain(name, depth + 1)
                self._plain(part, depth + 1)
        elif (kind is list or kind is tuple) and depth <= _DEEPEST:
            for item in value:
                self.tokens += _ITEM
                self._plain(item, depth + 1)
        elif value is None or kind is bool:
            self.tokens += 5
        elif kind is int or kind is float:
            self.tokens += _number(value)
        elif isinstance(value, type):
            self._schema(value)
        else:
            self._as_text(value)

    def _schema(self, model: Any) -> None:
        """A pydantic model that stands for a format: LiteLLM sends its schema."""
        try:
            self._plain(model.model_json_schema(), 1)
        except Exception:  # noqa: BLE001 - a foreign object: what it is has no size that is known
            self._unknown(f"a format of the type {model.__name__}")

    def _as_text(self, value: Any) -> None:
        dump = getattr(value, "model_dump", None)
        try:
            self._text(repr(dump(exclude_none=True) if callable(dump) else value))
        except Exception:  # noqa: BLE001 - a foreign object: what it is has no size that is known
            self._unknown(f"input of the type {type(value).__name__}")


def _number(value: float) -> int:
    return 8 if -9_999_999 < value < 9_999_999 and type(value) is int else len(repr(value))


_AROUND: Final = 2 * _ITEM + len("role") + len("content") + _MESSAGE


def plain_tokens(messages: Any) -> int | None:
    """What ``Weight`` counts for messages of a role and a text, as most are; ``None``: others."""
    if type(messages) is not list:
        return None
    tokens = _REQUEST
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return None
        role, content = message.get("role"), message.get("content")
        if type(role) is not str or type(content) is not str:
            return None
        tokens += _AROUND + len(role)
        tokens += len(content) if content.isascii() else len(content.encode("utf-8", _PASS))
        if not role.isascii():
            return None
    return tokens
