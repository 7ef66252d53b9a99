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

    order = [declared.name for group in ("required", "optional") for declared in node.group(group)]

    def run(self: Any, *values: Any, **inputs: Any) -> Any:
        inputs |= zip(order, values, strict=False)
        own = {name: _inward(node, name, value, border) for name, value in inputs.items()}
        own |= {wanted.name: services for wanted in node.hidden if wanted.type == "SERVICES"}
        returned = node(**own)
        ui = dict(returned.ui) if isinstance(returned, UiResult) else None
        value = returned.value if isinstance(returned, UiResult) else returned
        values = value if len(node.outputs) > 1 else (value,) * len(node.outputs)
        result = tuple(_outward(output.type, item, border) for output, item in zip(node.outputs, values, strict=True))
        return result if ui is None else {"ui": ui, "result": result}

    attributes = {
        "INPUT_TYPES": staticmethod(input_types),
        "RETURN_TYPES": tuple(output.type for output in node.outputs),
        "RETURN_NAMES": tuple(output.name or output.type for output in node.outputs),
        "FUNCTION": METHODS.get(node.class_type, "run"),
        "CATEGORY": node.category,
        "OUTPUT_NODE": node.output_node,
        "DESCRIPTION": node.description,
        "__module__": "nodes",
        "run": run,
        METHODS.get(node.class_type, "run"): run,
    }
    return type(node.class_type, (), attributes | _choices(node, services))


METHODS = {  # by which packs call a class instead of asking for its FUNCTION
    "ControlNetApply": "apply_controlnet",
    "ControlNetApplyAdvanced": "apply_controlnet",
    "ControlNetLoader": "load_controlnet",
    "ImageBlend": "blend_images",
    "ImageBlur": "blur",
    "ImageQuantize": "quantize",
    "ImageSharpen": "sharpen",
}
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
