"""The basic and SD3.5 files of comfyui-workflow-templates, run as they are on the demo checkpoint under an alias.

Needs the extra `templates`; run with `pytest -m templates`. Only steps and sizes are made small.
"""

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sigmagraph.engine.compose.workspace import Workspace, open_workspace
from sigmagraph.engine.errors import EngineError, InvalidWorkflow
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.reading.document import load_workflow
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.nodes import NODES
from tests.graph.test_templates import folder
from tests.tiny import write_controlnet

pytestmark = pytest.mark.templates

ROOT = Path(__file__).resolve().parents[2]
DEMO_SHAPE = MMDiTShape(4, 256, 192, 256, 24)
DEMO = "checkpoints/sigmagraph-demo.safetensors"
GUIDE = (ROOT / "docs/replay.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w[\w.]*)` \| (.*) \|$", GUIDE.split("### Which of them run", 1)[1], re.MULTILINE))
DECLARATIONS = {name: node.object_info() for name, node in NODES.items()}
SMALL = {
    "steps": 2,
    "width": 128,
    "height": 128,
    "batch_size": 1,
    "end_at_step": 2,
    "start_at_step": 0,
    "megapixels": 1 / 64,
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "models/checkpoints").mkdir(parents=True)
    (tmp_path / "models" / DEMO).symlink_to(ROOT / "models" / DEMO)
    return tmp_path


def bind(home: Path, workflow: Workflow) -> None:
    """What the file asks for: checkpoints and VAEs are names of the demo checkpoint, pictures are a gradient."""
    from PIL import Image

    names: dict[str, set[str]] = {"checkpoints": set(), "vae": set()}
    for node in workflow.nodes.values():
        match node.class_type:
            case "CheckpointLoaderSimple":
                names["checkpoints"].add(str(node.inputs["ckpt_name"]))
            case "VAELoader":
                names["vae"].add(str(node.inputs["vae_name"]))
            case "LoadImage":
                path = home / "input" / str(node.inputs["image"])
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.linear_gradient("L").resize((128, 128)).convert("RGBA").save(path)
            case "ControlNetLoader" | "DiffControlNetLoader":
                name = str(node.inputs["control_net_name"])
                kind = next((at for at, word in enumerate(("blur", "canny", "depth")) if word in name), None)
                write_controlnet(home / "models/controlnet" / name, DEMO_SHAPE, kind=kind if "3.5" in name else None)
            case "LoraLoader":
                write_adapter(home / "models/loras" / str(node.inputs["lora_name"]))
    tables = [f"[{kind}]\n" + "".join(f'"{name}" = "{DEMO}"\n' for name in found) for kind, found in names.items()]
    (home / "models/aliases.toml").write_text("".join(tables))


def write_adapter(path: Path) -> None:
    """A LoRA of rank 1 for one weight of the demo model."""
    key = "diffusion_model.joint_blocks.0.x_block.attn.proj"
    factors = {f"{key}.lora_B.weight": torch.full((256, 1), 0.01), f"{key}.lora_A.weight": torch.full((1, 256), 0.01)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(factors, path)


def small(workflow: Workflow) -> Workflow:
    changes: dict[str, dict[str, Any]] = {
        node_id: {
            name: min(value, SMALL[name])
            for name, value in node.inputs.items()
            if name in SMALL and isinstance(value, int | float)
        }
        for node_id, node in workflow.nodes.items()
    }
    return workflow.with_inputs(changes)


def test_the_table_names_every_basic_and_sd35_file() -> None:
    index = json.loads((folder() / "index.json").read_text())
    basics = next(group for group in index if group["title"] == "Getting Started")
    sd35 = [path.stem for path in folder().glob("sd3.5*.json")]
    assert set(ROWS) == {*(template["name"] for template in basics["templates"]), *sd35}


@pytest.mark.parametrize("name", ROWS)
def test_a_file_runs_on_the_demo_checkpoint_or_names_every_node_it_lacks(home: Path, name: str) -> None:
    path = folder() / f"{name}.json"
    bind(home, load_workflow(path, DECLARATIONS))
    space = open_workspace(home, home / "out")
    workflow = small(space.load(path))
    lacks = {node.class_type for node in workflow.nodes.values()} - set(NODES)
    assert lacks == set(re.findall(r"`(\w+)`", ROWS[name]))
    if lacks:
        with pytest.raises(InvalidWorkflow) as refusal:
            space.validated(workflow)
        assert all(f"there is no node class {missing!r}" in str(refusal.value) for missing in lacks)
        return
    if ROWS[name].startswith("stops"):
        reason = "this ControlNet takes latents" if "ControlNet" in ROWS[name] else "UpscaleModelLoader"
        with pytest.raises(EngineError, match=reason):
            run(space, workflow)
        return
    run(space, workflow)


def run(space: Workspace, workflow: Workflow) -> None:
    """To the pictures."""
    prepared = plan(space.validated(workflow), space.folders)
    result = execute(prepared, space.folders, MemoryCache(), around=torch.inference_mode).or_raise()
    pictures = [image for ui in result.ui.values() for image in ui["images"]]
    assert pictures
    assert all(space.picture(image).is_file() for image in pictures)


def newer() -> list[Path]:
    """The SD3.5 files of the package that holds the files alone."""
    package = importlib.metadata.distribution("comfyui-workflow-templates-json")
    assert package.version == "0.1.123"
    return sorted(Path(str(package.locate_file("comfyui_workflow_templates_json/templates"))).glob("sd3.5*.json"))


@pytest.mark.parametrize("name", ["simple_example", "large_canny_controlnet_example", "large_blur", "large_depth"])
def test_the_sd35_files_of_a_newer_package_run_but_for_one_that_needs_a_depth_model(home: Path, name: str) -> None:
    path = next(path for path in newer() if path.stem == f"sd3.5_{name}")
    bind(home, load_workflow(path, DECLARATIONS))
    space = open_workspace(home, home / "out")
    if name == "large_depth":
        with pytest.raises(InvalidWorkflow, match="no node class 'LotusConditioning'"):
            run(space, small(space.load(path)))
    else:
        run(space, small(space.load(path)))
