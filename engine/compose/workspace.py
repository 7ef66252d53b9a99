"""Where a command finds models, pictures and nodes: the parts of the engine, put together for one process."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigmagraph.engine.errors import MissingFile, WriteFailed
from sigmagraph.engine.shipped import IS_CHECKOUT, SHIPPED, shipped_models
from sigmagraph.engine.writing import make_folder

if TYPE_CHECKING:  # imported when they are needed: `--help` must not load torch
    from sigmagraph.engine.execution.cache.result_store import ResultStore
    from sigmagraph.engine.execution.folders import Folders
    from sigmagraph.engine.graph.graph import Graph, GraphNode
    from sigmagraph.engine.graph.node import Node
    from sigmagraph.engine.graph.problems import Problem
    from sigmagraph.engine.graph.reading.carried import Form
    from sigmagraph.engine.graph.workflow import Workflow

__all__ = ["Workspace", "open_workspace"]

LOG = logging.getLogger("sigmagraph")


@dataclass(frozen=True)
class Workspace:
    """The folders of one process, and its nodes: the built-in ones, and those of the packs the operator named."""

    home: Path
    output: Path
    custom_nodes: tuple[Path, ...] = ()
    watches_edits: bool = False
    remark: Callable[[str], None] = LOG.info
    warn: Callable[[str], None] = LOG.warning

    @cached_property
    def folders(self) -> "Folders":
        """The services nodes ask for."""
        from sigmagraph.engine.compose.aliases import read_aliases
        from sigmagraph.engine.compose.model_paths import extra_from_environment
        from sigmagraph.engine.execution.folders import Folders

        models, aliases = self.home / "models", os.environ.get("SIGMAGRAPH_ALIASES")
        further = read_aliases(Path(aliases) if aliases else None, models)
        inputs, temporary = self.home / "input", self.home / "temp"
        extra = extra_from_environment(os.environ, models, shipped_models())
        return Folders(models, inputs, self.output, temporary, extra, further, _missing_tokenizers)

    @cached_property
    def nodes(self) -> "Mapping[str, Node]":
        """Every node there is; loading them loads torch. What packs import is loaded for packs alone."""
        from sigmagraph.engine.execution.packs import INSTALLED

        if not self.custom_nodes and not entry_points(group=INSTALLED):
            from sigmagraph.nodes import NODES

            return NODES
        from sigmagraph.engine.compose.packs import load_custom_nodes

        listed = [*self.custom_nodes], self.folders, lambda pack: self.remark(f"nodes: {pack}")
        return load_custom_nodes(*listed, watches=self.watches_edits)

    def store(self, budget: str | None) -> "ResultStore":
        """The cache, by the option; what is wrong with the disk tier is a warning."""
        from sigmagraph.engine.compose.caching import open_store
        from sigmagraph.engine.execution.cache.settings import CacheSettings

        return open_store(CacheSettings.parse(budget or "disk=0"), self.home / "cache", self.warn)

    def load(self, path: Path, form: "Form" = "auto") -> "Workflow":
        """Read a workflow file of any kind, or one stored under that name."""
        from sigmagraph.engine.compose.stored import stored_workflow
        from sigmagraph.engine.graph.reading.document import load_workflow

        stored = stored_workflow(self.home, path)
        if stored is not None:
            return stored
        return load_workflow(path, self.declarations, form)

    def read(self, workflow: "str | Path | Mapping[str, Any] | Workflow", form: "Form" = "auto") -> "Workflow":
        """A workflow from wherever it is: a file or stored name, a document, or one read already. Says its warnings.

        Bare sampler names of a file mean what they meant in the ComfyUI that saved it.
        """
        from sigmagraph.engine.compose.saved_version import as_saved
        from sigmagraph.engine.graph.reading.document import parse_workflow
        from sigmagraph.engine.graph.workflow import Workflow

        if isinstance(workflow, str | Path):
            read = self.load(Path(workflow), form)
        elif isinstance(workflow, Workflow):
            return workflow
        else:
            read = parse_workflow(workflow, self.declarations)
        for warning in read.warnings:
            self.warn(warning)
        return as_saved(read, self.remark)

    @property
    def declarations(self) -> Mapping[str, Any]:
        """The nodes in `/object_info` form, for documents of the editor."""
        from sigmagraph.engine.graph.declarations import Declarations

        return Declarations(self.nodes, self.folders)

    def picture(self, record: Mapping[str, Any]) -> Path:
        """The file behind what an output node shows, `{filename, subfolder, type}`."""
        root = self.folders.temp_dir if record["type"] == "temp" else self.folders.output_dir
        return Path(root, record["subfolder"], record["filename"])

    def validated(self, workflow: "Workflow") -> "Graph":
        """The workflow with every input checked; raises `InvalidWorkflow` with all problems."""
        from sigmagraph.engine.errors import InvalidWorkflow
        from sigmagraph.engine.graph.validate import validate

        graph = validate(workflow, self.nodes, self.folders)
        if graph.problems:  # some outputs could run; a caller wants all of them
            raise InvalidWorkflow(graph.problems)
        return graph

    def require_output(self) -> None:
        """Raise `WriteFailed` before any work is done if the output folder cannot be written."""
        folder = make_folder(self.output)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise WriteFailed(folder, "cannot be written: permission denied")


def _missing_tokenizers(folders: "Folders", vertices: "Mapping[str, GraphNode]") -> "Sequence[Problem]":
    from sigmagraph.engine.compose.companions import missing_tokenizers  # torch is there once a graph is

    return missing_tokenizers(folders, vertices)


def open_workspace(
    home: Path | None = None,
    output: Path | None = None,
    custom_nodes: Sequence[Path] | None = None,
    *,
    watches_edits: bool = False,
    remark: Callable[[str], None] = LOG.info,
    warn: Callable[[str], None] = LOG.warning,
) -> Workspace:
    """The workspace at `home`: else here if there is a models folder, else the checkout this code lies in, if any."""
    here = Path.cwd()
    if home is not None and not home.is_dir():
        raise MissingFile(home, "there is no such folder; --home or SIGMAGRAPH_HOME names it")
    places = (here, SHIPPED) if IS_CHECKOUT else (here,)
    found = next((place for place in places if (place / "models").is_dir()), here)
    packs = tuple(custom_nodes or ())
    return Workspace(home or found, output or here / "output", packs, watches_edits, remark, warn)
