"""How our values cross into node classes of ComfyUI's convention and back: dicts and lists there, records here."""

from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.graph.comfy.comfy_class import Border, Translation
from sigmagraph.nodes.support.packs.clips import PackClip, clip_of
from sigmagraph.nodes.support.packs.conditioning import conditioning_back, conditioning_out
from sigmagraph.nodes.support.packs.controls import PackControlNet, net_of
from sigmagraph.nodes.support.packs.guiders import guider_of, guider_out
from sigmagraph.nodes.support.packs.hooks import HookGroup, KeyframeGroup, hooks_of, keyframes_of
from sigmagraph.nodes.support.packs.models import ModelPatcher, model_of
from sigmagraph.nodes.support.packs.noise import noise_of, noise_out
from sigmagraph.nodes.support.packs.samplers import sampler_of, sampler_out
from sigmagraph.nodes.support.packs.vaes import PackVae, vae_of
from sigmagraph.nodes.support.types import LatentValue

__all__ = ["border"]


def border(watches: bool = False) -> Border:
    """The table for packs; `watches` fails a node that edits an input in place instead of shrugging it off."""
    return Border(TRANSLATIONS, watches)


def _latent_out(latent: LatentValue) -> dict[str, Any]:
    made: dict[str, Any] = {**latent.extra, "samples": latent.samples}
    if latent.noise_mask is not None:
        made["noise_mask"] = latent.noise_mask.reshape(-1, 1, *latent.noise_mask.shape[-2:])
    if latent.batch_index is not None:
        made["batch_index"] = list(latent.batch_index)
    return made


def _latent_back(latent: Any) -> Any:
    if not isinstance(latent, dict) or "samples" not in latent:
        return latent
    extra = dict(latent)
    samples, mask, index = (extra.pop(name, None) for name in ("samples", "noise_mask", "batch_index"))
    if mask is not None:  # [B, 1, H, W], or what some packs write: [B, H, W], [H, W]
        mask = mask[:, 0] if mask.dim() == 4 else mask.reshape(-1, *mask.shape[-2:])
    return LatentValue(samples, mask, tuple(index) if index is not None else None, extra)


def _sigmas_out(sigmas: tuple[float, ...]) -> Tensor:
    return torch.tensor(sigmas, dtype=torch.float32)


def _sigmas_back(sigmas: Any) -> Any:
    return tuple(float(sigma) for sigma in sigmas.tolist()) if isinstance(sigmas, Tensor) else sigmas


TRANSLATIONS = {
    "LATENT": Translation(_latent_out, _latent_back),
    "CONDITIONING": Translation(conditioning_out, conditioning_back),
    "SIGMAS": Translation(_sigmas_out, _sigmas_back),
    "CONTROL_NET": Translation(PackControlNet, net_of),
    "MODEL": Translation(ModelPatcher, model_of),
    "CLIP": Translation(PackClip, clip_of),
    "VAE": Translation(PackVae, vae_of),
    "SAMPLER": Translation(sampler_out, sampler_of),
    "GUIDER": Translation(guider_out, guider_of),
    "NOISE": Translation(noise_out, noise_of),
    "HOOKS": Translation(HookGroup.of, hooks_of),
    "HOOK_KEYFRAMES": Translation(KeyframeGroup.of, keyframes_of),
}
