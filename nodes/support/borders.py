"""How our values cross into node classes of ComfyUI's convention and back: dicts and lists there, records here."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.graph.comfy.comfy_class import Border, Translation
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.hooks import Hook
from sigmagraph.engine.models.regions import Area, Region
from sigmagraph.nodes.support.pack_controls import PackControlNet, chain_of, controls_of, net_of
from sigmagraph.nodes.support.pack_models import ModelPatcher, model_of
from sigmagraph.nodes.support.pack_samplers import sampler_of
from sigmagraph.nodes.support.types import LatentValue

__all__ = ["border"]

FOREIGN = {"gligen"}  # parts of an entry that change the picture and are not ours
REGIONS = {"area", "mask", "strength", "mask_strength", "set_area_to_bounds", "default"}
CONTROL = {"control", "control_apply_to_uncond"}
KNOWN = REGIONS | CONTROL | {"hooks", "pooled_output", "start_percent", "end_percent"}


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
    return [[one.context, _entry_out(one)] for one in conditioning.entries]


def _entry_out(entry: Conditioning) -> dict[str, Any]:
    parts: dict[str, Any] = {} if entry.pooled is None else {"pooled_output": entry.pooled}
    if (entry.start, entry.end) != (0.0, 1.0):
        parts |= {"start_percent": entry.start, "end_percent": entry.end}
    if entry.hooks:
        parts["hooks"] = entry.hooks
    if entry.controls:
        parts |= {"control": chain_of(entry.controls), "control_apply_to_uncond": entry.shares_controls}
    return parts | _region_out(entry.region) | dict(entry.extra)


def _region_out(region: Region | None) -> dict[str, Any]:
    if region is None:
        return {}
    parts: dict[str, Any] = {"area": None, "strength": region.strength, "mask": region.mask}
    if (area := region.area) is not None:
        sides = (area.height, area.width, area.top, area.left)
        parts["area"] = ("percentage", *sides) if area.is_share else sides
    if region.mask is not None:
        parts["mask_strength"] = region.mask_strength
    if region.fits_mask is not None:
        parts["set_area_to_bounds"] = region.fits_mask
    if region.fills:
        parts["default"] = True
    return {name: part for name, part in parts.items() if part is not None}


def _conditioning_back(entries: Any) -> Any:
    """The entries with times, regions and ControlNets; what is not ours and would change the picture is refused."""
    if not isinstance(entries, list) or not entries:
        return entries
    first, *rest = (_entry_back(context, extra) for context, extra in entries)
    return replace(first, further=tuple(rest))


def _entry_back(context: Tensor, extra: dict[str, Any]) -> Conditioning:
    beyond = sorted(FOREIGN & {name for name, value in extra.items() if value is not None})
    if beyond:
        raise ValueError(f"a conditioning with {', '.join(beyond)}; expected one that differs in text, time and place")
    return Conditioning(
        context,
        extra.get("pooled_output"),
        extra.get("start_percent", 0.0),
        extra.get("end_percent", 1.0),
        region=_region_back(extra),
        extra={name: value for name, value in extra.items() if name not in KNOWN},
        hooks=_hooks_back(extra.get("hooks")),
        controls=controls_of(extra.get("control")),
        shares_controls=bool(extra.get("control_apply_to_uncond", False)),
    )


def _hooks_back(hooks: Any) -> tuple[Hook, ...]:
    """Hooks of ours travel through packs as they are; a pack's own cannot act here."""
    if hooks is None:
        return ()
    if not isinstance(hooks, tuple) or not all(isinstance(hook, Hook) for hook in hooks):
        raise ValueError("a conditioning with hooks of a pack; expected those that CreateHookLora makes")
    return hooks


def _region_back(extra: dict[str, Any]) -> Region | None:
    if not REGIONS & {name for name, value in extra.items() if value is not None}:
        return None
    return Region(
        _area_back(extra.get("area")),
        extra.get("mask"),
        extra.get("strength"),
        float(extra.get("mask_strength", 1.0)),
        extra.get("set_area_to_bounds"),
        bool(extra.get("default", False)),
    )


def _area_back(area: Any) -> Area | None:
    if area is None:
        return None
    is_share = area[0] == "percentage"
    height, width, top, left = area[1:] if is_share else area
    return Area(height, width, top, left, is_share)


def _sigmas_out(sigmas: tuple[float, ...]) -> Tensor:
    return torch.tensor(sigmas, dtype=torch.float32)


def _sigmas_back(sigmas: Any) -> Any:
    return tuple(float(sigma) for sigma in sigmas.tolist()) if isinstance(sigmas, Tensor) else sigmas


TRANSLATIONS = {
    "LATENT": Translation(_latent_out, _latent_back),
    "CONDITIONING": Translation(_conditioning_out, _conditioning_back),
    "SIGMAS": Translation(_sigmas_out, _sigmas_back),
    "CONTROL_NET": Translation(PackControlNet, net_of),
    "MODEL": Translation(ModelPatcher, model_of),
    "SAMPLER": Translation(lambda sampler: sampler, sampler_of),
}
