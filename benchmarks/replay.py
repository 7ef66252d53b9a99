"""What replays cost: converting editor files, drawing them, locks, checkpoints of a sampling run, and recovery.

    python -m benchmarks.replay [--editor-files FOLDER --object-info FILE] [--rounds N]

Without files of your own, the editor files are those of the extra `templates`, where it is installed, and a drawn chain
of 200 samplers. The checkpoint line runs
workflows/txt2img.json (25 steps) on the demo checkpoint and compares the time spent writing predictions with the run.
"""

import argparse
import asyncio
import gzip
import json
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch

from benchmarks.jobs import recovery
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.editor import convert, drawn
from sigmagraph.engine.graph.lock import lock_of
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.reading.document import load_workflow, parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support import kept_predictions
from sigmagraph.nodes.support.provenance import sealed

ROOT = Path(__file__).resolve().parents[1]


def best_ms(function: Callable[[], Any], rounds: int) -> float:
    """The fastest of some rounds, in processor time: other programs may be running."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        function()
        times.append((time.process_time() - began) * 1e3)
    return min(times)


def row(what: str, figure: str, budget: str = "") -> None:
    """One line of the table."""
    print(f"{what:58} {figure:>14} {budget:>14}")


def chain(length: int) -> dict[str, Any]:
    """A prompt of samplers one behind the other."""
    prompt: dict[str, Any] = {"0": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64}}}
    for at in range(1, length):
        prompt[str(at)] = {"class_type": "KSampler", "inputs": {"seed": at, "latent_image": [str(at - 1), 0]}}
    return prompt


def conversion(folder: Path | None, object_info: Path | None, rounds: int) -> None:
    """The slowest file of a folder, or the chain."""
    if folder is None and object_info is None:
        folder, object_info = templates()
        known = {name: node.object_info() for name, node in NODES.items()}
        document = drawn(chain(200), known)
        row(
            "convert an editor file of 200 nodes",
            f"{best_ms(lambda: convert(document, known), rounds):.2f} ms",
            "< 20 ms",
        )
        row("draw a prompt of 200 nodes", f"{best_ms(lambda: drawn(chain(200), known), rounds):.2f} ms")
    if folder is None or object_info is None:
        return
    text = object_info.read_bytes()
    known = json.loads(gzip.decompress(text) if object_info.suffix == ".gz" else text)
    documents = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    documents = {name: drawing for name, drawing in documents.items() if is_drawing(drawing)}
    slowest = max((best_ms(lambda d=drawing: convert(d, known), rounds), name) for name, drawing in documents.items())  # type: ignore[misc]
    row(f"convert the slowest of {len(documents)} files ({slowest[1][:24]})", f"{slowest[0]:.2f} ms", "< 20 ms")


def is_drawing(document: Any) -> bool:
    """Whether a JSON file is an editor's."""
    return isinstance(document, dict) and isinstance(document.get("nodes"), list)


def templates() -> tuple[Path | None, Path | None]:
    """The folder of comfyui-workflow-templates and the declarations its files need, if it is installed."""
    try:
        package = distribution("comfyui-workflow-templates")
    except PackageNotFoundError:
        return None, None
    folder = Path(str(package.locate_file("comfyui_workflow_templates/templates")))
    return folder, ROOT / "tests/data/conversion/declarations.json.gz"


def checkpoints(home: Path, rounds: int) -> None:
    """A run of 25 steps with predictions written as they come, against the same run without."""
    document = load_workflow(ROOT / "workflows" / "txt2img.json").with_inputs({"5": {"steps": 25}})
    spent: list[float] = []
    original = kept_predictions.KeptPredictions.leave

    def leave(recording: kept_predictions.KeptPredictions) -> None:
        spent.append(recording.spent_s)
        original(recording)

    kept_predictions.KeptPredictions.leave = leave  # type: ignore[method-assign]
    folders = Folders(ROOT / "models", home / "input", home / "output", home / "temp")
    graph = validate(parse_workflow(document.prompt()), NODES, folders)
    row("lock of the demo workflow, files already hashed", f"{lock_ms(graph, folders):.3f} ms")
    shares, sampling = [], []
    for _ in range(rounds):
        result = execute(plan(graph, folders), folders, MemoryCache(), around=torch.inference_mode).or_raise()
        sampling.append(result.nodes["5"].milliseconds)
        shares.append(spent[-1] * 1e3 / sampling[-1])
    kept_predictions.KeptPredictions.leave = original  # type: ignore[method-assign]
    row("25 steps of the demo checkpoint", f"{min(sampling):.0f} ms")
    row("of that, writing predictions (median of rounds)", f"{sorted(shares)[rounds // 2]:.3%}", "< 1 %")


def lock_ms(graph: Any, folders: Folders) -> float:
    """Making one lock; the weights were hashed when the plan was made."""
    target = graph.roots[0]
    plan(graph, folders)
    prompt = graph.prompt()
    return best_ms(lambda: sealed(lock_of(graph, target, folders), prompt), 20)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--editor-files", type=Path)
    parser.add_argument("--object-info", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    row("what", "figure", "budget")
    conversion(given.editor_files, given.object_info, given.rounds)
    with tempfile.TemporaryDirectory() as home:
        checkpoints(Path(home), given.rounds)
    row("start on a database with 10,000 waiting jobs", f"{asyncio.run(recovery(10_000)):.2f} s", "< 2 s")


if __name__ == "__main__":
    main()
