"""Begin an environment with the packages of another one: `seed.py FROM TO`, both `site-packages`.

They are the same files where the file system allows it: pip writes none anew, it puts others in
their place. Python may be compiling files in FROM meanwhile, under names of its own that vanish.
"""

import os
import shutil
import sys


def _same_file(source: str, copy: str) -> None:
    try:
        os.link(source, copy)
    except OSError:
        shutil.copy2(source, copy)


source, target = sys.argv[1:]
shutil.rmtree(target)
shutil.copytree(
    source,
    target,
    symlinks=True,
    copy_function=_same_file,
    ignore=shutil.ignore_patterns("*.pyc.*"),
)
