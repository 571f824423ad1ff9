"""The names that the price of an image has in the map.

Owns the map's way to put a size, a quality and a number of steps into the name of an entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["dimensions", "image_names", "image_size", "nearest_image"]

_SIZE: Final = (1_024, 1_024)
"""What an image has where nobody said anything else, in all calls of this kind."""


def image_names(model: str, provider: str | None, conditions: Mapping[str, Any]) -> Iterator[str]:
    """The names that the price of an image may have in the map, the nearest first.

    The map has one entry for each ``size``, ``quality`` and (Stability on Bedrock) number of
    ``steps``, and puts them before or after the provider.
    """
    width, height = dimensions(conditions.get("size")) or _SIZE
    size = f"{width}-x-{height}"
    quality = conditions.get("quality") or "standard"
    bare = model.removeprefix(f"{provider}/") if provider else model
    steps = conditions.get("steps")
    fast = "max-steps" if type(steps) is int and steps > 50 else "50-steps"
    if provider == "bedrock":
        yield f"{size}/{fast}/{bare}"
    prefix = f"{provider}/" if provider else ""
    for start in (f"{quality}/{prefix}{size}", f"{prefix}{quality}/{size}", f"{prefix}{size}"):
        yield f"{start}/{bare}"
    for start in (f"{quality}/{size}", size):
        yield f"{start}/{bare}"
        if "/" in bare:
            yield f"{start}/{bare.rpartition('/')[2]}"


def nearest_image(
    names: Mapping[str, Any], model: str, provider: str, conditions: Mapping[str, Any]
) -> str | None:
    """fal.ai: the entry of that quality whose size has the number of pixels nearest to the image's.

    ``names`` is the price map.  Quality is ``high`` and size 1024 × 768 where nothing else was
    asked for.
    """
    quality = conditions.get("quality")
    quality = quality if isinstance(quality, str) and quality != "auto" else "high"
    start, end = f"{provider}/{quality}/", f"/{model.removeprefix(f'{provider}/')}"
    wanted = _pixels(conditions.get("size")) or 1_024 * 768
    found = [
        (abs(count - wanted), count, name)
        for name in names
        if name.startswith(start) and name.endswith(end)
        if (count := _pixels(name[len(start) : -len(end)]))
    ]
    return min(found)[2] if found else None


def dimensions(size: Any) -> tuple[int, int] | None:
    """Width and height in pixels, of a size as a call or the map writes it: ``1024x768``."""
    found = _WRITTEN.fullmatch(size) if isinstance(size, str) else None
    return (int(found[1]), int(found[2])) if found else None


_WRITTEN: Final = re.compile(r"([0-9]{1,6})(?:x|-x-|\*)([0-9]{1,6})")


def image_size(name: str) -> tuple[int, int] | None:
    """Width and height in the name of an entry, if it has them."""
    found = _IN_NAME.search(name)
    return (int(found[1]), int(found[2])) if found else None


_IN_NAME: Final = re.compile(r"(?:^|/)([0-9]{1,6})-x-([0-9]{1,6})/")


def _pixels(size: Any) -> int | None:
    found = dimensions(size)
    return found and found[0] * found[1]
