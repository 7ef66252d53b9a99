"""LoRA and its kin on a model and its text encoders: the loaded weights stay as they are, a merged twin predicts."""

import logging
from typing import Annotated, Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import FileIn, Output, Range, Tooltip, node
from sigmagraph.engine.models import Adapter, load_adapter
from sigmagraph.engine.models import Clip as ClipValue
from sigmagraph.nodes.support.types import Clip, Engine, Model

__all__ = ["NODES"]

logger = logging.getLogger(__name__)

LoraName = Annotated[
    str, FileIn("loras"), Tooltip("A file in models/loras: LoRA, LoHa, LoKr, DoRA or full differences.")
]
Strength = Annotated[
    float, Range(-100.0, 100.0, step=0.01), Tooltip("How much of the change; negative turns it round.")
]
PARTS = (
    Output("MODEL", tooltip="The model with the adapter."),
    Output("CLIP", tooltip="The encoders with the adapter."),
)


@node("LoraLoader", category="loaders", display_name="Load LoRA", lane="device", outputs=PARTS)
def load_lora(
    *,
    model: Annotated[Model, Tooltip("The diffusion model that the adapter changes.")],
    clip: Annotated[Clip, Tooltip("The text encoders that it changes, if it holds anything for them.")],
    lora_name: LoraName,
    strength_model: Strength = 1.0,
    strength_clip: Strength = 1.0,
    services: Engine,
) -> tuple[Model, Clip]:
    """Put an adapter on a model and its text encoders; several in a row add up."""
    adapter = load_adapter(services.path("loras", lora_name))
    _require_use(lora_name, adapter, [*model.fitting(adapter), *_fitting(clip, adapter)])
    return model.with_adapter(adapter, strength_model), _changed(clip, adapter, strength_clip)


@node("LoraLoaderModelOnly", category="loaders", display_name="LoraLoaderModelOnly", lane="device")
def load_lora_model_only(
    *, model: Model, lora_name: LoraName, strength_model: Strength = 1.0, services: Engine
) -> Model:
    """Put an adapter on the diffusion model alone; what it holds for text encoders is not used."""
    adapter = load_adapter(services.path("loras", lora_name))
    _require_use(lora_name, adapter, list(model.fitting(adapter)))
    return model.with_adapter(adapter, strength_model)


def _fitting(clip: ClipValue | None, adapter: Adapter) -> list[str]:
    return [key for slots in clip.fitting(adapter).values() for key in slots] if clip is not None else []


def _changed(clip: ClipValue | None, adapter: Adapter, strength: float) -> Any:
    """A checkpoint may hold no encoders; the node that needs them tells."""
    return clip.with_adapter(adapter, strength) if clip is not None else None


def _require_use(name: str, adapter: Adapter, used: list[str]) -> None:
    """An adapter of another model family changes nothing, which is never what was meant."""
    unused = adapter.unused(used)
    if not used:
        raise BadValue(
            "lora_name", name, f"an adapter for this model; it has no place for '{unused[0]}', nor for any other"
        )
    if unused:
        logger.warning("%s: %d of its keys have no place here, '%s' first", name, len(unused), unused[0])


NODES = (load_lora, load_lora_model_only)
