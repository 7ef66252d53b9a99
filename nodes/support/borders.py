"""How our values cross into node classes of ComfyUI's convention and back: dicts and lists there, records here."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.graph.comfy_class import Border, Translation
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.nodes.support.types import LatentValue

__all__ = ["border"]

REGIONS = {"area", "mask", "strength", "control", "gligen"}  # parts of an entry that say where or how strongly


def border(watches: bool = False) -> Border:
    """The table for packs; `watches` fails a node that edits an input in place instead of shrugging it off."""
    return Border(TRANSLATIONS, watches)


def _latent_out(latent: LatentValue) -> dict[str, Any]:
    parts = {"samples": latent.samples, "noise_mask": latent.noise_mask, "batch_index": latent.batch_index}
    present = {name: part for name, part in parts.items() if part is not None}
    return present | ({"batch_index": list(latent.batch_index)} if latent.batch_index is not None else {})


def _latent_back(latent: Any) -> Any:
    if not isinstance(latent, dict) or "samples" not in latent:
        return latent
    index, mask = latent.get("batch_index"), latent.get("noise_mask")
    if mask is not None and mask.dim() == 4:  # [B, 1, H, W] is how some packs write it
        mask = mask[:, 0]
    return LatentValue(latent["samples"], mask, tuple(index) if index is not None else None)


def _conditioning_out(conditioning: Conditioning) -> list[Any]:
    return [[one.context, {"pooled_output": one.pooled} | _times_out(one)] for one in conditioning.entries]


def _times_out(conditioning: Conditioning) -> dict[str, float]:
    times = {"start_percent": conditioning.start, "end_percent": conditioning.end}
    return times if (conditioning.start, conditioning.end) != (0.0, 1.0) else {}


def _conditioning_back(entries: Any) -> Any:
    """The entries with their times; what else an entry may carry is refused where it would change the picture."""
    if not isinstance(entries, list) or not entries:
        return entries
    first, *rest = (_entry_back(context, extra) for context, extra in entries)
    return replace(first, further=tuple(rest))


def _entry_back(context: Tensor, extra: dict[str, Any]) -> Conditioning:
    pooled = extra.get("pooled_output")
    if not isinstance(pooled, Tensor):
        raise ValueError("a conditioning without 'pooled_output'; expected the pooled vector of the text encoders")
    beyond = sorted(REGIONS & {name for name, value in extra.items() if value is not None})
    if beyond:
        raise ValueError(f"a conditioning with {', '.join(beyond)}; expected entries that differ in text and time only")
    return Conditioning(context, pooled, extra.get("start_percent", 0.0), extra.get("end_percent", 1.0))


def _sigmas_out(sigmas: tuple[float, ...]) -> Tensor:
    return torch.tensor(sigmas, dtype=torch.float32)


def _sigmas_back(sigmas: Any) -> Any:
    return tuple(float(sigma) for sigma in sigmas.tolist()) if isinstance(sigmas, Tensor) else sigmas


TRANSLATIONS = {
    "LATENT": Translation(_latent_out, _latent_back),
    "CONDITIONING": Translation(_conditioning_out, _conditioning_back),
    "SIGMAS": Translation(_sigmas_out, _sigmas_back),
}
