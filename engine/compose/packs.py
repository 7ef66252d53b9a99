"""Custom node folders for a process: the names of ours that packs import, and the loader with our border."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.compose.shims import shim_names, vision
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
from sigmagraph.engine.models.files.read import open_weights
from sigmagraph.engine.models.load import load_checkpoint, load_diffusion_model
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.borders import border
from sigmagraph.nodes.support.pack_models import ModelPatcher

__all__ = ["load_custom_nodes"]


def load_custom_nodes(
    directories: Sequence[Path], folders: Folders, listed: Callable[[Pack], None], watches: bool = False
) -> Mapping[str, Node]:
    """The built-in nodes, those of installed distributions, and those of the packs in the folders.

    A name that is taken is never replaced. `listed` hears of each pack, with what was left out.
    """
    if not directories and not entry_points(group=INSTALLED):
        return NODES
    if any(True for directory in directories for _ in candidates(directory)):
        for folder in (folders.input_dir, folders.output_dir, folders.temp_dir):
            folder.mkdir(parents=True, exist_ok=True)  # packs list them while they are imported
    table = border(watches)
    shims = shim_modules(folders, _further(folders, table))
    vision.offer()
    found = dict(NODES)
    packs = (*load_installed(shims, table), *load_packs(directories, shims, table))
    for pack in packs:
        taken = tuple(f"{name}: there is a node of that name already" for name in pack.nodes if name in found)
        listed(replace(pack, problems=(*pack.problems, *taken)))
        found = {**pack.nodes, **found}
    return with_replacements(found, packs)


def _further(folders: Folders, table: Border) -> dict[str, dict[str, Any]]:
    """What needs torch, samplers or the node library."""
    names = shim_names(folders, NODES, table)
    declared = NODES["KSampler"].declared
    samplers, schedulers = (declared[name].allowed(folders) for name in ("sampler_name", "scheduler"))
    own: dict[str, dict[str, Any]] = {
        "comfy.samplers": {
            "KSampler": type("KSampler", (), {"SAMPLERS": samplers, "SCHEDULERS": schedulers}),
            "SAMPLER_NAMES": samplers,
            "SCHEDULER_NAMES": schedulers,
        },
        "comfy.model_management": {
            "get_torch_device": lambda: RESIDENCY.choices.on,
            "intermediate_device": lambda: torch.device("cpu"),
            "get_free_memory": lambda *_, **__: free_bytes(),
            "soft_empty_cache": lambda *_, **__: None,
        },
        "comfy.sd": {"load_checkpoint_guess_config": _load_checkpoint, "load_diffusion_model": _load_diffusion_model},
        "comfy.utils": {"load_torch_file": _load},
    }
    for module, values in own.items():
        names.setdefault(module, {}).update(values)
    return names


def _load(path: str, safe_load: bool = True, device: torch.device | str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file; pickles are refused whatever `safe_load` says."""
    weights = open_weights(Path(path)).weights
    return {name: stored.read().clone().to(device) for name, stored in weights.items()}


def _load_checkpoint(path: str, *_: Any, **__: Any) -> tuple[Any, Any, Any, None]:
    """Model, text encoders and autoencoder of a checkpoint; the fourth place, an image encoder, stays empty."""
    parts = load_checkpoint(Path(path))
    return ModelPatcher(parts.model), parts.clip, parts.vae, None


def _load_diffusion_model(path: str, **_: Any) -> Any:
    return ModelPatcher(load_diffusion_model(Path(path)))
