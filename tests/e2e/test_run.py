import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from typer.testing import CliRunner, Result

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.nodes import NODES

Graphs = Callable[..., dict[str, Any]]


def run(home: Path, document: Any, *more: str) -> Result:
    path = home / "workflow.json"
    path.write_text(json.dumps(document))
    return CliRunner().invoke(app, ["run", str(path), "--home", str(home), "--output", str(home / "out"), *more])


def test_a_workflow_makes_a_picture_and_prints_its_path(home: Path, txt2img: Graphs) -> None:
    done = run(home, txt2img())
    assert done.exit_code == 0, done.output
    path = home / "out/picture_00001_.png"
    assert done.stdout == f"{path}\n"
    with Image.open(path) as picture:
        assert picture.size == (64, 48)
        assert json.loads(picture.text["prompt"]) == txt2img()  # type: ignore[attr-defined]
    assert "KSampler" in done.stderr


def test_the_same_workflow_twice_gives_the_same_bytes(home: Path, txt2img: Graphs) -> None:
    run(home, txt2img())
    run(home, txt2img())
    first, second = sorted((home / "out").iterdir())
    assert first.read_bytes() == second.read_bytes()


def test_another_seed_or_prompt_gives_another_picture(home: Path, txt2img: Graphs) -> None:
    for settings in ([], ["--set", "KSampler.seed=2"], ["--set", "Prompt.text=a blue square"]):
        assert run(home, txt2img(), *settings).exit_code == 0
    pictures = [Image.open(path).tobytes() for path in sorted((home / "out").iterdir())]
    assert len(set(pictures)) == 3


def test_a_picture_makes_itself_again(home: Path, txt2img: Graphs) -> None:
    run(home, txt2img(), "--set", "KSampler.seed=5")
    made = home / "out/picture_00001_.png"
    arguments = ["run", str(made), "--home", str(home), "--output", str(home / "again")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert (home / "again/picture_00001_.png").read_bytes() == made.read_bytes()


def test_an_image_to_image_workflow_reads_from_the_input_folder(home: Path, txt2img: Graphs) -> None:
    Image.new("RGB", (64, 48), (200, 40, 40)).save(home / "input/red.png")
    graph = txt2img(denoise=0.5)
    graph["4"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["8", 0], "vae": ["1", 2]}}
    graph["8"] = {"class_type": "LoadImage", "inputs": {"image": "red.png"}}
    done = run(home, graph)
    assert done.exit_code == 0, done.output


def test_check_runs_nothing(home: Path, txt2img: Graphs) -> None:
    path = home / "workflow.json"
    path.write_text(json.dumps(txt2img()))
    done = CliRunner().invoke(app, ["check", str(path), "--home", str(home)])
    assert done.exit_code == 0
    assert done.stderr == "7 nodes, 1 output: nothing wrong\n"
    assert not (home / "out").exists()


def test_a_second_run_in_one_process_executes_the_output_node_alone(home: Path, txt2img: Graphs) -> None:
    folders = Folders(home / "models", home / "input", home / "out", home / "temp")
    cache = MemoryCache()
    prepared = plan(validate(parse_workflow(txt2img()), NODES, folders), folders)
    first = execute(prepared, folders, cache).or_raise()
    assert sorted(first.executed) == ["1", "2", "3", "4", "5", "6", "7"]
    second = execute(prepared, folders, cache).or_raise()
    assert second.executed == ["7"]
    one, two = sorted((home / "out").iterdir())
    assert one.read_bytes() == two.read_bytes()


def test_a_changed_seed_reuses_everything_before_the_sampler(home: Path, txt2img: Graphs) -> None:
    folders = Folders(home / "models", home / "input", home / "out", home / "temp")
    cache = MemoryCache()
    for seed, executed in ((1, 7), (2, 3)):
        graph = validate(parse_workflow(txt2img(seed=seed)), NODES, folders)
        result = execute(plan(graph, folders), folders, cache).or_raise()
        assert len(result.executed) == executed


def test_rebatched_latents_and_combined_prompts_run_in_a_graph(home: Path, txt2img: Graphs) -> None:
    graph = txt2img(steps=1)
    graph["4"]["inputs"]["batch_size"] = 3
    graph["8"] = {"class_type": "RebatchLatents", "inputs": {"latents": ["4", 0], "batch_size": 2}}
    graph["9"] = {
        "class_type": "ConditioningSetTimestepRange",
        "inputs": {"conditioning": ["2", 0], "start": 0.0, "end": 0.5},
    }
    graph["10"] = {
        "class_type": "ConditioningCombine",
        "inputs": {"conditioning_1": ["9", 0], "conditioning_2": ["3", 0]},
    }
    graph["5"]["inputs"] |= {"latent_image": ["8", 0], "positive": ["10", 0]}
    done = run(home, graph)
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 3  # two batches, of two images and of one
    again = run(home, graph)
    assert len(again.stdout.splitlines()) == 3
    first, second = (home / f"out/picture_0000{number}_.png" for number in (3, 6))
    with Image.open(first) as one, Image.open(second) as other:
        assert one.tobytes() == other.tobytes()
