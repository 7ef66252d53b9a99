"""ControlNets: loading one, and letting it act on conditionings with a picture as its hint."""

from typing import Annotated, Literal

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import FileIn, Multiline, Options, Output, Range, Tooltip, node
from sigmagraph.engine.models.conditioning import Conditioning as ConditioningValue
from sigmagraph.engine.models.controlnet import NEEDS_VAE, Control, Convention, HintEncoder, in_turn
from sigmagraph.engine.models.controlnet import ControlNet as ControlNetValue
from sigmagraph.engine.models.load import load_controlnet
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.nodes.conditioning.conditioning import NO_CLIP, learned_words
from sigmagraph.nodes.models.loaders import computing
from sigmagraph.nodes.support.types import (
    NO_VAE,
    Clip,
    Conditioning,
    ControlNet,
    Engine,
    Image,
    Mask,
    Model,
    Vae,
    present,
)

__all__ = ["NODES"]

NetName = Annotated[str, FileIn("controlnet"), Tooltip("A file in models/controlnet.")]
Strength = Annotated[float, Range(0.0, 10.0, step=0.01), Tooltip("What the net adds is multiplied by this.")]
Percent = Annotated[float, Range(0.0, 1.0, step=0.001), Tooltip("0 is pure noise, 1 the finished picture.")]
PAIR = (Output("CONDITIONING", "positive"), Output("CONDITIONING", "negative"))
CATEGORY = "conditioning/controlnet"
# the types of union ControlNets by their numbers; `auto` names none
UNION_TYPES = (
    *("openpose", "depth", "hed/pidi/scribble/ted", "canny/lineart/anime_lineart/mlsd"),
    *("normal", "segment", "tile", "repaint"),
)


@node(
    "ControlNetLoader",
    category="loaders",
    revision=2,
    display_name="Load ControlNet Model",
    lane="device",
    fingerprint=computing,
)
def load_control_net(*, control_net_name: NetName, services: Engine) -> ControlNet:
    """Load a ControlNet of SD3 or SD3.5; docs/models.md lists which files are known and what each needs."""
    return load_controlnet(services.path("controlnet", control_net_name))


@node(
    "DiffControlNetLoader",
    category="loaders",
    revision=2,
    display_name="Load ControlNet Model (diff)",
    lane="device",
    fingerprint=computing,
)
def load_diff_control_net(*, model: Model, control_net_name: NetName, services: Engine) -> ControlNet:
    """Load a ControlNet. Of this family none is stored as a difference from a model, so the model is not read."""
    return load_controlnet(services.path("controlnet", control_net_name))


@node("ControlNetApply", category=CATEGORY, display_name="Apply ControlNet (OLD)", deprecated=True)
def apply_control_net(
    *, conditioning: Conditioning, control_net: ControlNet, image: Image, strength: Strength = 1.0
) -> Conditioning:
    """Let a ControlNet act on a conditioning, and on the other side of guidance, for the whole way.

    Those of this family need an autoencoder, which this node has no input for: use Apply ControlNet.
    """
    if strength == 0:
        return conditioning
    return conditioning.with_control(_control(control_net, image, None, strength), is_shared=True)


@node("ControlNetApplyAdvanced", category=CATEGORY, display_name="Apply ControlNet", outputs=PAIR)
def apply_control_net_advanced(
    *,
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlNet,
    image: Image,
    strength: Strength = 1.0,
    start_percent: Percent = 0.0,
    end_percent: Percent = 1.0,
    vae: Vae | None = None,
) -> tuple[Conditioning, Conditioning]:
    """Let a ControlNet act on both sides of guidance for a part of the way; several add up."""
    return _applied(positive, negative, control_net, image, vae, strength, start_percent, end_percent)


@node(
    "ControlNetApplySD3",
    category=CATEGORY,
    display_name="Apply Controlnet with VAE",
    deprecated=True,
    outputs=PAIR,
)
def apply_control_net_with_vae(
    *,
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlNet,
    vae: Vae,
    image: Image,
    strength: Strength = 1.0,
    start_percent: Percent = 0.0,
    end_percent: Percent = 1.0,
) -> tuple[Conditioning, Conditioning]:
    """As Apply ControlNet, with the autoencoder that ControlNets of this family need."""
    vae = present(vae, "vae", NO_VAE)
    return _applied(positive, negative, control_net, image, vae, strength, start_percent, end_percent)


@node("SetUnionControlNetType", category=CATEGORY)
def set_union_type(*, control_net: ControlNet, type: Annotated[str, Options(["auto", *UNION_TYPES])]) -> ControlNet:
    """Which hints a ControlNet of several types is given. There is none of this family, so nothing changes yet."""
    return control_net.with_options(control_type=[UNION_TYPES.index(type)] if type in UNION_TYPES else [])


@node("ControlNetConvention", category=CATEGORY, display_name="ControlNet Convention")
def set_convention(
    *, control_net: ControlNet, convention: Annotated[Literal["comfyui", "official"], Options(["comfyui", "official"])]
) -> ControlNet:
    """How hints are prepared: as ComfyUI does (so that its pictures come out again), or as the net was trained."""
    chosen: Convention = convention
    return control_net.following(chosen)


@node("ControlNetInpaintingAliMamaApply", category=CATEGORY, outputs=PAIR)
def apply_inpainting_control_net(
    *,
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlNet,
    vae: Vae,
    image: Image,
    mask: Mask,
    strength: Strength = 1.0,
    start_percent: Percent = 0.0,
    end_percent: Percent = 1.0,
) -> tuple[Conditioning, Conditioning]:
    """Let a ControlNet for inpainting fill what the mask covers; one for other hints is given the picture alone."""
    kept = None
    if control_net.takes_mask:
        kept = 1.0 - mask.reshape(-1, 1, *mask.shape[-2:])
        fitted = resized(kept, image.shape[2], image.shape[1], "bilinear", crop=True).round()
        image = image * in_turn(fitted.movedim(1, -1), len(image))
    vae = present(vae, "vae", NO_VAE)
    return _applied(positive, negative, control_net, image, vae, strength, start_percent, end_percent, kept)


@node(
    "CLIPTextEncodeControlnet",
    category="_for_testing/conditioning",
    experimental=True,
    lane="device",
    fingerprint=learned_words,
)
def encode_for_control_nets(
    *, clip: Clip, conditioning: Conditioning, text: Annotated[str, Multiline(dynamic_prompts=True)]
) -> Conditioning:
    """A text for ControlNets alone, which read it in place of the conditioning's."""
    encoded = present(clip, "clip", NO_CLIP).encode(text)
    return conditioning.with_extra(cross_attn_controlnet=encoded.context, pooled_output_controlnet=encoded.pooled)


def _applied(
    positive: ConditioningValue,
    negative: ConditioningValue,
    net: ControlNetValue,
    image: Tensor,
    vae: HintEncoder | None,
    strength: float,
    start: float,
    end: float,
    mask: Tensor | None = None,
) -> tuple[ConditioningValue, ConditioningValue]:
    """Both sides with one more control, which they share: they are asked about in one forward."""
    if strength == 0:
        return positive, negative
    control = _control(net, image, vae, strength, start, end, mask)
    return positive.with_control(control), negative.with_control(control)


def _control(
    net: ControlNetValue,
    image: Tensor,
    vae: HintEncoder | None,
    strength: float,
    start: float = 0.0,
    end: float = 1.0,
    mask: Tensor | None = None,
) -> Control:
    if vae is None and net.needs_vae:
        raise BadValue("vae", None, NEEDS_VAE)
    return Control(net, image, vae, strength, start, end, mask)


NODES = (
    load_control_net,
    load_diff_control_net,
    apply_control_net,
    apply_control_net_advanced,
    apply_control_net_with_vae,
    set_union_type,
    set_convention,
    apply_inpainting_control_net,
    encode_for_control_nets,
)
