"""Which ComfyUI saved a file, and what its bare sampler names mean for that reason.

The editor writes into each of ComfyUI's own nodes the version it had when the node was made or last changed
(`properties`: `cnr_id` comfy-core, `ver`). The newest one is taken for the file's. Prompts alone carry none.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sigmagraph.engine.errors import EngineError

if TYPE_CHECKING:
    from sigmagraph.engine.graph.workflow import Workflow, WorkflowNode

__all__ = ["as_saved", "saved_version"]

CORE = "comfy-core"
VERSION = re.compile(r"\d{1,4}\.\d{1,4}(\.\d{1,4})?")
SETTING = "SIGMAGRAPH_COMFYUI"
NAMELESS = {  # sampler nodes without a name to carry a revision, and what each is
    "SamplerEulerAncestral": "euler_ancestral",
    "SamplerEulerAncestralCFGPP": "euler_ancestral_cfg_pp",
    "SamplerDPMPP_2S_Ancestral": "dpmpp_2s_ancestral",
    "SamplerLCM": "lcm",
    "SamplerER_SDE": "er_sde",
    "SamplerSASolver": "sa_solver",
    "SamplerSEEDS2": "seeds_2",
}


def as_saved(workflow: "Workflow", say: Callable[[str], None]) -> "Workflow":
    """The workflow with those bare sampler names settled that meant something else in the ComfyUI that saved it.

    A chosen ComfyUI (setting `comfyui`) counts more than the file's.
    """
    version = saved_version(workflow.editor or {})
    if version is None or os.environ.get(SETTING):
        return workflow
    nodes, names = dict(workflow.nodes), []
    for place, node in workflow.nodes.items():
        name = node.inputs.get("sampler_name", NAMELESS.get(node.class_type))
        settled = _settled(name, version) if isinstance(name, str) else None
        if settled is None:
            continue
        if node.class_type in NAMELESS:
            say(f"node {place} ({node.class_type}): computes as today's ComfyUI; {SETTING}={version} as the file's")
        else:
            nodes[place] = _with_sampler(node, settled)
            names.append(settled)
    if not names:
        return workflow
    say(f"saved by ComfyUI {version}: {', '.join(dict.fromkeys(names))}")
    return replace(workflow, nodes=nodes)


def saved_version(editor: Mapping[str, Any]) -> str | None:
    """The newest version that a core node of a drawing carries."""
    found = [version for node in _drawn(editor) if (version := _version(node)) is not None]
    return max(found, key=lambda version: [int(part) for part in version.split(".")], default=None)


def _drawn(editor: Mapping[str, Any]) -> Iterator[Any]:
    """Every node of the drawing, and of its subgraphs."""
    definitions = editor.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    for canvas in (editor, *(subgraphs if isinstance(subgraphs, list) else ())):
        nodes = canvas.get("nodes") if isinstance(canvas, dict) else None
        yield from nodes if isinstance(nodes, list) else ()


def _version(node: Any) -> str | None:
    properties = node.get("properties") if isinstance(node, dict) else None
    if not isinstance(properties, dict) or properties.get("cnr_id") != CORE:
        return None
    version = properties.get("ver")
    return version if isinstance(version, str) and VERSION.fullmatch(version) else None


def _settled(name: str, version: str) -> str | None:
    """The name with the revision it meant, if it is bare and means another today."""
    from sigmagraph.engine.sampling import SOLVERS
    from sigmagraph.nodes.support.graph_names import bare_revision

    if name not in SOLVERS:
        return None
    try:
        then, now = (SOLVERS[name].at(revision) for revision in (f"comfyui-{version}", bare_revision()))
    except EngineError:
        return None
    return None if then.revision == now.revision else str(then)


def _with_sampler(node: "WorkflowNode", name: str) -> "WorkflowNode":
    return replace(node, inputs={**node.inputs, "sampler_name": name})
