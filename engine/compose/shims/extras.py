"""Built-in nodes as classes, where packs look for them: `nodes`, and `comfy_extras.<file>` as ComfyUI sorts them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.compose.shims.absent import absent_node
from sigmagraph.engine.compose.shims.patching import KSampler, sampler_object
from sigmagraph.engine.compose.shims.savers import savers
from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.comfy.comfy_class import Border
from sigmagraph.engine.graph.comfy.comfy_facade import as_class
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.engine.sampling.schedule import step_range
from sigmagraph.nodes.latents.composite import cycled, laid, weights_of
from sigmagraph.nodes.support.packs.guiders import PerpNegGuider

__all__ = ["names"]

FILES = Path(__file__).with_name("extras.json")  # file -> its node classes, from ComfyUI 0.3.64's object_info

POST = {"Blend": "ImageBlend", "Blur": "ImageBlur", "Quantize": "ImageQuantize", "Sharpen": "ImageSharpen"}
"""Classes whose names in their file are not those of their nodes."""


def names(folders: Folders, nodes: Mapping[str, Node], border: Border) -> dict[str, dict[str, Any]]:
    """The classes by module."""
    classes = {name: as_class(node, folders, border) for name, node in nodes.items()}
    classes |= savers(classes, folders)
    common_ksampler = _sampler(dict(classes))
    classes["KSamplerAdvanced"] = _advanced(classes["KSamplerAdvanced"], common_ksampler)
    files: dict[str, list[str]] = json.loads(FILES.read_text(encoding="utf-8"))
    extras = {
        module: {name: classes.get(name) or absent_node(f"{module}.{name}") for name in listed}
        for module, listed in files.items()
    }
    for short, name in POST.items():
        extras["comfy_extras.nodes_post_processing"][short] = classes[name]
    extras["comfy_extras.nodes_perpneg"]["Guider_PerpNeg"] = PerpNegGuider
    extras["comfy_extras.nodes_mask"]["composite"] = composite
    extras["comfy_extras.nodes_model_merging"]["save_checkpoint"] = _saver(classes, folders)
    given = {"NODE_CLASS_MAPPINGS": classes, "NODE_DISPLAY_NAME_MAPPINGS": _titles(nodes), "MAX_RESOLUTION": 16384}
    return {
        **{module: {**found, "NODE_CLASS_MAPPINGS": found} for module, found in extras.items()},
        "nodes": {
            **extras["nodes"],
            **classes,
            **given,
            "EXTENSION_WEB_DIRS": {},
            "common_ksampler": common_ksampler,
        },
    }


def _titles(nodes: Mapping[str, Node]) -> dict[str, str]:
    return {name: node.display_name or name for name, node in nodes.items()}


def composite(
    destination: Tensor,
    source: Tensor,
    x: int,
    y: int,
    mask: Tensor | None = None,
    multiplier: int = 8,
    resize_source: bool = False,
) -> Tensor:
    """`nodes_mask.composite`: planes [B, C, h, w] over others at a place in pixels, `multiplier` of them to a place."""
    if min(x, y) < 0:
        raise BadValue("composite's x and y", (x, y), "a place from 0")
    height, width = destination.shape[-2:]
    above = resized(source.to(destination), width, height, "bilinear") if resize_source else source.to(destination)
    above = cycled(above, len(destination))
    weights = torch.ones(above.shape[-2:]) if mask is None else weights_of(mask.float(), above, len(destination))
    return laid(destination, above, min(y // multiplier, height), min(x // multiplier, width), weights.to(destination))


def _saver(classes: Mapping[str, type], folders: Folders) -> Any:
    """`nodes_model_merging.save_checkpoint`, by the nodes that save whole checkpoints and models."""

    def save_checkpoint(
        model: Any,
        clip: Any = None,
        vae: Any = None,
        clip_vision: Any = None,
        filename_prefix: str = "",
        output_dir: str | None = None,
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> None:
        """Writes a checkpoint, or a model alone where neither encoders nor an autoencoder are given."""
        if output_dir is not None and Path(output_dir) != folders.output_dir:
            raise BadValue("save_checkpoint's output_dir", output_dir, f"the output folder, {folders.output_dir}")
        parts = {"clip": clip, "vae": vae, "clip_vision": clip_vision}
        given = [name for name, part in parts.items() if part is not None]
        if given not in ([], ["clip", "vae"]):
            raise BadValue("save_checkpoint's parts", ", ".join(given), "clip and vae, or neither")
        carried = {"filename_prefix": filename_prefix, "prompt": prompt, "extra_pnginfo": extra_pnginfo}
        if given:
            classes["CheckpointSave"]().run(model=model, clip=clip, vae=vae, **carried)
        else:
            classes["ModelSave"]().run(model=model, **carried)

    return save_checkpoint


def _sampler(classes: Mapping[str, type]) -> Any:
    """`nodes.common_ksampler`, by the advanced sampler node."""

    def common_ksampler(
        model: Any,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Any,
        negative: Any,
        latent: Any,
        denoise: float = 1.0,
        disable_noise: bool = False,
        start_step: int | None = None,
        last_step: int | None = None,
        force_full_denoise: bool = False,
    ) -> Any:
        """A latent sampled; with `denoise` below 1 the last part of a longer run."""
        both = {"model": model, "steps": steps, "cfg": cfg, "sampler_name": sampler_name, "scheduler": scheduler}
        both |= {"positive": positive, "negative": negative, "latent_image": latent}
        if start_step is None and last_step is None and not disable_noise:
            return classes["KSampler"]().run(seed=seed, denoise=denoise, **both)
        start, end = start_step or 0, last_step if last_step is not None else 10_000
        if denoise < 1.0:
            whole = KSampler(model, steps, None, sampler_name, scheduler, denoise).sigmas.tolist()
            levels = torch.tensor(step_range(whole, start, end, not force_full_denoise), dtype=torch.float32)
            told = {"model": model, "add_noise": not disable_noise, "noise_seed": seed, "cfg": cfg}
            told |= {"positive": positive, "negative": negative, "latent_image": latent, "sigmas": levels}
            return classes["SamplerCustom"]().run(sampler=sampler_object(sampler_name), **told)[:1]
        noise = {"add_noise": "disable" if disable_noise else "enable", "noise_seed": seed}
        ends = {"start_at_step": start, "end_at_step": end}
        left = "disable" if force_full_denoise else "enable"
        return classes["KSamplerAdvanced"]().run(**noise, **ends, return_with_leftover_noise=left, **both)

    return common_ksampler


def _advanced(cls: type, common_ksampler: Any) -> type:
    """`KSamplerAdvanced` with the method packs call: unlike the node it takes `denoise`, which comes last."""

    def sample(
        self: Any,
        model: Any,
        add_noise: str,
        noise_seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Any,
        negative: Any,
        latent_image: Any,
        start_at_step: int,
        end_at_step: int,
        return_with_leftover_noise: str,
        denoise: float = 1.0,
    ) -> Any:
        """A part of a run, with or without noise at its start and at its end."""
        return common_ksampler(
            *(model, noise_seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise),
            disable_noise=add_noise == "disable",
            start_step=start_at_step,
            last_step=end_at_step,
            force_full_denoise=return_with_leftover_noise != "enable",
        )

    return type("KSamplerAdvanced", (cls,), {"sample": sample, "__module__": "nodes"})
