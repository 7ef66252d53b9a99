"""Typed nodes of others, from a folder and from an installed distribution, run by the command outside the checkout."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sigmagraph.engine.graph.lock import CHUNK, read_lock
from sigmagraph.engine.graph.reading.image_metadata import carried_texts
from tests.serving import CHECKOUT

GUIDE = (CHECKOUT / "docs/nodes.md").read_text(encoding="utf-8")
[TINT] = re.findall(r"```python file\n(.*?)```", GUIDE, re.DOTALL)
[COMMANDS, *_] = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
[ENTRY] = re.findall(r'entry-points."sigmagraph.nodes"\]\n(.*?)\n```', GUIDE)
INVERT = """
from typing import Annotated

import torch

from sigmagraph.engine.graph.node import Socket, node

Image = Annotated[torch.Tensor, Socket("IMAGE")]


@node("Invert", category="image/colour")
def invert(*, image: Image) -> Image:
    \"\"\"White becomes black.\"\"\"
    return 1 - image


NODES = [invert]
"""
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0x804020}},
    "2": {"class_type": "Tint", "inputs": {"image": ["1", 0], "red": 2.0}},
    "3": {"class_type": "Invert", "inputs": {"image": ["2", 0]}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "made"}},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of one's own: a pack in it, and beside it what pip makes of a package with the entry point."""
    files = {
        "work/my_packs/tint.py": TINT,
        "work/workflow.json": json.dumps(GRAPH),
        "work/models/checkpoints/.keep": "",
        "site/your_package/__init__.py": "",
        "site/your_package/nodes.py": INVERT,
        "site/your_package-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: your-package\nVersion: 1.0\n",
        "site/your_package-1.0.dist-info/entry_points.txt": f"[sigmagraph.nodes]\n{ENTRY.replace(chr(34), '')}\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "work"


def command(place: Path, line: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = line.split()
    assert program == "sigmagraph"
    environment = os.environ | {"PYTHONPATH": str(place.parent / "site"), "COLUMNS": "120"}
    run = [str(Path(sys.executable).with_name("sigmagraph")), *arguments]
    return subprocess.run(run, cwd=place, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_guides_node_and_one_of_an_installed_package_run_together(place: Path) -> None:
    listed, ran = (command(place, line) for line in COMMANDS.splitlines())
    assert listed.returncode == 0, listed.stderr
    assert "Makes a picture redder." in listed.stdout
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"nodes: colour \[[0-9a-f]{16}\]: 1 node\b", ran.stderr)
    picture = Path(ran.stdout.strip())
    with Image.open(picture) as image:
        assert image.getpixel((0, 0)) == (0, 255 - 0x40, 255 - 0x20)
    lock = read_lock(carried_texts(picture.read_bytes())[CHUNK])
    assert re.fullmatch(r"Tint \w+\.1 [0-9a-f]{16}", lock.nodes["2"])
    assert re.fullmatch(r"Invert \w+\.1 [0-9a-f]{16}", lock.nodes["3"])
    (place / "my_packs/tint.py").write_text(TINT + "\n# edited\n", encoding="utf-8")
    replayed = command(place, f"sigmagraph replay {picture} --custom-nodes my_packs")
    assert replayed.stdout.startswith("identical"), replayed.stderr
    assert "nodes.2" in replayed.stdout


def test_what_does_not_load_or_takes_a_name_is_told_and_the_rest_runs(place: Path) -> None:
    (place / "my_packs/broken.py").write_text("NODES = [1 / 0]", encoding="utf-8")
    (place / "my_packs/empty.py").write_text("x = 1", encoding="utf-8")
    (place / "my_packs/thief.py").write_text(TINT.replace('"Tint"', '"SaveImage"'), encoding="utf-8")
    ran = command(place, "sigmagraph run workflow.json --custom-nodes my_packs")
    assert ran.returncode == 0, ran.stderr
    assert "broken" in ran.stderr
    assert "ZeroDivisionError: division by zero (broken.py:1)" in ran.stderr
    assert "it has none of NODE_CLASS_MAPPINGS, NODES and comfy_entrypoint" in ran.stderr
    assert "SaveImage: there is a node of that name already" in ran.stderr
