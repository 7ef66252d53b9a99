"""Pictures enlarged by a network of their own."""

from collections.abc import Generator
from typing import Annotated

from sigmagraph.engine.graph.node import FileIn, Progress, Socket, Tooltip, node
from sigmagraph.engine.models.upscale import Upscaler, load_upscaler
from sigmagraph.nodes.models.loaders import computing
from sigmagraph.nodes.support.types import Engine, Image

__all__ = ["NODES"]

UpscaleModel = Annotated[Upscaler, Socket("UPSCALE_MODEL")]
UpscaleName = Annotated[str, FileIn("upscale_models"), Tooltip("A safetensors file in models/upscale_models.")]


@node("UpscaleModelLoader", category="loaders", display_name="Load Upscale Model", lane="device", fingerprint=computing)
def load_upscale_model(*, model_name: UpscaleName, services: Engine) -> UpscaleModel:
    """Load a network that enlarges or restores pictures: ESRGAN, SwinIR, DAT, SPAN, Compact and some forty others."""
    return load_upscaler(services.path("upscale_models", model_name))


@node(
    "ImageUpscaleWithModel",
    category="image/upscaling",
    display_name="Upscale Image (using Model)",
    lane="device",
    outputs=["IMAGE"],
)
def image_upscale_with_model(*, upscale_model: UpscaleModel, image: Image) -> Generator[Progress, None, Image]:
    """Enlarge by the model's own factor, in tiles of 512 pixels that fade into each other."""
    steps = upscale_model.enlarged(image)
    try:
        while True:
            done, whole = next(steps)
            yield Progress(done, whole)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # what the generator returns


NODES = (load_upscale_model, image_upscale_with_model)
