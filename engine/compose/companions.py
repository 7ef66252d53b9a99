"""Files that others need beside them, looked for while a graph is validated: T5's tokenizer, which no checkpoint holds.

Only headers are opened for it. A prompt would say the same, but gigabytes later: once its model's digest is known.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from sigmagraph.engine.errors import EngineError, MissingFile
from sigmagraph.engine.execution.folders import HOLD_ENCODERS, Folders
from sigmagraph.engine.graph.graph import GraphNode
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.models.files.detect import find_parts
from sigmagraph.engine.models.files.read import open_weights
from sigmagraph.engine.models.text.encode import T5
from sigmagraph.engine.models.text.vocabulary import Vocabularies

__all__ = ["missing_tokenizers"]

ENCODERS, ENCODED = "CLIP", "CONDITIONING"  # the wire's names


def missing_tokenizers(folders: Folders, vertices: Mapping[str, GraphNode]) -> list[Problem]:
    """A problem for each loader of a T5 encoder that some text goes through, where no tokenizer for it is found."""
    loaders = {node_id: files for node_id, vertex in vertices.items() if (files := _files(vertex))}
    problems: list[Problem] = []
    for node_id in loaders:
        if _is_asked(node_id, vertices):
            problems += _lacking(folders, vertices[node_id], loaders[node_id])
    return problems


def _files(vertex: GraphNode) -> Mapping[str, tuple[str, str]]:
    """Input -> folder and name of each file that may hold encoders."""
    return {
        name: (declared.file.folder, value)
        for name, declared in vertex.node.declared.items()
        if declared.file is not None
        and declared.file.folder in HOLD_ENCODERS
        and isinstance(value := vertex.inputs.get(name), str)
    }


def _is_asked(loader: str, vertices: Mapping[str, GraphNode]) -> bool:
    """Whether some node makes conditionings with the loader's encoders, as they are or changed on the way."""
    reached, waiting = {loader}, [loader]
    while waiting:
        source = waiting.pop()
        for vertex in vertices.values():
            if vertex.id not in reached and any(
                _carries(vertices, link.source, link.slot, source) for _, link in vertex.links
            ):
                kinds = {str(output.type) for output in vertex.node.outputs}
                if ENCODED in kinds:
                    return True
                reached.add(vertex.id)
                waiting += [vertex.id] * (ENCODERS in kinds)
    return False


def _carries(vertices: Mapping[str, GraphNode], source: str, slot: int, wanted: str) -> bool:
    """Whether a link comes from the wanted node and carries encoders."""
    outputs = vertices[source].node.outputs if source == wanted else ()
    return 0 <= slot < len(outputs) and str(outputs[slot].type) == ENCODERS


def _lacking(folders: Folders, vertex: GraphNode, files: Mapping[str, tuple[str, str]]) -> list[Problem]:
    opened: dict[str, tuple[Path, frozenset[str], Mapping[str, str]]] = {}
    for name, (folder, value) in files.items():
        with suppress(EngineError):  # the loader says what is wrong with a file
            path = folders.path(folder, value)
            facts = path.stat()
            opened[name] = path, *_held(path, facts.st_size, facts.st_mtime_ns)
    metadata = {key: text for _, _, held in opened.values() for key, text in held.items()}
    known = Vocabularies.beside([path for path, _, _ in opened.values()], metadata)
    try:
        known.looking_in(folders.directories("tokenizers")).located(T5)
    except MissingFile as error:
        return [_problem(vertex, name, files[name][1], error) for name, (_, held, _) in opened.items() if T5 in held]
    return []


def _problem(vertex: GraphNode, name: str, value: str, error: MissingFile) -> Problem:
    return Problem(
        "custom_validation_failed",
        f"{value} holds a T5 encoder, and {error}",
        vertex.id,
        vertex.node.class_type,
        name,
        received={name: value},
        extra={"answer": str(error)},
    )


@lru_cache(maxsize=64)
def _held(path: Path, size: int, changed: int) -> tuple[frozenset[str], Mapping[str, str]]:
    """The encoders in a file and its metadata, for as long as size and time of change stay."""
    file = open_weights(path)
    return frozenset(find_parts(file).encoders), file.metadata
