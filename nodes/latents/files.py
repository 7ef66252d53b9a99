"""Latents kept in files: safetensors with the tensor and the workflow that made it."""

import json
from datetime import datetime
from typing import Annotated

import torch
from safetensors.torch import save

from sigmagraph.engine.errors import CorruptFile
from sigmagraph.engine.graph.node import FileIn, UiResult, node
from sigmagraph.engine.models.files.read import open_weights
from sigmagraph.engine.writing import write_new
from sigmagraph.nodes.support.naming import series
from sigmagraph.nodes.support.types import Document, Engine, Latent, LatentValue, PictureInfo

__all__ = ["NODES"]

TENSOR, MARKER = "latent_tensor", "latent_format_version_0"
OLD_SCALE = 0.18215  # files without the marker hold latents as the first Stable Diffusion fed them to its network


@node("SaveLatent", category="_for_testing", display_name="SaveLatent", output_node=True)
def save_latent(
    *,
    samples: Latent,
    filename_prefix: str = "latents/ComfyUI",
    prompt: Document = None,
    extra_pnginfo: PictureInfo = None,
    services: Engine,
) -> UiResult:
    """Save a latent, without its mask, in the output folder; LoadLatent reads it from the input folder."""
    metadata = {"prompt": "" if prompt is None else json.dumps(prompt)}
    metadata |= {name: json.dumps(value) for name, value in (extra_pnginfo or {}).items()}
    data = save({TENSOR: samples.samples.contiguous(), MARKER: torch.tensor([])}, metadata)
    height, width = (side * 8 for side in samples.samples.shape[-2:])
    files = series(services.output_dir, filename_prefix, width, height, datetime.now().astimezone())
    path = write_new(files.folder, files.names(0, ".latent"), data)
    shown = {"filename": path.name, "subfolder": files.subfolder, "type": "output"}
    return UiResult(ui={"latents": [shown]})


@node("LoadLatent", category="_for_testing")
def load_latent(*, latent: Annotated[str, FileIn("latents")], services: Engine) -> Latent:
    """Read a latent file of the input folder."""
    path = services.path("latents", latent)
    weights = open_weights(path).weights
    if TENSOR not in weights:
        raise CorruptFile(path, f"holds no tensor '{TENSOR}', so it is not a latent")
    samples = weights[TENSOR].read().float().clone()
    if samples.ndim not in (4, 5) or not samples.numel():
        raise CorruptFile(
            path, f"holds a tensor of shape {list(samples.shape)}; expected [batch, channels, height, width]"
        )
    return LatentValue(samples if MARKER in weights else samples * (1.0 / OLD_SCALE))


NODES = (save_latent, load_latent)
