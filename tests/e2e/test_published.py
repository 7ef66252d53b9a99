"""docs/api.md with the real program: keys, publishing, trying, and `sigmagraph serve --demo` with both endpoints."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from models.demo.checker import check
from models.demo.scenes import single
from sigmagraph.engine.cli.app import app
from sigmagraph.engine.compose.workspace import open_workspace
from sigmagraph.engine.graph.editor import drawn
from sigmagraph.engine.server.endpoints.endpoint import load_endpoints
from tests.serving import CHECKOUT, Server

GUIDE = (CHECKOUT / "docs" / "api.md").read_text("utf-8")
SHELL = re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
SHIPPED = CHECKOUT / "workflows" / "endpoints"
PROMPT = "a large red heart in the centre on a white background"
LARGE, TURBO = "stable-diffusion-3.5-large-txt2img", "stable-diffusion-3.5-turbo-txt2img"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy's folders, with an endpoints folder of its own."""
    for name in ("models", "workflows"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    shutil.copytree(SHIPPED, tmp_path / "endpoints")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGMAGRAPH_ENDPOINTS", str(tmp_path / "endpoints"))
    return tmp_path


def typed(line: str) -> str:
    """What a command line prints, standard error too."""
    [program, *words] = shlex.split(line)
    assert program == "sigmagraph"
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.output


def block_with(word: str) -> str:
    [block] = [block for block in SHELL if word in block]
    return block


def test_the_commands_about_keys_do_what_the_guide_says(home: Path) -> None:
    create, listing, credit, revoke = block_with("keys create").splitlines()
    made = typed(create)
    key_id = re.search(r"key (\w+) of alice", made)
    assert key_id is not None
    assert re.search(r"^SG_\w{16,}$", made, re.MULTILINE)
    assert "alice" in typed(listing)
    assert typed(credit.replace("ID", key_id[1])).strip() == "150"
    typed(revoke.replace("ID", key_id[1]))
    assert "revoked" in typed(listing)


def test_the_commands_about_publishing_make_an_endpoint_that_draws(home: Path) -> None:
    publish, listing, checking, trying = block_with("sigmagraph publish").splitlines()
    typed(publish)
    assert (home / "endpoints" / "my-graph.toml").is_file()
    assert "my-graph" in typed(listing)
    assert "3 endpoints: nothing wrong" in typed(checking)
    typed(trying)
    [path] = (home / "output" / "published").glob("my-graph_*.png")
    assert is_heart(path.read_bytes())
    words = shlex.split(trying.replace("steps=8", "steps=1"))[1:]
    answer = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    [second] = answer["images"]
    assert Path(second).is_file()
    assert {node["class_type"] for node in answer["nodes"].values()} >= {"KSampler", "VAEDecode"}


@pytest.mark.parametrize("form", ["drawing", "picture"])
def test_a_drawing_and_a_picture_become_the_endpoint_their_graph_becomes(form: str, home: Path) -> None:
    space = open_workspace(home)
    prompt = space.load(home / "workflows" / "txt2img.json").prompt()
    drawing = drawn(prompt, space.declarations)
    if form == "drawing":
        (home / "my-graph.json").write_text(json.dumps(drawing), "utf-8")
    else:
        words = PngInfo()
        words.add_text("prompt", json.dumps(prompt))
        Image.new("RGB", (8, 8)).save(home / "my-graph.png", pnginfo=words)
    typed(block_with("sigmagraph publish").splitlines()[0].replace("my-graph", "from-graph"))
    typed(f"sigmagraph publish my-graph.{'json' if form == 'drawing' else 'png'}")
    assert "4 endpoints: nothing wrong" in typed("sigmagraph endpoints check")
    found = load_endpoints(home / "endpoints")
    ours, other = found["my-graph"], found["from-graph"]
    assert ours.manifest.parameters == other.manifest.parameters
    values = {name: parameter.default for name, parameter in ours.manifest.parameters.items()}
    assert ours.bind(values, "x").prompt() == other.bind(values, "x").prompt()
    done = CliRunner().invoke(app, ["publish", f"my-graph.{'json' if form == 'drawing' else 'png'}"])
    assert (done.exit_code, "--force replaces it" in " ".join(done.output.split())) == (1, True)


def test_trying_without_weights_names_the_files_and_what_brings_them(home: Path) -> None:
    (home / "empty" / "models").mkdir(parents=True)
    words = ["endpoints", "try", LARGE, "--home", "empty", "--set", "prompt=x"]
    words += ["--set", "sampler=euler", "--set", "scheduler=simple"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert "sd3.5_large.safetensors is missing; `sigmagraph fetch sd3.5-large` brings it" in said
    assert "t5xxl_fp16.safetensors is missing; `sigmagraph fetch text-encoders` brings it" in said


@pytest.fixture
def server(home: Path) -> Iterator[tuple[Server, str]]:
    """The real server with the demo, and a key for it."""
    typed(block_with("sigmagraph publish").splitlines()[0])
    made = typed("sigmagraph keys create alice --credits 100")
    running = Server(home, "--demo").start("/health")
    yield running, next(word for word in made.split() if word.startswith("SG_"))
    running.stop()


def test_serve_demo_binds_both_endpoints_and_serves_what_was_published(
    server: tuple[Server, str], tmp_path: Path
) -> None:
    running, key = server
    fields = {"prompt": PROMPT, "sampler": "euler", "scheduler": "simple", "guidance_scale": 4, "steps": 20}
    headers = {"x-api-key": key, "Content-Type": "application/json"}
    for slug in (LARGE, TURBO):
        body = json.dumps({**fields, "base64": False}).encode()
        with urlopen(Request(f"{running.url}/v1/{slug}", body, headers)) as response:
            data, kind = response.read(), response.headers["Content-Type"]
        if slug == LARGE:
            assert kind.startswith("application/json")
            assert json.loads(data)["metadata"]["width"] == 128
            with urlopen(json.loads(data)["image"]) as response:
                data, kind = response.read(), response.headers["Content-Type"]
        assert kind == "image/jpeg"
        assert is_heart(data)
    script = block_with("/v1/my-graph").replace("http://127.0.0.1:8188", running.url)
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=os.environ | {"KEY": key}, check=True)
    assert is_heart((tmp_path / "heart.png").read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("field", ["sampler", "scheduler", "aspect_ratio", "image_format"])
def test_every_value_the_document_lists_draws_on_the_demo(field: str, server: tuple[Server, str]) -> None:
    running, key = server
    fields = {"prompt": PROMPT, "sampler": "euler", "scheduler": "simple", "steps": 2, "base64": False}
    headers = {"x-api-key": key, "Content-Type": "application/json"}

    def call(**changes: str) -> str:
        body = json.dumps(fields | changes).encode()
        with urlopen(Request(f"{running.url}/v1/{TURBO}", body, headers)) as response:
            return str(response.headers["Content-Type"])

    call()  # until then the worker has not told its lists
    schema = running.json("/openapi.json")["components"]["schemas"][f"input.{TURBO}"]["properties"]
    assert {call(**{field: value}) for value in schema[field]["enum"]} <= {"image/jpeg", "image/png", "image/webp"}


@pytest.mark.slow
def test_kills_of_the_real_server_make_exactly_what_the_credit_pays_for(home: Path) -> None:
    made = typed("sigmagraph keys create alice --credits 0.0335")  # 128 x 128 x 40 steps cost 0.001638: twenty
    key = next(word for word in made.split() if word.startswith("SG_"))
    running = Server(home, "--demo")

    def call(number: int) -> int:
        headers = {"x-api-key": key, "Content-Type": "application/json", "Idempotency-Key": f"call-{number}"}
        fields = {"prompt": PROMPT, "sampler": "euler", "scheduler": "simple", "steps": 40, "seed": number}
        try:
            with urlopen(Request(f"{running.url}/v1/{TURBO}", json.dumps(fields).encode(), headers)) as response:
                return int(response.status)
        except HTTPError as refused:
            return refused.code
        except OSError:
            return 0

    for kill_s in (3.0, 8.0, None):
        running.start("/health")
        with ThreadPoolExecutor(50) as callers:
            answers = [callers.submit(call, number) for number in range(50)]
            if kill_s is not None:
                time.sleep(kill_s)
                assert running.process is not None
                running.process.kill()
                running.process.wait()
            statuses = Counter(answer.result() for answer in answers)
    running.stop()
    assert statuses == {200: 20, 406: 30}
    spent = 20 * 0.001638
    [line] = [line for line in typed("sigmagraph keys list").splitlines() if "alice" in line]
    assert f"{0.0335 - spent:g} 0 {spent:g}" in " ".join(line.split())
    assert len(list((home / "output").rglob("published/*_.png"))) == 20


def is_heart(data: bytes) -> bool:
    """Whether a picture shows what the guide's prompt asks for."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        shown = pixels.reshape(image.height, image.width, 3).permute(2, 0, 1) / 255
    return check(shown, single("heart", "red", "large", "in the centre", "white")).is_right
