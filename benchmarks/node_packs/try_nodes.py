"""Feed each node of each pack as the editor would, with values of the demo checkpoint, and count what runs.

    python benchmarks/node_packs/try_nodes.py FOLDER [--json FILE] [NAME ...]

Each pack has a process, a home and a deadline of its own. Packs' code runs: nothing here protects from it. A value of a
type that only a pack has comes from another node of it that ran before; where none does, a node counts as not fed.
Widgets have their defaults, optional ones too: a page sends every widget of a node. Optional sockets stay unlinked.
"""

import argparse
import asyncio
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PACK_S, NODE_S = 240.0, 10.0
ROUNDS = 3
HIDDEN: Mapping[str, Any] = {"UNIQUE_ID": "1", "PROMPT": {}, "EXTRA_PNGINFO": {"workflow": {"nodes": [], "links": []}}}
WIDGETS = {"INT": 1, "FLOAT": 1.0, "STRING": "a", "BOOLEAN": True, "COMBO": None}
UNSET = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
"""What a page's widget holds where the class gives no default."""
HOST = (
    "NotHere",
    "not here for node packs",
    "is not part of this engine",
    "EngineError",
    "BadValue",
    "pack's own class",
)
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1"}
DEMO = "sigmagraph-demo.safetensors"


def main() -> None:
    """The table, a row a pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        answer = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what packs print is not the answer
        json.dump(tried(given.folder), answer)
        answer.flush()
        os._exit(0)  # threads of packs, and of nodes that hang, must not keep it alive
    rows = []
    print("| pack | classes | ran | not fed | failed | of these by what is missing here |")
    print("| --- | --- | --- | --- | --- | --- |")
    for pack in sorted(given.folder.iterdir()):
        if (pack / "__init__.py").is_file() and (not given.names or pack.name in given.names):
            rows.append({"pack": pack.name, **_apart(pack)})
            print(_row(rows[-1]), flush=True)
            if given.json:
                given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _apart(pack: Path) -> dict[str, Any]:
    """A pack in a process of its own."""
    command = [sys.executable, __file__, "--one", str(pack)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PACK_S, env=os.environ | OFFLINE, check=True)
        found: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
        return found
    except subprocess.TimeoutExpired:
        return {"error": f"not done within {PACK_S:g} s"}
    except (subprocess.CalledProcessError, ValueError, IndexError) as error:
        return {"error": f"its process ended: {error}"[:200]}


def _row(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return f"| {found['pack']} | {found['error']} | | | | |"
    kinds = Counter(outcome.partition(":")[0] for outcome in found["nodes"].values())
    ours = sum(any(word in outcome for word in HOST) for outcome in found["nodes"].values())
    counted = (len(found["nodes"]), kinds["ran"], kinds["not fed"], kinds["failed"], ours)
    return f"| {found['pack']} | " + " | ".join(map(str, counted)) + " |"


def tried(pack: Path) -> dict[str, Any]:
    """Every node of one pack: `ran`, `not fed: TYPE`, or `failed: REASON`."""
    from sigmagraph.engine.compose.packs import load_custom_nodes
    from sigmagraph.engine.execution.folders import Folders
    from sigmagraph.nodes import NODES

    home = Path(tempfile.mkdtemp(prefix="sigmagraph-packs-"))
    folder = home / "packs"
    folder.mkdir()
    (folder / pack.name).symlink_to(pack.resolve())
    folders = Folders(home / "models", home / "input", home / "output", home / "temp")
    heard: list[Any] = []
    found = load_custom_nodes([folder], folders, heard.append)
    own = {name: found[name] for told in heard for name in told.nodes if name not in NODES}
    values, outcomes = _values(), dict[str, str]()
    for _ in range(ROUNDS):
        for name, node in own.items():
            if not outcomes.get(name, "not fed").startswith("not fed"):
                continue
            outcomes[name] = _outcome(node, values, folders)
    return {"nodes": outcomes, "problems": [problem for told in heard for problem in told.problems]}


def _outcome(node: Any, values: dict[str, Any], folders: Any) -> str:
    """What came of one node; its outputs are values for others."""
    from sigmagraph.engine.execution.packs.entrypoint import within
    from sigmagraph.engine.graph.dynamic import resolved

    try:
        node = resolved(node, {})
        inputs = dict(_inputs(node, values, folders))
    except LookupError as error:
        return f"not fed: {error.args[0]}"
    try:
        row = within(NODE_S, lambda: _called(node, inputs), node.class_type)
    except BaseException as error:  # noqa: BLE001  # whatever a node raises is what came of it
        return f"failed: {type(error).__name__}: {error}"[:300]
    for output, value in zip(node.outputs, getattr(row, "values", ()), strict=False):
        if str(output.type) not in WIDGETS:
            values.setdefault(str(output.type), value)
    return "ran"


def _called(node: Any, inputs: dict[str, Any]) -> Any:
    import torch

    with torch.inference_mode():
        returned = node(**inputs)
        if inspect.isawaitable(returned):
            returned = asyncio.run(_awaited(returned))
        return node.reads(returned) if node.reads is not None else returned


async def _awaited(value: Any) -> Any:
    return await value


def _inputs(node: Any, values: Mapping[str, Any], folders: Any) -> Iterator[tuple[str, Any]]:
    """Defaults, first choices, and values by type. Raises `LookupError` with the type that nothing here has."""
    for declared in node.inputs:
        if declared.group == "hidden":
            if str(declared.type) in HIDDEN:
                yield declared.name, HIDDEN[str(declared.type)]
            continue
        try:
            value = _widget(declared, folders) if declared.group == "optional" else _required(declared, values, folders)
        except LookupError:
            if declared.group == "optional":
                continue
            raise
        yield declared.name, [value] if node.input_is_list else value


def _widget(declared: Any, folders: Any) -> Any:
    """What a page sends for an optional input nothing is linked to. Raises `LookupError` where it sends nothing."""
    kind, choices = str(declared.type), declared.allowed(folders)
    if declared.options.get("forceInput") or (choices is None and kind not in UNSET):
        raise LookupError(kind)
    default = declared.options.get("default")
    if choices is not None:
        return default if default in choices else choices[0]
    if default is not None:
        return default
    return max(UNSET[kind], declared.options.get("min", UNSET[kind])) if kind in ("INT", "FLOAT") else UNSET[kind]


def _required(declared: Any, values: Mapping[str, Any], folders: Any) -> Any:
    """A default, a first choice, or a value of the type."""
    kind, choices = str(declared.type), declared.allowed(folders)
    default = declared.options.get("default", WIDGETS.get(kind))
    if choices is not None:
        if not choices:
            raise LookupError(f"a file for {declared.name}")
        return default if default in choices else choices[0]
    if default is not None:
        return default
    if kind in values or kind == "*":
        return values.get(kind, "a")
    raise LookupError(kind)


def _values() -> dict[str, Any]:
    """Values of every type of ours, small ones."""
    import torch

    from sigmagraph.engine.models.load import load_checkpoint
    from sigmagraph.nodes import NODES
    from sigmagraph.nodes.support.types import LatentValue

    parts = load_checkpoint(Path(__file__).parents[2] / "models/checkpoints" / DEMO)
    assert parts.clip is not None
    text, image = parts.clip.encode("a boat"), torch.rand(1, 64, 64, 3)
    guider = NODES["CFGGuider"](model=parts.model, positive=text, negative=text, cfg=4.0)
    return {
        "MODEL": parts.model,
        "CLIP": parts.clip,
        "VAE": parts.vae,
        "CONDITIONING": text,
        "LATENT": LatentValue(torch.zeros(1, 16, 8, 8)),
        "IMAGE": image,
        "MASK": image[..., 0],
        "NOISE": NODES["RandomNoise"](noise_seed=1),
        "SAMPLER": NODES["KSamplerSelect"](sampler_name="euler"),
        "SIGMAS": (1.0, 0.5, 0.0),
        "GUIDER": guider,
    }


if __name__ == "__main__":
    main()
