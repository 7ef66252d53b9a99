"""Custom node folders for a process: the names of ours that packs import, and the loader with our border."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from sigmagraph.engine.compose.pack_keys import keyed_by_choices
from sigmagraph.engine.compose.shims import added, loading, patching, shim_names, vision
from sigmagraph.engine.errors import MissingFile
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.packs import (
    INSTALLED,
    Pack,
    load_installed,
    load_packs,
    shim_modules,
    with_replacements,
)
from sigmagraph.engine.execution.packs.loader import candidates
from sigmagraph.engine.graph.comfy.comfy_class import Border
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.host import free_bytes
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.models.text.clip import Clip
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.borders import border

__all__ = ["load_custom_nodes"]


def load_custom_nodes(
    directories: Sequence[Path], folders: Folders, listed: Callable[[Pack], None], watches: bool = False
) -> Mapping[str, Node]:
    """The built-in nodes, those of installed distributions, and those of the packs in the folders.

    A name that is taken is never replaced. `listed` hears of each pack, with what was left out.
    """
    if not directories and not entry_points(group=INSTALLED):
        return NODES
    for directory in directories:
        if not directory.is_dir():
            raise MissingFile(directory, "there is no such folder of node packs")
    if any(True for directory in directories for _ in candidates(directory)):
        for folder in (folders.input_dir, folders.output_dir, folders.temp_dir):
            folder.mkdir(parents=True, exist_ok=True)  # packs list them while they are imported
    table = border(watches)
    added.forget_added()
    shims = shim_modules(folders, _further(folders, table))
    vision.offer()
    found = dict(NODES)
    packs = (*load_installed(shims, table), *load_packs(directories, shims, table))
    added.take_in(shims)
    for pack in packs:
        taken = tuple(f"{name}: there is a node of that name already" for name in pack.nodes if name in found)
        listed(replace(pack, problems=(*pack.problems, *taken)))
        found = {**{name: keyed_by_choices(node) for name, node in pack.nodes.items()}, **found}
    return with_replacements(found, packs)


def _further(folders: Folders, table: Border) -> dict[str, dict[str, Any]]:
    """What needs torch, samplers or the node library."""
    names = shim_names(folders, NODES, table)
    declared = NODES["KSampler"].declared
    samplers, schedulers = (declared[name].allowed(folders) for name in ("sampler_name", "scheduler"))
    known, spreads = ([*map(str, one or ())] for one in (samplers, schedulers))
    patching.KSampler.SAMPLERS, patching.KSampler.SCHEDULERS = known, spreads  # the lists that packs add names to
    own: dict[str, dict[str, Any]] = {
        "comfy.samplers": {
            "KSAMPLER_NAMES": list(known),
            "SAMPLER_NAMES": known,
            "SCHEDULER_NAMES": spreads,
        },
        "comfy.model_management": {
            "get_torch_device": lambda: RESIDENCY.choices.on,
            "intermediate_device": lambda: torch.device("cpu"),
            "get_free_memory": lambda *_, **__: free_bytes(),
            "soft_empty_cache": lambda *_, **__: None,
        },
    }
    for part in (own, loading.names(lambda clip: _placed(clip, folders))):
        for module, values in part.items():
            names.setdefault(module, {}).update(values)
    return names


def _placed(clip: Clip, folders: Folders) -> Clip:
    """Its tokenizers and embeddings may lie in any of this installation's folders."""
    return clip.looking_in(folders.directories("tokenizers"), folders.directories("embeddings"))
