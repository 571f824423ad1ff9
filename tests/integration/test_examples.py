"""Every file of examples/ runs as it stands, ends with 0, and leaves no warning behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests import forked, postgres_server
from tests.children import complaints

from litellm_ledger import Ledger

EXAMPLES = Path(__file__).parents[2] / "examples"
ELSEWHERE = {
    "demo.py",  # below
    "fastapi_app.py",  # a server: the tests of FastAPI run it
}
FRESH = {"quickstart.py", "threads.py", "tracker_only.py"}
"""One that imports LiteLLM itself, and those that have no use for it."""
PROGRAMS = sorted(
    path.name
    for path in EXAMPLES.glob("*.py")
    if path.name not in ELSEWHERE and not path.name.startswith("_")
)


def run(
    name: str, cwd: Path, *options: str, timeout: float, modules: tuple[str, ...] = ()
) -> tuple[int, str, str]:
    """Run it away from the repository and from any key; return status, output and complaints."""
    env = {k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_API_BASE"))}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    env["NO_PROXY"] = "127.0.0.1"
    env["TMPDIR"] = str(cwd)
    done = forked.run(
        [str(EXAMPLES / name)],
        options=options,
        modules=modules,
        cwd=cwd,
        env=env,
        timeout=timeout,
    )
    return done.returncode, done.stdout, complaints(done.stderr)


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_runs_without_a_key_and_without_a_warning(name: str, tmp_path: Path) -> None:
    status, output, errors = run(
        *(name, tmp_path, "-X", "dev", "-W", "error::ResourceWarning"),
        timeout=110,
        modules=() if name in FRESH else forked.LITELLM,
    )
    assert (status, errors) == (0, "")
    assert output
    verification = Ledger(tmp_path / "usage").verify()
    assert [writer.state for writer in verification.writers] == ["closed"]
    assert verification.ok
    assert Ledger(tmp_path / "usage").report().total.calls


def test_there_are_examples() -> None:
    assert {"quickstart.py", "streaming.py", "tags.py", "tracker_only.py"} <= {*PROGRAMS}


@pytest.fixture
def forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What a demo in this process takes for ``subprocess``: Python is forked."""
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_API_BASE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)

    def start(command: list[str], **popen: Any) -> subprocess.Popen[str]:
        assert command[0] == sys.executable
        return forked.Forked(command[1:], modules=forked.LITELLM, **popen)

    def run(command: list[str], *, check: bool, **popen: Any) -> subprocess.CompletedProcess[str]:
        with start(command, **popen) as process:
            return subprocess.CompletedProcess(command, process.wait())

    return SimpleNamespace(PIPE=subprocess.PIPE, Popen=start, run=run)


@pytest.mark.alike
def test_the_demo_holds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    forks: SimpleNamespace,
) -> None:
    """Here in this process, and what it starts is forked."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", ["demo.py", str(tmp_path / "usage")])
    demo = import_module("demo")
    monkeypatch.setattr(demo, "subprocess", forks)
    status = demo.main()
    output, errors = capfd.readouterr()
    assert (status, complaints(errors)) == (0, ""), output
    assert "acked records lost: 0" in output
    assert "All of it holds" in output
    assert "NO   " not in output


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch, forks: SimpleNamespace) -> Iterator[Any]:
    """The demo of the fleet, in this process; what it starts is forked, but for PostgreSQL."""
    postgres_server.programs()
    # PostgreSQL runs as another user than root, and pytest's own directories are closed to it.
    place = tempfile.mkdtemp(prefix="fleet-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT") or None)
    Path(place).chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", place)
    monkeypatch.syspath_prepend(EXAMPLES / "fleet")
    told = import_module("story")
    monkeypatch.setattr(told, "subprocess", forks)
    monkeypatch.setattr(import_module("machines"), "subprocess", forks)
    yield told
    Path(place).rmdir()  # nothing is left behind


@pytest.mark.alike
@pytest.mark.timeout(900)  # on a machine that has little time for it, too
def test_the_fleet_holds_and_leaves_nothing_behind(
    story: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    status = story.main(["--calls", "4"])
    output, errors = capfd.readouterr()
    assert (status, complaints(errors)) == (0, ""), output
    assert "each once, none missing" in output
    assert "All of it holds" in output
    assert "NO   " not in output
