"""Make the pictures in `docs/images/`.

    python docs/make_images.py

`report.svg` is what `litellm-ledger daily` prints on a terminal; `page-*.png` is the page that
`litellm-ledger html` writes, in Chromium (`apt-get install chromium fonts-dejavu-core`);
`dashboard*.png` is what `litellm-ledger serve` shows.  All are of the ledger that `sample.py`
writes.  Nothing in them is typed in by hand, and nothing is fetched when they are shown.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
COMMAND = ("daily", "usage/", "--since", "2025-11-01")
WIDTH, HEIGHT = 134, 40
PAGE = ("html", "report.html", "usage/")
# Name, width and height in CSS pixels, whether dark.
SHOTS = (
    ("page-light", 1200, 1560, False),
    ("page-dark", 1200, 1560, True),
    ("page-phone-light", 390, 1560, False),
    ("page-phone-dark", 390, 1560, True),
)

# Name, path, width and height, whether dark.
DASHBOARD = (
    ("dashboard", "?tz=UTC&top=tag:user", 1200, 1290, False),
    ("dashboard-dark", "explore?tz=UTC&by=model&every=week&last=8w", 1200, 1290, True),
)

# Rich's own frame without its fonts, which would be fetched from the network.
SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
    <style>
    .{unique_id}-matrix {{
        font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
        font-size: {char_height}px;
        line-height: {line_height}px;
        font-variant-east-asian: full-width;
    }}
    .{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: inherit; }}
    {styles}
    </style>
    <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
    </defs>
    {chrome}
    <g transform="translate({terminal_x}, {terminal_y})"
       clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
    </g>
</svg>
"""


def on_a_terminal(cwd: Path, *arguments: str) -> str:
    """Run the command on a terminal of ``WIDTH`` columns; return what it sends there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color"}
    env.pop("COLUMNS", None)
    with subprocess.Popen(
        [sys.executable, "-m", "litellm_ledger", *arguments], cwd=cwd, stdout=theirs, env=env
    ) as child:
        os.close(theirs)
        sent = b""
        try:
            while data := os.read(ours, 65_536):
                sent += data
        except OSError:  # how a terminal says that nobody writes to it any more
            pass
    os.close(ours)
    if child.returncode:
        raise SystemExit(child.returncode)
    return sent.decode().replace("\r\n", "\n")


def draw(output: str, to: Path) -> None:
    """Draw terminal output as a picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(output.rstrip("\n")))
    title = " ".join(("litellm-ledger", *COMMAND))
    svg = console.export_svg(title=title, code_format=SVG, unique_id="report")
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text("".join(line.rstrip() + "\n" for line in svg.splitlines()), encoding="utf-8")


def shoot(page: str, to: Path, width: int, height: int, *, dark: bool) -> None:
    """Take a picture of a page as Chromium shows it."""
    chromium = shutil.which("chromium") or sys.exit("chromium is not installed")
    subprocess.run(
        [
            chromium,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--window-size={width},{height}",
            f"--screenshot={to}",
            page,
        ],
        check=True,
        capture_output=True,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        subprocess.run([sys.executable, DOCS / "sample.py", home / "usage"], check=True)
        draw(on_a_terminal(home, *COMMAND), IMAGES / "report.svg")
        subprocess.run([sys.executable, "-m", "litellm_ledger", *PAGE], cwd=home, check=True)
        for name, width, height, dark in SHOTS:
            shoot((home / "report.html").as_uri(), IMAGES / f"{name}.png", width, height, dark=dark)
        subprocess.run([sys.executable, DOCS / "sample.py", home / "today", "now"], check=True)
        serve = [sys.executable, "-m", "litellm_ledger", "serve", "today", "--port", "0"]
        with subprocess.Popen(
            [*serve, "--no-token"], cwd=home, stdout=subprocess.PIPE, text=True
        ) as server:
            address = server.stdout.readline().split()[-1]
            for name, path, width, height, dark in DASHBOARD:
                shoot(address + path, IMAGES / f"{name}.png", width, height, dark=dark)
            server.terminate()
    for path in sorted(IMAGES.iterdir()):
        sys.stdout.write(f"{path.relative_to(DOCS.parent)}\n")


if __name__ == "__main__":
    main()
