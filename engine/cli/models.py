"""`sigmagraph models`: the weight files in the model folders, what each is by its header, and what it completes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigmagraph.engine.cli.options import AsJson, CustomNodes, Home, workspace
from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.units import bytes_in_words

if TYPE_CHECKING:
    from rich.table import Table

    from sigmagraph.engine.execution.folders import Folders
    from sigmagraph.engine.graph.node import Node

__all__ = ["models"]

FOLDERS = ("checkpoints", "diffusion_models", "text_encoders", "vae", "vae_approx", "loras", "controlnet")
NOTHING = {"size_bytes": 0, "holds": "a link to nothing, or not a file", "family": "", "precision": ""}
WEIGHT_SUFFIXES = (".safetensors", ".sft", ".gguf")


def models(as_json: AsJson = False, custom_nodes: CustomNodes = None, home: Home = None) -> None:
    """List the weight files and pipeline folders; only headers are read. Digests are those of earlier runs."""
    from sigmagraph.engine.cli.console import out, remark, write_json
    from sigmagraph.engine.shipped import SHIPPED

    space = workspace(home, None, custom_nodes)
    nodes = space.nodes  # packs may register model folders
    listed = [
        (folder, name, _path(space.folders, folder, name)) for folder in FOLDERS for name in space.folders.files(folder)
    ]
    complete = completed(space.folders, nodes, (SHIPPED / "workflows", space.home / "workflows"))
    found: list[dict[str, Any]] = [
        {
            "folder": folder,
            "file": name,
            **(NOTHING if path is None else {"size_bytes": path.stat().st_size, **_content(path, folder)}),
            "digest": space.folders.known_hash(path) if path is not None else None,
            "completes": complete.get(path, []) if path is not None else [],
        }
        for folder, name, path in listed
    ]
    found += list(_pipelines(space.folders.directories("diffusers")))
    if as_json:
        write_json(found)
    elif found:
        out().print(_table(found))
    else:
        remark(f"no weight files below {space.folders.models}; `sigmagraph fetch` lists what can be brought")


def _path(folders: "Folders", folder: str, name: str) -> Path | None:
    """The file of a listed name; None where the name leads to no file."""
    with suppress(EngineError):
        path = folders.path(folder, name)
        return path if path.is_file() else None
    return None


def _table(found: Sequence[Mapping[str, Any]]) -> "Table":
    """A row a file: where it is, how large, and all that is known of it."""
    from sigmagraph.engine.cli.console import columns

    table = columns("file", "size", "holds", whole=2, right=("size",))
    for file in found:
        kind = ", ".join(word for word in (file["family"], file["precision"]) if word)
        digest, works = (file["digest"] or "").partition(":")[2][:10], ", ".join(file["completes"])
        facts = (file["holds"], kind, digest and f"digest {digest}", works and f"completes {works}")
        size = bytes_in_words(file["size_bytes"])
        table.add_row(f"{file['folder']}/{file['file']}", size, "; ".join(fact for fact in facts if fact))
    return table


def completed(folders: "Folders", nodes: "Mapping[str, Node]", places: tuple[Path, ...]) -> dict[Path, list[str]]:
    """File -> the workflows that read it and of which no weight file is missing, each where its node looks for it."""
    from sigmagraph.engine.graph.reading.document import load_workflow

    found: dict[Path, list[str]] = {}
    for workflow in dict.fromkeys(path for place in places for path in sorted(place.glob("*.json"))):
        try:
            vertices = load_workflow(workflow).nodes.values()
        except EngineError:
            continue
        files = [
            _path(folders, folder, value)
            for vertex in vertices
            for input_, value in vertex.inputs.items()
            if isinstance(value, str) and value.lower().endswith(WEIGHT_SUFFIXES)
            for folder in _looked_in(nodes.get(vertex.class_type), input_)
        ]
        for path in dict.fromkeys(path for path in files if path is not None) if None not in files else ():
            works = found.setdefault(path, [])
            works += [workflow.stem] if workflow.stem not in works else []
    return found


def _looked_in(node: "Node | None", name: str) -> list[str]:
    """The folder that an input's file is looked for in; none where the input names no file."""
    declared = node.declared.get(name) if node is not None else None
    return [declared.file.folder] if declared is not None and declared.file is not None else []


def _pipelines(directories: list[Path]) -> Iterator[dict[str, Any]]:
    """The folders that DiffusersLoader lists."""
    for directory in directories:
        for index in sorted(directory.glob("*/model_index.json")):
            size = sum(path.stat().st_size for path in index.parent.rglob("*.safetensors") if path.is_file())
            transformer = index.parent / "transformer"
            content = (
                _content(transformer, "") if transformer.is_dir() else {"holds": "", "family": "", "precision": ""}
            )
            holds = ", ".join(sorted(path.name for path in index.parent.iterdir() if any(path.glob("*.safetensors"))))
            row = {"folder": "diffusers", "file": index.parent.name, "size_bytes": size, **content}
            yield row | {"holds": holds or content["holds"], "digest": None, "completes": []}


def _content(path: Path, folder: str) -> dict[str, Any]:
    """What the file is, or what is wrong with it."""
    from sigmagraph.engine.graph.pause import no_collection
    from sigmagraph.engine.models.files.adapter_summary import summarise_adapter
    from sigmagraph.engine.models.files.summary import summarise

    try:
        with no_collection():  # a thousand tensors a file, each a record: the collector takes half of the time
            if folder == "loras":
                adapter = summarise_adapter(path)
                return {**adapter._asdict(), "holds": adapter.holds}
            return summarise(path)._asdict()
    except EngineError as error:
        return {"holds": str(error).removeprefix(f"{path}: "), "family": "", "precision": ""}
