"""docs/python.md, run as it is written; and the calls by curl that other pages have."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sigmagraph.engine.sampling import SOLVERS
from tests.serving import CHECKOUT, Server

TEXT = (CHECKOUT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python( server)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CURL = re.compile(r"^```bash\n(curl .*?)^```$", re.DOTALL | re.MULTILINE)
HERE = "import sigmagraph as sg\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the models and workflows of the checkout, to write into."""
    for name in ("models", "workflows"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    SOLVERS.discard("mine")


@pytest.mark.usefixtures("checkout")
def test_the_page_runs_as_it_is_written() -> None:
    code = "\n".join(body for kind, body in BLOCK.findall(TEXT) if not kind)
    exec(compile(code, "docs/python.md", "exec"), {"__name__": "__main__"})
    assert Path("heart.png").is_file()
    assert Path("output/compare/cells.csv").is_file()


@pytest.mark.usefixtures("checkout")
def test_readmes_lines_run_as_they_are_written() -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    [(_, body)] = BLOCK.findall(readme)
    assert len(body.splitlines()) <= 6
    assert readme.index(body) < readme.index("## The tests")
    exec(compile(body, "README.md", "exec"), {"__name__": "__main__"})
    assert Path("star.png").is_file()


def test_the_client_and_the_calls_by_curl_run_as_they_are_written(checkout: Path) -> None:
    code = HERE + "\n".join(body for kind, body in BLOCK.findall(TEXT) if kind)
    assert code.count("http://127.0.0.1:8188") == 2
    server = Server(checkout).start()
    try:
        os.environ["NO_PROXY"] = "127.0.0.1"
        space: dict[str, object] = {"__name__": "__main__"}
        exec(compile(code.replace("http://127.0.0.1:8188", server.url), "docs/python.md", "exec"), space)
        data = space["data"]
        assert isinstance(data, bytes)
        assert data.startswith(b"\x89PNG")
        for page, said in (("http-clients.md", "7f3d2c1b-9a8e"), ("jobs.md", "1f0c6a52-4f0e")):
            for block in CURL.findall((CHECKOUT / "docs" / page).read_text(encoding="utf-8")):
                local = block.replace("http://127.0.0.1:8188", server.url).replace("curl ", "curl -sS --fail ")
                done = subprocess.run(["bash", "-ec", local], cwd=checkout, capture_output=True, text=True, timeout=120)
                assert (done.returncode, said in done.stdout) == (0, True), (page, done.stdout, done.stderr)
        assert (checkout / "picture.png").read_bytes().startswith(b"\x89PNG")
    finally:
        server.stop()
