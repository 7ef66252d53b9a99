import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.serving import CHECKOUT, Server

PLUGIN = '''
from itertools import pairwise

from sigmagraph.engine.sampling import Evaluate, Step, schedule, solver


@solver("halfway", order=1, source="a test")
def halfway(x, sigmas, ctx):
    """Straight to the estimate, half of the way each step."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Evaluate(x, sigma)
        x = denoised + (x - denoised) * (sigma_next / sigma)
        yield Step(x, denoised)
    return x


@schedule("thirds", source="a test")
def thirds(levels, steps):
    """Each level a third of the one before; then 0."""
    return [levels.sigma_max / 3**i for i in range(steps)] + [0.0]
'''


def sigmagraph(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: plugins must not stay in this one's registries."""
    program = "from sigmagraph.engine.cli.app import main\nmain()"
    command = [sys.executable, "-B", "-c", program, *arguments]
    environment = os.environ | ({"PYTHONPATH": str(path)} if path is not None else {})
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def of_the_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the page on writing a sampler tells its reader to write."""
    page = (CHECKOUT / "docs/your-own-sampler.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    path = tmp_path_factory.mktemp("mine") / "ralston.py"
    path.write_text(blocks[0])
    return path


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "my_sampler.py"
    path.write_text(PLUGIN)
    return str(path)


def test_a_sampler_in_a_file_runs_in_a_graph(home: Path, plugin: str, txt2img: Callable[..., Any]) -> None:
    path = home / "workflow.json"
    path.write_text(json.dumps(txt2img(sampler_name="halfway", scheduler="thirds")))
    arguments = ["run", str(path), "--home", str(home), "--output", str(home / "out")]
    without = sigmagraph(*arguments)
    assert without.returncode == 1
    assert "'halfway' is not in the list" in without.stderr
    done = sigmagraph(*arguments, "--plugin", plugin)
    assert done.returncode == 0, done.stderr
    assert (home / "out/picture_00001_.png").is_file()


def test_a_changed_file_gives_a_new_picture_and_is_named(home: Path, plugin: str, txt2img: Callable[..., Any]) -> None:
    path = home / "workflow.json"
    path.write_text(json.dumps(txt2img(sampler_name="halfway")))
    shared = ["--home", str(home), "--plugin", plugin]
    run = ["run", str(path), "--output", str(home / "out"), "--cache", "memory=1GiB,disk=1GiB", *shared]
    assert sigmagraph(*run).returncode == 0
    before = home / "out/picture_00001_.png"
    Path(plugin).write_text(PLUGIN.replace("(sigma_next / sigma)", "(sigma_next / sigma) ** 0.9"))
    assert sigmagraph(*run).returncode == 0
    assert load_image(before) != load_image(home / "out/picture_00002_.png")
    verdict = sigmagraph("replay", str(before), "--output", str(home / "again"), *shared)
    assert re.search(r"samplers.halfway: was '1 \w{16}', now '1 \w{16}'", verdict.stdout)


def load_image(path: Path) -> bytes:
    """The pixels, without what the file says of itself."""
    with Image.open(path) as image:
        return image.tobytes()


def test_a_sampler_in_a_file_is_listed_with_the_others(home: Path, plugin: str) -> None:
    shown = sigmagraph("samplers", "halfway", "--plugin", plugin)
    assert "halfway@1" in shown.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("def (", "SyntaxError"),
        (
            "from sigmagraph.engine.sampling import solver\nsolver('euler', order=1)(lambda x, sigmas, ctx: x)",
            "registered already",
        ),
    ],
)
def test_a_file_that_does_not_load_is_one_message(home: Path, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    done = sigmagraph("samplers", "--plugin", str(path))
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there_is_one_message(home: Path) -> None:
    done = sigmagraph("samplers", "--plugin", str(home / "nowhere.py"))
    assert done.returncode == 1
    assert "there is no such plugin file" in done.stderr


def test_an_installed_package_with_the_pages_entry_point_needs_no_option(of_the_page: Path, tmp_path: Path) -> None:
    page = (CHECKOUT / "docs/your-own-sampler.md").read_text()
    (declared,) = re.findall(r'```toml\n\[project.entry-points."(.*?)"\]\n(.*?)\n```', page, re.DOTALL)
    package, described = tmp_path / "your_package", tmp_path / "your_package-1.dist-info"
    package.mkdir()
    described.mkdir()
    (package / "__init__.py").touch()
    (package / "ralston.py").write_text(of_the_page.read_text())
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: your-package\nVersion: 1\n")
    (described / "entry_points.txt").write_text(f"[{declared[0]}]\n{declared[1].replace(chr(34), '')}\n")
    shown = sigmagraph("samplers", "ralston", path=tmp_path)
    assert "ralston@1" in shown.stdout, shown.stderr
    assert sigmagraph("samplers", "ralston").returncode == 1


def test_a_server_has_the_samplers_of_a_file_in_its_menus_and_its_jobs(
    home: Path, of_the_page: Path, txt2img: Callable[..., Any]
) -> None:
    server = Server(home, "--plugin", str(of_the_page)).start()
    try:
        menus = server.json("/object_info/KSampler")["KSampler"]["input"]["required"]
        assert "ralston" in menus["sampler_name"][0]
        assert "even_log" in menus["scheduler"][0]
        prompt = txt2img(sampler_name="ralston", scheduler="even_log")
        entry = server.ended(str(server.json("/prompt", {"prompt": prompt})["prompt_id"]))
        assert entry["status"]["completed"] is True
    finally:
        server.stop()


def test_a_server_does_not_start_with_a_file_that_is_not_there(home: Path) -> None:
    done = sigmagraph("serve", "--home", str(home), "--port", "0", "--plugin", str(home / "nowhere.py"))
    assert done.returncode == 1
    assert "there is no such plugin file" in done.stderr


def test_commands_that_list_registries_take_packs_and_plugins_that_add_to_them(tmp_path: Path, plugin: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/far.safetensors").write_bytes(b"not a weight file")
    adds = f"import folder_paths\nfolder_paths.add_model_folder_path('vae', {str(tmp_path / 'elsewhere')!r})\n"

    def pack(name: str) -> list[str]:
        folder = tmp_path / f"packs of {name}"
        folder.mkdir()
        text = PLUGIN.replace("halfway", name).replace("thirds", f"{name}_levels")
        (folder / f"{name}.py").write_text(f"{text}\n{adds}NODE_CLASS_MAPPINGS = {{}}\n")
        return ["--custom-nodes", str(folder), "--home", str(tmp_path)]

    examined = ["conform", "--samplers", "halfway,third", "--output", str(tmp_path), "--plugin", plugin, *pack("third")]
    commands = [["samplers", "first", *pack("first")], ["models", *pack("second")], examined]
    program = (
        "import json, sys\nfrom typer.testing import CliRunner\nfrom sigmagraph.engine.cli.app import app\n"
        "print(json.dumps([CliRunner().invoke(app, one).output for one in json.loads(sys.argv[1])]))"
    )
    command = [sys.executable, "-B", "-c", program, json.dumps(commands)]
    shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for expected, text in zip(("first@1", "vae/far.safetensors", "third (ve)"), shown, strict=True):
        assert expected in text
    assert "halfway (ve)" in shown[2]
