"""What the figures were measured on.  Names nobody's host, user or directory."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["describe", "file_system", "peak"]

_PACKAGES = ("litellm", "opentelemetry-sdk", "langfuse", "msgspec", "aiofiles")


def describe(scratch: Path) -> list[tuple[str, str]]:
    """Return what a reader needs to judge the figures; ``scratch`` is where the files were."""
    return [
        ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("processor", f"{_processor()}, {len(os.sched_getaffinity(0))} cores"),
        ("memory", f"{_memory_gib():.0f} GiB"),
        ("kernel", f"{platform.system()} {platform.release().split('-')[0]}"),
        ("file system", file_system(scratch)),
        (
            "Python",
            f"{platform.python_implementation()} {platform.python_version()}, asyncio's loop",
        ),
        ("load before", f"{os.getloadavg()[0]:.2f}"),
        ("packages", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)),
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine() or sys.platform


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def file_system(path: Path) -> str:
    """Return the type of file system that holds ``path``."""
    best, found = "", "unknown"
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return found
    for line in mounts:
        _, point, kind, *_ = line.split()
        inside = path.resolve().is_relative_to(point)
        if inside and len(point) >= len(best):
            best, found = point, kind
    return found


def peak(pid: int) -> int:
    """Return the most memory so far, in MiB; ``wait4`` would begin with that of the parent."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) // 1024 if found else 0
