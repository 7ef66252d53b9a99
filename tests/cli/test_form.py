"""`--form`: of a picture with two workflows, the one the user wants."""

import json
from pathlib import Path

import PIL.Image
import PIL.PngImagePlugin
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app

SIZES = {"width": 8, "height": 8, "batch_size": 1, "color": 0}
SAVED = {"images": ["1", 0], "filename_prefix": "x"}
PROMPT = {"1": {"class_type": "EmptyImage", "inputs": SIZES}, "2": {"class_type": "SaveImage", "inputs": SAVED}}
DRAWING = {"nodes": [{"id": 1, "type": "EmptyImage", "widgets_values": [8, 8, 1, 0]}], "links": []}


def test_the_drawing_of_another_graph_is_checked_unless_the_prompt_is_asked_for(tmp_path: Path) -> None:
    texts = PIL.PngImagePlugin.PngInfo()
    texts.add_text("prompt", json.dumps(PROMPT))
    texts.add_text("workflow", json.dumps(DRAWING))
    picture = tmp_path / "two.png"
    PIL.Image.new("RGB", (1, 1)).save(picture, pnginfo=texts)
    command = ["check", str(picture), "--home", str(tmp_path)]
    auto = CliRunner().invoke(app, command)
    assert auto.exit_code == 1  # the drawing has no output node
    assert "the drawing is taken" in " ".join(auto.stderr.split())
    forced = CliRunner().invoke(app, [*command, "--form", "prompt"])
    assert forced.exit_code == 0, forced.stderr
    assert "2 nodes, 1 output: nothing wrong" in forced.stderr
