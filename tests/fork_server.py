"""The process of `forked`: it imports modules, and forks a Python program for each request.

    python fork_server.py CONTROL MODULE...

CONTROL is the number of a socket.  A request is five descriptors: standard input, output and error
of the program; a socket that is told its process id and then its status; a file of JSON that says
what it runs, and where.  There is one thread, no handler of a signal and nothing registered: a
child has nothing to undo.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import warnings
from pathlib import Path
from types import CodeType
from typing import Any, cast

FRESH = ("__name__", "__doc__", "__package__", "__loader__", "__spec__", "__builtins__")
"""What is in ``__main__`` when the first line of ``python -c`` runs."""


def serve() -> CodeType:
    """Fork until the control closes; return in each child, with the code that it runs."""
    control = socket.socket(fileno=int(sys.argv[1]))
    own_filters, environment = list(warnings.filters), dict(os.environ)
    for module in sys.argv[2:]:
        __import__(module)
    imported = {name: value for name, value in os.environ.items() if environment.get(name) != value}
    # The collections of a child look at what is its own; that also leaves the memory shared.
    gc.collect()
    gc.freeze()
    living: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    ended: dict[socket.socket, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            (key, _), *_ = selector.select()
            if (
                key.fileobj in ended
            ):  # the one that waited for it knows: only now may its id be reused
                status = cast("socket.socket", key.fileobj)
                selector.unregister(status)
                status.close()
                os.waitpid(ended.pop(status), 0)
            elif key.fd in living:
                selector.unregister(key.fd)
                pid, status = living.pop(key.fd)
                os.close(key.fd)
                _tell(status, _status(pid))
                ended[status] = pid
                selector.register(status, selectors.EVENT_READ)
            else:
                message, fds, _, _ = socket.recv_fds(control, 16, 5)
                if not message:
                    for pid, _ in living.values():
                        os.kill(pid, signal.SIGKILL)
                    os._exit(0)
                *standard, status_fd, request_fd = fds
                status = socket.socket(fileno=status_fd)
                pid = os.fork()
                if not pid:
                    for pidfd in living:
                        os.close(pidfd)
                    for inner in (
                        control,
                        status,
                        *ended,
                        *(other for _, other in living.values()),
                    ):
                        inner.close()
                    return _become(standard, request_fd, imported, own_filters)
                for fd in (*standard, request_fd):
                    os.close(fd)
                pidfd = os.pidfd_open(pid)
                living[pidfd] = pid, status
                selector.register(pidfd, selectors.EVENT_READ)
                _tell(status, pid)


def _status(pid: int) -> int:
    """Return how it ended, as ``subprocess`` tells it; it stays a zombie."""
    info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert info is not None
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status


def _tell(status: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody waits for it any more
        status.send(str(number).encode())


def _warn(options: list[str], own: list[Any]) -> None:
    """Have warnings as ``-W`` says: before the interpreter's own, after those of its modules.

    Modules put theirs before those that there are; some append them.
    """
    filters = cast("list[Any]", warnings.filters)
    begins = (at for at, entry in enumerate(filters) if any(entry is known for known in own))
    theirs = filters[: next(begins, len(filters))]
    del filters[: len(theirs)]
    warnings._processoptions(options)  # type: ignore[attr-defined]
    filters[:0] = theirs
    sys.warnoptions += options


def _become(
    standard: list[int], request_fd: int, imported: dict[str, str], own_filters: list[Any]
) -> CodeType:
    """Make this process what ``python ARGUMENTS...`` would be; return the code of its main.

    Args:
        imported: variables of the environment that the modules have set.
        own_filters: filters of warnings that are the interpreter's.
    """
    for target, fd in enumerate(standard):
        os.dup2(fd, target)
    for fd in {*standard} - {0, 1, 2}:
        os.close(fd)
    with os.fdopen(request_fd, encoding="utf-8") as file:
        file.seek(0)
        request = json.load(file)
    if request["new_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(imported | request["env"])
    kind, *rest = request["arguments"]
    found = [
        os.path.realpath(entry) for entry in os.environ.get("PYTHONPATH", "").split(":") if entry
    ]
    sys.path[:] = [*found, *(entry for entry in sys.path[1:] if entry not in found)]
    sys.orig_argv = request["orig_argv"]
    _warn(request["warnings"], own_filters)
    if kind == "-c":
        source, *rest = rest
        name, first, file_name = "-c", "", "<string>"
    elif kind == "-m":
        module, *rest = rest
        name, first, file_name = "-m", os.getcwd(), "<string>"
        source = f"__import__('runpy')._run_module_as_main({module!r})"
    else:
        name, first, file_name = kind, os.path.dirname(os.path.realpath(kind)), kind
        source = Path(kind).read_text(encoding="utf-8")
    sys.argv = [name, *rest]
    sys.path.insert(0, first)
    code = compile(source, file_name, "exec", dont_inherit=True)
    main = vars(sys.modules["__main__"])
    main["__doc__"] = main["__spec__"] = None
    if file_name == "<string>":
        main.pop("__file__")
    else:
        main["__file__"] = file_name
    for entry in [entry for entry in main if entry not in (*FRESH, "__file__")]:
        del main[entry]
    return code


if __name__ == "__main__":
    exec(serve())
