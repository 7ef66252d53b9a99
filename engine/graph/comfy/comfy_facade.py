"""The other way round: a `Node` of ours as a class of ComfyUI's convention, for packs that call built-in nodes."""

from typing import Any

from sigmagraph.engine.graph.comfy.comfy_class import Border
from sigmagraph.engine.graph.node import Node, Services
from sigmagraph.engine.graph.results import UiResult


def as_class(node: Node, services: Services | None, border: Border) -> type:
    """A class whose `run` calls the node, with values translated on the way in and out."""

    def input_types() -> dict[str, Any]:
        declared: dict[str, Any] = node.object_info(services)["input"]
        return {
            group: {n: tuple(s) if isinstance(s, list) else s for n, s in inputs.items()}
            for group, inputs in declared.items()
        }

    method, *first = METHODS.get(node.class_type, "run").split()
    wire = [declared.name for group in ("required", "optional") for declared in node.group(group)]
    order = [*first, *(name for name in wire if name not in first)]

    def run(self: Any, *values: Any, **inputs: Any) -> Any:
        inputs |= zip(order, values, strict=False)
        inputs = {name: value for name, value in inputs.items() if name not in FILLED or name in node.declared}
        own = {name: _inward(node, name, value, border) for name, value in inputs.items()}
        own |= {wanted.name: services for wanted in node.hidden if wanted.type == "SERVICES"}
        own = {wanted.name: None for wanted in node.hidden if wanted.name in FILLED} | own
        returned = node(**own)
        ui = dict(returned.ui) if isinstance(returned, UiResult) and node.output_node else None  # else a report
        value = returned.value if isinstance(returned, UiResult) else returned
        values = value if len(node.outputs) > 1 else (value,) * len(node.outputs)
        result = tuple(_outward(output.type, item, border) for output, item in zip(node.outputs, values, strict=True))
        return result if ui is None else {"ui": ui, "result": result}

    attributes = {
        "INPUT_TYPES": staticmethod(input_types),
        "RETURN_TYPES": tuple(output.type for output in node.outputs),
        "RETURN_NAMES": tuple(output.name or output.type for output in node.outputs),
        "FUNCTION": method,
        "CATEGORY": node.category,
        "OUTPUT_NODE": node.output_node,
        "DESCRIPTION": node.description,
        "__module__": "nodes",
        "run": run,
        "execute": classmethod(lambda cls, *values, **inputs: run(cls, *values, **inputs)),
        method: run,
    }
    return type(node.class_type, (), attributes | _choices(node, services))


METHODS = {
    "AlignYourStepsScheduler": "get_sigmas",
    "BasicGuider": "get_guider",
    "BasicScheduler": "get_sigmas",
    "BetaSamplingScheduler": "get_sigmas",
    "CFGGuider": "get_guider",
    "CLIPLoader": "load_clip",
    "CLIPSetLastLayer": "set_last_layer",
    "CLIPTextEncode": "encode clip text",
    "CLIPTextEncodeSD3": "encode",
    "Canny": "detect_edge",
    "CheckpointLoader": "load_checkpoint",
    "CheckpointLoaderSimple": "load_checkpoint",
    "ConditioningAverage": "addWeighted",
    "ConditioningCombine": "combine",
    "ConditioningConcat": "concat",
    "ConditioningSetArea": "append",
    "ConditioningSetMask": "append conditioning mask set_cond_area strength",
    "ConditioningSetTimestepRange": "set_range",
    "ConditioningZeroOut": "zero_out",
    "ControlNetApply": "apply_controlnet",
    "ControlNetApplyAdvanced": "apply_controlnet",
    "ControlNetLoader": "load_controlnet",
    "CropMask": "crop",
    "DifferentialDiffusion": "apply",
    "DisableNoise": "get_noise",
    "DualCLIPLoader": "load_clip",
    "EmptyImage": "generate",
    "EmptyLatentImage": "generate",
    "ExponentialScheduler": "get_sigmas",
    "FeatherMask": "feather",
    "FlipSigmas": "get_sigmas",
    "GITSScheduler": "get_sigmas",
    "GrowMask": "expand_mask",
    "ImageBatch": "batch",
    "ImageBlend": "blend_images",
    "ImageBlur": "blur",
    "ImageCompositeMasked": "composite",
    "ImageCrop": "crop",
    "ImageFromBatch": "frombatch",
    "ImageInvert": "invert",
    "ImagePadForOutpaint": "expand_image",
    "ImageQuantize": "quantize",
    "ImageScale": "upscale",
    "ImageScaleBy": "upscale",
    "ImageSharpen": "sharpen",
    "ImageToMask": "image_to_mask",
    "ImageUpscaleWithModel": "upscale",
    "InpaintModelConditioning": "encode positive negative pixels vae mask noise_mask",
    "InvertMask": "invert",
    "JoinImageWithAlpha": "join_image_with_alpha",
    "KSampler": "sample",
    "KSamplerAdvanced": "sample",
    "KSamplerSelect": "get_sampler",
    "KarrasScheduler": "get_sigmas",
    "LatentBatch": "batch",
    "LatentBlend": "blend",
    "LatentComposite": "composite",
    "LatentCompositeMasked": "composite",
    "LatentCrop": "crop",
    "LatentFlip": "flip",
    "LatentFromBatch": "frombatch",
    "LatentRotate": "rotate",
    "LatentUpscale": "upscale",
    "LatentUpscaleBy": "upscale",
    "LoadImage": "load_image",
    "LoadImageMask": "load_image",
    "LoraLoader": "load_lora",
    "LoraLoaderModelOnly": "load_lora_model_only",
    "MaskComposite": "combine",
    "MaskToImage": "mask_to_image",
    "ModelMergeSimple": "merge",
    "ModelSamplingAuraFlow": "patch_aura",
    "ModelSamplingSD3": "patch",
    "OptimalStepsScheduler": "get_sigmas",
    "PolyexponentialScheduler": "get_sigmas",
    "PreviewImage": "save_images",
    "RandomNoise": "get_noise",
    "RepeatImageBatch": "repeat",
    "RepeatLatentBatch": "repeat",
    "SDTurboScheduler": "get_sigmas",
    "SamplerCustom": "sample",
    "SamplerCustomAdvanced": "sample",
    "SaveImage": "save_images",
    "SetLatentNoiseMask": "set_mask",
    "SolidMask": "solid",
    "SplitImageWithAlpha": "split_image_with_alpha",
    "SplitSigmas": "get_sigmas",
    "SplitSigmasDenoise": "get_sigmas",
    "UNETLoader": "load_unet",
    "UpscaleModelLoader": "load_model",
    "VAEDecode": "decode vae samples",
    "VAEDecodeTiled": "decode vae samples tile_size overlap",
    "VAEEncode": "encode vae pixels",
    "VAEEncodeForInpaint": "encode vae pixels mask grow_mask_by",
    "VAEEncodeTiled": "encode vae pixels tile_size overlap",
    "VAELoader": "load_vae",
}
"""By which packs call a class instead of asking for its FUNCTION; then the order of what they hand over unnamed, where
it is not that of the inputs."""
FILLED = frozenset(("extra_pnginfo", "prompt", "unique_id"))
"""Hidden inputs that packs hand over; a node here is given them by the engine."""
LISTS = {"upscale_method": "upscale_methods", "crop": "crop_methods", "rescale_algorithm": "rescale_algorithms"}


def _choices(node: Node, services: Services | None) -> dict[str, Any]:
    """Lists of choices under the attribute names that packs read them by."""
    return {
        LISTS[declared.name]: declared.allowed(services)
        for declared in node.inputs
        if declared.name in LISTS and declared.choices is not None
    }


def _inward(node: Node, name: str, value: Any, border: Border) -> Any:
    declared = node.declared.get(name)
    crossing = border.translations.get(str(declared.type)) if declared is not None else None
    return crossing.back(value) if crossing is not None and value is not None else value


def _outward(wire: str, value: Any, border: Border) -> Any:
    crossing = border.translations.get(wire)
    return crossing.out(value) if crossing is not None and value is not None else value
