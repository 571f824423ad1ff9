"""Make `docs/images/report.svg`: what `litellm-ledger report` prints on a terminal.

    python docs/make_images.py [LEDGER]

Without a ledger it runs `examples/demo.py` for one (half a minute).  The picture is the command's
own output, taken from a terminal; nothing in it is typed in by hand, and nothing is fetched when it
is shown.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
IMAGE = ROOT / "docs" / "images" / "report.svg"
COMMAND = ("report", "usage/", "--by", "tag:user")
WIDTH = 142

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


def on_a_terminal(ledger: Path) -> str:
    """Run the command on a terminal of ``WIDTH`` columns; return what it sends there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color"}
    env.pop("COLUMNS", None)
    arguments = [str(ledger) if word == "usage/" else word for word in COMMAND]
    with subprocess.Popen(
        [sys.executable, "-m", "litellm_ledger", *arguments], stdout=theirs, env=env
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


def main() -> None:
    if len(sys.argv) > 1:
        draw(on_a_terminal(Path(sys.argv[1])), IMAGE)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            ledger = Path(scratch) / "usage"
            subprocess.run(
                [sys.executable, ROOT / "examples" / "demo.py", ledger],
                stdout=subprocess.DEVNULL,
                check=True,
            )
            draw(on_a_terminal(ledger), IMAGE)
    sys.stdout.write(f"{IMAGE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
