"""The stranger's first run: the shipped workflow on the shipped checkpoint, through the installed command's code."""

from pathlib import Path

from typer.testing import CliRunner

from models.demo.checker import check
from models.demo.scenes import single
from sigmagraph.engine.cli.app import app
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.reading.document import load_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.pictures import read_picture

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "workflows/txt2img.json"


def test_the_demo_command_ends_with_a_picture_of_what_its_prompt_says(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", str(WORKFLOW), "--home", str(ROOT), "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    image, _ = read_picture(Path(done.stdout.strip()))
    scene = single("heart", "red", "large", "in the centre", "white")
    assert load_workflow(WORKFLOW).nodes["2"].inputs["text"] == scene.caption
    assert check(image[0].movedim(-1, 0), scene).is_right


def test_readmes_second_command_draws_what_it_asks_for(tmp_path: Path) -> None:
    scene = single("star", "blue", "large", "at the top", "black")
    assert f'"Prompt.text={scene.caption}" --set KSampler.seed=7' in (ROOT / "README.md").read_text()
    settings = ["--set", f"Prompt.text={scene.caption}", "--set", "KSampler.seed=7"]
    done = CliRunner().invoke(app, ["run", str(WORKFLOW), *settings, "--home", str(ROOT), "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    image, _ = read_picture(Path(done.stdout.strip()))
    assert check(image[0].movedim(-1, 0), scene).is_right


def test_again_in_one_process_only_the_output_runs_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    folders = Folders(ROOT / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    workflow = load_workflow(WORKFLOW)
    prepared, cache = plan(validate(workflow, NODES, folders), folders), MemoryCache()
    first = execute(prepared, folders, cache).or_raise()
    second = execute(prepared, folders, cache).or_raise()
    assert len(first.executed) == len(workflow.nodes)
    assert [workflow.nodes[node_id].class_type for node_id in second.executed] == ["SaveImage"]
    one, two = sorted((tmp_path / "output").iterdir())
    assert one.read_bytes() == two.read_bytes()
