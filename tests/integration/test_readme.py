"""What the README and the guides show is run here; what they name exists."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shlex
import sys
import textwrap
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from tests import forked
from tests.unit.test_layers import ORDER

from litellm_ledger import Ledger, LiteLLMClient
from litellm_ledger.testing import OpenAIServer

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
MESSAGES = [{"role": "user", "content": "What is a ledger, in one sentence?"}]


def blocks(language: str, page: str = README) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


USAGE = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
PYTHON = [*blocks("python"), *blocks("python", USAGE)]


@pytest.fixture(scope="module")
def server() -> Any:
    with OpenAIServer() as running:
        yield running


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every snippet runs in an empty directory, and its calls go to the local server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_BASE", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def compiled(block: str) -> CodeType:
    return compile(block, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def inside_a_client(code: CodeType, names: dict[str, Any]) -> None:
    """Run a snippet the way the README says: with an open client and messages."""
    async with LiteLLMClient(ledger="usage/") as client:
        await client.acompletion(model="gpt-4o-mini", messages=MESSAGES, tags={"user": "alice"})
        names |= {"client": client, "messages": MESSAGES}
        running = eval(code, names)
        if inspect.isawaitable(running):
            await running


def title(block: str) -> str:
    code = (line for line in block.splitlines() if line)
    return next(line for line in code if not line.startswith(("from", "import"))).strip(" :")


@pytest.mark.parametrize("block", PYTHON, ids=title)
def test_a_snippet_of_the_readme_runs(block: str) -> None:
    names: dict[str, Any] = {}
    code = compiled(block)
    if "asyncio.run(" in block:
        exec(code, names)  # a whole program
    else:
        asyncio.run(inside_a_client(code, names))
    found = Ledger("usage/")
    assert found.verify().ok
    assert all(record.status in ("ok", "abandoned") for record in found.records())
    assert all(writer.clean for writer in found.verify().writers)


def test_the_first_example_leaves_the_cost_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compiled(PYTHON[0]), {})
    (record,) = Ledger("usage/").records(where={"tag:user": "alice"})
    assert str(record.cost) == capsys.readouterr().out.split()[-1]


def test_the_stream_snippet_prints_what_its_comment_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (block,) = [block for block in blocks("python", USAGE) if "stream=True" in block]
    asyncio.run(inside_a_client(compiled(block), {}))
    said = block.rsplit("#", 1)[1].split()
    assert capsys.readouterr().out.split()[-2:] == said


def test_the_fastapi_snippet_serves() -> None:
    from fastapi.testclient import TestClient

    names: dict[str, Any] = {}
    (block,) = [block for block in PYTHON if "FastAPI(" in block]
    exec(compiled(block), names)
    with TestClient(names["app"]) as http:
        answer = http.post("/chat", params={"text": "hello", "user": "bob"})
    assert answer.status_code == 200
    (record,) = Ledger("usage/").records()
    assert record.tags == {"user": "bob"}


def test_the_snippets_about_fastapi_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    main = ModuleType("main")
    monkeypatch.setitem(sys.modules, "main", main)
    page = (ROOT / "docs" / "fastapi.md").read_text(encoding="utf-8")
    # test_lifecycles.py runs that of gunicorn, where gunicorn is installed.
    snippets = [compiled(b) for b in blocks("python", page) if "uvicorn_worker" not in b]
    served: list[str] = []
    for snippet in snippets:
        names: dict[str, Any] = {}
        exec(snippet, names)
        if "test_chat" in names:
            names["test_chat"]()
        elif "stream" in names:
            with TestClient(names["app"]) as http:
                served.append(http.post("/stream", params={"question": "hello"}).text)
        elif "chat" in names:
            main.app = names["app"]  # type: ignore[attr-defined]
    assert len(snippets) >= 4
    assert all(served)
    # Two writers, begun in one second perhaps: their order on the ledger is then random.
    assert {record.stream for record in Ledger("usage/").records()} == {True, False}
    assert len(list(Ledger("usage/").records())) == 2


def test_the_commands_of_the_readme_run() -> None:
    exec(compiled(PYTHON[0]), {})
    commands = re.findall(
        r"^\$ litellm-ledger (.*)$",
        "\n".join(blocks("console") + blocks("console", USAGE)),
        re.MULTILINE,
    )
    endless = re.compile(r"-f|^serve|^watch|example\.com")
    commands = [one for one in commands if "usage/" in one and not endless.search(one)]
    assert len(commands) >= 5
    for command in commands:
        arguments = ["-m", "litellm_ledger", *shlex.split(command, comments=True)]
        run = forked.run(arguments, modules=forked.COMMAND)
        assert run.returncode == 0, (command, run.stderr)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_links_to_files_and_headings_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if target.startswith("http"):
            continue
        path, _, heading = target.partition("#")
        file = page if not path else page.parent / path
        assert file.exists(), f"{page.name}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in map(anchor, headings), f"{page.name}: {target}"


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_test_that_a_page_names_exists(page: Path) -> None:
    file, count = "", 0
    for named, test in re.findall(
        r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", page.read_text(encoding="utf-8")
    ):
        file = named or file
        if file and test:
            found = re.search(
                rf"^(async )?def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE
            )
            assert found, f"{page.name}: {file}::{test}"
            count += 1
        elif named:
            assert (ROOT / file).exists(), f"{page.name}: {file}"
    assert count > 40 or page.name != "GUARANTEES.md"


def test_the_architecture_page_has_the_rooms_of_the_layer_test() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `(\w+)` \|", page.split("## The rooms")[1], re.MULTILINE)
    ways_in = {"__init__", "__main__"}
    assert rooms[: len(ORDER) - 2] == [room for room in ORDER if room not in ways_in]


def test_the_picture_fetches_nothing() -> None:
    picture = (ROOT / "docs" / "images" / "report.svg").read_text(encoding="utf-8")
    assert re.findall(r"https?://[^\s\"]+", picture) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"@import|@font-face|xlink:href|<image|url\((?!#)", picture)


def test_the_makefile_names_tests_that_there_are() -> None:
    """With a name that is gone, `make test-litellm` would run nothing."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    block = makefile.partition("TOUCHES_LITELLM := ")[2].partition("\n#")[0].replace("\\\n", " ")
    named = [
        prefix + name
        for prefix, names in re.findall(r"\$\(addprefix (\S+),([^)]*)\)", block)
        for name in names.split()
    ]
    named += re.sub(r"\$\([^)]*\)", "", block).split()
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]
