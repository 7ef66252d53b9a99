"""How trainers name what an adapter changes: every style of base key -> a slot in our parameters.

Styles: kohya (original names with underscores), diffusers and PEFT (dotted), OneTrainer and SimpleTuner (diffusers'
names with underscores), generic (`diffusion_model.` or `text_encoders.` and the original name).
"""

from collections.abc import Iterable, Mapping

from sigmagraph.engine.models.files.rename import MMDIT_BLOCK, MMDIT_OUTER, ParameterSlot, mmdit_slot

MMDIT_ORIGINAL_PREFIXES = ("diffusion_model.", "model.diffusion_model.", "")
MMDIT_ORIGINAL_FLAT = ("lora_unet_",)
MMDIT_DIFFUSERS_PREFIXES = ("transformer.", "base_model.model.", "")
MMDIT_DIFFUSERS_FLAT = ("lora_transformer_", "lycoris_")
# per encoder: dotted prefixes, then prefixes of flattened names; transformers' class keeps `text_model.` out of memory
ENCODER_PREFIXES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "clip_l": (("text_encoder.text_model.", "text_encoders.clip_l.transformer.text_model."), ("lora_te1_text_model_",)),
    "clip_g": (
        ("text_encoder_2.text_model.", "text_encoders.clip_g.transformer.text_model."),
        ("lora_te2_text_model_",),
    ),
    "t5xxl": (("text_encoder_3.", "text_encoders.t5xxl.transformer."), ("lora_te3_",)),
}


def _modules(parameters: Iterable[str]) -> set[str]:
    """Module names and bare parameters: both can be what an adapter changes."""
    found: set[str] = set()
    for name in parameters:
        found |= {name, name.removesuffix(".weight").removesuffix(".bias")}
    return found


def _named(slots: Mapping[str, ParameterSlot], dotted: Iterable[str], flat: Iterable[str]) -> dict[str, ParameterSlot]:
    found: dict[str, ParameterSlot] = {}
    for module, slot in slots.items():
        found |= {prefix + module: slot for prefix in dotted}
        found |= {prefix + module.replace(".", "_"): slot for prefix in flat}
    return found


def mmdit_keys(parameters: Iterable[str], depth: int) -> dict[str, ParameterSlot]:
    """Base keys of every style -> slots of the transformer with these parameter names."""
    modules = _modules(parameters)
    foreign = [*MMDIT_OUTER, *(f"transformer_blocks.{i}.{inner}" for i in range(depth) for inner in MMDIT_BLOCK)]
    theirs = {module: slot for module in foreign if (slot := mmdit_slot(module, depth)) and slot.name in modules}
    ours = {module: ParameterSlot(module) for module in modules}
    return {
        **_named(theirs, MMDIT_DIFFUSERS_PREFIXES, MMDIT_DIFFUSERS_FLAT),
        **_named(ours, MMDIT_ORIGINAL_PREFIXES, MMDIT_ORIGINAL_FLAT),
    }


def encoder_keys(encoder: str, parameters: Iterable[str]) -> dict[str, ParameterSlot]:
    """Base keys of every style -> slots of the text encoder `clip_l`, `clip_g` or `t5xxl`."""
    dotted, flat = ENCODER_PREFIXES[encoder]
    return _named({module: ParameterSlot(module) for module in _modules(parameters)}, dotted, flat)
