"""python examples/fleet [--calls N] [--stay]: see `story.py`."""

from __future__ import annotations

import signal
import sys

from story import main

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped; nothing is left behind")
        sys.exit(128 + signal.SIGINT)
