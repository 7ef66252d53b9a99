"""The composition of a worker: the node library, torch, the cache. Named by `serve`, called in the worker process."""

import importlib.metadata
import logging
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.compose.caching import open_store
from sigmagraph.engine.compose.choosing import choose
from sigmagraph.engine.compose.companions import missing_tokenizers
from sigmagraph.engine.compose.owners import folders_of
from sigmagraph.engine.compose.pack_routes import serve_routes
from sigmagraph.engine.compose.packs import load_custom_nodes
from sigmagraph.engine.compose.plugins import load_what_loads
from sigmagraph.engine.compose.shims.serving import PromptServer
from sigmagraph.engine.errors import EngineError, UnknownName
from sigmagraph.engine.execution.cache.settings import CacheSettings
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.packs import Pack
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.host import free_bytes
from sigmagraph.engine.jobs.workers.worker import Picture, Setup
from sigmagraph.engine.models.load import load_tiny_vae
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.models.spec import LatentFormat
from sigmagraph.engine.sampling.facts import every_fact
from sigmagraph.nodes.latents.previews import Previewer
from sigmagraph.nodes.models.loaders import TAESD3, VAE_FILES
from sigmagraph.nodes.support.provenance import environment, known_revisions

__all__ = ["build", "folders_from"]

log = logging.getLogger(__name__)


def folders_from(options: Mapping[str, Any]) -> Folders:
    """The folders as `serve` wrote them down."""
    extra = {name: [Path(path) for path in paths] for name, paths in options.get("extra", {}).items()}
    models, inputs, outputs, temporary = (Path(options[name]) for name in ("models", "input", "output", "temp"))
    aliases = {
        name: {folder: Path(to) for folder, to in names.items()} for name, names in options.get("aliases", {}).items()
    }
    return Folders(models, inputs, outputs, temporary, extra, aliases, missing_tokenizers)


def build(options: Mapping[str, Any]) -> Setup:
    """Everything a worker needs, from options that are JSON."""
    load_what_loads([Path(file) for file in options.get("plugins", ())], lambda error: log.error("left out: %s", error))
    choose(*(str(options.get(name, "auto")) for name in ("precision", "memory", "device", "compile")))
    RESIDENCY.keeps_unknown = True  # the next job brings the recipe again, also where results are not cached
    base = folders_from(options)
    budget, folder = str(options.get("cache", "disk=0")), Path(options.get("cache_folder", base.temp_dir / "cache"))
    cache = open_store(CacheSettings.parse(budget), folder, lambda message: log.warning("cache: %s", message))

    def free(unload_models: bool, free_memory: bool) -> None:
        if free_memory:
            cache.clear()
        if unload_models or free_memory:
            RESIDENCY.free()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    packs: list[Pack] = []
    nodes = _nodes(options, base, packs)
    told = {"packs": _packs(options, packs)}
    return Setup(
        nodes=nodes,
        services=folders_of(base),
        cache=cache,
        encode_preview=_encoder(bool(options.get("previews", True)), base),
        around=torch.inference_mode,
        free=free,
        relieve=RESIDENCY.relieve,
        stats=lambda: {**_stats(), **told},
        counts=RESIDENCY.counts,
        batch_evaluations=int(options.get("batch_evaluations", 1)),
    )


def _encoder(shows_latents: bool, base: Folders) -> Callable[[Any], Picture | None]:
    """What turns a node's preview into a picture; results are sent whether or not latents are shown."""
    previewer = Previewer(pause_s=0.1 if shows_latents else math.inf, decode=_tiny_decoder(base))

    def encode(value: Any) -> Picture | None:
        shown = previewer(value)
        return Picture(shown.content_type, shown.data, {"is_result": shown.is_result}) if shown is not None else None

    return encode


def _tiny_decoder(base: Folders) -> Callable[[Tensor], Tensor] | None:
    """TAESD3 where its files are, opened now and read when the first preview asks."""
    try:
        encoder, decoder = VAE_FILES.paths(base, TAESD3)
        tiny = load_tiny_vae(encoder, decoder)
    except UnknownName:
        return None
    except EngineError as error:
        log.warning("no previews by TAESD3: %s", error)
        return None
    in_vae_units = LatentFormat().to_vae
    return lambda latent: tiny.decode(in_vae_units(latent))[0]


def _nodes(options: Mapping[str, Any], base: Folders, packs: list[Pack]) -> Mapping[str, Node]:
    """The built-in nodes and those of the packs the operator named; what does not load is logged and left out."""
    directories = [Path(path) for path in options.get("custom_nodes", ())]

    def listed(pack: Pack) -> None:
        log.warning("node pack %s", pack)
        packs.append(pack)

    return load_custom_nodes(directories, base, listed, bool(options.get("watch_edits")))


def _packs(options: Mapping[str, Any], packs: Sequence[Pack]) -> dict[str, Any]:
    """What packs bring for the page: folders of scripts, and routes where they are served."""
    web = {pack.name: str(pack.web) for pack in packs if pack.web is not None}
    place = options.get("pack_socket")
    return {"web": web, "routes": serve_routes(PromptServer.instance, Path(place)) if place else []}


def _stats() -> dict[str, Any]:
    return {
        "devices": [_device(RESIDENCY.choices.on)],
        "torch": importlib.metadata.version("torch"),
        "environment": environment(),
        "revisions": known_revisions(),
        "sampling": every_fact(),
    }


def _device(device: torch.device) -> dict[str, Any]:
    """One device in the words of `/system_stats`; bytes."""
    if device.type != "cuda":
        free = free_bytes()
        sizes = {"vram_total": free, "vram_free": free, "torch_vram_total": free, "torch_vram_free": free}
        return {"name": platform.processor() or "cpu", "type": device.type, "index": None, **sizes}
    free, total = torch.cuda.mem_get_info(device)
    held, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    name = f"{device} {torch.cuda.get_device_name(device)}"
    sizes = {"vram_total": total, "vram_free": free, "torch_vram_total": held, "torch_vram_free": held - used}
    return {"name": name, "type": "cuda", "index": device.index, **sizes}
