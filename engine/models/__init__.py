"""Models as values: `load_checkpoint` and its siblings read files; `Model`, `Clip` and `Vae` travel in graphs."""

from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.controlnet import Control, ControlNet
from sigmagraph.engine.models.files.lora import Adapter, load_adapter
from sigmagraph.engine.models.load import (
    Checkpoint,
    load_checkpoint,
    load_controlnet,
    load_diffusion_model,
    load_text_encoders,
    load_vae,
)
from sigmagraph.engine.models.spec import LatentFormat, ModelSpec
from sigmagraph.engine.models.text.clip import Clip
from sigmagraph.engine.models.value import Model, Vae

__all__ = [
    "Adapter",
    "Checkpoint",
    "Clip",
    "Conditioning",
    "Control",
    "ControlNet",
    "LatentFormat",
    "Model",
    "ModelSpec",
    "Vae",
    "load_adapter",
    "load_checkpoint",
    "load_controlnet",
    "load_diffusion_model",
    "load_text_encoders",
    "load_vae",
]
